package orderdb

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/kv"
	"github.com/freehold-go/freehold/shop/event"
	"github.com/freehold-go/freehold/shop/order"
)

// OrderView is an order as queries show it.
type OrderView struct {
	ID     string `json:"id"`
	Number int64  `json:"number"` // where it was placed in Order's journal; lists go by it
	event.Trade
	Policy   string       `json:"policy"`
	Status   order.Status `json:"status"`
	Total    event.Money  `json:"total"`
	Amount   event.Money  `json:"amount"`            // confirmed
	Dropped  int          `json:"dropped,omitempty"` // lines left out for want of stock
	Returned event.Money  `json:"returned"`          // value of what came back
	Code     string       `json:"code,omitempty"`    // why it was rejected or cancelled
	Reason   string       `json:"reason,omitempty"`
	History  []Happened   `json:"history"`
}

// Happened is an entry of an order's audit trail.
type Happened struct {
	Event    string            `json:"event"`
	At       time.Time         `json:"at"`
	Position freehold.Position `json:"position"`
	Cause    string            `json:"cause,omitempty"` // id of the event that led to it
	Actor    string            `json:"actor,omitempty"` // who asked
}

// Orders is the read model of orders in a namespace.
type Orders struct {
	ns string
	// Touched, if set, is told of each order that a batch is about to change, and up
	// to where the batch goes. The change can be seen when the read model is there; if
	// the batch fails it is told again.
	Touched func(id string, at freehold.Mark)
}

// NewOrders returns the read model in a namespace.
func NewOrders(ns string) Orders { return Orders{ns: ns + "/"} }

// Keys: "o/" id is the order, "l/" id its lines as placed, and under "n/", "c/"
// customer 0x00 and "s/" status 0x00 the numbers of all orders, of a customer's,
// and of those in a state, each with the order's id.
func (v Orders) orders() kv.Table[OrderView]   { return kv.NewTable[OrderView](v.ns + "o/") }
func (v Orders) lines(id string) string        { return v.ns + "l/" + id }
func (v Orders) all() string                   { return v.ns + "n/" }
func (v Orders) customer(name string) string   { return v.ns + "c/" + name + "\x00" }
func (v Orders) status(s order.Status) string  { return v.ns + "s/" + string(s) + "\x00" }
func number(n int64) string                    { return fmt.Sprintf("%016x", n) }
func behind(prefix string, after int64) string { return prefix + number(after+1) }

// Get returns an order and its lines as they were placed.
func (v Orders) Get(ctx context.Context, tx kv.Tx, id string) (o OrderView, lines []event.Line, found bool, err error) {
	if o, found, err = v.orders().Get(ctx, tx, id); err != nil || !found {
		return o, nil, false, err
	}
	raw, _, err := tx.Get(ctx, v.lines(id))
	if err != nil {
		return o, nil, false, err
	}
	var placed struct {
		Lines []event.Line `json:"lines"`
	}
	if err := json.Unmarshal(raw, &placed); err != nil {
		return o, nil, false, fmt.Errorf("orderdb: lines of order %s: %w", id, err)
	}
	return o, placed.Lines, true, nil
}

// Filter selects orders. The zero value selects all.
type Filter struct {
	Customer string
	Status   order.Status
}

// maxScan bounds how many orders one page looks at when a customer's orders are
// filtered by status.
const maxScan = 10_000

// List returns up to limit orders behind a number, the first placed first. next is
// the number to go on behind, 0 if there are no more. A page may hold fewer orders
// than limit, or none, although there are more.
func (v Orders) List(ctx context.Context, tx kv.Tx, f Filter, after int64, limit int) (page []OrderView, next int64, err error) {
	prefix := v.all()
	switch {
	case f.Customer != "":
		prefix = v.customer(f.Customer)
	case f.Status != "":
		prefix = v.status(f.Status)
	}
	for scanned, last := 0, after; ; {
		if len(page) == limit || scanned == maxScan {
			return page, last, nil
		}
		ids, more, err := some(ctx, tx, prefix, last, min(limit-len(page), maxScan-scanned))
		if err == nil {
			err = v.orders().Warm(ctx, tx, slices.Values(ids))
		}
		if err != nil {
			return nil, 0, err
		}
		for _, id := range ids {
			o, found, err := v.orders().Get(ctx, tx, id)
			if err != nil {
				return nil, 0, err
			}
			if !found {
				return nil, 0, fmt.Errorf("orderdb: order %s is in an index and nowhere else: rebuild the read model", id)
			}
			scanned, last = scanned+1, o.Number
			if f.Status == "" || o.Status == f.Status {
				page = append(page, o)
			}
		}
		if !more {
			return page, 0, nil
		}
	}
}

// some returns up to limit ids of an index behind a number, and whether there are more.
func some(ctx context.Context, tx kv.Tx, prefix string, after int64, limit int) (ids []string, more bool, err error) {
	for item, err := range tx.Scan(ctx, prefix, behind(prefix, after)) {
		if err != nil || len(ids) == limit {
			return ids, true, err
		}
		ids = append(ids, string(item.Value))
	}
	return ids, false, nil
}

// Routes builds the read model from Order's journal, each batch with one read and
// one write for each order that it touches.
func (v Orders) Routes() []follow.Route[kv.Tx] {
	m := &recent{}
	return []follow.Route[kv.Tx]{follow.Batch(func(ctx context.Context, tx kv.Tx, rs []freehold.Recorded) error { return v.apply(ctx, tx, rs, m) })}
}

