package billingdb_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/follow/followtest"
	"github.com/freehold-go/freehold/intent"
	"github.com/freehold-go/freehold/shop/billing"
	"github.com/freehold-go/freehold/shop/billingdb"
	"github.com/freehold-go/freehold/shop/event"
	"github.com/freehold-go/freehold/sqldb"
)

// TestEveryFaultLeavesTheSameBooks runs all of Billing's handlers, with the answers
// of the provider, under followtest's schedules: duplicates, gaps, commits that
// fail or whose outcome is unknown, restarts behind every event (FIELD 12, 18).
func TestEveryFaultLeavesTheSameBooks(t *testing.T) {
	t.Parallel()
	types := must(must(event.OrderTypes()).Merge(must(event.BillingTypes())))
	call := func(order, step string, amount event.Money) freehold.Event {
		return event.CallRequested{Order: order, Step: step, Amount: amount}
	}
	var given []freehold.Write
	for _, w := range [][]freehold.Write{
		ofOrder("1", placed("1", 5000), call("1", "authorize", 5000), confirmed("1", 4000), call("1", "capture", 4000),
			event.OrderReturned{Return: "r1", Order: "1", Trade: event.Trade{Currency: "GBP"}, Amount: 1000}, call("1", "refund-r1", 1000)),
		ofOrder("2", placed("2", 5000), event.OrderRejected{Order: "2"}, call("2", "authorize", 5000), call("2", "void", 5000)),
		ofOrder("3", placed("3", 7000), call("3", "authorize", 7000), confirmed("3", 7000), event.OrderCancelled{Order: "3"},
			call("3", "capture", 7000), call("3", "refund", 7000)),
		ofOrder("4", event.OrderReturned{Return: "r2", Trade: event.Trade{Currency: "GBP", Reference: "C1"}, Amount: 27500}),
		ofOrder("5", placed("5", 0), confirmed("5", 0)),
	} {
		given = append(given, w...)
	}
	followtest.Run(t, followtest.Case[sqldb.Tx]{
		Open:  func(t testing.TB) follow.DB[sqldb.Tx] { return open(t) },
		Types: types,
		Given: given,
		Routes: func() []follow.Route[sqldb.Tx] {
			store, provider := billingdb.NewStore(0), billing.NewSimulated(nil)
			return []follow.Route[sqldb.Tx]{follow.Batch(func(ctx context.Context, tx sqldb.Tx, rs []freehold.Recorded) error {
				return inRuns(ctx, tx, store, provider, rs)
			})}
		},
		Digest: digest,
	})
}

