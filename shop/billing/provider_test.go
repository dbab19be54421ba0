package billing_test

import (
	"context"
	"errors"
	"flag"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/freehold-go/freehold/shop/billing"
	"github.com/freehold-go/freehold/shop/event"
)

func init() {
	// A failure prints its seed; files beside the sources are not wanted.
	if err := flag.Set("rapid.nofailfile", "true"); err != nil {
		panic(err)
	}
}

// lossy is the gateway behind a network that loses requests and answers, as a
// rapid test draws it.
type lossy struct {
	t          *rapid.T
	g          gateway
	operations map[string]int // requests that were not repetitions after a query said that there was none
	queried    map[string]bool
}

func (l *lossy) operate(r billing.Request) (billing.Outcome, error) {
	step := strings.TrimPrefix(r.Key, billing.Key(r.Order, ""))
	if _, arrived := l.g.answers[step]; arrived && !l.queried[step] && l.operations[step] > 0 {
		l.t.Fatalf("%s was sent again without asking what became of it", r.Key)
	}
	l.operations[step]++
	fate := rapid.SampledFrom([]string{"answered", "answered", "request lost", "answer lost"}).Draw(l.t, r.Key)
	if fate == "request lost" {
		return billing.Outcome{}, billing.ErrUnknown
	}
	o := l.g.arrive(event.CallRequested{Order: r.Order, Step: step, Amount: r.Amount})
	if fate == "answer lost" {
		return billing.Outcome{}, billing.ErrUnknown
	}
	return o, nil
}

func (l *lossy) Authorize(_ context.Context, r billing.Request) (billing.Outcome, error) {
	return l.operate(r)
}

func (l *lossy) Capture(_ context.Context, r billing.Request) (billing.Outcome, error) {
	return l.operate(r)
}

func (l *lossy) Void(_ context.Context, r billing.Request) (billing.Outcome, error) {
	return l.operate(r)
}

func (l *lossy) Refund(_ context.Context, r billing.Request) (billing.Outcome, error) {
	return l.operate(r)
}

func (l *lossy) Query(_ context.Context, key string) (billing.Outcome, error) {
	step := strings.TrimPrefix(key, billing.Key(order, ""))
	l.queried[step] = true
	o, ok := l.g.answers[step]
	switch {
	case !ok:
		return o, billing.ErrNoOperation
	case rapid.Bool().Draw(l.t, "pending"):
		return billing.Outcome{}, billing.ErrPending
	}
	return o, nil
}

