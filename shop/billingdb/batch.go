package billingdb

import (
	"context"
	"fmt"
	"math/rand/v2"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/shop/billing"
	"github.com/freehold-go/freehold/shop/event"
	"github.com/freehold-go/freehold/sqldb"
)

// batch is what the facts of one transaction change. It keeps payments in memory
// and stores them, documents and ledger entries at its end, many rows with each
// statement: on a database behind a network a statement costs a round trip, and one
// for each of a payment's facts was most of what an order cost.
type batch struct {
	s        *Store
	tx       sqldb.Tx
	payments map[string]*held
	order    []*held // those of payments that change, in the order of their first change
	books    books
}

// held is a payment in the hands of a batch.
type held struct {
	p        billing.Payment
	stored   *billing.Payment // as it is in the database, nil if it is not there
	revision int64            // of what is stored
	next     int64            // of what flush stores
	sure     bool             // read or locked in this transaction, not remembered or guessed
	changed  bool
}

func (s *Store) batch(tx sqldb.Tx) *batch {
	return &batch{s: s, tx: tx, payments: map[string]*held{}, books: books{tx: tx}}
}

// fact is something that a payment learns.
type fact func(*billing.Payment) (billing.Change, error)

// change lets one fact change the payment of an order, and appends the events that
// it leads to. fresh says that nothing is stored yet, probably: that saves a read.
func (b *batch) change(ctx context.Context, order string, fresh bool, f fact) error {
	h, err := b.hold(ctx, order, fresh)
	if err != nil {
		return err
	}
	next := clone(&h.p)
	c, err := f(&next)
	if (err != nil || !c.New) && !h.sure && !h.changed {
		// That the fact changes nothing is nothing that flush could find to be wrong.
		if err := b.load(ctx, h); err != nil {
			return err
		}
		next = clone(&h.p)
		c, err = f(&next)
	}
	if err != nil || !c.New {
		return err
	}
	h.p = next
	if !h.changed {
		h.changed = true
		b.order = append(b.order, h)
	}
	return b.write(ctx, &h.p, c)
}

// hold returns the payment of an order: as this transaction has it, as it was last
// written, as it is stored, or one of which nothing has arrived.
func (b *batch) hold(ctx context.Context, order string, fresh bool) (*held, error) {
	if h := b.payments[order]; h != nil {
		return h, nil
	}
	if err := b.tx.Lock(ctx, paymentLock(order)); err != nil {
		return nil, err
	}
	h := &held{p: billing.Payment{Order: order}}
	b.payments[order] = h
	p, revision, known, doubted := b.s.recent.get(order)
	switch {
	case known:
		h.p, h.revision = p, revision
		stored := clone(&p)
		h.stored = &stored
	case doubted || !fresh:
		return h, b.load(ctx, h)
	}
	return h, nil
}

// load reads what is stored.
func (b *batch) load(ctx context.Context, h *held) error {
	p, revision, found, err := load(ctx, b.tx, h.p.Order)
	if err != nil {
		return err
	}
	h.p, h.stored, h.revision, h.sure = *p, nil, revision, true
	if found {
		stored := clone(p)
		h.stored = &stored
	}
	return nil
}

// write issues the documents, posts the entries and appends the events of a change.
func (b *batch) write(ctx context.Context, p *billing.Payment, c billing.Change) error {
	events := c.Events
	if c.Invoice != nil {
		issued, err := b.issueInvoice(ctx, p, *c.Invoice)
		if err != nil {
			return err
		}
		events = append(events, issued)
	}
	if err := b.books.post(ctx, p.Trade.Currency, c.Entries); err != nil {
		return err
	}
	for _, credit := range c.Credits {
		issued, err := b.issueCredit(ctx, p.Order, &p.Trade, credit)
		if err != nil {
			return err
		}
		events = append(events, issued)
	}
	if c.Call != nil {
		events = append(events, *c.Call)
	}
	if len(events) == 0 {
		return nil
	}
	_, err := b.tx.Append(ctx, billing.Stream(p.Order), freehold.Any, events...)
	return err
}

// flush stores what has changed. What was remembered or guessed is believed only if
// the database agrees: by the revision that it was remembered at, which no two
// changes share, or by its absence. If it does not, the transaction must not commit;
// the next attempt reads what is stored.
func (b *batch) flush(ctx context.Context) error {
	var inserted, updated []*held
	for _, h := range b.order {
		h.next = rand.Int64()
		if h.stored == nil {
			inserted = append(inserted, h)
		} else {
			updated = append(updated, h)
		}
	}
	agreed := func(some []*held, stored int64) error {
		if missing := int64(len(some)) - stored; missing > 0 {
			b.s.recent.doubt(some)
			return fmt.Errorf("%d of %d payments from %s on were changed by another transaction: the batch runs again", missing, len(some), some[0].p.Order)
		}
		return nil
	}
	if err := store(ctx, b.tx, insertPayments, inserted, b.inserted, agreed); err != nil {
		return fmt.Errorf("billingdb: new payments: %w", err)
	}
	if err := store(ctx, b.tx, updatePayments, updated, b.updated, agreed); err != nil {
		return fmt.Errorf("billingdb: payments: %w", err)
	}
	for _, h := range b.order {
		if err := saveRefunds(ctx, b.tx, &h.p); err != nil {
			return err
		}
		b.s.recent.put(&h.p, h.next)
	}
	return b.books.flush(ctx)
}

func clone(p *billing.Payment) billing.Payment {
	c := *p
	c.Refunds = append([]billing.Refund(nil), p.Refunds...)
	return c
}

// issueInvoice numbers and posts the invoice of a charged order.
func (b *batch) issueInvoice(ctx context.Context, p *billing.Payment, amount event.Money) (event.InvoiceIssued, error) {
	n, err := b.books.document(ctx, billing.InvoiceSeries, &document{order: p.Order, trade: p.Trade, amount: amount})
	if err != nil {
		return event.InvoiceIssued{}, err
	}
	billed, err := billing.Post(billing.KindInvoice, amount, n.String())
	if err != nil {
		return event.InvoiceIssued{}, err
	}
	paid, err := billing.Post(billing.KindCapture, amount, n.String())
	if err != nil {
		return event.InvoiceIssued{}, err
	}
	return event.InvoiceIssued{Order: p.Order, Series: n.Series, Number: n.N, Amount: amount},
		b.books.post(ctx, p.Trade.Currency, append(billed, paid...))
}

// issueCredit numbers and posts a credit note; order or c.Return may be empty.
func (b *batch) issueCredit(ctx context.Context, order string, t *event.Trade, c billing.Credit) (event.CreditNoteIssued, error) {
	n, err := b.books.document(ctx, billing.CreditSeries, &document{order: order, ret: c.Return, trade: *t, amount: c.Amount})
	if err != nil {
		return event.CreditNoteIssued{}, err
	}
	entries, err := billing.Post(billing.KindCredit, c.Amount, n.String())
	if err != nil {
		return event.CreditNoteIssued{}, err
	}
	return event.CreditNoteIssued{Order: order, Return: c.Return, Series: n.Series, Number: n.N, Amount: c.Amount},
		b.books.post(ctx, t.Currency, entries)
}
