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

const insertPayment = `
INSERT INTO payment (order_id, reference, customer, country, currency, business_at, placed, total, simulate,
	confirmed, amount, ended, hold, captured, voided, reason, call, called, expires_at, refunds, revision, changed_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22)
ON CONFLICT (order_id) DO NOTHING`

// insert stores a payment of which nothing is stored yet. It reports false, and
// stores nothing, if something is.
func insert(ctx context.Context, tx sqldb.Tx, p *billing.Payment, revision int64) (bool, error) {
	t := &p.Trade
	res, err := tx.ExecContext(ctx, insertPayment, p.Order, t.Reference, t.Customer, t.Country, t.Currency, t.At.UnixMicro(),
		p.Placed, int64(p.Total), p.Simulate, p.Confirmed, int64(p.Amount), p.Ended, string(p.Hold), int64(p.Captured), int64(p.Voided),
		p.Reason, p.Call, p.Called, claimable(p), int64(len(p.Refunds)), revision, tx.Now().UnixMicro())
	if err != nil {
		return false, fmt.Errorf("billingdb: insert payment %s: %w", p.Order, err)
	}
	n, err := res.RowsAffected()
	if err != nil || n == 0 {
		return false, err
	}
	return true, saveRefunds(ctx, tx, p)
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

const updatePayment = `
UPDATE payment
SET confirmed = $3, amount = $4, ended = $5, hold = $6, captured = $7, voided = $8, reason = $9, call = $10, called = $11,
	expires_at = $12, refunds = $13, revision = $14, changed_at = $15
WHERE order_id = $1
	AND revision = $2`

const updateOrder = `
UPDATE payment
SET reference = $2, customer = $3, country = $4, currency = $5, business_at = $6, placed = $7, total = $8, simulate = $9
WHERE order_id = $1`

// update stores a payment that was read as was, at a revision. It reports false, and
// stores nothing, if the payment is not at that revision.
func update(ctx context.Context, tx sqldb.Tx, was, p *billing.Payment, from, to int64) (bool, error) {
	res, err := tx.ExecContext(ctx, updatePayment, p.Order, from, p.Confirmed, int64(p.Amount), p.Ended, string(p.Hold),
		int64(p.Captured), int64(p.Voided), p.Reason, p.Call, p.Called, claimable(p), int64(len(p.Refunds)), to, tx.Now().UnixMicro())
	if err != nil {
		return false, fmt.Errorf("billingdb: update payment %s: %w", p.Order, err)
	}
	n, err := res.RowsAffected()
	if err != nil || n == 0 {
		return false, err
	}
	if t := &p.Trade; was.Trade != *t || was.Placed != p.Placed {
		_, err := tx.ExecContext(ctx, updateOrder, p.Order, t.Reference, t.Customer, t.Country, t.Currency, t.At.UnixMicro(),
			p.Placed, int64(p.Total), p.Simulate)
		if err != nil {
			return false, fmt.Errorf("billingdb: update payment %s: %w", p.Order, err)
		}
	}
	return true, saveRefunds(ctx, tx, p)
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
