package host_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/internal/testdb"
	"github.com/freehold-go/freehold/postgres"
)

// wentBack runs a site in which order is put back behind its first two orders and has
// lost two more, of which billing has applied so many.
func wentBack(t *testing.T, e engine, applied int) (s *site, good, lost []string) {
	t.Helper()
	s = newSite(t, e.open)
	s.startOrder()
	s.startBilling()
	good = s.place(1, 2)
	s.wantInvoices(1, 2)
	s.order.stop()
	e.copy()
	s.startOrder()
	if applied < 2 {
		if applied == 1 {
			lost = s.place(3)
			s.wantInvoices(1, 2, 3)
		}
		s.billing.stop()
	}
	for n := 3 + len(lost); n <= 4; n++ {
		lost = append(lost, s.place(n)...)
	}
	if applied == 2 {
		s.wantInvoices(1, 2, 3, 4)
	}
	tok, err := freehold.ParseToken(lost[1])
	if err != nil {
		t.Fatal(err)
	}
	s.until(func() bool { // the broker has them
		last, err := s.bus.Publisher("order").Last(t.Context(), "order")
		return err == nil && last.Position == tok.Of("order")[0].Position
	}, "published")
	s.order.stop()
	e.restore()
	return s, good, lost
}

// Nobody has applied what was lost: order finds out by the broker, before its first
// command, and goes on by itself when billing has answered.
func TestRestoredSourceGoesOnByItselfWhereNobodyIsAhead(t *testing.T) {
	for name, on := range engines {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, good, lost := wentBack(t, on(t), 0)
			s.startOrder()
			if status, body, _ := s.command(5); status != http.StatusServiceUnavailable || !strings.Contains(body, "No answer from") {
				t.Errorf("billing has not answered, and a command gets %d %s", status, body)
			}
			s.startBilling()
			s.until(func() bool { status, _, _ := s.command(5); return status == http.StatusOK }, "commands")
			s.wantInvoices(1, 2, 5)
			f := s.forks(s.orderAt)
			if len(f.Forks) != 1 || f.Forks[0].Base.Position != 2 || f.Stopped != nil || f.Forks[0].Epoch != f.Epoch {
				t.Errorf("forks %+v", f)
			}
			s.tokens(good, lost)
			s.verified()
			s.order.stop()
			s.startOrder() // and says so no more
			s.place(6)
			s.wantInvoices(1, 2, 5, 6)
			if f := s.forks(s.orderAt); len(f.Forks) != 1 {
				t.Errorf("forks %+v", f)
			}
		})
	}
}

// Billing has applied what was lost: order refuses commands, billing lists the
// orphans, and an operator's choice lets both go on.
func TestConsumerAheadStopsTheSourceUntilAnOperatorDecides(t *testing.T) {
	for name, on := range engines {
		for _, choice := range []string{follow.Adopted, follow.Kept} {
			t.Run(name+" "+choice, func(t *testing.T) {
				t.Parallel()
				s, good, lost := wentBack(t, on(t), 2)
				s.startOrder()
				status, body, _ := s.command(5)
				if status != http.StatusServiceUnavailable || !strings.Contains(body, "freehold adopt") || !strings.Contains(body, "invoices") {
					t.Fatalf("a command gets %d %s", status, body)
				}
				s.until(func() bool { return len(s.forks(s.billingAt).Ahead) == 1 }, "billing stops")
				ahead := s.forks(s.billingAt).Ahead[0]
				if ahead.Base.Position != 2 || ahead.Mark.Position != 4 || len(ahead.Orphans) != 2 || ahead.Orphans[0].Stream != "order-3" || ahead.Orphans[1].Stream != "order-4" {
					t.Errorf("billing is ahead by %+v", ahead)
				}
				s.wantInvoices(1, 2, 3, 4)
				if status := s.operator(http.MethodPost, s.billingAt, "/operator/"+choice, url.Values{"follower": {"invoices"}, "source": {"order"}}, nil); status != http.StatusOK {
					t.Fatalf("%s: %d", choice, status)
				}
				s.until(func() bool { status, _, _ := s.command(5); return status == http.StatusOK }, "commands")
				s.wantInvoices(1, 2, 3, 4, 5)
				f := s.forks(s.billingAt)
				if len(f.Ahead) != 0 || len(f.Decisions) != 1 || f.Decisions[0].Choice != choice || len(f.Decisions[0].Orphans) != 2 {
					t.Errorf("billing has on record %+v", f)
				}
				s.tokens(good, lost)
				s.verified()
			})
		}
	}
}

