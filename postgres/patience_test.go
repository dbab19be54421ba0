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

// TestNobodyWaitsForAPositionForEver lets nobody give positions: as while the server is
// away behind a commit, callers are told that their commands may have been done, and the
// process can be stopped.
func TestNobodyWaitsForAPositionForEver(t *testing.T) {
	t.Parallel()
	url := testdb.Postgres(t)
	opts := &postgres.Options{Log: slog.New(slog.DiscardHandler)}
	opts.Patience(300 * time.Millisecond)
	db, err := postgres.Open(t.Context(), url, "test", journaltest.Types(t), opts)
	if err != nil {
		t.Fatal(err)
	}
	locker := connect(t, url)
	if _, err := locker.Exec(t.Context(), `BEGIN; LOCK TABLE freehold.tick IN SHARE MODE`); err != nil {
		t.Fatal(err)
	}
	answers := make(chan error, 4)
	go func() {
		_, err := db.Append(context.Background(), happened("a-1", freehold.NoStream, 1))
		answers <- err
		_, err = db.Update(context.Background(), func(ctx context.Context, tx sqldb.Tx) error {
			return appending(happened("b-1", freehold.NoStream, 1))(ctx, tx)
		})
		answers <- err
		_, err = db.Update(context.Background(), func(context.Context, sqldb.Tx) error { return nil })
		answers <- err
		answers <- db.Close()
	}()
	for _, what := range []string{"Append", "Update", "Update without events"} {
		select {
		case err := <-answers:
			if !errors.Is(err, freehold.ErrUnknown) {
				t.Errorf("%s while nobody gives positions: %v, want that it is unknown", what, err)
			}
		case <-time.After(patience):
			t.Fatalf("%s waits for a position that nobody gives", what)
		}
	}
	select {
	case err := <-answers:
		if err != nil {
			t.Errorf("Close: %v", err)
		}
	case <-time.After(patience):
		t.Fatal("Close waits for a pass that cannot be made")
	}
	if _, err := locker.Exec(t.Context(), `COMMIT`); err != nil {
		t.Fatal(err)
	}
	db = open(t, url)
	if rs := all(t, db); len(rs) != 2 {
		t.Errorf("the journal holds %d events, want the two that were committed", len(rs))
	}
}

// TestAClosureThatLosesEveryRaceIsTold undoes each attempt as a deadlock would. That is an
// error of the closure, not of the database: a follower parks such an event and goes on.
func TestAClosureThatLosesEveryRaceIsTold(t *testing.T) {
	t.Parallel()
	db := open(t, testdb.Postgres(t))
	attempts := 0
	_, err := db.Update(t.Context(), func(ctx context.Context, tx sqldb.Tx) error {
		attempts++
		_, err := tx.ExecContext(ctx, `DO $$ BEGIN RAISE EXCEPTION 'a race is lost' USING ERRCODE = '40001'; END $$`)
		return err
	})
	if err == nil || errors.Is(err, freehold.ErrUnavailable) || attempts < 2 || !strings.Contains(err.Error(), "nothing was written") {
		t.Errorf("%v behind %d attempts, want that nothing was written", err, attempts)
	}
}
