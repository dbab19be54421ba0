package follow

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/freehold-go/freehold"
)

// The choices of an operator for a follower that a source has stopped.
const (
	// Adopted: what was lost never happened. Its effects must be put right.
	Adopted = "adopt"
	// Kept: the effects of what was lost stand.
	Kept = "keep"
	// Skipped: what was cut is not applied.
	Skipped = "skip"
)

// Decision is on record for each follower that an operator let go on behind a fork.
type Decision struct {
	Choice string    `json:"choice"`
	Time   time.Time `json:"time"`
	Lost
}

// Keep lets a follower that is ahead of a fork go on, as [Follower.Adopt] does, and
// puts on record that the effects of what was lost stand: its mark is moved to where
// the histories part, and what the source wrote since is applied. It refuses while
// orphans are parked, of which nobody can say whether they happened.
func (f *Follower) Keep(ctx context.Context, s freehold.Source) (freehold.Mark, error) {
	return f.decide(ctx, s, Kept)
}

// decide moves the mark to where the histories part, or to where the source begins, in
// the source's loop.
func (f *Follower) decide(ctx context.Context, s freehold.Source, choice string) (freehold.Mark, error) {
	fd, err := f.feedOf(s)
	if err != nil {
		return freehold.Mark{}, err
	}
	fd.mu.Lock()
	away := fd.notRunning()
	fd.mu.Unlock()
	lost, diverged, err := f.Lost(ctx, s)
	switch {
	case err != nil:
		return freehold.Mark{}, err
	case away != nil:
		return freehold.Mark{}, away
	case !diverged:
		return freehold.Mark{}, fmt.Errorf("follow: %s has not diverged from %s: nothing to %s", f.name, s, choice)
	case lost.Cut() && choice != Skipped:
		return freehold.Mark{}, fmt.Errorf("follow: %s needs events %d to %d of %s, which were cut: nothing to %s, but to skip", f.name, lost.Mark.Position+1, lost.Base.Position, s, choice)
	case !lost.Cut() && choice == Skipped:
		return freehold.Mark{}, fmt.Errorf("follow: %s needs no events that %s has cut: nothing to skip, see adopt and keep", f.name, s)
	}
	d := Decision{Choice: choice, Time: time.Now().UTC(), Lost: lost}
	err = fd.ask(ctx, &request{moves: true, do: func(ctx context.Context, _ operable) error {
		err := f.sink.(forkable).settle(ctx, d)
		if err == nil {
			fd.arrive(d.Base) // nobody's token is satisfied by the place that was given up
		}
		return err
	}})
	if err != nil {
		return freehold.Mark{}, err
	}
	return d.Base, nil
}

// Decisions lists what operators decided about forks of a source, oldest first.
func (f *Follower) Decisions(ctx context.Context, s freehold.Source) ([]Decision, error) {
	if sink, ok := f.sink.(forkable); ok && f.Follows(s) {
		return sink.decisions(ctx, s)
	}
	return nil, nil
}

// sortable is a layout of times that stand in their order as texts. Older records have
// time.RFC3339Nano, which leaves digits out, so that they are put in order when they are read.
const sortable = "2006-01-02T15:04:05.000000000Z"

func decisionSpace(follower string, s freehold.Source) string {
	return "decision/" + follower + "/" + string(s)
}

// settle moves the mark and records the decision. Parked orphans of an adopted fork
// are put on record as released: they never happened.
func (s *databaseSink[T]) settle(ctx context.Context, d Decision) error {
	source := d.Base.Source
	raw, err := json.Marshal(d)
	if err != nil {
		return err
	}
	lanes := s.lanes.get(source)
	err = Do(context.WithoutCancel(ctx), s.db, func(ctx context.Context, tx T) error {
		k := s.db.Keeper(tx)
		move := func() error { return k.Move(ctx, s.follower, d.Mark, d.Base) }
		if lanes != nil { // what they had is of another history
			move = func() error { return s.moveLanes(ctx, k, lanes, d.Base, 1) }
		}
		if err := move(); err != nil {
			return err
		}
		parked, err := readParked(ctx, k, nil, s.follower, source, nil, math.MaxInt)
		if err != nil {
			return err
		}
		for _, p := range parked {
			if p.Event.At.Position <= d.Base.Position {
				continue
			}
			if d.Choice == Kept {
				return fmt.Errorf("follow: %s has parked %s, which was lost: retry or release key %s first, or adopt", s.follower, p.Event.At, p.Key)
			}
			value, err := json.Marshal(p)
			if err != nil {
				return err
			}
			at := parkedKey(p.Key, p.Event.At.Position)
			if err := errors.Join(k.Put(ctx, releasedSpace(s.follower, source), at, value), k.Delete(ctx, parkedSpace(s.follower, source), at)); err != nil {
				return err
			}
		}
		return k.Put(ctx, decisionSpace(s.follower, source), fmt.Sprintf("%s %s", d.Time.UTC().Format(sortable), strings.ReplaceAll(string(d.Mark.Epoch), "/", "")), raw)
	})
	if err == nil && lanes != nil {
		lanes.leveled(d.Base, 1)
	}
	return err
}

func (s *databaseSink[T]) decisions(ctx context.Context, source freehold.Source) (all []Decision, err error) {
	err = s.db.View(ctx, func(ctx context.Context, tx T) error {
		all = nil
		for item, err := range s.db.Keeper(tx).Scan(ctx, decisionSpace(s.follower, source), "") {
			if err != nil {
				return err
			}
			var d Decision
			if err := json.Unmarshal(item.Value, &d); err != nil {
				return fmt.Errorf("decision %q: %w", item.Key, err)
			}
			all = append(all, d)
		}
		return nil
	})
	slices.SortStableFunc(all, func(a, b Decision) int { return a.Time.Compare(b.Time) })
	return all, err
}
