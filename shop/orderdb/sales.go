package orderdb

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"iter"
	"math"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/kv"
	"github.com/freehold-go/freehold/shop/event"
)

// Dimensions of the sales report. Days and months are those of each line's time,
// in UTC; the customer of a guest is empty.
var Dimensions = [...]string{"country", "month", "day", "customer", "sku", "invoice"}

const (
	byCountry = iota
	byMonth
	byDay
	byCustomer
	bySKU
	byInvoice
)

// Figure adds up lines: how many, how many units, and their value. Returns count
// with negative units.
type Figure struct {
	Rows  int64       `json:"rows"`
	Units int64       `json:"units"`
	Value event.Money `json:"value"`
}

// Plus adds two figures; event.ErrAmount if that overflows.
func (f Figure) Plus(o Figure) (Figure, error) {
	value, err := f.Value.Plus(o.Value)
	if err == nil {
		var units event.Money
		units, err = event.Money(f.Units).Plus(event.Money(o.Units))
		f.Units = int64(units)
	}
	f.Rows, f.Value = f.Rows+o.Rows, value
	return f, err
}

// Row is a figure under its key.
type Row struct {
	Key string `json:"key"`
	Figure
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

// Report returns up to limit rows of a dimension, by key. from is inclusive; more
// says whether there are more rows.
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

// Digest is what all rows of a dimension come to: their number, their sum, and
// SHA-256 over lines "key TAB rows TAB units TAB thousandths LF" by key.
type Digest struct {
	By   string `json:"by"`
	Keys int    `json:"keys"`
	Figure
	SHA256 string `json:"sha256"`
}

// Digest reads all rows of a dimension.
func (v Sales) Digest(ctx context.Context, tx kv.Tx, dimension string) (Digest, error) {
	d := Digest{By: dimension}
	h := sha256.New()
	for e, err := range v.figures(dimension).All(ctx, tx, "") {
		if err != nil {
			return d, err
		}
		fmt.Fprintf(h, "%s\t%d\t%d\t%d\n", e.Key, e.Value.Rows, e.Value.Units, int64(e.Value.Value))
		d.Keys++
		if d.Figure, err = d.Figure.Plus(e.Value); err != nil {
			return d, err
		}
	}
	d.SHA256 = hex.EncodeToString(h.Sum(nil))
	return d, nil
}

// Routes builds the read model, each batch of events with one read and one write
// for each key that it touches.
func (v Sales) Routes() []follow.Route[kv.Tx] {
	return []follow.Route[kv.Tx]{follow.Batch(v.apply,
		event.OrderPlaced{}.EventType(), event.OrderConfirmed{}.EventType(), event.OrderRejected{}.EventType(), event.OrderPaid{}.EventType(),
		event.OrderCancelled{}.EventType(), event.OrderReturned{}.EventType(), event.StockAdjusted{}.EventType(), event.LedgerAdjusted{}.EventType())}
}

func (v Sales) apply(ctx context.Context, tx kv.Tx, rs []freehold.Recorded) error {
	var b batch
	for i := range rs {
		if err := b.add(&rs[i]); err != nil {
			return fmt.Errorf("%s at %s: %w", rs[i].Type, rs[i].At, err)
		}
	}
	if err := kv.Warm(ctx, tx, v.keys(&b)); err != nil {
		return err
	}
	for d, keys := range b.figures {
		table := v.figures(Dimensions[d])
		for key, f := range keys {
			if err := change(ctx, tx, table, key, *f); err != nil {
				return err
			}
		}
	}
	if b.summary == (Summary{}) {
		return nil
	}
	sum, err := v.Summary(ctx, tx)
	if err != nil {
		return err
	}
	if sum, err = sum.plus(b.summary); err != nil {
		return err
	}
	return v.summary().Put(ctx, tx, "", sum)
}

// keys yields what a batch is added to.
func (v Sales) keys(b *batch) iter.Seq[string] {
	return func(yield func(string) bool) {
		for d, keys := range b.figures {
			for key := range keys {
				if !yield(v.ns + Dimensions[d] + "/" + key) {
					return
				}
			}
		}
		yield(v.ns + "summary/")
	}
}

// change adds to the figure at a key. A figure that becomes nothing is gone.
func change(ctx context.Context, tx kv.Tx, table kv.Table[Figure], key string, by Figure) error {
	was, _, err := table.Get(ctx, tx, key)
	if err != nil {
		return err
	}
	now, err := was.Plus(by)
	switch {
	case err != nil:
		return fmt.Errorf("%q: %w", key, err)
	case now == was:
		return nil
	case now == Figure{}:
		return table.Delete(ctx, tx, key)
	}
	return table.Put(ctx, tx, key, now)
}

// batch is what a set of events adds.
type batch struct {
	figures [len(Dimensions)]map[string]*Figure
	summary Summary
}

func (b *batch) add(r *freehold.Recorded) error {
	switch r.Type.Name {
	case "order.placed": // counted, not decoded
		b.summary.Placed++
		return nil
	case "order.paid":
		b.summary.Paid++
		return nil
	case "order.confirmed", "order.rejected", "order.cancelled", "order.returned", "stock.adjusted", "ledger.adjusted":
	default:
		return nil
	}
	decoded, err := r.Decode()
	if err != nil {
		return err
	}
	if err := b.summary.add(decoded); err != nil {
		return err
	}
	switch e := decoded.(type) {
	case event.OrderConfirmed:
		return b.count(e.Trade, e.Lines, 1, 1)
	case event.OrderCancelled:
		return b.count(e.Trade, e.Lines, -1, -1)
	case event.OrderReturned:
		return b.count(e.Trade, e.Lines, 1, -1)
	case event.StockAdjusted:
		return b.count(e.Trade, e.Lines, 1, 1)
	case event.LedgerAdjusted:
		return b.count(e.Trade, e.Lines, 1, 1)
	}
	return nil
}

// count adds lines under all keys they belong to, each as rows rows and with its
// units and value times sign: lines that come back are rows too, lines of a
// cancelled order are no rows any more.
func (b *batch) count(t event.Trade, lines []event.Line, rows, sign int64) error {
	var at time.Time
	var month, day string
	country, customer, invoice := b.figure(byCountry, t.Country), b.figure(byCustomer, t.Customer), b.figure(byInvoice, t.Reference)
	for i := range lines {
		l := &lines[i]
		sold := t.At
		if l.At != nil {
			sold = *l.At
		}
		if i == 0 || !sold.Equal(at) {
			at = sold
			month, day = at.UTC().Format("2006-01"), at.UTC().Format(time.DateOnly)
		}
		value, err := l.Price.Times(l.Quantity)
		if err != nil || l.Quantity == math.MinInt64 || value == math.MinInt64 {
			return fmt.Errorf("line %d: %w", i, event.ErrAmount)
		}
		f := Figure{rows, sign * l.Quantity, event.Money(sign) * value}
		for _, sum := range [...]*Figure{country, b.figure(byMonth, month), b.figure(byDay, day), customer, b.figure(bySKU, l.SKU), invoice} {
			if *sum, err = sum.Plus(f); err != nil {
				return fmt.Errorf("line %d: %w", i, err)
			}
		}
	}
	return nil
}

func (b *batch) figure(dimension int, key string) *Figure {
	if b.figures[dimension] == nil {
		b.figures[dimension] = map[string]*Figure{}
	}
	f := b.figures[dimension][key]
	if f == nil {
		f = &Figure{}
		b.figures[dimension][key] = f
	}
	return f
}
