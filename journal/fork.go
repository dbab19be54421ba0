package journal

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/internal/mutant"
)

// Fork says that a journal went back in time and what it is called since: a database
// was restored to an older state, or failed over to a copy that lacked the end. Up to
// the base the histories are one; behind it stands what was written since, under
// the fork's epoch, and what was lost is in other databases only.
type Fork struct {
	Number  int              `json:"number"`           // from 1, in the order in which they were recorded
	Epoch   freehold.Epoch   `json:"epoch"`            // that begins
	Ended   []freehold.Epoch `json:"ended"`            // the one that was present, then others that others told of
	Base    freehold.Mark    `json:"base"`             // the last place that all of them share
	Reason  string           `json:"reason"`           // who holds what this journal does not
	Time    time.Time        `json:"time"`             // when it was recorded
	Settled time.Time        `json:"settled,omitzero"` // since when the service takes commands again
}

// Forks is all forks of a journal, oldest first.
type Forks []Fork

// Present is the epoch that the newest fork began, or empty if there is none.
func (f Forks) Present() freehold.Epoch {
	if len(f) == 0 {
		return ""
	}
	return f[len(f)-1].Epoch
}

// Open reports whether the newest fork is not settled: commands are refused.
func (f Forks) Open() bool { return len(f) > 0 && f[len(f)-1].Settled.IsZero() }

// Shared returns up to where the history of an epoch is that of the present one, and
// whether the epoch is known.
func (f Forks) Shared(e freehold.Epoch) (upto freehold.Position, known bool) {
	base, known := f.base(e)
	return base.Position, known
}

// base returns the last place that the history of an epoch shares with the present
// one. For the present epoch it is beyond all positions.
func (f Forks) base(e freehold.Epoch) (freehold.Mark, bool) {
	base := freehold.Mark{Position: math.MaxInt64}
	if e != "" && e == f.Present() {
		return base, true
	}
	known := false
	for i := range f {
		known = known || slices.Contains(f[i].Ended, e)
		if known && f[i].Base.Position <= base.Position {
			base = f[i].Base
		}
	}
	if !known {
		return freehold.Mark{}, false
	}
	base.Epoch = f.Present()
	return base, true
}

// Lost returns the place at which whoever stands at a mark must go on, if forks
// explain that the mark is not in the journal: it is of an epoch that ended below it.
func (f Forks) Lost(at freehold.Mark) (base freehold.Mark, lost bool) {
	base, known := f.base(at.Epoch)
	base.Source = at.Source
	return base, known && base.Position < at.Position
}

// Covers reports whether a reader who stands at place has seen what a token asks. It
// returns freehold.ErrHistoryLost if what the token names is not in the present
// history, or if its epoch is unknown.
func (f Forks) Covers(place, want freehold.Mark) (bool, error) {
	if place.Epoch == want.Epoch && f.Present() == "" {
		return want.Position <= place.Position, nil
	}
	upto, known := f.Shared(want.Epoch)
	if !known || want.Position > upto {
		return false, fmt.Errorf("%s: the epoch ended at %d, the present one is %q: %w", want, upto, f.Present(), freehold.ErrHistoryLost)
	}
	upto, _ = f.Shared(place.Epoch)
	return want.Position <= min(place.Position, upto), nil
}

// ForkEpoch returns a random id for the epoch that the nth fork begins.
func ForkEpoch(n int) freehold.Epoch {
	return freehold.Epoch(fmt.Sprintf("%s.%d", NewEpoch(), n))
}

// ErrNoForks is returned for a journal whose engine cannot record forks.
var ErrNoForks = errors.New("journal: this engine records no forks")

// forker is a store that records forks. PutFork stores a fork under its number; a new
// one begins its epoch in the same transaction, if the present epoch is the first that
// it ends, or else the error is freehold.ErrFenced.
type forker interface {
	Forks(ctx context.Context) (Forks, error)
	PutFork(ctx context.Context, f Fork) error
}

