package billingdb

import (
	"context"
	"fmt"
	"sync"

	"github.com/freehold-go/freehold/shop/billing"
	"github.com/freehold-go/freehold/shop/event"
	"github.com/freehold-go/freehold/sqldb"
)

// seriesNames remembers the series of each epoch. It only ever holds what is in
// the database or derived from it alone, so a rollback does not make it wrong.
type seriesNames struct {
	mu    sync.Mutex
	names map[string]string // by kind and epoch
}

// of returns the series in which documents of a kind are numbered now. Each epoch
// of the journal has its own: a number that was sent out before the journal went
// back in time must not be given to another document.
func (s *seriesNames) of(ctx context.Context, tx sqldb.Tx, kind string) (string, error) {
	epoch := string(tx.Mark().Epoch)
	s.mu.Lock()
	name, ok := s.names[kind+" "+epoch]
	s.mu.Unlock()
	if ok {
		return name, nil
	}
	var others int64
	err := tx.QueryRowContext(ctx, `
SELECT COALESCE(MAX(CASE WHEN epoch = $2 THEN series END), ''), COUNT(CASE WHEN epoch <> $2 THEN 1 END)
FROM document_series
WHERE kind = $1`, kind, epoch).Scan(&name, &others)
	if err != nil {
		return "", fmt.Errorf("billingdb: series of %s: %w", kind, err)
	}
	if name != "" {
		s.mu.Lock()
		s.names[kind+" "+epoch] = name
		s.mu.Unlock()
		return name, nil
	}
	if name = kind; others > 0 {
		name = fmt.Sprintf("%s%d", kind, others+1)
	}
	_, err = tx.ExecContext(ctx, `INSERT INTO document_series (kind, epoch, series) VALUES ($1, $2, $3)`, kind, epoch, name)
	if err != nil {
		return "", fmt.Errorf("billingdb: new series %s: %w", name, err)
	}
	return name, nil // remembered when it is read back: this transaction may fail
}

// counters are the last numbers given out, as one transaction sees them.
type counters struct{ document, entry int64 }

func lastNumbers(ctx context.Context, tx sqldb.Tx, table, series string) (c counters, err error) {
	err = tx.QueryRowContext(ctx, `
SELECT (SELECT COALESCE(MAX(number), 0) FROM `+table+` WHERE series = $1),
	(SELECT COALESCE(MAX(entry), 0) FROM ledger_entry)`, series).Scan(&c.document, &c.entry)
	if err != nil {
		return c, fmt.Errorf("billingdb: last number of %s: %w", series, err)
	}
	return c, nil
}

const insertInvoice = `
INSERT INTO invoice (series, number, order_id, reference, customer, country, currency, business_at, amount, issued_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)`

// issueInvoice numbers, stores and posts the invoice of a charged order.
func (s *Store) issueInvoice(ctx context.Context, tx sqldb.Tx, p *billing.Payment, amount event.Money) (event.InvoiceIssued, error) {
	var none event.InvoiceIssued
	series, err := s.series.of(ctx, tx, billing.InvoiceSeries)
	if err != nil {
		return none, err
	}
	if err := tx.Lock(ctx, lockBooks); err != nil {
		return none, err
	}
	last, err := lastNumbers(ctx, tx, "invoice", series)
	if err != nil {
		return none, err
	}
	t := &p.Trade
	n := billing.Number{Series: series, N: last.document + 1}
	_, err = tx.ExecContext(ctx, insertInvoice, n.Series, n.N, p.Order, t.Reference, t.Customer, t.Country, t.Currency, t.At.UnixMicro(),
		int64(amount), tx.Now().UnixMicro())
	if err != nil {
		return none, fmt.Errorf("billingdb: invoice %s of order %s: %w", n, p.Order, err)
	}
	issued := event.InvoiceIssued{Order: p.Order, Series: n.Series, Number: n.N, Amount: amount}
	billed, err := billing.Post(billing.KindInvoice, amount, n.String())
	if err != nil {
		return none, err
	}
	paid, err := billing.Post(billing.KindCapture, amount, n.String())
	if err != nil {
		return none, err
	}
	return issued, post(ctx, tx, last.entry, t.Currency, append(billed, paid...))
}

const insertCredit = `
INSERT INTO credit_note (series, number, order_id, return_id, reference, customer, country, currency, business_at, amount, issued_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)`

// issueCredit numbers, stores and posts a credit note; order or c.Return may be empty.
func (s *Store) issueCredit(ctx context.Context, tx sqldb.Tx, order string, t *event.Trade, c billing.Credit) (event.CreditNoteIssued, error) {
	var none event.CreditNoteIssued
	series, err := s.series.of(ctx, tx, billing.CreditSeries)
	if err != nil {
		return none, err
	}
	if err := tx.Lock(ctx, lockBooks); err != nil {
		return none, err
	}
	last, err := lastNumbers(ctx, tx, "credit_note", series)
	if err != nil {
		return none, err
	}
	n := billing.Number{Series: series, N: last.document + 1}
	_, err = tx.ExecContext(ctx, insertCredit, n.Series, n.N, order, c.Return, t.Reference, t.Customer, t.Country, t.Currency, t.At.UnixMicro(),
		int64(c.Amount), tx.Now().UnixMicro())
	if err != nil {
		return none, fmt.Errorf("billingdb: credit note %s of order %q, return %q: %w", n, order, c.Return, err)
	}
	issued := event.CreditNoteIssued{Order: order, Return: c.Return, Series: n.Series, Number: n.N, Amount: c.Amount}
	entries, err := billing.Post(billing.KindCredit, c.Amount, n.String())
	if err != nil {
		return none, err
	}
	return issued, post(ctx, tx, last.entry, t.Currency, entries)
}

// postMore posts entries that belong to no new document.
func postMore(ctx context.Context, tx sqldb.Tx, currency string, entries []billing.Entry) error {
	if len(entries) == 0 {
		return nil
	}
	if err := tx.Lock(ctx, lockBooks); err != nil {
		return err
	}
	var last int64
	if err := tx.QueryRowContext(ctx, `SELECT COALESCE(MAX(entry), 0) FROM ledger_entry`).Scan(&last); err != nil {
		return fmt.Errorf("billingdb: last ledger entry: %w", err)
	}
	return post(ctx, tx, last, currency, entries)
}

// lockBooks is held while numbers are drawn, so that they have no holes.
const lockBooks = "billing/books"

const insertEntry = `
INSERT INTO ledger_entry (entry, kind, debit, credit, amount, currency, document, posted_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`

const insertTwoEntries = insertEntry + `,
	($9, $10, $11, $12, $13, $6, $14, $8)`

// post inserts entries behind the last one.
func post(ctx context.Context, tx sqldb.Tx, last int64, currency string, entries []billing.Entry) error {
	at := tx.Now().UnixMicro()
	for len(entries) > 0 {
		n, query, e := 1, insertEntry, entries[0]
		args := append(make([]any, 0, 14), last+1, string(e.Kind), string(e.Debit), string(e.Credit), int64(e.Amount), currency, e.Document, at)
		if len(entries) > 1 {
			n, query, e = 2, insertTwoEntries, entries[1]
			args = append(args, last+2, string(e.Kind), string(e.Debit), string(e.Credit), int64(e.Amount), e.Document)
		}
		if _, err := tx.ExecContext(ctx, query, args...); err != nil {
			return fmt.Errorf("billingdb: post ledger entry %d: %w", last+1, err)
		}
		last, entries = last+int64(n), entries[n:]
	}
	return nil
}
