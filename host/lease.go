package host

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
)

// Lease lets one instance of a service at a time do what need not be done twice. It
// only saves work: what is done is fenced by the marks.
type Lease interface {
	// Hold waits until the lease is this instance's, runs fn, and gives the lease up
	// when fn has returned. Each time that it has asked and another instance has the
	// lease, it calls waits before it goes on waiting. The context of fn ends with ctx,
	// and as soon as the lease may be another's. It returns nil when ctx has ended.
	Hold(ctx context.Context, waits func(), fn func(ctx context.Context)) error
}

// standing is a runner that has something to do while another instance runs it.
type standing interface {
	Stand(ctx context.Context) error
}

// GoSingle runs r while the host runs, on one instance of the service at a time if
// there is a lease. A runner with a method Stand stands by on the others.
func (h *Host) GoSingle(name string, r Runner) {
	h.guard.watch(r)
	h.runners = append(h.runners, &running{name: name, Runner: r, single: h.opts.Lease != nil})
}

// Leads reports whether this instance holds the lease, or needs none.
func (h *Host) Leads() bool { return h.opts.Lease == nil || h.leads.Load() }

// lead runs the single runners whenever this instance holds the lease.
func (h *Host) lead(run context.Context, stop context.CancelCauseFunc) {
	var singles []*running
	for _, r := range h.runners {
		if r.single {
			singles = append(singles, r)
		}
	}
	if len(singles) == 0 {
		return
	}
	pause := 100 * time.Millisecond
	answered := func() { // whoever has the lease, it could be asked for
		h.setFailed("lease", nil)
		pause = 100 * time.Millisecond
	}
	for run.Err() == nil {
		standby, endStandby := context.WithCancel(run)
		var standing sync.WaitGroup
		for _, r := range singles {
			standing.Go(func() { h.standBy(standby, r, stop) })
		}
		err := h.opts.Lease.Hold(run, answered, func(ctx context.Context) {
			endStandby()
			standing.Wait()
			h.log.Info("leads")
			h.leads.Store(true)
			defer h.leads.Store(false)
			answered()
			var all sync.WaitGroup
			for _, r := range singles {
				all.Go(func() { h.keep(ctx, r, stop) })
			}
			all.Wait()
			h.log.Info("leads no more")
		})
		endStandby()
		standing.Wait()
		if err == nil || run.Err() != nil {
			continue
		}
		h.log.Warn("lease not held, trying again", "in", pause, "error", err)
		h.setFailed("lease", err)
		select {
		case <-time.After(pause):
		case <-run.Done():
		}
		pause = min(2*pause, 5*time.Second)
	}
}

// standBy does what a runner does while another instance runs it.
func (h *Host) standBy(ctx context.Context, r *running, stop context.CancelCauseFunc) {
	s, ok := r.Runner.(standing)
	if !ok {
		return
	}
	for ctx.Err() == nil {
		err := s.Stand(ctx)
		if errors.Is(err, freehold.ErrLatched) || errors.Is(err, freehold.ErrClosed) {
			stop(fmt.Errorf("%s: %w", r.name, err))
			return
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// seen is a follower's status as this instance should tell it: what another one runs
// is on standby here, whatever it is doing there.
func (h *Host) seen(r *running, all []follow.Status) []follow.Status {
	if r.single && !h.leads.Load() {
		for i := range all {
			all[i].State, all[i].Stalled = follow.Standby, false
		}
	}
	return all
}
