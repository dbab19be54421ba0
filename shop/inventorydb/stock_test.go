package inventorydb_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/kv"
	"github.com/freehold-go/freehold/shop/event"
	"github.com/freehold-go/freehold/shop/inventory"
	"github.com/freehold-go/freehold/shop/inventorydb"
)

// model says what must come of orders, in the plainest way.
type model struct {
	stock   map[string]*inventory.Stock
	orders  map[string]*modelled
	returns map[string]bool
}

type modelled struct {
	state   string // "", held, committed, gone
	units   map[string]int64
	answers []string
}

func (m *model) placed(e event.OrderPlaced) {
	o := m.orders[e.Order]
	if o.state != "" {
		return
	}
	o.units = map[string]int64{}
	if e.Policy == event.Partial {
		for _, l := range e.Lines {
			if m.stock[l.SKU].Free-o.units[l.SKU] >= l.Quantity {
				o.units[l.SKU] += l.Quantity
			}
		}
		if len(o.units) == 0 {
			o.units = nil
		}
	} else {
		for _, l := range e.Lines {
			o.units[l.SKU] += l.Quantity
		}
		for sku, n := range o.units {
			if m.stock[sku].Free < n {
				o.units = nil
			}
		}
	}
	if o.units == nil {
		o.state, o.answers = "gone", append(o.answers, "rejected")
		return
	}
	o.state, o.answers = "held", append(o.answers, "reserved")
	for sku, n := range o.units {
		m.stock[sku].Free -= n
		m.stock[sku].Reserved += n
	}
}

func (m *model) confirmed(order string) {
	if o := m.orders[order]; o.state == "held" {
		o.state, o.answers = "committed", append(o.answers, "committed")
		for sku, n := range o.units {
			m.stock[sku].Reserved -= n
			m.stock[sku].Shipped += n
		}
	}
}

func (m *model) undone(order string) {
	o := m.orders[order]
	for sku, n := range o.units {
		switch o.state {
		case "held":
			m.stock[sku].Free += n
			m.stock[sku].Reserved -= n
		case "committed":
			m.stock[sku].Free += n
			m.stock[sku].Shipped -= n
		}
	}
	switch o.state {
	case "held":
		o.answers = append(o.answers, "released")
	case "committed":
		o.answers = append(o.answers, "restocked")
	}
	o.state = "gone"
}

// TestStockAddsUpAfterAnyEvents sends orders, their ends and their returns in any
// order, again and again, a few at a time, and compares stock and answers with the
// model's: nothing is oversold, and free + reserved + shipped is what was received
// and what came back.
func TestStockAddsUpAfterAnyEvents(t *testing.T) {
	onEach(t, func(t *testing.T, s *shop) {
		run := 0
		rapid.Check(t, func(t *rapid.T) {
			run++
			m := &model{stock: map[string]*inventory.Stock{}, orders: map[string]*modelled{}, returns: map[string]bool{}}
			var skus, orders []string
			for i := range 3 {
				sku := fmt.Sprintf("%d-sku%d", run, i)
				n := rapid.Int64Range(0, 5).Draw(t, sku)
				s.define(sku, n)
				skus, m.stock[sku] = append(skus, sku), &inventory.Stock{Free: n, Received: n}
			}
			for i := range 6 {
				order := fmt.Sprintf("%d-order%d", run, i)
				orders, m.orders[order] = append(orders, order), &modelled{}
			}
			var pending freehold.Token
			say := func(order string, e freehold.Event) { pending = s.append(order, e) }
			lines := func(t *rapid.T) []event.Line {
				return rapid.SliceOfN(rapid.Custom(func(t *rapid.T) event.Line {
					return goods(rapid.SampledFrom(skus).Draw(t, "sku"), rapid.Int64Range(1, 3).Draw(t, "quantity"))
				}), 1, 4).Draw(t, "lines")
			}
			t.Repeat(map[string]func(*rapid.T){
				"": func(t *rapid.T) {
					if rapid.IntRange(0, 3).Draw(t, "look") > 0 {
						return // several events in one batch
					}
					if err := s.wait(pending); err != nil {
						t.Fatal(err)
					}
					all := stockIn(s.t, s.db)
					for _, sku := range skus {
						if got := all[sku]; got != *m.stock[sku] || got.Free < 0 || !got.Balanced() {
							t.Fatalf("%s: %+v, want %+v", sku, got, *m.stock[sku])
						}
					}
					for _, order := range orders {
						if got, want := s.history(freehold.Stream("reservation", order)), strings.Join(m.orders[order].answers, " "); got != want {
							t.Fatalf("%s: answered %q, want %q", order, got, want)
						}
					}
				},
				"place": func(t *rapid.T) {
					e := placed(rapid.SampledFrom(orders).Draw(t, "order"), lines(t)...)
					e.Policy = rapid.SampledFrom([]string{event.AllOrNothing, event.Partial}).Draw(t, "policy")
					m.placed(e)
					say(e.Order, e)
				},
				"confirm": func(t *rapid.T) {
					order := rapid.SampledFrom(orders).Draw(t, "order")
					if m.orders[order].state == "" {
						return // would be parked
					}
					m.confirmed(order)
					say(order, confirmed(order))
				},
				"reject": func(t *rapid.T) {
					order := rapid.SampledFrom(orders).Draw(t, "order")
					m.undone(order)
					say(order, rejected(order))
				},
				"cancel": func(t *rapid.T) {
					order := rapid.SampledFrom(orders).Draw(t, "order")
					m.undone(order)
					say(order, cancelled(order))
				},
				"return": func(t *rapid.T) {
					id := fmt.Sprintf("%d-return%d", run, rapid.IntRange(0, 3).Draw(t, "return"))
					e := returned(id, "", lines(t)...)
					if !m.returns[id] {
						m.returns[id] = true
						for _, l := range e.Lines {
							m.stock[l.SKU].Free += l.Quantity
							m.stock[l.SKU].Returned += l.Quantity
						}
					}
					say("", e)
				},
			})
			if err := s.wait(pending); err != nil {
				t.Fatal(err)
			}
		})
	})
}

