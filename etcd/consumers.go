package etcd

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
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
	if known && (was.at == at || at.Position > was.at.Position) && time.Since(was.when) < db.opts.told {
		return nil
	}
	j := &job{frees: true} // the cut goes up to the lowest mark
	_, err := db.queue.Do(ctx, j, func(ctx context.Context) error {
		if at.Position < j.from.Position {
			return fmt.Errorf("etcd: %w", journal.Gone(db.name, at.Position, j.from.Position))
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

// Consumers lists what followers of this journal have told, and own followers' places.
func (s store) Consumers(ctx context.Context) (all []journal.Consumer, err error) {
	err = s.db.View(ctx, func(ctx context.Context, tx kv.Tx) error {
		all = nil
		k := s.db.Keeper(tx)
		places, err := follow.Places(ctx, k, s.db.name)
		if err != nil {
			return err
		}
		gone, err := retired(ctx, k)
		if err != nil {
			return err
		}
		for _, p := range places {
			name, foreign := strings.CutPrefix(p.Follower, consumerPrefix)
			all = append(all, journal.Consumer{Name: name, Mark: p.Mark, Own: !foreign, Retired: gone(p)})
		}
		slices.SortStableFunc(all, func(a, b journal.Consumer) int {
			if a.Retired != b.Retired {
				if a.Retired {
					return 1
				}
				return -1
			}
			return cmp.Compare(a.Mark.Position, b.Mark.Position)
		})
		return nil
	})
	return all, err
}

// Unregister forgets a consumer in another service.
func (s store) Unregister(ctx context.Context, consumer string) error {
	err := s.change(ctx, func(ctx context.Context, tx kv.Tx, at func(follower string) *follow.Place) error {
		switch {
		case at(consumerPrefix+consumer) != nil:
			return overlay.DropMark(tx.(*overlay.Tx), consumerPrefix+consumer, s.db.name)
		case at(consumer) != nil && !strings.HasPrefix(consumer, consumerPrefix):
			return journal.ErrOwnFollower
		}
		return journal.ErrNoConsumer
	})
	s.db.cutter.told.mu.Lock()
	delete(s.db.cutter.told.by, consumer)
	s.db.cutter.told.mu.Unlock()
	return err
}

// retiredSpace keeps where own followers stood when they were declared gone for good.
const retiredSpace = "retired"

// Retire lets an own follower keep nothing for as long as it does not move.
func (s store) Retire(ctx context.Context, follower string) error {
	return s.change(ctx, func(ctx context.Context, tx kv.Tx, at func(follower string) *follow.Place) error {
		p := at(follower)
		if p == nil || strings.HasPrefix(follower, consumerPrefix) {
			return journal.ErrNoConsumer
		}
		raw, err := json.Marshal(p.Mark)
		if err != nil {
			return err
		}
		return s.db.Keeper(tx).Put(ctx, retiredSpace, follower, raw)
	})
}

// retired returns what reports whether a follower was declared gone for good where it
// stands.
func retired(ctx context.Context, k follow.Keeper) (gone func(p follow.Place) bool, err error) {
	at := map[string]freehold.Mark{}
	for item, err := range k.Scan(ctx, retiredSpace, "") {
		var m freehold.Mark
		if err == nil {
			err = json.Unmarshal(item.Value, &m)
		}
		if err != nil {
			return nil, fmt.Errorf("place of retired follower %s: %w", item.Key, err)
		}
		at[item.Key] = m
	}
	return func(p follow.Place) bool {
		m, found := at[p.Follower]
		return found && m.Position == p.Mark.Position && m.Chain == p.Mark.Chain
	}, nil
}

// change runs fn in a transaction that frees room, with what tells where a follower
// stands.
func (s store) change(ctx context.Context, fn func(ctx context.Context, tx kv.Tx, at func(follower string) *follow.Place) error) error {
	j := &job{frees: true}
	_, err := s.db.queue.Do(ctx, j, func(ctx context.Context) error {
		places, err := follow.Places(ctx, s.db.Keeper(j.tx), s.db.name)
		if err != nil {
			return err
		}
		return fn(ctx, j.tx, func(follower string) *follow.Place {
			for i := range places {
				if places[i].Follower == follower {
					return &places[i]
				}
			}
			return nil
		})
	})
	return err
}
