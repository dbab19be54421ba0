package etcd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/internal/overlay"
	"github.com/freehold-go/freehold/journal"
)

// store reads the journal for package journal.
type store struct{ db *DB }

var _ journal.Store = store{}

// at runs fn at the head, again if members have forgotten the revision meanwhile.
func (s store) at(ctx context.Context, fn func(h head) error) error {
	h, _, _, err := s.db.known()
	if err != nil {
		return err
	}
	if err = fn(h); !errors.Is(err, rpctypes.ErrCompacted) {
		return err
	}
	if h, err = s.db.refresh(ctx); err != nil {
		return err
	}
	return fn(h)
}

func (s store) Source() freehold.Source { return s.db.name }

func (s store) Bounds(context.Context) (first, last freehold.Mark, err error) {
	h, _, _, err := s.db.known()
	h.first.Epoch = h.mark.Epoch // a fork may have begun since
	return h.first, h.mark, err
}

// Refresh asks for the head, which another process may have moved.
func (s store) Refresh(ctx context.Context) error {
	_, err := s.db.refresh(ctx)
	return err
}

func (s store) Read(ctx context.Context, after freehold.Position, limit int) (rs []freehold.Recorded, err error) {
	err = s.at(ctx, func(h head) error {
		if rs = nil; after < h.first.Position {
			return fmt.Errorf("etcd: %w", journal.Gone(s.db.name, after, h.first.Position))
		}
		for from := after; len(rs) < limit && from < h.mark.Position; {
			all, err := s.db.chunks(ctx, h.at, from, min(limit-len(rs), 64))
			if err != nil || len(all) == 0 {
				return err
			}
			for _, r := range all { // the first commit may begin before
				if r.At.Position > after && len(rs) < limit {
					rs = append(rs, r)
				}
			}
			from = all[len(all)-1].At.Position
		}
		return nil
	})
	return rs, err
}

// chunks reads the events of up to limit commits, from that of the event behind a
// position on.
func (db *DB) chunks(ctx context.Context, at int64, after freehold.Position, limit int) (rs []freehold.Recorded, err error) {
	items, _, err := db.scan(ctx, at, numbered(kindEvents, int64(after)+1), overlay.Behind(kindEvents), limit)
	if err != nil {
		return nil, err
	}
	for _, item := range items {
		if rs, err = db.decodeEvents(rs, freehold.Position(number(item.Key[1:])), item.Value); err != nil {
			return nil, db.wrap(err)
		}
	}
	return rs, nil
}

func (s store) ReadStream(ctx context.Context, id freehold.StreamID, after freehold.Version, limit int) (rs []freehold.Recorded, err error) {
	err = s.at(ctx, func(h head) error {
		rs, err = s.db.readStream(ctx, h, id, after, limit)
		return err
	})
	return rs, err
}

// Streams seeks from each stream's first entry to its last and to the next stream.
func (s store) Streams(ctx context.Context, after freehold.StreamID, limit int) (all []journal.StreamInfo, err error) {
	err = s.at(ctx, func(h head) error {
		all = nil
		lower, upper := kindStream, overlay.Behind(kindStream)
		if after != "" {
			lower = kindStream + string(after) + "\x01"
		}
		for more := true; more; { // the limit is met at the first entry of one stream more
			page, pageMore, err := s.db.scan(ctx, h.at, lower, upper, 512)
			if err != nil {
				return err
			}
			for _, entry := range page {
				id, v, _ := streamOf(entry.Key)
				if n := len(all); n > 0 && all[n-1].Stream == id {
					all[n-1].Version = v
				} else if n < limit {
					all = append(all, journal.StreamInfo{Stream: id, Version: v})
				} else {
					return nil
				}
				lower = entry.Key + "\x00"
			}
			more = pageMore
		}
		return nil
	})
	return all, err
}

func (s store) Wait(ctx context.Context, after freehold.Position) error { return s.db.wait(ctx, after) }

func (s store) Incarnations(ctx context.Context) (all []journal.Incarnation, err error) {
	err = s.at(ctx, func(h head) error {
		all = nil
		for lower, more := kindIncarnation, true; more; {
			page, pageMore, err := s.db.scan(ctx, h.at, lower, overlay.Behind(kindIncarnation), 512)
			if err != nil {
				return err
			}
			for _, item := range page {
				var in journal.Incarnation
				if err := json.Unmarshal(item.Value, &in); err != nil {
					return s.db.wrap(err)
				}
				all = append(all, in)
				lower = item.Key + "\x00"
			}
			more = pageMore
		}
		return nil
	})
	return all, err
}
