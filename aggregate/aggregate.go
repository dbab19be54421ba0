// Package aggregate runs event-sourced aggregates: a plain value that evolves with
// its events, and commands that decide on new ones.
//
// # Guarantees
//
// A decision is recorded only if it was made on the stream's newest state (G3):
// on a conflict the state is read again and the command decides anew, a bounded
// number of times. Cached states and snapshots are only a start for reading; the
// tail of the stream is always read.
//
// # Ordering
//
// Events of one aggregate stand in its stream in the order of its decisions.
//
// # Failure
//
// An error of the decision is returned as it is and nothing is written. After too
// many conflicts the *freehold.Conflict is returned. A cached state or snapshot
// that cannot be used is left out of account.
package aggregate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/freehold-go/freehold"
)

// State is what an aggregate's value must be able to do: return the state that
// follows an event, and leave its receiver as it is.
type State[S any] interface {
	Evolve(freehold.Event) S
}

// Store is the part of a database that aggregates need.
type Store interface {
	Append(ctx context.Context, writes ...freehold.Write) (freehold.Token, error)
	Events(ctx context.Context, s freehold.StreamID, after freehold.Version) iter.Seq2[freehold.Recorded, error]
}

// Options tune a repository; the zero value is good.
type Options[S any] struct {
	// Attempts is how often a command decides before a conflict is returned. 0 is 10.
	Attempts int
	// Cached is how many states are kept in memory. 0 is 1024, negative none.
	Cached int
	// Snapshots, if set, saves a state every SnapshotEvery events (0 is 100).
	Snapshots     Snapshots
	SnapshotEvery int
}

// Snapshots keeps states by stream; see [Keep]. Losing one costs time only.
type Snapshots interface {
	Load(ctx context.Context, s freehold.StreamID) (v freehold.Version, state []byte, found bool, err error)
	Save(ctx context.Context, s freehold.StreamID, v freehold.Version, state []byte) error
}

// Repo loads and changes the aggregates of one category. It is safe for
// concurrent use.
type Repo[S State[S]] struct {
	category string
	store    Store
	opts     Options[S]

	mu    sync.Mutex
	cache map[freehold.StreamID]versioned[S]
}

type versioned[S any] struct {
	state   S
	version freehold.Version
}

// New returns the repository of a category over a database.
func New[S State[S]](category string, store Store, o *Options[S]) *Repo[S] {
	r := &Repo[S]{category: category, store: store, cache: map[freehold.StreamID]versioned[S]{}}
	if o != nil {
		r.opts = *o
	}
	if r.opts.Attempts <= 0 {
		r.opts.Attempts = 10
	}
	if r.opts.Cached == 0 {
		r.opts.Cached = 1024
	}
	if r.opts.SnapshotEvery <= 0 {
		r.opts.SnapshotEvery = 100
	}
	return r
}

// Load returns the state of an aggregate and its version, 0 if it has no events.
func (r *Repo[S]) Load(ctx context.Context, id string) (S, freehold.Version, error) {
	v, err := r.read(ctx, freehold.Stream(r.category, id), r.store.Events)
	return v.state, v.version, err
}

// Do lets decide choose events on the newest state and appends them. It returns
// the state after them and a token for the command; if decide chooses none, the
// token covers what it has seen. decide may be called several times.
func (r *Repo[S]) Do(ctx context.Context, id string, decide func(S) ([]freehold.Event, error)) (S, freehold.Token, error) {
	stream := freehold.Stream(r.category, id)
	pause := time.Millisecond
	for attempt := 1; ; attempt++ {
		v, err := r.read(ctx, stream, r.store.Events)
		if err != nil {
			return v.state, freehold.Token{}, err
		}
		events, err := decide(v.state)
		if err != nil {
			return v.state, freehold.Token{}, err
		}
		tok, err := r.store.Append(ctx, freehold.Write{Stream: stream, Expect: freehold.At(v.version), Events: events})
		var conflict *freehold.Conflict
		if errors.As(err, &conflict) && attempt < r.opts.Attempts {
			if err := sleep(ctx, rand.N(pause)); err != nil {
				return v.state, freehold.Token{}, err
			}
			pause *= 2
			continue
		}
		if err != nil {
			return v.state, freehold.Token{}, err
		}
		was := v.version
		v = evolve(v, events)
		r.remember(ctx, stream, was, v)
		return v.state, tok, nil
	}
}

// DoTx is [Repo.Do] inside a transaction, for handlers and sagas: it commits or
// rolls back with it, and a conflict is the transaction's.
func (r *Repo[S]) DoTx(ctx context.Context, tx freehold.Tx, id string, decide func(S) ([]freehold.Event, error)) (S, error) {
	stream := freehold.Stream(r.category, id)
	v, err := r.read(ctx, stream, tx.Events)
	if err != nil {
		return v.state, err
	}
	events, err := decide(v.state)
	if err != nil || len(events) == 0 {
		return v.state, err
	}
	if _, err := tx.Append(ctx, stream, freehold.At(v.version), events...); err != nil {
		return v.state, err
	}
	return evolve(v, events).state, nil
}

type reader func(ctx context.Context, s freehold.StreamID, after freehold.Version) iter.Seq2[freehold.Recorded, error]

// read returns the newest state: a cached one or a snapshot, and the tail.
func (r *Repo[S]) read(ctx context.Context, stream freehold.StreamID, events reader) (versioned[S], error) {
	r.mu.Lock()
	v := r.cache[stream]
	r.mu.Unlock()
	if v.version == 0 && r.opts.Snapshots != nil {
		v = r.fromSnapshot(ctx, stream)
	}
	for rec, err := range events(ctx, stream, v.version) {
		if err != nil {
			return v, fmt.Errorf("aggregate %s: %w", stream, err)
		}
		e, err := rec.Decode()
		if err != nil {
			return v, fmt.Errorf("aggregate %s: %w", stream, err)
		}
		v = versioned[S]{v.state.Evolve(e), rec.Version}
	}
	return v, nil
}

func (r *Repo[S]) fromSnapshot(ctx context.Context, stream freehold.StreamID) (v versioned[S]) {
	version, raw, found, err := r.opts.Snapshots.Load(ctx, stream)
	if err != nil || !found {
		return versioned[S]{}
	}
	if json.Unmarshal(raw, &v.state) != nil {
		return versioned[S]{}
	}
	v.version = version
	return v
}

func evolve[S State[S]](v versioned[S], events []freehold.Event) versioned[S] {
	for _, e := range events {
		v.state = v.state.Evolve(e)
		v.version++
	}
	return v
}

// remember keeps a committed state in memory, and as a snapshot when one is due.
func (r *Repo[S]) remember(ctx context.Context, stream freehold.StreamID, was freehold.Version, v versioned[S]) {
	if r.opts.Cached > 0 {
		r.mu.Lock()
		if len(r.cache) >= r.opts.Cached {
			for old := range r.cache { // any: the map's order is random
				delete(r.cache, old)
				break
			}
		}
		r.cache[stream] = v
		r.mu.Unlock()
	}
	every := freehold.Version(r.opts.SnapshotEvery)
	if r.opts.Snapshots == nil || was/every == v.version/every {
		return
	}
	if raw, err := json.Marshal(v.state); err == nil {
		_ = r.opts.Snapshots.Save(ctx, stream, v.version, raw) // disposable: the next one will do
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
