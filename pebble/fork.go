package pebble

import (
	"context"
	"encoding/json"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/journal"
	"github.com/freehold-go/freehold/kv"
)

func (s store) Forks(ctx context.Context) (journal.Forks, error) { return follow.Forks(ctx, s.db) }

func (s store) PutFork(ctx context.Context, f journal.Fork) error {
	raw, err := json.Marshal(meta{Format: formatVersion, Source: s.db.name, Epoch: f.Epoch})
	if err != nil {
		return err
	}
	return follow.PutFork(ctx, s.db, f, func(_ context.Context, tx kv.Tx) error {
		if s.db.tail.Head().Epoch != f.Ended[0] {
			return freehold.ErrFenced
		}
		s.db.tail.Turn(f.Epoch)
		return tx.(*transaction).batch.Set([]byte{kindJournal}, raw, nil)
	})
}
