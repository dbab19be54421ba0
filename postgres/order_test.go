package postgres_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/internal/testdb"
	"github.com/freehold-go/freehold/journal/journaltest"
	"github.com/freehold-go/freehold/postgres"
	"github.com/freehold-go/freehold/sqldb"
)

// holdSequencers keeps anybody from giving positions until it is told to let them: then
// all that was committed meanwhile is in one difference of snapshots.
func holdSequencers(t *testing.T, url string) (release func()) {
	t.Helper()
	conn := connect(t, url)
	if _, err := conn.Exec(t.Context(), `SELECT pg_advisory_lock($1)`, postgres.SequencerLock); err != nil {
		t.Fatal(err)
	}
	return func() { _ = conn.Close(t.Context()) }
}

// patience is for how long a state is waited for that only a defect keeps away: long on
// any machine, and shorter than the minute behind which what a pass has missed is found.
const patience = 30 * time.Second

// awaitLocked waits until a call waits for what somebody has locked: no signal tells.
func awaitLocked(t *testing.T, conn *pgx.Conn) {
	t.Helper()
	for until, waits := time.Now().Add(patience), false; !waits; {
		if time.Now().After(until) {
			t.Fatal("nobody waits for a lock")
		}
		err := conn.QueryRow(t.Context(), `SELECT EXISTS (SELECT FROM pg_stat_activity, pg_sleep(0.002) WHERE datname = current_database() AND wait_event_type = 'Lock')`).Scan(&waits)
		if err != nil {
			t.Fatal(err)
		}
	}
}

// wantStamped waits until events have their places. It asks the tables, so that it
// comes to an end whatever the engine does: at once if a pass has seen an event and left
// it without a place.
func wantStamped(t *testing.T, conn *pgx.Conn, events int) {
	t.Helper()
	var stamped, missed int
	for until := time.Now().Add(patience); time.Now().Before(until); time.Sleep(2 * time.Millisecond) {
		err := conn.QueryRow(t.Context(), `SELECT (SELECT count(*) FROM freehold.stamp),
			(SELECT count(*) FROM freehold.event e, (SELECT base, drain FROM freehold.tick ORDER BY pass DESC LIMIT 1) last
				WHERE last.drain IS NULL AND pg_visible_in_snapshot(e.xid, last.base)
					AND NOT EXISTS (SELECT FROM freehold.stamp s WHERE s.seq = e.seq))`).Scan(&stamped, &missed)
		switch {
		case err != nil:
			t.Fatal(err)
		case missed > 0:
			t.Fatalf("%d events have a place, want %d: %d were seen and passed over", stamped, events, missed)
		case stamped == events:
			return
		}
	}
	t.Fatalf("%d events have a place after %s, want %d", stamped, patience, events)
}

