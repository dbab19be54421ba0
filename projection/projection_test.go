package projection_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/kv"
	"github.com/freehold-go/freehold/memory"
	"github.com/freehold-go/freehold/projection"
)

// Placed is an order; the read model counts them by customer.
type Placed struct{ Customer string }

func (Placed) EventType() freehold.Type { return freehold.T("order.placed", 1) }

func open(t testing.TB, name freehold.Source, disk *memory.Disk) *memory.DB {
	t.Helper()
	types, err := freehold.NewCatalog(freehold.JSON[Placed]())
	if err != nil {
		t.Fatal(err)
	}
	db, err := memory.Open(context.Background(), name, types, &memory.Options{Disk: disk})
	if err != nil {
		t.Fatal(err)
	}
	return db
}

// setup returns the journal that is followed, and the database of the read model.
func setup(t testing.TB) (orders, views *memory.DB) {
	t.Helper()
	orders, views = open(t, "order", nil), open(t, "views", nil)
	t.Cleanup(func() { orders.Close(); views.Close() })
	return orders, views
}

func place(t testing.TB, orders *memory.DB, customer string) freehold.Token {
	t.Helper()
	tok, err := orders.Append(context.Background(), freehold.Write{Stream: freehold.Stream("order", customer), Expect: freehold.Any, Events: []freehold.Event{Placed{customer}}})
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

// counter is a handler that counts orders by customer, step for each.
func counter(step int64) func(ns string) []follow.Route[kv.Tx] {
	return func(ns string) []follow.Route[kv.Tx] {
		return []follow.Route[kv.Tx]{follow.On(func(ctx context.Context, tx kv.Tx, e Placed, _ freehold.Recorded) error {
			if e.Customer == "poison" {
				return errors.New("no")
			}
			_, err := tx.Add(ctx, ns+"/"+e.Customer, step, 0)
			return err
		})}
	}
}

func build(t testing.TB, version int, orders, views *memory.DB, o *projection.Options) *projection.Projection[kv.Tx] {
	t.Helper()
	if o == nil {
		o = &projection.Options{}
	}
	o.Log = slog.New(slog.DiscardHandler)
	p, err := projection.New("orders", version, views, []follow.Source{orders.Journal()}, o, counter(int64(version)))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func run(t testing.TB, p *projection.Projection[kv.Tx]) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func count(ctx context.Context, p *projection.Projection[kv.Tx], tok freehold.Token, customer string) (n string, err error) {
	err = p.View(ctx, tok, func(ctx context.Context, tx kv.Tx, ns string) error {
		raw, _, err := tx.Get(ctx, ns+"/"+customer)
		n = string(raw)
		return err
	})
	return n, err
}

// G8, under load: each of many callers sees its own write at its next read.
func TestCallersReadTheirWrites(t *testing.T) {
	t.Parallel()
	orders, views := setup(t)
	p := build(t, 1, orders, views, nil)
	defer run(t, p)()
	var callers sync.WaitGroup
	for c := range 16 {
		callers.Go(func() {
			customer := fmt.Sprint("c", c)
			for i := range 50 {
				tok := place(t, orders, customer)
				if n, err := count(t.Context(), p, tok, customer); err != nil || n != fmt.Sprint(i+1) {
					t.Errorf("%s counts %q, %v, want %d", customer, n, err, i+1)
					return
				}
			}
		})
	}
	callers.Wait()
}

func TestReadThatIsBehindSaysSo(t *testing.T) {
	t.Parallel()
	for wait, want := range map[time.Duration]time.Duration{0: 2 * time.Second, time.Minute: time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			orders, views := setup(t)
			p := build(t, 1, orders, views, &projection.Options{Wait: wait})
			tok := place(t, orders, "ann")
			begun := time.Now()
			if _, err := count(t.Context(), p, tok, "ann"); !errors.Is(err, freehold.ErrBehind) {
				t.Errorf("a read model that is not built: %v, want ErrBehind", err)
			}
			if took := time.Since(begun); took != want {
				t.Errorf("it took %v, want %v", took, want)
			}
			if n, err := count(t.Context(), p, freehold.Token{}, "ann"); err != nil || n != "" {
				t.Errorf("without a token: %q, %v", n, err)
			}
			stop := run(t, p)
			if n, err := count(t.Context(), p, tok, "ann"); err != nil || n != "1" {
				t.Errorf("%q, %v, want 1", n, err)
			}
			stop()
		})
	}
}

func TestCallerThatGoesAwayIsNotBehind(t *testing.T) {
	t.Parallel()
	orders, views := setup(t)
	p := build(t, 1, orders, views, nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := count(ctx, p, place(t, orders, "ann"), "ann"); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want the context's error", err)
	}
}

