package sqlite_test

import (
	"context"
	"testing"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/journal/journaltest"
	"github.com/freehold-go/freehold/sqldb"
)

// TestAStatementThatEndsTheTransactionLeavesNothing: a closure that ignores that a
// statement rolled back its transaction, and goes on, commits nothing of what came
// before or behind it.
func TestAStatementThatEndsTheTransactionLeavesNothing(t *testing.T) {
	t.Parallel()
	h := harness()
	db := h.Open(t, journaltest.Setup{Place: t.TempDir(), Types: journaltest.Types(t)})
	defer db.Close()
	put := func(ctx context.Context, tx sqldb.Tx, how, key string) error {
		_, err := tx.ExecContext(ctx, `INSERT `+how+` INTO state (key, value) VALUES ($1, 'x')`, key)
		return err
	}
	if _, err := db.Update(t.Context(), func(ctx context.Context, tx sqldb.Tx) error { return put(ctx, tx, "", "taken") }); err != nil {
		t.Fatal(err)
	}
	_, err := db.Update(t.Context(), func(ctx context.Context, tx sqldb.Tx) error {
		if _, err := tx.Append(ctx, "a-1", freehold.NoStream, journaltest.Happened{}); err != nil {
			return err
		}
		if err := put(ctx, tx, "", "before"); err != nil {
			return err
		}
		if err := put(ctx, tx, "OR ROLLBACK", "taken"); err == nil {
			t.Error("a key was taken twice")
		}
		if err := put(ctx, tx, "", "behind"); err == nil {
			t.Error("a statement behind the end of the transaction went through")
		}
		return nil
	})
	if err == nil {
		t.Error("a closure whose transaction was rolled back was told that it committed")
	}
	for _, key := range []string{"before", "behind"} {
		err := db.View(t.Context(), func(ctx context.Context, tx sqldb.Tx) error {
			v, err := h.Get(ctx, tx, key)
			if v != "" {
				t.Errorf("what was written %s it is there", key)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
	if v := versionIn(t, db.Events(t.Context(), "a-1", 0)); v != 0 {
		t.Errorf("the event is there, at version %d", v)
	}
	if _, err := db.Update(t.Context(), func(ctx context.Context, tx sqldb.Tx) error { return put(ctx, tx, "", "next") }); err != nil {
		t.Errorf("the next closure: %v", err)
	}
}

// TestATransactionThatEndedUnseenIsNotTakenForCommitted: statements that a closure
// prepares itself are not watched, so what they ended is found behind the closure.
// Its neighbours commit all the same.
func TestATransactionThatEndedUnseenIsNotTakenForCommitted(t *testing.T) {
	t.Parallel()
	h := harness()
	db := h.Open(t, journaltest.Setup{Place: t.TempDir(), Types: journaltest.Types(t)})
	defer db.Close()
	put := func(ctx context.Context, tx sqldb.Tx, key string) error {
		_, err := tx.ExecContext(ctx, `INSERT INTO state (key, value) VALUES ($1, 'x')`, key)
		return err
	}
	if _, err := db.Update(t.Context(), func(ctx context.Context, tx sqldb.Tx) error { return put(ctx, tx, "taken") }); err != nil {
		t.Fatal(err)
	}
	release := make(chan struct{})
	held := make(chan struct{})
	results := make(chan error, 3)
	go func() { // so that the others wait and share a group
		_, err := db.Update(t.Context(), func(context.Context, sqldb.Tx) error {
			close(held)
			<-release
			return nil
		})
		results <- err
	}()
	<-held
	go func() {
		_, err := db.Append(t.Context(), freehold.Write{Stream: "b-1", Expect: freehold.NoStream, Events: []freehold.Event{journaltest.Happened{}}})
		results <- err
	}()
	ended := make(chan error, 1)
	go func() {
		_, err := db.Update(t.Context(), func(ctx context.Context, tx sqldb.Tx) error {
			if _, err := tx.Append(ctx, "a-1", freehold.NoStream, journaltest.Happened{}); err != nil {
				return err
			}
			if err := put(ctx, tx, "before"); err != nil {
				return err
			}
			s, err := tx.PrepareContext(ctx, `INSERT OR ROLLBACK INTO state (key, value) VALUES ('taken', 'x')`)
			if err != nil {
				return err
			}
			defer s.Close()
			if _, err := s.ExecContext(ctx); err == nil {
				t.Error("a key was taken twice")
			}
			return nil
		})
		ended <- err
	}()
	close(release)
	for range 2 {
		if err := <-results; err != nil {
			t.Errorf("a neighbour: %v", err)
		}
	}
	if err := <-ended; err == nil {
		t.Error("a closure whose transaction was rolled back was told that it committed")
	}
	if a, b := versionIn(t, db.Events(t.Context(), "a-1", 0)), versionIn(t, db.Events(t.Context(), "b-1", 0)); a != 0 || b != 1 {
		t.Errorf("versions %d of the closure's stream and %d of its neighbour's, want 0 and 1", a, b)
	}
	err := db.View(t.Context(), func(ctx context.Context, tx sqldb.Tx) error {
		v, err := h.Get(ctx, tx, "before")
		if v != "" {
			t.Error("what was written before is there")
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
