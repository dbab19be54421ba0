package host

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/journal"
)

// Forks is what an operator sees of forks at a service: those of its own journal, and
// where its followers stand to those of others, and to what others have cut.
type Forks struct {
	Source    freehold.Source   `json:"source"`
	Epoch     freehold.Epoch    `json:"epoch"`
	Forks     journal.Forks     `json:"forks"`
	Stopped   *Stopped          `json:"stopped,omitempty"` // why commands are refused
	Ahead     []follow.Lost     `json:"ahead"`             // followers of this service that are stopped by a fork, or by a cut
	Decisions []follow.Decision `json:"decisions"`         // what operators decided for such
}

// forked is a follower that a fork, or a cut, may stop.
type forked interface {
	follower
	Lost(ctx context.Context, s freehold.Source) (follow.Lost, bool, error)
	Keep(ctx context.Context, s freehold.Source) (freehold.Mark, error)
	Skip(ctx context.Context, s freehold.Source) (freehold.Mark, error)
	Decisions(ctx context.Context, s freehold.Source) ([]follow.Decision, error)
}

func (h *Host) listForks(w http.ResponseWriter, r *http.Request) {
	ctx := r.Context()
	all, err := h.journal.Forks(ctx)
	_, head, boundsErr := h.journal.Bounds(ctx)
	if err := errors.Join(err, boundsErr); err != nil {
		refuse(w, http.StatusServiceUnavailable, err)
		return
	}
	out := Forks{Source: h.journal.Name(), Epoch: head.Epoch, Forks: append(journal.Forks{}, all...), Stopped: h.guard.stopped(), Ahead: []follow.Lost{}, Decisions: []follow.Decision{}}
	for _, f := range h.followers() {
		f, ok := f.(forked)
		if !ok {
			continue
		}
		for _, st := range f.Status(ctx) {
			lost, ahead, err := f.Lost(ctx, st.Source)
			if ahead && err != nil {
				lost = follow.Lost{Follower: f.Name(), Mark: st.Mark, Orphans: []follow.Orphan{}, Note: err.Error()}
			}
			if ahead {
				out.Ahead = append(out.Ahead, lost)
			}
			decided, err := f.Decisions(ctx, st.Source)
			if err != nil {
				refuse(w, http.StatusServiceUnavailable, err)
				return
			}
			out.Decisions = append(out.Decisions, decided...)
		}
	}
	answer(w, http.StatusOK, out)
}

// listMarks tells another service where this one's followers stand in its journal.
func (h *Host) listMarks(w http.ResponseWriter, r *http.Request) {
	source := freehold.Source(r.FormValue("source"))
	all := []follow.Seen{}
	for _, f := range h.followers() {
		s, ok := f.(interface {
			seer
			Follows(s freehold.Source) bool
		})
		if !ok || !s.Follows(source) {
			continue
		}
		seen, err := s.Seen(r.Context(), source)
		if err != nil {
			refuse(w, http.StatusServiceUnavailable, err)
			return
		}
		all = append(all, seen)
	}
	answer(w, http.StatusOK, all)
}

// decide serves adopt, keep and skip of ?follower=&source=. Without a follower, adopt lets
// this service take commands again, whoever is ahead or has not answered.
func (h *Host) decide(w http.ResponseWriter, r *http.Request, choice string) {
	ctx := r.Context()
	if r.FormValue("follower") == "" && choice == follow.Adopted {
		h.goOn(w, r)
		return
	}
	f, err := h.follower(r)
	if err != nil {
		refuse(w, http.StatusNotFound, err)
		return
	}
	decide := f.Adopt
	if choice != follow.Adopted {
		own, ok := f.(forked)
		if !ok {
			refuse(w, http.StatusConflict, effectless(ctx, f, freehold.Source(r.FormValue("source")), choice))
			return
		}
		if decide = own.Keep; choice == follow.Skipped {
			decide = own.Skip
		}
	}
	at, err := decide(ctx, freehold.Source(r.FormValue("source")))
	if err != nil {
		refuse(w, http.StatusConflict, err)
		return
	}
	h.guard.suspect() // if it followed this service itself
	answer(w, http.StatusOK, at)
}

// effectless says why a follower without effects of its own, such as a relay, keeps and
// skips nothing, and what lets it go on if it is stopped.
func effectless(ctx context.Context, f follower, s freehold.Source, choice string) error {
	for _, st := range f.Status(ctx) {
		if st.Source == s && st.State == follow.Diverged {
			return fmt.Errorf("%s has no effects of its own to %s: freehold adopt %s %s lets it go on", f.Name(), choice, f.Name(), s)
		}
	}
	return fmt.Errorf("%s has no effects of its own, and is not stopped by %s: nothing to %s", f.Name(), s, choice)
}

func (h *Host) goOn(w http.ResponseWriter, r *http.Request) {
	stop := h.guard.stopped()
	if stop == nil {
		refuse(w, http.StatusConflict, errors.New("this service is not stopped by a fork: nothing to adopt"))
		return
	}
	if err := h.journal.Settle(r.Context(), stop.Fork); err != nil {
		refuse(w, http.StatusServiceUnavailable, err)
		return
	}
	h.guard.suspect()
	answer(w, http.StatusOK, stop.Fork.Base)
}
