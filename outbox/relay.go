package outbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/internal/fault"
	"github.com/freehold-go/freehold/journal"
	"github.com/freehold-go/freehold/transport"
)

// Options tune a relay; the zero value is good.
type Options struct {
	// Batch is how many events are published together, about. 0 is 512.
	Batch int
	// Window is how many events an empty broker gets, and how far behind the head a
	// broker that holds something is filled up; what is older is the feed's. 0 is
	// 10,000.
	Window int
	// Heartbeat is how often the head is announced, also when nothing happens. 0 is 2 s.
	Heartbeat time.Duration
	// MaxPause bounds the pauses between attempts to reach the broker. 0 is 2 s.
	MaxPause time.Duration
	// Log is where errors of the broker go. nil is slog.Default().
	Log *slog.Logger
}

// Relay publishes a journal to a broker. It is a follower whose mark is what the
// broker last holds, and keeps nothing itself. Run is called by one goroutine at a time,
// and may be called again when it has returned; the other methods are safe for concurrent
// use.
type Relay struct {
	journal *journal.Journal
	pub     transport.Publisher
	opts    Options

	told   freehold.Mark // what the journal was told that the broker holds; of the announcer
	toldAt time.Time

	published chan struct{} // a hint that something was published

	asking sync.Mutex    // one question or publication at a time
	held   freehold.Mark // what the broker holds; the zero Mark before it was asked

	mu          sync.Mutex
	diverged    func(s freehold.Source)
	follower    *follow.Follower
	restart     context.CancelFunc // ends the present follower's Run
	adopt       bool               // publish behind whatever the broker holds
	incarnation string             // that wrote the journal's newest events, as far as is known
}

// New returns the relay of a journal. A source has one relay at a time; a second
// one is refused by the broker and takes over when the first is gone.
func New(j *journal.Journal, pub transport.Publisher, o *Options) *Relay {
	r := &Relay{journal: j, pub: pub, published: make(chan struct{}, 1)}
	if o != nil {
		r.opts = *o
	}
	if r.opts.Batch <= 0 {
		r.opts.Batch = 512
	}
	if r.opts.Window <= 0 {
		r.opts.Window = 10_000
	}
	if r.opts.Heartbeat <= 0 {
		r.opts.Heartbeat = 2 * time.Second
	}
	if r.opts.MaxPause <= 0 {
		r.opts.MaxPause = 2 * time.Second
	}
	if r.opts.Log == nil {
		r.opts.Log = slog.Default()
	}
	r.renew()
	return r
}

// renew makes a follower that begins with asking the broker.
func (r *Relay) renew() *follow.Follower {
	f := follow.Into("relay", []follow.Source{r.journal}, &sink{Relay: r}, &follow.Options{Batch: r.opts.Batch, MaxPause: r.opts.MaxPause, Log: r.opts.Log})
	r.mu.Lock()
	defer r.mu.Unlock()
	f.OnDiverged(r.diverged)
	r.follower = f
	return f
}

// OnDiverged has fn called each time the broker turns out to hold what the journal does
// not. It is called before Run.
func (r *Relay) OnDiverged(fn func(s freehold.Source)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.diverged = fn
	r.follower.OnDiverged(fn)
}

// Name is the relay's name among followers.
func (r *Relay) Name() string { return "relay" }

// Status tells what the broker holds. follow.Diverged means that the broker holds
// events that the journal does not: the journal went back in time.
func (r *Relay) Status(ctx context.Context) []follow.Status { return r.current().Status(ctx) }

// WaitFor returns when the broker has taken what the token asks of the journal.
func (r *Relay) WaitFor(ctx context.Context, tok freehold.Token) error {
	return r.current().WaitFor(ctx, tok)
}

// Parked lists nothing: a relay sets no event aside.
func (r *Relay) Parked(context.Context, int) ([]follow.Parked, error) { return nil, nil }

// Retry finds nothing parked.
func (r *Relay) Retry(context.Context, freehold.Source, string) error { return follow.ErrNotParked }

// Release finds nothing parked.
func (r *Relay) Release(context.Context, freehold.Source, string) error { return follow.ErrNotParked }

