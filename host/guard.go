package host

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
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

// How long one round of questions may take, and when the next one is.
const (
	askWithin   = 2 * time.Second
	askAgain    = 2 * time.Second        // while somebody has not answered since the start
	lookAgain   = 300 * time.Millisecond // while the service is stopped by a fork
	ownDatabase = 200 * time.Millisecond // while the service's own journal cannot be read
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
	Silent []string     `json:"silent,omitempty"` // services that have not answered
}

// guard asks, records forks, and keeps commands out while one is not settled.
type guard struct {
	host  *Host
	http  *http.Client
	first chan struct{} // closed when everybody was asked once
	poke  chan struct{} // somebody was told that his place is not in the journal

	mu    sync.Mutex
	armed bool     // the host runs
	stop  *Stopped // nil: commands are taken
}

func newGuard(h *Host) *guard {
	return &guard{host: h, http: &http.Client{Timeout: askWithin}, first: make(chan struct{}), poke: make(chan struct{}, 1)}
}

// run asks until ctx ends: once, again while it is not settled, and whenever a reader
// of the feed turns out to have another history.
func (g *guard) run(ctx context.Context) {
	once := sync.OnceFunc(func() { close(g.first) })
	answered := map[string]bool{}
	for ctx.Err() == nil {
		var pause <-chan time.Time
		switch stopped, err := g.examine(ctx, answered); {
		case errors.Is(err, freehold.ErrLatched), errors.Is(err, freehold.ErrClosed):
			once() // the runners will end the host
		case err != nil:
			g.host.log.Warn("nobody can be asked yet whether the database went back in time", "error", err)
			pause = time.After(ownDatabase)
		default:
			once()
			if stopped {
				pause = time.After(lookAgain)
			} else if len(answered) < len(g.host.opts.Consumers) {
				pause = time.After(askAgain)
			}
		}
		select {
		case <-pause:
		case <-g.poke:
		case <-ctx.Done():
		}
	}
}

// suspect has everybody asked again.
func (g *guard) suspect() {
	select {
	case g.poke <- struct{}{}:
	default:
	}
}

// examine asks everybody once, records a fork if somebody holds what the journal does
// not, and decides whether commands are taken.
func (g *guard) examine(ctx context.Context, answered map[string]bool) (stopped bool, err error) {
	j := g.host.journal
	forks, err := j.Forks(ctx)
	if err != nil {
		return false, err
	}
	all, silent := g.ask(ctx, answered)
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
		f, err := g.record(ctx, unexplained)
		if err != nil {
			return false, err
		}
		forks = append(forks, f)
	}
	var stop *Stopped
	if n := len(forks); n > 0 && forks[n-1].Settled.IsZero() {
		if len(ahead) == 0 && len(silent) == 0 {
			// Nobody's effects are of what was lost.
			if err := j.Settle(ctx, forks[n-1]); err != nil {
				return false, err
			}
			g.host.log.Info("fork settled, commands are taken", "epoch", forks[n-1].Epoch, "base", forks[n-1].Base.Position)
		} else {
			stop = &Stopped{Fork: forks[n-1], Ahead: append([]Ahead{}, ahead...), Silent: silent}
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.stop == nil && stop != nil {
		g.host.log.Error("stopped by a fork: commands are refused", "detail", stop.detail(j.Name(), g.host.URL()))
	}
	g.stop = stop
	return stop != nil, nil
}

// relayName is the follower that stands for the broker. What it holds proves a fork;
// nobody's effects depend on it.
const relayName = "relay"

// record records a fork at the last place that this journal shares with all of them.
func (g *guard) record(ctx context.Context, with []Ahead) (journal.Fork, error) {
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
	f, err := j.Fork(ctx, base, strings.Join(reasons, "; "), ended...)
	if err != nil {
		return f, err
	}
	g.host.log.Error("the database went back in time: a fork is recorded", "epoch", f.Epoch, "base", f.Base.Position, "reason", f.Reason)
	for _, r := range g.host.runners {
		if r, ok := r.Runner.(interface{ Forked() }); ok {
			r.Forked()
		}
	}
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

// ask asks the service's own followers, the broker and the consumers where they stand
// in the journal. Those that do not answer in time are silent; a broker that does not
// is no reason to wait.
func (g *guard) ask(ctx context.Context, answered map[string]bool) (all []Ahead, silent []string) {
	ctx, cancel := context.WithTimeout(ctx, askWithin)
	defer cancel()
	var mu sync.Mutex
	var asking sync.WaitGroup
	source := g.host.journal.Name()
	for _, r := range g.host.runners {
		if s, ok := r.Runner.(seer); ok {
			asking.Go(func() {
				seen, err := s.Seen(ctx, source)
				if err != nil {
					return // it does not follow this journal, or cannot be asked
				}
				mu.Lock()
				defer mu.Unlock()
				all = append(all, Ahead{Seen: seen})
			})
		}
	}
	for _, service := range g.host.opts.Consumers {
		asking.Go(func() {
			seen, err := g.marks(ctx, service)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				silent = append(silent, service)
				return
			}
			answered[service] = true
			for _, s := range seen {
				all = append(all, Ahead{Service: service, Seen: s})
			}
		})
	}
	asking.Wait()
	slices.Sort(silent)
	return all, silent
}

// seer is a follower that tells what it has seen of a source.
type seer interface {
	Seen(ctx context.Context, s freehold.Source) (follow.Seen, error)
}

// marks asks a consumer, by any of its instances.
func (g *guard) marks(ctx context.Context, service string) (seen []follow.Seen, err error) {
	for instance := range strings.SplitSeq(service, ",") {
		if seen, err = g.marksOf(ctx, strings.TrimSuffix(strings.TrimSpace(instance), "/")); err == nil {
			return seen, nil
		}
	}
	return nil, err
}

func (g *guard) marksOf(ctx context.Context, base string) ([]follow.Seen, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/operator/marks?"+url.Values{"source": {string(g.host.journal.Name())}}.Encode(), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+g.host.opts.Token)
	resp, err := g.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("host: marks of %s: %s", base, resp.Status)
	}
	var seen []follow.Seen
	return seen, json.NewDecoder(resp.Body).Decode(&seen)
}