// Forks lists the forks of the journal as the database has them at this moment, oldest
// first: other instances of the service may have recorded some.
func (j *Journal) Forks(ctx context.Context) (Forks, error) {
	s, ok := j.store.(forker)
	if !ok {
		return nil, nil
	}
	if _, _, err := j.Fresh(ctx); err != nil {
		return nil, err
	}
	forks, err := s.Forks(ctx)
	if err == nil {
		j.recent.turn(forks.Present())
	}
	return forks, err
}

// Fork records that the journal went back in time to base: a new epoch begins, which
// every event, mark and token carries from then on. It is the one behind seen, the forks
// that the caller knew when he found out; ended names epochs of others that end there
// too. freehold.ErrFenced means that another instance has recorded one since, which may
// explain what the caller has found: ask for the forks again.
func (j *Journal) Fork(ctx context.Context, seen Forks, base freehold.Mark, reason string, ended ...freehold.Epoch) (Fork, error) {
	s, ok := j.store.(forker)
	if !ok {
		return Fork{}, ErrNoForks
	}
	_, head, err := j.Fresh(ctx)
	if err != nil {
		return Fork{}, err
	}
	if mutant.ForkUnseen {
		if seen, err = s.Forks(ctx); err != nil {
			return Fork{}, err
		}
	}
	number, present := len(seen)+1, seen.Present()
	if present == "" {
		present = head.Epoch // the first one, or else the number is taken
	}
	f := Fork{Number: number, Epoch: ForkEpoch(number), Ended: []freehold.Epoch{present}, Base: base, Reason: reason, Time: Now()}
	for _, e := range ended {
		if _, known := seen.Shared(e); !known && e != "" && !slices.Contains(f.Ended, e) {
			f.Ended = append(f.Ended, e)
		}
	}
	f.Base.Source, f.Base.Epoch = j.Name(), f.Epoch
	if err := s.PutFork(ctx, f); err != nil {
		return Fork{}, fmt.Errorf("journal: record a fork of %s at %d: %w", j.Name(), base.Position, err)
	}
	j.recent.turn(f.Epoch)
	return f, nil
}

// Settle records that the service may take commands again behind a fork.
func (j *Journal) Settle(ctx context.Context, f Fork) error {
	s, ok := j.store.(forker)
	if !ok {
		return ErrNoForks
	}
	f.Settled = Now()
	return s.PutFork(ctx, f)
}

// Translate names the present epoch for what a token asks of this journal: a token of
// an epoch that has ended is good up to the place where it ended. It returns
// freehold.ErrHistoryLost for one that asks for more.
func (j *Journal) Translate(ctx context.Context, tok freehold.Token) (freehold.Token, error) {
	asked := tok.Of(j.Name())
	if len(asked) == 0 {
		return tok, nil
	}
	_, head, err := j.Bounds(ctx)
	if err != nil {
		return tok, err
	}
	if len(asked) == 1 && asked[0].Epoch == head.Epoch {
		return tok, nil
	}
	forks, err := j.Forks(ctx)
	if err != nil {
		return tok, err
	}
	var marks []freehold.Mark
	for _, want := range asked {
		if want.Epoch != head.Epoch {
			if _, err := forks.Covers(head, want); err != nil {
				return tok, err
			}
			want.Epoch = head.Epoch
		}
		marks = append(marks, want)
	}
	for _, s := range tok.Sources() {
		if s != j.Name() {
			marks = append(marks, tok.Of(s)...)
		}
	}
	return freehold.NewToken(marks...), nil
}

// Parting returns where the history of someone who has seen events of the given
// openings parts from the one with these openings: at the start of the first opening
// behind the last that he has seen. ok is false if there is none.
func Parting(seen func(id string) bool, openings []Incarnation) (base freehold.Mark, ok bool) {
	next := 0
	for i, o := range openings {
		if seen(o.ID) {
			next = i + 1
		}
	}
	if next == len(openings) {
		return freehold.Mark{}, false
	}
	return openings[next].Start, true
}
