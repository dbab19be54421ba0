package host_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/freehold-go/freehold/host"
)

// lease is a lease whose outcomes a test gives: each call of Hold does the next one, and
// the last one stays.
type lease struct {
	calls atomic.Int32
	hold  []func(ctx context.Context, waits func(), fn func(ctx context.Context)) error
}

func (l *lease) Hold(ctx context.Context, waits func(), fn func(ctx context.Context)) error {
	n := min(int(l.calls.Add(1)), len(l.hold))
	return l.hold[n-1](ctx, waits, fn)
}

// another is the outcome that another instance has the lease for as long as it is waited
// for.
func another(ctx context.Context, waits func(), _ func(ctx context.Context)) error {
	waits()
	<-ctx.Done()
	return nil
}

// works is a runner that does what the function does.
type works func(ctx context.Context) error

func (w works) Run(ctx context.Context) error { return w(ctx) }

// withLease runs a host of one single runner.
func withLease(t *testing.T, l *lease, r host.Runner) *process {
	t.Helper()
	db := onMemory(t).open()
	h, err := host.New("order", db.Journal(), &host.Options{Token: token, Lease: l, Log: silent})
	if err != nil {
		t.Fatal(err)
	}
	h.Own(db)
	h.GoSingle("work", r)
	return run(t, h, db)
}

// ready reports whether /readyz says that the host is ready, and what it says.
func (p *process) ready(t *testing.T) (bool, string) {
	t.Helper()
	status, body, _ := fetch(t, http.MethodGet, p.URL()+"/readyz")
	return status == http.StatusOK, body
}

// The database restarts, and the instance that waits for the lease since is as good as
// the one that leads: a load balancer may send it requests.
func TestAnInstanceThatWaitsForTheLeaseIsReady(t *testing.T) {
	t.Parallel()
	restarts := errors.New("the database restarts")
	asked := make(chan struct{})
	p := withLease(t, &lease{hold: []func(context.Context, func(), func(context.Context)) error{
		func(context.Context, func(), func(context.Context)) error { return restarts },
		func(ctx context.Context, waits func(), fn func(ctx context.Context)) error {
			select {
			case <-asked:
			case <-ctx.Done():
			}
			return another(ctx, waits, fn)
		},
	}}, works(func(ctx context.Context) error { <-ctx.Done(); return nil }))
	until(t, func() bool {
		_, body := p.ready(t)
		return strings.Contains(body, restarts.Error())
	}, "readyz says that the lease cannot be asked for")
	close(asked)
	until(t, func() bool { ok, _ := p.ready(t); return ok }, "ready, although it waits")
}

// A runner fails, and another instance gets the lease while it pauses: what that one
// runs now is no problem of this one.
func TestWhatFailedUnderALostLeaseIsNoLongerAProblem(t *testing.T) {
	t.Parallel()
	broken, seen := errors.New("the work is broken"), make(chan struct{})
	p := withLease(t, &lease{hold: []func(context.Context, func(), func(context.Context)) error{
		func(ctx context.Context, _ func(), fn func(ctx context.Context)) error {
			ctx, lost := context.WithCancel(ctx)
			defer lost()
			go func() {
				select {
				case <-seen:
					lost()
				case <-ctx.Done():
				}
			}()
			fn(ctx)
			return errors.New("lease lost")
		},
		another,
	}}, works(func(context.Context) error { return broken }))
	until(t, func() bool {
		_, body := p.ready(t)
		return strings.Contains(body, broken.Error())
	}, "readyz says that the work is broken")
	close(seen)
	until(t, func() bool { ok, _ := p.ready(t); return ok }, "ready, although the work is another's")
}
