package testdb

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Holder is an instance of a service, as package host sees its lease.
type Holder interface {
	Hold(ctx context.Context, waits func(), fn func(ctx context.Context)) error
}

// Lease checks that one of two instances holds the lease at a time, that the other
// says that it waits, and gets it at once when it is given up, and in time when it is lost: lose takes it
// from whoever holds it, past the engine.
func Lease(t *testing.T, a, b Holder, lose func()) {
	t.Helper()
	var holding atomic.Int32
	var most atomic.Int32
	hold := func(ctx context.Context, h Holder, waits func(), held chan<- context.Context) (end func()) {
		ctx, cancel := context.WithCancel(ctx)
		var running sync.WaitGroup
		running.Go(func() {
			for ctx.Err() == nil {
				_ = h.Hold(ctx, waits, func(ctx context.Context) { // lost, which is what the test is about
					most.Store(max(most.Load(), holding.Add(1)))
					held <- ctx
					<-ctx.Done()
					holding.Add(-1)
				})
			}
		})
		return func() {
			cancel()
			running.Wait()
		}
	}
	wait := func(what string, held <-chan context.Context, within time.Duration) context.Context {
		t.Helper()
		select {
		case ctx := <-held:
			return ctx
		case <-time.After(within):
			t.Fatalf("%s does not get the lease within %s", what, within)
			return nil
		}
	}
	heldA, heldB := make(chan context.Context, 100), make(chan context.Context, 100)
	endA := hold(t.Context(), a, func() {}, heldA)
	wait("the first", heldA, 30*time.Second)
	waits := make(chan struct{}, 1)
	endB := hold(t.Context(), b, func() {
		select {
		case waits <- struct{}{}:
		default:
		}
	}, heldB)
	select {
	case <-waits:
	case <-time.After(30 * time.Second):
		t.Fatal("the second waits, and does not say so")
	}
	select {
	case <-heldB:
		t.Fatal("two instances hold the lease")
	case <-time.After(700 * time.Millisecond):
	}
	endA()
	ctx := wait("the second", heldB, 4*time.Second) // a lease that is not given up lives longer
	lose()
	select {
	case <-ctx.Done():
	case <-time.After(10 * time.Second):
		t.Fatal("whoever has lost the lease goes on for 30 s")
	}
	endB()
	endA = hold(t.Context(), a, func() {}, heldA)
	wait("the first", heldA, 30*time.Second)
	endA()
	if most.Load() > 1 {
		t.Error("two instances held the lease at once")
	}
}
