package follow

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/internal/mutant"
)

// With Options.Lanes the events of a batch are dealt to lanes by their keys, and the
// lanes apply them at the same time, each in transactions of its own with a mark of
// its own. What makes an event happen once is its lane's mark: a lane skips what
// stands at or below it, and nothing else. The batch is over when all lanes are, so
// parked events are released, and marks adopted, while no lane runs.
//
// The floor is the place up to which all lanes have applied everything. Each commit of
// a lane stores it as it was when its batch began; one that ends a batch by itself
// stores its end. The follower starts at the highest floor that is stored.
//
// How many lanes there are is stored as well, and every commit of a lane looks, behind
// the move of its mark, whether it still holds. It changes only when all lanes stand at
// one place, in a transaction that moves all their marks there. The follower's own mark
// has no hash while there are lanes, so that an instance without lanes is fenced. What
// makes sure that a lane which is ahead skips nothing new is in ahead.go.

const lanesKey = "n" // of the number; the floors stand under the lanes' numbers

func lanesSpace(follower string, s freehold.Source) string {
	return "lanes/" + follower + "/" + string(s)
}

func laneName(follower string, lane int) string { return follower + "/lane/" + strconv.Itoa(lane) }

// laned is the lanes of a follower in a source.
type laned struct {
	n       int             // how many there are; 1 is none
	main    freehold.Mark   // the follower's own mark, as it is stored
	marks   []freehold.Mark // of the lanes that there are, or are to be
	floor   freehold.Mark   // as it is stored
	place   freehold.Mark   // up to which all have applied everything
	batches int             // since main was moved
	way     path            // from the place to the marks that are ahead, as far as it was read
}

// laneTable is the lanes of a follower, by source. Each source's loop is the only one
// that uses its part.
type laneTable struct {
	mu sync.Mutex
	of map[freehold.Source]*laned
}

func (t *laneTable) get(s freehold.Source) *laned {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.of[s]
}

func (t *laneTable) set(s freehold.Source, l *laned) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.of == nil {
		t.of = map[freehold.Source]*laned{}
	}
	t.of[s] = l
}

// laneCount reads how many lanes there are.
func laneCount(ctx context.Context, k Keeper, follower string, s freehold.Source) (int, error) {
	raw, found, err := k.Get(ctx, lanesSpace(follower, s), lanesKey)
	if err != nil || !found {
		return 1, err
	}
	n, err := strconv.Atoi(string(raw))
	if err != nil || n < 1 {
		return 1, fmt.Errorf("number of lanes of %s: %q", follower, raw)
	}
	return n, nil
}

// countsLanes looks whether there are still n lanes, behind the move of a mark: who changes
// the number moves the marks before, the follower's own first. Its value alone does not
// tell: two lanes and four that stand at one place have the same.
func countsLanes(ctx context.Context, k Keeper, follower string, s freehold.Source, n int) error {
	if mutant.LaneCountUnseen {
		return nil
	}
	switch now, err := laneCount(ctx, k, follower, s); {
	case err != nil:
		return err
	case now != n:
		return fmt.Errorf("%s has %d lanes now, not %d: %w", follower, now, n, freehold.ErrFenced)
	}
	return nil
}

// placeOf reads where a follower stands: its mark, or the highest floor of its lanes.
func placeOf(ctx context.Context, k Keeper, follower string, s freehold.Source) (at freehold.Mark, lanes int, err error) {
	if at, err = k.Mark(ctx, follower, s); err != nil {
		return at, 1, err
	}
	return placeFrom(ctx, k, follower, at)
}

// placeFrom is placeOf with the follower's own mark.
func placeFrom(ctx context.Context, k Keeper, follower string, mark freehold.Mark) (at freehold.Mark, lanes int, err error) {
	s := mark.Source
	if lanes, err = laneCount(ctx, k, follower, s); err != nil || lanes == 1 {
		return mark, lanes, err
	}
	at = freehold.Mark{Source: s}
	for item, err := range k.Scan(ctx, lanesSpace(follower, s), "") {
		if err != nil {
			return at, lanes, err
		}
		var floor freehold.Mark
		if item.Key == lanesKey {
			continue
		}
		if err := json.Unmarshal(item.Value, &floor); err != nil {
			return at, lanes, fmt.Errorf("floor of %s: %w", follower, err)
		}
		if floor.Position > at.Position {
			at = floor
		}
	}
	return at, lanes, nil
}

