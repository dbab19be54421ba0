package outbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/internal/fault"
	"github.com/freehold-go/freehold/journal"
	"github.com/freehold-go/freehold/transport"
)

// Options tune a relay; the zero value is good.
type Options struct {
	// Window is how many events an empty broker gets; what is older is the feed's. 0
	// is 10,000.
	Window int
	// Heartbeat is how often the head is announced, also when nothing happens. 0 is 2 s.
	Heartbeat time.Duration
	// Log is where errors of the broker go. nil is slog.Default().
	Log *slog.Logger
}

// Relay publishes a journal to a broker. It is a follower whose place is what the
// broker last holds.
type Relay struct {
	*follow.Follower
	journal *journal.Journal
	pub     transport.Publisher
	opts    Options
}

// New returns the relay of a journal.
func New(j *journal.Journal, pub transport.Publisher, o *Options) *Relay {
	r := &Relay{journal: j, pub: pub}
	if o != nil {
		r.opts = *o
	}
	if r.opts.Window <= 0 {
		r.opts.Window = 10_000
	}
	if r.opts.Heartbeat <= 0 {
		r.opts.Heartbeat = 2 * time.Second
	}
	if r.opts.Log == nil {
		r.opts.Log = slog.Default()
	}
	r.Follower = follow.Into("relay", []follow.Source{j}, sink{r}, &follow.Options{Log: r.opts.Log})
	return r
}

// Run publishes until ctx ends.
func (r *Relay) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	announced := make(chan struct{})
	go func() {
		defer close(announced)
		r.announce(ctx)
	}()
	err := r.Follower.Run(ctx)
	cancel()
	<-announced
	return err
}

// announce tells consumers the head, so that they notice a lost tail.
func (r *Relay) announce(ctx context.Context) {
	tick := time.NewTicker(r.opts.Heartbeat)
	defer tick.Stop()
	for {
		_, head, err := r.journal.Bounds(ctx)
		if err == nil {
			var openings []journal.Incarnation
			if openings, err = r.journal.Incarnations(ctx); err == nil && len(openings) > 0 {
				err = r.pub.Announce(ctx, transport.Head{Mark: head, Incarnation: openings[len(openings)-1].ID})
			}
		}
		if err != nil && ctx.Err() == nil {
			r.opts.Log.Debug("head not announced", "source", r.journal.Name(), "error", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// sink is the broker as a follower's sink.
type sink struct{ *Relay }

// Mark asks the broker what it last holds. An empty broker begins a window below
// the head. A tail that the journal does not have means that the journal, not the
// broker, went back in time.
func (s sink) Mark(ctx context.Context, name freehold.Source) (freehold.Mark, error) {
	last, err := s.pub.Last(ctx, name)
	if err != nil {
		return freehold.Mark{}, fmt.Errorf("relay: what does the broker hold: %w", err)
	}
	if last.Position == 0 {
		first, head, err := s.journal.Bounds(ctx)
		if err != nil {
			return freehold.Mark{}, err
		}
		return s.journal.At(ctx, max(first.Position, head.Position-freehold.Position(s.opts.Window)))
	}
	own, err := s.journal.At(ctx, last.Position)
	if errors.Is(err, freehold.ErrDiverged) || err == nil && own.Chain != last.Chain {
		return last.Mark, fmt.Errorf("relay: the broker holds %s (%s), which this journal does not: it was restored to an older state: %w", last.Mark, last.Chain, freehold.ErrDiverged)
	}
	return own, err
}

// Apply publishes events behind a mark.
func (s sink) Apply(ctx context.Context, from freehold.Mark, events []freehold.Recorded) error {
	fault.Point("outbox.publish.before")
	if err := s.pub.Publish(ctx, from, events); err != nil {
		return fmt.Errorf("relay: %w", err)
	}
	fault.Point("outbox.publish.after")
	return nil
}