// TestCheckoutIsChargedOnceAndInvoiced is the ordinary way.
func TestCheckoutIsChargedOnceAndInvoiced(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.say("1", placed("1", 5000))
	if keys := s.call(); !slices.Equal(keys, []string{"billing/1/authorize"}) {
		t.Fatalf("calls %v", keys)
	}
	s.say("1", confirmed("1", 3001))
	if keys := s.call(); !slices.Equal(keys, []string{"billing/1/capture"}) {
		t.Fatalf("calls %v", keys)
	}
	if want := "payment.call-requested payment.authorized payment.call-requested payment.captured invoice.issued"; s.history("1") != want {
		t.Errorf("history %q, want %q", s.history("1"), want)
	}
	p := s.payment("1")
	if p.State() != billing.Captured || p.Captured != 3001 || p.Voided != 1999 {
		t.Errorf("payment %+v", p)
	}
	want := billing.Books{Currency: "GBP", Billed: 3001, Captured: 3001, Net: 3001, Invoices: 1, Entries: 2}
	if diff := cmp.Diff(want, s.books()); diff != "" {
		t.Errorf("books (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[billing.Account]event.Money{billing.Cash: 3001, billing.Sales: -3001, billing.Receivable: 0}, s.balances()); diff != "" {
		t.Errorf("balances (-want +got):\n%s", diff)
	}
}

// TestDuplicateOrderPlacedIsOneCharge says the same thing twice, as another event
// of the journal (FIELD 12).
func TestDuplicateOrderPlacedIsOneCharge(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.say("1", placed("1", 5000), placed("1", 5000))
	calls := s.call()
	s.say("1", placed("1", 5000), confirmed("1", 5000), confirmed("1", 5000))
	calls = append(calls, s.call()...)
	s.say("1", placed("1", 5000))
	calls = append(calls, s.call()...)
	if want := []string{"billing/1/authorize", "billing/1/capture"}; !slices.Equal(calls, want) {
		t.Errorf("calls %v, want %v", calls, want)
	}
	if b := s.books(); b.Captured != 5000 || b.Invoices != 1 {
		t.Errorf("books %+v", b)
	}
}

// TestRejectionNetsToZero rejects before the order has arrived, while the
// authorisation is in flight, and behind it (FIELD 13, 38).
func TestRejectionNetsToZero(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.say("early", event.OrderRejected{Order: "early"}, placed("early", 5000))
	s.call()
	s.say("flight", placed("flight", 5000), event.OrderRejected{Order: "flight"})
	if got := s.payment("flight"); got.Call != billing.StepAuthorize {
		t.Errorf("%q in flight, want the authorisation alone", got.Call)
	}
	s.call()
	s.say("late", placed("late", 5000))
	s.call()
	s.say("late", event.OrderRejected{Order: "late"})
	s.call()
	for _, order := range []string{"early", "flight", "late"} {
		if p := s.payment(order); p.State() != billing.Voided || p.Captured != 0 || p.Authorised() != p.Voided {
			t.Errorf("%s: %s, authorised %s, voided %s", order, p.State(), p.Authorised(), p.Voided)
		}
	}
	if got := s.history("early"); got != "" {
		t.Errorf("an order that was rejected before it arrived was called for: %q", got)
	}
	if b := s.books(); b != (billing.Books{}) {
		t.Errorf("books %+v, want nothing", b)
	}
}

// TestCancelAfterCaptureRefunds cancels a charged order: credit note and refund
// bring every account back to zero (FIELD 14).
func TestCancelAfterCaptureRefunds(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.say("1", placed("1", 5000))
	s.call()
	s.say("1", confirmed("1", 5000))
	s.call()
	s.say("1", event.OrderReturned{Return: "r", Order: "1", Amount: 1500})
	s.say("1", event.OrderCancelled{Order: "1"}) // while the refund of the return is in flight
	if keys := s.call(); !slices.Equal(keys, []string{"billing/1/refund-r", "billing/1/refund"}) {
		t.Errorf("calls %v", keys)
	}
	if p := s.payment("1"); p.State() != billing.Refunded || p.Refunded() != 5000 {
		t.Errorf("payment %+v", p)
	}
	want := billing.Books{Currency: "GBP", Billed: 5000, Captured: 5000, Refunded: 5000, CreditNotes: 5000, Invoices: 1, Credits: 2, Entries: 6}
	if diff := cmp.Diff(want, s.books()); diff != "" {
		t.Errorf("books (-want +got):\n%s", diff)
	}
	balances := s.balances()
	if balances[billing.Cash] != 0 || balances[billing.Receivable] != 0 || balances[billing.CustomerCredit] != 0 || balances[billing.Sales]+balances[billing.Returns] != 0 {
		t.Errorf("balances %v", balances)
	}
}

// TestProviderRefusesCapture voids the hold and says so.
func TestProviderRefusesCapture(t *testing.T) {
	t.Parallel()
	s := start(t)
	e := placed("1", 5000)
	e.Simulate = billing.SimulateCaptureDecline
	s.say("1", e)
	s.call()
	s.say("1", confirmed("1", 5000))
	s.call()
	want := "payment.call-requested payment.authorized payment.call-requested payment.capture-failed payment.call-requested payment.voided"
	if s.history("1") != want {
		t.Errorf("history %q, want %q", s.history("1"), want)
	}
	if b := s.books(); b != (billing.Books{}) {
		t.Errorf("books %+v, want nothing", b)
	}
}

// TestReturnsWithoutAnOrder get a credit note each, once, and no refund call.
func TestReturnsWithoutAnOrder(t *testing.T) {
	t.Parallel()
	s := start(t)
	r := event.OrderReturned{Return: "c1", Trade: event.Trade{Reference: "C536379", Customer: "14527", Country: "United Kingdom", Currency: "GBP", At: at}, Amount: 27500}
	s.say("c1", r, r)
	if keys := s.call(); len(keys) != 0 {
		t.Errorf("calls %v", keys)
	}
	want := billing.Books{Currency: "GBP", CreditNotes: 27500, Net: -27500, Credits: 1, Entries: 1}
	if diff := cmp.Diff(want, s.books()); diff != "" {
		t.Errorf("books (-want +got):\n%s", diff)
	}
	if b := s.balances(); b[billing.CustomerCredit] != -27500 {
		t.Errorf("balances %v", b)
	}
	err := s.db.View(t.Context(), func(ctx context.Context, tx sqldb.Tx) error {
		c, err := billingdb.CreditNoteOf(ctx, tx, "c1")
		if err != nil {
			return err
		}
		want := billing.CreditNote{Number: "CN-000000001", Return: "c1", Amount: 27500, Issued: c.Issued,
			Trade: event.Trade{Reference: "C536379", Customer: "14527", Country: "United Kingdom", Currency: "GBP", At: at}}
		if diff := cmp.Diff(want, c); diff != "" {
			t.Errorf("credit note (-want +got):\n%s", diff)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// TestThousandthsAreExact bills prices that binary fractions do not have (FIELD 26).
func TestThousandthsAreExact(t *testing.T) {
	t.Parallel()
	s := start(t)
	var want event.Money
	for i := range 40 {
		order := fmt.Sprintf("o%d", i)
		total := event.Money(1 + i*101) // 0.001, 0.102, 0.203
		s.say(order, placed(order, total))
		s.call()
		s.say(order, confirmed(order, total))
		s.call()
		want += total
	}
	if b := s.books(); b.Billed != want || b.Captured != want || b.Net != want || b.Invoices != 40 {
		t.Errorf("books %+v, want %s", b, want)
	}
}

// TestRollbackLeavesNothing fails behind a capture that would have issued an
// invoice: neither number, nor entry, nor event is left (FIELD 16).
func TestRollbackLeavesNothing(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.say("1", placed("1", 5000))
	s.call()
	s.say("1", confirmed("1", 5000))
	_, before, err := s.db.Journal().Bounds(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	e := event.CallRequested{Order: "1", Step: billing.StepCapture, Amount: 5000}
	failed := errors.New("failed on purpose")
	_, err = s.db.Update(t.Context(), func(ctx context.Context, tx sqldb.Tx) error {
		if err := s.store.Answered(ctx, tx, done(e, billing.Outcome{Approved: true})); err != nil {
			return err
		}
		return failed
	})
	if !errors.Is(err, failed) {
		t.Fatalf("%v, want %v", err, failed)
	}
	_, after, err := s.db.Journal().Bounds(t.Context())
	if err != nil || after != before {
		t.Errorf("the journal went from %v to %v, %v", before, after, err)
	}
	if b := s.books(); b != (billing.Books{}) {
		t.Errorf("books %+v, want nothing", b)
	}
	s.call()
	err = s.db.View(t.Context(), func(ctx context.Context, tx sqldb.Tx) error {
		inv, err := billingdb.InvoiceOf(ctx, tx, "1")
		if err == nil && inv.Number != "INV-000000001" {
			t.Errorf("number %s: the rollback left a hole", inv.Number)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// TestExpiredHoldsAreVoided gives up holds that nobody claims, and only those.
func TestExpiredHoldsAreVoided(t *testing.T) {
	t.Parallel()
	s := start(t)
	s.say("1", placed("1", 5000))
	s.say("2", placed("2", 5000))
	s.call()
	s.say("2", confirmed("2", 5000))
	expire := func(now time.Time) (n int) {
		t.Helper()
		_, err := s.db.Update(t.Context(), func(ctx context.Context, tx sqldb.Tx) (err error) {
			n, err = s.store.Expire(ctx, tx, now, 100)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if n := expire(time.Now()); n != 0 {
		t.Errorf("%d expired at once", n)
	}
	if n := expire(time.Now().Add(billingdb.HoldFor)); n != 1 {
		t.Errorf("%d expired at the deadline, want 1", n)
	}
	if n := expire(time.Now().Add(billingdb.HoldFor)); n != 0 {
		t.Errorf("%d expired while the void is in flight", n)
	}
	s.call()
	if p := s.payment("1"); p.State() != billing.Voided || p.Reason == "" {
		t.Errorf("payment %+v", p)
	}
	if p := s.payment("2"); p.State() != billing.Captured {
		t.Errorf("payment %+v", p)
	}
}

// inRuns gives calls with what the provider answers, and what stands between them,
// to the store, each run at once.
func inRuns(ctx context.Context, tx sqldb.Tx, store *billingdb.Store, provider billing.Provider, rs []freehold.Recorded) error {
	for len(rs) > 0 {
		n, call := 0, rs[0].Type.Name == "payment.call-requested"
		var answers []intent.Done[event.CallRequested, billing.Outcome]
		for ; n < len(rs) && (rs[n].Type.Name == "payment.call-requested") == call; n++ {
			if !call {
				continue
			}
			e, err := rs[n].Decode()
			if err != nil {
				return err
			}
			o, err := billing.Perform(ctx, provider, e.(event.CallRequested), 1)
			if err != nil {
				return err
			}
			answers = append(answers, done(e.(event.CallRequested), o)...)
		}
		if err := store.Answered(ctx, tx, answers); err != nil {
			return err
		}
		if !call {
			if err := store.Apply(ctx, tx, rs[:n]); err != nil {
				return err
			}
		}
		rs = rs[n:]
	}
	return nil
}

// done is one answered call.
func done(e event.CallRequested, o billing.Outcome) []intent.Done[event.CallRequested, billing.Outcome] {
	return []intent.Done[event.CallRequested, billing.Outcome]{{Event: e, Outcome: o}}
}
