// Package inventorydb is the Inventory service's storage: products, stock and
// reservations in a key-value database, and the handlers that change them.
package inventorydb

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/kv"
	"github.com/freehold-go/freehold/shop/event"
	"github.com/freehold-go/freehold/shop/inventory"
)

var (
	stocks       = kv.NewTable[inventory.Stock]("stock/")
	reservations = kv.NewTable[inventory.Reservation]("reservation/")
	returns      = kv.NewTable[bool]("return/")
)

// Store changes stock. Opening is the stock with which an unknown product begins
// when an order or a movement names it; if it is negative, what SetOpening has stored
// is, and without that unknown products are refused.
type Store struct{ Opening int64 }

// shelf keeps the stock that a transaction touches: each product is read once and
// written once.
type shelf struct {
	ctx     context.Context
	tx      kv.Tx
	opening int64
	touched map[string]*touched
}

type touched struct {
	now, was inventory.Stock
	missing  bool
}

func (s *Store) shelf(ctx context.Context, tx kv.Tx) *shelf {
	return &shelf{ctx, tx, s.Opening, map[string]*touched{}}
}

// Stock returns a product's stock.
func (s *shelf) Stock(sku string) (*inventory.Stock, error) {
	t := s.touched[sku]
	if t == nil {
		t = &touched{}
		var found bool
		var err error
		if t.was, found, err = stocks.Get(s.ctx, s.tx, sku); err != nil {
			return nil, err
		}
		if t.now = t.was; !found {
			opening, err := s.openingStock()
			if err != nil {
				return nil, err
			}
			t.missing = opening < 0
			t.now.Free, t.now.Received = max(opening, 0), max(opening, 0)
		}
		s.touched[sku] = t
	}
	if t.missing {
		return nil, nil
	}
	return &t.now, nil
}

var openings = kv.NewTable[int64]("opening")

// SetOpening stores the opening stock of unknown products; negative is none.
func SetOpening(ctx context.Context, tx kv.Tx, quantity int64) error {
	return openings.Put(ctx, tx, "", quantity)
}

func (s *shelf) openingStock() (int64, error) {
	if s.opening >= 0 {
		return s.opening, nil
	}
	stored, found, err := openings.Get(s.ctx, s.tx, "")
	if !found {
		stored = -1
	}
	return stored, err
}

// create returns a product's stock, beginning it if it is unknown.
func (s *shelf) create(sku string) (*inventory.Stock, error) {
	if _, err := s.Stock(sku); err != nil {
		return nil, err
	}
	t := s.touched[sku]
	t.missing = false
	return &t.now, nil
}

// store writes what has changed.
func (s *shelf) store() error {
	for sku, t := range s.touched {
		if t.missing || t.now == t.was {
			continue
		}
		if !t.now.Balanced() {
			return fmt.Errorf("inventorydb: the units of %s do not add up: %+v", sku, t.now)
		}
		if err := stocks.Put(s.ctx, s.tx, sku, t.now); err != nil {
			return err
		}
	}
	return nil
}

// Routes handles the orders of the Order service.
func (s *Store) Routes() []follow.Route[kv.Tx] {
	return []follow.Route[kv.Tx]{follow.Batch(func(ctx context.Context, tx kv.Tx, rs []freehold.Recorded) error {
		if err := reservations.Warm(ctx, tx, orders(rs)); err != nil {
			return err
		}
		shelf := s.shelf(ctx, tx)
		for _, r := range rs {
			if err := s.handle(ctx, tx, shelf, r); err != nil {
				return fmt.Errorf("%s at %s: %w", r.Type, r.At, err)
			}
		}
		return shelf.store()
	}, event.OrderPlaced{}.EventType(), event.OrderConfirmed{}.EventType(), event.OrderRejected{}.EventType(),
		event.OrderCancelled{}.EventType(), event.OrderReturned{}.EventType())}
}

// orders are those that the events are of.
func orders(rs []freehold.Recorded) iter.Seq[string] {
	return func(yield func(string) bool) {
		for i := range rs {
			if !yield(rs[i].Stream.ID()) {
				return
			}
		}
	}
}

func (s *Store) handle(ctx context.Context, tx kv.Tx, shelf *shelf, r freehold.Recorded) error {
	decoded, err := r.Decode()
	if err != nil {
		return err
	}
	m := r.Meta
	if m.Correlation == "" {
		m.Correlation = r.ID
	}
	m.Causation = r.ID
	ctx = freehold.WithMeta(ctx, m)
	switch e := decoded.(type) {
	case event.OrderPlaced:
		return s.reserve(ctx, tx, shelf, e)
	case event.OrderConfirmed:
		return s.settle(ctx, tx, shelf, e.Order, true)
	case event.OrderRejected:
		return s.settle(ctx, tx, shelf, e.Order, false)
	case event.OrderCancelled:
		return s.settle(ctx, tx, shelf, e.Order, false)
	case event.OrderReturned:
		return s.takeBack(ctx, tx, shelf, e)
	}
	return nil
}

func stream(order string) freehold.StreamID { return freehold.Stream("reservation", order) }

