package billingdb_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"testing"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/intent"
	"github.com/freehold-go/freehold/internal/testdb"
	"github.com/freehold-go/freehold/postgres"
	"github.com/freehold-go/freehold/shop/billing"
	"github.com/freehold-go/freehold/shop/billingdb"
	"github.com/freehold-go/freehold/shop/event"
	"github.com/freehold-go/freehold/sqldb"
)

// said is something that Billing is told: by Order's journal, or by the provider.
type said struct {
	order   []freehold.Recorded
	answers []intent.Done[event.CallRequested, billing.Outcome]
}

// apply tells a store all of it in one transaction: what stands together in all as
// one set.
func apply(ctx context.Context, tx sqldb.Tx, store *billingdb.Store, all []said) error {
	for len(all) > 0 {
		var set said
		n := 0
		for ; n < len(all) && (all[n].order == nil) == (all[0].order == nil); n++ {
			set.order, set.answers = append(set.order, all[n].order...), append(set.answers, all[n].answers...)
		}
		if err := store.Apply(ctx, tx, set.order); err != nil {
			return err
		}
		if err := store.Answered(ctx, tx, set.answers); err != nil {
			return err
		}
		all = all[n:]
	}
	return nil
}

// script is what a few orders may bring, in any order, also twice.
func script(t *testing.T, r *rand.Rand) []said {
	var all []said
	add := func(e freehold.Event) { all = append(all, said{order: recorded(t, e)}) }
	answer := func(order, step string, o billing.Outcome) {
		all = append(all, said{answers: done(event.CallRequested{Order: order, Step: step, Amount: 5000}, o)})
	}
	for i := range 6 {
		id := fmt.Sprint(i)
		add(placed(id, 5000))
		add(confirmed(id, event.Money(4000+r.IntN(2)*1000)))
		add(event.OrderReturned{Return: "r" + id, Order: id, Trade: trade(id), Amount: 1000})
		if r.IntN(2) == 0 {
			add(event.OrderCancelled{Order: id})
		}
		if r.IntN(3) == 0 {
			add(event.OrderRejected{Order: id})
		}
		for _, step := range []string{billing.StepAuthorize, billing.StepCapture, billing.StepVoid, billing.StepRefund, billing.StepRefund + "-r" + id} {
			answer(id, step, billing.Outcome{Approved: r.IntN(5) > 0, Reason: "no"})
			answer(id, step, billing.Outcome{Approved: true})
		}
	}
	r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return append(all, all...) // what came too early comes again
}

// TestAnySetsGiveTheSameBooks tells two databases the same: one fact by fact, with
// nothing remembered; the other in sets of any size, through two stores whose
// memories are wrong now and then, because transactions are rolled back behind them
// and because each does not see what the other writes.
func TestAnySetsGiveTheSameBooks(t *testing.T) {
	t.Parallel()
	engines := map[string]func(t *testing.T) follow.DB[sqldb.Tx]{
		"SQLite": func(t *testing.T) follow.DB[sqldb.Tx] { return open(t) },
		"PostgreSQL": func(t *testing.T) follow.DB[sqldb.Tx] {
			db, err := postgres.Open(t.Context(), testdb.Postgres(t), "billing", must(event.BillingTypes()), &postgres.Options{
				Migrations: billingdb.Schema("postgres"), Log: slog.New(slog.DiscardHandler)})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { db.Close() })
			return db
		},
	}
	for name, open := range engines {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			seeds := uint64(10)
			if name == "PostgreSQL" {
				seeds = 2
			}
			doubted := 0
			for seed := range seeds {
				r := rand.New(rand.NewPCG(seed, 1))
				all := script(t, r)
				alone, together := open(t), open(t)
				for i := range all {
					store := billingdb.NewStore(0)
					tell := func(ctx context.Context, tx sqldb.Tx) error { return apply(ctx, tx, store, all[i:i+1]) }
					_, err := alone.Update(t.Context(), tell)
					if err != nil { // it took the payment for a new one
						_, err = alone.Update(t.Context(), tell)
					}
					if err != nil {
						t.Fatal(err)
					}
				}
				stores := [2]*billingdb.Store{billingdb.NewStore(0), billingdb.NewStore(0)}
				for rest := all; len(rest) > 0; {
					n, store := 1+r.IntN(min(len(rest), 20)), stores[r.IntN(2)]
					undo := errors.New("rolled back")
					if r.IntN(3) == 0 {
						_, err := together.Update(t.Context(), func(ctx context.Context, tx sqldb.Tx) error {
							return errors.Join(undo, apply(ctx, tx, store, rest[:1+r.IntN(n)]))
						})
						if !errors.Is(err, undo) {
							t.Fatal(err)
						}
					}
					tell := func(some []said) error {
						_, err := together.Update(t.Context(), func(ctx context.Context, tx sqldb.Tx) error { return apply(ctx, tx, store, some) })
						return err
					}
					if tell(rest[:n]) != nil { // as a follower does: one by one, and each again
						doubted++
						for i := range n {
							if tell(rest[i:i+1]) != nil {
								if err := tell(rest[i : i+1]); err != nil {
									t.Fatal(err)
								}
							}
						}
					}
					rest = rest[n:]
				}
				if a, b := state(t, alone), state(t, together); a != b {
					t.Fatalf("seed %d: alone\n%s\ntogether\n%s", seed, a, b)
				}
			}
			if doubted == 0 {
				t.Error("no memory was ever wrong: the test has not done enough")
			}
		})
	}
}

// state is the books, and the events of all payments.
func state(t *testing.T, db follow.DB[sqldb.Tx]) (s string) {
	t.Helper()
	err := db.View(t.Context(), func(ctx context.Context, tx sqldb.Tx) (err error) {
		if s, err = digest(ctx, tx); err != nil {
			return err
		}
		for i := range 6 {
			for e, err := range tx.Events(ctx, billing.Stream(fmt.Sprint(i)), 0) {
				if err != nil {
					return err
				}
				s += fmt.Sprintln(e.Stream, e.Version, e.Type, string(e.Raw))
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}
