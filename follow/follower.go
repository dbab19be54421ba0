package follow

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/internal/mutant"
	"github.com/freehold-go/freehold/journal"
)

// Options tune a follower; the zero value is good.
type Options struct {
	// Batch is how many events are read and applied together, about: batches end at
	// transaction boundaries. 0 is 256.
	Batch int
	// Attempts is how often a failing event is tried before it is parked. 0 is 5.
	Attempts int
	// Starts is how often the process may die on an event before it is parked. 0 is 3.
	Starts int
	// Key says which events are held back together when one of them is parked: any
	// text, also none. An event on which it panics goes by its stream, and if it is
	// parked all that follows in the stream waits; with Lanes, but for what is in the
	// same batch. nil is by stream.
	Key func(freehold.Recorded) string
	// Lanes is how many transactions apply events at the same time, those of one Key
	// in one lane: for handlers whose effects commute across keys, on engines with
	// round trips. Never where who comes first matters, such as for the last item in
	// stock. The events of a transaction may be applied in several. It may be changed
	// from start to start. 0 is 1: one after the other.
	Lanes int
	// Warm tells what the handlers of a batch will use; see [Hints]. nil tells nothing.
	Warm func(rs []freehold.Recorded) Hints
	// Pause is the first pause after an error; it doubles up to MaxPause. 0 is 10 ms
	// and 5 s.
	Pause, MaxPause time.Duration
	// Log is where errors go that the follower recovers from. nil is slog.Default().
	Log *slog.Logger
}

func (o *Options) withDefaults() Options {
	var opts Options
	if o != nil {
		opts = *o
	}
	if opts.Batch <= 0 {
		opts.Batch = 256
	}
	if opts.Attempts <= 0 {
		opts.Attempts = 5
	}
	if opts.Starts <= 0 {
		opts.Starts = 3
	}
	if opts.Lanes <= 0 {
		opts.Lanes = 1
	}
	if opts.Key == nil {
		opts.Key = func(r freehold.Recorded) string { return string(r.Stream) }
	}
	if opts.Pause <= 0 {
		opts.Pause = 10 * time.Millisecond
	}
	if opts.MaxPause <= 0 {
		opts.MaxPause = 5 * time.Second
	}
	if opts.Log == nil {
		opts.Log = slog.Default()
	}
	return opts
}

// Follower reads sources in order, with a place in each. All methods are safe for
// concurrent use, but for Run: one call at a time, and again when it has returned.
type Follower struct {
	name  string
	sink  Sink
	opts  Options
	feeds []*feed

	wanted   chan struct{}           // has room for one signal: somebody waits for a token
	diverged func(s freehold.Source) // nil: nobody wants to know
}

// feed is a follower's reading of one source.
type feed struct {
	source Source

	mu       sync.Mutex
	place    freehold.Mark
	known    bool          // place has been read from the sink
	reread   bool          // read it again
	changed  chan struct{} // closed and replaced when place or state changes
	state    State
	err      error
	since    time.Time // of the state
	moved    time.Time // when place last changed
	requests []*request
	wake     context.CancelFunc // ends the current wait for the source
	waiters  int                // calls that wait for a token
	forks    journal.Forks      // of the source, as far as they were asked for
}

// New returns a follower whose mark stands beside its effects in db. The name is
// that of the mark: two followers with one name on one database would fence each
// other.
func New[T freehold.Tx](name string, db DB[T], sources []Source, opts *Options, routes ...Route[T]) (*Follower, error) {
	rt, err := newRouter(sources, routes)
	if err != nil {
		return nil, fmt.Errorf("follower %s: %w", name, err)
	}
	seen := map[freehold.Source]bool{}
	for _, s := range sources {
		if seen[s.Name()] {
			return nil, fmt.Errorf("follower %s: source %s given twice", name, s.Name())
		}
		seen[s.Name()] = true
	}
	o := opts.withDefaults()
	sink := &databaseSink[T]{follower: name, db: db, router: rt, opts: o,
		parked: &parkedKeys{}, starts: &starts{}, lanes: &laneTable{}, together: &together{}, passed: &passed{}, hand: &inHand{}, incarnations: &incarnations{}}
	return newFollower(name, sources, sink, &o), nil
}

