package billingdb_test

import (
	"context"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/intent"
	"github.com/freehold-go/freehold/shop/billing"
	"github.com/freehold-go/freehold/shop/billingdb"
	"github.com/freehold-go/freehold/shop/event"
	"github.com/freehold-go/freehold/sqlite"
)

// TestNoTimerBetweenAnOrderAndItsInvoice takes an order from placed to invoiced
// through followers, calls and records, under a clock that moves only when
// everybody waits for a timer: it does not move (FIELD 36).
func TestNoTimerBetweenAnOrderAndItsInvoice(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		orders := must(sqlite.Open(ctx, filepath.Join(t.TempDir(), "order.db"), "order", must(event.OrderTypes()), &sqlite.Options{Relaxed: true}))
		db := must(sqlite.Open(ctx, filepath.Join(t.TempDir(), "billing.db"), "billing", must(event.BillingTypes()), &sqlite.Options{
			Relaxed: true, Migrations: billingdb.Schema("sqlite")}))
		store, provider := billingdb.NewStore(0), billing.NewSimulated(nil)
		follower := must(follow.New("payments", db, []follow.Source{orders.Journal()}, nil, store.Routes()...))
		caller := must(intent.New("provider", db, db.Journal(), &intent.Options{Pool: 4},
			func(ctx context.Context, _ string, e event.CallRequested, attempt int) (billing.Outcome, error) {
				return billing.Perform(ctx, provider, e, attempt+1)
			},
			store.Answered))
		done := make(chan error, 2)
		go func() { done <- follower.Run(ctx) }()
		go func() { done <- caller.Run(ctx) }()

		began, seen := time.Now(), freehold.Mark{}
		await := func(name string) {
			t.Helper()
			for {
				rs := must(db.Journal().Read(ctx, seen, 1))
				for _, r := range rs {
					if seen = r.At; r.Type.Name == name {
						return
					}
				}
				if len(rs) == 0 {
					if err := db.Journal().Wait(ctx, seen); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
		for _, id := range []string{"1", "2", "3"} {
			must(orders.Append(ctx, ofOrder(id, placed(id, 5000))...))
			await("payment.authorized")
			must(orders.Append(ctx, ofOrder(id, confirmed(id, 5000))...))
			await("payment.captured")
		}
		if waited := time.Since(began); waited != 0 {
			t.Errorf("a timer of %v stands between an order and its invoice", waited)
		}
		stop()
		for range 2 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if err := db.Close(); err != nil {
			t.Error(err)
		}
		if err := orders.Close(); err != nil {
			t.Error(err)
		}
	})
}
