package journaltest

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
)

// Followers on the engine: each follows the engine's own journal and writes what it
// has applied into the same database, so that an attempt which left something
// behind, an event that is missing, and one that came twice can all be read.

func quietly() *follow.Options {
	return &follow.Options{Pause: time.Microsecond, MaxPause: time.Millisecond, Log: slog.New(slog.DiscardHandler)}
}

func patiently(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// apply notes an event under its stream.
func (s suite[T]) apply(ctx context.Context, tx T, e Happened, r freehold.Recorded) error {
	key := "applied/" + string(r.Stream)
	was, err := s.Get(ctx, tx, key)
	if err != nil {
		return err
	}
	return s.Put(ctx, tx, key, was+strconv.Itoa(e.N)+";")
}

func (s suite[T]) applied(t *testing.T, db DB[T], stream string) string {
	t.Helper()
	return s.get(t, db, "applied/"+stream)
}

type handler[T freehold.Tx] func(ctx context.Context, tx T, e Happened, r freehold.Recorded) error

func follower[T freehold.Tx](t *testing.T, db DB[T], source follow.Source, opts *follow.Options, fn handler[T]) *follow.Follower {
	t.Helper()
	f, err := follow.New("f", db, []follow.Source{source}, opts, follow.On(fn))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// running runs a follower; stop waits for the end of its batch.
func running(t *testing.T, f *follow.Follower) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("follower: %v", err)
		}
	}
}

