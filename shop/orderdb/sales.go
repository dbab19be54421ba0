package orderdb

import (
	"context"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/kv"
	"github.com/freehold-go/freehold/shop/event"
)

// Dimensions of the sales report.
var Dimensions = []string{"country", "month", "day", "customer", "sku", "invoice"}

// Figure adds up lines: how many, how many units, and their value. Returns count
// with negative units.
type Figure struct {
	Rows  int64       `json:"rows"`
	Units int64       `json:"units"`
	Value event.Money `json:"value"`
}

// Row is a figure under its key.
type Row struct {
	Key string `json:"key"`
	Figure
}

// Summary adds up everything.
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
	DroppedLines   int64       `json:"dropped_lines"`   // of confirmed orders
	GoodsRejected  int64       `json:"goods_rejected"`  // rejected orders with goods
	RejectedGoods  int64       `json:"rejected_goods"`  // lines of goods of those
	RejectedValue  event.Money `json:"rejected_value"`  // totals of those
	Gross          event.Money `json:"gross"`           // confirmed amounts
	CancelledValue event.Money `json:"cancelled_value"` // confirmed amounts taken back before shipping
	Returns        event.Money `json:"returns"`         // negative
	Adjustments    event.Money `json:"adjustments"`
	Net            event.Money `json:"net"`
}

// Sales is the read model of what was sold, in a namespace. It follows Order's own
// journal, Inventory's movements and Billing's adjustments.
type Sales struct{ ns string }

// NewSales returns the read model in a namespace.
func NewSales(ns string) Sales { return Sales{ns + "/"} }

func (v Sales) figures(dimension string) kv.Table[Figure] {
	return kv.NewTable[Figure](v.ns + dimension + "/")
}

func (v Sales) summary() kv.Table[Summary] { return kv.NewTable[Summary](v.ns + "summary/") }

// Summary returns what everything adds up to.
func (v Sales) Summary(ctx context.Context, tx kv.Tx) (Summary, error) {
	s, _, err := v.summary().Get(ctx, tx, "")
	return s, err
}

// Report returns up to limit rows of a dimension behind a key, by key. more says
// whether there are more. from is inclusive.
func (v Sales) Report(ctx context.Context, tx kv.Tx, dimension, from string, limit int) (rows []Row, more bool, err error) {
	for e, err := range v.figures(dimension).All(ctx, tx, from) {
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

// Routes builds the read model, each batch of events with one read and one write
// for each key that it touches.
func (v Sales) Routes() []follow.Route[kv.Tx] {
	return []follow.Route[kv.Tx]{follow.Batch(v.apply)}
}

// batch is what a set of events adds.
type batch struct {
	figures map[string]map[string]*Figure
	summary Summary
}

func (v Sales) apply(ctx context.Context, tx kv.Tx, rs []freehold.Recorded) error {
	b := &batch{figures: map[string]map[string]*Figure{}}
	for _, d := range Dimensions {
		b.figures[d] = map[string]*Figure{}
	}
	var err error
	if b.summary, err = v.Summary(ctx, tx); err != nil {
		return err
	}
	before := b.summary
	for _, r := range rs {
		if err := v.add(ctx, tx, b, r); err != nil {
			return err
		}
	}
	for d, keys := range b.figures {
		table := v.figures(d)
		for key, f := range keys {
			was, _, err := table.Get(ctx, tx, key)
			if err != nil {
				return err
			}
			was.Rows, was.Units, was.Value = was.Rows+f.Rows, was.Units+f.Units, was.Value+f.Value
			if err := table.Put(ctx, tx, key, was); err != nil {
				return err
			}
		}
	}
	if b.summary == before {
		return nil
	}
	return v.summary().Put(ctx, tx, "", b.summary)
}

func (v Sales) add(ctx context.Context, tx kv.Tx, b *batch, r freehold.Recorded) error {
	switch r.Type.Name {
	case "order.placed", "order.confirmed", "order.paid", "order.rejected", "order.cancelled", "order.returned", "stock.adjusted", "ledger.adjusted":
	default:
		return nil
	}
	if r.Type.Name == "order.placed" {
		b.summary.Placed++
		return nil
	}
	if r.Type.Name == "order.paid" {
		b.summary.Paid++
		return nil
	}
	decoded, err := r.Decode()
	if err != nil {
		return err
	}
	s := &b.summary
	switch e := decoded.(type) {
	case event.OrderConfirmed:
		s.Confirmed++
		s.Gross += e.Amount
		s.Net += e.Amount
		s.DroppedLines += int64(e.Dropped)
		goods := false
		for _, l := range e.Lines {
			if l.Stocked {
				goods = true
				s.GoodsLines++
				s.GoodsUnits += l.Quantity
			}
		}
		if goods {
			s.GoodsOrders++
			s.GoodsBilled += e.Amount
		}
		b.count(e.Trade, e.Lines, 1, 1)
		return tx.Put(ctx, v.ns+"confirmed/"+e.Order, r.Raw)
	case event.OrderRejected:
		s.Rejected++
		if e.Goods > 0 {
			s.GoodsRejected++
			s.RejectedGoods += int64(e.Goods)
			s.RejectedValue += e.Total
		}
	case event.OrderCancelled:
		s.Cancelled++
		return v.takeBack(ctx, tx, b, e.Order)
	case event.OrderReturned:
		s.Returns -= e.Amount
		s.Net -= e.Amount
		b.count(e.Trade, e.Lines, 1, -1)
	case event.StockAdjusted:
		b.count(e.Trade, e.Lines, 1, 1)
	case event.LedgerAdjusted:
		for _, l := range e.Lines {
			value, err := l.Price.Times(l.Quantity)
			if err != nil {
				return err
			}
			s.Adjustments += value
			s.Net += value
		}
		b.count(e.Trade, e.Lines, 1, 1)
	}
	return nil
}

// takeBack removes the lines of a confirmed order that was cancelled.
func (v Sales) takeBack(ctx context.Context, tx kv.Tx, b *batch, id string) error {
	e, found, err := kv.NewTable[event.OrderConfirmed](v.ns+"confirmed/").Get(ctx, tx, id)
	if err != nil || !found {
		return err
	}
	b.summary.CancelledValue += e.Amount
	b.summary.Gross -= e.Amount
	b.summary.Net -= e.Amount
	b.count(e.Trade, e.Lines, -1, -1)
	return nil
}

// count adds lines under all keys they belong to: rows for each line, and its units
// and value times sign. Returns are rows too, with negative units.
func (b *batch) count(t event.Trade, lines []event.Line, rows, sign int64) {
	add := func(dimension, key string, l *event.Line) {
		f := b.figures[dimension][key]
		if f == nil {
			f = &Figure{}
			b.figures[dimension][key] = f
		}
		f.Rows += rows
		f.Units += sign * l.Quantity
		f.Value += event.Money(sign) * l.Price * event.Money(l.Quantity)
	}
	for i := range lines {
		l := &lines[i]
		at := t.At
		if l.At != nil {
			at = *l.At
		}
		add("country", t.Country, l)
		add("month", at.UTC().Format("2006-01"), l)
		add("day", at.UTC().Format(time.DateOnly), l)
		add("customer", t.Customer, l)
		add("sku", l.SKU, l)
		add("invoice", t.Reference, l)
	}
}
