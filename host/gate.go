package host

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/internal/mutant"
)

// waitFirst is how long a command waits at most until everybody was asked.
const waitFirst = 5 * time.Second

// stopped says why commands are refused, or nil.
func (g *guard) stopped() *Stopped {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.stop
}

func (g *guard) arm() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.armed = !mutant.TakeBeforeAsked
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
	for _, q := range s.Silent {
		text += fmt.Sprintf(" No answer from %s, which %s; or run freehold adopt --url %s to go on without.", q.Service, q.Reason, at)
	}
	return text
}

// problem says why commands are not taken, or is empty; stop is nil if not because of a
// fork.
func (g *guard) problem() (text string, stop *Stopped) {
	g.mu.Lock()
	armed, why, stop := g.armed, g.why, g.stop
	g.mu.Unlock()
	select {
	case <-g.first:
	default:
		if armed {
			return fmt.Sprintf("nobody could be asked yet whether the database of %s went back in time, and commands are refused until then: %s", g.host.journal.Name(), why), nil
		}
	}
	if stop != nil {
		return stop.detail(g.host.journal.Name(), g.host.URL()), stop
	}
	return "", nil
}

// turned reports whether another instance has begun an epoch since everybody was asked.
func (g *guard) turned(ctx context.Context) bool {
	_, head, err := g.host.journal.Bounds(ctx)
	g.mu.Lock()
	defer g.mu.Unlock()
	return err == nil && g.epoch != "" && head.Epoch != g.epoch
}

// commands lets requests that may change something through when everybody was asked
// and no fork is open.
func (g *guard) commands(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet || r.Method == http.MethodHead || r.Method == http.MethodOptions {
			next.ServeHTTP(w, r)
			return
		}
		if !g.await(r.Context()) {
			return
		}
		problem, stop := g.problem()
		if problem == "" && g.turned(r.Context()) {
			g.suspect()
			problem = "the database has just turned out to have gone back in time: those who follow this service are being asked"
		}
		if problem == "" {
			next.ServeHTTP(w, r)
			return
		}
		body := map[string]any{"status": http.StatusServiceUnavailable, "title": "not ready", "detail": problem}
		if stop != nil {
			body["title"], body["stopped"] = "stopped by a fork", stop
		}
		w.Header().Set("Retry-After", "5")
		answer(w, http.StatusServiceUnavailable, body)
	})
}

// await waits a while until everybody was asked once. It returns false when ctx ends.
func (g *guard) await(ctx context.Context) bool {
	g.mu.Lock()
	armed := g.armed
	g.mu.Unlock()
	if !armed {
		return true
	}
	select {
	case <-g.first:
		return true
	default:
	}
	timer := time.NewTimer(waitFirst)
	defer timer.Stop()
	select {
	case <-g.first:
	case <-timer.C:
	case <-ctx.Done():
		return false
	}
	return true
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
