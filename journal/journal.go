package journal

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/internal/mutant"
)

// Store is what an engine provides. All methods may be called concurrently, and
// none returns anything beyond the durable head. A store whose database several
// processes write also has Refresh(ctx) error, behind which Bounds knows of all that
// was committed before.
type Store interface {
	// Source is the journal's name.
	Source() freehold.Source
	// Bounds returns the place before the first event that is still there, and the
	// durable head.
	Bounds(ctx context.Context) (first, head freehold.Mark, err error)
	// Read returns up to limit events behind a position, in order.
	Read(ctx context.Context, after freehold.Position, limit int) ([]freehold.Recorded, error)
	// ReadStream returns up to limit events of a stream behind a version, in order.
	ReadStream(ctx context.Context, s freehold.StreamID, after freehold.Version, limit int) ([]freehold.Recorded, error)
	// Streams returns up to limit streams behind a name, by name.
	Streams(ctx context.Context, after freehold.StreamID, limit int) ([]StreamInfo, error)
	// Wait returns when the durable head is beyond a position, or with ctx's error.
	Wait(ctx context.Context, after freehold.Position) error
	// Incarnations lists all openings of the journal for writing, oldest first.
	Incarnations(ctx context.Context) ([]Incarnation, error)
}

// refresher is a [Store] to which other processes write, too.
type refresher interface {
	Refresh(ctx context.Context) error
}

// StreamInfo is a stream and its version.
type StreamInfo struct {
	Stream  freehold.StreamID `json:"stream"`
	Version freehold.Version  `json:"version"`
}

// Incarnation is one opening of a journal for writing: its random id, and where
// the journal stood.
type Incarnation struct {
	ID    string        `json:"id"`
	Start freehold.Mark `json:"start"`
	Time  time.Time     `json:"time"`
}

// Journal reads a service's log. It is safe for concurrent use.
type Journal struct {
	store  Store
	shared refresher // the store, if other processes write to it too
	types  *freehold.Catalog
	recent recent
}

// New returns the journal over a store; engines call it from Open.
func New(store Store, types *freehold.Catalog) *Journal {
	j := &Journal{store: store, types: types}
	j.shared, _ = store.(refresher)
	return j
}

// Remember keeps copies of events that an engine has just made durable, so that
// Read need not read them back. Engines call it with all that they commit, in
// order, before they let readers know; one that does not is read from its store. What
// another process has written is remembered when it is read.
func (j *Journal) Remember(events []freehold.Recorded) { j.recent.add(events) }

// Remembered returns the events of a stream behind a version up to another, which
// an engine's transaction reads, if the journal remembers them all.
func (j *Journal) Remembered(s freehold.StreamID, after, upto freehold.Version) ([]freehold.Recorded, bool) {
	return j.recent.stream(s, after, upto)
}

// Leads reports whether it is remembered that a place was followed by events up to a
// later one. Engines ask whether what they find is where they came from.
func (j *Journal) Leads(from, to freehold.Mark) bool {
	if from.Position >= to.Position || to.Position-from.Position > recentBytes/recordBytes {
		return false
	}
	place := from
	for _, r := range j.recent.read(from.Position, int(to.Position-from.Position)) {
		if !Follows(place, &r) {
			return false
		}
		place = r.At
	}
	return place.Position == to.Position && place.Chain == to.Chain
}

// Forget drops all that is remembered; engines call it when they close, and when the
// database may have gone back in time.
func (j *Journal) Forget() { j.recent.clear() }

// Name is the journal's source name.
func (j *Journal) Name() freehold.Source { return j.store.Source() }

// Types is the catalog with which events are decoded.
func (j *Journal) Types() *freehold.Catalog { return j.types }

// Bounds returns the place before the first event that is still there, and the
// durable head.
func (j *Journal) Bounds(ctx context.Context) (first, head freehold.Mark, err error) {
	return j.store.Bounds(ctx)
}

// Fresh is Bounds as the database has it at this moment: another instance of the
// service may have written what this process has not heard of yet.
func (j *Journal) Fresh(ctx context.Context) (first, head freehold.Mark, err error) {
	if j.shared != nil {
		if err := j.shared.Refresh(ctx); err != nil {
			return first, head, err
		}
	}
	return j.store.Bounds(ctx)
}

