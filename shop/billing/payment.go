package billing

import (
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/shop/event"
)

// State is the word for where a payment stands. It is derived from the facts.
type State string

const (
	// Unplaced: something about the order has arrived, but not the order itself.
	Unplaced State = "unplaced"
	// Authorizing: the authorisation is in flight.
	Authorizing State = "authorizing"
	// Authorized: the amount is held; nothing is in flight.
	Authorized State = "authorized"
	// Declined: the provider refused the authorisation. Nothing was ever held.
	Declined State = "declined"
	// Capturing: the capture is in flight.
	Capturing State = "capturing"
	// Captured: the amount has been charged and invoiced.
	Captured State = "captured"
	// Voiding: the release of the hold is in flight.
	Voiding State = "voiding"
	// Voided: nothing is held and nothing was charged.
	Voided State = "voided"
	// Refunding: a refund is in flight.
	Refunding State = "refunding"
	// Refunded: everything that was charged has been paid back.
	Refunded State = "refunded"
)

// Hold is what the provider holds or has charged, as far as its definite answers
// say.
type Hold string

const (
	// NoHold: the provider has not answered yet, or was never asked.
	NoHold Hold = ""
	// Held: the total is held for us.
	Held Hold = "held"
	// Refused: the provider declined to hold it.
	Refused Hold = "refused"
	// Released: it was held and has been let go.
	Released Hold = "released"
	// Charged: the capture went through.
	Charged Hold = "charged"
)

// Why an order ended without being carried out.
const (
	Rejected  = "rejected"
	Cancelled = "cancelled"
)

// Steps of a payment: each is one call to the provider. There is one refund for the
// cancellation, and one for each return, with the return's id behind a "-".
const (
	StepAuthorize = "authorize"
	StepCapture   = "capture"
	StepVoid      = "void"
	StepRefund    = "refund"
)

// Payment is everything that Billing knows about the payment of one order. The
// zero value with an Order is a payment of which nothing has arrived. It is a
// plain value; its methods change it and return what that leads to.
type Payment struct {
	Order string
	Trade event.Trade // what documents say about the order besides its amount

	// What the Order service has said.
	Placed    bool
	Total     event.Money // of the order as placed: the amount to authorise
	Simulate  string      // what the simulated provider is to do
	Confirmed bool
	Amount    event.Money // to capture, from order.confirmed
	Ended     string      // Rejected, Cancelled or empty

	// What the provider has said.
	Hold     Hold
	Captured event.Money
	Voided   event.Money
	Reason   string // of the last refusal

	Call      string    // the step in flight; empty if none
	Called    bool      // a capture has been attempted, or found impossible: never again
	ExpiresAt time.Time // of the hold; zero if nothing is held
	Refunds   []Refund
}

// RefundState is where one refund stands.
type RefundState string

const (
	// RefundWaiting: there is no invoice yet that it could be credited against.
	RefundWaiting RefundState = "waiting"
	// RefundDue: the credit note is issued, the money is owed.
	RefundDue RefundState = "due"
	// RefundPaid: the provider has paid it back, or there was nothing to pay.
	RefundPaid RefundState = "paid"
	// RefundRefused: the provider refused; the money is still owed and stands in
	// the customer-credit account.
	RefundRefused RefundState = "refused"
	// RefundVoid: nothing was left to credit.
	RefundVoid RefundState = "void"
)

// Refund is one reason to pay back: the cancellation, or a return.
type Refund struct {
	Return string // empty for the cancellation
	Asked  event.Money
	Amount event.Money // credited: Asked, but never more than is left of the invoice
	State  RefundState
}

// step is that of the refund's call.
func (r Refund) step() string {
	if r.Return == "" {
		return StepRefund
	}
	return StepRefund + "-" + r.Return
}

// Key is the idempotency key of a call: the same for every repetition of one step
// of one order, and different for any two others.
func Key(order, step string) string { return "billing/" + order + "/" + step }

// Stream is the journal stream of an order's payment.
func Stream(order string) freehold.StreamID { return freehold.Stream("payment", order) }

// State is the word for where the payment stands.
func (p *Payment) State() State {
	switch p.Call {
	case "":
	case StepAuthorize:
		return Authorizing
	case StepCapture:
		return Capturing
	case StepVoid:
		return Voiding
	default:
		return Refunding
	}
	switch {
	case !p.Placed:
		return Unplaced
	case p.Hold == Refused:
		return Declined
	case p.Hold == Held:
		return Authorized
	case p.Hold == Charged && len(p.Refunds) > 0 && p.Refunded() == p.Captured:
		return Refunded
	case p.Hold == Charged:
		return Captured
	default:
		return Voided
	}
}

// Refunded is how much has been paid back.
func (p *Payment) Refunded() event.Money {
	var sum event.Money
	for _, r := range p.Refunds {
		if r.State == RefundPaid {
			sum += r.Amount
		}
	}
	return sum
}

// Credited is how much of the invoice has been credited.
func (p *Payment) Credited() event.Money {
	var sum event.Money
	for _, r := range p.Refunds {
		sum += r.Amount
	}
	return sum
}

// Authorised is how much the provider has held at most.
func (p *Payment) Authorised() event.Money {
	switch p.Hold {
	case NoHold, Refused:
		return 0
	default:
		return p.Total
	}
}

// Unclaimed is until when a hold waits for the order's fate; waits is false if there
// is no hold or its fate is known.
func (p *Payment) Unclaimed() (until time.Time, waits bool) {
	return p.ExpiresAt, p.Hold == Held && p.Call == "" && !p.Confirmed && p.Ended == "" && !p.ExpiresAt.IsZero()
}
