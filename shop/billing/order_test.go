package billing_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/freehold-go/freehold/shop/billing"
	"github.com/freehold-go/freehold/shop/event"
)

const order = "7f3a"

// gateway is a provider that keeps the truth: what is held, charged and paid back.
type gateway struct {
	answers               map[string]billing.Outcome // by step
	held, charged, repaid event.Money
	declines, noCapture   bool
}

// arrive is the moment at which an operation takes effect.
func (g *gateway) arrive(c event.CallRequested) billing.Outcome {
	if o, again := g.answers[c.Step]; again {
		return o
	}
	o := billing.Outcome{Approved: true}
	refuse := func(reason string) { o = billing.Outcome{Reason: reason} }
	switch step, _, _ := strings.Cut(c.Step, "-"); step {
	case billing.StepAuthorize:
		if g.declines {
			refuse("declined")
			break
		}
		g.held += c.Amount
	case billing.StepCapture:
		if g.noCapture || g.held < c.Amount {
			refuse("no capture")
			break
		}
		g.held, g.charged = 0, g.charged+c.Amount
	case billing.StepVoid:
		if g.held == 0 {
			refuse("nothing to void")
			break
		}
		g.held = 0
	case billing.StepRefund:
		if g.charged-g.repaid < c.Amount {
			refuse("more than was charged")
			break
		}
		g.repaid += c.Amount
	}
	answers := map[string]billing.Outcome{c.Step: o}
	for k, v := range g.answers {
		answers[k] = v
	}
	g.answers = answers
	return o
}

// call is one that has been asked for; done says that it has arrived.
type call struct {
	event.CallRequested
	done    bool
	outcome billing.Outcome
}

// world is a payment, its provider, what is in flight between them, and the facts
// that are still to arrive. It is a value: exploring copies it.
type world struct {
	p        billing.Payment
	g        gateway
	calls    []call
	facts    []fact
	invoices []event.Money
	credits  []event.Money
	cash     event.Money
	events   []string
	trace    []string
}

type fact struct {
	name  string
	apply func(*billing.Payment) (billing.Change, error)
}

func (w world) clone() world {
	w.p.Refunds = slices.Clone(w.p.Refunds)
	w.calls, w.facts = slices.Clone(w.calls), slices.Clone(w.facts)
	w.invoices, w.credits = slices.Clone(w.invoices), slices.Clone(w.credits)
	w.events, w.trace = slices.Clone(w.events), slices.Clone(w.trace)
	return w
}

// take applies a change of the payment to the world.
func (w *world) take(what string, c billing.Change, err error) error {
	w.trace = append(w.trace, what)
	if err != nil {
		return err
	}
	if !c.New && (len(c.Events) > 0 || c.Call != nil || c.Invoice != nil || len(c.Credits) > 0 || len(c.Entries) > 0) {
		return fmt.Errorf("%s: changes although nothing is new", what)
	}
	for _, e := range c.Events {
		w.events = append(w.events, e.EventType().Name)
	}
	if c.Invoice != nil {
		w.invoices = append(w.invoices, *c.Invoice)
		w.cash += *c.Invoice
	}
	for _, credit := range c.Credits {
		w.credits = append(w.credits, credit.Amount)
	}
	for _, e := range c.Entries {
		if e.Kind == billing.KindRefund {
			w.cash -= e.Amount
		}
	}
	if c.Call != nil {
		w.calls = append(w.calls, call{CallRequested: *c.Call})
	}
	return nil
}

// steps are the worlds that can follow: any fact may arrive, any call may reach the
// provider, any answer may come back, in any order.
func (w world) steps() ([]world, error) {
	var next []world
	for i := range w.facts {
		n := w.clone()
		f := n.facts[i]
		n.facts = slices.Delete(n.facts, i, i+1)
		c, err := f.apply(&n.p)
		if err := n.take(f.name, c, err); err != nil {
			return nil, err
		}
		next = append(next, n)
	}
	for i, c := range w.calls {
		n := w.clone()
		if !c.done {
			n.calls[i].done, n.calls[i].outcome = true, n.g.arrive(c.CallRequested)
			n.trace = append(n.trace, c.Step+" arrives")
			next = append(next, n)
			continue
		}
		n.calls = slices.Delete(n.calls, i, i+1)
		change, err := n.p.Answer(c.Step, c.outcome, time.Unix(0, 0), time.Hour)
		if err := n.take(c.Step+" answered", change, err); err != nil {
			return nil, err
		}
		next = append(next, n)
	}
	return next, nil
}

// outcome is what must be true of every way to the end of a case.
type outcome struct {
	charged event.Money // at the end, less what was paid back
	held    event.Money
	invoice bool
}

