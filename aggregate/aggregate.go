package aggregate

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/internal/writer"
)

// State is what an aggregate's value must be able to do: return the state that
// follows an event, and leave its receiver as it is. States are shared between
// commands, so maps and slices in them must be copied before they are changed.
type State[S any] interface {
	Evolve(freehold.Event) S
}

// Store is the part of a database that aggregates need. Every engine's *DB is one.
type Store interface {
	Append(ctx context.Context, writes ...freehold.Write) (freehold.Token, error)
	Events(ctx context.Context, s freehold.StreamID, after freehold.Version) iter.Seq2[freehold.Recorded, error]
}

// Options tune a repository; the zero value is good.
type Options struct {
	// Attempts is how often a command decides before a conflict is returned. 0 is 10.
	Attempts int
	// Cached is how many states are kept in memory. 0 is 1024, negative none.
	Cached int
	// Snapshots, if set, saves a state when SnapshotEvery events (0 is 100) have
	// been added since the last one; see [Keep].
	Snapshots     Snapshots
	SnapshotEvery int
}

// Mode says what a command may take for granted.
type Mode int

// Create lets a command decide on an aggregate without events before the stream is
// read. If it turns out to have some, or the command has nothing to write, the
// state is read and the command decides again. It saves a read for new ids.
const Create Mode = 1

// Repo loads and changes the aggregates of one category. It is safe for
// concurrent use.
type Repo[S State[S]] struct {
	category string
	store    Store
	opts     Options
	turns    turns
	states   states[S]
}

// known is a state, and what is known about it.
type known[S any] struct {
	state   S
	version freehold.Version
	token   freehold.Token   // covers the events up to version, if they are placed
	placed  bool             // the last of them had its position when it was read
	saved   freehold.Version // version of the newest snapshot
}

// New returns the repository of a category over a database.
func New[S State[S]](category string, store Store, o *Options) *Repo[S] {
	if s, ok := store.(interface{ KeepWhole(why string) }); ok {
		s.KeepWhole("the aggregates of category " + category + " are read from its streams")
	}
	r := &Repo[S]{category: category, store: store}
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
	r.states.limit = r.opts.Cached
	return r
}

// Load returns the state of an aggregate and its version, 0 if it has no events.
func (r *Repo[S]) Load(ctx context.Context, id string) (S, freehold.Version, error) {
	stream := freehold.Stream(r.category, id)
	k, err := r.read(ctx, stream)
	if err == nil {
		r.snapshot(ctx, stream, k)
	}
	return k.state, k.version, err
}

// Do lets decide choose events on the newest state, and appends them in a
// transaction of its own. It returns the state after them and a token for the
// command; if decide chooses none, the token covers what it has seen. decide may
// be called several times and must do nothing but decide. Inside a transaction use
// [Repo.DoTx]; Do fails there with freehold.ErrNested.
func (r *Repo[S]) Do(ctx context.Context, id string, decide func(S) ([]freehold.Event, error), modes ...Mode) (S, freehold.Token, error) {
	var none S
	if writer.Nested(ctx) {
		return none, freehold.Token{}, freehold.ErrNested
	}
	stream := freehold.Stream(r.category, id)
	leave, err := r.turns.take(ctx, stream)
	if err != nil {
		return none, freehold.Token{}, err
	}
	defer leave()
	assumed := slices.Contains(modes, Create)
	pause := time.Millisecond
	for attempt := 1; ; attempt++ {
		var k known[S]
		if !assumed {
			if k, err = r.read(ctx, stream); err != nil {
				return k.state, freehold.Token{}, err
			}
		}
		events, err := decide(k.state)
		if assumed && (err != nil || len(events) == 0) {
			assumed, attempt = false, 0 // nothing was tried yet
			continue
		}
		if err != nil {
			return k.state, freehold.Token{}, err
		}
		if len(events) == 0 {
			tok, err := r.covering(ctx, stream, k)
			return k.state, tok, err
		}
		tok, err := r.store.Append(ctx, freehold.Write{Stream: stream, Expect: freehold.At(k.version), Events: events})
		if err == nil {
			k = evolve(k, events)
			k.token, k.placed = tok, true
			r.states.put(stream, k)
			r.snapshot(ctx, stream, k)
			return k.state, tok, nil
		}
		conflict := (*freehold.Conflict)(nil)
		switch {
		case !errors.As(err, &conflict):
			return k.state, freehold.Token{}, err
		case assumed:
			assumed, attempt = false, 0
		case attempt >= r.opts.Attempts:
			return k.state, freehold.Token{}, err
		default: // other processes are at it: leave them time
			if err := sleep(ctx, rand.N(pause)); err != nil {
				return k.state, freehold.Token{}, err
			}
			pause *= 2
		}
	}
}