// Wait returns when there is an event behind the mark, or with ctx's error.
func (j *Journal) Wait(ctx context.Context, after freehold.Mark) error {
	return j.store.Wait(ctx, after.Position)
}

// Incarnations lists all openings of the journal for writing, oldest first.
func (j *Journal) Incarnations(ctx context.Context) ([]Incarnation, error) {
	return j.store.Incarnations(ctx)
}

// Streams returns up to limit streams behind a name, by name.
func (j *Journal) Streams(ctx context.Context, after freehold.StreamID, limit int) ([]StreamInfo, error) {
	return j.store.Streams(ctx, after, limit)
}

// Read returns events behind the mark: about limit of them, ending at a
// transaction boundary, or none at the head. The mark's chain value is not
// checked here: the reader checks the first event against it (see [Follows]).
func (j *Journal) Read(ctx context.Context, after freehold.Mark, limit int) ([]freehold.Recorded, error) {
	for limit = max(limit, 1); ; limit *= 2 {
		rs, err := j.remembered(ctx, after.Position, limit)
		if err != nil {
			return nil, err
		}
		stored, since := rs == nil, j.recent.since()
		if stored {
			if rs, err = j.store.Read(ctx, after.Position, limit); err != nil {
				return nil, fmt.Errorf("read %s behind %d: %w", j.Name(), after.Position, err)
			}
		}
		n := len(rs)
		for n > 0 && !rs[n-1].Last {
			n--
		}
		if n == 0 && len(rs) == limit {
			continue // one transaction is longer than the page
		}
		if n == 0 && len(rs) > 0 {
			return nil, fmt.Errorf("read %s: the transaction at %d has no end: run freehold verify", j.Name(), rs[0].At.Position)
		}
		rs = rs[:n]
		if stored && j.shared != nil {
			j.recent.extend(since, rs)
		}
		if mutant.SkipRow && n > 2 {
			rs = append(rs[:1], rs[2:]...)
		}
		j.types.Bind(rs)
		return rs, j.present(ctx, rs)
	}
}

// present gives events the present epoch: that in which they were written or read may
// have ended.
func (j *Journal) present(ctx context.Context, rs []freehold.Recorded) error {
	if len(rs) == 0 {
		return nil
	}
	_, head, err := j.store.Bounds(ctx)
	for i := range rs {
		rs[i].At.Epoch = head.Epoch
	}
	return err
}

// remembered reads from memory, never beyond the durable head: an engine fills the
// memory a moment before it moves the head, and whoever had read an event in that
// moment would next be told that the journal does not reach so far.
func (j *Journal) remembered(ctx context.Context, after freehold.Position, limit int) ([]freehold.Recorded, error) {
	rs := j.recent.read(after, limit)
	if rs == nil {
		return nil, nil
	}
	first, head, err := j.store.Bounds(ctx)
	if err != nil {
		return nil, err
	}
	if after < first.Position {
		return nil, nil // the store refuses it
	}
	beyond := rs[len(rs)-1].At.Position - head.Position
	if beyond > 0 {
		rs = rs[:max(0, len(rs)-int(beyond))]
	}
	if len(rs) == 0 || len(rs) < limit && beyond < 0 {
		return nil, nil // the store knows the head, and what another instance has written
	}
	return rs, nil
}