func (w *world) check(want outcome) error {
	switch {
	case len(w.calls) > 1:
		return fmt.Errorf("%d calls in flight at once", len(w.calls))
	case len(w.facts) > 0 || len(w.calls) > 0:
		return nil // not the end
	case w.p.Call != "":
		return fmt.Errorf("%s is in flight for ever", w.p.Call)
	case w.g.charged-w.g.repaid != want.charged:
		return fmt.Errorf("the customer has paid %s, want %s", w.g.charged-w.g.repaid, want.charged)
	case w.g.held != want.held:
		return fmt.Errorf("%s is still held, want %s", w.g.held, want.held)
	case w.cash != w.g.charged-w.g.repaid:
		return fmt.Errorf("the ledger has %s of cash, the provider %s", w.cash, w.g.charged-w.g.repaid)
	case w.p.Captured != w.g.charged:
		return fmt.Errorf("the payment says %s captured, the provider %s", w.p.Captured, w.g.charged)
	case slices.Contains(w.events, "payment.authorized") != (slices.Contains(w.events, "payment.captured") || slices.Contains(w.events, "payment.voided") || want.held > 0 || w.p.State() == billing.Authorized):
		return fmt.Errorf("an authorisation has neither been captured nor voided nor is it held")
	case w.p.Authorised() != w.p.Captured+w.p.Voided+w.g.held:
		return fmt.Errorf("authorised %s, captured %s, voided %s, held %s", w.p.Authorised(), w.p.Captured, w.p.Voided, w.g.held)
	case len(w.invoices) > 1 || (len(w.invoices) == 1) != slices.Contains(w.events, "payment.captured"):
		return fmt.Errorf("invoices %v, events %v", w.invoices, w.events)
	case want.invoice != (len(w.invoices) == 1):
		return fmt.Errorf("invoices %v, want one: %t", w.invoices, want.invoice)
	case len(w.invoices) == 1 && w.invoices[0] != w.g.charged:
		return fmt.Errorf("invoice of %s, charged %s", w.invoices[0], w.g.charged)
	case w.p.Refunded() != w.g.repaid:
		return fmt.Errorf("the payment says %s paid back, the provider %s", w.p.Refunded(), w.g.repaid)
	}
	var credited event.Money
	for _, c := range w.credits {
		credited += c
	}
	if len(w.invoices) == 0 && len(w.credits) > 0 || credited != w.g.repaid {
		return fmt.Errorf("invoices %v, credit notes %v, paid back %s", w.invoices, w.credits, w.g.repaid)
	}
	return nil
}

// explore walks every order of events until nothing is left to happen, and returns
// how many ends it has seen.
func explore(w world, want outcome) (int, error) {
	if err := w.check(want); err != nil {
		return 0, fmt.Errorf("%w\nafter: %q\nevents: %q", err, w.trace, w.events)
	}
	next, err := w.steps()
	if err != nil {
		return 0, fmt.Errorf("%w\nafter: %q", err, w.trace)
	}
	if len(next) == 0 {
		return 1, nil
	}
	ends := 0
	for _, n := range next {
		m, err := explore(n, want)
		if err != nil {
			return 0, err
		}
		ends += m
	}
	return ends, nil
}

func placed(total event.Money) fact {
	return fact{"placed", func(p *billing.Payment) (billing.Change, error) {
		return p.Place(event.Trade{Currency: "GBP"}, total, "")
	}}
}

func confirmed(amount event.Money) fact {
	return fact{"confirmed", func(p *billing.Payment) (billing.Change, error) {
		return p.Confirm(event.Trade{Currency: "GBP"}, amount)
	}}
}

func ended(why string) fact {
	return fact{why, func(p *billing.Payment) (billing.Change, error) { return p.End(why) }}
}

func returned(id string, amount event.Money) fact {
	return fact{"returned " + id, func(p *billing.Payment) (billing.Change, error) { return p.Return(id, amount) }}
}