func TestTokenOfAnotherSourceIsNotWaitedFor(t *testing.T) {
	t.Parallel()
	orders, views := setup(t)
	p := build(t, 1, orders, views, nil)
	stranger := freehold.NewToken(freehold.Mark{Source: "elsewhere", Epoch: "e", Position: 99})
	if _, err := count(t.Context(), p, stranger, "ann"); err != nil {
		t.Error(err)
	}
}

func TestTokenOfALostHistoryIsRefused(t *testing.T) {
	t.Parallel()
	orders, views := setup(t)
	p := build(t, 1, orders, views, nil)
	defer run(t, p)()
	place(t, orders, "ann")
	lost := freehold.NewToken(freehold.Mark{Source: "order", Epoch: "given-up", Position: 1})
	if _, err := count(t.Context(), p, lost, "ann"); !errors.Is(err, freehold.ErrHistoryLost) {
		t.Errorf("%v, want ErrHistoryLost", err)
	}
}

func TestTokenOfAParkedEventIsRefused(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		orders, views := setup(t)
		p := build(t, 1, orders, views, nil)
		stop := run(t, p)
		tok := place(t, orders, "poison")
		other := place(t, orders, "ann")
		if _, err := count(t.Context(), p, tok, "poison"); !errors.Is(err, follow.ErrParked) {
			t.Errorf("%v, want ErrParked", err)
		}
		if n, err := count(t.Context(), p, other, "ann"); err != nil || n != "1" {
			t.Errorf("another key: %q, %v", n, err)
		}
		stop()
	})
}

func TestVersionsStandSideBySide(t *testing.T) {
	t.Parallel()
	orders, views := setup(t)
	v1, v2 := build(t, 1, orders, views, nil), build(t, 2, orders, views, nil)
	stop1 := run(t, v1)
	tok := place(t, orders, "ann")
	if n, err := count(t.Context(), v1, tok, "ann"); err != nil || n != "1" {
		t.Fatalf("version 1: %q, %v", n, err)
	}
	defer run(t, v2)() // begins at the first event
	for v, p := range map[string]*projection.Projection[kv.Tx]{"1": v1, "2": v2} {
		if n, err := count(t.Context(), p, tok, "ann"); err != nil || n != v || p.Namespace() != "orders_v"+v || p.Name() != "orders_v"+v {
			t.Errorf("version %s in %s: %q, %v", v, p.Namespace(), n, err)
		}
	}
	stop1()
}

func TestReadModelGoesOnWhereItStood(t *testing.T) {
	t.Parallel()
	orders := open(t, "order", nil)
	defer orders.Close()
	disk := memory.NewDisk()
	var handled atomic.Int64
	for round := 1; round <= 5; round++ {
		views := open(t, "views", disk)
		p, err := projection.New("orders", 1, views, []follow.Source{orders.Journal()}, nil, func(ns string) []follow.Route[kv.Tx] {
			return []follow.Route[kv.Tx]{follow.On(func(ctx context.Context, tx kv.Tx, e Placed, _ freehold.Recorded) error {
				handled.Add(1)
				_, err := tx.Add(ctx, ns+"/"+e.Customer, 1, 0)
				return err
			})}
		})
		if err != nil {
			t.Fatal(err)
		}
		stop := run(t, p)
		tok := place(t, orders, "ann")
		if n, err := count(t.Context(), p, tok, "ann"); err != nil || n != fmt.Sprint(round) || handled.Load() != int64(round) {
			t.Errorf("round %d: %q after %d calls, %v", round, n, handled.Load(), err)
		}
		stop()
		views.Close()
	}
}

func TestWritesInAViewFail(t *testing.T) {
	t.Parallel()
	orders, views := setup(t)
	p := build(t, 1, orders, views, nil)
	err := p.View(t.Context(), freehold.Token{}, func(ctx context.Context, tx kv.Tx, ns string) error { return tx.Put(ctx, ns+"/x", []byte("1")) })
	if !errors.Is(err, freehold.ErrReadOnlyTx) {
		t.Errorf("%v, want ErrReadOnlyTx", err)
	}
}

func TestNamesThatCannotBePartsOfTableNamesAreRefused(t *testing.T) {
	t.Parallel()
	orders, views := setup(t)
	for _, c := range []struct {
		name    string
		version int
		good    bool
	}{{"orders", 1, true}, {"order_lines2", 12, true}, {"orders", 0, false}, {"orders", -1, false}, {"", 1, false}, {"Orders", 1, false}, {"2orders", 1, false},
		{"_orders", 1, false}, {"or-ders", 1, false}, {"or/ders", 1, false}, {`or"ders`, 1, false}, {"bücher", 1, false}, {strings.Repeat("a", 31), 1, false}} {
		_, err := projection.New(c.name, c.version, views, []follow.Source{orders.Journal()}, nil, counter(1))
		if (err == nil) != c.good {
			t.Errorf("%q version %d: %v", c.name, c.version, err)
		}
	}
}
