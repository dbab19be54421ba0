package orderdb

import (
	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/shop/event"
)

// Summary adds up everything. What is named goods concerns orders with at least one
// line of goods only.
type Summary struct {
	Placed         int64       `json:"placed"`
	Confirmed      int64       `json:"confirmed"`
	Paid           int64       `json:"paid"`
	Rejected       int64       `json:"rejected"`
	Cancelled      int64       `json:"cancelled"`
	GoodsOrders    int64       `json:"goods_orders"`    // confirmed orders with goods
	GoodsBilled    event.Money `json:"goods_billed"`    // confirmed amounts of those
	GoodsLines     int64       `json:"goods_lines"`     // confirmed lines of goods
	GoodsUnits     int64       `json:"goods_units"`     // their units
	DroppedLines   int64       `json:"dropped_lines"`   // lines left out one by one, of confirmed and of rejected orders
	GoodsRejected  int64       `json:"goods_rejected"`  // rejected orders with goods
	RejectedGoods  int64       `json:"rejected_goods"`  // lines of goods of those
	RejectedValue  event.Money `json:"rejected_value"`  // totals of those
	Gross          event.Money `json:"gross"`           // confirmed amounts, less cancelled ones
	CancelledValue event.Money `json:"cancelled_value"` // confirmed amounts taken back before shipping
	Returns        event.Money `json:"returns"`         // negative
	Adjustments    event.Money `json:"adjustments"`
	Net            event.Money `json:"net"` // gross, returns and adjustments
}

// add counts one event in.
func (s *Summary) add(e freehold.Event) error {
	var sum adder
	switch e := e.(type) {
	case event.OrderConfirmed:
		s.Confirmed++
		sum.add(&s.Gross, e.Amount)
		sum.add(&s.Net, e.Amount)
		s.DroppedLines += int64(e.Dropped)
		lines := s.GoodsLines
		for i := range e.Lines {
			if e.Lines[i].Stocked {
				s.GoodsLines++
				s.GoodsUnits += e.Lines[i].Quantity
			}
		}
		if s.GoodsLines > lines {
			s.GoodsOrders++
			sum.add(&s.GoodsBilled, e.Amount)
		}
	case event.OrderRejected:
		s.Rejected++
		s.DroppedLines += int64(e.Dropped)
		if e.Goods > 0 {
			s.GoodsRejected++
			s.RejectedGoods += int64(e.Goods)
			sum.add(&s.RejectedValue, e.Total)
		}
	case event.OrderCancelled:
		s.Cancelled++
		sum.add(&s.CancelledValue, e.Amount)
		sum.add(&s.Gross, -e.Amount)
		sum.add(&s.Net, -e.Amount)
	case event.OrderReturned:
		sum.add(&s.Returns, -e.Amount)
		sum.add(&s.Net, -e.Amount)
	case event.LedgerAdjusted:
		value, err := event.Sum(e.Lines)
		if err != nil {
			return err
		}
		sum.add(&s.Adjustments, value)
		sum.add(&s.Net, value)
	}
	return sum.err
}

// plus adds two summaries.
func (s Summary) plus(o Summary) (Summary, error) {
	for _, p := range []struct {
		to *int64
		by int64
	}{
		{&s.Placed, o.Placed}, {&s.Confirmed, o.Confirmed}, {&s.Paid, o.Paid}, {&s.Rejected, o.Rejected}, {&s.Cancelled, o.Cancelled},
		{&s.GoodsOrders, o.GoodsOrders}, {&s.GoodsLines, o.GoodsLines}, {&s.GoodsUnits, o.GoodsUnits}, {&s.DroppedLines, o.DroppedLines},
		{&s.GoodsRejected, o.GoodsRejected}, {&s.RejectedGoods, o.RejectedGoods},
	} {
		*p.to += p.by
	}
	var sum adder
	for _, p := range []struct {
		to *event.Money
		by event.Money
	}{
		{&s.GoodsBilled, o.GoodsBilled}, {&s.RejectedValue, o.RejectedValue}, {&s.Gross, o.Gross}, {&s.CancelledValue, o.CancelledValue},
		{&s.Returns, o.Returns}, {&s.Adjustments, o.Adjustments}, {&s.Net, o.Net},
	} {
		sum.add(p.to, p.by)
	}
	return s, sum.err
}

// adder keeps the first overflow.
type adder struct{ err error }

func (a *adder) add(to *event.Money, by event.Money) {
	sum, err := to.Plus(by)
	if err != nil && a.err == nil {
		a.err = err
	}
	*to = sum
}
