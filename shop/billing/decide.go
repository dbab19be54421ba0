package billing

import (
	"fmt"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/internal/mutant"
	"github.com/freehold-go/freehold/shop/event"
)

// Change is what one fact leads to besides the payment's new state: it is written
// in the transaction of the fact, or not at all.
type Change struct {
	// New says that the fact was not known yet. If it is false nothing is to be
	// written.
	New bool
	// Events are payment.* events in order; the storage adds those of documents,
	// whose numbers it draws.
	Events []freehold.Event
	// Invoice asks for the order's invoice, of this amount.
	Invoice *event.Money
	// Credits asks for credit notes.
	Credits []Credit
	// Entries are ledger entries that belong to no new document.
	Entries []Entry
	// Call asks for a call to the provider, by an event of its own.
	Call *event.CallRequested
}

// Credit asks for one credit note; Return is empty for the cancellation of the
// whole order.
type Credit struct {
	Return string
	Amount event.Money
}

// Place takes order.placed in. A second one changes nothing.
func (p *Payment) Place(t event.Trade, total event.Money, simulate string) (Change, error) {
	if p.Placed {
		return Change{}, nil
	}
	if total < 0 {
		return Change{}, fmt.Errorf("billing: order %s: total %s: want zero or more", p.Order, total)
	}
	p.Placed, p.Trade, p.Total, p.Simulate = true, t, total, simulate
	c := Change{New: true}
	if total == 0 && p.Ended == "" { // nothing to hold: no call
		p.Hold = Held
		c.Events = append(c.Events, event.PaymentAuthorized{Order: p.Order})
	}
	err := p.settle(&c)
	return c, err
}

// Confirm takes order.confirmed in: the amount to capture, and what the invoice
// says. A second one changes nothing.
func (p *Payment) Confirm(t event.Trade, amount event.Money) (Change, error) {
	if p.Confirmed {
		return Change{}, nil
	}
	if amount < 0 || p.Placed && amount > p.Total {
		return Change{}, fmt.Errorf("billing: order %s: capture of %s: want zero to the total of %s", p.Order, amount, p.Total)
	}
	p.Confirmed, p.Amount, p.Trade = true, amount, t
	c := Change{New: true}
	err := p.settle(&c)
	return c, err
}

// End takes order.rejected or order.cancelled in. What is in flight is left to be
// answered; then what was held is voided and what was charged is refunded.
func (p *Payment) End(why string) (Change, error) {
	if p.Ended != "" {
		return Change{}, nil
	}
	p.Ended = why
	c := Change{New: true}
	err := p.settle(&c)
	return c, err
}

// Return takes a return of goods of this order in. It waits for the invoice if
// there is none yet; without one, nothing is ever credited.
func (p *Payment) Return(id string, amount event.Money) (Change, error) {
	if amount < 0 {
		return Change{}, fmt.Errorf("billing: return %s: amount %s: want zero or more", id, amount)
	}
	for _, r := range p.Refunds {
		if r.Return == id {
			return Change{}, nil
		}
	}
	p.Refunds = append(p.Refunds, Refund{Return: id, Asked: amount, State: RefundWaiting})
	c := Change{New: true}
	err := p.settle(&c)
	return c, err
}

// Expire voids a hold that nobody has claimed by its deadline.
func (p *Payment) Expire(now time.Time) (Change, error) {
	if until, waits := p.Unclaimed(); !waits || now.Before(until) {
		return Change{}, nil
	}
	p.Reason = "authorization expired"
	c := Change{New: true}
	p.call(&c, StepVoid, p.Total)
	return c, nil
}

// Answer takes the definite outcome of a step in. holdFor is how long the provider
// keeps an authorisation. An outcome of another step than the one in flight is old
// and changes nothing.
func (p *Payment) Answer(step string, o Outcome, now time.Time, holdFor time.Duration) (Change, error) {
	if p.Call == "" || step != p.Call {
		return Change{}, nil
	}
	c := Change{New: true}
	p.Call = ""
	if !o.Approved {
		p.Reason = o.Reason
	}
	switch step {
	case StepAuthorize:
		if o.Approved {
			p.Hold, p.ExpiresAt = Held, now.Add(holdFor)
			c.Events = append(c.Events, event.PaymentAuthorized{Order: p.Order, Amount: p.Total})
			break
		}
		p.Hold = Refused
		c.Events = append(c.Events, event.PaymentDeclined{Order: p.Order, Reason: o.Reason})
	case StepCapture:
		if o.Approved {
			if err := p.captured(&c); err != nil {
				return c, err
			}
			break
		}
		c.Events = append(c.Events, event.PaymentCaptureFailed{Order: p.Order, Reason: o.Reason})
	case StepVoid:
		// A provider that has nothing to void has let the hold expire: it is gone
		// either way.
		p.Hold, p.Voided, p.ExpiresAt = Released, p.Total, time.Time{}
		c.Events = append(c.Events, event.PaymentVoided{Order: p.Order, Amount: p.Total})
	default:
		if err := p.refunded(&c, step, o); err != nil {
			return c, err
		}
	}
	err := p.settle(&c)
	return c, err
}

