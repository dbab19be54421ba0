package inventory_test

import (
	"errors"
	"maps"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/freehold-go/freehold/shop/event"
	"github.com/freehold-go/freehold/shop/inventory"
)

// shelf is stock in a map.
type shelf map[string]*inventory.Stock

func (s shelf) Stock(sku string) (*inventory.Stock, error) { return s[sku], nil }

// stock is a shelf with free units of each product.
func stock(free map[string]int64) shelf {
	s := shelf{}
	for sku, n := range free {
		s[sku] = &inventory.Stock{Free: n, Received: n}
	}
	return s
}

func (s shelf) copy() map[string]inventory.Stock {
	all := map[string]inventory.Stock{}
	for sku, stock := range s {
		all[sku] = *stock
	}
	return all
}

func goods(sku string, n int64) event.Line { return event.Line{SKU: sku, Quantity: n, Stocked: true} }

func TestReserve(t *testing.T) {
	t.Parallel()
	free := map[string]int64{"A": 5, "B": 2, "NONE": 0}
	for name, c := range map[string]struct {
		policy  string
		lines   []event.Line
		units   []inventory.Units
		dropped []int
		refusal *inventory.Refusal
	}{
		"whole order in stock": {event.AllOrNothing, []event.Line{goods("A", 5), goods("B", 1)}, []inventory.Units{{SKU: "A", Quantity: 5}, {SKU: "B", Quantity: 1}}, nil, nil},
		"lines of one product count together": {event.AllOrNothing, []event.Line{goods("A", 3), goods("B", 1), goods("A", 3)}, nil, nil,
			&inventory.Refusal{Code: "sold-out", SKU: "A", Reason: "6 of A wanted, 5 in stock"}},
		"one line too much refuses all": {event.AllOrNothing, []event.Line{goods("A", 1), goods("B", 3)}, nil, nil,
			&inventory.Refusal{Code: "sold-out", SKU: "B", Reason: "3 of B wanted, 2 in stock"}},
		"unknown product": {event.AllOrNothing, []event.Line{goods("A", 1), goods("X", 1)}, nil, nil,
			&inventory.Refusal{Code: "unknown-sku", SKU: "X", Reason: "there is no product X"}},
		"services need no stock": {event.AllOrNothing, []event.Line{{SKU: "POST", Quantity: 1}}, nil, nil, nil},
		"partial takes lines whole, in their order": {event.Partial, []event.Line{goods("A", 3), goods("A", 3), goods("A", 2), goods("X", 1)},
			[]inventory.Units{{SKU: "A", Quantity: 3}, {SKU: "A", Quantity: 2}}, []int{1, 3}, nil},
		"partial drops by the place in the order": {event.Partial, []event.Line{{SKU: "POST", Quantity: 1}, goods("NONE", 1), goods("B", 2)},
			[]inventory.Units{{SKU: "B", Quantity: 2}}, []int{1}, nil},
		"partial with nothing in stock is refused for the first": {event.Partial, []event.Line{{SKU: "POST", Quantity: 1}, goods("NONE", 1), goods("X", 1)}, nil, nil,
			&inventory.Refusal{Code: "sold-out", SKU: "NONE", Reason: "1 of NONE wanted, 0 in stock"}},
		"partial of services only": {event.Partial, []event.Line{{SKU: "POST", Quantity: 1}}, nil, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := stock(free)
			before := s.copy()
			units, dropped, refusal, err := inventory.Reserve(s, c.policy, c.lines)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.units, units); diff != "" {
				t.Errorf("units (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(c.dropped, dropped); diff != "" {
				t.Errorf("dropped (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(c.refusal, refusal); diff != "" {
				t.Errorf("refusal (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(before, s.copy()); refusal != nil && diff != "" {
				t.Errorf("a refused order changed the shelf (-before +after):\n%s", diff)
			}
		})
	}
}

// A correction may leave less than nothing; nobody gets any of it, and the reason
// does not tell of negative stock.
func TestNothingIsReservedBelowZero(t *testing.T) {
	t.Parallel()
	s := shelf{"A": {Free: -3, Left: 3}}
	_, _, refusal, err := inventory.Reserve(s, event.AllOrNothing, []event.Line{goods("A", 1)})
	want := &inventory.Refusal{Code: "sold-out", SKU: "A", Reason: "1 of A wanted, 0 in stock"}
	if diff := cmp.Diff(want, refusal); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

// broken is a shelf that cannot be read.
type broken struct{}

var errShelf = errors.New("no shelf")

func (broken) Stock(string) (*inventory.Stock, error) { return nil, errShelf }

func TestErrorOfTheShelfIsReturned(t *testing.T) {
	t.Parallel()
	for _, policy := range []string{event.AllOrNothing, event.Partial} {
		if _, _, _, err := inventory.Reserve(broken{}, policy, []event.Line{goods("A", 1)}); !errors.Is(err, errShelf) {
			t.Errorf("%s: %v", policy, err)
		}
	}
	held := inventory.Reservation{State: inventory.Held, Units: []inventory.Units{{SKU: "A", Quantity: 1}}}
	if err := inventory.Commit(broken{}, &held); !errors.Is(err, errShelf) || held.State != inventory.Held {
		t.Errorf("commit: %v, the reservation is %s", err, held.State)
	}
	if err := inventory.Undo(shelf{}, &held); err == nil || held.State != inventory.Held {
		t.Errorf("undo of a product that is not there: %v, the reservation is %s", err, held.State)
	}
}

// TestNothingIsOversold reserves, commits and undoes in any order, from a few units
// of a few products, and adds up after each step.
func TestNothingIsOversold(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		skus := []string{"A", "B", "C", "NOBODY-HAS-IT"}
		free := map[string]int64{}
		for _, sku := range skus[:3] {
			free[sku] = rapid.Int64Range(0, 6).Draw(t, "opening "+sku)
		}
		s := stock(free)
		var all []*inventory.Reservation
		check := func() {
			reserved, shipped := map[string]int64{}, map[string]int64{}
			for _, r := range all {
				for _, u := range r.Units {
					switch r.State {
					case inventory.Held:
						reserved[u.SKU] += u.Quantity
					case inventory.Committed:
						shipped[u.SKU] += u.Quantity
					}
				}
			}
			for _, sku := range skus[:3] {
				got := *s[sku]
				want := inventory.Stock{Free: free[sku] - reserved[sku] - shipped[sku], Reserved: reserved[sku], Shipped: shipped[sku], Received: free[sku]}
				if got != want || got.Free < 0 || !got.Balanced() {
					t.Fatalf("%s: %+v, want %+v", sku, got, want)
				}
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"": func(*rapid.T) { check() },
			"reserve": func(t *rapid.T) {
				lines := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) event.Line {
					return event.Line{SKU: rapid.SampledFrom(skus).Draw(t, "sku"), Quantity: rapid.Int64Range(1, 4).Draw(t, "quantity"), Stocked: rapid.IntRange(0, 4).Draw(t, "stocked") > 0}
				}), 1, 5).Draw(t, "lines")
				policy := rapid.SampledFrom([]string{event.AllOrNothing, event.Partial}).Draw(t, "policy")
				before := s.copy()
				units, dropped, refusal, err := inventory.Reserve(s, policy, lines)
				if err != nil {
					t.Fatal(err)
				}
				if refusal != nil && (len(units) > 0 || !maps.Equal(before, s.copy())) {
					t.Fatalf("refused for %s, and holds %v", refusal.Reason, units)
				}
				var wanted, got int64
				for i, l := range lines {
					if l.Stocked && (len(dropped) == 0 || dropped[0] != i) {
						wanted += l.Quantity
					}
					if len(dropped) > 0 && dropped[0] == i {
						dropped = dropped[1:]
					}
				}
				for _, u := range units {
					got += u.Quantity
				}
				if refusal == nil && got != wanted {
					t.Fatalf("holds %d units of %d", got, wanted)
				}
				all = append(all, &inventory.Reservation{State: inventory.Held, Units: units})
			},
			"commit": func(t *rapid.T) {
				if r := pick(t, all); r != nil && r.State == inventory.Held {
					if err := inventory.Commit(s, r); err != nil || r.State != inventory.Committed {
						t.Fatalf("%v, %s", err, r.State)
					}
				}
			},
			"undo": func(t *rapid.T) {
				if r := pick(t, all); r != nil && r.State != inventory.Gone {
					if err := inventory.Undo(s, r); err != nil || r.State != inventory.Gone {
						t.Fatalf("%v, %s", err, r.State)
					}
				}
			},
		})
	})
}

func pick(t *rapid.T, all []*inventory.Reservation) *inventory.Reservation {
	if len(all) == 0 {
		return nil
	}
	return rapid.SampledFrom(all).Draw(t, "reservation")
}

func TestMovedAndBalanced(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		s               inventory.Stock
		moved, balanced bool
	}{
		{inventory.Stock{}, false, true},
		{inventory.Stock{Free: 5, Received: 5}, false, true},
		{inventory.Stock{Free: 4, Reserved: 1, Received: 5}, true, true},
		{inventory.Stock{Free: 4, Shipped: 1, Received: 5}, true, true},
		{inventory.Stock{Free: 6, Received: 5, Returned: 1}, true, true},
		{inventory.Stock{Free: -1, Left: 1}, true, true},
		{inventory.Stock{Free: 5, Received: 4}, false, false},
		{inventory.Stock{Free: 6, Reserved: -1, Received: 5}, true, false},
		{inventory.Stock{Free: 6, Shipped: -1, Received: 5}, true, false},
	} {
		if c.s.Moved() != c.moved || c.s.Balanced() != c.balanced {
			t.Errorf("%+v: moved %t, balanced %t", c.s, c.s.Moved(), c.s.Balanced())
		}
	}
}
