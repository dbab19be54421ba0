package memory

import (
	"context"
	"maps"
	"slices"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/journal"
)

// store reads the journal for package journal.
type store struct{ db *DB }

var _ journal.Store = store{}

func (s store) Source() freehold.Source { return s.db.name }

func (s store) Bounds(context.Context) (first, head freehold.Mark, err error) {
	now := s.db.disk.snapshot()
	return freehold.Mark{Source: s.db.name, Epoch: now.epoch}, now.head(s.db.name), nil
}

func (s store) Read(_ context.Context, after freehold.Position, limit int) ([]freehold.Recorded, error) {
	events := s.db.disk.snapshot().events
	events = events[min(int(after), len(events)):]
	return slices.Clone(events[:min(limit, len(events))]), nil
}

func (s store) ReadStream(_ context.Context, id freehold.StreamID, after freehold.Version, limit int) ([]freehold.Recorded, error) {
	rs := ofStream(s.db.disk.snapshot().events, id, after)
	return rs[:min(limit, len(rs))], nil
}

func (s store) Streams(_ context.Context, after freehold.StreamID, limit int) ([]journal.StreamInfo, error) {
	streams := s.db.disk.snapshot().streams
	var all []journal.StreamInfo
	for _, id := range slices.Sorted(maps.Keys(streams)) {
		if id > after && len(all) < limit {
			all = append(all, journal.StreamInfo{Stream: id, Version: streams[id]})
		}
	}
	return all, nil
}

func (s store) Wait(ctx context.Context, after freehold.Position) error {
	for {
		s.db.disk.mu.RLock()
		n, news := len(s.db.disk.events), s.db.disk.news
		s.db.disk.mu.RUnlock()
		if n > int(after) {
			return nil
		}
		select {
		case <-news:
		case <-s.db.queue.Done():
			return freehold.ErrClosed
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s store) Incarnations(context.Context) ([]journal.Incarnation, error) {
	return slices.Clone(s.db.disk.snapshot().incarnations), nil
}
