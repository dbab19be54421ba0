package intent

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime/debug"
	"sync"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/internal/fault"
)

// Options tune a caller; the zero value is good.
type Options struct {
	// Pool is how many calls run at the same time. 0 is 64.
	Pool int
	// Open is how many intents may be without a recorded outcome before the caller
	// stops reading: those called, those that wait for their stream or for the next
	// attempt. 0 is 16 times Pool.
	Open int
	// Key derives the key of the calls for an event. While it panics on one, no call is
	// made for it: another key would be another call. nil is "source/event id".
	Key func(freehold.Recorded) string
	// Warm tells what recording the outcomes of these intents will use. nil tells nothing.
	Warm func(rs []freehold.Recorded) follow.Hints
	// Pause is the first pause after a failed attempt; it doubles up to MaxPause. 0 is
	// 50 ms and 10 s.
	Pause, MaxPause time.Duration
	// Log is where failed attempts go. nil is slog.Default().
	Log *slog.Logger
}

// Caller makes the calls for one type of intent. It is a follower whose stored mark
// stands below the first intent without a recorded outcome; outcomes recorded
// above it are remembered beside it. All methods are safe for concurrent use.
type Caller[T freehold.Tx, E freehold.Event, O any] struct {
	*follow.Follower
	name   string
	db     follow.DB[T]
	own    follow.Source
	opts   Options
	call   func(ctx context.Context, key string, e E, attempt int) (O, error)
	record func(ctx context.Context, tx T, done []Done[E, O]) error

	slots chan struct{} // calls that run
	room  chan struct{} // intents that are open
	ready chan struct{} // has room for one signal
	calls sync.WaitGroup

	mu      sync.Mutex
	loaded  bool // places is what is stored, and what was seen since
	stopped bool // no call begins any more
	places  places
	found   freehold.Position // the head at the start: what stands up to it may have been called before
	results []*task[E, O]     // outcomes to be recorded
	waiting map[freehold.StreamID][]*task[E, O]
	changed chan struct{} // closed and replaced when something was recorded
	moved   time.Time
}

// Done is an intent whose call has a definite outcome.
type Done[E freehold.Event, O any] struct {
	Event    E
	Recorded freehold.Recorded // the intent, as the journal has it
	Outcome  O
}

// task is an open intent.
type task[E, O any] struct {
	r       freehold.Recorded
	event   E
	attempt int
	key     string // of its calls, once the function of keys has told it
	keyed   bool
	outcome O
	// of a record that failed
	pause time.Duration
	again time.Time
}

