package journaltest

import (
	"context"
	"errors"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/freehold-go/freehold"
)

// put is a closure that writes state and an event under one key.
func (s suite[T]) put(key string, fail error) func(context.Context, T) error {
	return func(ctx context.Context, tx T) error {
		if err := s.Put(ctx, tx, key, key); err != nil {
			return err
		}
		if _, err := tx.Append(ctx, freehold.Stream("a", key), freehold.NoStream, happened(1)); err != nil {
			return err
		}
		return fail
	}
}

func (s suite[T]) neighbours(t *testing.T, db DB[T]) {
	var all sync.WaitGroup
	const n = 300
	start := make(chan struct{})
	for i := range n {
		all.Go(func() {
			<-start
			key := strconv.Itoa(i)
			switch i % 3 {
			case 0:
				if _, err := db.Update(t.Context(), s.put(key, errNo)); !errors.Is(err, errNo) {
					t.Errorf("closure %d: %v, want its own error", i, err)
				}
			case 1:
				if _, err := db.Update(t.Context(), s.put(key, nil)); err != nil {
					t.Errorf("closure %d: %v", i, err)
				}
			default:
				_, err := db.Append(t.Context(), write(freehold.Stream("a", key), freehold.NoStream, happened(1)), write("b-1", freehold.Exists))
				wantConflict(t, err, freehold.Conflict{Stream: "b-1", Expected: freehold.Exists})
			}
		})
	}
	close(start)
	all.Wait()
	want := 0
	for i := range n {
		if i%3 == 1 {
			want++
		}
		if key := strconv.Itoa(i); (s.get(t, db, key) == key) != (i%3 == 1) {
			t.Errorf("the state of closure %d does not agree with its outcome", i)
		}
	}
	if got := len(readAll(t, db, 64)); got != want {
		t.Errorf("%d events, want %d", got, want)
	}
}

// committedConflict fails the commit of groups in which one caller creates a
// stream and others run into it: nobody may be told of a version that does not
// exist afterwards.
func (s suite[T]) committedConflict(t *testing.T, db DB[T]) {
	if s.FailCommits == nil {
		t.Skip("the harness has no hook for failing commits")
	}
	for round := range 20 {
		stream := freehold.Stream("a", strconv.Itoa(round))
		s.FailCommits(db, 1000)
		var all sync.WaitGroup
		for i := range 32 {
			all.Go(func() {
				var err error
				if i%2 == 0 {
					_, err = db.Append(t.Context(), write(stream, freehold.NoStream, happened(round)))
				} else {
					_, err = db.Update(t.Context(), func(ctx context.Context, tx T) error {
						_, err := tx.Append(ctx, stream, freehold.NoStream, happened(round))
						return err
					})
				}
				var c *freehold.Conflict
				if errors.As(err, &c) {
					t.Errorf("told of version %d of %s, which was never committed", c.Actual, stream)
				}
				if err == nil {
					t.Error("success although no commit succeeded")
				}
			})
		}
		all.Wait()
		s.FailCommits(db, 0)
	}
	if got := len(readAll(t, db, 10)); got != 0 {
		t.Errorf("%d events, want none", got)
	}
}

func (s suite[T]) ackAfterCommit(t *testing.T, db DB[T]) {
	if s.FailCommits == nil {
		t.Skip("the harness has no hook for failing commits")
	}
	for i := range 5 {
		s.FailCommits(db, 1)
		if _, err := db.Append(t.Context(), write("a-1", freehold.At(freehold.Version(i)), happened(i))); err == nil {
			t.Error("an append succeeded although the commit failed")
		}
		s.FailCommits(db, 1)
		if _, err := db.Update(t.Context(), s.put("k"+strconv.Itoa(i), nil)); err == nil {
			t.Error("a closure succeeded although the commit failed")
		}
		s.FailCommits(db, 0)
		if got := len(readAll(t, db, 10)); got != i || s.get(t, db, "k"+strconv.Itoa(i)) != "" {
			t.Errorf("%d events, want %d: what failed to commit is visible", got, i)
		}
		mustAppend(t, db, write("a-1", freehold.At(freehold.Version(i)), happened(i)))
	}
}

