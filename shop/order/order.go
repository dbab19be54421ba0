// Package order is the Order service's domain: the order, its commands, and the
// checkout. It knows no database and no transport.
package order

import (
	"errors"
	"fmt"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/shop/event"
)

// Status of an order.
type Status string

// The states of an order. Confirmed becomes paid when the amount has been captured.
const (
	Placed    Status = "placed"
	Confirmed Status = "confirmed"
	Paid      Status = "paid"
	Shipped   Status = "shipped"
	Rejected  Status = "rejected"
	Cancelled Status = "cancelled"
)

// Done reports whether the checkout has ended.
func (s Status) Done() bool { return s != "" && s != Placed && s != Confirmed }

// Reached reports whether an order in state s has passed want.
func (s Status) Reached(want Status) bool {
	rank := map[Status]int{Placed: 1, Confirmed: 2, Paid: 3, Shipped: 4}
	return s == want || rank[s] > 0 && rank[want] > 0 && rank[s] >= rank[want]
}

// Order is the state that the events of one order add up to.
type Order struct {
	Status Status
	Placed event.OrderPlaced
	Amount event.Money // confirmed
}

// Evolve returns the order after an event.
func (o Order) Evolve(e freehold.Event) Order {
	switch e := e.(type) {
	case event.OrderPlaced:
		o.Status, o.Placed = Placed, e
	case event.OrderConfirmed:
		o.Status, o.Amount = Confirmed, e.Amount
	case event.OrderRejected:
		o.Status = Rejected
	case event.OrderPaid:
		o.Status = Paid
	case event.OrderCancelled:
		o.Status = Cancelled
	case event.OrderShipped:
		o.Status = Shipped
	}
	return o
}

// ErrState is returned for a command that the order's state does not allow.
var ErrState = errors.New("the order's state does not allow this")

// ErrUnknown is returned for an order that does not exist.
var ErrUnknown = errors.New("no such order")

// Decision is a command: it chooses events on the newest state.
type Decision func(Order) ([]freehold.Event, error)

// Confirm lets the lines that were not dropped go on. Without any left the order
// is rejected.
func Confirm(dropped []int) Decision {
	return func(o Order) ([]freehold.Event, error) {
		if o.Status != Placed {
			return nil, nil
		}
		out := map[int]bool{}
		for _, i := range dropped {
			out[i] = true
		}
		var lines []event.Line
		for i, l := range o.Placed.Lines {
			if !out[i] {
				l.Description = ""
				lines = append(lines, l)
			}
		}
		if len(lines) == 0 {
			return Reject("sold-out", "no line is in stock")(o)
		}
		amount, err := event.Sum(lines)
		if err != nil {
			return nil, err
		}
		return []freehold.Event{event.OrderConfirmed{Order: o.Placed.Order, Trade: o.Placed.Trade, Lines: lines, Dropped: len(dropped), Amount: amount}}, nil
	}
}

// Reject ends an order that has not been confirmed.
func Reject(code, reason string) Decision {
	return func(o Order) ([]freehold.Event, error) {
		if o.Status != Placed {
			return nil, nil
		}
		goods := 0
		for _, l := range o.Placed.Lines {
			if l.Stocked {
				goods++
			}
		}
		return []freehold.Event{event.OrderRejected{Order: o.Placed.Order, Code: code, Reason: reason, Total: o.Placed.Total, Goods: goods}}, nil
	}
}

// MarkPaid records that the amount was captured.
func MarkPaid(amount event.Money) Decision {
	return func(o Order) ([]freehold.Event, error) {
		if o.Status != Confirmed {
			return nil, nil
		}
		return []freehold.Event{event.OrderPaid{Order: o.Placed.Order, Amount: amount}}, nil
	}
}

// CaptureFailed cancels a confirmed order whose amount could not be captured.
func CaptureFailed(reason string) Decision {
	return func(o Order) ([]freehold.Event, error) {
		if o.Status != Confirmed {
			return nil, nil
		}
		return []freehold.Event{event.OrderCancelled{Order: o.Placed.Order, Code: "capture-failed", Reason: reason}}, nil
	}
}

// Cancel is the customer's: before confirmation it rejects the order, afterwards
// and before shipping it cancels it.
func Cancel(reason string) Decision {
	return func(o Order) ([]freehold.Event, error) {
		switch o.Status {
		case "":
			return nil, ErrUnknown
		case Placed:
			return Reject("cancelled", reason)(o)
		case Confirmed, Paid:
			return []freehold.Event{event.OrderCancelled{Order: o.Placed.Order, Code: "cancelled", Reason: reason}}, nil
		case Cancelled, Rejected:
			return nil, nil
		}
		return nil, fmt.Errorf("%w: it is %s: return it instead", ErrState, o.Status)
	}
}

// Ship records that the goods have left.
func Ship(o Order) ([]freehold.Event, error) {
	switch o.Status {
	case "":
		return nil, ErrUnknown
	case Shipped:
		return nil, nil
	case Paid:
		return []freehold.Event{event.OrderShipped{Order: o.Placed.Order}}, nil
	}
	return nil, fmt.Errorf("%w: it is %s, only a paid order can be shipped", ErrState, o.Status)
}
