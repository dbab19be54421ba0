// Package intent makes calls to the outside world. An intent is an event in the
// service's own journal; the call is made after it has been committed and outside
// any transaction, and its outcome is recorded in one.
//
// # Guarantees
//
// Every intent is called until it has a definite outcome, and its outcome is
// recorded once, together with the place of the caller. Each attempt carries the
// same key, derived from the event, so that the other side can recognise it: the
// process may die between the call and the record, and then the call is made
// again. Two calls of one stream never run at the same time.
//
// # Ordering
//
// Intents of one stream are called in their order; others in any.
//
// # Failure
//
// A call that returns an error has an unknown outcome: it is repeated with growing
// pauses and a higher attempt number, so that it can ask first what became of the
// one before. A record that fails is repeated in the same way.
package intent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
)

// Options tune a caller; the zero value is good.
type Options struct {
	// Pool is how many calls run at the same time. 0 is 64.
	Pool int
	// Key derives the key of the calls for an event. nil is "source/event id".
	Key func(freehold.Recorded) string
	// Pause is the first pause after a failed attempt; it doubles up to MaxPause. 0 is
	// 50 ms and 10 s.
	Pause, MaxPause time.Duration
	// Log is where failed attempts go. nil is slog.Default().
	Log *slog.Logger
}

// Caller makes the calls for one type of intent. It is a follower whose mark is
// that of the last intent up to which all are finished; outcomes recorded above
// it are remembered beside it until it passes them.
type Caller[T freehold.Tx, E freehold.Event, O any] struct {
	*follow.Follower
	name   string
	db     follow.DB[T]
	source freehold.Source
	own    follow.Source
	opts   Options
	call   func(ctx context.Context, key string, e E, attempt int) (O, error)
	record func(ctx context.Context, tx T, e E, r freehold.Recorded, o O) error

	slots    chan struct{}
	finished chan struct{} // has room for one signal

	mu      sync.Mutex
	mark    freehold.Mark     // stored
	seen    freehold.Mark     // the last event handed over
	found   freehold.Position // the head at the start: what stands up to it may have been called before
	open    []freehold.Mark
	done    map[freehold.Position]bool // recorded, above mark
	results []result[E, O]
	busy    map[freehold.StreamID][]func() // calls that wait for their stream
	calls   sync.WaitGroup
}

type result[E, O any] struct {
	event    E
	recorded freehold.Recorded
	outcome  O
}

// New returns the caller name for the events E of the service's own journal. call
// is made outside transactions and returns the definite outcome, or an error if
// it does not know; record stores an outcome. Attempts count from 0. An intent that
// the caller finds at its start begins at 1: an earlier run may have made the
// call, so that what became of it is to be asked first.
func New[T freehold.Tx, E freehold.Event, O any](name string, db follow.DB[T], own follow.Source, o *Options,
	call func(ctx context.Context, key string, e E, attempt int) (O, error),
	record func(ctx context.Context, tx T, e E, r freehold.Recorded, o O) error) (*Caller[T, E, O], error) {
	var zero E
	if !own.Types().Knows(zero.EventType()) {
		return nil, fmt.Errorf("intent %s: the journal's catalog does not have %s", name, zero.EventType())
	}
	c := &Caller[T, E, O]{name: "intent_" + name, db: db, source: own.Name(), own: own, call: call, record: record,
		finished: make(chan struct{}, 1), done: map[freehold.Position]bool{}, busy: map[freehold.StreamID][]func(){}}
	if o != nil {
		c.opts = *o
	}
	if c.opts.Pool <= 0 {
		c.opts.Pool = 64
	}
	if c.opts.Key == nil {
		c.opts.Key = func(r freehold.Recorded) string { return string(r.At.Source) + "/" + r.ID }
	}
	if c.opts.Pause <= 0 {
		c.opts.Pause = 50 * time.Millisecond
	}
	if c.opts.MaxPause <= 0 {
		c.opts.MaxPause = 10 * time.Second
	}
	if c.opts.Log == nil {
		c.opts.Log = slog.Default()
	}
	c.slots = make(chan struct{}, c.opts.Pool)
	c.Follower = follow.Into(c.name, []follow.Source{own}, sink[T, E, O]{c}, &follow.Options{Log: c.opts.Log})
	return c, nil
}

