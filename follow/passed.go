package follow

import (
	"context"
	"sync"
	"time"

	"github.com/freehold-go/freehold"
)

// Events that no handler wants have no effect, so that a transaction which moves the mark
// behind them stores nothing but the mark, and costs a sync of the disk all the same. They
// are passed over in memory: the next transaction of the source moves the mark from where
// it is stored to behind them, one that has something to do, or one of their own after
// passedFor, or when they are as many as a batch. Until then the mark says less than the
// follower knows: after a crash, or a fenced transaction, it passes over them again. A
// database that may forget is asked in each read whether it holds what a token asks for,
// so there marks are stored at once.

// passedFor is for how long a mark may stand below events that were passed over: what the
// follower's other instances, and a source that is cut, know of it.
const passedFor = 100 * time.Millisecond

// passed is the stored marks of sources that stand below events that were passed over.
// Each source's loop is the only one that uses its part.
type passed struct {
	mu     sync.Mutex
	behind map[freehold.Source]stood
}

// stood is a stored mark, the place up to which events behind it were passed over, and
// since when.
type stood struct {
	mark, place freehold.Mark
	since       time.Time
}

func (p *passed) get(s freehold.Source) (stood, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	st, ok := p.behind[s]
	return st, ok
}

// take is get, and leaves it to the caller to move the mark.
func (p *passed) take(s freehold.Source) (stood, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	st, ok := p.behind[s]
	delete(p.behind, s)
	return st, ok
}

func (p *passed) put(s freehold.Source, st stood) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.behind == nil {
		p.behind = map[freehold.Source]stood{}
	}
	p.behind[s] = st
}

// passOver takes note of a batch in which nobody wants anything. If there is more to it,
// it returns where the mark stands, from which it is to be moved.
func (s *databaseSink[T]) passOver(from freehold.Mark, events []freehold.Recorded) (mark freehold.Mark, over bool) {
	source := from.Source
	st, found := s.passed.take(source)
	if !found {
		st = stood{mark: from, since: time.Now()}
	}
	last := events[len(events)-1].At
	if s.lost() != nil || time.Since(st.since) >= passedFor || last.Position-st.mark.Position > s.batch() || s.starts.careful(source, st.mark.Position) ||
		s.unwanted(events) < len(events) || len(s.incarnations.unknown(source, events)) > 0 {
		return st.mark, false
	}
	st.place = last
	s.passed.put(source, st)
	return st.mark, true
}

// forget reports whether the mark stands below events that were passed over, and forgets
// these.
func (s *databaseSink[T]) forget(source freehold.Source) bool {
	_, found := s.passed.take(source)
	return found
}

// rest stores what a follower that has nothing to do in a source has not stored yet, so
// that other instances know of it: the floor of its lanes, and the mark behind what was
// passed over, or says when to do that.
func (s *databaseSink[T]) rest(ctx context.Context, source freehold.Source) (again time.Duration, err error) {
	if l := s.lanes.get(source); l != nil {
		if l.n == 1 || l.floor == l.place {
			return 0, nil
		}
		return 0, s.storeFloor(ctx, l, nil)
	}
	st, found := s.passed.get(source)
	if !found {
		return 0, nil
	}
	if again = passedFor - time.Since(st.since); again > 0 {
		return again, nil
	}
	return 0, s.storePassed(ctx, source)
}

// storePassed moves the mark behind what was passed over. Without it, that is passed over
// again.
func (s *databaseSink[T]) storePassed(ctx context.Context, source freehold.Source) error {
	st, found := s.passed.take(source)
	if !found {
		return nil
	}
	return s.keep(ctx, func(ctx context.Context, k Keeper) error { return k.Move(ctx, s.follower, st.mark, st.place) })
}

// stored is the place from which the follower would go on if the process ended now.
func (s *databaseSink[T]) stored(at freehold.Mark) freehold.Mark {
	if l := s.lanes.get(at.Source); l != nil && l.n > 1 {
		return l.floor
	}
	if st, found := s.passed.get(at.Source); found {
		return st.mark
	}
	return at
}