func (s suite[T]) caughtUp(t *testing.T, db DB[T], f *follow.Follower) error {
	t.Helper()
	_, head, err := db.Journal().Bounds(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return f.WaitFor(patiently(t), freehold.NewToken(head))
}

// failing: what an attempt wrote is gone whichever way it failed, the event comes
// again, and only when it was tried often enough it is set aside, with its error,
// and never counted as applied.
func (s suite[T]) failing(t *testing.T, db DB[T]) {
	const recovers, never = 3, 5
	for n := range 8 {
		mustAppend(t, db, write(freehold.Stream("a", strconv.Itoa(n)), freehold.NoStream, happened(n)))
	}
	var mu sync.Mutex
	attempts := map[int]int{}
	opts := quietly()
	opts.Attempts = 4
	f := follower(t, db, db.Journal(), opts, func(ctx context.Context, tx T, e Happened, r freehold.Recorded) error {
		if err := s.apply(ctx, tx, e, r); err != nil {
			return err
		}
		mu.Lock()
		attempts[e.N]++
		n := attempts[e.N]
		mu.Unlock()
		switch {
		case e.N == never, e.N == recovers && n == 1:
			return errNo
		case e.N == recovers && n == 2:
			panic("boom")
		}
		return nil
	})
	stop := running(t, f)
	defer stop()
	if err := s.caughtUp(t, db, f); err != nil {
		t.Errorf("behind the event that fails nothing is applied: %v", err)
	}
	for n := range 8 {
		want := strconv.Itoa(n) + ";"
		if n == never {
			want = ""
		}
		if got := s.applied(t, db, "a-"+strconv.Itoa(n)); got != want {
			t.Errorf("event %d left %q after %d attempts, want %q", n, got, attempts[n], want)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if attempts[never] < opts.Attempts || attempts[recovers] < 3 {
		t.Errorf("attempts %v: an event that failed was taken for applied", attempts)
	}
	parked, err := f.Parked(t.Context(), 10)
	if err != nil || len(parked) != 1 || parked[0].Key != "a-"+strconv.Itoa(never) || !strings.Contains(parked[0].Error, errNo.Error()) {
		t.Errorf("parked: %+v, %v", parked, err)
	}
}

// poison: the key of an event that keeps failing waits, the others go on, and when
// the cause is gone everything is applied in its order.
func (s suite[T]) poison(t *testing.T, db DB[T]) {
	for n := range 12 {
		mustAppend(t, db, write(freehold.Stream("a", strconv.Itoa(n%3)), freehold.Any, happened(n)))
	}
	var healed atomic.Bool
	f := follower(t, db, db.Journal(), quietly(), func(ctx context.Context, tx T, e Happened, r freehold.Recorded) error {
		if err := s.apply(ctx, tx, e, r); err != nil {
			return err
		}
		if e.N == 4 && !healed.Load() {
			return errNo
		}
		return nil
	})
	stop := running(t, f)
	defer stop()
	if err := s.caughtUp(t, db, f); err != nil {
		t.Errorf("another key waits for the poisoned one: %v", err)
	}
	for stream, want := range map[string]string{"a-0": "0;3;6;9;", "a-1": "1;", "a-2": "2;5;8;11;"} {
		if got := s.applied(t, db, stream); got != want {
			t.Errorf("%s is %q while a-1 is held, want %q", stream, got, want)
		}
	}
	parked, err := f.Parked(t.Context(), 10)
	var held []int
	for _, p := range parked {
		held = append(held, number(t, p.Event))
	}
	if err != nil || !slices.Equal(held, []int{4, 7, 10}) {
		t.Errorf("parked: %v, %v, want 4 7 10", held, err)
	}
	if err := f.Retry(patiently(t), "test", "a-1"); err == nil || s.applied(t, db, "a-1") != "1;" {
		t.Errorf("retry before the cause is gone: %v, %q", err, s.applied(t, db, "a-1"))
	}
	healed.Store(true)
	if err := f.Retry(patiently(t), "test", "a-1"); err != nil {
		t.Error(err)
	}
	if got, want := s.applied(t, db, "a-1"), "1;4;7;10;"; got != want {
		t.Errorf("a-1 is %q after release, want %q", got, want)
	}
}

// interrupted stops the follower in its handler at each event of a batch, once
// letting the handler end well and once not, and goes on with another one.
func (s suite[T]) interrupted(t *testing.T, _ DB[T]) {
	const events = 6
	for at := range events {
		for _, fail := range []error{nil, errNo} {
			db := s.Open(t, place(t))
			for n := range events {
				mustAppend(t, db, write("a-1", freehold.Any, happened(n)))
			}
			ctx, cancel := context.WithCancel(t.Context())
			f := follower(t, db, db.Journal(), quietly(), func(inner context.Context, tx T, e Happened, r freehold.Recorded) error {
				if err := s.apply(inner, tx, e, r); err != nil {
					return err
				}
				if e.N == at {
					cancel()
					return fail
				}
				return nil
			})
			if err := f.Run(ctx); err != nil {
				t.Errorf("stopped at event %d: %v", at, err)
			}
			s.goesOn(t, db, fmt.Sprintf("stopped in the handler of event %d, which returned %v", at, fail), events)
			if err := db.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

// goesOn lets a new follower finish what another one has left.
func (s suite[T]) goesOn(t *testing.T, db DB[T], what string, events int) {
	t.Helper()
	f := follower(t, db, db.Journal(), quietly(), s.apply)
	stop := running(t, f)
	if err := s.caughtUp(t, db, f); err != nil {
		t.Errorf("%s: %v", what, err)
	}
	stop()
	want := ""
	for n := range events {
		want += strconv.Itoa(n) + ";"
	}
	if got := s.applied(t, db, "a-1"); got != want {
		t.Errorf("%s: applied %q, want %q", what, got, want)
	}
}

// overrun lets one handler of a batch hold the transaction too long.
func (s suite[T]) overrun(t *testing.T, _ DB[T]) {
	const events = 6
	db := s.limited(t)
	for n := range events {
		mustAppend(t, db, write("a-1", freehold.Any, happened(n)))
	}
	var overran atomic.Int64
	f := follower(t, db, db.Journal(), quietly(), func(ctx context.Context, tx T, e Happened, r freehold.Recorded) error {
		if err := s.apply(ctx, tx, e, r); err != nil {
			return err
		}
		if e.N == 3 && overran.Add(1) <= 2 { // in the batch, and alone
			<-ctx.Done()
		}
		return nil
	})
	stop := running(t, f)
	if err := s.caughtUp(t, db, f); err != nil {
		t.Errorf("waiting for the batch: %v", err)
	}
	stop()
	if overran.Load() != 3 {
		t.Errorf("the handler was called %d times for the event that it overran twice, want 3", overran.Load())
	}
	s.goesOn(t, db, "a handler has overrun its deadline", events)
	if err := db.Close(); err != nil {
		t.Error(err)
	}
}

// repeating gives the whole history from its beginning at each read.
type repeating struct{ follow.Source }

func (r repeating) Read(ctx context.Context, after freehold.Mark, limit int) ([]freehold.Recorded, error) {
	return r.Source.Read(ctx, freehold.Mark{Source: after.Source}, int(after.Position)+limit)
}

// again: what is a duplicate does not depend on how long ago it was applied, nor on
// a memory of ids.
func (s suite[T]) again(t *testing.T, db DB[T]) {
	want := ""
	for round := range 4 {
		for n := range 100 {
			mustAppend(t, db, write("a-1", freehold.Any, happened(100*round+n)))
			want += strconv.Itoa(100*round+n) + ";"
		}
		opts := quietly()
		opts.Batch = 16
		f := follower(t, db, repeating{db.Journal()}, opts, s.apply)
		stop := running(t, f)
		if err := s.caughtUp(t, db, f); err != nil {
			t.Error(err)
		}
		stop()
		if got := s.applied(t, db, "a-1"); got != want {
			t.Fatalf("start %d applied %s, want %s", round+1, got, want)
		}
	}
}

// noTimer takes events one by one from their append to their effect, under a clock
// that moves only while everybody waits for a timer.
func (s suite[T]) noTimer(t *testing.T, _ DB[T]) {
	setup := place(t)
	synctest.Test(t, func(t *testing.T) {
		db := s.Open(t, setup)
		f := follower(t, db, db.Journal(), nil, s.apply)
		stop := running(t, f)
		began := time.Now()
		for n := range 16 {
			tok := mustAppend(t, db, write("a-1", freehold.Any, happened(n)))
			if err := f.WaitFor(t.Context(), tok); err != nil {
				t.Error(err)
			}
		}
		if waited := time.Since(began); waited != 0 {
			t.Errorf("timers of %v stand between 16 events and their effects", waited)
		}
		stop()
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
}