// Adopt accepts that the journal went back in time: what it has now is published
// behind whatever the broker holds. Consumers that are ahead stop and ask their
// own operators. It works only while the relay is stopped as diverged.
func (r *Relay) Adopt(ctx context.Context, s freehold.Source) (freehold.Mark, error) {
	if s != r.journal.Name() {
		return freehold.Mark{}, fmt.Errorf("outbox: this is the relay of %s, not of %s", r.journal.Name(), s)
	}
	if st := r.Status(ctx)[0]; st.State != follow.Diverged {
		return st.Mark, fmt.Errorf("outbox: the broker has not diverged from %s: nothing to adopt", s)
	}
	_, head, err := r.journal.Bounds(ctx)
	if err != nil {
		return freehold.Mark{}, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.adopt = true
	if r.restart != nil {
		r.restart()
	}
	return head, nil
}

func (r *Relay) current() *follow.Follower {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.follower
}

// Run publishes until ctx ends.
func (r *Relay) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var announcing sync.WaitGroup
	announcing.Go(func() { r.announce(ctx) })
	defer announcing.Wait()
	defer cancel()
	for f := r.current(); ; f = r.renew() {
		run, restart := context.WithCancel(ctx)
		r.mu.Lock()
		r.restart = restart
		r.mu.Unlock()
		err := f.Run(run)
		restart()
		if err != nil || ctx.Err() != nil {
			return err
		}
	}
}

// check asks a broker that should hold everything whether it still does: one that
// has forgotten what it acknowledged says so only when it is asked. The follower
// then begins anew.
func (r *Relay) check(ctx context.Context) error {
	if !r.asking.TryLock() {
		return nil // publishing finds out by itself
	}
	defer r.asking.Unlock()
	if r.held == (freehold.Mark{}) {
		return nil
	}
	last, err := r.pub.Last(ctx, r.journal.Name())
	if err != nil || last.Mark == r.held {
		return err
	}
	r.opts.Log.Info("the broker does not hold what it took, publishing again", "source", r.journal.Name(), "published", r.held.Position, "held", last.Position)
	r.held = freehold.Mark{}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.restart != nil {
		r.restart()
	}
	return nil
}

// sink is the broker as a follower's sink. One goroutine uses it.
type sink struct {
	*Relay
}

// Mark asks the broker what it last holds, and says where to go on. An empty
// broker, or one that is far behind, gets a window below the head. A tail that the
// journal does not have means that the journal, not the broker, went back in time.
func (s *sink) Mark(ctx context.Context, name freehold.Source) (freehold.Mark, error) {
	if err := s.learnIncarnation(ctx); err != nil {
		return freehold.Mark{}, err
	}
	s.asking.Lock()
	defer s.asking.Unlock()
	s.held = freehold.Mark{}
	last, err := s.pub.Last(ctx, name)
	if err != nil {
		return freehold.Mark{}, fmt.Errorf("relay: what does the broker hold: %w", err)
	}
	first, head, err := s.journal.Bounds(ctx)
	if err != nil {
		return freehold.Mark{}, err
	}
	window := max(first.Position, head.Position-freehold.Position(s.opts.Window))
	if last.Position > 0 {
		own, err := s.journal.At(ctx, last.Position)
		switch {
		case errors.Is(err, freehold.ErrGone):
		case errors.Is(err, freehold.ErrDiverged), err == nil && own.Chain != last.Chain:
			s.mu.Lock()
			adopt := s.adopt
			s.mu.Unlock()
			forks, err := s.journal.Forks(ctx)
			if err != nil {
				return freehold.Mark{}, err
			}
			if _, lost := forks.Lost(last.Mark); !adopt && !lost {
				return last.Mark, fmt.Errorf("relay: the broker holds %s (%s), which this journal does not: the journal was restored to an older state: see freehold forks: %w",
					last.Mark, last.Chain, freehold.ErrDiverged)
			}
		case err != nil:
			return freehold.Mark{}, err
		default:
			window = max(window, last.Position)
		}
	}
	start, err := s.journal.At(ctx, window)
	if err != nil {
		return freehold.Mark{}, err
	}
	s.held = last.Mark
	return start, nil
}

// Apply publishes the events behind what the broker holds, which may be further back than
// where they begin.
func (s *sink) Apply(ctx context.Context, _ freehold.Mark, events []freehold.Recorded) error {
	s.asking.Lock()
	defer s.asking.Unlock()
	after := s.held
	s.held = freehold.Mark{}
	fault.Point("outbox.publish.before")
	held, err := s.pub.Publish(ctx, after, events)
	if err != nil {
		return fmt.Errorf("relay: %w", err)
	}
	fault.Point("outbox.publish.after")
	s.held = held // what was too large for the broker is not missing
	s.mu.Lock()
	s.adopt, s.incarnation = false, events[len(events)-1].Incarnation
	s.mu.Unlock()
	select {
	case s.published <- struct{}{}:
	default:
	}
	return nil
}