// settle finds out from the facts alone what is to be done next. It asks for a call
// only if none is in flight: a void beside an authorisation that has not been
// answered could arrive first, find nothing to void, and leave the hold.
func (p *Payment) settle(c *Change) error {
	if mutant.VoidBeforeSettled && p.Call == StepAuthorize && p.Ended != "" {
		p.call(c, StepVoid, p.Total)
	}
	if p.Call != "" || !p.Placed {
		return nil
	}
	switch p.Hold {
	case NoHold:
		if p.Ended == "" {
			p.call(c, StepAuthorize, p.Total)
		}
	case Held:
		return p.settleHold(c)
	case Refused, Released:
		return p.settleNothingHeld(c)
	case Charged:
		return p.settleCharge(c)
	}
	return nil
}

func (p *Payment) settleHold(c *Change) error {
	switch {
	case p.Ended == "" && p.Confirmed && !p.Called && p.Amount > p.Total:
		return fmt.Errorf("billing: order %s: capture of %s, but only %s is authorised", p.Order, p.Amount, p.Total)
	case p.Ended == "" && p.Confirmed && !p.Called && p.Amount > 0:
		p.Called = true
		p.call(c, StepCapture, p.Amount)
	case p.Ended == "" && !p.Confirmed:
	case p.Total > 0: // ended, capture refused, or nothing to capture
		p.call(c, StepVoid, p.Total)
	case p.Ended == "": // zero total: no provider, but an invoice
		return p.capturedNothing(c)
	default: // zero total: nothing was held, and it is given back
		p.Hold = Released
		c.Events = append(c.Events, event.PaymentVoided{Order: p.Order})
	}
	return nil
}

// settleNothingHeld answers a confirmation for which there is no hold (any more).
func (p *Payment) settleNothingHeld(c *Change) error {
	if !p.Confirmed || p.Called || p.Ended != "" {
		return nil
	}
	if p.Amount == 0 && p.Hold == Released {
		return p.capturedNothing(c)
	}
	p.Called = true
	c.Events = append(c.Events, event.PaymentCaptureFailed{Order: p.Order, Reason: p.Reason})
	return nil
}

// settleCharge credits and pays back, one refund at a time.
func (p *Payment) settleCharge(c *Change) error {
	if p.Ended != "" && !p.hasRefund("") {
		p.Refunds = append(p.Refunds, Refund{Asked: p.Captured, State: RefundWaiting})
	}
	for i := range p.Refunds {
		r := &p.Refunds[i]
		if r.State != RefundWaiting {
			continue
		}
		left := p.Captured - p.Credited()
		switch r.Amount = min(r.Asked, left); {
		case r.Amount > 0:
			r.State = RefundDue
		case p.Captured == 0 && r.Return == "": // a zero invoice is cancelled by a zero credit note
			r.State = RefundPaid
		default:
			r.State = RefundVoid
			continue
		}
		c.Credits = append(c.Credits, Credit{Return: r.Return, Amount: r.Amount})
	}
	for _, r := range p.Refunds {
		if r.State == RefundDue {
			p.call(c, r.step(), r.Amount)
			break
		}
	}
	return nil
}

func (p *Payment) hasRefund(id string) bool {
	for _, r := range p.Refunds {
		if r.Return == id {
			return true
		}
	}
	return false
}

func (p *Payment) captured(c *Change) error {
	p.Hold, p.Captured, p.Voided, p.ExpiresAt = Charged, p.Amount, p.Total-p.Amount, time.Time{}
	return p.invoice(c)
}

func (p *Payment) capturedNothing(c *Change) error {
	p.Hold, p.Called, p.ExpiresAt = Charged, true, time.Time{}
	if err := p.invoice(c); err != nil {
		return err
	}
	return p.settleCharge(c)
}

func (p *Payment) invoice(c *Change) error {
	amount := p.Captured
	c.Events = append(c.Events, event.PaymentCaptured{Order: p.Order, Amount: amount})
	c.Invoice = &amount
	return nil
}

func (p *Payment) refunded(c *Change, step string, o Outcome) error {
	for i := range p.Refunds {
		r := &p.Refunds[i]
		if r.step() != step || r.State != RefundDue {
			continue
		}
		if !o.Approved {
			r.State = RefundRefused
			return nil
		}
		r.State = RefundPaid
		c.Events = append(c.Events, event.PaymentRefunded{Order: p.Order, Amount: r.Amount})
		entries, err := Post(KindRefund, r.Amount, Key(p.Order, step))
		c.Entries = append(c.Entries, entries...)
		return err
	}
	return nil
}

func (p *Payment) call(c *Change, step string, amount event.Money) {
	p.Call = step
	c.Call = &event.CallRequested{Order: p.Order, Step: step, Amount: amount, Simulate: p.Simulate}
}
