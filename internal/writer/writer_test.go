package writer_test

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/internal/writer"
)

// serve runs a writer that gives each closure its turn and answers a group when
// commit says so.
func serve(q *writer.Queue[int], commit func()) {
	defer q.Exited()
	for {
		group := q.Next(16)
		if group == nil {
			return
		}
		errs := make([]error, len(group))
		for i, j := range group {
			if j.Closure() {
				errs[i] = j.Run(func() {})
			}
		}
		commit()
		for i, j := range group {
			j.Answer(freehold.Token{}, errs[i])
		}
	}
}

func TestNoAnswerBeforeCommit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := writer.New[int](writer.Options{})
		commit := make(chan struct{})
		go serve(q, func() { <-commit })
		failed := errors.New("no")
		answered := make(chan error, 2)
		go func() {
			_, err := q.Do(t.Context(), 0, func(context.Context) error { return failed })
			answered <- err
		}()
		synctest.Wait()
		select {
		case err := <-answered:
			t.Fatalf("answer %v before the commit", err)
		default:
		}
		close(commit)
		if err := <-answered; err != failed {
			t.Errorf("answer %v, want the closure's error", err)
		}
		q.Close()
		<-q.Done()
	})
}

func TestPanicUnwindsThroughTheCallerAfterTheRollback(t *testing.T) {
	t.Parallel()
	q := writer.New[int](writer.Options{})
	rolledBack := false
	go serve(q, func() { rolledBack = true })
	func() {
		defer func() {
			if p := recover(); p != "boom" {
				t.Errorf("recovered %v, want boom", p)
			}
			if !rolledBack {
				t.Error("panic reached the caller before the writer was done with it")
			}
		}()
		_, _ = q.Do(t.Context(), 0, func(context.Context) error { panic("boom") })
	}()
	if _, err := q.Do(t.Context(), 0, func(context.Context) error { return nil }); err != nil {
		t.Errorf("the next closure: %v", err)
	}
	q.Close()
	<-q.Done()
}

func TestGoexitEndsTheCallerOnly(t *testing.T) {
	t.Parallel()
	q := writer.New[int](writer.Options{})
	go serve(q, func() {})
	var caller sync.WaitGroup
	caller.Go(func() {
		_, _ = q.Do(t.Context(), 0, func(context.Context) error { runtime.Goexit(); return nil })
		t.Error("Do returned after Goexit")
	})
	caller.Wait()
	if _, err := q.Do(t.Context(), 0, func(context.Context) error { return nil }); err != nil {
		t.Errorf("the next closure: %v", err)
	}
	q.Close()
	<-q.Done()
}

func TestNestedUpdateFailsAtOnce(t *testing.T) {
	t.Parallel()
	q := writer.New[int](writer.Options{})
	go serve(q, func() {})
	_, err := q.Do(t.Context(), 0, func(ctx context.Context) error {
		_, err := q.Do(ctx, 0, func(context.Context) error { return nil })
		return err
	})
	if !errors.Is(err, freehold.ErrNested) {
		t.Errorf("error %v, want ErrNested", err)
	}
	q.Close()
	<-q.Done()
}

func TestTheHandleIsKilledBeforeItsClosureIsCancelled(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := writer.New[int](writer.Options{Warn: time.Second, Cancel: 2 * time.Second})
		killed, seen := make(chan struct{}), make(chan error, 1)
		go func() {
			defer q.Exited()
			j := q.Next(1)[0]
			err := j.Run(func() {
				synctest.Wait() // whoever was told has looked by now
				close(killed)
			})
			j.Answer(freehold.Token{}, err)
		}()
		_, err := q.Do(t.Context(), 0, func(ctx context.Context) error {
			<-ctx.Done()
			select {
			case <-killed:
				seen <- nil
			default:
				seen <- errors.New("a closure was cancelled while its handle was alive")
			}
			return nil
		})
		if !errors.Is(err, freehold.ErrTooLong) {
			t.Errorf("error %v, want ErrTooLong", err)
		}
		if err := <-seen; err != nil {
			t.Error(err)
		}
	})
}

