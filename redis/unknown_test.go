package redis_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/internal/testredis"
	"github.com/freehold-go/freehold/kv"
	"github.com/freehold-go/freehold/redis"
)

// TestACommitWithoutAnAnswerIsUnknown: the server ends while it holds the commit.
func TestACommitWithoutAnAnswerIsUnknown(t *testing.T) {
	t.Parallel()
	srv := testredis.NewServer(t)
	s := store(t, srv.URL(), nil)
	if err := put(t, s, "a", "1"); err != nil {
		t.Fatal(err)
	}
	srv.Do("CLIENT", "PAUSE", "60000", "WRITE")
	outcome := make(chan error, 1)
	go func() {
		_, err := s.Update(context.Background(), func(ctx context.Context, tx kv.Tx) error { return tx.Put(ctx, "a", []byte("2")) })
		outcome <- err
	}()
	for !srv.Says("blocked_clients:1", "INFO", "clients") {
		if t.Context().Err() != nil {
			t.Fatal("the commit does not reach the server")
		}
	}
	srv.Kill()
	if err := <-outcome; !errors.Is(err, freehold.ErrUnknown) {
		t.Errorf("%v", err)
	}
	srv.Restart()
	for err := put(t, s, "a", "3"); err != nil; err = put(t, s, "a", "3") {
		if !errors.Is(err, freehold.ErrUnavailable) {
			t.Fatal(err)
		}
	}
	if got := get(t, s, "a"); got != "3" {
		t.Errorf("a is %q", got)
	}
}

// TestAnUpdateRunsAgainWhenItsSnapshotGoes: between two of its reads the store is
// emptied.
func TestAnUpdateRunsAgainWhenItsSnapshotGoes(t *testing.T) {
	t.Parallel()
	srv := testredis.NewServer(t)
	s := store(t, srv.URL(), nil)
	for _, key := range []string{"a", "b"} {
		if err := put(t, s, key, "1"); err != nil {
			t.Fatal(err)
		}
	}
	runs := 0
	_, err := s.Update(t.Context(), func(ctx context.Context, tx kv.Tx) error {
		a, _, err := tx.Get(ctx, "a")
		if err != nil {
			return err
		}
		if runs++; runs == 1 {
			srv.Do("FLUSHALL")
		}
		b, _, err := tx.Get(ctx, "b")
		if err != nil {
			return err
		}
		return tx.Put(ctx, "both", []byte(fmt.Sprintf("%s and %s", a, b)))
	})
	if got := get(t, s, "both"); err != nil || runs != 2 || got != " and " {
		t.Errorf("%q after %d runs, %v", got, runs, err)
	}
}

// TestWhatIsDeletedLeavesNothing: tombstones and replaced values go when no View can
// need them.
func TestWhatIsDeletedLeavesNothing(t *testing.T) {
	t.Parallel()
	srv := testredis.NewServer(t)
	s := store(t, srv.URL(), &redis.Options{Keep: time.Millisecond})
	for round := range 10 {
		_, err := s.Update(t.Context(), func(ctx context.Context, tx kv.Tx) error {
			for i := range 20 {
				if err := tx.Put(ctx, fmt.Sprint(round, " ", i), make([]byte, 100)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.Update(t.Context(), func(ctx context.Context, tx kv.Tx) error {
			for i := range 20 {
				if err := tx.Delete(ctx, fmt.Sprint(round, " ", i)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	counts := func() string {
		return srv.Do("HLEN", "{views}:values") + srv.Do("ZCARD", "{views}:index") + srv.Do("ZCARD", "{views}:dead")
	}
	for until := time.Now().Add(20 * time.Second); counts() != ":1:1:0"; {
		if err := put(t, s, "a", "1"); err != nil {
			t.Fatal(err)
		}
		if time.Now().After(until) {
			t.Fatalf("values, index and dead have %s", counts())
		}
	}
}

// TestAnEvictedGenerationIsNotTakenForOneWithoutChanges: on a relaxed server the values
// that a View needs may be dropped.
func TestAnEvictedGenerationIsNotTakenForOneWithoutChanges(t *testing.T) {
	t.Parallel()
	srv := testredis.NewServer(t)
	s := store(t, srv.URL(), &redis.Options{Keep: time.Hour})
	for _, text := range []string{"1", "2"} {
		if err := put(t, s, "a", text); err != nil {
			t.Fatal(err)
		}
	}
	err := s.View(t.Context(), func(ctx context.Context, tx kv.Tx) error {
		if _, _, err := tx.Get(ctx, "b"); err != nil {
			return err
		}
		if err := put(t, s, "c", "1"); err != nil {
			return err
		}
		srv.Do("RENAME", "{views}:young", "{views}:old")
		if err := put(t, s, "a", "3"); err != nil {
			return err
		}
		srv.Do("DEL", "{views}:young")
		raw, found, err := tx.Get(ctx, "a")
		return fmt.Errorf("a is read as %q, %v, %w", raw, found, err)
	})
	if !errors.Is(err, freehold.ErrBehind) {
		t.Error(err)
	}
}

// TestARestartOfTheServerIsNotSeenByTransactionsBehindIt: the connections from before
// are lost, and nobody is told.
func TestARestartOfTheServerIsNotSeenByTransactionsBehindIt(t *testing.T) {
	t.Parallel()
	srv := testredis.NewServer(t, "--appendonly", "yes", "--appendfsync", "always")
	s := store(t, srv.URL(), nil)
	add := func() error {
		_, err := s.Update(t.Context(), func(ctx context.Context, tx kv.Tx) error {
			_, err := tx.Add(ctx, "n", 1, 0)
			return err
		})
		return err
	}
	for i := range 10 {
		if err := add(); err != nil {
			t.Error(err)
		}
		srv.Kill()
		srv.Restart()
		if got := get(t, s, "n"); got != fmt.Sprint(i+1) {
			t.Errorf("n is %s, want %d", got, i+1)
		}
	}
}
