package billingdb

import (
	"context"
	"fmt"
	"strings"

	"github.com/freehold-go/freehold/shop/billing"
	"github.com/freehold-go/freehold/shop/event"
	"github.com/freehold-go/freehold/sqldb"
)

// books are the documents and ledger entries that one transaction adds, numbered
// without holes, and stored by flush.
type books struct {
	tx       sqldb.Tx
	locked   bool
	entry    int64                     // the last number given out
	numbers  map[string]billing.Number // the last ones, by kind of document
	invoices []*document
	credits  []*document
	entries  []posting
}

// document is an invoice or a credit note; order or ret may be empty for the latter.
type document struct {
	number     billing.Number
	order, ret string
	trade      event.Trade
	amount     event.Money
}

// posting is a ledger entry with its currency.
type posting struct {
	billing.Entry
	currency string
}

// lockBooks is held while numbers are drawn, so that they have no holes.
const lockBooks = "billing/books"

// lock waits until nobody else draws numbers, and reads the last one of the ledger.
func (b *books) lock(ctx context.Context) error {
	if b.locked {
		return nil
	}
	if err := b.tx.Lock(ctx, lockBooks); err != nil {
		return err
	}
	if err := b.tx.QueryRowContext(ctx, `SELECT COALESCE(MAX(entry), 0) FROM ledger_entry`).Scan(&b.entry); err != nil {
		return fmt.Errorf("billingdb: last ledger entry: %w", err)
	}
	b.locked, b.numbers = true, map[string]billing.Number{}
	return nil
}

// document gives a document the next number of the present series of its kind.
func (b *books) document(ctx context.Context, kind string, d *document) (billing.Number, error) {
	if err := b.lock(ctx); err != nil {
		return d.number, err
	}
	table, all := "invoice", &b.invoices
	if kind == billing.CreditSeries {
		table, all = "credit_note", &b.credits
	}
	last, known := b.numbers[kind]
	if !known {
		var err error
		if last.Series, err = b.series(ctx, kind); err != nil {
			return d.number, err
		}
		err = b.tx.QueryRowContext(ctx, `SELECT COALESCE(MAX(number), 0) FROM `+table+` WHERE series = $1`, last.Series).Scan(&last.N)
		if err != nil {
			return d.number, fmt.Errorf("billingdb: last number of %s: %w", last.Series, err)
		}
	}
	last.N++
	b.numbers[kind], d.number = last, last
	*all = append(*all, d)
	return d.number, nil
}

// series returns the series in which documents of a kind are numbered now. Each epoch
// of the journal has its own: a number that was sent out before the journal went
// back in time must not be given to another document. It is read anew in each
// transaction, because the one that began it may have been rolled back.
func (b *books) series(ctx context.Context, kind string) (string, error) {
	epoch := string(b.tx.Mark().Epoch)
	var name string
	var others int64
	err := b.tx.QueryRowContext(ctx, `
SELECT COALESCE(MAX(CASE WHEN epoch = $2 THEN series END), ''), COUNT(CASE WHEN epoch <> $2 THEN 1 END)
FROM document_series
WHERE kind = $1`, kind, epoch).Scan(&name, &others)
	if err != nil {
		return "", fmt.Errorf("billingdb: series of %s: %w", kind, err)
	}
	if name != "" {
		return name, nil
	}
	if name = kind; others > 0 || b.tx.Mark().Epoch.Forked() {
		// Not the next number: a database that is restored twice would count twice.
		name = kind + strings.ToUpper(epoch[:min(8, len(epoch))])
	}
	_, err = b.tx.ExecContext(ctx, `INSERT INTO document_series (kind, epoch, series) VALUES ($1, $2, $3)`, kind, epoch, name)
	if err != nil {
		return "", fmt.Errorf("billingdb: new series %s: %w", name, err)
	}
	return name, nil
}

// post adds entries behind the last one.
func (b *books) post(ctx context.Context, currency string, entries []billing.Entry) error {
	if len(entries) == 0 {
		return nil
	}
	if err := b.lock(ctx); err != nil {
		return err
	}
	for _, e := range entries {
		b.entries = append(b.entries, posting{e, currency})
	}
	return nil
}

var insertInvoices = newStatement(func(rows string) string {
	return `INSERT INTO invoice (series, number, order_id, reference, customer, country, currency, business_at, amount, issued_at)
` + rows
}, "TEXT", "BIGINT", "TEXT", "TEXT", "TEXT", "TEXT", "TEXT", "BIGINT", "BIGINT", "BIGINT")

var insertCredits = newStatement(func(rows string) string {
	return `INSERT INTO credit_note (series, number, order_id, return_id, reference, customer, country, currency, business_at, amount, issued_at)
` + rows
}, "TEXT", "BIGINT", "TEXT", "TEXT", "TEXT", "TEXT", "TEXT", "TEXT", "BIGINT", "BIGINT", "BIGINT")

var insertEntries = newStatement(func(rows string) string {
	return `INSERT INTO ledger_entry (entry, kind, debit, credit, amount, currency, document, posted_at)
` + rows
}, "BIGINT", "TEXT", "TEXT", "TEXT", "BIGINT", "TEXT", "TEXT", "BIGINT")

// flush stores what was added.
func (b *books) flush(ctx context.Context) error {
	at := b.tx.Now().UnixMicro()
	err := store(ctx, b.tx, insertInvoices, b.invoices, func(args []any, d *document) []any {
		t := &d.trade
		return append(args, d.number.Series, d.number.N, d.order, t.Reference, t.Customer, t.Country, t.Currency, t.At.UnixMicro(), int64(d.amount), at)
	}, stored)
	if err != nil {
		return fmt.Errorf("billingdb: invoices from %s of order %s on: %w", b.invoices[0].number, b.invoices[0].order, err)
	}
	err = store(ctx, b.tx, insertCredits, b.credits, func(args []any, d *document) []any {
		t := &d.trade
		return append(args, d.number.Series, d.number.N, d.order, d.ret, t.Reference, t.Customer, t.Country, t.Currency, t.At.UnixMicro(), int64(d.amount), at)
	}, stored)
	if err != nil {
		return fmt.Errorf("billingdb: credit notes from %s of order %q, return %q on: %w", b.credits[0].number, b.credits[0].order, b.credits[0].ret, err)
	}
	err = store(ctx, b.tx, insertEntries, b.entries, func(args []any, e posting) []any {
		b.entry++
		return append(args, b.entry, string(e.Kind), string(e.Debit), string(e.Credit), int64(e.Amount), e.currency, e.Document, at)
	}, stored)
	if err != nil {
		return fmt.Errorf("billingdb: ledger entries up to %d: %w", b.entry, err)
	}
	b.invoices, b.credits, b.entries = nil, nil, nil
	return nil
}
