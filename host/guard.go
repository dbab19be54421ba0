package host

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/journal"
)

// A database that was restored to an older state does not know it. Those who have
// followed its journal do: so before the first command of each start, and before any
// follower runs, a service asks them where they stand. Who stands at a place that the
// journal does not have proves that it went back in time.

// When everybody is asked again.
const (
	lookAround  = 2 * time.Second        // for what other instances have recorded, and those that have not answered
	lookAgain   = 300 * time.Millisecond // while the service is stopped by a fork
	ownDatabase = 200 * time.Millisecond // while the service's own journal cannot be read
	// examineWithin is how long the own database may take to answer.
	examineWithin = 20 * time.Second
)

// Ahead is a follower that has applied events which this journal does not have.
type Ahead struct {
	Service string `json:"service"` // base URL, or empty for a follower of this service
	follow.Seen
}

// Stopped says why a service takes no commands.
type Stopped struct {
	Fork   journal.Fork `json:"fork"`
	Ahead  []Ahead      `json:"ahead"`            // who has applied what was lost and has not been told to go on
	Silent []Silent     `json:"silent,omitempty"` // services that have not answered
}

// guard asks, records forks, and keeps commands out while one is not settled. Each
// instance of a service has one; what they agree on is in the database.
type guard struct {
	host   *Host
	http   *http.Client
	within time.Duration // how long one round of questions may take
	first  chan struct{} // closed when everybody was asked once
	poke   chan struct{} // somebody was told that his place is not in the journal
	proved func()        // is called between the proof of a fork and its record, for tests

	// Of run.
	fork     freehold.Epoch    // the newest that this instance knows of
	whole    bool              // everybody has answered since there was a reason to ask
	answered map[string]bool   // who has
	reasons  map[string]string // why others have not, as it was logged

	mu    sync.Mutex
	armed bool           // the host runs
	why   string         // nobody was asked yet
	epoch freehold.Epoch // that everybody was last asked in
	stop  *Stopped       // nil: commands are taken
}

func newGuard(h *Host) *guard {
	return &guard{
		host: h, http: &http.Client{}, within: askWithin, first: make(chan struct{}), poke: make(chan struct{}, 1),
		proved:   func() {},
		answered: map[string]bool{}, reasons: map[string]string{}, why: "its own database has not answered",
	}
}

