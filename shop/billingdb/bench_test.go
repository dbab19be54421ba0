package billingdb_test

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/freehold-go/freehold"
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
				Migrations: billingdb.Schema(billingdb.SQLite), Log: slog.New(slog.DiscardHandler),
			})
			if err != nil {
				b.Fatal(err)
			}
			defer db.Close()
			store := billingdb.NewStore(0)
			var counted *countingTx
			step := func(fact func(ctx context.Context, tx sqldb.Tx, order string) error, orders []string) {
				_, err := db.Update(b.Context(), func(ctx context.Context, tx sqldb.Tx) error {
					c := &countingTx{Tx: tx}
					for _, order := range orders {
						if err := fact(ctx, c, order); err != nil {
							return err
						}
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
			answered := func(name string, amount event.Money) func(ctx context.Context, tx sqldb.Tx, order string) error {
				return func(ctx context.Context, tx sqldb.Tx, order string) error {
					return store.Answered(ctx, tx, event.CallRequested{Order: order, Step: name, Amount: amount}, billing.Outcome{Approved: true})
				}
			}
			counted = &countingTx{}
			b.ReportAllocs()
			b.ResetTimer()
			for n := 0; n < b.N; n += group {
				orders := make([]string, min(group, b.N-n))
				for i := range orders {
					orders[i] = order(n + i)
				}
				step(func(ctx context.Context, tx sqldb.Tx, order string) error {
					return store.Placed(ctx, tx, placed(order, 12340), freehold.Recorded{})
				}, orders)
				step(answered(billing.StepAuthorize, 12340), orders)
				step(func(ctx context.Context, tx sqldb.Tx, order string) error {
					return store.Confirmed(ctx, tx, confirmed(order, 12340), freehold.Recorded{})
				}, orders)
				step(answered(billing.StepCapture, 12340), orders)
			}
			b.StopTimer()
			b.ReportMetric(float64(counted.statements)/float64(b.N), "statements/order")
			b.ReportMetric(float64(counted.events)/float64(b.N), "events/order")
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "orders/s")
		})
	}
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
