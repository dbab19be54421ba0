package follow

import (
	"context"
	"fmt"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/internal/mutant"
)

// Where a batch in lanes did not end, some lanes are ahead of the floor. The source may
// have been put back to a place in between since, and written on: then events that stand
// where those lanes have been are new, and must not be taken for what they have applied.
//
// A lane applies, or skips, an event only if that event and the marks of all lanes are
// of one history. A chain value stands for everything before it, so it is enough to have
// read from the floor to the furthest mark once, whenever that was: the chain values on
// that way are kept, and every event that is applied later is compared with them. A
// source whose reads fail now and then gets a little farther with each that succeeds.

// path is a piece of a source's history: the chain values behind a place.
type path struct {
	from  freehold.Mark
	chain []freehold.Hash
}

// at returns the chain value at a position, if that is on the path.
func (p *path) at(n freehold.Position) (freehold.Hash, bool) {
	i := n - p.from.Position
	switch {
	case i < 0 || int(i) > len(p.chain):
		return freehold.Hash{}, false
	case i == 0:
		return p.from.Chain, true
	}
	return p.chain[i-1], true
}

func (p *path) end() freehold.Mark {
	end := p.from
	if n := len(p.chain); n > 0 {
		end.Position, end.Chain = end.Position+freehold.Position(n), p.chain[n-1]
	}
	return end
}

// keep makes the path begin at a place and end at a position at the latest. A place that
// is not on it begins a new one.
func (p *path) keep(from freehold.Mark, upto freehold.Position) {
	if chain, ok := p.at(from.Position); ok && chain == from.Chain {
		p.chain = p.chain[from.Position-p.from.Position:]
	} else {
		p.chain = nil
	}
	p.from = from
	if n := int(upto - from.Position); n < len(p.chain) {
		p.chain = p.chain[:max(n, 0)]
	}
}

// add makes the path longer by those of some events that stand behind its end.
func (p *path) add(events []freehold.Recorded) {
	end := p.end().Position
	for i := range events {
		if events[i].At.Position == end+1 {
			p.chain = append(p.chain, events[i].At.Chain)
			end++
		}
	}
}

// agrees reports whether a mark may be of the history that the path is of.
func (p *path) agrees(m freehold.Mark) bool {
	chain, ok := p.at(m.Position)
	return !ok || chain == m.Chain
}

// furthest returns the mark of the lane that is furthest ahead of a place, or the place.
func (l *laned) furthest(place freehold.Mark) freehold.Mark {
	far := place
	for _, m := range l.marks[:l.n] {
		if m.Position > far.Position {
			far = m
		}
	}
	return far
}

// reach is up to where there are effects when the follower stands at a place.
func (s *databaseSink[T]) reach(place freehold.Mark) freehold.Mark {
	if l := s.lanes.get(place.Source); l != nil && l.n > 1 {
		return l.furthest(place)
	}
	return place
}

// look takes what was read on the way to the furthest mark, and returns from where to
// read on, if the way does not lead there yet.
func (s *databaseSink[T]) look(place freehold.Mark, events []freehold.Recorded) (from freehold.Mark, more bool, err error) {
	l := s.lanes.get(place.Source)
	if l == nil || l.n == 1 || mutant.LaneTrustsItsMark {
		return place, false, nil
	}
	far := l.furthest(place).Position
	l.way.add(events)
	l.way.keep(place, far)
	for lane, m := range l.marks[:l.n] {
		if m.Position > place.Position && !l.way.agrees(m) {
			return place, false, s.elsewhere(lane, m)
		}
	}
	from = l.way.end()
	return from, from.Position < far, nil
}

// elsewhere is the error of a lane that stands in another history than the one that is
// read.
func (s *databaseSink[T]) elsewhere(lane int, m freehold.Mark) error {
	return fmt.Errorf("%s stands at %s (%s), to which the history of the source does not lead: %w", laneName(s.follower, lane), m, m.Chain, freehold.ErrDiverged)
}

// lookAhead reads, before anything is applied, as far as there are effects.
func (f *Follower) lookAhead(ctx context.Context, fd *feed, place freehold.Mark, progress func()) error {
	sink, ok := f.sink.(interface {
		reach(place freehold.Mark) freehold.Mark
		look(place freehold.Mark, events []freehold.Recorded) (from freehold.Mark, more bool, err error)
	})
	if !ok {
		return f.compare(ctx, fd, place)
	}
	if err := f.compare(ctx, fd, sink.reach(place)); err != nil {
		return err
	}
	from, more, err := sink.look(place, nil)
	for more && err == nil && ctx.Err() == nil {
		if f.serve(ctx, fd) == errMoved {
			return errMoved
		}
		events, err := fd.source.Read(ctx, from, f.opts.Batch)
		if err != nil {
			return err
		}
		if len(events) == 0 {
			if err := f.compare(ctx, fd, sink.reach(place)); err != nil {
				return err
			}
			if err := fd.wait(ctx, from, 0); err != nil {
				return err
			}
			continue
		}
		next, err := deal(from, events)
		if err != nil {
			return err
		}
		progress()
		if from, more, err = sink.look(place, next); err != nil {
			return err
		}
	}
	return err
}