func newFollower(name string, sources []Source, sink Sink, opts *Options) *Follower {
	f := &Follower{name: name, sink: sink, opts: opts.withDefaults(), wanted: make(chan struct{}, 1)}
	for _, s := range sources {
		f.feeds = append(f.feeds, &feed{source: s, changed: make(chan struct{}), place: freehold.Mark{Source: s.Name()}, state: Stopped, since: time.Now()})
	}
	return f
}

// Name is the follower's name.
func (f *Follower) Name() string { return f.name }

// OnDiverged has fn called each time a source turns out not to have the follower's
// place any more, from the goroutine that follows it: when it stops as diverged, and also
// when it merely goes back to its stored mark, of which the source may well know, and goes
// on. It is called before Run.
func (f *Follower) OnDiverged(fn func(s freehold.Source)) { f.diverged = fn }

// starter is a sink that wants to know when the follower starts and stops.
type starter interface {
	start(ctx context.Context, s freehold.Source) error
	stop(ctx context.Context, s freehold.Source) error
}

// Run follows all sources until ctx ends, then finishes the batch in hand and
// returns nil. It returns early only if the database can no longer be used, or if a
// handler ended its goroutine instead of returning. Behind that it may be called again:
// an event whose handler exits is parked like one that kills the process.
func (f *Follower) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var running sync.WaitGroup
	running.Go(func() { f.heed(ctx) })
	for _, fd := range f.feeds {
		running.Go(func() {
			err := errExited // unless it returns
			defer func() {
				if err != nil {
					fd.set(Failed, err)
					cancel(err)
				}
			}()
			err = f.follow(ctx, fd)
		})
	}
	running.Wait()
	if err := context.Cause(ctx); err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("follower %s: %w", f.name, err)
	}
	return nil
}

// follow is the loop: find the place, read behind it, check, apply.
func (f *Follower) follow(ctx context.Context, fd *feed) error {
	name := fd.source.Name()
	defer fd.turnAway()
	pause := f.opts.Pause
	begun := false
	for ctx.Err() == nil {
		err := f.pass(ctx, fd, &begun, func() { pause = f.opts.Pause })
		switch {
		case ctx.Err() != nil || err == nil:
		case (errors.Is(err, freehold.ErrDiverged) || errors.Is(err, freehold.ErrGone)) && f.goBack(name):
			f.opts.Log.Warn("goes on from the stored mark", "follower", f.name, "source", name, "error", err)
			if f.diverged != nil && errors.Is(err, freehold.ErrDiverged) {
				f.diverged(name)
			}
			sleep(ctx, f.opts.Pause)
		case errors.Is(err, freehold.ErrGone) && f.beginAgain(name):
			f.opts.Log.Warn("begins again at the head: the source has cut what it had not read", "follower", f.name, "source", name, "error", err)
			sleep(ctx, f.opts.Pause)
		case errors.Is(err, freehold.ErrLatched), errors.Is(err, freehold.ErrClosed), errors.Is(err, errExited):
			fd.set(Failed, err)
			return err
		case errors.Is(err, freehold.ErrDiverged), errors.Is(err, freehold.ErrGone):
			f.opts.Log.Error("source stopped", "follower", f.name, "source", name, "error", err)
			fd.set(Diverged, err)
			if f.diverged != nil && errors.Is(err, freehold.ErrDiverged) {
				f.diverged(name)
			}
			f.standStill(ctx, fd)
		default:
			level := slog.LevelDebug // a source that restarts is nothing to worry about
			if pause >= time.Second {
				level = slog.LevelWarn
			}
			f.opts.Log.Log(ctx, level, "follower pauses", "follower", f.name, "source", name, "for", pause, "error", err)
			fd.set(Retrying, err)
			if errors.Is(err, freehold.ErrFenced) {
				pause = f.opts.Pause // the other instance gets on
			}
			sleep(ctx, pause/2+rand.N(pause/2+1))
			pause = min(2*pause, f.opts.MaxPause)
		}
	}
	if s, ok := f.sink.(starter); ok && begun {
		stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		if err := s.stop(stopCtx, name); err != nil {
			f.opts.Log.Warn("clean stop not recorded", "follower", f.name, "source", name, "error", err)
		}
	}
	return nil
}

