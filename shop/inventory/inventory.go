// Package inventory is the Inventory service's domain: what is in stock, what is
// reserved, and what becomes of a reservation. It knows no database.
package inventory

import (
	"fmt"

	"github.com/freehold-go/freehold/shop/event"
)

// Stock is where the units of one product are. Free + Reserved + Shipped is always
// Received + Returned - Left.
type Stock struct {
	Free     int64 `json:"free"`     // may be negative by a correction only
	Reserved int64 `json:"reserved"` // for orders that are not confirmed yet
	Shipped  int64 `json:"shipped"`  // committed to customers
	Received int64 `json:"received"` // opening stock and deliveries
	Returned int64 `json:"returned"`
	Left     int64 `json:"left"` // by movements without an order; negative for goods found
}

// Moved reports whether anything but a delivery has touched the product.
func (s Stock) Moved() bool {
	return s.Shipped != 0 || s.Reserved != 0 || s.Returned != 0 || s.Left != 0
}

// Balanced reports whether the units add up.
func (s Stock) Balanced() bool {
	return s.Free+s.Reserved+s.Shipped == s.Received+s.Returned-s.Left && s.Reserved >= 0 && s.Shipped >= 0
}

// State of a reservation.
type State string

// The states of a reservation. Gone is the mark that an order's end leaves before
// its beginning was seen, or after a rejection: nothing is held, for good.
const (
	Held      State = "held"
	Committed State = "committed"
	Gone      State = "gone"
)

// Held units of one product.
type Units struct {
	SKU      string `json:"sku"`
	Quantity int64  `json:"quantity"`
}

// Reservation is what an order holds.
type Reservation struct {
	State State   `json:"state"`
	Units []Units `json:"units,omitempty"`
}

// Shelf gives and takes the stock of products within one transaction. Stock
// returns nil for an unknown product; changes through the pointer are kept.
type Shelf interface {
	Stock(sku string) (*Stock, error)
}

// Refusal says why an order got nothing.
type Refusal struct{ Code, SKU, Reason string }

// Reserve takes an order's lines from the shelf. All or nothing: every product must
// have enough for the sum of its lines, or nothing is taken. Partial: in the order
// of the lines, each is taken whole if there is enough, or dropped; an order of
// which no line of goods was taken is refused.
func Reserve(shelf Shelf, policy string, lines []event.Line) (units []Units, dropped []int, refusal *Refusal, err error) {
	if policy == event.Partial {
		return reservePartly(shelf, lines)
	}
	need := map[string]int64{}
	var order []string
	for _, l := range lines {
		if !l.Stocked {
			continue
		}
		if _, seen := need[l.SKU]; !seen {
			order = append(order, l.SKU)
		}
		need[l.SKU] += l.Quantity
	}
	for _, sku := range order {
		s, err := shelf.Stock(sku)
		if err != nil {
			return nil, nil, nil, err
		}
		if refusal := refuse(s, sku, need[sku]); refusal != nil {
			return nil, nil, refusal, nil
		}
	}
	for _, sku := range order {
		s, err := shelf.Stock(sku)
		if err != nil {
			return nil, nil, nil, err
		}
		units = append(units, take(s, sku, need[sku]))
	}
	return units, nil, nil, nil
}

func reservePartly(shelf Shelf, lines []event.Line) (units []Units, dropped []int, refusal *Refusal, err error) {
	goods := 0
	for i, l := range lines {
		if !l.Stocked {
			continue
		}
		goods++
		s, err := shelf.Stock(l.SKU)
		if err != nil {
			return nil, nil, nil, err
		}
		if r := refuse(s, l.SKU, l.Quantity); r != nil {
			dropped = append(dropped, i)
			if refusal == nil {
				refusal = r
			}
			continue
		}
		units = append(units, take(s, l.SKU, l.Quantity))
	}
	if goods > 0 && len(units) == 0 {
		return nil, nil, refusal, nil
	}
	return units, dropped, nil, nil
}

func refuse(s *Stock, sku string, quantity int64) *Refusal {
	switch {
	case s == nil:
		return &Refusal{"unknown-sku", sku, fmt.Sprintf("there is no product %s", sku)}
	case s.Free < quantity:
		return &Refusal{"sold-out", sku, fmt.Sprintf("%d of %s wanted, %d in stock", quantity, sku, max(s.Free, 0))}
	}
	return nil
}

func take(s *Stock, sku string, quantity int64) Units {
	s.Free -= quantity
	s.Reserved += quantity
	return Units{sku, quantity}
}

// Commit gives the held units to the customer.
func Commit(shelf Shelf, r *Reservation) error {
	return each(shelf, r, Committed, func(s *Stock, n int64) { s.Reserved -= n; s.Shipped += n })
}

// Undo puts units back on the shelf, whether they were held or committed.
func Undo(shelf Shelf, r *Reservation) error {
	committed := r.State == Committed
	return each(shelf, r, Gone, func(s *Stock, n int64) {
		s.Free += n
		if committed {
			s.Shipped -= n
		} else {
			s.Reserved -= n
		}
	})
}

func each(shelf Shelf, r *Reservation, next State, fn func(s *Stock, n int64)) error {
	for _, u := range r.Units {
		s, err := shelf.Stock(u.SKU)
		if err != nil {
			return err
		}
		if s == nil {
			return fmt.Errorf("inventory: %d of %s are reserved, and there is no such product", u.Quantity, u.SKU)
		}
		fn(s, u.Quantity)
	}
	r.State = next
	return nil
}
