package order

import (
	"fmt"
	"slices"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/shop/event"
)

// Decision is a command: it chooses events on the newest state, none if the command
// has been done already or comes too late to matter.
type Decision func(Order) ([]freehold.Event, error)

// Codes of rejected and cancelled orders. The first two are Inventory's.
const (
	CodeSoldOut       = "sold-out"
	CodeUnknownSKU    = "unknown-sku"
	CodeDeclined      = "declined"
	CodeTimeOut       = "time-out"
	CodeCancelled     = "cancelled"
	CodeCaptureFailed = "capture-failed"
)

// Confirm lets the lines that were not dropped go on. An order that has none left,
// or wanted goods of which none are left, is rejected.
func Confirm(dropped []int) Decision {
	return func(o Order) ([]freehold.Event, error) {
		if o.Status != Placed {
			return nil, nil
		}
		out := map[int]bool{}
		for _, i := range dropped {
			out[i] = true
		}
		var kept []event.Line
		wanted, goods := 0, 0
		for i, l := range o.Placed.Lines {
			if l.Stocked {
				wanted++
			}
			if out[i] {
				continue
			}
			if l.Stocked {
				goods++
			}
			l.Description = ""
			kept = append(kept, l)
		}
		if len(kept) == 0 || wanted > 0 && goods == 0 {
			return Reject(CodeSoldOut, "no line is in stock")(o)
		}
		amount, err := event.Sum(kept)
		if err != nil {
			return nil, fmt.Errorf("order %s: %w", o.Placed.Order, err)
		}
		return []freehold.Event{event.OrderConfirmed{Order: o.Placed.Order, Trade: o.Placed.Trade, Lines: kept, Dropped: len(o.Placed.Lines) - len(kept), Amount: amount}}, nil
	}
}

// Reject ends an order that has not been confirmed.
func Reject(code, reason string) Decision {
	return func(o Order) ([]freehold.Event, error) {
		if o.Status != Placed {
			return nil, nil
		}
		e := event.OrderRejected{Order: o.Placed.Order, Code: code, Reason: reason, Total: o.Placed.Total}
		for _, l := range o.Placed.Lines {
			if l.Stocked {
				e.Goods++
			}
		}
		if o.Placed.Policy == event.Partial && (code == CodeSoldOut || code == CodeUnknownSKU) {
			e.Dropped = e.Goods // one by one, none was left
		}
		return []freehold.Event{e}, nil
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
		return cancelled(o, CodeCaptureFailed, reason), nil
	}
}

// Cancel is the customer's, at any time before shipping. Inventory and Billing give
// back what they hold, or will have got, by their own state.
func Cancel(reason string) Decision {
	return func(o Order) ([]freehold.Event, error) {
		switch o.Status {
		case "":
			return nil, ErrUnknown
		case Placed, Confirmed, Paid:
			return cancelled(o, CodeCancelled, reason), nil
		case Cancelled, Rejected:
			return nil, nil
		default:
			return nil, fmt.Errorf("%w: it is %s: send the goods back instead", ErrState, o.Status)
		}
	}
}

func cancelled(o Order, code, reason string) []freehold.Event {
	return []freehold.Event{event.OrderCancelled{Order: o.Placed.Order, Trade: o.Placed.Trade, Code: code, Reason: reason, Lines: o.Kept, Amount: o.Amount}}
}

// Ship records that the goods of a paid order have left.
func Ship(o Order) ([]freehold.Event, error) {
	switch o.Status {
	case "":
		return nil, ErrUnknown
	case Shipped, Returned:
		return nil, nil
	case Paid:
		return []freehold.Event{event.OrderShipped{Order: o.Placed.Order}}, nil
	default:
		return nil, fmt.Errorf("%w: it is %s, only a paid order can be shipped", ErrState, o.Status)
	}
}

// Units is how many of a code come back.
type Units struct {
	SKU      string
	Quantity int64
}

// Return takes goods of a shipped order back, at the prices for which they were
// sold. Without units everything that is left comes back. id is the return's, body
// the digest of its command.
func Return(id, body string, units []Units, at time.Time) Decision {
	return func(o Order) ([]freehold.Event, error) {
		if o.Status == "" {
			return nil, ErrUnknown
		}
		if was, known := o.Returns[id]; known {
			if was != body {
				return nil, ErrOtherBody
			}
			return nil, nil
		}
		if o.Status != Shipped {
			return nil, fmt.Errorf("%w: it is %s, only what was shipped can come back", ErrState, o.Status)
		}
		lines := slices.Clone(o.Kept)
		if len(units) > 0 {
			var err error
			if lines, err = pick(o.Kept, units); err != nil {
				return nil, err
			}
		}
		amount, err := event.Sum(lines)
		if err != nil {
			return nil, fmt.Errorf("order %s: %w", o.Placed.Order, err)
		}
		trade := o.Placed.Trade
		trade.At = at
		for i := range lines {
			lines[i].At = nil
		}
		e := event.OrderReturned{Return: id, Order: o.Placed.Order, Trade: trade, Body: body, Lines: lines, Amount: amount}
		e.Complete = len(less(o.Kept, lines)) == 0
		return []freehold.Event{e}, nil
	}
}

// pick takes units from lines, the first line of a code first.
func pick(kept []event.Line, units []Units) ([]event.Line, error) {
	left := make([]int64, len(kept))
	for i, l := range kept {
		left[i] = l.Quantity
	}
	var lines []event.Line
	for n, u := range units {
		if u.Quantity < 1 || u.Quantity > MaxQuantity {
			return nil, &FieldError{fmt.Sprintf("lines[%d].quantity", n), fmt.Sprintf("want 1 to %d", int64(MaxQuantity))}
		}
		for i, l := range kept {
			if l.SKU != u.SKU || left[i] == 0 || u.Quantity == 0 {
				continue
			}
			took := min(left[i], u.Quantity)
			left[i] -= took
			u.Quantity -= took
			l.Quantity = took
			lines = append(lines, l)
		}
		if u.Quantity > 0 {
			return nil, &FieldError{fmt.Sprintf("lines[%d].quantity", n), fmt.Sprintf("%d more of %.64q than this order has left to return", u.Quantity, u.SKU)}
		}
	}
	return lines, nil
}