func TestUnknownProductBeginsWithTheOpeningStock(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		opening int64
		want    map[string]inventory.Stock
		history string
	}{
		{-1, map[string]inventory.Stock{}, "rejected"},
		{0, map[string]inventory.Stock{}, "rejected"},
		{5, map[string]inventory.Stock{"NEW": {Free: 2, Reserved: 3, Received: 5}}, "reserved"},
	} {
		for _, e := range engines() {
			t.Run(fmt.Sprintf("%s, opening %d", e.name, c.opening), func(t *testing.T) {
				t.Parallel()
				s := start(t, e.open(t), c.opening)
				s.say("1", placed("1", goods("NEW", 3)))
				if got := s.history("reservation-1"); got != c.history {
					t.Errorf("answered %q, want %q", got, c.history)
				}
				if diff := cmp.Diff(c.want, stockIn(t, s.db)); diff != "" {
					t.Errorf("stock (-want +got):\n%s", diff)
				}
			})
		}
	}
}

// A refusal tells the customer which product, and why.
func TestRefusalNamesTheProduct(t *testing.T) {
	onEach(t, func(t *testing.T, s *shop) {
		s.define("A", 1)
		s.say("1", placed("1", goods("A", 2)))
		s.say("2", placed("2", goods("A", 1), goods("X", 1)))
		for order, want := range map[string]event.StockRejected{
			"1": {Order: "1", Code: "sold-out", SKU: "A", Reason: "2 of A wanted, 1 in stock"},
			"2": {Order: "2", Code: "unknown-sku", SKU: "X", Reason: "there is no product X"},
		} {
			s.update(func(ctx context.Context, tx kv.Tx) error {
				for r, err := range tx.Events(ctx, freehold.Stream("reservation", order), 0) {
					if err != nil {
						return err
					}
					got, err := r.Decode()
					if diff := cmp.Diff(freehold.Event(want), got); diff != "" || err != nil {
						t.Errorf("order %s: %v (-want +got):\n%s", order, err, diff)
					}
				}
				return nil
			})
		}
	})
}

// A partial order tells which lines were left out.
func TestPartialOrderTellsItsDroppedLines(t *testing.T) {
	onEach(t, func(t *testing.T, s *shop) {
		s.define("A", 2)
		e := placed("1", goods("X", 1), goods("A", 2), goods("A", 1))
		e.Policy = event.Partial
		s.say("1", e)
		s.update(func(ctx context.Context, tx kv.Tx) error {
			for r, err := range tx.Events(ctx, "reservation-1", 0) {
				if err != nil {
					return err
				}
				got, err := r.Decode()
				if diff := cmp.Diff(freehold.Event(event.StockReserved{Order: "1", Dropped: []int{0, 2}}), got); diff != "" || err != nil {
					t.Errorf("%v (-want +got):\n%s", err, diff)
				}
			}
			return nil
		})
	})
}

// Events of the answers carry the order's event as their cause.
func TestAnswerCarriesItsCause(t *testing.T) {
	onEach(t, func(t *testing.T, s *shop) {
		s.define("A", 2)
		for _, e := range []freehold.Event{placed("1", goods("A", 1)), confirmed("1")} {
			token, err := s.orders.Append(freehold.WithMeta(t.Context(), freehold.Meta{Correlation: "visit"}), freehold.Write{Stream: "order-1", Expect: freehold.Any, Events: []freehold.Event{e}})
			if err := errors.Join(err, s.wait(token)); err != nil {
				t.Fatal(err)
			}
		}
		var ids []string
		for r, err := range s.orders.Events(t.Context(), "order-1", 0) {
			if err != nil {
				t.Fatal(err)
			}
			ids = append(ids, r.ID)
		}
		var causes []string
		s.update(func(ctx context.Context, tx kv.Tx) error {
			causes = nil
			for r, err := range tx.Events(ctx, "reservation-1", 0) {
				if err != nil {
					return err
				}
				causes = append(causes, r.Meta.Causation)
				if r.Meta.Correlation != "visit" {
					t.Errorf("%s correlates with %q", r.Type, r.Meta.Correlation)
				}
			}
			return nil
		})
		if !slices.Equal(ids, causes) {
			t.Errorf("caused by %v, want %v", causes, ids)
		}
	})
}