// durableHead lets readers look while commits fail: a place they have seen stays
// in the journal for ever.
func (s suite[T]) durableHead(t *testing.T, db DB[T]) {
	if s.FailCommits == nil {
		t.Skip("the harness has no hook for failing commits")
	}
	name := db.Journal().Name()
	done := make(chan struct{})
	var reading sync.WaitGroup
	var mu sync.Mutex
	seen := map[freehold.Position]freehold.Mark{}
	see := func(m freehold.Mark) {
		mu.Lock()
		defer mu.Unlock()
		if was, there := seen[m.Position]; there && m.Position > 0 && was.Chain != m.Chain {
			t.Errorf("position %d was seen with two histories", m.Position)
		}
		seen[m.Position] = m
	}
	for r := range 3 {
		reading.Go(func() {
			var at freehold.Mark
			at.Source = name
			for {
				select {
				case <-done:
					return
				default:
				}
				if _, head, err := db.Journal().Bounds(t.Context()); err != nil {
					t.Error(err)
				} else {
					see(head)
				}
				if r == 0 {
					_ = db.View(t.Context(), func(_ context.Context, tx T) error { see(tx.Mark()); return nil })
				}
				rs, err := db.Journal().Read(t.Context(), at, 10)
				if err != nil {
					t.Error(err)
					return
				}
				for _, r := range rs {
					see(r.At)
					at = r.At
				}
			}
		})
	}
	var writing sync.WaitGroup
	var failed, succeeded atomic.Int64
	for w := range 8 {
		writing.Go(func() {
			for i := range 25 {
				if w == 0 {
					s.FailCommits(db, i%3)
				}
				if _, err := db.Append(t.Context(), write(freehold.Stream("a", strconv.Itoa(w)), freehold.Any, happened(i))); err != nil {
					failed.Add(1)
				} else {
					succeeded.Add(1)
				}
			}
		})
	}
	writing.Wait()
	s.FailCommits(db, 0)
	close(done)
	reading.Wait()
	if failed.Load() == 0 || succeeded.Load() == 0 {
		t.Errorf("%d failed, %d succeeded: the run did not do enough", failed.Load(), succeeded.Load())
	}
	rs := readAll(t, db, 100)
	if int64(len(rs)) != succeeded.Load() {
		t.Errorf("%d events, %d were acknowledged", len(rs), succeeded.Load())
	}
	for p, m := range seen {
		if p > freehold.Position(len(rs)) || p > 0 && rs[p-1].At.Chain != m.Chain {
			t.Errorf("a reader has seen %v, which the journal does not hold", m)
		}
	}
}

func (s suite[T]) panics(t *testing.T, db DB[T]) {
	half := func(ctx context.Context, tx T) {
		_ = s.Put(ctx, tx, "k", "half")
		_, _ = tx.Append(ctx, "a-1", freehold.Any, happened(1))
		_ = db.Keeper(tx).Put(ctx, "space", "k", nil)
	}
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			defer func() {
				if recover() != "boom" {
					t.Error("the panic did not reach its caller")
				}
			}()
			_, _ = db.Update(t.Context(), func(ctx context.Context, tx T) error { half(ctx, tx); panic("boom") })
		})
		all.Go(func() {
			alone(func() {
				_, _ = db.Update(t.Context(), func(ctx context.Context, tx T) error { half(ctx, tx); runtime.Goexit(); return nil })
				t.Error("Update returned although its closure had ended the goroutine")
			})
		})
		all.Go(func() { mustAppend(t, db, write("b-1", freehold.Any, happened(1))) })
		all.Go(func() {
			alone(func() {
				defer func() { _ = recover() }()
				_ = db.View(t.Context(), func(context.Context, T) error { panic("boom") })
			})
		})
		all.Go(func() {
			alone(func() {
				_ = db.View(t.Context(), func(context.Context, T) error { runtime.Goexit(); return nil })
			})
		})
	}
	all.Wait()
	if got := s.get(t, db, "k"); got != "" {
		t.Errorf("a rolled back closure left %q", got)
	}
	if got := len(readAll(t, db, 10)); got != 20 {
		t.Errorf("%d events, want the 20 of the neighbours", got)
	}
	if _, err := db.Update(t.Context(), s.put("after", nil)); err != nil {
		t.Errorf("an Update afterwards: %v", err)
	}
}

func (s suite[T]) closing(t *testing.T, _ DB[T]) {
	const callers = 32
	setup := place(t)
	db := s.Open(t, setup)
	var all sync.WaitGroup
	var acknowledged atomic.Int64
	running := make(chan struct{}, callers)
	for i := range callers {
		all.Go(func() {
			for n := 0; ; n++ {
				_, err := db.Update(t.Context(), s.put(strconv.Itoa(i)+"."+strconv.Itoa(n), nil))
				if err != nil {
					if !errors.Is(err, freehold.ErrClosed) {
						t.Errorf("error %v, want ErrClosed", err)
					}
					return
				}
				acknowledged.Add(1)
				if n == 0 {
					running <- struct{}{}
				}
			}
		})
	}
	for range 4 {
		<-running
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
	all.Wait()
	for what, err := range map[string]error{
		"update": func() error {
			_, err := db.Update(t.Context(), func(context.Context, T) error { return nil })
			return err
		}(),
		"append": func() error { _, err := db.Append(t.Context(), write("a-1", freehold.Any, happened(1))); return err }(),
		"view":   db.View(t.Context(), func(context.Context, T) error { return nil }),
	} {
		if !errors.Is(err, freehold.ErrClosed) {
			t.Errorf("%s after Close: %v, want ErrClosed", what, err)
		}
	}
	if err := db.Close(); err != nil {
		t.Errorf("Close once more: %v", err)
	}
	db = s.Open(t, setup)
	if got := len(readAll(t, db, 100)); int64(got) != acknowledged.Load() || got < 4 {
		t.Errorf("%d events, %d were acknowledged", got, acknowledged.Load())
	}
	verify(t, db)
	if err := db.Close(); err != nil {
		t.Error(err)
	}
}