// A source that was written on before anybody could be asked finds out as soon as
// somebody can: the base is where it was put back, not where it stands now.
func TestSourceThatWasWrittenOnFindsOutLater(t *testing.T) {
	t.Parallel()
	e := onSQLite(t)
	s, good, lost := wentBack(t, e, 2)
	s.billing.stop()
	db := e.open() // without its host: nobody is asked
	if _, err := db.Append(t.Context(), freehold.Write{Stream: "order-9", Expect: freehold.Any, Events: []freehold.Event{placed{9}}}); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	s.startBilling()
	s.startOrder()
	if status, body, _ := s.command(5); status != http.StatusServiceUnavailable {
		t.Fatalf("a command gets %d %s", status, body)
	}
	s.until(func() bool { return len(s.forks(s.billingAt).Ahead) == 1 }, "billing stops")
	if f := s.forks(s.orderAt); f.Forks[0].Base.Position != 2 {
		t.Errorf("forks %+v", f)
	}
	// The operator of order does not wait for billing.
	if status := s.operator(http.MethodPost, s.orderAt, "/operator/adopt", nil, nil); status != http.StatusOK {
		t.Fatalf("adopt: %d", status)
	}
	s.until(func() bool { status, _, _ := s.command(5); return status == http.StatusOK }, "commands")
	s.wantInvoices(1, 2, 3, 4)
	if status := s.operator(http.MethodPost, s.billingAt, "/operator/adopt", url.Values{"follower": {"invoices"}, "source": {"order"}}, nil); status != http.StatusOK {
		t.Fatalf("adopt: %d", status)
	}
	s.wantInvoices(1, 2, 3, 4, 9, 5)
	s.tokens(good, lost)
	s.verified()
}

// A standby is promoted that had not received the last orders. The process that had
// written them finds out by itself, records the fork and ends; the next one asks.
func TestFailOverWithLossIsRecognisedByTheProcessThatSawIt(t *testing.T) {
	t.Parallel()
	primary := testdb.NewPostgres(t)
	s := newSite(t, func() database {
		db, err := postgres.Open(t.Context(), primary.URL(), "order", catalog(t), &postgres.Options{Log: silent})
		if err != nil {
			t.Fatal(err)
		}
		return db
	})
	primary.Start()
	s.startOrder()
	s.startBilling()
	good := s.place(1, 2)
	s.wantInvoices(1, 2)
	standby := primary.Standby()
	standby.Stop()
	lost := s.place(3, 4)
	s.wantInvoices(1, 2, 3, 4)
	standby.Takes(primary)
	select {
	case <-s.order.done:
	case <-time.After(20 * time.Second):
		t.Fatal("the process goes on although its database went back in time")
	}
	s.startOrder()
	if status, body, _ := s.command(5); status != http.StatusServiceUnavailable || !strings.Contains(body, "freehold adopt") {
		t.Fatalf("a command gets %d %s", status, body)
	}
	if f := s.forks(s.orderAt); len(f.Forks) != 1 || f.Forks[0].Base.Position != 2 || !strings.Contains(f.Forks[0].Reason, "an instance of the service knew") {
		t.Errorf("forks %+v", f.Forks)
	}
	s.until(func() bool { return len(s.forks(s.billingAt).Ahead) == 1 }, "billing stops")
	if status := s.operator(http.MethodPost, s.billingAt, "/operator/keep", url.Values{"follower": {"invoices"}, "source": {"order"}}, nil); status != http.StatusOK {
		t.Fatalf("keep: %d", status)
	}
	s.until(func() bool { status, _, _ := s.command(5); return status == http.StatusOK }, "commands")
	s.wantInvoices(1, 2, 3, 4, 5)
	s.tokens(good, lost)
	s.verified()
}

// A fail-over that loses nothing is no fork: the process starts anew, asks, and goes on.
func TestFailOverWithoutLossIsNoFork(t *testing.T) {
	t.Parallel()
	primary := testdb.NewPostgres(t)
	s := newSite(t, func() database {
		db, err := postgres.Open(t.Context(), primary.URL(), "order", catalog(t), &postgres.Options{Log: silent})
		if err != nil {
			t.Fatal(err)
		}
		return db
	})
	primary.Start()
	s.startOrder()
	s.startBilling()
	tokens := s.place(1, 2)
	s.wantInvoices(1, 2)
	primary.Standby().Takes(primary)
	select {
	case <-s.order.done:
	case <-time.After(20 * time.Second):
		t.Fatal("the process goes on with another server, and nobody was asked")
	}
	s.startOrder()
	s.place(3)
	s.wantInvoices(1, 2, 3)
	if f := s.forks(s.orderAt); len(f.Forks) != 0 {
		t.Errorf("forks %+v", f.Forks)
	}
	s.tokens(tokens, nil)
	s.verified()
}
