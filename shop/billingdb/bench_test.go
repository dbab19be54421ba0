package billingdb_test

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/intent"
	"github.com/freehold-go/freehold/shop/billing"
	"github.com/freehold-go/freehold/shop/billingdb"
	"github.com/freehold-go/freehold/shop/event"
	"github.com/freehold-go/freehold/sqldb"
	"github.com/freehold-go/freehold/sqlite"
)

// BenchmarkOrder is what one order costs Billing's database: placed, authorised,
// confirmed, captured and invoiced, with all events, synced, in transactions of a
// given number of orders.
func BenchmarkOrder(b *testing.B) {
	for _, group := range []int{1, 32, 256} {
		b.Run(fmt.Sprintf("group=%d", group), func(b *testing.B) {
			db, err := sqlite.Open(b.Context(), filepath.Join(b.TempDir(), "billing.db"), "billing", must(event.BillingTypes()), &sqlite.Options{
				Migrations: billingdb.Schema("sqlite"), Log: slog.New(slog.DiscardHandler),
			})
			if err != nil {
				b.Fatal(err)
			}
			defer db.Close()
			store := billingdb.NewStore(0)
			var counted *countingTx
			step := func(fact func(ctx context.Context, tx sqldb.Tx) error) {
				_, err := db.Update(b.Context(), func(ctx context.Context, tx sqldb.Tx) error {
					c := &countingTx{Tx: tx}
					if err := fact(ctx, c); err != nil {
						return err
					}
					if counted != nil {
						counted.statements += c.statements
						counted.events += c.events
					}
					return nil
				})
				if err != nil {
					b.Fatal(err)
				}
			}
			say := func(orders []string, what func(order string) freehold.Event) {
				events := make([]freehold.Event, len(orders))
				for i, order := range orders {
					events[i] = what(order)
				}
				rs := recorded(b, events...)
				step(func(ctx context.Context, tx sqldb.Tx) error { return store.Apply(ctx, tx, rs) })
			}
			answered := func(orders []string, name string, amount event.Money) {
				var all []intent.Done[event.CallRequested, billing.Outcome]
				for _, order := range orders {
					all = append(all, done(event.CallRequested{Order: order, Step: name, Amount: amount}, billing.Outcome{Approved: true})...)
				}
				step(func(ctx context.Context, tx sqldb.Tx) error { return store.Answered(ctx, tx, all) })
			}
			counted = &countingTx{}
			before := cpu()
			b.ReportAllocs()
			b.ResetTimer()
			for n := 0; n < b.N; n += group {
				orders := make([]string, min(group, b.N-n))
				for i := range orders {
					orders[i] = order(n + i)
				}
				say(orders, func(order string) freehold.Event { return placed(order, 12340) })
				answered(orders, billing.StepAuthorize, 12340)
				say(orders, func(order string) freehold.Event { return confirmed(order, 12340) })
				answered(orders, billing.StepCapture, 12340)
			}
			b.StopTimer()
			b.ReportMetric(float64((cpu()-before).Microseconds())/float64(b.N), "cpu-µs/order")
			b.ReportMetric(float64(counted.statements)/float64(b.N), "statements/order")
			b.ReportMetric(float64(counted.events)/float64(b.N), "events/order")
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "orders/s")
		})
	}
}

// BenchmarkCheckout is Billing beside an Order journal: follower, calls to the
// provider, records, all events, both databases synced. Orders are placed and
// confirmed by 64 callers, each waiting for the answers of Billing.
func BenchmarkCheckout(b *testing.B) {
	quiet := slog.New(slog.DiscardHandler)
	orders := must(sqlite.Open(b.Context(), filepath.Join(b.TempDir(), "order.db"), "order", must(event.OrderTypes()), &sqlite.Options{Log: quiet}))
	defer orders.Close()
	db := must(sqlite.Open(b.Context(), filepath.Join(b.TempDir(), "billing.db"), "billing", must(event.BillingTypes()), &sqlite.Options{
		Migrations: billingdb.Schema("sqlite"), Log: quiet,
	}))
	defer db.Close()
	store, provider := billingdb.NewStore(0), billing.NewSimulated(nil)
	follower := must(follow.New("payments", db, []follow.Source{orders.Journal()}, nil, store.Routes()...))
	caller := must(intent.New("provider", db, db.Journal(), nil,
		func(ctx context.Context, _ string, e event.CallRequested, attempt int) (billing.Outcome, error) {
			return billing.Perform(ctx, provider, e, attempt+1)
		},
		store.Answered))
	var mu sync.Mutex
	waiting := map[string]chan struct{}{}
	ctx, stop := context.WithCancel(b.Context())
	watch := follow.Observe("answers", []follow.Source{db.Journal()}, func(_ context.Context, rs []freehold.Recorded) error {
		for _, r := range rs {
			if r.Type.Name == "payment.authorized" || r.Type.Name == "payment.captured" {
				mu.Lock()
				waiting[r.Stream.ID()] <- struct{}{}
				mu.Unlock()
			}
		}
		return nil
	})
	var running sync.WaitGroup
	for _, r := range []interface{ Run(context.Context) error }{follower, caller, watch} {
		running.Go(func() {
			if err := r.Run(ctx); err != nil {
				b.Error(err)
			}
		})
	}
	b.SetParallelism(32) // 64 on two cores
	var n atomic.Int64
	before := cpu()
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		answered := make(chan struct{}, 1)
		for pb.Next() {
			id := order(int(n.Add(1)))
			mu.Lock()
			waiting[id] = answered
			mu.Unlock()
			for _, e := range []freehold.Event{placed(id, 12340), confirmed(id, 12340)} {
				if _, err := orders.Append(ctx, ofOrder(id, e)...); err != nil {
					b.Error(err)
					return
				}
				<-answered
			}
			mu.Lock()
			delete(waiting, id)
			mu.Unlock()
		}
	})
	b.StopTimer()
	b.ReportMetric(float64((cpu()-before).Microseconds())/float64(b.N), "cpu-µs/order")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "orders/s")
	stop()
	running.Wait()
}

// cpu is the processor time that this process has used.
func cpu() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u) // cannot fail for the own process
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// order is the id of the nth order: random-looking, like the real ones.
func order(n int) string {
	return fmt.Sprintf("%08x-0000-5000-8000-%012x", uint32(n)*2654435761, n)
}

// countingTx counts what goes through it.
type countingTx struct {
	sqldb.Tx
	statements, events int
}

func (c *countingTx) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	c.statements++
	return c.Tx.ExecContext(ctx, query, args...)
}

func (c *countingTx) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	c.statements++
	return c.Tx.QueryContext(ctx, query, args...)
}

func (c *countingTx) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	c.statements++
	return c.Tx.QueryRowContext(ctx, query, args...)
}

func (c *countingTx) Append(ctx context.Context, s freehold.StreamID, expect freehold.Expect, events ...freehold.Event) (freehold.Version, error) {
	c.events += len(events)
	return c.Tx.Append(ctx, s, expect, events...)
}
