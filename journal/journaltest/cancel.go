package journaltest

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/freehold-go/freehold"
)

// agree checks that what callers were told is what the journal holds: told has,
// by stream, whether the caller was told of success.
func agree[T freehold.Tx](t *testing.T, db DB[T], told map[freehold.StreamID]bool) {
	t.Helper()
	there := map[freehold.StreamID]bool{}
	for _, r := range readAll(t, db, 10) {
		there[r.Stream] = true
	}
	for stream, success := range told {
		if there[stream] != success {
			t.Errorf("%s: executed is %v, its caller was told of success is %v", stream, there[stream], success)
		}
	}
}

func (s suite[T]) cancelledBefore(t *testing.T, db DB[T]) {
	// The caller's context has ended before the call.
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	executed := func(context.Context, T) error { t.Error("executed for a caller that had gone"); return nil }
	if _, err := db.Update(ended, executed); !errors.Is(err, context.Canceled) {
		t.Errorf("update: %v, want the context's error", err)
	}
	if _, err := db.Append(ended, write("a-1", freehold.Any, happened(1))); !errors.Is(err, context.Canceled) {
		t.Errorf("append: %v, want the context's error", err)
	}
	// Callers leave while they may be waiting for their turn.
	told := map[freehold.StreamID]bool{}
	var mu sync.Mutex
	var all sync.WaitGroup
	for i := range 200 {
		ctx, cancel := context.WithCancel(t.Context())
		stream := freehold.Stream("a", strconv.Itoa(i))
		all.Go(func() {
			var err error
			if i%2 == 0 {
				_, err = db.Append(ctx, write(stream, freehold.NoStream, happened(i)))
			} else {
				_, err = db.Update(ctx, func(ctx context.Context, tx T) error {
					_, err := tx.Append(ctx, stream, freehold.NoStream, happened(i))
					return err
				})
			}
			if err != nil && !errors.Is(err, context.Canceled) {
				t.Errorf("error %v", err)
			}
			mu.Lock()
			defer mu.Unlock()
			told[stream] = err == nil
		})
		all.Go(cancel)
	}
	all.Wait()
	agree(t, db, told)
}

func (s suite[T]) cancelledInside(t *testing.T, db DB[T]) {
	told := map[freehold.StreamID]bool{}
	var mu sync.Mutex
	var all sync.WaitGroup
	for i := range 200 {
		ctx, cancel := context.WithCancel(t.Context())
		stream := freehold.Stream("a", strconv.Itoa(i))
		all.Go(func() {
			defer cancel()
			_, err := db.Update(ctx, func(inner context.Context, tx T) error {
				if i%4 == 0 {
					cancel()
				}
				if err := s.Put(inner, tx, string(stream), "v"); err != nil {
					return err
				}
				if i%4 == 1 {
					cancel()
				}
				_, err := tx.Append(inner, stream, freehold.NoStream, happened(i))
				if i%4 == 2 {
					cancel()
				}
				return err
			})
			if err != nil {
				t.Errorf("a closure that had started was answered %v, want its outcome", err)
			}
			mu.Lock()
			defer mu.Unlock()
			told[stream] = err == nil
		})
	}
	all.Wait()
	agree(t, db, told)
	for stream := range told {
		if s.get(t, db, string(stream)) != "v" {
			t.Errorf("the state of %s is missing", stream)
		}
	}
}

// limit is the moment for which a closure may hold a transaction of limited.
const limit = 150 * time.Millisecond

// limited opens a database in which a closure may hold a transaction for a
// moment only.
func (s suite[T]) limited(t *testing.T) DB[T] {
	setup := place(t)
	setup.Limit = limit
	return s.Open(t, setup)
}

// quick runs an update whose closure takes no time; again if it was too slow itself, on
// a busy machine.
func quick[T freehold.Tx](t *testing.T, db DB[T], fn func(ctx context.Context, tx T) error) error {
	for {
		var begun time.Time
		_, err := db.Update(t.Context(), func(ctx context.Context, tx T) error {
			begun = time.Now()
			return fn(ctx, tx)
		})
		if errors.Is(err, freehold.ErrTooLong) && time.Since(begun) > limit*9/10 && t.Context().Err() == nil {
			continue
		}
		return err
	}
}

// holding runs an update whose closure writes and then holds its transaction, also if
// the machine is so busy that it first has no time left for that.
func (s suite[T]) holding(t *testing.T, db DB[T], hold func(ctx context.Context, tx T) error) error {
	for {
		var held atomic.Bool
		_, err := db.Update(t.Context(), func(ctx context.Context, tx T) error {
			if err := s.put("slow", nil)(ctx, tx); err != nil {
				return err
			}
			held.Store(true)
			return hold(ctx, tx)
		})
		if errors.Is(err, freehold.ErrTooLong) && !held.Load() && t.Context().Err() == nil {
			continue
		}
		return err
	}
}

func (s suite[T]) tooLong(t *testing.T, _ DB[T]) {
	db := s.limited(t)
	started := make(chan struct{})
	slow := make(chan error, 1)
	go func() {
		slow <- s.holding(t, db, func(ctx context.Context, tx T) error {
			close(started)
			<-ctx.Done()
			if _, err := tx.Append(ctx, "a-late", freehold.Any, happened(1)); err == nil {
				t.Error("a closure that was cancelled may still append")
			}
			return nil // it does not even say so
		})
	}()
	<-started
	var neighbours sync.WaitGroup
	for i := range 8 {
		neighbours.Go(func() {
			if err := quick(t, db, s.put(strconv.Itoa(i), nil)); err != nil {
				t.Errorf("a neighbour: %v", err)
			}
		})
	}
	neighbours.Wait()
	if err := <-slow; !errors.Is(err, freehold.ErrTooLong) {
		t.Errorf("error %v, want ErrTooLong", err)
	}
	if got := len(readAll(t, db, 10)); got != 8 || s.get(t, db, "slow") != "" {
		t.Errorf("%d events and state %q, want the 8 of the neighbours", got, s.get(t, db, "slow"))
	}
	verify(t, db)
	if err := db.Close(); err != nil {
		t.Error(err)
	}
}

func (s suite[T]) stuck(t *testing.T, _ DB[T]) {
	db := s.limited(t)
	started, release := make(chan (<-chan struct{}), 1), make(chan struct{})
	slow := make(chan error, 1)
	go func() {
		slow <- s.holding(t, db, func(ctx context.Context, tx T) error {
			started <- ctx.Done()
			<-release
			_, err := tx.Append(context.WithoutCancel(ctx), "a-late", freehold.Any, happened(1))
			if err == nil {
				t.Error("a closure that was left behind may still append")
			}
			return nil
		})
	}()
	late := <-started
	if err := quick(t, db, s.put("neighbour", nil)); err != nil {
		t.Errorf("a neighbour: %v", err)
	}
	<-late
	close(release)
	if err := <-slow; !errors.Is(err, freehold.ErrTooLong) {
		t.Errorf("error %v, want ErrTooLong", err)
	}
	if got := len(readAll(t, db, 10)); got != 1 || s.get(t, db, "slow") != "" {
		t.Errorf("%d events and state %q, want only the neighbour's", got, s.get(t, db, "slow"))
	}
	verify(t, db)
	if err := db.Close(); err != nil {
		t.Error(err)
	}
}
