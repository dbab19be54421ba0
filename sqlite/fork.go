package sqlite

import (
	"context"
	"errors"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/journal"
	"github.com/freehold-go/freehold/sqldb"
)

func (s store) Forks(ctx context.Context) (journal.Forks, error) { return follow.Forks(ctx, s.db) }

func (s store) PutFork(ctx context.Context, f journal.Fork) error {
	return follow.PutFork(ctx, s.db, f, func(ctx context.Context, tx sqldb.Tx) error {
		result, err := tx.ExecContext(ctx, `UPDATE freehold_journal SET epoch = $1 WHERE epoch = $2`, string(f.Epoch), string(f.Ended[0]))
		if err != nil {
			return err
		}
		if n, err := result.RowsAffected(); err != nil || n != 1 {
			return errors.Join(freehold.ErrFenced, err)
		}
		s.db.tail.Turn(f.Epoch)
		return nil
	})
}