// New returns the caller name for the events E of the service's own journal. call
// is made outside transactions and returns the definite outcome, or an error if
// it does not know. record stores the outcomes that are there, one or several, in one
// transaction; if it fails with several, each is recorded alone. The conversation of
// each is carried on by freehold.WithMeta(ctx, d.Recorded.Caused()). Attempts count from 0. An intent that
// the caller finds at its start begins at 1: an earlier run may have made the
// call, so that what became of it is to be asked first.
func New[T freehold.Tx, E freehold.Event, O any](name string, db follow.DB[T], own follow.Source, o *Options,
	call func(ctx context.Context, key string, e E, attempt int) (O, error),
	record func(ctx context.Context, tx T, done []Done[E, O]) error) (*Caller[T, E, O], error) {
	var zero E
	if !own.Types().Knows(zero.EventType()) {
		return nil, fmt.Errorf("intent %s: the journal's catalog does not have %s", name, zero.EventType())
	}
	c := &Caller[T, E, O]{name: "intent_" + name, db: db, own: own, call: call, record: record, ready: make(chan struct{}, 1), changed: make(chan struct{})}
	if o != nil {
		c.opts = *o
	}
	if c.opts.Pool <= 0 {
		c.opts.Pool = 64
	}
	if c.opts.Open <= 0 {
		c.opts.Open = 16 * c.opts.Pool
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
	c.Follower = follow.Into(c.name, []follow.Source{own}, sink[T, E, O]{c}, &follow.Options{Log: c.opts.Log})
	return c, nil
}

// Run makes calls until ctx ends. Calls under way are cancelled then, outcomes that
// are there are recorded, and the other calls are made again at the next start. It
// may be called again after it has returned.
func (c *Caller[T, E, O]) Run(ctx context.Context) error {
	c.mu.Lock()
	c.loaded, c.stopped, c.results, c.waiting = false, false, nil, map[freehold.StreamID][]*task[E, O]{}
	c.slots, c.room = make(chan struct{}, c.opts.Pool), make(chan struct{}, c.opts.Open)
	c.mu.Unlock()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop, recorded := make(chan struct{}), make(chan error, 1)
	go func() {
		defer cancel()
		recorded <- c.recordAll(ctx, stop)
	}()
	err := c.Follower.Run(ctx)
	cancel()
	c.mu.Lock()
	c.stopped = true
	c.mu.Unlock()
	c.calls.Wait()
	close(stop)
	if recordErr := <-recorded; recordErr != nil {
		return fmt.Errorf("%s: %w", c.name, recordErr)
	}
	return err
}

// Stand does nothing: where the caller is, is its own affair.
func (c *Caller[T, E, O]) Stand(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

// sink takes events from the follower and starts their calls.
type sink[T freehold.Tx, E freehold.Event, O any] struct{ *Caller[T, E, O] }

// Mark is the stored place at the start, and then the last event handed over.
func (s sink[T, E, O]) Mark(ctx context.Context, source freehold.Source) (freehold.Mark, error) {
	s.mu.Lock()
	seen, loaded := s.places.seen, s.loaded
	s.mu.Unlock()
	if loaded {
		return seen, nil
	}
	stored, err := s.stored(ctx)
	if err != nil {
		return stored.mark, err
	}
	p, err := newPlaces(stored)
	if err != nil {
		return stored.mark, fmt.Errorf("%s: %w", s.name, err)
	}
	_, head, err := follow.Fresh(ctx, s.own) // another instance may have called what it wrote last
	if err != nil {
		return stored.mark, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.places, s.found, s.loaded = p, head.Position, true
	return stored.mark, nil
}

// Apply starts the calls of the intents among the events. It waits while too many
// are open.
func (s sink[T, E, O]) Apply(ctx context.Context, _ freehold.Mark, events []freehold.Recorded) error {
	var zero E
	name := zero.EventType().Name
	for _, r := range events {
		if r.Type.Name != name {
			s.pass(r)
			continue
		}
		select {
		case s.room <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
		s.begin(ctx, r)
	}
	s.mu.Lock()
	far := s.places.far()
	s.mu.Unlock()
	if far {
		s.signal()
	}
	return nil
}

func (c *Caller[T, E, O]) pass(r freehold.Recorded) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.places.pass(r.At)
}

// begin starts a call, or lines it up behind the one of its stream.
func (c *Caller[T, E, O]) begin(ctx context.Context, r freehold.Recorded) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.places.open(r.At) {
		<-c.room // recorded by an earlier run
		return
	}
	t := &task[E, O]{r: r}
	if r.At.Position <= c.found {
		t.attempt = 1
	}
	behind, taken := c.waiting[r.Stream]
	if taken {
		c.waiting[r.Stream] = append(behind, t)
		return
	}
	c.waiting[r.Stream] = nil
	c.start(ctx, t)
}

// start runs a task's attempts. It is called with mu held.
func (c *Caller[T, E, O]) start(ctx context.Context, t *task[E, O]) {
	if c.stopped {
		return
	}
	c.calls.Add(1)
	go func() {
		defer c.calls.Done()
		c.attempts(ctx, t)
	}()
}

// attempts calls until there is an outcome. A place of the pool is held during
// calls only, not during pauses.
func (c *Caller[T, E, O]) attempts(ctx context.Context, t *task[E, O]) {
	pause := c.opts.Pause
	ctx = freehold.WithMeta(ctx, t.r.Caused())
	for ; ; t.attempt++ {
		select {
		case c.slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		err := c.inSlot(ctx, t)
		if err == nil {
			c.mu.Lock()
			c.results = append(c.results, t)
			c.mu.Unlock()
			c.signal()
			return
		}
		if ctx.Err() != nil {
			return
		}
		c.opts.Log.Warn("call has no outcome yet", "caller", c.name, "event", t.r.At.String(), "key", t.key, "attempt", t.attempt, "error", err)
		sleep(ctx, pause/2+rand.N(pause/2+1))
		pause = min(2*pause, c.opts.MaxPause)
	}
}

// inSlot makes one call, and gives its place of the pool back, also if the call ends its
// goroutine.
func (c *Caller[T, E, O]) inSlot(ctx context.Context, t *task[E, O]) error {
	defer func() { <-c.slots }()
	return c.callOnce(ctx, t)
}

// callOnce makes one call. What it, or the function of keys, panics with is its error.
func (c *Caller[T, E, O]) callOnce(ctx context.Context, t *task[E, O]) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("call panicked: %v\n%s", p, debug.Stack())
		}
	}()
	decoded, err := t.r.Decode()
	if err != nil {
		return err
	}
	e, ok := decoded.(E)
	if !ok {
		return fmt.Errorf("%s decodes to %T", t.r.Type, decoded)
	}
	t.event = e
	if !t.keyed {
		t.key, t.keyed = c.opts.Key(t.r), true // a panic leaves it as it was
	}
	fault.Point("intent.call.before")
	t.outcome, err = c.call(ctx, t.key, e, t.attempt)
	fault.Point("intent.call.after")
	return err
}

func (c *Caller[T, E, O]) signal() {
	select {
	case c.ready <- struct{}{}:
	default:
	}
}

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
