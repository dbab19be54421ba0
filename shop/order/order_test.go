package order_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/shop/event"
	"github.com/freehold-go/freehold/shop/order"
)

var at = time.Date(2026, 1, 2, 3, 4, 0, 0, time.UTC)

func trade() event.Trade {
	return event.Trade{Reference: "R-1", Customer: "17850", Country: "EIRE", Currency: "GBP", At: at}
}

// goods is a stocked line, fee one that only bills.
func goods(sku string, quantity int64, price event.Money) event.Line {
	return event.Line{SKU: sku, Description: "a " + sku, Quantity: quantity, Price: price, Stocked: true}
}

func fee(sku string, price event.Money) event.Line {
	return event.Line{SKU: sku, Quantity: 1, Price: price}
}

func placed(t *testing.T, lines ...event.Line) event.OrderPlaced {
	t.Helper()
	total, err := order.Check(trade(), lines)
	if err != nil {
		t.Fatal(err)
	}
	return event.OrderPlaced{Order: "1", Trade: trade(), Policy: event.AllOrNothing, Deadline: at.Add(30 * time.Second), Body: "b", Lines: lines, Total: total}
}

// history folds events and decisions, each on the state that those before it left.
type history struct {
	t     *testing.T
	state order.Order
	all   []freehold.Event
}

func begin(t *testing.T, lines ...event.Line) *history {
	t.Helper()
	h := &history{t: t}
	h.apply(placed(t, lines...))
	return h
}

func (h *history) apply(events ...freehold.Event) {
	for _, e := range events {
		h.state = h.state.Evolve(e)
		h.all = append(h.all, e)
	}
}

// do decides and returns what was decided.
func (h *history) do(d order.Decision) []freehold.Event {
	h.t.Helper()
	events, err := d(h.state)
	if err != nil {
		h.t.Fatal(err)
	}
	h.apply(events...)
	return events
}

func (h *history) refused(d order.Decision, want error) {
	h.t.Helper()
	before := len(h.all)
	if events, err := d(h.state); !errors.Is(err, want) || len(events) > 0 || len(h.all) != before {
		h.t.Errorf("decided %v, %v, want %v", events, err, want)
	}
}

func (h *history) is(want order.Status) {
	h.t.Helper()
	if h.state.Status != want {
		h.t.Errorf("order is %q, want %q", h.state.Status, want)
	}
}

func TestOrderGoesFromPlacedToReturned(t *testing.T) {
	t.Parallel()
	h := begin(t, goods("A", 3, 2550), goods("A", 2, 2000), fee("POST", 1))
	h.refused(order.Ship, order.ErrState)
	h.refused(order.Return("r", "b", nil, at), order.ErrState)
	h.do(order.Confirm(nil))
	h.is(order.Confirmed)
	h.refused(order.Ship, order.ErrState)
	if h.do(order.MarkPaid(11651)); h.state.Amount != 11651 {
		t.Errorf("amount is %s, want 11.651", h.state.Amount)
	}
	h.is(order.Paid)
	h.do(order.Ship)
	h.is(order.Shipped)
	h.refused(order.Cancel("too late"), order.ErrState)

	// Four of the five A come back: three of the first line, one of the second.
	back := h.do(order.Return("r1", "b1", []order.Units{{SKU: "A", Quantity: 4}}, at.Add(time.Hour)))
	want := []freehold.Event{event.OrderReturned{Return: "r1", Order: "1", Body: "b1", Amount: 9650,
		Trade: event.Trade{Reference: "R-1", Customer: "17850", Country: "EIRE", Currency: "GBP", At: at.Add(time.Hour)},
		Lines: []event.Line{{SKU: "A", Quantity: 3, Price: 2550, Stocked: true}, {SKU: "A", Quantity: 1, Price: 2000, Stocked: true}}}}
	if diff := cmp.Diff(want, back); diff != "" {
		t.Error(diff)
	}
	h.is(order.Shipped)
	if again := h.do(order.Return("r1", "b1", nil, at)); len(again) > 0 {
		t.Errorf("the same return again decides %v", again)
	}
	h.refused(order.Return("r1", "other", nil, at), order.ErrOtherBody)
	var field *order.FieldError
	if _, err := order.Return("r2", "b", []order.Units{{SKU: "A", Quantity: 2}}, at)(h.state); !errors.As(err, &field) || field.Field != "lines[0].quantity" {
		t.Errorf("more than was left: %v, want an error that names lines[0].quantity", err)
	}
	rest := h.do(order.Return("r2", "b", nil, at))
	if got := rest[0].(event.OrderReturned); got.Amount != 2001 || !got.Complete {
		t.Errorf("the rest is worth %s, complete %v, want 2.001 and true", got.Amount, got.Complete)
	}
	h.is(order.Returned)
	h.refused(order.Return("r3", "b", nil, at), order.ErrState)
}

