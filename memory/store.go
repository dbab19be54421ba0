package memory

import (
	"context"
	"slices"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/journal"
	"github.com/freehold-go/freehold/kv"
)

// store reads the journal for package journal.
type store struct{ db *DB }

var _ journal.Store = store{}

func (s store) Source() freehold.Source { return s.db.name }

func (s store) Bounds(context.Context) (first, head freehold.Mark, err error) {
	now, err := s.db.disk.read(s.db)
	return freehold.Mark{Source: s.db.name, Epoch: now.epoch}, now.head(s.db.name), err
}

func (s store) Read(_ context.Context, after freehold.Position, limit int) ([]freehold.Recorded, error) {
	now, err := s.db.disk.read(s.db)
	rest := now.events[min(int(after), len(now.events)):]
	return now.present(slices.Clone(rest[:min(limit, len(rest))])), err
}

func (s store) ReadStream(_ context.Context, id freehold.StreamID, after freehold.Version, limit int) ([]freehold.Recorded, error) {
	now, err := s.db.disk.read(s.db)
	return now.stream(id, after, limit), err
}

func (s store) Streams(_ context.Context, after freehold.StreamID, limit int) ([]journal.StreamInfo, error) {
	now, err := s.db.disk.read(s.db)
	var all []journal.StreamInfo
	for id, v := range now.streams.from(string(after) + "\x00") {
		if len(all) == limit {
			break
		}
		all = append(all, journal.StreamInfo{Stream: freehold.StreamID(id), Version: v})
	}
	return all, err
}

func (s store) Wait(ctx context.Context, after freehold.Position) error {
	for {
		now, news, err := s.db.disk.watch(s.db)
		if err != nil || len(now.events) > int(after) {
			return err
		}
		select {
		case <-news:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s store) Incarnations(context.Context) ([]journal.Incarnation, error) {
	now, err := s.db.disk.read(s.db)
	return slices.Clone(now.incarnations), err
}

func (s store) Forks(ctx context.Context) (journal.Forks, error) { return follow.Forks(ctx, s.db) }

func (s store) PutFork(ctx context.Context, f journal.Fork) error {
	return follow.PutFork(ctx, s.db, f, func(_ context.Context, tx kv.Tx) error {
		return tx.(*transaction).write(func(now *state) error {
			if now.epoch != f.Ended[0] {
				return freehold.ErrFenced
			}
			now.epoch = f.Epoch
			s.db.tail.Turn(f.Epoch)
			return nil
		})
	})
}
