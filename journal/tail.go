package journal

import (
	"context"
	"fmt"
	"slices"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/internal/mutant"
)

// Tail is the end of a journal that has one writer: it checks expectations, gives
// out versions and positions, and seals events into the chain. Engines keep one
// per open journal and call it from their writer only; it is not safe for
// concurrent use. Events stay pending until the engine has stored them and says
// [Tail.Committed], or takes them back with [Tail.Rollback].
type Tail struct {
	head        freehold.Mark // behind the last pending event
	incarnation string
	lookup      func(context.Context, freehold.StreamID) (freehold.Version, error)

	pending []freehold.Recorded
	sealed  int // pending[:sealed] are sealed
	undo    []versionWas
	young   map[freehold.StreamID]freehold.Version // versions incl. pending; two generations bound the memory
	old     map[freehold.StreamID]freehold.Version
}

type versionWas struct {
	stream  freehold.StreamID
	version freehold.Version
}

// Save is a point to which a [Tail] can be rolled back.
type Save struct {
	head                  freehold.Mark
	pending, sealed, undo int
}

// TailMemory is the number of calls of [Tail.Append] within which a Tail surely
// remembers the version of a stream that it was given: the size of a generation.
const TailMemory = 1 << 16

// NewTail starts behind the stored head. lookup reads a stream's stored version,
// 0 if it has no events.
func NewTail(head freehold.Mark, incarnation string, lookup func(context.Context, freehold.StreamID) (freehold.Version, error)) *Tail {
	return &Tail{head: head, incarnation: incarnation, lookup: lookup, young: map[freehold.StreamID]freehold.Version{}}
}

// Head is the place behind the last sealed event, committed or not.
func (t *Tail) Head() freehold.Mark { return t.head }

// Turn begins an epoch: what is sealed from now on carries it, unless it is rolled
// back.
func (t *Tail) Turn(e freehold.Epoch) { t.head.Epoch = e }

// Incarnation identifies this opening of the journal.
func (t *Tail) Incarnation() string { return t.incarnation }

// Version returns a stream's version including what is pending.
func (t *Tail) Version(ctx context.Context, s freehold.StreamID) (freehold.Version, error) {
	if v, ok := t.young[s]; ok {
		return v, nil
	}
	v, ok := t.old[s]
	if !ok {
		var err error
		if v, err = t.lookup(ctx, s); err != nil {
			return 0, fmt.Errorf("version of %s: %w", s, err)
		}
	}
	t.remember(s, v)
	return v, nil
}

func (t *Tail) remember(s freehold.StreamID, v freehold.Version) {
	if len(t.young) >= TailMemory && len(t.pending) == 0 {
		t.young, t.old = make(map[freehold.StreamID]freehold.Version, TailMemory), t.young
	}
	t.young[s] = v
}

// Append checks the expectation and adds the drafts to the stream. It returns the
// stream's new version, or a *freehold.Conflict and changes nothing.
func (t *Tail) Append(ctx context.Context, s freehold.StreamID, expect freehold.Expect, drafts []freehold.Recorded) (freehold.Version, error) {
	if err := s.Validate(); err != nil {
		return 0, err
	}
	v, err := t.Version(ctx, s)
	if err != nil {
		return 0, err
	}
	if !expect.Met(v) && !mutant.DropConflictCheck {
		return 0, &freehold.Conflict{Stream: s, Expected: expect, Actual: v}
	}
	if len(drafts) == 0 {
		return v, nil
	}
	t.undo = append(t.undo, versionWas{s, v})
	for i := range drafts {
		v++
		drafts[i].Stream, drafts[i].Version, drafts[i].Incarnation = s, v, t.incarnation
	}
	t.pending = append(t.pending, drafts...)
	t.young[s] = v
	return v, nil
}

// Seal ends one transaction: its events get their positions, the last one its
// flag, and all their digest and chain value. It returns the new head.
func (t *Tail) Seal() freehold.Mark {
	if t.sealed == len(t.pending) {
		return t.head
	}
	t.pending[len(t.pending)-1].Last = true
	for i := t.sealed; i < len(t.pending); i++ {
		r := &t.pending[i]
		r.Digest = Digest(r)
		t.head.Position++
		t.head.Chain = Chain(t.head.Chain, t.head.Position, r.Digest)
		r.At = t.head
	}
	t.sealed = len(t.pending)
	return t.head
}

// Save marks a point before a transaction.
func (t *Tail) Save() Save { return Save{t.head, len(t.pending), t.sealed, len(t.undo)} }

// Rollback takes back everything since the save, cached versions included.
func (t *Tail) Rollback(s Save) {
	for _, was := range slices.Backward(t.undo[s.undo:]) {
		t.young[was.stream] = was.version
	}
	clear(t.pending[s.pending:])
	t.head, t.pending, t.sealed, t.undo = s.head, t.pending[:s.pending], s.sealed, t.undo[:s.undo]
}

// Pending returns the events since a save, sealed or not. The slice is valid
// until the next call.
func (t *Tail) Pending(s Save) []freehold.Recorded { return t.pending[s.pending:] }

// Committed forgets the pending events: they are stored.
func (t *Tail) Committed() {
	clear(t.pending)
	t.pending, t.sealed, t.undo = t.pending[:0], 0, t.undo[:0]
}
