package follow_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/kv"
	"github.com/freehold-go/freehold/memory"
)

// TestAHandlerThatExitsHoldsUpNoOtherSource has a handler end its goroutine while batches of
// other sources wait for its transaction to end.
func TestAHandlerThatExitsHoldsUpNoOtherSource(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		db := open(t)
		sources := make([]*memory.DB, 3)
		var followed []follow.Source
		for i, name := range []freehold.Source{"a", "b", "c"} {
			var err error
			if sources[i], err = memory.Open(t.Context(), name, types(t), nil); err != nil {
				t.Fatal(err)
			}
			defer sources[i].Close()
			followed = append(followed, sources[i].Journal())
		}
		entered, gate := make(chan struct{}), make(chan struct{})
		var exits atomic.Int64
		f, err := follow.New("f", db, followed, quiet(), follow.On(func(ctx context.Context, tx kv.Tx, e Noted, r freehold.Recorded) error {
			if e.Text == "exit" {
				if exits.Add(1) == 1 {
					close(entered)
					<-gate
				}
				runtime.Goexit()
			}
			return notes(ctx, tx, e, r)
		}))
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- f.Run(t.Context()) }()
		synctest.Wait()
		appendNotes(t, sources[0], "n-a", "exit")
		<-entered
		appendNotes(t, sources[1], "n-b", "1")
		appendNotes(t, sources[2], "n-c", "1")
		synctest.Wait()
		close(gate)
		if err := <-done; err == nil {
			t.Error("Run ended without an error")
		}
		for _, st := range f.Status(t.Context()) {
			if st.Source == "a" && st.State != follow.Failed {
				t.Errorf("the source of the handler is %s, want it failed", st.State)
			}
		}
		for range 10 { // as a host does
			ctx, stop := context.WithCancel(t.Context())
			go func() { done <- f.Run(ctx) }()
			synctest.Wait()
			stop()
			if err := <-done; err == nil {
				break
			}
		}
		if parked := mustParked(t, f); len(parked) != 1 || parked[0].Source != "a" {
			t.Errorf("parked: %+v, want the event whose handler exits", parked)
		}
		for _, stream := range []string{"n-b", "n-c"} {
			if got := read(t, db, "note/"+stream); got != "1;" {
				t.Errorf("%s is %q, want it once", stream, got)
			}
		}
	})
}

// TestAHandlerThatExitsInALaneLosesNothing has a handler end the goroutine of its lane.
func TestAHandlerThatExitsInALaneLosesNothing(t *testing.T) {
	t.Parallel()
	db, source := open(t), open(t)
	f, err := follow.New("f", db, []follow.Source{source.Journal()}, inLanes(4), follow.On(func(ctx context.Context, tx kv.Tx, e Noted, r freehold.Recorded) error {
		if e.Text == "exit" {
			runtime.Goexit()
		}
		return notes(ctx, tx, e, r)
	}))
	if err != nil {
		t.Fatal(err)
	}
	say := func(texts ...string) (tok freehold.Token) {
		t.Helper()
		for i, text := range texts {
			if tok, err = source.Append(t.Context(), note(fmt.Sprintf("n-%d", i), text)); err != nil {
				t.Fatal(err)
			}
		}
		return tok
	}
	ctx := patient(t)
	tok := say("1", "1", "1", "1", "1", "1", "1", "1")
	stop := run(t, f)
	if err := f.WaitFor(ctx, tok); err != nil {
		t.Fatal(err)
	}
	stop()
	tok = say("2", "2", "2", "exit", "2", "2", "2", "2")
	for range 10 { // as a host does
		ctx, leave := context.WithCancel(ctx)
		applied := make(chan error, 1)
		go func() {
			err := f.WaitFor(ctx, tok)
			leave()
			applied <- err
		}()
		err := f.Run(ctx)
		leave()
		if applied := <-applied; err == nil && applied != nil {
			t.Fatalf("Run ended without an error, and the token says %v", applied)
		} else if err == nil {
			break
		}
	}
	for i := range 8 {
		want := "1;2;"
		if i == 3 {
			want = "1;"
		}
		if got := read(t, db, fmt.Sprintf("note/n-%d", i)); got != want {
			t.Errorf("n-%d is %q, want %q", i, got, want)
		}
	}
	if parked := mustParked(t, f); len(parked) != 1 || parked[0].Key != "n-3" {
		t.Errorf("parked: %+v, want the event whose handler exits", parked)
	}
}

// TestARequestWhoseHandlerExitsIsAnswered retries an event whose handler ends its goroutine.
func TestARequestWhoseHandlerExitsIsAnswered(t *testing.T) {
	t.Parallel()
	db, source := open(t), open(t)
	var exits atomic.Bool
	f, err := follow.New("f", db, []follow.Source{source.Journal()}, quiet(), follow.On(func(context.Context, kv.Tx, Noted, freehold.Recorded) error {
		if exits.Load() {
			runtime.Goexit()
		}
		return errors.New("cannot take this")
	}))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- f.Run(t.Context()) }()
	appendNotes(t, source, "n-a", "1")
	eventually(t, func() bool { return len(mustParked(t, f)) == 1 })
	exits.Store(true)
	if err := f.Retry(patient(t), "here", "n-a"); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v, want that of the handler", err)
	}
	if err := <-done; err == nil {
		t.Error("Run ended without an error")
	}
	if parked := mustParked(t, f); len(parked) != 1 {
		t.Errorf("%d events are parked, want it still", len(parked))
	}
}