// At returns the mark at a position, as the journal has it. [freehold.ErrDiverged]
// means that the position is beyond the head, [freehold.ErrGone] that it has
// been archived.
func (j *Journal) At(ctx context.Context, p freehold.Position) (freehold.Mark, error) {
	first, head, err := j.store.Bounds(ctx)
	if err == nil && p > head.Position {
		first, head, err = j.Fresh(ctx)
	}
	switch {
	case err != nil:
		return freehold.Mark{}, err
	case p > head.Position:
		return head, fmt.Errorf("%s has no position %d, its head is %d: %w", j.Name(), p, head.Position, freehold.ErrDiverged)
	case p == head.Position:
		return head, nil
	case p == first.Position:
		return first, nil
	case p < first.Position:
		return first, fmt.Errorf("%s begins behind %d: %w", j.Name(), first.Position, freehold.ErrGone)
	}
	rs, err := j.store.Read(ctx, p-1, 1)
	if err != nil {
		return freehold.Mark{}, err
	}
	if len(rs) == 0 || rs[0].At.Position != p {
		return freehold.Mark{}, fmt.Errorf("%s: position %d is missing: run freehold verify", j.Name(), p)
	}
	at := rs[0].At
	at.Epoch = head.Epoch
	return at, nil
}

// Stream yields a stream's events behind a version, oldest first, and ends at the
// first error.
func (j *Journal) Stream(ctx context.Context, s freehold.StreamID, after freehold.Version) iter.Seq2[freehold.Recorded, error] {
	return func(yield func(freehold.Recorded, error) bool) {
		const page = 256
		for {
			rs, err := j.store.ReadStream(ctx, s, after, page)
			if err != nil {
				yield(freehold.Recorded{}, fmt.Errorf("read stream %s: %w", s, err))
				return
			}
			j.types.Bind(rs)
			if err := j.present(ctx, rs); err != nil {
				yield(freehold.Recorded{}, err)
				return
			}
			for _, r := range rs {
				if !yield(r, nil) {
					return
				}
				after = r.Version
			}
			if len(rs) < page {
				return
			}
		}
	}
}

// ErrAltered is returned by [Journal.Verify] for an event that is not as written.
var ErrAltered = errors.New("journal: altered")

// Verify reads everything behind a mark (the zero mark: from the first event) up
// to the head that it finds when it starts, and recomputes digests, chain values,
// and the order of versions within each stream. What stands at the head must be what
// the head says: where the database or a process keeps it, who writes the last events
// again has not changed it. progress, which may be nil, is called now and then with the
// position reached. It returns the mark reached.
func (j *Journal) Verify(ctx context.Context, after freehold.Mark, progress func(freehold.Position)) (freehold.Mark, error) {
	first, head, err := j.store.Bounds(ctx)
	if err != nil {
		return after, err
	}
	whole := after.Position <= first.Position
	if whole {
		after = first
	}
	if after.Position == head.Position && after.Chain != head.Chain {
		return after, j.notTheHead(head)
	}
	versions := map[freehold.StreamID]freehold.Version{}
	for after.Position < head.Position {
		rs, err := j.store.Read(ctx, after.Position, 1024)
		if err != nil {
			return after, err
		}
		if len(rs) == 0 {
			return after, fmt.Errorf("%w: %s ends at %d, its head says %d", ErrAltered, j.Name(), after.Position, head.Position)
		}
		for i := range rs {
			r := &rs[i]
			if !next(after, r) || !sealed(r) { // a service's own journal has no placeholders
				return after, fmt.Errorf("%w: %s position %d (found %d, stream %s version %d): bytes and chain do not agree",
					ErrAltered, j.Name(), after.Position+1, r.At.Position, r.Stream, r.Version)
			}
			was, seen := versions[r.Stream]
			if seen && r.Version != was+1 || !seen && whole && first.Position == 0 && r.Version != 1 {
				return after, fmt.Errorf("%w: %s position %d: stream %s goes from version %d to %d",
					ErrAltered, j.Name(), r.At.Position, r.Stream, was, r.Version)
			}
			if r.At.Position == head.Position && r.At.Chain != head.Chain {
				return after, j.notTheHead(head)
			}
			versions[r.Stream] = r.Version
			after = freehold.Mark{Source: j.Name(), Epoch: head.Epoch, Position: r.At.Position, Chain: r.At.Chain}
		}
		if progress != nil {
			progress(after.Position)
		}
	}
	return after, nil
}

func (j *Journal) notTheHead(head freehold.Mark) error {
	return fmt.Errorf("%w: %s position %d: another chain value than the head's: the last events were written again, or the head was altered: append nothing, and compare both with the marks of consumers",
		ErrAltered, j.Name(), head.Position)
}
