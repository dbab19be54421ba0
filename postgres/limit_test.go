package postgres_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/internal/testdb"
	"github.com/freehold-go/freehold/journal/journaltest"
	"github.com/freehold-go/freehold/postgres"
	"github.com/freehold-go/freehold/sqldb"
)

// TestTheConnectionOfALateClosureIsClosedBeforeItIsGivenBack lets a closure return at
// the moment at which it is cancelled, while its connection is still to be closed: its
// caller is told when nobody works on the connection any more.
func TestTheConnectionOfALateClosureIsClosedBeforeItIsGivenBack(t *testing.T) {
	t.Parallel()
	returned := make(chan struct{})
	opts := &postgres.Options{Cancel: 20 * time.Millisecond, Connections: 3, Log: slog.New(slog.DiscardHandler)}
	opts.Limited(func() {
		select {
		case <-returned:
			t.Error("a caller was told while the connection was still to be closed")
		case <-time.After(50 * time.Millisecond):
		}
	})
	db, err := postgres.Open(t.Context(), testdb.Postgres(t), "test", journaltest.Types(t), opts)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	_, err = db.Update(t.Context(), func(ctx context.Context, tx sqldb.Tx) error {
		<-ctx.Done()
		return nil
	})
	close(returned)
	if !errors.Is(err, freehold.ErrTooLong) {
		t.Errorf("error %v, want ErrTooLong", err)
	}
}

// withFew opens a database with few connections.
func withFew(t *testing.T) *postgres.DB {
	t.Helper()
	db, err := postgres.Open(t.Context(), testdb.Postgres(t), "test", journaltest.Types(t),
		&postgres.Options{Connections: 3, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// TestRowsThatAreLeftOpenHoldUpNobody returns from closures that have not closed what
// they read.
func TestRowsThatAreLeftOpenHoldUpNobody(t *testing.T) {
	t.Parallel()
	db := withFew(t)
	left := func(ctx context.Context, tx sqldb.Tx) error {
		rows, err := tx.QueryContext(ctx, `SELECT generate_series(1, 100000)`)
		if err == nil && !rows.Next() {
			err = rows.Err()
		}
		return err
	}
	for range 4 { // more than there are connections
		if _, err := db.Update(t.Context(), left); err == nil || !strings.Contains(err.Error(), "close rows") {
			t.Errorf("Update: %v, want an error that says what to do", err)
		}
		if err := db.View(t.Context(), left); err != nil {
			t.Errorf("View: %v", err)
		}
	}
}

// TestAStatementThatComesWhileRowsAreOpenSaysSo: the driver says only that the connection
// is busy, and database/sql waits for the rows to be closed.
func TestAStatementThatComesWhileRowsAreOpenSaysSo(t *testing.T) {
	t.Parallel()
	db := withFew(t)
	var n int
	for name, next := range map[string]func(ctx context.Context, tx sqldb.Tx) error{
		"exec": func(ctx context.Context, tx sqldb.Tx) error {
			_, err := tx.ExecContext(ctx, `SELECT 1`)
			return err
		},
		"query": func(ctx context.Context, tx sqldb.Tx) error { return tx.QueryRowContext(ctx, `SELECT 1`).Scan(&n) },
		"append": func(ctx context.Context, tx sqldb.Tx) error {
			_, err := tx.Append(ctx, "order-1", freehold.Any, journaltest.Happened{})
			return err
		},
		"events": func(ctx context.Context, tx sqldb.Tx) error {
			for _, err := range tx.Events(ctx, "order-1", 0) {
				return err
			}
			return nil
		},
	} {
		between := func(ctx context.Context, tx sqldb.Tx) error {
			rows, err := tx.QueryContext(ctx, `SELECT generate_series(1, 100000)`)
			if err != nil {
				return err
			}
			defer rows.Close()
			if !rows.Next() {
				return rows.Err()
			}
			return next(ctx, tx)
		}
		if _, err := db.Update(t.Context(), between); err == nil || !strings.Contains(err.Error(), "close rows") {
			t.Errorf("%s in an Update: %v, want an error that says what to do", name, err)
		}
		if name == "exec" || name == "append" {
			continue
		}
		if err := db.View(t.Context(), between); err == nil || !strings.Contains(err.Error(), "close rows") {
			t.Errorf("%s in a View: %v, want an error that says what to do", name, err)
		}
	}
}

// TestALockThatWasRefusedIsNotHeld asks for a lock while rows are open, which is refused,
// and again behind that.
func TestALockThatWasRefusedIsNotHeld(t *testing.T) {
	t.Parallel()
	db := open(t, testdb.Postgres(t))
	err := db.Do(t.Context(), func(ctx context.Context, tx sqldb.Tx) error {
		rows, err := tx.QueryContext(ctx, `SELECT generate_series(1, 100000)`)
		if err != nil {
			return err
		}
		if !rows.Next() {
			return rows.Err()
		}
		if err := tx.Lock(ctx, "key"); err == nil {
			t.Error("a lock was taken while rows were open")
		}
		if err := rows.Close(); err != nil {
			return err
		}
		var n int
		if err := tx.Lock(ctx, "key"); err != nil {
			return err
		}
		if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory'`).Scan(&n); err == nil && n != 1 {
			t.Errorf("%d locks are held, want 1", n)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
