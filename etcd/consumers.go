package etcd

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/internal/overlay"
	"github.com/freehold-go/freehold/journal"
	"github.com/freehold-go/freehold/kv"
)

// Consumers are followers of this journal in other services. The place that one has
// told is kept as a mark like those of own followers, under a name that none of these
// has, so that one look at the marks shows who still needs which events.
const consumerPrefix = "consumer:"

// told is what consumers have told this process. One that has moved on is not written
// down at once: its older mark keeps more than it needs.
type told struct {
	mu sync.Mutex
	by map[string]toldMark
}

type toldMark struct {
	at   freehold.Mark
	when time.Time
}

// Register keeps what stands behind a consumer's mark; see journal.Journal.
func (s store) Register(ctx context.Context, consumer string, at freehold.Mark) error {
	db, t := s.db, &s.db.cutter.told
	t.mu.Lock()
	was, known := t.by[consumer]
	t.mu.Unlock()
	if known && (was.at == at || at.Position > was.at.Position && time.Since(was.when) < db.opts.told) {
		return nil
	}
	j := &job{}
	_, err := db.queue.Do(ctx, j, func(ctx context.Context) error {
		if at.Position < j.from.Position {
			return gone(db.name, j.from)
		}
		k, name := db.Keeper(j.tx), consumerPrefix+consumer
		stored, err := k.Mark(ctx, name, db.name)
		if err != nil || stored == at && at.Position > 0 {
			return err
		}
		return k.Move(ctx, name, stored, at)
	})
	if err != nil {
		return fmt.Errorf("register consumer %s: %w", consumer, err)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.by == nil {
		t.by = map[string]toldMark{}
	}
	t.by[consumer] = toldMark{at, time.Now()}
	return nil
}

// Consumers lists what followers of this journal have told, and own followers' marks.
func (s store) Consumers(ctx context.Context) (all []journal.Consumer, err error) {
	err = s.db.View(ctx, func(ctx context.Context, tx kv.Tx) error {
		places, err := s.db.Keeper(tx).Marks(ctx)
		for _, p := range places {
			if p.Mark.Source == s.db.name {
				all = append(all, journal.Consumer{Name: strings.TrimPrefix(p.Follower, consumerPrefix), Mark: p.Mark})
			}
		}
		return err
	})
	return all, err
}

// Unregister forgets a consumer.
func (s store) Unregister(ctx context.Context, consumer string) error {
	_, err := s.db.Update(ctx, func(ctx context.Context, tx kv.Tx) error {
		return overlay.DropMark(tx.(*overlay.Tx), consumerPrefix+consumer, s.db.name)
	})
	s.db.cutter.told.mu.Lock()
	delete(s.db.cutter.told.by, consumer)
	s.db.cutter.told.mu.Unlock()
	return err
}