// Run makes calls until ctx ends. Calls under way are cancelled then and made again
// at the next start.
func (c *Caller[T, E, O]) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	recording := make(chan error, 1)
	go func() {
		err := c.recordLoop(ctx)
		cancel()
		recording <- err
	}()
	err := c.Follower.Run(ctx)
	cancel()
	c.calls.Wait()
	return errors.Join(err, <-recording)
}

func (c *Caller[T, E, O]) space() string { return "intent/" + c.name }

// sink takes events from the follower and starts their calls.
type sink[T freehold.Tx, E freehold.Event, O any] struct{ *Caller[T, E, O] }

// Mark is the stored place at the start, and then the last event handed over.
func (s sink[T, E, O]) Mark(ctx context.Context, source freehold.Source) (freehold.Mark, error) {
	s.mu.Lock()
	seen := s.seen
	s.mu.Unlock()
	if seen.Source != "" {
		return seen, nil
	}
	var mark freehold.Mark
	done := map[freehold.Position]bool{}
	err := s.db.View(ctx, func(ctx context.Context, tx T) error {
		k := s.db.Keeper(tx)
		var err error
		if mark, err = k.Mark(ctx, s.name, source); err != nil {
			return err
		}
		for item, err := range k.Scan(ctx, s.space(), "") {
			if err != nil {
				return err
			}
			var p freehold.Position
			if _, err := fmt.Sscanf(item.Key, "%d", &p); err != nil {
				return fmt.Errorf("%s: key %q: %w", s.name, item.Key, err)
			}
			done[p] = true
		}
		return nil
	})
	if err != nil {
		return mark, err
	}
	_, head, err := s.own.Bounds(ctx)
	if err != nil {
		return mark, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mark, s.seen, s.done, s.found = mark, mark, done, head.Position
	return mark, nil
}

// Apply starts the calls of the intents among the events. It waits while all
// places of the pool are taken.
func (s sink[T, E, O]) Apply(ctx context.Context, _ freehold.Mark, events []freehold.Recorded) error {
	var zero E
	for _, r := range events {
		if r.Type.Name == zero.EventType().Name && !s.isDone(r.At.Position) {
			if err := s.begin(ctx, r); err != nil {
				return err
			}
		}
		s.mu.Lock()
		s.seen = r.At
		s.mu.Unlock()
	}
	return nil
}

func (c *Caller[T, E, O]) isDone(p freehold.Position) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.done[p]
}