// reachOf reads up to where a follower has effects: its place, or beyond it what a lane
// has applied of a batch that did not end.
func reachOf(ctx context.Context, k Keeper, follower string, s freehold.Source) (freehold.Mark, error) {
	at, n, err := placeOf(ctx, k, follower, s)
	if err != nil || n == 1 {
		return at, err
	}
	for i := range n {
		m, err := k.Mark(ctx, laneName(follower, i), s)
		if err != nil {
			return at, err
		}
		if m.Position > at.Position {
			at = m
		}
	}
	return at, nil
}

// loadLanes reads the place and the lanes' marks.
func (s *databaseSink[T]) loadLanes(ctx context.Context, k Keeper, source freehold.Source) (freehold.Mark, error) {
	at, n, err := placeOf(ctx, k, s.follower, source)
	if err != nil || n == 1 && s.opts.Lanes == 1 {
		s.lanes.set(source, nil)
		return at, err
	}
	l := &laned{n: n, floor: at, place: at}
	if l.main, err = k.Mark(ctx, s.follower, source); err != nil {
		return at, err
	}
	for i := range max(n, s.opts.Lanes) {
		m, err := k.Mark(ctx, laneName(s.follower, i), source)
		if err != nil {
			return at, err
		}
		l.marks = append(l.marks, m)
	}
	if was := s.lanes.get(source); was != nil {
		l.way = was.way
	}
	l.way.keep(at, l.furthest(at).Position) // what it said of others is nothing to go by
	s.lanes.set(source, l)
	return at, nil
}

// level reports whether no lane stands beyond a place.
func (l *laned) level(at freehold.Mark) bool {
	for _, m := range l.marks[:l.n] {
		if m.Position > at.Position {
			return false
		}
	}
	return true
}

// hidden is a place as the follower's own mark while there are lanes.
func hidden(at freehold.Mark) freehold.Mark {
	at.Chain = freehold.Hash{}
	return at
}

// relane makes all lanes stand at a place and their number another one.
func (s *databaseSink[T]) relane(ctx context.Context, l *laned, at freehold.Mark, n int) error {
	err := s.keep(ctx, func(ctx context.Context, k Keeper) error { return s.moveLanes(ctx, k, l, at, n) })
	if err != nil {
		return fmt.Errorf("%s: from %d lanes to %d: %w", s.follower, l.n, n, err)
	}
	l.leveled(at, n)
	return nil
}

// moveLanes is relane as part of a transaction; behind its commit leveled must be called.
func (s *databaseSink[T]) moveLanes(ctx context.Context, k Keeper, l *laned, at freehold.Mark, n int) error {
	space := lanesSpace(s.follower, at.Source)
	main := at
	if n > 1 {
		main = hidden(at)
	}
	floor, err := json.Marshal(at)
	if err != nil {
		return err
	}
	if err := k.Move(ctx, s.follower, l.main, main); err != nil {
		return err
	}
	if err := countsLanes(ctx, k, s.follower, at.Source, l.n); err != nil {
		return err
	}
	for i, m := range l.marks {
		if err := k.Move(ctx, laneName(s.follower, i), m, at); err != nil {
			return err
		}
		if err := k.Delete(ctx, space, strconv.Itoa(i)); err != nil {
			return err
		}
	}
	if err := k.Put(ctx, space, "0", floor); err != nil {
		return err
	}
	return k.Put(ctx, space, lanesKey, []byte(strconv.Itoa(n)))
}

// leveled takes note that all lanes stand at a place, and how many there are.
func (l *laned) leveled(at freehold.Mark, n int) {
	l.n, l.main, l.floor, l.place = n, at, at, at
	if n > 1 {
		l.main = hidden(at)
	}
	for i := range l.marks {
		l.marks[i] = at
	}
}