func TestDecisionsOnAnEndedOrderChangeNothing(t *testing.T) {
	t.Parallel()
	for name, end := range map[order.Status][]order.Decision{
		order.Rejected:  {order.Reject("declined", "no")},
		order.Cancelled: {order.Cancel("changed my mind")},
		order.Shipped:   {order.Confirm(nil), order.MarkPaid(1), order.Ship},
	} {
		h := begin(t, goods("A", 1, 1))
		for _, d := range end {
			h.do(d)
		}
		h.is(name)
		for _, late := range []order.Decision{order.Confirm(nil), order.Reject("x", "y"), order.MarkPaid(1), order.CaptureFailed("x")} {
			if events := h.do(late); len(events) > 0 {
				t.Errorf("%s order: late reply decides %v", name, events)
			}
		}
		h.is(name)
	}
	for _, d := range []order.Decision{order.Cancel("x"), order.Ship, order.Return("r", "b", nil, at)} {
		if _, err := d(order.Order{}); !errors.Is(err, order.ErrUnknown) {
			t.Errorf("on no order: %v, want ErrUnknown", err)
		}
	}
}

func TestConfirmKeepsExactlyTheLinesThatAreNotDropped(t *testing.T) {
	t.Parallel()
	later := at.Add(time.Minute)
	second := goods("B", 2, 1250)
	second.At = &later
	h := begin(t, goods("A", 1, 1000), second, fee("POST", 4))
	got := h.do(order.Confirm([]int{0, 7, -1}))
	want := []freehold.Event{event.OrderConfirmed{Order: "1", Trade: trade(), Dropped: 1, Amount: 2504,
		Lines: []event.Line{{SKU: "B", Quantity: 2, Price: 1250, Stocked: true, At: &later}, {SKU: "POST", Quantity: 1, Price: 4}}}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if h.state.Placed.Lines[0].Description == "" {
		t.Error("the placed lines were changed")
	}
}

func TestOrderWithoutGoodsLeftIsRejected(t *testing.T) {
	t.Parallel()
	for name, h := range map[string]*history{
		"all dropped":   begin(t, goods("A", 1, 1000)),
		"only fee left": begin(t, goods("A", 1, 1000), fee("POST", 4)),
	} {
		if got := h.do(order.Confirm([]int{0}))[0].(event.OrderRejected); got.Code != "sold-out" || got.Total != h.state.Placed.Total || got.Goods != 1 {
			t.Errorf("%s: %+v", name, got)
		}
	}
	h := begin(t, fee("POST", 4))
	h.do(order.Confirm(nil))
	h.is(order.Confirmed)
	for policy, dropped := range map[string]int{event.AllOrNothing: 0, event.Partial: 1} {
		h := begin(t, goods("A", 1, 1000), fee("POST", 4))
		h.state.Placed.Policy = policy
		if got := h.do(order.Reject(order.CodeSoldOut, "none left"))[0].(event.OrderRejected); got.Dropped != dropped {
			t.Errorf("%s: %d lines dropped one by one, want %d", policy, got.Dropped, dropped)
		}
	}
}

func TestCancellationTellsWhatIsTakenBack(t *testing.T) {
	t.Parallel()
	h := begin(t, goods("A", 2, 1000))
	if got := h.do(order.Cancel("x"))[0].(event.OrderCancelled); len(got.Lines) > 0 || got.Amount != 0 {
		t.Errorf("nothing was confirmed, taken back is %+v", got)
	}
	h = begin(t, goods("A", 2, 1000), goods("B", 1, 5))
	h.do(order.Confirm([]int{1}))
	got := h.do(order.CaptureFailed("card expired"))[0].(event.OrderCancelled)
	if got.Code != "capture-failed" || got.Amount != 2000 || len(got.Lines) != 1 || got.Country != "EIRE" {
		t.Errorf("taken back is %+v, want the confirmed line", got)
	}
}

// FIELD row 26: prices of a thousandth add up exactly.
func TestTotalsOfThousandthsAreExact(t *testing.T) {
	t.Parallel()
	lines := make([]event.Line, 0, 1000)
	for range 1000 {
		lines = append(lines, goods("A", 7, 1))
	}
	if total, err := order.Check(trade(), lines); err != nil || total.String() != "7.000" {
		t.Errorf("1000 lines of 7 at 0.001 are %s, %v, want 7.000", total, err)
	}
}

func TestCheckNamesTheFieldThatIsWrong(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 65)
	for name, c := range map[string]struct {
		field string
		trade func(*event.Trade)
		lines []event.Line
	}{
		"unknown currency":     {"currency", func(t *event.Trade) { t.Currency = "XXX" }, nil},
		"long reference":       {"reference", func(t *event.Trade) { t.Reference = long }, nil},
		"long customer":        {"customer", func(t *event.Trade) { t.Customer = long }, nil},
		"control in country":   {"country", func(t *event.Trade) { t.Country = "a\x00b" }, nil},
		"impossible year":      {"at", func(t *event.Trade) { t.At = time.Date(12026, 1, 1, 0, 0, 0, 0, time.UTC) }, nil},
		"no lines":             {"lines", nil, []event.Line{}},
		"too many lines":       {"lines", nil, make([]event.Line, 5001)},
		"empty sku":            {"lines[1].sku", nil, []event.Line{goods("A", 1, 1), goods("", 1, 1)}},
		"long sku":             {"lines[0].sku", nil, []event.Line{goods(long, 1, 1)}},
		"long description":     {"lines[0].description", nil, []event.Line{{SKU: "A", Quantity: 1, Description: strings.Repeat("x", 201)}}},
		"zero quantity":        {"lines[0].quantity", nil, []event.Line{goods("A", 0, 1)}},
		"negative quantity":    {"lines[0].quantity", nil, []event.Line{goods("A", -1, 1)}},
		"quantity too large":   {"lines[0].quantity", nil, []event.Line{goods("A", 1<<62, 1)}},
		"negative price":       {"lines[0].price", nil, []event.Line{goods("A", 1, -1)}},
		"a sum that overflows": {"lines", nil, []event.Line{goods("A", 1e9, 9e15)}},
	} {
		tr, lines := trade(), []event.Line{goods("A", 1, 1)}
		if c.trade != nil {
			c.trade(&tr)
		}
		if c.lines != nil {
			lines = c.lines
		}
		var field *order.FieldError
		if _, err := order.Check(tr, lines); !errors.As(err, &field) || field.Field != c.field {
			t.Errorf("%s: %v, want an error that names %s", name, err, c.field)
		}
	}
}

func TestStatusReached(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		is, want order.Status
		reached  bool
	}{
		{order.Placed, order.Confirmed, false}, {order.Confirmed, order.Confirmed, true}, {order.Paid, order.Confirmed, true},
		{order.Returned, order.Shipped, true}, {order.Rejected, order.Confirmed, false}, {order.Cancelled, order.Cancelled, true},
		{order.Paid, order.Cancelled, false}, {"", order.Placed, false},
	} {
		if got := c.is.Reached(c.want); got != c.reached {
			t.Errorf("%q reached %q: %v, want %v", c.is, c.want, got, c.reached)
		}
	}
}
