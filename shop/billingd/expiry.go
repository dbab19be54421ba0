package billingd

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/shop/billingdb"
	"github.com/freehold-go/freehold/sqldb"
)

// expiry voids holds that nobody has claimed in time. Deadlines are in the
// database, so a restart forgets none.
type expiry struct {
	db    freehold.DB[sqldb.Tx]
	store *billingdb.Store
	log   *slog.Logger
	look  time.Duration // how often to look for new deadlines; 0 is a minute
}

// expireBatch is how many holds are given up in one transaction.
const expireBatch = 256

// Run gives up holds until ctx ends.
func (x *expiry) Run(ctx context.Context) error {
	look := x.look
	if look <= 0 {
		look = time.Minute
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		next, err := x.pass(ctx, time.Now())
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, freehold.ErrLatched), errors.Is(err, freehold.ErrClosed):
			return err
		case err != nil:
			x.log.Warn("expired holds not voided yet", "error", err)
		}
		wait := look
		if !next.IsZero() {
			wait = min(wait, max(time.Until(next), 0))
		}
		timer.Reset(wait)
	}
}

// pass gives up what has expired and returns the next deadline.
func (x *expiry) pass(ctx context.Context, now time.Time) (next time.Time, err error) {
	for {
		err := x.db.View(ctx, func(ctx context.Context, tx sqldb.Tx) (err error) {
			next, err = billingdb.NextExpiry(ctx, tx)
			return err
		})
		if err != nil || next.IsZero() || next.After(now) {
			return next, err
		}
		if _, err := x.db.Update(ctx, func(ctx context.Context, tx sqldb.Tx) error {
			_, err := x.store.Expire(ctx, tx, now, expireBatch)
			return err
		}); err != nil {
			return time.Time{}, err
		}
	}
}