// reserve answers order.placed once.
func (s *Store) reserve(ctx context.Context, tx kv.Tx, shelf *shelf, e event.OrderPlaced) error {
	res, found, err := reservations.Get(ctx, tx, e.Order)
	if err != nil {
		return err
	}
	if found {
		return nil // asked again, or the order had ended before its beginning was seen
	}
	units, dropped, refusal, err := inventory.Reserve(shelf, e.Policy, e.Lines)
	if err != nil {
		return err
	}
	res = inventory.Reservation{State: inventory.Held, Units: units}
	var answer freehold.Event = event.StockReserved{Order: e.Order, Dropped: dropped}
	if refusal != nil {
		res.State = inventory.Gone
		answer = event.StockRejected{Order: e.Order, Code: refusal.Code, SKU: refusal.SKU, Reason: refusal.Reason}
	}
	if err := reservations.Put(ctx, tx, e.Order, res); err != nil {
		return err
	}
	_, err = tx.Append(ctx, stream(e.Order), freehold.NoStream, answer)
	return err
}

// settle commits or undoes a reservation by its own state, whatever has arrived
// before: the net effect of any order of arrival is that of the order's end.
func (s *Store) settle(ctx context.Context, tx kv.Tx, shelf *shelf, order string, confirmed bool) error {
	res, found, err := reservations.Get(ctx, tx, order)
	if err != nil {
		return err
	}
	if !found {
		if confirmed {
			return fmt.Errorf("inventorydb: order %s is confirmed and was never reserved", order)
		}
		return reservations.Put(ctx, tx, order, inventory.Reservation{State: inventory.Gone})
	}
	var answer freehold.Event
	switch {
	case res.State == inventory.Held && confirmed:
		answer, err = event.StockCommitted{Order: order}, inventory.Commit(shelf, &res)
	case res.State == inventory.Held:
		answer, err = event.StockReleased{Order: order}, inventory.Undo(shelf, &res)
	case res.State == inventory.Committed && !confirmed:
		answer, err = event.StockRestocked{Order: order}, inventory.Undo(shelf, &res)
	default:
		return nil
	}
	if err != nil {
		return err
	}
	if err := reservations.Put(ctx, tx, order, res); err != nil {
		return err
	}
	_, err = tx.Append(ctx, stream(order), freehold.Exists, answer)
	return err
}

// takeBack restocks a return, once.
func (s *Store) takeBack(ctx context.Context, tx kv.Tx, shelf *shelf, e event.OrderReturned) error {
	if _, found, err := returns.Get(ctx, tx, e.Return); err != nil || found {
		return err
	}
	if err := returns.Put(ctx, tx, e.Return, true); err != nil {
		return err
	}
	for _, l := range e.Lines {
		if !l.Stocked {
			continue
		}
		stock, err := shelf.create(l.SKU)
		if err != nil {
			return err
		}
		stock.Free += l.Quantity
		stock.Returned += l.Quantity
	}
	_, err := tx.Append(ctx, freehold.Stream("restock", e.Return), freehold.NoStream, event.StockRestocked{Order: e.Order, Return: e.Return})
	return err
}

// Move corrects stock without an order. The same movement sent again changes
// nothing and reports false; another one under its id is reported by the conflict.
func (s *Store) Move(ctx context.Context, tx kv.Tx, e event.StockAdjusted) (fresh bool, err error) {
	_, err = tx.Append(ctx, freehold.Stream("movement", e.Movement), freehold.NoStream, e)
	var conflict *freehold.Conflict
	if errors.As(err, &conflict) {
		for r, err := range tx.Events(ctx, conflict.Stream, 0) {
			if errors.Is(err, freehold.ErrGone) {
				return false, errors.Join(conflict, err) // so old that nobody can tell whether it is the same
			}
			if err != nil {
				return false, err
			}
			var was event.StockAdjusted
			if err := json.Unmarshal(r.Raw, &was); err != nil || was.Body != e.Body {
				return false, errors.Join(conflict, err)
			}
			return false, nil
		}
	}
	if err != nil {
		return false, err
	}
	shelf := s.shelf(ctx, tx)
	for _, l := range e.Lines {
		if !l.Stocked {
			continue
		}
		stock, err := shelf.create(l.SKU)
		if err != nil {
			return false, err
		}
		stock.Free -= l.Quantity
		stock.Left += l.Quantity
	}
	return true, shelf.store()
}

// StockOf returns a product's stock.
func StockOf(ctx context.Context, tx kv.Tx, sku string) (inventory.Stock, bool, error) {
	return stocks.Get(ctx, tx, sku)
}

// Row is a product's stock under its SKU.
type Row struct {
	SKU string `json:"sku"`
	inventory.Stock
}

// Stocks returns up to limit rows from a SKU on, by SKU; more says whether there are
// more behind them.
func Stocks(ctx context.Context, tx kv.Tx, from string, limit int) (rows []Row, more bool, err error) {
	for e, err := range stocks.All(ctx, tx, from) {
		if err != nil {
			return nil, false, err
		}
		if len(rows) == limit {
			return rows, true, nil
		}
		rows = append(rows, Row{e.Key, e.Value})
	}
	return rows, false, nil
}
