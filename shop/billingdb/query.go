package billingdb

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/freehold-go/freehold/shop/billing"
	"github.com/freehold-go/freehold/sqldb"
)

// ErrNotFound is returned by a read of something that Billing does not have.
var ErrNotFound = errors.New("billingdb: not found")

// Payment reads what is known of the payment of an order.
func Payment(ctx context.Context, tx sqldb.Tx, order string) (*billing.Payment, error) {
	p, _, found, err := load(ctx, tx, order)
	if err == nil && !found {
		err = fmt.Errorf("payment of order %s: %w", order, ErrNotFound)
	}
	return p, err
}

const selectInvoice = `
SELECT series, number, order_id, reference, customer, country, currency, business_at, amount, issued_at
FROM invoice
`

// Invoice reads an invoice by its number.
func Invoice(ctx context.Context, tx sqldb.Tx, n billing.Number) (billing.Invoice, error) {
	return one(ctx, tx, scanInvoice, "invoice "+n.String(), selectInvoice+`WHERE series = $1 AND number = $2`, n.Series, n.N)
}

// InvoiceOf reads the invoice of an order.
func InvoiceOf(ctx context.Context, tx sqldb.Tx, order string) (billing.Invoice, error) {
	return one(ctx, tx, scanInvoice, "invoice of order "+order, selectInvoice+`WHERE order_id = $1`, order)
}

// Invoices reads up to limit invoices behind a number, oldest first. The zero
// number begins with the first of the first series.
func Invoices(ctx context.Context, tx sqldb.Tx, after billing.Number, limit int) ([]billing.Invoice, error) {
	return many(ctx, tx, scanInvoice, "invoices", selectInvoice+`
WHERE (series, number) > ($1, $2)
ORDER BY series, number
LIMIT $3`, after.Series, after.N, limit)
}

func scanInvoice(row scanner) (v billing.Invoice, err error) {
	var n billing.Number
	var at, issued int64
	t := &v.Trade
	err = row.Scan(&n.Series, &n.N, &v.Order, &t.Reference, &t.Customer, &t.Country, &t.Currency, &at, (*int64)(&v.Amount), &issued)
	v.Number, t.At, v.Issued = n.String(), fromMicro(at), fromMicro(issued)
	return v, err
}

const selectCredit = `
SELECT series, number, order_id, return_id, reference, customer, country, currency, business_at, amount, issued_at
FROM credit_note
`

// CreditNotes reads up to limit credit notes behind a number, oldest first.
func CreditNotes(ctx context.Context, tx sqldb.Tx, after billing.Number, limit int) ([]billing.CreditNote, error) {
	return many(ctx, tx, scanCredit, "credit notes", selectCredit+`
WHERE (series, number) > ($1, $2)
ORDER BY series, number
LIMIT $3`, after.Series, after.N, limit)
}

// CreditNoteOf reads the credit note of a return.
func CreditNoteOf(ctx context.Context, tx sqldb.Tx, returned string) (billing.CreditNote, error) {
	return one(ctx, tx, scanCredit, "credit note of return "+returned, selectCredit+`WHERE return_id = $1`, returned)
}

// CreditNotesOf reads all credit notes of an order, oldest first.
func CreditNotesOf(ctx context.Context, tx sqldb.Tx, order string) ([]billing.CreditNote, error) {
	return many(ctx, tx, scanCredit, "credit notes of order "+order, selectCredit+`
WHERE return_id IN (SELECT return_id FROM refund WHERE order_id = $1)
	AND order_id = $1
ORDER BY series, number`, order)
}

func scanCredit(row scanner) (v billing.CreditNote, err error) {
	var n billing.Number
	var at, issued int64
	t := &v.Trade
	err = row.Scan(&n.Series, &n.N, &v.Order, &v.Return, &t.Reference, &t.Customer, &t.Country, &t.Currency, &at, (*int64)(&v.Amount), &issued)
	v.Number, t.At, v.Issued = n.String(), fromMicro(at), fromMicro(issued)
	return v, err
}

func hasCredit(ctx context.Context, tx sqldb.Tx, returned string) (bool, error) {
	var n int64
	err := tx.QueryRowContext(ctx, `SELECT COUNT(*) FROM credit_note WHERE return_id = $1 AND order_id = ''`, returned).Scan(&n)
	if err != nil {
		return false, fmt.Errorf("billingdb: credit note of return %s: %w", returned, err)
	}
	return n > 0, nil
}