// known yields the ids of the orders that events may change and do not begin, and that
// are not remembered.
func known(rs []freehold.Recorded, m *recent) iter.Seq[string] {
	return func(yield func(string) bool) {
		begun := map[string]bool{}
		for i := range rs {
			id := rs[i].Stream.ID()
			if _, remembered := m.get(id); !begun[id] && !remembered && rs[i].Type.Name != "order.placed" && !yield(id) {
				return
			}
			begun[id] = true
		}
	}
}

// touched is an order that a batch changes.
type touched struct {
	OrderView
	was order.Status
}

func (v Orders) apply(ctx context.Context, tx kv.Tx, rs []freehold.Recorded, m *recent) error {
	m.begin(&rs[0])
	if err := v.orders().Warm(ctx, tx, known(rs, m)); err != nil {
		return err
	}
	orders := map[string]*touched{}
	var changed []string // in the order of their first event
	touch := func(id string) (*touched, error) {
		if o := orders[id]; o != nil {
			return o, nil
		}
		view, found := m.get(id)
		if !found {
			var err error
			if view, found, err = v.orders().Get(ctx, tx, id); err != nil {
				return nil, err
			}
		}
		if !found {
			return nil, fmt.Errorf("orderdb: an event of order %s, which was never placed", id)
		}
		orders[id] = &touched{view, view.Status}
		changed = append(changed, id)
		return orders[id], nil
	}
	for i := range rs {
		r := &rs[i]
		e, err := r.Decode()
		if err != nil {
			return err
		}
		if p, ok := e.(event.OrderPlaced); ok {
			if err := v.begin(ctx, tx, p, r); err != nil {
				return err
			}
			orders[p.Order] = &touched{OrderView: OrderView{ID: p.Order, Number: int64(r.At.Position), Trade: p.Trade, Policy: p.Policy, Total: p.Total}}
			changed = append(changed, p.Order)
		}
		id := orderOf(e)
		if id == "" {
			continue // a stand-alone return
		}
		o, err := touch(id)
		if err != nil {
			return err
		}
		o.evolve(e)
		o.History = append(o.History, Happened{Event: r.Type.Name, At: r.Time, Position: r.At.Position, Cause: r.Meta.Causation, Actor: r.Meta.Actor})
	}
	at := rs[len(rs)-1].At
	for _, id := range changed {
		if err := v.store(ctx, tx, orders[id]); err != nil {
			return err
		}
		if v.Touched != nil {
			v.Touched(id, at)
		}
	}
	m.put(rs, orders)
	return nil
}

// begin stores what never changes of an order.
func (v Orders) begin(ctx context.Context, tx kv.Tx, e event.OrderPlaced, r *freehold.Recorded) error {
	raw := r.Raw
	if r.Type != e.EventType() { // an older form: keep the newest
		var err error
		if raw, err = json.Marshal(e); err != nil {
			return err
		}
	}
	if err := tx.Put(ctx, v.lines(e.Order), raw); err != nil {
		return err
	}
	id, n := []byte(e.Order), number(int64(r.At.Position))
	if err := tx.Put(ctx, v.all()+n, id); err != nil {
		return err
	}
	if e.Customer == "" {
		return nil
	}
	return tx.Put(ctx, v.customer(e.Customer)+n, id)
}

// store writes an order, and moves it among those of its state.
func (v Orders) store(ctx context.Context, tx kv.Tx, o *touched) error {
	if o.Status != o.was {
		if o.was != "" {
			if err := tx.Delete(ctx, v.status(o.was)+number(o.Number)); err != nil {
				return err
			}
		}
		if err := tx.Put(ctx, v.status(o.Status)+number(o.Number), []byte(o.ID)); err != nil {
			return err
		}
	}
	return v.orders().Put(ctx, tx, o.ID, o.OrderView)
}

// orderOf names the order that an event belongs to.
func orderOf(e freehold.Event) string {
	switch e := e.(type) {
	case event.OrderPlaced:
		return e.Order
	case event.OrderConfirmed:
		return e.Order
	case event.OrderRejected:
		return e.Order
	case event.OrderPaid:
		return e.Order
	case event.OrderCancelled:
		return e.Order
	case event.OrderShipped:
		return e.Order
	case event.OrderReturned:
		return e.Order
	}
	return ""
}

// evolve changes an order by an event.
func (o *touched) evolve(e freehold.Event) {
	switch e := e.(type) {
	case event.OrderPlaced:
		o.Status = order.Placed
	case event.OrderConfirmed:
		o.Status, o.Amount, o.Dropped = order.Confirmed, e.Amount, e.Dropped
	case event.OrderRejected:
		o.Status, o.Code, o.Reason, o.Dropped = order.Rejected, e.Code, e.Reason, e.Dropped
	case event.OrderPaid:
		o.Status = order.Paid
	case event.OrderCancelled:
		o.Status, o.Code, o.Reason = order.Cancelled, e.Code, e.Reason
	case event.OrderShipped:
		o.Status = order.Shipped
	case event.OrderReturned:
		if o.Returned += e.Amount; e.Complete {
			o.Status = order.Returned
		}
	}
}
