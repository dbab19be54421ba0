package follow

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/internal/mutant"
	"github.com/freehold-go/freehold/journal"
)

// ForkSpace keeps the forks of a database's own journal, by [ForkKey].
const ForkSpace = "fork"

// ForkKey is the key of a fork by its number.
func ForkKey(number int) string { return fmt.Sprintf("%08d", number) }

// Forks reads the forks of a database's own journal. Engines call it.
func Forks[T freehold.Tx](ctx context.Context, db DB[T]) (all journal.Forks, err error) {
	err = db.View(ctx, func(ctx context.Context, tx T) error {
		all = nil
		for item, err := range db.Keeper(tx).Scan(ctx, ForkSpace, "") {
			if err != nil {
				return err
			}
			var f journal.Fork
			if err := json.Unmarshal(item.Value, &f); err != nil {
				return fmt.Errorf("fork %s: %w", item.Key, err)
			}
			all = append(all, f)
		}
		return nil
	})
	return all, err
}

// PutFork stores a fork of a database's own journal under its number. Engines call it;
// begin makes a new fork's epoch the present one, as part of tx, if the present one is
// the first that it ends, or fails with freehold.ErrFenced.
func PutFork[T freehold.Tx](ctx context.Context, db DB[T], f journal.Fork, begin func(ctx context.Context, tx T) error) error {
	raw, err := json.Marshal(f)
	if err != nil {
		return err
	}
	key := ForkKey(f.Number)
	return Do(ctx, db, func(ctx context.Context, tx T) error {
		k := db.Keeper(tx)
		was, found, err := k.Get(ctx, ForkSpace, key)
		if err != nil {
			return err
		}
		if !found {
			if mutant.KeepEpoch {
				return k.Put(ctx, ForkSpace, key, raw)
			}
			if err := begin(ctx, tx); err != nil {
				return err
			}
			return k.Put(ctx, ForkSpace, key, raw)
		}
		var there journal.Fork
		if err := json.Unmarshal(was, &there); err != nil {
			return fmt.Errorf("fork %s: %w", key, err)
		}
		if there.Epoch != f.Epoch {
			return fmt.Errorf("fork %s is that of epoch %s: %w", key, there.Epoch, freehold.ErrFenced)
		}
		return k.Put(ctx, ForkSpace, key, raw)
	})
}

// Seen is how far a follower's effects reach in a source, and which openings of the
// source's journal it has applied events of: what a source that may have gone back in
// time asks for.
type Seen struct {
	Follower     string        `json:"follower"`
	Mark         freehold.Mark `json:"mark"`
	Incarnations []string      `json:"incarnations,omitempty"`
}

// Seen reads what the follower has seen of a source, as it is stored.
func (f *Follower) Seen(ctx context.Context, s freehold.Source) (Seen, error) {
	if _, err := f.feedOf(s); err != nil {
		return Seen{}, err
	}
	if sink, ok := f.sink.(forkable); ok {
		return sink.seen(ctx, s)
	}
	return Seen{Follower: f.name, Mark: freehold.Mark{Source: s}}, nil // in memory: nothing that lasts
}

// forkable is a sink whose mark an operator may set to where histories part.
type forkable interface {
	seen(ctx context.Context, s freehold.Source) (Seen, error)
	settle(ctx context.Context, d Decision) error
	decisions(ctx context.Context, s freehold.Source) ([]Decision, error)
}

// Orphan is an event that a follower has applied and its source does not have any more.
type Orphan struct {
	Position freehold.Position `json:"position"`
	ID       string            `json:"id,omitempty"`
	Type     string            `json:"type"`
	Stream   freehold.StreamID `json:"stream,omitempty"` // empty for internal events
	Time     time.Time         `json:"time,omitzero"`
}

// Lost is what a follower has applied and its source does not have any more: the
// positions behind Base up to Mark. Orphans tells them as far as somebody still
// holds them. Or, where Base stands above Mark, it is what the follower has not applied
// and the source has cut: the positions behind Mark up to Base.
type Lost struct {
	Follower string        `json:"follower"`
	Mark     freehold.Mark `json:"mark"`
	Base     freehold.Mark `json:"base"`
	Orphans  []Orphan      `json:"orphans"`
	Note     string        `json:"note,omitempty"` // why orphans are missing in the list
}

// forks is a source that can say where its history parted from others.
type forks interface {
	Forks(ctx context.Context) (journal.Forks, error)
}

// orphanage is a source that may still get at events that it does not have any more.
type orphanage interface {
	Orphans(ctx context.Context, base, upto freehold.Mark) ([]freehold.Recorded, error)
}

