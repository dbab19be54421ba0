package intent

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/freehold-go/freehold"
)

// stored is what the database holds of a caller's place: a mark up to which all
// intents have a recorded outcome, and a document, which may be absent, that says
// which intents above the mark have none. A transaction that records outcomes
// changes at least one of the two and checks that it finds both as it left them,
// so two callers cannot record one outcome each.
type stored struct {
	mark freehold.Mark
	doc  []byte
}

func (s stored) equal(o stored) bool { return s.mark == o.mark && bytes.Equal(s.doc, o.doc) }

// above is the content of the document: behind the mark and up to Upto, all intents
// have a recorded outcome except those listed.
type above struct {
	Upto freehold.Position   `json:"upto"`
	Open []freehold.Position `json:"open,omitempty"`
}

// places knows which intents are open.
type places struct {
	stored  stored
	seen    freehold.Mark              // the last event handed over
	items   []item                     // open, in order
	upto    freehold.Position          // the highest intent that is recorded
	earlier map[freehold.Position]bool // open by the document, and not seen yet
}

// item is where an intent stands, and the event before it.
type item struct{ at, before freehold.Mark }

// coalesced is how many events that are no intents are passed before the mark is
// moved for their sake alone.
const coalesced = 4096

func newPlaces(s stored) (places, error) {
	p := places{stored: s, seen: s.mark, earlier: map[freehold.Position]bool{}}
	if len(s.doc) == 0 {
		return p, nil
	}
	var a above
	if err := json.Unmarshal(s.doc, &a); err != nil {
		return p, fmt.Errorf("what is recorded above %s: %w", s.mark, err)
	}
	p.upto = a.Upto
	for _, at := range a.Open {
		p.earlier[at] = true
	}
	return p, nil
}

// pass takes note of an event that needs no call.
func (p *places) pass(at freehold.Mark) { p.seen = at }

// open takes note of an intent, and reports whether it is to be called: it is not
// if an earlier run has recorded its outcome.
func (p *places) open(at freehold.Mark) bool {
	before := p.seen
	p.seen = at
	if at.Position <= p.upto && !p.earlier[at.Position] {
		return false
	}
	delete(p.earlier, at.Position)
	p.items = append(p.items, item{at: at, before: before})
	return true
}

// far reports whether the mark should be moved although nothing was recorded.
func (p *places) far() bool {
	return len(p.items) == 0 && p.seen.Position-p.stored.mark.Position >= coalesced
}

// finished is the place up to which all intents have a recorded outcome.
func (p *places) finished() freehold.Mark {
	if len(p.items) == 0 {
		return p.seen
	}
	return p.items[0].before
}

// with returns what is to be stored when the intents at the given positions, in
// order, have been recorded too.
func (p *places) with(recorded []freehold.Position) (stored, error) {
	next := stored{mark: p.seen, doc: p.stored.doc}
	a := above{Upto: p.upto}
	if n := len(recorded); n > 0 {
		a.Upto = max(a.Upto, recorded[n-1])
	}
	first := true
	for _, it := range p.items {
		if _, now := slices.BinarySearch(recorded, it.at.Position); now {
			continue
		}
		if first {
			next.mark, first = it.before, false
		}
		if it.at.Position < a.Upto {
			a.Open = append(a.Open, it.at.Position)
		}
	}
	if a.Upto <= next.mark.Position {
		return next, nil // what the document says is below the mark
	}
	for at := range p.earlier {
		a.Open = append(a.Open, at)
	}
	slices.Sort(a.Open)
	doc, err := json.Marshal(a)
	next.doc = doc
	return next, err
}

// commit takes note that next, which was computed for the same positions, is
// stored.
func (p *places) commit(next stored, recorded []freehold.Position) {
	p.stored = next
	if n := len(recorded); n > 0 {
		p.upto = max(p.upto, recorded[n-1])
	}
	p.items = slices.DeleteFunc(p.items, func(it item) bool {
		_, now := slices.BinarySearch(recorded, it.at.Position)
		return now
	})
}