// run asks until ctx ends: once, again while it is not settled, whenever somebody
// turns out to have another history, and when another instance has recorded a fork.
func (g *guard) run(ctx context.Context) {
	once := sync.OnceFunc(func() { close(g.first) })
	ask := true
	for ctx.Err() == nil {
		pause := lookAround
		switch stopped, err := g.examine(ctx, ask); {
		case errors.Is(err, freehold.ErrLatched), errors.Is(err, freehold.ErrClosed):
			once() // the runners will end the host
		case errors.Is(err, freehold.ErrFenced):
			pause = ownDatabase // another instance has just recorded what this one has found
		case err != nil:
			g.host.log.Warn("nobody can be asked yet whether the database went back in time", "error", err)
			g.mu.Lock()
			g.why = err.Error()
			g.mu.Unlock()
			pause = ownDatabase
		default:
			once()
			if ask = stopped || !g.whole; stopped {
				pause = lookAgain
			}
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-g.poke:
			ask = true
			clear(g.answered)
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// suspect has everybody asked again.
func (g *guard) suspect() {
	select {
	case g.poke <- struct{}{}:
	default:
	}
}

// watch has everybody asked again when a runner finds out that the journal does not
// have its place.
func (g *guard) watch(r Runner) {
	if f, ok := r.(interface {
		OnDiverged(fn func(s freehold.Source))
	}); ok {
		f.OnDiverged(func(s freehold.Source) {
			if s == g.host.journal.Name() {
				g.suspect()
			}
		})
	}
}

// examine asks everybody once, records a fork if somebody holds what the journal does
// not, and decides whether commands are taken. Without ask it only looks whether
// another instance has recorded a fork, and asks if one has. freehold.ErrFenced means
// that another one has done so meanwhile: what it recorded may explain everything.
func (g *guard) examine(ctx context.Context, ask bool) (stopped bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, examineWithin+g.within)
	defer cancel()
	j := g.host.journal
	_, head, err := j.Fresh(ctx)
	if err != nil {
		return false, err
	}
	forks, err := j.Forks(ctx)
	if err != nil {
		return false, err
	}
	if !ask && forks.Present() == g.fork && !forks.Open() {
		return false, nil
	}
	all, silent, whole := g.ask(ctx)
	g.whole = whole
	var ahead, unexplained []Ahead
	for _, a := range all {
		in, err := g.holds(ctx, a.Mark)
		if err != nil {
			return false, err
		}
		if in {
			continue
		}
		if _, lost := forks.Lost(a.Mark); !lost {
			unexplained = append(unexplained, a)
		}
		if a.Follower != relayName || a.Service != "" {
			ahead = append(ahead, a)
		}
	}
	if len(unexplained) > 0 {
		g.mu.Lock()
		g.epoch = "none" // no command passes any more, from here to where the fork is open
		g.mu.Unlock()
		g.proved()
		f, err := g.record(ctx, forks, unexplained)
		if err != nil {
			return false, err
		}
		forks = append(forks, f)
	}
	g.learn(forks.Present())
	var stop *Stopped
	if forks.Open() {
		if f := forks[len(forks)-1]; len(ahead) == 0 && len(silent) == 0 {
			// Nobody's effects are of what was lost.
			if err := j.Settle(ctx, f); err != nil {
				return false, err
			}
			g.host.log.Info("fork settled, commands are taken", "epoch", f.Epoch, "base", f.Base.Position)
		} else {
			stop = &Stopped{Fork: f, Ahead: append([]Ahead{}, ahead...), Silent: silent}
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.stop == nil && stop != nil {
		g.host.log.Error("stopped by a fork: commands are refused", "detail", stop.detail(j.Name(), g.host.URL()))
	}
	g.stop, g.epoch = stop, head.Epoch
	if len(forks) > 0 {
		g.epoch = forks.Present()
	}
	return stop != nil, nil
}

// learn tells runners of forks that are new to this instance, whoever recorded them.
func (g *guard) learn(fork freehold.Epoch) {
	if fork == g.fork {
		return
	}
	g.fork = fork
	for _, r := range g.host.runners {
		if r, ok := r.Runner.(interface{ Forked() }); ok {
			r.Forked()
		}
	}
}

// relayName is the follower that stands for the broker. What it holds proves a fork;
// nobody's effects depend on it.
const relayName = "relay"

// record records a fork at the last place that this journal shares with all of them.
func (g *guard) record(ctx context.Context, seen journal.Forks, with []Ahead) (journal.Fork, error) {
	j := g.host.journal
	openings, err := j.Incarnations(ctx)
	if err != nil {
		return journal.Fork{}, err
	}
	_, base, err := j.Fresh(ctx)
	if err != nil {
		return journal.Fork{}, err
	}
	var reasons []string
	var ended []freehold.Epoch
	for _, a := range with {
		if at := parting(a, openings); at.Position < base.Position {
			base = at
		}
		reasons = append(reasons, fmt.Sprintf("%s stands at %s (%s)", strings.TrimSpace(a.Service+" "+a.Follower), a.Mark, a.Mark.Chain))
		ended = append(ended, a.Mark.Epoch)
	}
	f, err := j.Fork(ctx, seen, base, strings.Join(reasons, "; "), ended...)
	if err != nil {
		return f, err
	}
	g.host.log.Error("the database went back in time: a fork is recorded", "epoch", f.Epoch, "base", f.Base.Position, "reason", f.Reason)
	return f, nil
}

// parting is where this journal's history parts from what somebody has seen of it. A
// consumer knows all openings that it has seen. The broker is asked for its last event
// only: if that opening is unknown here, it began behind the base, and the base is the
// newest start below that event.
func parting(a Ahead, openings []journal.Incarnation) freehold.Mark {
	seen := func(id string) bool { return slices.Contains(a.Incarnations, id) }
	if a.Follower == relayName && a.Service == "" && !slices.ContainsFunc(openings, func(o journal.Incarnation) bool { return seen(o.ID) }) {
		var base freehold.Mark
		for _, o := range openings {
			if o.Start.Position < a.Mark.Position {
				base = o.Start
			}
		}
		return base
	}
	base, ok := journal.Parting(seen, openings)
	if !ok {
		return openings[len(openings)-1].Start
	}
	return base
}

// holds reports whether the journal has a mark, as far as it can tell: what has been
// archived is not held against anybody.
func (g *guard) holds(ctx context.Context, m freehold.Mark) (bool, error) {
	if m.Position == 0 {
		return true, nil
	}
	at, err := g.host.journal.At(ctx, m.Position)
	switch {
	case errors.Is(err, freehold.ErrDiverged):
		return false, nil
	case errors.Is(err, freehold.ErrGone):
		return true, nil
	}
	return at.Chain == m.Chain, err
}