// covering returns a token for what a command has seen. An event that was committed a
// moment ago may have no position yet: then it is one of a head behind it.
func (r *Repo[S]) covering(ctx context.Context, stream freehold.StreamID, k known[S]) (freehold.Token, error) {
	if k.placed || k.version == 0 {
		return k.token, nil
	}
	tok, err := r.store.Append(ctx)
	if err != nil {
		return freehold.Token{}, err
	}
	k.token, k.placed = tok, true
	r.states.put(stream, k)
	return tok, nil
}

// DoTx is [Repo.Do] inside a transaction, for handlers and sagas: it commits or
// rolls back with it, and a conflict is the transaction's.
func (r *Repo[S]) DoTx(ctx context.Context, tx freehold.Tx, id string, decide func(S) ([]freehold.Event, error)) (S, error) {
	stream := freehold.Stream(r.category, id)
	if err := tx.Lock(ctx, string(stream)); err != nil {
		return *new(S), err
	}
	k, err := r.readFrom(ctx, stream, tx.Events)
	if err != nil {
		return k.state, err
	}
	events, err := decide(k.state)
	if err != nil || len(events) == 0 {
		return k.state, err
	}
	if _, err := tx.Append(ctx, stream, freehold.At(k.version), events...); err != nil {
		return k.state, err
	}
	return evolve(k, events).state, nil
}

// read returns the newest committed state, and remembers it.
func (r *Repo[S]) read(ctx context.Context, stream freehold.StreamID) (known[S], error) {
	k, err := r.readFrom(ctx, stream, r.store.Events)
	if err == nil && k.version > 0 {
		r.states.put(stream, k)
	}
	return k, err
}

type reader func(ctx context.Context, s freehold.StreamID, after freehold.Version) iter.Seq2[freehold.Recorded, error]

// readFrom returns the newest state that events show: one from memory or a
// snapshot, and the tail behind it.
func (r *Repo[S]) readFrom(ctx context.Context, stream freehold.StreamID, events reader) (known[S], error) {
	k := r.states.get(stream)
	if k.version == 0 && r.opts.Snapshots != nil {
		k = r.fromSnapshot(ctx, stream, events)
	}
	for rec, err := range events(ctx, stream, k.version) {
		if err != nil {
			return k, fmt.Errorf("aggregate %s: %w", stream, err)
		}
		e, err := rec.Decode()
		if err != nil {
			return k, fmt.Errorf("aggregate %s: %w", stream, err)
		}
		k.state, k.version, k.token, k.placed = k.state.Evolve(e), rec.Version, freehold.NewToken(rec.At), rec.At.Position > 0
	}
	return k, nil
}

func evolve[S State[S]](k known[S], events []freehold.Event) known[S] {
	for _, e := range events {
		k.state = k.state.Evolve(e)
		k.version++
	}
	return k
}

// states is the newest known states of some aggregates: any, when there are too
// many.
type states[S any] struct {
	limit int
	mu    sync.Mutex
	m     map[freehold.StreamID]known[S]
}

func (st *states[S]) get(stream freehold.StreamID) known[S] {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.m[stream]
}

// put keeps a committed state, unless a newer one is there.
func (st *states[S]) put(stream freehold.StreamID, k known[S]) {
	if st.limit <= 0 {
		return
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.m == nil {
		st.m = map[freehold.StreamID]known[S]{}
	}
	old, there := st.m[stream]
	if there && old.version > k.version {
		return
	}
	if !there && len(st.m) >= st.limit {
		for any := range st.m {
			delete(st.m, any)
			break
		}
	}
	k.saved = max(k.saved, old.saved)
	st.m[stream] = k
}

// turns lets one command at a time decide on an aggregate.
type turns struct {
	mu sync.Mutex
	m  map[freehold.StreamID]*turn
}

type turn struct {
	taken chan struct{} // has room for the one whose turn it is
	users int
}

// take waits for the caller's turn on a stream.
func (t *turns) take(ctx context.Context, s freehold.StreamID) (leave func(), err error) {
	t.mu.Lock()
	if t.m == nil {
		t.m = map[freehold.StreamID]*turn{}
	}
	tr := t.m[s]
	if tr == nil {
		tr = &turn{taken: make(chan struct{}, 1)}
		t.m[s] = tr
	}
	tr.users++
	t.mu.Unlock()
	forget := func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if tr.users--; tr.users == 0 {
			delete(t.m, s)
		}
	}
	select {
	case tr.taken <- struct{}{}:
		return func() { <-tr.taken; forget() }, nil
	case <-ctx.Done():
		forget()
		return nil, ctx.Err()
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