// TestUnknownOutcomesAreAskedForAndNeverDoubled lets a network lose requests and
// answers at random, delivers every fact and every answer at random and sometimes
// twice, and expects the same books as without any of it (FIELD 18, 38).
func TestUnknownOutcomesAreAskedForAndNeverDoubled(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		total := event.Money(rapid.Int64Range(0, 5000).Draw(t, "total"))
		amount := event.Money(rapid.Int64Range(0, int64(total)).Draw(t, "amount"))
		facts := []fact{placed(total)}
		confirms, cancels := rapid.Bool().Draw(t, "confirms"), rapid.Bool().Draw(t, "cancels")
		if confirms {
			facts = append(facts, confirmed(amount))
		}
		if cancels {
			facts = append(facts, ended(billing.Cancelled))
		}
		var back event.Money
		for _, id := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "c"}), 0, 3, rapid.ID[string]).Draw(t, "returns") {
			m := event.Money(rapid.Int64Range(0, 3000).Draw(t, "returned"))
			facts = append(facts, returned(id, m))
			back += m
		}
		facts = append(facts, slices.Clone(facts)...) // each arrives twice
		facts = rapid.Permutation(facts).Draw(t, "order")

		l := &lossy{t: t, operations: map[string]int{}, queried: map[string]bool{}}
		l.g.declines, l.g.noCapture = rapid.Bool().Draw(t, "declines"), rapid.Bool().Draw(t, "refuses capture")
		w := world{p: billing.Payment{Order: order}, facts: facts}
		attempts := map[string]int{}
		for len(w.facts) > 0 || len(w.calls) > 0 {
			if len(w.calls) > 1 {
				t.Fatalf("%d calls in flight", len(w.calls))
			}
			if len(w.facts) > 0 && (len(w.calls) == 0 || rapid.Bool().Draw(t, "fact next")) {
				f := w.facts[0]
				w.facts = w.facts[1:]
				c, err := f.apply(&w.p)
				if err := w.take(f.name, c, err); err != nil {
					t.Fatal(err)
				}
				continue
			}
			e := w.calls[0].CallRequested
			attempts[e.Step]++
			o, err := billing.Perform(context.Background(), l, e, attempts[e.Step])
			if err != nil {
				if !errors.Is(err, billing.ErrUnknown) && !errors.Is(err, billing.ErrPending) {
					t.Fatal(err)
				}
				continue
			}
			w.calls = w.calls[1:]
			c, err := w.p.Answer(e.Step, o, time.Unix(0, 0), time.Hour)
			if err := w.take(e.Step, c, err); err != nil {
				t.Fatal(err)
			}
			again, err := w.p.Answer(e.Step, o, time.Unix(0, 0), time.Hour)
			if err != nil || again.New {
				t.Fatalf("the answer to %s counted twice: %+v, %v", e.Step, again, err)
			}
		}
		want := outcome{}
		refused := l.g.declines && total > 0 || l.g.noCapture && amount > 0
		switch charged := confirms && !refused; {
		case cancels:
			want.invoice = len(w.invoices) == 1 // either way is right
		case charged:
			want.charged, want.invoice = max(0, amount-back), true
		case !confirms && !l.g.declines:
			want.held = total
		}
		w.g = l.g
		if err := w.check(want); err != nil {
			t.Fatalf("%v\nafter: %q\nevents: %q", err, w.trace, w.events)
		}
	})
}

// TestExpiryVoidsAnUnclaimedHold lets an authorisation run out, before and after
// the confirmation.
func TestExpiryVoidsAnUnclaimedHold(t *testing.T) {
	t.Parallel()
	start := time.Unix(1_000_000, 0)
	held := func() billing.Payment {
		p := billing.Payment{Order: order}
		_, _ = p.Place(event.Trade{}, 5000, "")
		_, _ = p.Answer(billing.StepAuthorize, billing.Outcome{Approved: true}, start, time.Hour)
		return p
	}
	p := held()
	if c, err := p.Expire(start.Add(time.Hour - time.Second)); err != nil || c.New {
		t.Fatalf("expired early: %+v, %v", c, err)
	}
	c, err := p.Expire(start.Add(time.Hour))
	if err != nil || c.Call == nil || c.Call.Step != billing.StepVoid {
		t.Fatalf("at the deadline: %+v, %v, want a void", c, err)
	}
	if c, err = p.Confirm(event.Trade{}, 5000); err != nil || c.Call != nil {
		t.Fatalf("confirmed while the void is in flight: %+v, %v", c, err)
	}
	if c, err = p.Answer(billing.StepVoid, billing.Outcome{Approved: true}, start, time.Hour); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range c.Events {
		names = append(names, e.EventType().Name)
	}
	if want := []string{"payment.voided", "payment.capture-failed"}; !slices.Equal(names, want) {
		t.Errorf("events %v, want %v", names, want)
	}
	p = held()
	_, _ = p.Confirm(event.Trade{}, 5000)
	if c, err := p.Expire(start.Add(2 * time.Hour)); err != nil || c.New {
		t.Errorf("a hold that is being captured expired: %+v, %v", c, err)
	}
}