// begin starts a call, or lines it up behind the one of its stream that runs.
func (c *Caller[T, E, O]) begin(ctx context.Context, r freehold.Recorded) error {
	decoded, err := r.Decode()
	if err != nil {
		return err
	}
	e, ok := decoded.(E)
	if !ok {
		return fmt.Errorf("%s: %s decodes to %T", c.name, r.Type, decoded)
	}
	select {
	case c.slots <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	run := func() { c.attempt(ctx, e, r) }
	c.mu.Lock()
	c.open = append(c.open, r.At)
	waiting, taken := c.busy[r.Stream]
	if taken {
		c.busy[r.Stream] = append(waiting, run)
	} else {
		c.busy[r.Stream] = nil
	}
	c.calls.Add(1)
	c.mu.Unlock()
	if !taken {
		go run()
	}
	return nil
}

// attempt calls until there is an outcome, and then lets the stream's next call go.
func (c *Caller[T, E, O]) attempt(ctx context.Context, e E, r freehold.Recorded) {
	defer c.calls.Done()
	key, pause := c.opts.Key(r), c.opts.Pause
	attempt := 0
	if r.At.Position <= c.found {
		attempt = 1
	}
	for ; ctx.Err() == nil; attempt++ {
		outcome, err := c.call(ctx, key, e, attempt)
		if err == nil {
			c.mu.Lock()
			c.results = append(c.results, result[E, O]{e, r, outcome})
			c.mu.Unlock()
			select {
			case c.finished <- struct{}{}:
			default:
			}
			break
		}
		c.opts.Log.Warn("call has no outcome yet", "caller", c.name, "key", key, "attempt", attempt, "error", err)
		sleep(ctx, pause/2+rand.N(pause/2))
		pause = min(2*pause, c.opts.MaxPause)
	}
	<-c.slots
	c.mu.Lock()
	var next func()
	if waiting := c.busy[r.Stream]; len(waiting) > 0 {
		next, c.busy[r.Stream] = waiting[0], waiting[1:]
	} else {
		delete(c.busy, r.Stream)
	}
	c.mu.Unlock()
	if next != nil {
		go next()
	}
}

// recordLoop records outcomes, all that are ready in one transaction.
func (c *Caller[T, E, O]) recordLoop(ctx context.Context) error {
	pause := c.opts.Pause
	for {
		select {
		case <-c.finished:
		case <-ctx.Done():
			return nil
		}
		c.mu.Lock()
		ready := c.results
		c.results = nil
		c.mu.Unlock()
		for len(ready) > 0 {
			left, err := c.recordAll(ctx, ready)
			if errors.Is(err, freehold.ErrLatched) || errors.Is(err, freehold.ErrClosed) || errors.Is(err, freehold.ErrFenced) {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			if ready = left; err == nil {
				pause = c.opts.Pause
				continue
			}
			c.opts.Log.Warn("outcome not recorded yet", "caller", c.name, "waiting", len(left), "error", err)
			if sleep(ctx, pause); ctx.Err() != nil {
				return nil
			}
			pause = min(2*pause, c.opts.MaxPause)
		}
	}
}

// recordAll records the outcomes in one transaction or, if that fails, each in one
// of its own. It returns those that are left.
func (c *Caller[T, E, O]) recordAll(ctx context.Context, ready []result[E, O]) (left []result[E, O], err error) {
	if err = c.recordTogether(ctx, ready); err == nil || len(ready) == 1 {
		if err != nil {
			left = ready
		}
		return left, err
	}
	for _, one := range ready {
		if oneErr := c.recordTogether(ctx, []result[E, O]{one}); oneErr != nil {
			left, err = append(left, one), oneErr
		}
	}
	if len(left) == 0 {
		err = nil
	}
	return left, err
}

func (c *Caller[T, E, O]) recordTogether(ctx context.Context, ready []result[E, O]) error {
	finished := map[freehold.Position]bool{}
	for _, one := range ready {
		finished[one.recorded.At.Position] = true
	}
	c.mu.Lock()
	from, to := c.mark, c.lowWater(finished)
	var passed []freehold.Position
	for p := range c.done {
		if p <= to.Position {
			passed = append(passed, p)
		}
	}
	c.mu.Unlock()
	_, err := c.db.Update(context.WithoutCancel(ctx), func(ctx context.Context, tx T) error {
		k := c.db.Keeper(tx)
		if to.Position > from.Position {
			if err := k.Move(ctx, c.name, from, to); err != nil {
				return err
			}
		}
		for _, p := range passed {
			if err := k.Delete(ctx, c.space(), doneKey(p)); err != nil {
				return err
			}
		}
		for _, one := range ready {
			r := one.recorded
			if r.At.Position > to.Position {
				if err := k.Put(ctx, c.space(), doneKey(r.At.Position), nil); err != nil {
					return err
				}
			}
			m := r.Meta
			if m.Correlation == "" {
				m.Correlation = r.ID
			}
			m.Causation = r.ID
			if err := c.record(freehold.WithMeta(ctx, m), tx, one.event, r, one.outcome); err != nil {
				return fmt.Errorf("%s at %s: %w", r.Type, r.At, err)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mark = to
	for _, p := range passed {
		delete(c.done, p)
	}
	open := c.open[:0]
	for _, at := range c.open {
		if !finished[at.Position] {
			open = append(open, at)
		} else if at.Position > to.Position {
			c.done[at.Position] = true
		}
	}
	c.open = open
	return nil
}

// lowWater is the place up to which all intents are finished once those given are.
func (c *Caller[T, E, O]) lowWater(finished map[freehold.Position]bool) freehold.Mark {
	low := c.mark
	for _, at := range c.open { // in order
		if !finished[at.Position] {
			return low
		}
		low = at
	}
	if c.seen.Position > low.Position {
		return c.seen
	}
	return low
}

func doneKey(p freehold.Position) string { return fmt.Sprintf("%020d", p) }

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