// stopped says why commands are refused, or nil.
func (g *guard) stopped() *Stopped {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.stop
}

func (g *guard) arm() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.armed = true
}

// detail says what happened and what to do.
func (s *Stopped) detail(name freehold.Source, at string) string {
	text := fmt.Sprintf("the database of %s went back in time to position %d and commands are refused until that is settled. See freehold forks --url %s.", name, s.Fork.Base.Position, at)
	for _, a := range s.Ahead {
		where := a.Service
		if where == "" {
			where = at
		}
		text += fmt.Sprintf(" %s at %s has applied up to %d: run freehold adopt, or keep, --url %s %s %s.", a.Follower, where, a.Mark.Position, where, a.Follower, name)
	}
	if len(s.Silent) > 0 {
		text += fmt.Sprintf(" No answer from %s: start it, or run freehold adopt --url %s to go on without.", strings.Join(s.Silent, " and "), at)
	}
	return text
}

// commands lets requests that may change something through when everybody was asked
// and no fork is open.
func (g *guard) commands(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet || r.Method == http.MethodHead || r.Method == http.MethodOptions {
			next.ServeHTTP(w, r)
			return
		}
		g.mu.Lock()
		armed := g.armed
		g.mu.Unlock()
		if armed {
			select {
			case <-g.first:
			case <-r.Context().Done():
				return
			}
		}
		if stop := g.stopped(); stop != nil {
			w.Header().Set("Retry-After", "5")
			answer(w, http.StatusServiceUnavailable, map[string]any{
				"status": http.StatusServiceUnavailable, "title": "stopped by a fork", "detail": stop.detail(g.host.journal.Name(), g.host.URL()), "stopped": stop,
			})
			return
		}
		next.ServeHTTP(w, r)
	})
}

// readers has everybody asked again when a reader of the feed is told that his place
// is not in the journal.
func (g *guard) readers(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec := &statusRecorder{ResponseWriter: w, status: http.StatusOK}
		next.ServeHTTP(rec, r)
		if rec.status == http.StatusConflict && r.FormValue("chain") != "" {
			g.suspect()
		}
	})
}