// pass finds the place and then reads and applies until something fails.
func (f *Follower) pass(ctx context.Context, fd *feed, begun *bool, progress func()) error {
	place, err := f.sink.Mark(ctx, fd.source.Name())
	if err != nil {
		return err
	}
	if s, ok := f.sink.(starter); ok && !*begun {
		if err := s.start(ctx, fd.source.Name()); err != nil {
			return err
		}
	}
	*begun = true
	fd.arrive(place)
	f.tell(fd, place)
	switch err := f.lookAhead(ctx, fd, place, progress); {
	case err == errMoved:
		return nil
	case err != nil:
		return err
	}
	fd.set(Running, nil)
	for ctx.Err() == nil {
		if f.serve(ctx, fd) == errMoved {
			return nil
		}
		events, err := fd.source.Read(ctx, place, f.opts.Batch)
		if err != nil {
			return err
		}
		if len(events) == 0 {
			if err := f.rest(ctx, fd, place); err != nil {
				return err
			}
			continue
		}
		next, err := deal(place, events)
		if err != nil {
			return err
		}
		if len(next) == 0 {
			continue
		}
		if err := f.sink.Apply(ctx, place, next); err != nil {
			return err
		}
		place = next[len(next)-1].At
		fd.arrive(place)
		f.tell(fd, place)
		fd.set(Running, nil)
		progress()
	}
	return nil
}

// compare finds out, before anything is read, whether the source still has the
// place: a source that ends below it, or has another hash there, went back.
func (f *Follower) compare(ctx context.Context, fd *feed, place freehold.Mark) error {
	_, head, err := Fresh(ctx, fd.source)
	if err != nil {
		return err
	}
	if head.Position < place.Position || head.Position == place.Position && head.Chain != place.Chain {
		return fmt.Errorf("%s stands at %s (%s), the source's head is %d (%s): see freehold forks: %w",
			f.name, place, place.Chain, head.Position, head.Chain, freehold.ErrDiverged)
	}
	return nil
}

// deal checks events against the reading place: duplicates are dropped, each event
// must be the next one and continue the chain, and a gap ends the batch.
func deal(place freehold.Mark, events []freehold.Recorded) ([]freehold.Recorded, error) {
	if mutant.DealBeforeGapCheck {
		return events, nil
	}
	skip := 0
	for skip < len(events) && events[skip].At.Position <= place.Position && !mutant.DropDuplicateCheck {
		skip++
	}
	events = events[skip:]
	for i := range events {
		r := &events[i]
		if r.At.Position > place.Position+1 {
			if i == 0 {
				return nil, fmt.Errorf("follow: gap: %s continues at %d behind %d", place.Source, r.At.Position, place.Position)
			}
			return events[:i], nil
		}
		if r.At.Chain != journal.Chain(place.Chain, r.At.Position, r.Digest) && !mutant.DropDuplicateCheck {
			return nil, fmt.Errorf("follow: %s at %d does not continue the chain of %s: see freehold forks: %w", place.Source, r.At.Position, place, freehold.ErrDiverged)
		}
		place = r.At
	}
	return events, nil
}

func (fd *feed) arrive(place freehold.Mark) {
	fd.mu.Lock()
	defer fd.mu.Unlock()
	if fd.known && fd.place == place {
		return
	}
	fd.place, fd.known, fd.moved = place, true, time.Now()
	fd.broadcast()
}

func (fd *feed) broadcast() {
	close(fd.changed)
	fd.changed = make(chan struct{})
}

func (fd *feed) set(s State, err error) {
	fd.mu.Lock()
	defer fd.mu.Unlock()
	if fd.state == s && fd.err == nil && err == nil {
		return
	}
	if fd.state != s {
		fd.since = time.Now()
	}
	fd.state, fd.err = s, err
	fd.broadcast()
}

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
