package etcd

import (
	"context"
	"errors"
	"iter"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/internal/overlay"
	"github.com/freehold-go/freehold/journal"
	"github.com/freehold-go/freehold/kv"
)

// base is what a transaction stands on: the cluster at a head, and in an Update what
// the tail has pending.
type base struct {
	db     *DB
	ctx    context.Context // for calls: it ends when the writer gives the closure up
	at     head
	writer bool
	id     string
	now    time.Time
	events int
	warmed map[string]overlay.Write // what was read in one go: the cache may be that of another head
	failed error                    // the first of the members
}

var _ overlay.Base = (*base)(nil)

func (b *base) Value(key string) ([]byte, bool, error) {
	if w, known := b.warmed[key]; known {
		return slices.Clone(w.Value), !w.Deleted, nil
	}
	value, found, err := b.db.value(b.ctx, b.at, key)
	return value, found, b.noted(err)
}

// Warm reads keys in one go; see kv.Warm.
func (b *base) Warm(keys iter.Seq[string]) error {
	read, err := b.db.warm(b.ctx, b.at, keys)
	if b.warmed == nil {
		b.warmed = read
	} else {
		maps.Copy(b.warmed, read)
	}
	return b.noted(err)
}

func (b *base) Scan(lower, upper string, limit int) ([]kv.Item, bool, error) {
	items, more, err := b.db.scan(b.ctx, b.at.at, lower, upper, limit)
	return items, more, b.noted(err)
}

// noted keeps an error of the members: whatever the closure makes of it, it has not
// seen what is there.
func (b *base) noted(err error) error {
	if err != nil && b.failed == nil {
		b.failed = err
	}
	return err
}

func (b *base) Append(ctx context.Context, s freehold.StreamID, expect freehold.Expect, events []freehold.Event) (freehold.Version, error) {
	drafts, err := journal.Draft(ctx, b.db.types, b.id, b.events, b.now, events)
	if err != nil {
		return 0, err
	}
	b.events += len(drafts)
	b.db.guessing = expect == freehold.NoStream
	v, err := b.db.tail.Append(b.ctx, s, expect, drafts)
	b.db.guessing = false
	if err != nil && !errors.As(err, new(*freehold.Conflict)) && s.Validate() == nil {
		return v, b.noted(err)
	}
	return v, err
}

func (b *base) Stream(s freehold.StreamID, after freehold.Version) ([]freehold.Recorded, error) {
	rs, err := b.db.readStream(b.ctx, b.at, s, after, math.MaxInt)
	if err == nil && b.writer {
		for _, r := range b.db.tail.Pending(journal.Save{}) {
			if r.Stream == s && r.Version > after {
				rs = append(rs, r)
			}
		}
	}
	b.db.types.Bind(rs)
	return rs, b.noted(err)
}

func (b *base) Mark() freehold.Mark { return b.at.mark }
