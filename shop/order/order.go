package order

import (
	"errors"
	"maps"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/shop/event"
)

// Status of an order.
type Status string

// The states of an order. Placed waits for stock and payment, confirmed for the
// capture of the amount. Returned means that everything has come back.
const (
	Placed    Status = "placed"
	Confirmed Status = "confirmed"
	Paid      Status = "paid"
	Shipped   Status = "shipped"
	Returned  Status = "returned"
	Rejected  Status = "rejected"
	Cancelled Status = "cancelled"
)

// rank is how far an order is on the way that ends well.
var rank = map[Status]int{Placed: 1, Confirmed: 2, Paid: 3, Shipped: 4, Returned: 5}

// Done reports whether the checkout has ended.
func (s Status) Done() bool { return s != "" && s != Placed && s != Confirmed }

// Reached reports whether an order in state s has come as far as want: a paid order
// has been confirmed.
func (s Status) Reached(want Status) bool {
	return s == want || rank[s] > 0 && rank[want] > 0 && rank[s] >= rank[want]
}

// Order is the state that the events of one order add up to. It is a value: Evolve
// leaves its receiver as it is.
type Order struct {
	Status Status
	Placed event.OrderPlaced
	// Kept is the confirmed lines, less what has come back, and Amount their value
	// when they were confirmed.
	Kept   []event.Line
	Amount event.Money
	// Returns is the digest of the command of each return, by its id.
	Returns map[string]string
}

// Evolve returns the order after an event.
func (o Order) Evolve(e freehold.Event) Order {
	switch e := e.(type) {
	case event.OrderPlaced:
		o.Status, o.Placed = Placed, e
	case event.OrderConfirmed:
		o.Status, o.Kept, o.Amount = Confirmed, e.Lines, e.Amount
	case event.OrderRejected:
		o.Status = Rejected
	case event.OrderPaid:
		o.Status = Paid
	case event.OrderCancelled:
		o.Status = Cancelled
	case event.OrderShipped:
		o.Status = Shipped
	case event.OrderReturned:
		o.Returns = maps.Clone(o.Returns)
		if o.Returns == nil {
			o.Returns = map[string]string{}
		}
		o.Returns[e.Return] = e.Body
		o.Kept = less(o.Kept, e.Lines)
		if e.Complete {
			o.Status = Returned
		}
	}
	return o
}

// less returns the lines without the units that came back. A line of units is the
// one with its code and price.
func less(lines, back []event.Line) []event.Line {
	gone := map[string]int64{}
	for _, l := range back {
		gone[l.SKU+"\x00"+l.Price.String()] += l.Quantity
	}
	var kept []event.Line
	for _, l := range lines {
		key := l.SKU + "\x00" + l.Price.String()
		n := min(gone[key], l.Quantity)
		gone[key] -= n
		if l.Quantity -= n; l.Quantity > 0 {
			kept = append(kept, l)
		}
	}
	return kept
}

var (
	// ErrState is returned for a command that the order's state does not allow.
	ErrState = errors.New("the order's state does not allow this")
	// ErrUnknown is returned for an order that does not exist.
	ErrUnknown = errors.New("no such order")
	// ErrOtherBody is returned for an idempotency key that was used for another command.
	ErrOtherBody = errors.New("the idempotency key was used with another body: use a new key for a new command")
)
