package etcd

import (
	"context"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/journal"
	"github.com/freehold-go/freehold/kv"
)

func (s store) Forks(ctx context.Context) (journal.Forks, error) { return follow.Forks(ctx, s.db) }

// PutFork begins the epoch with the head that the commit writes, so that every process
// learns it with the head.
func (s store) PutFork(ctx context.Context, f journal.Fork) error {
	return follow.PutFork(ctx, s.db, f, func(context.Context, kv.Tx) error {
		if s.db.tail.Head().Epoch != f.Ended[0] {
			return freehold.ErrFenced
		}
		s.db.tail.Turn(f.Epoch)
		return nil
	})
}