func TestCancelledBeforeItsTurnIsNotExecuted(t *testing.T) {
	t.Parallel()
	q := writer.New[int](writer.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := q.Do(ctx, 0, func(context.Context) error { t.Error("executed"); return nil })
		done <- err
	}()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want context.Canceled", err)
	}
	go serve(q, func() {})
	if _, err := q.Do(t.Context(), 0, func(context.Context) error { return nil }); err != nil {
		t.Error(err)
	}
	q.Close()
	<-q.Done()
}

func TestCancelledAfterItsStartGetsTheOutcome(t *testing.T) {
	t.Parallel()
	q := writer.New[int](writer.Options{})
	go serve(q, func() {})
	ctx, cancel := context.WithCancel(t.Context())
	_, err := q.Do(ctx, 0, func(inner context.Context) error {
		cancel()
		return inner.Err() // the caller's end must not reach the closure
	})
	if err != nil {
		t.Errorf("error %v, want the outcome", err)
	}
	q.Close()
	<-q.Done()
}

func TestClosureThatHoldsTheWriterIsAbandoned(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := writer.New[int](writer.Options{})
		go serve(q, func() {})
		release := make(chan struct{})
		slow := make(chan error, 1)
		go func() {
			_, err := q.Do(t.Context(), 0, func(ctx context.Context) error {
				<-ctx.Done()
				<-release
				return nil
			})
			slow <- err
		}()
		synctest.Wait()
		begun := time.Now()
		if _, err := q.Do(t.Context(), 0, func(context.Context) error { return nil }); err != nil {
			t.Errorf("the neighbour: %v", err)
		}
		if held := time.Since(begun); held != 5*time.Second {
			t.Errorf("the neighbour waited %v, want 5s", held)
		}
		close(release)
		if err := <-slow; !errors.Is(err, freehold.ErrTooLong) {
			t.Errorf("error %v, want ErrTooLong", err)
		}
		q.Close()
		<-q.Done()
	})
}

func TestCloseFinishesWhatIsQueuedAndTurnsAwayTheRest(t *testing.T) {
	t.Parallel()
	q := writer.New[int](writer.Options{})
	var callers sync.WaitGroup
	ran := make(chan struct{}, 100)
	for range 100 {
		callers.Go(func() {
			_, err := q.Do(t.Context(), 0, func(context.Context) error { ran <- struct{}{}; return nil })
			if err != nil && !errors.Is(err, freehold.ErrClosed) {
				t.Errorf("error %v", err)
			}
		})
	}
	go serve(q, func() {})
	q.Close()
	callers.Wait()
	<-q.Done()
	if _, err := q.Do(t.Context(), 0, nil); !errors.Is(err, freehold.ErrClosed) {
		t.Errorf("error %v after Close, want ErrClosed", err)
	}
}

func BenchmarkClosureTurn(b *testing.B) {
	q := writer.New[int](writer.Options{})
	go serve(q, func() {})
	b.RunParallel(func(p *testing.PB) {
		for p.Next() {
			_, _ = q.Do(context.Background(), 0, func(context.Context) error { return nil })
		}
	})
	q.Close()
	<-q.Done()
}

func TestLimitBelowTheWarningHolds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := writer.New[int](writer.Options{Cancel: 20 * time.Millisecond}) // the warning is at 100 ms
		go serve(q, func() {})
		begun := time.Now()
		_, err := q.Do(t.Context(), 0, func(ctx context.Context) error {
			select {
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
			return nil
		})
		if !errors.Is(err, freehold.ErrTooLong) || time.Since(begun) != 20*time.Millisecond {
			t.Errorf("error %v after %v, want ErrTooLong after 20 ms", err, time.Since(begun))
		}
		q.Close()
	})
}
