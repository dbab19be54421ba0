// Package orderdb holds the read models of the Order service: orders with their
// history, and what has been sold to whom, where and when. They are derived from
// journals, live in a key-value database, and can be thrown away.
package orderdb

import (
	"context"
	"fmt"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/kv"
	"github.com/freehold-go/freehold/shop/event"
	"github.com/freehold-go/freehold/shop/order"
)

// OrderView is an order as queries show it.
type OrderView struct {
	ID string `json:"id"`
	event.Trade
	Status  order.Status `json:"status"`
	Total   event.Money  `json:"total"`
	Amount  event.Money  `json:"amount"` // confirmed
	Code    string       `json:"code,omitempty"`
	Reason  string       `json:"reason,omitempty"`
	History []Happened   `json:"history"`
}

// Happened is an entry of an order's audit trail.
type Happened struct {
	Event    string            `json:"event"`
	At       time.Time         `json:"at"`
	Position freehold.Position `json:"position"`
}

// Orders is the read model of orders in a namespace.
type Orders struct{ ns string }

// NewOrders returns the read model in a namespace.
func NewOrders(ns string) Orders { return Orders{ns + "/"} }

func (v Orders) orders() kv.Table[OrderView]   { return kv.NewTable[OrderView](v.ns + "o/") }
func (v Orders) lines() kv.Table[[]event.Line] { return kv.NewTable[[]event.Line](v.ns + "l/") }

// Get returns an order and its lines.
func (v Orders) Get(ctx context.Context, tx kv.Tx, id string) (OrderView, []event.Line, bool, error) {
	o, found, err := v.orders().Get(ctx, tx, id)
	if err != nil || !found {
		return o, nil, false, err
	}
	lines, _, err := v.lines().Get(ctx, tx, id)
	return o, lines, true, err
}

// List returns up to limit orders behind an id: all, those of a customer, or those
// in a state.
func (v Orders) List(ctx context.Context, tx kv.Tx, customer string, status order.Status, after string, limit int) ([]OrderView, error) {
	prefix := v.ns + "o/"
	switch {
	case customer != "":
		prefix = v.ns + "c/" + customer + "/"
	case status != "":
		prefix = v.ns + "s/" + string(status) + "/"
	}
	from := prefix
	if after != "" {
		from = prefix + after + "\x00"
	}
	var all []OrderView
	for item, err := range tx.Scan(ctx, prefix, from) {
		if err != nil {
			return nil, err
		}
		if len(all) == limit {
			break
		}
		o, found, err := v.orders().Get(ctx, tx, item.Key[len(prefix):])
		if err != nil {
			return nil, err
		}
		if found && (status == "" || o.Status == status) {
			all = append(all, o)
		}
	}
	return all, nil
}

// Routes builds the read model from Order's journal.
func (v Orders) Routes() []follow.Route[kv.Tx] {
	return []follow.Route[kv.Tx]{
		follow.On(func(ctx context.Context, tx kv.Tx, e event.OrderPlaced, r freehold.Recorded) error {
			o := OrderView{ID: e.Order, Trade: e.Trade, Total: e.Total}
			if err := v.lines().Put(ctx, tx, e.Order, e.Lines); err != nil {
				return err
			}
			if e.Customer != "" {
				if err := tx.Put(ctx, v.ns+"c/"+e.Customer+"/"+e.Order, nil); err != nil {
					return err
				}
			}
			return v.put(ctx, tx, o, order.Placed, r)
		}),
		follow.On(func(ctx context.Context, tx kv.Tx, e event.OrderConfirmed, r freehold.Recorded) error {
			return v.change(ctx, tx, e.Order, order.Confirmed, r, func(o *OrderView) { o.Amount = e.Amount })
		}),
		follow.On(func(ctx context.Context, tx kv.Tx, e event.OrderRejected, r freehold.Recorded) error {
			return v.change(ctx, tx, e.Order, order.Rejected, r, func(o *OrderView) { o.Code, o.Reason = e.Code, e.Reason })
		}),
		follow.On(func(ctx context.Context, tx kv.Tx, e event.OrderPaid, r freehold.Recorded) error {
			return v.change(ctx, tx, e.Order, order.Paid, r, func(*OrderView) {})
		}),
		follow.On(func(ctx context.Context, tx kv.Tx, e event.OrderCancelled, r freehold.Recorded) error {
			return v.change(ctx, tx, e.Order, order.Cancelled, r, func(o *OrderView) { o.Code, o.Reason = e.Code, e.Reason })
		}),
		follow.On(func(ctx context.Context, tx kv.Tx, e event.OrderShipped, r freehold.Recorded) error {
			return v.change(ctx, tx, e.Order, order.Shipped, r, func(*OrderView) {})
		}),
		follow.On(func(ctx context.Context, tx kv.Tx, e event.OrderReturned, r freehold.Recorded) error {
			if e.Order == "" {
				return nil
			}
			o, found, err := v.orders().Get(ctx, tx, e.Order)
			if err != nil || !found {
				return err
			}
			return v.put(ctx, tx, o, o.Status, r)
		}),
	}
}

func (v Orders) change(ctx context.Context, tx kv.Tx, id string, status order.Status, r freehold.Recorded, fn func(*OrderView)) error {
	o, found, err := v.orders().Get(ctx, tx, id)
	if err != nil {
		return err
	}
	if !found {
		return fmt.Errorf("orderdb: %s of order %s, which was never placed", r.Type, id)
	}
	fn(&o)
	return v.put(ctx, tx, o, status, r)
}

func (v Orders) put(ctx context.Context, tx kv.Tx, o OrderView, status order.Status, r freehold.Recorded) error {
	if o.Status != status {
		if o.Status != "" {
			if err := tx.Delete(ctx, v.ns+"s/"+string(o.Status)+"/"+o.ID); err != nil {
				return err
			}
		}
		o.Status = status
		if err := tx.Put(ctx, v.ns+"s/"+string(status)+"/"+o.ID, nil); err != nil {
			return err
		}
	}
	o.History = append(o.History, Happened{Event: r.Type.Name, At: r.Time, Position: r.At.Position})
	return v.orders().Put(ctx, tx, o.ID, o)
}