// Posting is a ledger entry as it is stored.
type Posting struct {
	Number int64 `json:"entry"`
	billing.Entry
	Currency string    `json:"currency"`
	Posted   time.Time `json:"posted"`
}

// Entries reads up to limit ledger entries behind one, in the order in which they
// were posted.
func Entries(ctx context.Context, tx sqldb.Tx, after int64, limit int) ([]Posting, error) {
	return many(ctx, tx, func(row scanner) (v Posting, err error) {
		var at int64
		err = row.Scan(&v.Number, &v.Kind, &v.Debit, &v.Credit, (*int64)(&v.Amount), &v.Currency, &v.Document, &at)
		v.Posted = fromMicro(at)
		return v, err
	}, "ledger entries", `
SELECT entry, kind, debit, credit, amount, currency, document, posted_at
FROM ledger_entry
WHERE entry > $1
ORDER BY entry
LIMIT $2`, after, limit)
}

// NumberedAdjustment is a ledger adjustment as it is stored.
type NumberedAdjustment struct {
	Number int64 `json:"number"`
	billing.Adjustment
	Posted time.Time `json:"posted"`
}

const selectAdjustment = `
SELECT number, adjustment_id, reference, customer, country, currency, business_at, lines, amount, posted_at
FROM adjustment
`

// Adjustments reads up to limit ledger adjustments behind a number, oldest first.
func Adjustments(ctx context.Context, tx sqldb.Tx, after int64, limit int) ([]NumberedAdjustment, error) {
	return many(ctx, tx, scanAdjustment, "adjustments", selectAdjustment+`
WHERE number > $1
ORDER BY number
LIMIT $2`, after, limit)
}

func scanAdjustment(row scanner) (v NumberedAdjustment, err error) {
	var at, posted int64
	var lines string
	t := &v.Trade
	err = row.Scan(&v.Number, &v.ID, &t.Reference, &t.Customer, &t.Country, &t.Currency, &at, &lines, (*int64)(&v.Amount), &posted)
	if err == nil {
		err = json.Unmarshal([]byte(lines), &v.Lines)
	}
	t.At, v.Posted = fromMicro(at), fromMicro(posted)
	return v, err
}

// expired lists orders whose hold has run out unclaimed.
func expired(ctx context.Context, tx sqldb.Tx, now time.Time, limit int) ([]string, error) {
	return many(ctx, tx, func(row scanner) (order string, err error) {
		err = row.Scan(&order)
		return order, err
	}, "expired holds", `
SELECT order_id
FROM payment
WHERE expires_at > 0 AND expires_at <= $1
ORDER BY expires_at
LIMIT $2`, now.UnixMicro(), limit)
}

// NextExpiry is when the next unclaimed hold runs out; the zero time if there is none.
func NextExpiry(ctx context.Context, tx sqldb.Tx) (time.Time, error) {
	var at int64
	err := tx.QueryRowContext(ctx, `SELECT COALESCE(MIN(expires_at), 0) FROM payment WHERE expires_at > 0`).Scan(&at)
	if err != nil || at == 0 {
		return time.Time{}, err
	}
	return fromMicro(at), nil
}

type scanner interface{ Scan(...any) error }

func one[V any](ctx context.Context, tx sqldb.Tx, scan func(scanner) (V, error), what, query string, args ...any) (V, error) {
	v, err := scan(tx.QueryRowContext(ctx, query, args...))
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return v, fmt.Errorf("%s: %w", what, ErrNotFound)
	case err != nil:
		return v, fmt.Errorf("billingdb: read %s: %w", what, err)
	}
	return v, nil
}

func many[V any](ctx context.Context, tx sqldb.Tx, scan func(scanner) (V, error), what, query string, args ...any) ([]V, error) {
	rows, err := tx.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("billingdb: read %s: %w", what, err)
	}
	defer rows.Close()
	var all []V
	for rows.Next() {
		v, err := scan(rows)
		if err != nil {
			return nil, fmt.Errorf("billingdb: read %s: %w", what, err)
		}
		all = append(all, v)
	}
	return all, rows.Err()
}