func TestProductIsDefinedOnceAndReceivesUnits(t *testing.T) {
	onEach(t, func(t *testing.T, s *shop) {
		s.define("A", 0)
		s.define("A", 0) // the same: nothing happens
		s.define("A", 5)
		s.define("A", 5) // another delivery
		if got, want := s.stock("A"), (inventory.Stock{Free: 10, Received: 10}); got != want {
			t.Errorf("stock %+v, want %+v", got, want)
		}
		if got := s.history("product-A"); got != "product.defined product.defined product.defined" {
			t.Errorf("history %q", got)
		}
		odd := "a/b c%2F\u00e9"
		s.define(odd, 1)
		s.update(func(ctx context.Context, tx kv.Tx) error {
			p, found, err := inventorydb.ProductOf(ctx, tx, odd)
			if want := (inventorydb.Product{SKU: odd, Description: "a " + odd, Price: 2500}); p != want || !found {
				t.Errorf("product %+v, found %t", p, found)
			}
			all, err2 := inventorydb.Products(ctx, tx, "B", 1)
			if len(all) != 1 || all[0].SKU != odd {
				t.Errorf("products from B: %+v", all)
			}
			rows, more, err3 := inventorydb.Stocks(ctx, tx, "", 1)
			if len(rows) != 1 || rows[0].SKU != "A" || !more {
				t.Errorf("first page of stock: %+v, more %t", rows, more)
			}
			return errors.Join(err, err2, err3)
		})
	})
}

func TestMovementCountsOnce(t *testing.T) {
	onEach(t, func(t *testing.T, s *shop) {
		s.define("A", 10)
		m := event.StockAdjusted{Movement: "m1", Trade: event.Trade{Currency: "GBP", At: at}, Body: "one", Lines: []event.Line{goods("A", 4), goods("NEW", -2), {SKU: "POST", Quantity: 1}}}
		move := func(e event.StockAdjusted) (fresh bool, err error) {
			_, err = s.db.Update(t.Context(), func(ctx context.Context, tx kv.Tx) (err error) {
				fresh, err = s.store.Move(ctx, tx, e)
				return err
			})
			return fresh, err
		}
		if fresh, err := move(m); err != nil || !fresh {
			t.Errorf("first: %t, %v", fresh, err)
		}
		if fresh, err := move(m); err != nil || fresh {
			t.Errorf("again: %t, %v", fresh, err)
		}
		other := m
		other.Body = "two"
		var conflict *freehold.Conflict
		if _, err := move(other); !errors.As(err, &conflict) {
			t.Errorf("another one under its id: %v", err)
		}
		s.update(func(ctx context.Context, tx kv.Tx) error { // twice in one transaction
			m.Movement = "m2"
			first, err := s.store.Move(ctx, tx, m)
			again, err2 := s.store.Move(ctx, tx, m)
			if !first || again {
				t.Errorf("in one transaction: %t, then %t", first, again)
			}
			return errors.Join(err, err2)
		})
		want := map[string]inventory.Stock{"A": {Free: 2, Received: 10, Left: 8}, "NEW": {Free: 4, Left: -4}}
		if diff := cmp.Diff(want, stockIn(t, s.db)); diff != "" {
			t.Errorf("stock (-want +got):\n%s", diff)
		}
	})
}

// A correction may go below zero; orders get nothing until there is stock again.
func TestCorrectionBelowZeroSellsNothing(t *testing.T) {
	onEach(t, func(t *testing.T, s *shop) {
		s.define("A", 1)
		s.update(func(ctx context.Context, tx kv.Tx) error {
			_, err := s.store.Move(ctx, tx, event.StockAdjusted{Movement: "m", Trade: event.Trade{Currency: "GBP", At: at}, Lines: []event.Line{goods("A", 3)}})
			return err
		})
		s.say("1", placed("1", goods("A", 1)))
		s.define("A", 3)
		s.say("2", placed("2", goods("A", 1)))
		if a, b := s.history("reservation-1"), s.history("reservation-2"); a != "rejected" || b != "reserved" {
			t.Errorf("below zero %q, then %q", a, b)
		}
		if got, want := s.stock("A"), (inventory.Stock{Reserved: 1, Received: 4, Left: 3}); got != want {
			t.Errorf("stock %+v, want %+v", got, want)
		}
	})
}
