package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/shop/web"
)

// loadCmd places orders and audits the shop afterwards.
type loadCmd struct {
	target
	Duration    time.Duration `help:"For how long to place orders." default:"10s"`
	Orders      int           `help:"How many orders to place; --duration does not count then." placeholder:"N"`
	Concurrency int           `help:"How many clients." default:"64"`
	Rate        string        `help:"Orders per second, or max. With a number orders are sent at their times whatever the answers (open loop); with max each client sends the next when one of its orders has ended (closed loop)." default:"max"`
	InFlight    int           `help:"With --rate max, how many orders each client has under way." default:"16"`
	Lines       int           `help:"Lines of an order." default:"3"`
	Decline     int           `help:"Percentage of payments that are declined." default:"0" placeholder:"PCT"`
	JSON        bool          `help:"Print one JSON object."`
}

// loadReport is what load prints with --json.
type loadReport struct {
	Orders          int64         `json:"orders"`
	Confirmed       int64         `json:"confirmed"`
	Rejected        int64         `json:"rejected"`
	Seconds         float64       `json:"seconds"`
	OrdersPerSecond float64       `json:"orders_per_second"`
	Latency         latency       `json:"latency_ms"`
	Effect          effectLatency `json:"effect_latency_ms"`
	Audit           struct {
		Violations int `json:"violations"`
		Checks     int `json:"checks"`
	} `json:"audit"`
}

type latency struct {
	P50  float64 `json:"p50"`
	P90  float64 `json:"p90"`
	P99  float64 `json:"p99"`
	P999 float64 `json:"p999"`
	Max  float64 `json:"max"`
}