// TestTransactionsStandWholeBehindWhatTheyHadRead lets a transaction append, read what
// another one commits meanwhile, and append again.
func TestTransactionsStandWholeBehindWhatTheyHadRead(t *testing.T) {
	t.Parallel()
	url := testdb.Postgres(t)
	if err := postgres.Migrate(t.Context(), url, "test", nil, postgres.Roles{}); err != nil {
		t.Fatal(err)
	}
	release := holdSequencers(t, url)
	db, pool := attach(t, url)
	err := pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
		if err := db.Join(t.Context(), tx, appending(happened("a-1", freehold.NoStream, 1))); err != nil {
			return err
		}
		err := db.Do(t.Context(), func(ctx context.Context, tx sqldb.Tx) error {
			return appending(happened("b-1", freehold.NoStream, 1))(ctx, tx)
		})
		if err != nil {
			return err
		}
		return db.Join(t.Context(), tx, func(ctx context.Context, tx freehold.Tx) error {
			_, err := tx.Append(ctx, "b-1", freehold.At(1)) // reads it
			return errors.Join(err, appending(happened("a-1", freehold.At(1), 2))(ctx, tx))
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	release()
	wantStamped(t, connect(t, url), 3)
	wantJournal(t, db, "b-1@1 | a-1@1 a-1@2 |")
}

// TestAStreamKeepsItsOrderWhoeverBeganFirst lets a transaction begin first and append
// second.
func TestAStreamKeepsItsOrderWhoeverBeganFirst(t *testing.T) {
	t.Parallel()
	url := testdb.Postgres(t)
	if err := postgres.Migrate(t.Context(), url, "test", &postgres.Options{Migrations: tables}, postgres.Roles{}); err != nil {
		t.Fatal(err)
	}
	release := holdSequencers(t, url)
	db := open(t, url)
	err := db.Do(t.Context(), func(ctx context.Context, tx sqldb.Tx) error {
		_, begun := tx.ExecContext(ctx, `SELECT 1`) // with its first statement
		err := db.Do(t.Context(), func(ctx context.Context, tx sqldb.Tx) error {
			return appending(happened("a-1", freehold.Any, 1))(ctx, tx)
		})
		return errors.Join(begun, err, appending(happened("a-1", freehold.Any, 2))(ctx, tx))
	})
	if err != nil {
		t.Fatal(err)
	}
	release()
	wantStamped(t, connect(t, url), 2)
	wantJournal(t, db, "a-1@1 | a-1@2 |")
}

// TestALateCommitIsDelivered commits a transaction that began before others, which have
// been read long since.
func TestALateCommitIsDelivered(t *testing.T) {
	t.Parallel()
	url := testdb.Postgres(t)
	db, pool := attach(t, url)
	tx, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Join(t.Context(), tx, appending(happened("late-1", freehold.NoStream, 1))); err != nil {
		t.Fatal(err)
	}
	for n := range 20 {
		if _, err := db.Append(t.Context(), happened("a-1", freehold.Any, n)); err != nil { // waits for its place
			t.Fatal(err)
		}
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantStamped(t, connect(t, url), 21)
	if rs := all(t, db); rs[20].Stream != "late-1" {
		t.Errorf("the last event is %s", rs[20].Stream)
	}
}

// TestAPassThatFailsIsDoneAgain ends the sequencer's server process between the look
// at what is due and the commit of the places.
func TestAPassThatFailsIsDoneAgain(t *testing.T) {
	t.Parallel()
	url := testdb.Postgres(t)
	db, conn, locker := open(t, url), connect(t, url), connect(t, url)
	if _, err := locker.Exec(t.Context(), `BEGIN; LOCK TABLE freehold.tick IN SHARE MODE`); err != nil {
		t.Fatal(err)
	}
	err := db.Do(t.Context(), func(ctx context.Context, tx sqldb.Tx) error {
		_, err := tx.Append(ctx, "a-1", freehold.NoStream, journaltest.Happened{})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	killed := false
	for until := time.Now().Add(patience); !killed && time.Now().Before(until); time.Sleep(2 * time.Millisecond) {
		err := conn.QueryRow(t.Context(), `SELECT coalesce(bool_or(pg_terminate_backend(pid, 10000)), false) FROM pg_stat_activity
			WHERE datname = current_database() AND application_name = 'freehold sequencer test' AND wait_event_type = 'Lock'`).Scan(&killed)
		if err != nil {
			t.Fatal(err)
		}
	}
	if !killed {
		t.Fatal("no pass waits for the lock")
	}
	if _, err := locker.Exec(t.Context(), `COMMIT`); err != nil {
		t.Fatal(err)
	}
	wantStamped(t, conn, 1)
	wantJournal(t, db, "a-1@1 |")
}

// TestNobodyIsAnsweredBeforeTheOutcome lets the commit of two racing calls fail, which
// share a transaction: the loser's conflict is with an event that nobody has committed,
// and the winner has not won.
func TestNobodyIsAnsweredBeforeTheOutcome(t *testing.T) {
	t.Parallel()
	db := open(t, testdb.Postgres(t))
	writes := []freehold.Write{happened("a-1", freehold.NoStream, 1), happened("a-1", freehold.NoStream, 2)}
	db.FailCommits(1)
	if alone, answers := db.Together(t.Context(), writes...); alone != 2 {
		t.Errorf("nothing was committed, and calls were answered %v", answers)
	}
	db.FailCommits(1)
	err := db.Do(t.Context(), func(ctx context.Context, tx sqldb.Tx) error { return appending(writes[0])(ctx, tx) })
	if err == nil {
		t.Error("success was answered, and nothing committed")
	}
	alone, answers := db.Together(t.Context(), writes...)
	var conflict *freehold.Conflict
	if alone != 0 || len(answers) != 2 || answers[0] != nil || !errors.As(answers[1], &conflict) || conflict.Actual != 1 {
		t.Errorf("%d alone, answers %v, want one success and one conflict with version 1", alone, answers)
	}
}

// TestAnAppendThatWaitsHoldsUpNobody lets calls of Append wait for streams that a
// transaction makes which goes on.
func TestAnAppendThatWaitsHoldsUpNobody(t *testing.T) {
	t.Parallel()
	url := testdb.Postgres(t)
	db, err := postgres.Open(t.Context(), url, "test", journaltest.Types(t), &postgres.Options{Cancel: time.Minute, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	tx, err := connect(t, url).Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Join(t.Context(), tx, appending(happened("new-1", freehold.NoStream, 1))); err != nil {
		t.Fatal(err)
	}
	late, others := make(chan error, 1), make(chan error, 1)
	go func() {
		_, err := db.Append(t.Context(), happened("new-1", freehold.Any, 2))
		late <- err
	}()
	awaitLocked(t, connect(t, url))
	go func() {
		_, err := db.Append(t.Context(), happened("b-1", freehold.NoStream, 1))
		others <- err
	}()
	select {
	case err := <-others:
		if err != nil {
			t.Error(err)
		}
	case err := <-late:
		t.Errorf("the call that waits was answered before the others: %v", err)
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-late; err != nil {
		t.Error(err)
	}
}

// TestWhatAPassMissedIsFound takes away the position of an event that the last pass's
// snapshot has seen, which no pass does: the next sequencer looks for such events and
// gives it a position.
func TestWhatAPassMissedIsFound(t *testing.T) {
	t.Parallel()
	url := testdb.Postgres(t)
	db := open(t, url)
	for n := range 2 {
		if _, err := db.Append(t.Context(), happened("a-1", freehold.Any, n)); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	_, err := connect(t, url).Exec(t.Context(), `ALTER TABLE freehold.stamp DISABLE TRIGGER USER;
		DELETE FROM freehold.stamp WHERE position = 2;
		INSERT INTO freehold.tick (pass, base, position, chain)
			SELECT (SELECT max(pass) + 1 FROM freehold.tick), -- as if a neighbour had been open when the pass looked
				((SELECT max(xid::text::int8) FROM freehold.event)::text || ':' || pg_snapshot_xmax(pg_current_snapshot())::text || ':')::pg_snapshot,
				position, chain FROM freehold.stamp WHERE position = 1`)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := open(t, url).Journal().Wait(ctx, freehold.Mark{Source: "test", Position: 1}); err != nil {
		t.Errorf("the event has no position: %v", err)
	}
}