// Lost tells what a follower that is stopped as diverged has applied and its source
// does not have any more. The second result is false for a follower that is not.
func (f *Follower) Lost(ctx context.Context, s freehold.Source) (Lost, bool, error) {
	fd, err := f.feedOf(s)
	if err != nil {
		return Lost{}, false, err
	}
	fd.mu.Lock()
	state, place, cause := fd.state, fd.place, fd.err
	fd.mu.Unlock()
	sink, ok := f.sink.(forkable)
	if state != Diverged || !ok {
		return Lost{}, false, nil
	}
	seen, err := sink.seen(ctx, s)
	if err != nil {
		return Lost{}, true, err
	}
	if seen.Mark.Position > place.Position { // a lane of a batch that did not end
		place = seen.Mark
	}
	lost := Lost{Follower: f.name, Mark: place, Orphans: []Orphan{}}
	if errors.Is(cause, freehold.ErrGone) {
		lost.Base, err = fd.cut(ctx, place)
		return lost, true, err
	}
	base, err := f.base(ctx, fd, sink, place)
	if err != nil {
		return Lost{}, true, err
	}
	lost.Base = base
	from, ok := fd.source.(orphanage)
	if !ok {
		lost.Note = "nobody can be asked for them"
		return lost, true, nil
	}
	events, err := from.Orphans(ctx, base, place)
	if err != nil {
		lost.Note = err.Error()
	}
	for i := range events {
		r := &events[i]
		lost.Orphans = append(lost.Orphans, Orphan{Position: r.At.Position, ID: r.ID, Type: r.Type.Name, Stream: r.Stream, Time: r.Time})
	}
	return lost, true, nil
}

// base finds where the history that led to place parts from the source's present one:
// as the source has recorded it, or where the follower knows no opening any more,
// whichever is earlier.
func (f *Follower) base(ctx context.Context, fd *feed, sink forkable, place freehold.Mark) (freehold.Mark, error) {
	base := freehold.Mark{Position: math.MaxInt64}
	found := false
	if from, ok := fd.source.(forks); ok {
		all, err := from.Forks(ctx)
		if err != nil {
			return place, err
		}
		if at, lost := all.Lost(place); lost {
			base, found = at, true
		}
	}
	if h, ok := fd.source.(historian); ok {
		openings, err := h.Incarnations(ctx)
		if err != nil {
			return place, err
		}
		seen, err := sink.seen(ctx, place.Source)
		if err != nil {
			return place, err
		}
		known := map[string]bool{}
		for _, id := range seen.Incarnations {
			known[id] = true
		}
		if at, ok := journal.Parting(func(id string) bool { return known[id] }, openings); ok && at.Position < base.Position {
			base, found = at, true
		}
	}
	base.Source = place.Source
	switch {
	case !found:
		return place, fmt.Errorf("follow: source %s has recorded no fork below %s and no opening that is new to it: nothing to decide", place.Source, place)
	case base.Position > place.Position:
		return place, fmt.Errorf("follow: source %s parts at %d, behind %s: its journal is damaged; run freehold verify there", place.Source, base.Position, place)
	}
	return base, nil
}

func (s *databaseSink[T]) seen(ctx context.Context, source freehold.Source) (seen Seen, err error) {
	err = s.db.View(ctx, func(ctx context.Context, tx T) error {
		seen = Seen{Follower: s.follower}
		k := s.db.Keeper(tx)
		var err error
		if seen.Mark, err = reachOf(ctx, k, s.follower, source); err != nil {
			return err
		}
		for item, err := range k.Scan(ctx, incarnationSpace(s.follower, source), "") {
			if err != nil {
				return err
			}
			seen.Incarnations = append(seen.Incarnations, item.Key)
		}
		return nil
	})
	return seen, err
}

// covers reports whether a place satisfies what a token asks, of whichever epochs they
// are. A source that cannot be asked for its forks satisfies nobody.
func (fd *feed) covers(ctx context.Context, place, want freehold.Mark) (bool, error) {
	if want.Epoch == place.Epoch || want.Position == 0 || place.Epoch == "" {
		return want.Position <= place.Position, nil
	}
	fd.mu.Lock()
	all := fd.forks
	fd.mu.Unlock()
	_, one := all.Shared(want.Epoch)
	_, other := all.Shared(place.Epoch)
	if from, ok := fd.source.(forks); ok && !(one && other) {
		var err error
		if all, err = from.Forks(ctx); err != nil {
			return false, nil
		}
		fd.mu.Lock()
		fd.forks = all
		fd.mu.Unlock()
	}
	return all.Covers(place, want)
}