// laneOf is the lane of a key.
func laneOf(key string, n int) int {
	h := uint32(2166136261) // FNV-1a: the same in every process
	for i := range len(key) {
		h = (h ^ uint32(key[i])) * 16777619
	}
	return int(h % uint32(n))
}

// applyLanes applies a batch in lanes.
func (s *databaseSink[T]) applyLanes(ctx context.Context, l *laned, from freehold.Mark, events []freehold.Recorded) error {
	source, to := from.Source, events[len(events)-1].At
	if l.n != s.opts.Lanes && from.Position > 0 && l.level(from) {
		if err := s.relane(ctx, l, from, s.opts.Lanes); err != nil {
			return err
		}
	}
	if l.n == 1 { // at the beginning there is no hash by which to fence
		err := s.applyAll(ctx, from, events)
		if err == nil {
			l.main, l.floor, l.place = to, to, to
		}
		return err
	}
	l.way.keep(from, l.furthest(from).Position)
	for i := range events {
		if at := events[i].At; !l.way.agrees(at) {
			return fmt.Errorf("%s has lanes that stand beyond %s, and the source is not on the way there any more: %w", s.follower, at, freehold.ErrDiverged)
		}
	}
	l.way.add(events)
	parts := make([][]freehold.Recorded, l.n)
	busy := 0
	for i := range events {
		r := &events[i]
		if !s.router.wants(r) {
			continue
		}
		lane := laneOf(s.keyOf(*r), l.n)
		if r.At.Position <= l.marks[lane].Position && !mutant.LaneSkipsByFloor {
			continue
		}
		if len(parts[lane]) == 0 {
			busy++
		}
		parts[lane] = append(parts[lane], *r)
	}
	openings := s.incarnations.unknown(source, events)
	floor := from
	if busy == 1 && len(openings) == 0 || mutant.LaneFloorTooHigh {
		floor = to
	}
	serial := len(openings) > 0 || busy == 1 // those of two lanes would wait for each other
	for lane := range parts {
		serial = serial || len(parts[lane]) > 0 && s.starts.careful(source, l.marks[lane].Position)
	}
	errs := make([]error, l.n)
	var running sync.WaitGroup
	for lane, part := range parts {
		if len(part) == 0 {
			continue
		}
		run := func() {
			errs[lane] = errExited // unless it returns
			errs[lane] = s.laneSink(l, lane, from, floor, part[len(part)-1].At).applyAll(ctx, l.marks[lane], part)
		}
		if serial {
			if run(); errs[lane] != nil {
				break
			}
			continue
		}
		running.Go(run)
	}
	running.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	for lane, part := range parts {
		if len(part) > 0 {
			l.marks[lane] = part[len(part)-1].At
		}
	}
	if l.place = to; busy > 0 {
		l.floor = floor
	}
	// A batch in which no lane had anything to do may be one that is read again.
	if l.batches++; busy == 0 || len(openings) > 0 || l.batches >= 100 {
		return s.storeFloor(ctx, l, openings)
	}
	return nil
}

// storeFloor stores the floor, while no lane runs.
func (s *databaseSink[T]) storeFloor(ctx context.Context, l *laned, openings []string) error {
	at := l.place
	floor, err := json.Marshal(at)
	if err != nil {
		return err
	}
	err = s.keep(ctx, func(ctx context.Context, k Keeper) error {
		if err := k.Move(ctx, s.follower, l.main, hidden(at)); err != nil {
			return err
		}
		if err := countsLanes(ctx, k, s.follower, at.Source, l.n); err != nil {
			return err
		}
		for _, id := range openings {
			if err := k.Put(ctx, incarnationSpace(s.follower, at.Source), id, []byte("1")); err != nil {
				return err
			}
		}
		return k.Put(ctx, lanesSpace(s.follower, at.Source), "0", floor)
	})
	if err != nil {
		return fmt.Errorf("%s: store the floor of its lanes: %w", s.follower, err)
	}
	s.incarnations.add(at.Source, openings)
	l.main, l.floor, l.batches = hidden(at), at, 0
	return nil
}