// TestSimulatedProvider shows what each value of the simulate field does, and that
// a key gives the same answer again, also from a provider that was restarted.
func TestSimulatedProvider(t *testing.T) {
	t.Parallel()
	settle := func(t *testing.T, p billing.Provider, e event.CallRequested) (billing.Outcome, int) {
		t.Helper()
		for attempt := 1; attempt < 10; attempt++ {
			o, err := billing.Perform(t.Context(), p, e, attempt)
			if err == nil {
				return o, attempt
			}
			if !errors.Is(err, billing.ErrUnknown) && !errors.Is(err, billing.ErrPending) {
				t.Fatal(err)
			}
		}
		t.Fatal("no definite outcome after 9 attempts")
		return billing.Outcome{}, 0
	}
	yes, no, never := billing.Outcome{Approved: true}, billing.Outcome{Reason: "card declined"}, billing.Outcome{Reason: "capture declined"}
	for _, c := range []struct {
		simulate, step string
		want           billing.Outcome
		takes          time.Duration
	}{
		{"", billing.StepAuthorize, yes, 0},
		{billing.SimulateDecline, billing.StepAuthorize, no, 0},
		{billing.SimulateCaptureDecline, billing.StepAuthorize, yes, 0},
		{billing.SimulateCaptureDecline, billing.StepCapture, never, 0},
		{billing.SimulateTimeout, billing.StepAuthorize, yes, 50 * time.Millisecond},
		{billing.SimulateTimeout, billing.StepRefund, yes, 50 * time.Millisecond},
		{billing.SimulateLate, billing.StepAuthorize, yes, time.Second},
		{billing.SimulateLate, billing.StepVoid, yes, time.Second},
	} {
		for _, id := range []string{"a", "b", "c", "d"} {
			synctest.Test(t, func(t *testing.T) {
				e := event.CallRequested{Order: id, Step: c.step, Amount: 5000, Simulate: c.simulate}
				p := billing.NewSimulated(nil)
				began := time.Now()
				got, _ := settle(t, p, e)
				if got != c.want || time.Since(began) != c.takes {
					t.Errorf("%q %s: %+v after %v, want %+v after %v", c.simulate, c.step, got, time.Since(began), c.want, c.takes)
				}
				for _, p := range []billing.Provider{p, billing.NewSimulated(nil)} {
					if again, _ := settle(t, p, e); again != got {
						t.Errorf("%q %s: %+v the second time, %+v the first", c.simulate, c.step, again, got)
					}
				}
			})
		}
	}
}

// TestSimulatedTimeoutHappensOrNot shows that among operations that are not
// answered there are some that have happened and some that have not.
func TestSimulatedTimeoutHappensOrNot(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := billing.NewSimulated(nil)
		happened, lost := 0, 0
		for i := range 64 {
			key := billing.Key(string(rune('A'+i)), billing.StepAuthorize)
			if _, err := p.Authorize(t.Context(), billing.Request{Key: key, Simulate: billing.SimulateTimeout}); !errors.Is(err, billing.ErrUnknown) {
				t.Fatalf("%v, want ErrUnknown", err)
			}
			switch _, err := p.Query(t.Context(), key); {
			case err == nil:
				happened++
			case errors.Is(err, billing.ErrNoOperation):
				lost++
			default:
				t.Fatal(err)
			}
		}
		if happened == 0 || lost == 0 {
			t.Errorf("%d happened, %d were lost: want some of both", happened, lost)
		}
	})
}

// TestLateAnswerIsPendingMeanwhile gives up waiting for a late answer and asks.
func TestLateAnswerIsPendingMeanwhile(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := billing.NewSimulated(nil)
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		r := billing.Request{Key: "k", Simulate: billing.SimulateLate}
		if _, err := p.Authorize(ctx, r); !errors.Is(err, billing.ErrUnknown) {
			t.Fatalf("%v, want ErrUnknown", err)
		}
		if _, err := p.Query(t.Context(), "k"); !errors.Is(err, billing.ErrPending) {
			t.Fatalf("%v, want ErrPending", err)
		}
		time.Sleep(900 * time.Millisecond)
		if o, err := p.Query(t.Context(), "k"); err != nil || !o.Approved {
			t.Fatalf("%+v, %v, want an approval", o, err)
		}
	})
}
