package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/shop/web"
)

// generator is a load under way.
type generator struct {
	cmd     *loadCmd
	c       *client
	skus    []string
	started atomic.Int64

	mu        sync.Mutex
	open      map[string]*checkout
	latencies []time.Duration
	effects   []time.Duration
	placedAt  map[string]time.Time // seen in Order's journal, not yet in Inventory's
	confirmed int64
	rejected  int64
}

type checkout struct {
	intended time.Time
	slot     chan struct{} // of its client, to take one out of at the end; nil is none
}

// loadProducts is how many products a load orders from.
const loadProducts = 200

func (g *generator) stockUp(ctx context.Context) error {
	all := make([]product, loadProducts)
	g.skus = make([]string, loadProducts)
	for i := range all {
		g.skus[i] = fmt.Sprintf("LOAD-%04d", i)
		all[i] = product{g.skus[i], "Load test product", "2.500", 1_000_000_000}
	}
	key := web.NewKey() // of this load: the next one brings its own stock
	return patiently(ctx, func() error { return g.c.postUnder(ctx, key, g.c.urls.Inventory+"/products/batch", all, nil) })
}

// watch follows the journals of Order and Inventory, to see checkouts end and
// orders take effect.
func (g *generator) watch(ctx context.Context, all *sync.WaitGroup) error {
	sources, err := g.c.sources()
	if err != nil {
		return err
	}
	f := follow.Observe("load", sources, g.seen)
	all.Go(func() { _ = f.Run(ctx) })
	for slices.ContainsFunc(f.Status(ctx), func(st follow.Status) bool { return st.State != follow.Running }) {
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// seen takes events of either journal.
func (g *generator) seen(_ context.Context, rs []freehold.Recorded) error {
	now := time.Now()
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, r := range rs {
		id := r.Stream.ID()
		switch r.Type.Name {
		case "order.placed":
			g.placedAt[id] = now
		case "stock.reserved", "stock.rejected":
			if at, ok := g.placedAt[id]; ok {
				g.effects = append(g.effects, now.Sub(at))
				delete(g.placedAt, id)
			}
		case "order.paid", "order.rejected", "order.cancelled":
			g.end(id, r.Type.Name == "order.paid", now)
		}
	}
	return nil
}

// end notes that a checkout has ended. The caller holds g.mu.
func (g *generator) end(id string, paid bool, now time.Time) {
	co := g.open[id]
	if co == nil {
		return
	}
	delete(g.open, id)
	g.latencies = append(g.latencies, now.Sub(co.intended))
	if paid {
		g.confirmed++
	} else {
		g.rejected++
	}
	if co.slot != nil {
		<-co.slot // never waits: the client has put one in
	}
}

// generate places orders until there are enough or time is up.
func (g *generator) generate(ctx context.Context, rate float64, begun time.Time) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	more := func() (int64, bool) {
		n := g.started.Add(1)
		if g.cmd.Orders > 0 {
			return n, n <= int64(g.cmd.Orders)
		}
		return n, time.Since(begun) < g.cmd.Duration
	}
	group, ctx := errgroup.WithContext(ctx)
	for range g.cmd.Concurrency {
		group.Go(func() error {
			r := rand.New(rand.NewPCG(rand.Uint64(), 1))
			mine := make(chan struct{}, g.cmd.InFlight)
			send, done := g.sender()
			defer done()
			var body []byte
			for {
				n, ok := more()
				if !ok {
					return nil
				}
				var intended time.Time
				if rate > 0 {
					after := time.Duration(float64(n-1) / rate * float64(time.Second))
					if g.cmd.Orders == 0 && after >= g.cmd.Duration {
						return nil
					}
					intended = begun.Add(after)
					if wait := time.Until(intended); wait > 0 {
						select {
						case <-time.After(wait):
						case <-ctx.Done():
							return ctx.Err()
						}
					}
				} else {
					select {
					case mine <- struct{}{}:
					case <-ctx.Done():
						return ctx.Err()
					}
					intended = time.Now()
				}
				co := &checkout{intended: intended}
				if rate == 0 {
					co.slot = mine
				}
				key := web.NewKey()
				body = g.order(body[:0], key, r)
				if err := g.place(ctx, key, body, co, send); err != nil {
					return err
				}
			}
		})
	}
	return group.Wait()
}

// sender returns what posts an order's body, for one client.
func (g *generator) sender() (send func(ctx context.Context, body []byte) ([]byte, error), done func()) {
	address := g.c.urls.Order + "/orders"
	if !g.c.balanced() {
		if s, ok := newSocket(address, g.c.token); ok {
			return s.post, s.close
		}
	}
	return func(ctx context.Context, body []byte) (answer []byte, err error) {
		err = g.c.post(ctx, address, json.RawMessage(bytes.Clone(body)), (*json.RawMessage)(&answer))
		return answer, err
	}, func() {}
}

// order appends the body of an order.
func (g *generator) order(b []byte, key string, r *rand.Rand) []byte {
	b = append(append(append(b, `{"key":"`...), key...), `","customer":"C`...)
	b = append(strconv.AppendInt(b, int64(r.IntN(10000)), 10), `","country":"Load","deadline_seconds":600,`...)
	if r.IntN(100) < g.cmd.Decline {
		b = append(b, `"simulate":"decline",`...)
	}
	b = append(b, `"lines":[`...)
	for i := range g.cmd.Lines {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(append(append(b, `{"sku":"`...), g.skus[r.IntN(loadProducts)]...), `","quantity":`...)
		b = append(strconv.AppendInt(b, int64(1+r.IntN(3)), 10), `,"price":"2.500"}`...)
	}
	return append(b, `]}`...)
}

// place sends one order. Its id is known before it is sent, because it comes from
// the key.
func (g *generator) place(ctx context.Context, key string, body []byte, co *checkout, send func(context.Context, []byte) ([]byte, error)) error {
	id := orderID(key)
	g.mu.Lock()
	g.open[id] = co
	g.mu.Unlock()
	var out struct{ ID string }
	err := patiently(ctx, func() error {
		answer, err := send(ctx, body)
		if err != nil {
			return err
		}
		return json.Unmarshal(answer, &out)
	})
	if err == nil && out.ID != id {
		return fmt.Errorf("order %s got the id %s, expected %s", key, out.ID, id)
	}
	return err
}

// drain waits for the checkouts that are under way.
func (g *generator) drain(ctx context.Context) error {
	for {
		g.mu.Lock()
		left := len(g.open)
		g.mu.Unlock()
		if left == 0 {
			return nil
		}
		select {
		case <-time.After(2 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (g *generator) show(ctx context.Context, p *progress, begun time.Time) {
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			g.mu.Lock()
			done, open := g.confirmed+g.rejected, len(g.open)
			g.mu.Unlock()
			p.at(done, "load: %d completed, %d under way, %.0f/s", done, open, float64(done)/time.Since(begun).Seconds())
		case <-ctx.Done():
			return
		}
	}
}

// orderID is the id that the Order service gives to a key.
func orderID(key string) string { return web.ID("order", key) }
