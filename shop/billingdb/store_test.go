package billingdb_test

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/shop/billing"
	"github.com/freehold-go/freehold/shop/billingdb"
	"github.com/freehold-go/freehold/shop/event"
	"github.com/freehold-go/freehold/sqldb"
	"github.com/freehold-go/freehold/sqlite"
)

func must[V any](v V, err error) V {
	if err != nil {
		panic(err)
	}
	return v
}

// open returns a fresh Billing database. When the test ends, its books are checked.
func open(t testing.TB) *sqlite.DB {
	t.Helper()
	types, err := event.BillingTypes()
	if err != nil {
		t.Fatal(err)
	}
	db, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "billing.db"), "billing", types, &sqlite.Options{
		Migrations: billingdb.Schema("sqlite"), Relaxed: true, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		checkBooks(t, db)
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

// checkBooks is what must be true of the books at any time.
func checkBooks(t testing.TB, db *sqlite.DB) {
	t.Helper()
	ctx := context.WithoutCancel(t.Context())
	s := billingdb.NewStore(0)
	books, err := s.Books(ctx, db)
	if err != nil {
		t.Error(err)
		return
	}
	accounts, err := s.Accounts(ctx, db)
	if err != nil {
		t.Error(err)
		return
	}
	sums := map[string]event.Money{}
	for _, a := range accounts {
		sums[a.Currency] += a.Balance
	}
	for currency, sum := range sums {
		if sum != 0 {
			t.Errorf("the %s ledger is out by %s", currency, sum)
		}
	}
	err = db.View(ctx, func(ctx context.Context, tx sqldb.Tx) error {
		for _, b := range books {
			var billed, captured int64
			err := tx.QueryRowContext(ctx, `SELECT COALESCE(SUM(amount), 0) FROM invoice WHERE currency = $1`, b.Currency).Scan(&billed)
			if err != nil {
				return err
			}
			err = tx.QueryRowContext(ctx, `SELECT COALESCE(SUM(captured), 0) FROM payment WHERE currency = $1`, b.Currency).Scan(&captured)
			if err != nil {
				return err
			}
			if int64(b.Billed) != billed || b.Billed != b.Captured || int64(b.Captured) != captured {
				t.Errorf("books %+v, invoices %d, payments %d", b, billed, captured)
			}
		}
		for _, table := range []string{"invoice", "credit_note"} {
			var holes int64
			err := tx.QueryRowContext(ctx, `SELECT COUNT(*) FROM (SELECT series, MAX(number) - COUNT(*) AS holes FROM `+table+` GROUP BY series) WHERE holes <> 0`).Scan(&holes)
			if err != nil {
				return err
			}
			if holes > 0 {
				t.Errorf("%s numbers have holes", table)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

var at = time.Date(2011, 8, 12, 14, 50, 0, 0, time.UTC)

func trade(reference string) event.Trade {
	return event.Trade{Reference: "R" + reference, Customer: "17850", Country: "United Kingdom", Currency: "GBP", At: at}
}

func placed(order string, total event.Money) event.OrderPlaced {
	return event.OrderPlaced{Order: order, Trade: trade(order), Total: total}
}

func confirmed(order string, amount event.Money) event.OrderConfirmed {
	return event.OrderConfirmed{Order: order, Trade: trade(order), Amount: amount}
}

func ofOrder(order string, events ...freehold.Event) []freehold.Write {
	var writes []freehold.Write
	for _, e := range events {
		writes = append(writes, freehold.Write{Stream: freehold.Stream("order", order), Expect: freehold.Any, Events: []freehold.Event{e}})
	}
	return writes
}

// shop is a Billing database that follows an Order journal, and a provider that is
// called whenever a call is asked for.
type shop struct {
	t        testing.TB
	db       *sqlite.DB
	orders   *sqlite.DB
	store    *billingdb.Store
	provider billing.Provider
	follower *follow.Follower
	answered freehold.Mark
}

func start(t testing.TB) *shop {
	t.Helper()
	types, err := event.OrderTypes()
	if err != nil {
		t.Fatal(err)
	}
	orders, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "order.db"), "order", types, &sqlite.Options{Relaxed: true})
	if err != nil {
		t.Fatal(err)
	}
	s := &shop{t: t, db: open(t), orders: orders, store: billingdb.NewStore(0), provider: billing.NewSimulated(&billing.SimulatedOptions{Timeout: time.Microsecond})}
	s.follower, err = follow.New("payments", s.db, []follow.Source{orders.Journal()}, nil, s.store.Routes()...)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- s.follower.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := orders.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// say appends events to the Order journal and waits until Billing has them.
func (s *shop) say(order string, events ...freehold.Event) {
	s.t.Helper()
	for _, w := range ofOrder(order, events...) {
		token, err := s.orders.Append(s.t.Context(), w)
		if err != nil {
			s.t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(s.t.Context(), 10*time.Second)
		defer cancel()
		if err := s.follower.WaitFor(ctx, token); err != nil {
			s.t.Fatal(err)
		}
	}
}

// call makes the calls that have been asked for and records their outcomes, until
// there are none, and returns their keys.
func (s *shop) call() (keys []string) {
	s.t.Helper()
	for {
		rs, err := s.db.Journal().Read(s.t.Context(), s.answered, 256)
		if err != nil {
			s.t.Fatal(err)
		}
		if len(rs) == 0 {
			return keys
		}
		for _, r := range rs {
			s.answered = r.At
			if r.Type.Name != "payment.call-requested" {
				continue
			}
			e := must(r.Decode()).(event.CallRequested)
			keys = append(keys, billing.Key(e.Order, e.Step))
			s.answer(e)
		}
	}
}

func (s *shop) answer(e event.CallRequested) {
	s.t.Helper()
	for attempt := 1; ; attempt++ {
		o, err := billing.Perform(s.t.Context(), s.provider, e, attempt)
		if err != nil && attempt < 10 {
			continue
		}
		if err == nil {
			_, err = s.db.Update(s.t.Context(), func(ctx context.Context, tx sqldb.Tx) error { return s.store.Answered(ctx, tx, done(e, o)) })
		}
		if err != nil {
			s.t.Fatal(err)
		}
		return
	}
}

func (s *shop) payment(order string) *billing.Payment {
	s.t.Helper()
	var p *billing.Payment
	err := s.db.View(s.t.Context(), func(ctx context.Context, tx sqldb.Tx) (err error) {
		p, err = billingdb.Payment(ctx, tx, order)
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return p
}

func (s *shop) books() billing.Books {
	s.t.Helper()
	all, err := s.store.Books(s.t.Context(), s.db)
	if err != nil {
		s.t.Fatal(err)
	}
	switch len(all) {
	case 0:
		return billing.Books{}
	case 1:
		return all[0]
	}
	s.t.Fatalf("books in %d currencies", len(all))
	return billing.Books{}
}

func (s *shop) balances() map[billing.Account]event.Money {
	s.t.Helper()
	all, err := s.store.Accounts(s.t.Context(), s.db)
	if err != nil {
		s.t.Fatal(err)
	}
	balances := map[billing.Account]event.Money{}
	for _, a := range all {
		balances[a.Account] = a.Balance
	}
	return balances
}

// history is the names of the events of an order's payment.
func (s *shop) history(order string) string {
	s.t.Helper()
	var names []string
	for r, err := range s.db.Events(s.t.Context(), billing.Stream(order), 0) {
		if err != nil {
			s.t.Fatal(err)
		}
		names = append(names, r.Type.Name)
	}
	return strings.Join(names, " ")
}

// digest is the whole state that Billing's handlers write.
func digest(ctx context.Context, tx sqldb.Tx) (string, error) {
	var b strings.Builder
	for _, query := range []string{
		`SELECT order_id || '|' || total || '|' || amount || '|' || ended || '|' || hold || '|' || captured || '|' || voided || '|' || call || '|' || refunds FROM payment ORDER BY order_id`,
		`SELECT order_id || '|' || return_id || '|' || amount || '|' || state FROM refund ORDER BY order_id, return_id`,
		`SELECT series || '|' || number || '|' || order_id || '|' || amount FROM invoice ORDER BY series, number`,
		`SELECT series || '|' || number || '|' || order_id || '|' || return_id || '|' || amount FROM credit_note ORDER BY series, number`,
		`SELECT entry || '|' || kind || '|' || debit || '|' || credit || '|' || amount || '|' || document FROM ledger_entry ORDER BY entry`,
	} {
		rows, err := tx.QueryContext(ctx, query)
		if err != nil {
			return "", err
		}
		for rows.Next() {
			var line string
			if err := rows.Scan(&line); err != nil {
				rows.Close()
				return "", err
			}
			fmt.Fprintln(&b, line)
		}
		if err := rows.Close(); err != nil {
			return "", err
		}
	}
	return b.String(), nil
}
