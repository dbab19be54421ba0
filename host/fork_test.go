package host_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"

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
			refused(t, s.orderAt, 5, "No answer from", "start it")
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
				refused(t, s.orderAt, 5, "freehold adopt", "invoices")
				s.until(func() bool { return len(s.forks(s.billingAt).Ahead) == 1 }, "billing stops")
				ahead := s.forks(s.billingAt).Ahead[0]
				if ahead.Base.Position != 2 || ahead.Mark.Position != 4 || len(ahead.Orphans) != 2 || ahead.Orphans[0].Stream != "order-3" || ahead.Orphans[1].Stream != "order-4" {
					t.Errorf("billing is ahead by %+v", ahead)
				}
				s.wantInvoices(1, 2, 3, 4)
				s.decide(choice)
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
	refused(t, s.orderAt, 5, "freehold adopt")
	s.until(func() bool { return len(s.forks(s.billingAt).Ahead) == 1 }, "billing stops")
	if f := s.forks(s.orderAt); f.Forks[0].Base.Position != 2 {
		t.Errorf("forks %+v", f)
	}
	// The operator of order does not wait for billing.
	if status := operator(t, http.MethodPost, s.orderAt, "/operator/adopt", nil, nil); status != http.StatusOK {
		t.Fatalf("adopt: %d", status)
	}
	s.until(func() bool { status, _, _ := s.command(5); return status == http.StatusOK }, "commands")
	s.wantInvoices(1, 2, 3, 4)
	s.decide(follow.Adopted)
	s.wantInvoices(1, 2, 3, 4, 9, 5)
	s.tokens(good, lost)
	s.verified()
}

// A standby is promoted. Where it had not received the last orders, the process that
// had written them finds out by itself, records the fork and ends, and the next one
// asks; where it had, that is no fork, but the process starts anew and asks, too.
func TestFailOver(t *testing.T) {
	for name, with := range map[string]struct{ loss bool }{"with loss": {true}, "without loss": {false}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			primary := testdb.NewPostgres(t)
			primary.Start()
			s := newSite(t, func() database {
				db, err := postgres.Open(t.Context(), primary.URL(), "order", catalog(t), &postgres.Options{Log: silent})
				return opened(t, db, err)
			})
			s.startOrder()
			s.startBilling()
			good := s.place(1, 2)
			s.wantInvoices(1, 2)
			standby := primary.Standby()
			invoiced := []int{1, 2}
			var lost []string
			if with.loss {
				standby.Stop()
				lost = s.place(3, 4)
				invoiced = append(invoiced, 3, 4)
				s.wantInvoices(invoiced...)
			}
			standby.Takes(primary)
			s.until(func() bool {
				select {
				case <-s.order.done:
					return true
				default:
					return false
				}
			}, "the process ends that has another server than before")
			s.startOrder()
			if with.loss {
				refused(t, s.orderAt, 5, "freehold adopt")
				f := s.forks(s.orderAt)
				if len(f.Forks) != 1 || f.Forks[0].Base.Position != 2 || !strings.Contains(f.Forks[0].Reason, "an instance of the service knew") {
					t.Errorf("forks %+v", f.Forks)
				}
				s.until(func() bool { return len(s.forks(s.billingAt).Ahead) == 1 }, "billing stops")
				s.decide(follow.Kept)
				s.until(func() bool { status, _, _ := s.command(5); return status == http.StatusOK }, "commands")
			} else {
				s.place(5)
				if f := s.forks(s.orderAt); len(f.Forks) != 0 {
					t.Errorf("forks %+v", f.Forks)
				}
			}
			s.wantInvoices(append(invoiced, 5)...)
			s.tokens(good, lost)
			s.verified()
		})
	}
}

// A cluster of etcd is restored beneath the process that has it open. It finds out by
// itself, records the fork and ends, and the next one finds it open.
func TestClusterThatIsRestoredBeneathAProcess(t *testing.T) {
	t.Parallel()
	e := onEtcd(t)
	s := newSite(t, e.open)
	s.startOrder()
	s.startBilling()
	good := s.place(1, 2)
	s.wantInvoices(1, 2)
	e.copy()
	s.until(func() bool { _, _, err := s.order.db.Journal().Fresh(t.Context()); return err == nil }, "the cluster is back")
	lost := s.place(3, 4)
	s.wantInvoices(1, 2, 3, 4)
	e.restore()
	s.until(func() bool {
		select {
		case <-s.order.done:
			return true
		default:
			return false
		}
	}, "the process ends whose cluster went back")
	s.startOrder()
	refused(t, s.orderAt, 5, "freehold adopt")
	f := s.forks(s.orderAt)
	if len(f.Forks) != 1 || f.Forks[0].Base.Position != 2 || !strings.Contains(f.Forks[0].Reason, "a process of the service knew") {
		t.Errorf("forks %+v", f.Forks)
	}
	s.until(func() bool { return len(s.forks(s.billingAt).Ahead) == 1 }, "billing stops")
	s.decide(follow.Kept)
	s.until(func() bool { status, _, _ := s.command(5); return status == http.StatusOK }, "commands")
	s.wantInvoices(1, 2, 3, 4, 5)
	s.tokens(good, lost)
	s.verified()
}

// What the broker holds is found out behind the first command only: it could not be
// reached at the start, or told another tail. The fork is recorded then, and settled,
// for nobody else is asked; and the broker gets what was written since.
func TestTailOfABrokerThatComesLate(t *testing.T) {
	for name, err := range map[string]error{"unreachable at first": errors.New("unreachable"), "empty at first": nil} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, good, lost := wentBack(t, onMemory(t), 0)
			s.late = &lateBroker{Publisher: s.bus.Publisher("order"), err: err, up: make(chan struct{})}
			s.alone = true
			s.startOrder()
			s.place(5) // nobody knows better
			if f := s.forks(s.orderAt); len(f.Forks) != 0 {
				t.Errorf("forks %+v before the broker could tell", f.Forks)
			}
			close(s.late.up)
			s.until(func() bool { f := s.forks(s.orderAt); return len(f.Forks) == 1 && !f.Forks.Open() }, "a fork, recorded and settled")
			if f := s.forks(s.orderAt); f.Forks[0].Base.Position != 2 {
				t.Errorf("forks %+v, want one behind 2", f.Forks)
			}
			s.until(func() bool { status, _, _ := s.command(6); return status == http.StatusOK }, "commands")
			s.until(func() bool {
				var all []follow.Status
				operator(t, http.MethodGet, s.orderAt, "/operator/followers", nil, &all)
				return len(all) == 1 && all[0].State == follow.Running && all[0].Mark.Position == 4
			}, "the relay goes on")
			s.startBilling()
			s.wantInvoices(1, 2, 5, 6)
			s.tokens(good, lost)
			s.verified()
		})
	}
}
