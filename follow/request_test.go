package follow_test

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/kv"
	"github.com/freehold-go/freehold/memory"
)

// away is a database that cannot be read for a while.
type away struct {
	*memory.DB
	now atomic.Bool
}

func (db *away) View(ctx context.Context, fn func(ctx context.Context, tx kv.Tx) error) error {
	if db.now.Load() {
		return freehold.ErrUnavailable
	}
	return db.DB.View(ctx, fn)
}

// givenUp is the context of a caller that has gone.
func givenUp(t *testing.T) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

func inState(f *follow.Follower, s follow.State) func() bool {
	return func() bool { return f.Status(context.Background())[0].State == s }
}

// parkThree returns a follower that has parked three events of n-a, and does not run.
func parkThree(t *testing.T, db follow.DB[kv.Tx], source *memory.DB) *follow.Follower {
	t.Helper()
	f, err := follow.New("f", db, []follow.Source{source.Journal()}, quiet(), poisoned(new(atomic.Bool)))
	if err != nil {
		t.Fatal(err)
	}
	stop := run(t, f)
	appendNotes(t, source, "n-a", "poison", "2", "3")
	eventually(t, func() bool { return len(mustParked(t, f)) == 3 })
	stop()
	return f
}

// checkParked runs the follower, and expects that all three events are parked still.
func checkParked(t *testing.T, f *follow.Follower, source *memory.DB) {
	t.Helper()
	tok, err := source.Append(t.Context(), note("n-b", "1"))
	if err != nil {
		t.Fatal(err)
	}
	if err := f.WaitFor(patient(t), tok); err != nil {
		t.Fatal(err)
	}
	if parked := mustParked(t, f); len(parked) != 3 {
		t.Errorf("%d events are parked, want 3: a request was done for a caller that had gone", len(parked))
	}
}

// TestWhoStandsByRefusesRequests asks the instance that does not run the follower, which
// does run it later.
func TestWhoStandsByRefusesRequests(t *testing.T) {
	t.Parallel()
	db, source := open(t), open(t)
	f := parkThree(t, db, source)
	ctx, leave := context.WithCancel(t.Context())
	stood := make(chan error, 1)
	go func() { stood <- f.Stand(ctx) }()
	eventually(t, inState(f, follow.Standby))
	for _, ask := range []func(context.Context, freehold.Source, string) error{f.Release, f.Retry} {
		if err := ask(givenUp(t), "here", "n-a"); !errors.Is(err, follow.ErrNotRunning) || !strings.Contains(err.Error(), "another instance") {
			t.Errorf("error %v, want ErrNotRunning, and whom to ask", err)
		}
	}
	if _, err := f.Adopt(givenUp(t), "here"); !errors.Is(err, follow.ErrNotRunning) {
		t.Errorf("adopt: error %v, want ErrNotRunning", err)
	}
	leave()
	if err := <-stood; err != nil {
		t.Error(err)
	}
	run(t, f)
	checkParked(t, f, source)
}

// TestARequestIsNotDoneForACallerThatHasGone gives a key up twice while the database is
// away, and does not wait for it.
func TestARequestIsNotDoneForACallerThatHasGone(t *testing.T) {
	t.Parallel()
	db, source := &away{DB: open(t)}, open(t)
	f := parkThree(t, db, source)
	db.now.Store(true)
	run(t, f)
	eventually(t, inState(f, follow.Retrying))
	for range 2 {
		if err := f.Release(givenUp(t), "here", "n-a"); !errors.Is(err, context.Canceled) {
			t.Errorf("error %v, want that of the context", err)
		}
	}
	db.now.Store(false)
	checkParked(t, f, source)
}

// TestARequestThatHasBegunIsAnsweredTruthfully has the caller of a request leave while the
// handler runs, and another one whose turn has not come.
func TestARequestThatHasBegunIsAnsweredTruthfully(t *testing.T) {
	t.Parallel()
	db, source := open(t), open(t)
	entered, gate := make(chan struct{}, 1), make(chan struct{})
	var healed atomic.Bool
	f := start(t, db, source.Journal(), quiet(), follow.On(func(ctx context.Context, tx kv.Tx, e Noted, r freehold.Recorded) error {
		if e.Text == "poison" {
			if !healed.Load() {
				return errors.New("cannot take this")
			}
			entered <- struct{}{}
			<-gate
		}
		return notes(ctx, tx, e, r)
	}))
	appendNotes(t, source, "n-a", "poison")
	appendNotes(t, source, "n-b", "poison")
	eventually(t, func() bool { return len(mustParked(t, f)) == 2 })
	healed.Store(true)
	ctx, leave := context.WithCancel(t.Context())
	begun := make(chan error, 1)
	go func() { begun <- f.Retry(ctx, "here", "n-a") }()
	<-entered
	leave()
	if err := f.Release(givenUp(t), "here", "n-b"); !errors.Is(err, context.Canceled) {
		t.Errorf("behind it: error %v, want that of the context", err)
	}
	close(gate)
	if err := <-begun; err != nil {
		t.Errorf("the event was applied, and its caller was told %v", err)
	}
	if got := read(t, db, "note/n-a"); got != "poison;" {
		t.Errorf("n-a is %q, want it applied", got)
	}
	if err := f.Retry(patient(t), "here", "n-b"); err != nil {
		t.Errorf("n-b was given up: %v", err)
	}
}
