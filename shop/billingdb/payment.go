package billingdb

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/freehold-go/freehold/shop/billing"
	"github.com/freehold-go/freehold/sqldb"
)

const paymentColumns = `order_id, reference, customer, country, currency, business_at, placed, total, simulate,
	confirmed, amount, ended, hold, captured, voided, reason, call, called, expires_at, refunds, revision, changed_at`

// insertPayments stores payments of which nothing is stored yet, and leaves the others
// as they are.
var insertPayments = newStatement(func(rows string) string {
	return `INSERT INTO payment (` + paymentColumns + `)
` + rows + `
ON CONFLICT (order_id) DO NOTHING`
}, "TEXT", "TEXT", "TEXT", "TEXT", "TEXT", "BIGINT", "BOOLEAN", "BIGINT", "TEXT", "BOOLEAN", "BIGINT", "TEXT", "TEXT",
	"BIGINT", "BIGINT", "TEXT", "TEXT", "BOOLEAN", "BIGINT", "BIGINT", "BIGINT", "BIGINT")

func (b *batch) inserted(args []any, h *held) []any {
	return b.facts(append(args, h.p.Order), h)
}

// facts appends what stands behind the key of a payment.
func (b *batch) facts(args []any, h *held) []any {
	p, t := &h.p, &h.p.Trade
	return append(args, t.Reference, t.Customer, t.Country, t.Currency, t.At.UnixMicro(),
		p.Placed, int64(p.Total), p.Simulate, p.Confirmed, int64(p.Amount), p.Ended, string(p.Hold), int64(p.Captured), int64(p.Voided),
		p.Reason, p.Call, p.Called, claimable(p), int64(len(p.Refunds)), h.next, b.tx.Now().UnixMicro())
}

const selectPayment = `
SELECT reference, customer, country, currency, business_at, placed, total, simulate,
	confirmed, amount, ended, hold, captured, voided, reason, call, called, expires_at, refunds, revision
FROM payment
WHERE order_id = $1`

// load reads a payment and its revision. found is false if nothing is stored; p is
// then the payment of which nothing has arrived.
func load(ctx context.Context, tx sqldb.Tx, order string) (p *billing.Payment, revision int64, found bool, err error) {
	p = &billing.Payment{Order: order}
	t := &p.Trade
	var at, expires, refunds int64
	err = tx.QueryRowContext(ctx, selectPayment, order).Scan(&t.Reference, &t.Customer, &t.Country, &t.Currency, &at,
		&p.Placed, (*int64)(&p.Total), &p.Simulate, &p.Confirmed, (*int64)(&p.Amount), &p.Ended, (*string)(&p.Hold),
		(*int64)(&p.Captured), (*int64)(&p.Voided), &p.Reason, &p.Call, &p.Called, &expires, &refunds, &revision)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return p, 0, false, nil
	case err != nil:
		return nil, 0, false, fmt.Errorf("billingdb: read payment %s: %w", order, err)
	}
	t.At = fromMicro(at)
	if expires > 0 {
		p.ExpiresAt = fromMicro(expires)
	}
	if refunds > 0 {
		p.Refunds, err = loadRefunds(ctx, tx, order)
	}
	return p, revision, true, err
}

// updatePayments stores payments that are stored at their revisions, and leaves the
// others as they are.
var updatePayments = newStatement(func(rows string) string {
	return `UPDATE payment
SET reference = v.column3, customer = v.column4, country = v.column5, currency = v.column6, business_at = v.column7, placed = v.column8,
	total = v.column9, simulate = v.column10, confirmed = v.column11, amount = v.column12, ended = v.column13, hold = v.column14,
	captured = v.column15, voided = v.column16, reason = v.column17, call = v.column18, called = v.column19, expires_at = v.column20,
	refunds = v.column21, revision = v.column22, changed_at = v.column23
FROM (` + rows + `) AS v
WHERE payment.order_id = v.column1
	AND payment.revision = v.column2`
}, "TEXT", "BIGINT", "TEXT", "TEXT", "TEXT", "TEXT", "BIGINT", "BOOLEAN", "BIGINT", "TEXT", "BOOLEAN", "BIGINT", "TEXT", "TEXT",
	"BIGINT", "BIGINT", "TEXT", "TEXT", "BOOLEAN", "BIGINT", "BIGINT", "BIGINT", "BIGINT")

func (b *batch) updated(args []any, h *held) []any {
	return b.facts(append(args, h.p.Order, h.revision), h)
}

// claimable is until when the hold waits to be claimed, 0 if it does not.
func claimable(p *billing.Payment) int64 {
	if until, waits := p.Unclaimed(); waits {
		return until.UnixMicro()
	}
	return 0
}

func loadRefunds(ctx context.Context, tx sqldb.Tx, order string) ([]billing.Refund, error) {
	rows, err := tx.QueryContext(ctx, `
SELECT return_id, asked, amount, state
FROM refund
WHERE order_id = $1
ORDER BY place`, order)
	if err != nil {
		return nil, fmt.Errorf("billingdb: read refunds of %s: %w", order, err)
	}
	defer rows.Close()
	var refunds []billing.Refund
	for rows.Next() {
		var r billing.Refund
		if err := rows.Scan(&r.Return, (*int64)(&r.Asked), (*int64)(&r.Amount), (*string)(&r.State)); err != nil {
			return nil, fmt.Errorf("billingdb: read refunds of %s: %w", order, err)
		}
		refunds = append(refunds, r)
	}
	return refunds, rows.Err()
}

func saveRefunds(ctx context.Context, tx sqldb.Tx, p *billing.Payment) error {
	for i, r := range p.Refunds {
		_, err := tx.ExecContext(ctx, `
INSERT INTO refund (order_id, return_id, place, asked, amount, state)
VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (order_id, return_id) DO UPDATE SET amount = excluded.amount, state = excluded.state`,
			p.Order, r.Return, int64(i), int64(r.Asked), int64(r.Amount), string(r.State))
		if err != nil {
			return fmt.Errorf("billingdb: save refund of %s: %w", p.Order, err)
		}
	}
	return nil
}

func fromMicro(us int64) time.Time { return time.UnixMicro(us).UTC() }
