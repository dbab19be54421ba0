package billingdb

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/shop/billing"
	"github.com/freehold-go/freehold/shop/event"
	"github.com/freehold-go/freehold/sqldb"
)

// ErrOtherBody is returned for a command whose key has been used for another one.
var ErrOtherBody = errors.New("billingdb: this idempotency key was used with another body")

// Adjust posts a ledger adjustment. digest identifies the command's content: the
// same id with the same digest changes nothing and is reported as not fresh, with
// another digest it is [ErrOtherBody].
func (s *Store) Adjust(ctx context.Context, tx sqldb.Tx, a billing.Adjustment, digest string) (fresh bool, err error) {
	b := books{tx: tx}
	if err := b.lock(ctx); err != nil {
		return false, err
	}
	var known string
	switch err := tx.QueryRowContext(ctx, `SELECT digest FROM adjustment WHERE adjustment_id = $1`, a.ID).Scan(&known); {
	case err == nil && known == digest:
		return false, nil
	case err == nil:
		return false, fmt.Errorf("adjustment %s: %w", a.ID, ErrOtherBody)
	case !errors.Is(err, sql.ErrNoRows):
		return false, fmt.Errorf("billingdb: adjustment %s: %w", a.ID, err)
	}
	lines, err := json.Marshal(a.Lines)
	if err != nil {
		return false, fmt.Errorf("billingdb: adjustment %s: %w", a.ID, err)
	}
	_, err = tx.ExecContext(ctx, `
INSERT INTO adjustment (number, adjustment_id, digest, reference, customer, country, currency, business_at, lines, amount, posted_at)
VALUES ((SELECT COALESCE(MAX(number), 0) + 1 FROM adjustment), $1, $2, $3, $4, $5, $6, $7, $8, $9, $10)`,
		a.ID, digest, a.Reference, a.Customer, a.Country, a.Currency, a.At.UnixMicro(), string(lines), int64(a.Amount), tx.Now().UnixMicro())
	if err != nil {
		return false, fmt.Errorf("billingdb: adjustment %s: %w", a.ID, err)
	}
	entries, err := billing.Post(billing.KindAdjustment, a.Amount, a.ID)
	if err != nil {
		return false, err
	}
	if err := b.post(ctx, a.Currency, entries); err != nil {
		return false, err
	}
	if err := b.flush(ctx); err != nil {
		return false, err
	}
	_, err = tx.Append(ctx, freehold.Stream("adjustment", a.ID), freehold.NoStream, event.LedgerAdjusted{
		Adjustment: a.ID, Trade: a.Trade, Body: digest, Lines: a.Lines,
	})
	return true, err
}
