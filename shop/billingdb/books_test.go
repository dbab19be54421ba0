package billingdb_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/journal"
	"github.com/freehold-go/freehold/shop/billing"
	"github.com/freehold-go/freehold/shop/billingdb"
	"github.com/freehold-go/freehold/shop/event"
	"github.com/freehold-go/freehold/sqldb"
	"github.com/freehold-go/freehold/sqlite"
)

func adjustment(id string, amount event.Money) billing.Adjustment {
	return billing.Adjustment{ID: id, Amount: amount, Lines: []event.Line{{SKU: "B", Description: "Adjust bad debt", Quantity: 1, Price: amount}},
		Trade: event.Trade{Reference: "A563185", Country: "United Kingdom", Currency: "GBP", At: at}}
}

// filled is a shop with one row in each table of the books.
func filled(t *testing.T) *shop {
	t.Helper()
	s := start(t)
	s.say("1", placed("1", 5000))
	s.call()
	s.say("1", confirmed("1", 5000))
	s.call()
	s.say("c1", event.OrderReturned{Return: "c1", Trade: event.Trade{Currency: "GBP", At: at}, Amount: 27500})
	_, err := s.db.Update(t.Context(), func(ctx context.Context, tx sqldb.Tx) error {
		_, err := s.store.Adjust(ctx, tx, adjustment("a1", 11062060), "d")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestBooksAreInsertOnly tries to change and to delete rows, and to insert some that
// do not come next: the database refuses.
func TestBooksAreInsertOnly(t *testing.T) {
	t.Parallel()
	s := filled(t)
	for _, c := range []struct{ statement, want string }{
		{`UPDATE invoice SET amount = amount + 1`, "insert-only"},
		{`UPDATE invoice SET number = 7`, "insert-only"},
		{`DELETE FROM invoice`, "insert-only"},
		{`INSERT OR REPLACE INTO invoice SELECT * FROM invoice`, "no holes"},
		{`INSERT INTO invoice SELECT series, number + 2, order_id || 'x', reference, customer, country, currency, business_at, amount, issued_at FROM invoice`, "no holes"},
		{`INSERT INTO invoice SELECT series, number + 1, order_id, reference, customer, country, currency, business_at, amount, issued_at FROM invoice`, "UNIQUE"},
		{`INSERT OR REPLACE INTO invoice SELECT series, number + 1, order_id, reference, customer, country, currency, business_at, amount, issued_at FROM invoice`, "insert-only"},
		{`INSERT OR REPLACE INTO invoice (rowid, series, number, order_id, reference, customer, country, currency, business_at, amount, issued_at)
			SELECT rowid, series, number + 1, order_id || 'x', reference, customer, country, currency, business_at, amount, issued_at FROM invoice`, "insert-only"},
		{`UPDATE credit_note SET amount = 0`, "insert-only"},
		{`DELETE FROM credit_note`, "insert-only"},
		{`INSERT OR REPLACE INTO credit_note SELECT * FROM credit_note`, "no holes"},
		{`INSERT OR REPLACE INTO credit_note SELECT series, number + 1, order_id, return_id, reference, customer, country, currency, business_at, amount, issued_at FROM credit_note`, "insert-only"},
		{`UPDATE ledger_entry SET amount = 1 WHERE entry = 1`, "insert-only"},
		{`DELETE FROM ledger_entry WHERE entry = 1`, "insert-only"},
		{`INSERT OR REPLACE INTO ledger_entry SELECT * FROM ledger_entry`, "no holes"},
		{`INSERT OR REPLACE INTO ledger_entry (rowid, entry, kind, debit, credit, amount, currency, document, posted_at)
			SELECT 1, MAX(entry) + 1, kind, debit, credit, amount, currency, document, posted_at FROM ledger_entry`, "insert-only"},
		{`INSERT INTO ledger_entry SELECT MAX(entry) + 2, kind, debit, credit, amount, currency, document, posted_at FROM ledger_entry`, "no holes"},
		{`INSERT INTO ledger_entry SELECT MAX(entry) + 1, kind, debit, debit, amount, currency, document, posted_at FROM ledger_entry`, "CHECK"},
		{`INSERT INTO ledger_entry SELECT MAX(entry) + 1, kind, debit, credit, 0, currency, document, posted_at FROM ledger_entry`, "CHECK"},
		{`UPDATE adjustment SET amount = 0`, "insert-only"},
		{`DELETE FROM adjustment`, "insert-only"},
		{`INSERT OR REPLACE INTO adjustment SELECT * FROM adjustment`, "no holes"},
		{`INSERT OR REPLACE INTO adjustment SELECT number + 1, adjustment_id, digest, reference, customer, country, currency, business_at, lines, amount, posted_at FROM adjustment`, "insert-only"},
	} {
		_, err := s.db.Update(t.Context(), func(ctx context.Context, tx sqldb.Tx) error {
			_, err := tx.ExecContext(ctx, c.statement)
			return err
		})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.statement, err, c.want)
		}
	}
}

// TestAdjustments posts both signs and nothing, once each.
func TestAdjustments(t *testing.T) {
	t.Parallel()
	s := start(t)
	adjust := func(a billing.Adjustment, digest string) (fresh bool, err error) {
		_, err = s.db.Update(t.Context(), func(ctx context.Context, tx sqldb.Tx) (err error) {
			fresh, err = s.store.Adjust(ctx, tx, a, digest)
			return err
		})
		return fresh, err
	}
	for i, amount := range []event.Money{11062060, -11062060, -11062060, 0} {
		a := adjustment(fmt.Sprint("a", i), amount)
		for _, want := range []bool{true, false} {
			if fresh, err := adjust(a, "same"); err != nil || fresh != want {
				t.Fatalf("%s: fresh %t, %v, want %t", a.ID, fresh, err, want)
			}
		}
	}
	if _, err := adjust(adjustment("a1", 1), "other"); !errors.Is(err, billingdb.ErrOtherBody) {
		t.Errorf("%v, want ErrOtherBody", err)
	}
	want := billing.Books{Currency: "GBP", Adjustments: -11062060, Net: -11062060, Corrections: 4, Entries: 3}
	if diff := cmp.Diff(want, s.books()); diff != "" {
		t.Errorf("books (-want +got):\n%s", diff)
	}
	var names []string
	for r, err := range s.db.Events(t.Context(), "adjustment-a1", 0) {
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, r.Type.Name)
	}
	if !cmp.Equal(names, []string{"ledger.adjusted"}) {
		t.Errorf("events %v", names)
	}
	err := s.db.View(t.Context(), func(ctx context.Context, tx sqldb.Tx) error {
		all, err := billingdb.Adjustments(ctx, tx, 1, 2)
		if err != nil {
			return err
		}
		if len(all) != 2 || all[0].Number != 2 || all[0].ID != "a1" || all[0].Amount != -11062060 || !all[0].At.Equal(at) || all[1].Number != 3 {
			t.Errorf("page behind 1: %+v", all)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// TestBooksAreAddedUpAsTheyGrow reads the totals between changes and from a store
// that has never read them.
func TestBooksAreAddedUpAsTheyGrow(t *testing.T) {
	t.Parallel()
	s := start(t)
	for i := range 5 {
		order := fmt.Sprint("o", i)
		s.say(order, placed(order, 1000))
		s.call()
		s.say(order, confirmed(order, 1000))
		s.call()
		if i%2 == 0 {
			s.say(order, event.OrderCancelled{Order: order})
			s.call()
		}
		got, err := billingdb.NewStore(0).Books(t.Context(), s.db)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(got, []billing.Books{s.books()}); diff != "" {
			t.Errorf("from the start (-) and as they grow (+):\n%s", diff)
		}
	}
}

// TestPages walks through the lists.
func TestPages(t *testing.T) {
	t.Parallel()
	s := start(t)
	const orders = 7
	for i := range orders {
		order := fmt.Sprint("o", i)
		s.say(order, placed(order, 1000))
		s.call()
		s.say(order, confirmed(order, 1000))
		s.call()
		s.say(order, event.OrderCancelled{Order: order})
		s.call()
	}
	err := s.db.View(t.Context(), func(ctx context.Context, tx sqldb.Tx) error {
		var invoice, credit billing.Number
		for i := 0; ; i += 3 {
			invoices, err := billingdb.Invoices(ctx, tx, invoice, 3)
			if err != nil {
				return err
			}
			credits, err := billingdb.CreditNotes(ctx, tx, credit, 3)
			if err != nil {
				return err
			}
			if want := max(0, min(3, orders-i)); len(invoices) != want || len(credits) != want {
				t.Fatalf("behind %d: %d invoices, %d credit notes, want %d", i, len(invoices), len(credits), want)
			}
			if len(invoices) == 0 {
				break
			}
			for j := range invoices {
				invoice, credit = must(billing.ParseNumber(invoices[j].Number)), must(billing.ParseNumber(credits[j].Number))
				if want := int64(i + j + 1); invoice.N != want || credit.N != want {
					t.Errorf("numbers %s and %s, want %d", invoice, credit, want)
				}
				of, err := billingdb.CreditNotesOf(ctx, tx, invoices[j].Order)
				if err != nil || len(of) != 1 || of[0] != credits[j] {
					t.Errorf("credit notes of %s: %+v, %v", invoices[j].Order, of, err)
				}
				one, err := billingdb.Invoice(ctx, tx, invoice)
				if err != nil || one != invoices[j] {
					t.Errorf("invoice %s: %+v, %v", invoice, one, err)
				}
			}
		}
		entries, err := billingdb.Entries(ctx, tx, 2, 3)
		if err != nil {
			return err
		}
		if len(entries) != 3 || entries[0].Number != 3 || entries[2].Number != 5 {
			t.Errorf("entries behind 2: %+v", entries)
		}
		_, err = billingdb.InvoiceOf(ctx, tx, "nobody")
		if !errors.Is(err, billingdb.ErrNotFound) {
			t.Errorf("%v, want ErrNotFound", err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestNewHistoryBeginsNewSeries lets the journal go on under another epoch, as it
// does when it was restored to an older state: the next invoice has the first
// number of a new series, so that none that was sent out is given again.
func TestNewHistoryBeginsNewSeries(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "billing.db")
	numbers := func(order string) (invoices []string) {
		db, err := sqlite.Open(t.Context(), path, "billing", must(event.BillingTypes()), &sqlite.Options{Relaxed: true, Migrations: billingdb.Schema("sqlite")})
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		store := billingdb.NewStore(0)
		for i := range 2 {
			id := order + fmt.Sprint(i)
			_, err := db.Update(t.Context(), func(ctx context.Context, tx sqldb.Tx) error {
				return store.Apply(ctx, tx, recorded(t, placed(id, 0), confirmed(id, 0)))
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		err = db.View(t.Context(), func(ctx context.Context, tx sqldb.Tx) error {
			all, err := billingdb.Invoices(ctx, tx, billing.Number{}, 100)
			for _, v := range all {
				invoices = append(invoices, v.Number)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return invoices
	}
	numbers("a")
	file, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := file.Exec(`UPDATE freehold_journal SET epoch = 'fedcba9876543210'`); err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	want := []string{"INV-000000001", "INV-000000002", "INVFEDCBA98-000000001", "INVFEDCBA98-000000002"}
	if got := numbers("b"); !slices.Equal(got, want) {
		t.Errorf("invoices %v, want %v", got, want)
	}
}

// recorded makes events look as if they came out of Order's journal.
func recorded(t testing.TB, events ...freehold.Event) []freehold.Recorded {
	t.Helper()
	types := must(event.OrderTypes())
	var rs []freehold.Recorded
	for _, e := range events {
		drafts, err := journal.Draft(t.Context(), types, journal.NewID(), 0, journal.Now(), []freehold.Event{e})
		if err != nil {
			t.Fatal(err)
		}
		types.Bind(drafts)
		rs = append(rs, drafts...)
	}
	return rs
}

// TestInvoicesThatWereLostKeepTheirNumbers restores Billing twice to a copy from before
// its first invoice: each time invoices are numbered in a series that nobody has seen.
func TestInvoicesThatWereLostKeepTheirNumbers(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "billing.db")
	opened := func() *sqlite.DB {
		db, err := sqlite.Open(t.Context(), path, "billing", must(event.BillingTypes()), &sqlite.Options{Relaxed: true, Migrations: billingdb.Schema("sqlite")})
		if err != nil {
			t.Fatal(err)
		}
		return db
	}
	db := opened()
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	backup, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	sent := map[string]bool{}
	for restored := range 3 {
		if err := os.WriteFile(path, backup, 0o600); err != nil {
			t.Fatal(err)
		}
		db := opened()
		store := billingdb.NewStore(0)
		if restored > 0 {
			_, head, err := db.Journal().Bounds(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := db.Journal().Fork(t.Context(), nil, head, "restored"); err != nil {
				t.Fatal(err)
			}
		}
		_, err := db.Update(t.Context(), func(ctx context.Context, tx sqldb.Tx) error {
			return store.Apply(ctx, tx, recorded(t, placed("a", 0), confirmed("a", 0)))
		})
		if err != nil {
			t.Fatal(err)
		}
		err = db.View(t.Context(), func(ctx context.Context, tx sqldb.Tx) error {
			all, err := billingdb.Invoices(ctx, tx, billing.Number{}, 100)
			for _, v := range all {
				if sent[v.Number] {
					t.Errorf("restored %d times, %s is given again", restored, v.Number)
				}
				sent[v.Number] = true
				if _, err := billing.ParseNumber(v.Number); err != nil {
					t.Error(err)
				}
			}
			return err
		})
		if err := errors.Join(err, db.Close()); err != nil {
			t.Fatal(err)
		}
	}
	if len(sent) != 3 {
		t.Errorf("invoices %v, want 3 of different numbers", sent)
	}
}