// TestEveryOrderOfArrivalNetsToZeroOrOneCharge walks through every order in which
// the events of an order, its calls and their answers can happen (FIELD 13, 14,
// 38). Whatever the order, the customer has paid what was confirmed or nothing,
// nothing is left held, and the documents and the ledger say the same.
func TestEveryOrderOfArrivalNetsToZeroOrOneCharge(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name  string
		facts []fact
		g     gateway
		want  outcome
	}{
		{name: "placed only", facts: []fact{placed(5000)}, want: outcome{held: 5000}},
		{name: "confirmed", facts: []fact{placed(5000), confirmed(5000)}, want: outcome{charged: 5000, invoice: true}},
		{name: "confirmed in part", facts: []fact{placed(5000), confirmed(3001)}, want: outcome{charged: 3001, invoice: true}},
		{name: "confirmed twice", facts: []fact{placed(5000), confirmed(5000), placed(5000), confirmed(5000)}, want: outcome{charged: 5000, invoice: true}},
		{name: "rejected", facts: []fact{placed(5000), ended(billing.Rejected)}},
		{name: "cancelled twice", facts: []fact{placed(5000), ended(billing.Cancelled), ended(billing.Cancelled), placed(5000)}},
		{name: "declined", facts: []fact{placed(5000), ended(billing.Rejected)}, g: gateway{declines: true}},
		{name: "declined and confirmed all the same", facts: []fact{placed(5000), confirmed(5000)}, g: gateway{declines: true}},
		{name: "capture declined", facts: []fact{placed(5000), confirmed(5000)}, g: gateway{noCapture: true}},
		{name: "capture declined, then cancelled", facts: []fact{placed(5000), confirmed(5000), ended(billing.Cancelled)}, g: gateway{noCapture: true}},
		{name: "returned in part", facts: []fact{placed(5000), confirmed(5000), returned("a", 2000)}, want: outcome{charged: 3000, invoice: true}},
		{name: "returned in two parts, one of them twice", facts: []fact{placed(5000), confirmed(5000), returned("a", 2000), returned("b", 1000), returned("a", 2000)}, want: outcome{charged: 2000, invoice: true}},
		{name: "returned for more than was charged", facts: []fact{placed(5000), confirmed(3000), returned("a", 2000), returned("b", 2000)}, want: outcome{invoice: true}},
		{name: "returned but never confirmed", facts: []fact{placed(5000), returned("a", 2000), ended(billing.Rejected)}},
		{name: "zero total", facts: []fact{placed(0), confirmed(0)}, want: outcome{invoice: true}},
		{name: "zero total rejected", facts: []fact{placed(0), ended(billing.Rejected)}},
		{name: "nothing left to capture", facts: []fact{placed(5000), confirmed(0)}, want: outcome{invoice: true}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			ends, err := explore(world{p: billing.Payment{Order: order}, g: c.g, facts: c.facts}, c.want)
			if err != nil {
				t.Fatal(err)
			}
			if ends == 0 {
				t.Fatal("no end was reached")
			}
			t.Logf("%d orders of arrival", ends)
		})
	}
}

// TestCancelBeforeAndAfterEachAnswerNetsToZero is the same for a cancellation (or
// rejection) at every place of a confirmed order's life: there is an invoice only
// if the capture was already on its way, and then it is credited and refunded.
func TestCancelBeforeAndAfterEachAnswerNetsToZero(t *testing.T) {
	t.Parallel()
	for _, facts := range [][]fact{
		{placed(5000), confirmed(5000), ended(billing.Cancelled)},
		{placed(5000), confirmed(4000), ended(billing.Cancelled), returned("a", 1000)},
		{placed(5000), confirmed(0), ended(billing.Cancelled)},
		{placed(0), confirmed(0), ended(billing.Cancelled)},
		{placed(5000), confirmed(5000), ended(billing.Rejected), ended(billing.Cancelled)},
	} {
		for _, invoice := range []bool{false, true} {
			ends, err := exploreIf(world{p: billing.Payment{Order: order}, facts: facts}, outcome{invoice: invoice}, invoice)
			if err != nil {
				t.Fatal(err)
			}
			if ends == 0 {
				t.Fatalf("no end with invoice %t", invoice)
			}
		}
	}
}

// exploreIf is explore for the ends with or without an invoice.
func exploreIf(w world, want outcome, invoice bool) (int, error) {
	if len(w.facts) == 0 && len(w.calls) == 0 && (len(w.invoices) > 0) != invoice {
		return 0, nil
	}
	if err := w.check(want); err != nil {
		return 0, fmt.Errorf("%w\nafter: %q", err, w.trace)
	}
	next, err := w.steps()
	if err != nil || len(next) == 0 {
		return 1, err
	}
	ends := 0
	for _, n := range next {
		m, err := exploreIf(n, want, invoice)
		if err != nil {
			return 0, err
		}
		ends += m
	}
	return ends, nil
}

// TestVoidWaitsForTheAuthorization rejects an order while its authorisation is on
// its way: a void sent beside it arrives first, finds nothing, and the customer's
// money stays held.
func TestVoidWaitsForTheAuthorization(t *testing.T) {
	t.Parallel()
	if _, err := explore(world{p: billing.Payment{Order: order}, facts: []fact{placed(5000), ended(billing.Rejected)}}, outcome{}); err != nil {
		t.Fatal(err)
	}
}
