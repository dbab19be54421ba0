package follow

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"

	"github.com/freehold-go/freehold"
)

// An event whose handler kills the process must not be tried for ever. At each
// start the follower records where it stands, and at a clean stop that it stopped.
// A start that finds neither a clean stop nor progress since the start before
// goes on carefully: one event at a time, each with a durable count of starts
// written before its handler is called, until the batch that was in hand is
// passed. An event whose count is over Options.Starts is parked unseen. Events that no
// handler wants are not counted: they kill nobody.

// startRecord is what is stored for a follower and source.
type startRecord struct {
	Running bool              `json:"running"`
	At      freehold.Position `json:"at"` // the mark at the last start
	// Event and Count say how often the event at a position was begun.
	Event freehold.Position `json:"event,omitempty"`
	Count int               `json:"count,omitempty"`
}

const startsSpace = "starts"

// starts is the records of a follower, by source, and up to where to be careful.
type starts struct {
	mu      sync.Mutex
	records map[freehold.Source]startRecord
	until   map[freehold.Source]freehold.Position
}

func (st *starts) careful(s freehold.Source, place freehold.Position) bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	return place < st.until[s]
}

// batch is how many events may have been in hand when a process died, and how many may be
// passed over before the mark is stored.
func (s *databaseSink[T]) batch() freehold.Position {
	return freehold.Position(max(s.opts.Batch, 256))
}

func (s *databaseSink[T]) start(ctx context.Context, source freehold.Source) error {
	var rec startRecord
	var until freehold.Position
	err := s.keep(ctx, func(ctx context.Context, k Keeper) error {
		raw, found, err := k.Get(ctx, startsSpace, s.startKey(source))
		if err != nil {
			return err
		}
		rec, until = startRecord{}, 0
		if found {
			if err := json.Unmarshal(raw, &rec); err != nil {
				return fmt.Errorf("start record of %s: %w", s.follower, err)
			}
		}
		mark, _, err := placeOf(ctx, k, s.follower, source)
		if err != nil {
			return err
		}
		if found && rec.Running && rec.At == mark.Position {
			until = mark.Position + 2*s.batch() // what was passed over, and what was in hand
		}
		rec.Running, rec.At = true, mark.Position
		return s.putStart(ctx, k, source, rec)
	})
	if err != nil {
		return err
	}
	s.starts.mu.Lock()
	defer s.starts.mu.Unlock()
	if s.starts.records == nil {
		s.starts.records, s.starts.until = map[freehold.Source]startRecord{}, map[freehold.Source]freehold.Position{}
	}
	s.starts.records[source], s.starts.until[source] = rec, until
	return nil
}

func (s *databaseSink[T]) stop(ctx context.Context, source freehold.Source) error {
	s.starts.mu.Lock()
	rec := s.starts.records[source]
	s.starts.mu.Unlock()
	rec.Running = false
	if err := s.storePassed(ctx, source); err != nil {
		s.opts.Log.Debug("passes over some events again", "follower", s.follower, "source", source, "error", err)
	}
	return s.keep(ctx, func(ctx context.Context, k Keeper) error { return s.putStart(ctx, k, source, rec) })
}

// applyCounted counts the start on an event durably, and then applies it, or parks
// it if the process died on it too often.
func (s *databaseSink[T]) applyCounted(ctx context.Context, from freehold.Mark, r freehold.Recorded) error {
	source := from.Source
	s.starts.mu.Lock()
	rec := s.starts.records[source]
	s.starts.mu.Unlock()
	if rec.Event != r.At.Position {
		rec.Event, rec.Count = r.At.Position, 0
	}
	if rec.Count >= s.opts.Starts {
		cause := fmt.Errorf("the process ended %d times while this event was applied", rec.Count)
		return s.park(ctx, from, r, cause, rec.Count)
	}
	rec.Count++ // as stored: a process that lives to try again has not died of it
	err := s.keep(ctx, func(ctx context.Context, k Keeper) error { return s.putStart(ctx, k, source, rec) })
	if err != nil {
		return err
	}
	_, err = s.applyAlone(ctx, from, r)
	return err
}

func (s *databaseSink[T]) keep(ctx context.Context, fn func(context.Context, Keeper) error) error {
	_, err := s.db.Update(context.WithoutCancel(ctx), func(ctx context.Context, tx T) error { return fn(ctx, s.db.Keeper(tx)) })
	return err
}

func (s *databaseSink[T]) putStart(ctx context.Context, k Keeper, source freehold.Source, rec startRecord) error {
	raw, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	return k.Put(ctx, startsSpace, s.startKey(source), raw)
}

func (s *databaseSink[T]) startKey(source freehold.Source) string {
	return s.follower + "\x1f" + string(source)
}