type effectLatency struct {
	P50 float64 `json:"p50"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

func (l *loadCmd) rate() (float64, error) {
	if l.Rate == "max" {
		return 0, nil
	}
	n, err := strconv.ParseFloat(l.Rate, 64)
	if err != nil || !(n >= 0.001 && n <= 1e6) { // NaN is refused too
		return 0, fmt.Errorf("--rate %s: want max, or a number from 0.001 to 1000000", l.Rate)
	}
	return n, nil
}

// check refuses numbers that no load can be run with.
func (l *loadCmd) check() error {
	for _, f := range []struct {
		name               string
		got, least, atMost int
	}{
		{"--orders", l.Orders, 0, 1_000_000_000}, {"--concurrency", l.Concurrency, 1, 10_000}, {"--in-flight", l.InFlight, 1, 10_000},
		{"--lines", l.Lines, 1, 1000}, {"--decline", l.Decline, 0, 100},
	} {
		if f.got < f.least || f.got > f.atMost {
			return fmt.Errorf("%s %d: want a number from %d to %d", f.name, f.got, f.least, f.atMost)
		}
	}
	if l.Duration <= 0 {
		return fmt.Errorf("--duration %s: want one above 0, such as 10s", l.Duration)
	}
	return nil
}

func (l *loadCmd) Run(ctx context.Context) error {
	rate, err := l.rate()
	if err != nil {
		return err
	}
	if err := l.check(); err != nil {
		return err
	}
	var report *loadReport
	var violations []string
	err = l.with(ctx, shopConfig{}, func(ctx context.Context, c *client) error {
		report, violations, err = l.load(ctx, c, rate)
		return err
	})
	if err != nil {
		return err
	}
	if l.JSON {
		raw, err := json.Marshal(report)
		if err != nil {
			return err
		}
		fmt.Println(string(raw))
	} else {
		fmt.Printf("%d orders in %.1f s: %.0f completed/s; %d confirmed, %d rejected\n", report.Orders, report.Seconds, report.OrdersPerSecond, report.Confirmed, report.Rejected)
		fmt.Printf("latency ms: p50 %.1f  p90 %.1f  p99 %.1f  p99.9 %.1f  max %.1f (from the intended time to the end of the checkout)\n", report.Latency.P50, report.Latency.P90, report.Latency.P99, report.Latency.P999, report.Latency.Max)
		fmt.Printf("commit to effect in another service, ms: p50 %.1f  p99 %.1f  max %.1f\n", report.Effect.P50, report.Effect.P99, report.Effect.Max)
		fmt.Printf("audit: %d checks, %d violations\n", report.Audit.Checks, report.Audit.Violations)
	}
	if len(violations) > 0 {
		for _, v := range violations[:min(10, len(violations))] {
			fmt.Fprintln(os.Stderr, "violation:", v)
		}
		return errFound
	}
	return nil
}

// generator is a load under way.
type generator struct {
	cmd     *loadCmd
	c       *client
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
	ended    chan struct{}
}

func (l *loadCmd) load(ctx context.Context, c *client, rate float64) (*loadReport, []string, error) {
	g := &generator{cmd: l, c: c, open: map[string]*checkout{}, placedAt: map[string]time.Time{}}
	if err := g.stockUp(ctx); err != nil {
		return nil, nil, fmt.Errorf("products for the load: %w", err)
	}
	watching, stopWatching := context.WithCancel(ctx)
	defer stopWatching()
	var watchers sync.WaitGroup
	if err := g.watch(watching, &watchers); err != nil {
		return nil, nil, err
	}
	size := int64(l.Orders)
	if size == 0 {
		size = -1
	}
	p := newProgress(size)
	begun := time.Now()
	showing, stopShowing := context.WithCancel(ctx)
	go g.show(showing, p, begun)
	err := g.generate(ctx, rate, begun)
	if err == nil {
		err = g.drain(ctx)
	}
	seconds := time.Since(begun).Seconds()
	stopShowing()
	p.done()
	stopWatching()
	watchers.Wait()
	if err != nil {
		return nil, nil, err
	}
	if err := c.settle(ctx, func(string) {}); err != nil {
		return nil, nil, err
	}
	audited, err := c.audit(ctx)
	if err != nil {
		return nil, nil, err
	}
	r := &loadReport{Orders: g.confirmed + g.rejected, Confirmed: g.confirmed, Rejected: g.rejected, Seconds: seconds,
		OrdersPerSecond: float64(g.confirmed+g.rejected) / seconds}
	r.Latency = latency{quantile(g.latencies, .5), quantile(g.latencies, .9), quantile(g.latencies, .99), quantile(g.latencies, .999), quantile(g.latencies, 1)}
	r.Effect = effectLatency{quantile(g.effects, .5), quantile(g.effects, .99), quantile(g.effects, 1)}
	r.Audit.Checks, r.Audit.Violations = audited.Checks, len(audited.Violations)
	return r, audited.Violations, nil
}

// quantile gives milliseconds.
func quantile(all []time.Duration, q float64) float64 {
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return float64(all[int(q*float64(len(all)-1))].Microseconds()) / 1000
}

// loadProducts is how many products a load orders from.
const loadProducts = 200

func sku(i int) string { return fmt.Sprintf("LOAD-%04d", i) }

func (g *generator) stockUp(ctx context.Context) error {
	all := make([]product, loadProducts)
	for i := range all {
		all[i] = product{sku(i), "Load test product", "2.500", 1_000_000_000}
	}
	return patiently(ctx, func() error { return g.c.post(ctx, g.c.urls.Inventory+"/products/batch", all, nil) })
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
	close(co.ended)
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
			for {
				n, ok := more()
				if !ok {
					return nil
				}
				var intended time.Time
				if rate > 0 {
					intended = begun.Add(time.Duration(float64(n-1) / rate * float64(time.Second)))
					if wait := time.Until(intended); wait > 0 {
						select {
						case <-time.After(wait):
						case <-ctx.Done():
							return ctx.Err()
						}
					}
					if g.cmd.Orders == 0 && intended.Sub(begun) >= g.cmd.Duration {
						return nil
					}
				} else {
					select {
					case mine <- struct{}{}:
					case <-ctx.Done():
						return ctx.Err()
					}
					intended = time.Now()
				}
				co := &checkout{intended, make(chan struct{})}
				if err := g.place(ctx, r, co); err != nil {
					return err
				}
				if rate == 0 {
					go func() {
						select {
						case <-co.ended:
						case <-ctx.Done():
						}
						<-mine
					}()
				}
			}
		})
	}
	return group.Wait()
}

// place sends one order. Its id is known before it is sent, because it comes from
// the key.
func (g *generator) place(ctx context.Context, r *rand.Rand, co *checkout) error {
	key := web.NewKey()
	id := orderID(key)
	g.mu.Lock()
	g.open[id] = co
	g.mu.Unlock()
	var b strings.Builder
	fmt.Fprintf(&b, `{"key":%q,"customer":"C%d","country":"Load","deadline_seconds":600,`, key, r.IntN(10000))
	if r.IntN(100) < g.cmd.Decline {
		b.WriteString(`"simulate":"decline",`)
	}
	b.WriteString(`"lines":[`)
	for i := range g.cmd.Lines {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"sku":%q,"quantity":%d,"price":"2.500"}`, sku(r.IntN(loadProducts)), 1+r.IntN(3))
	}
	b.WriteString(`]}`)
	var out struct{ ID string }
	err := patiently(ctx, func() error { return g.c.post(ctx, g.c.urls.Order+"/orders", json.RawMessage(b.String()), &out) })
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
