package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/internal/testdb"
	"github.com/freehold-go/freehold/journal/journaltest"
	"github.com/freehold-go/freehold/postgres"
	"github.com/freehold-go/freehold/sqldb"
)

// asleep opens an instance that looks for nothing by itself, with the sequencer's lock n
// of the database.
func asleep(t *testing.T, url string, n int) *postgres.DB {
	t.Helper()
	opts := &postgres.Options{Migrations: tables, Log: slog.New(slog.DiscardHandler)}
	opts.Asleep()
	opts.OwnLock(n)
	db, err := postgres.Open(t.Context(), url, "test", journaltest.Types(t), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

// TestACommitCarriesItsPass: who commits alone waits for one sync of the disk, not for
// that of a pass besides.
func TestACommitCarriesItsPass(t *testing.T) {
	t.Parallel()
	url := testdb.Postgres(t)
	db := asleep(t, url, 0)
	const writes = 20
	for n := range writes {
		var err error
		if n%2 == 0 {
			_, err = db.Append(t.Context(), happened("a-1", freehold.Any, n))
		} else {
			_, err = db.Update(t.Context(), func(ctx context.Context, tx sqldb.Tx) error {
				return appending(happened("a-1", freehold.Any, n))(ctx, tx)
			})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if n := carried(t, connect(t, url), "a-1"); n < writes/2 { // the sequencer makes a pass when it begins, and may be at one
		t.Errorf("%d of %d commits have carried a pass", n, writes)
	}
}

// TestACommitStandsBehindWhatWasCommittedBefore: when more is due than fits into the pass
// of a commit, its own events come when that is drained.
func TestACommitStandsBehindWhatWasCommittedBefore(t *testing.T) {
	t.Parallel()
	url := testdb.Postgres(t)
	db := asleep(t, url, 0)
	if _, err := db.Append(t.Context(), happened("a-1", freehold.NoStream, 1)); err != nil {
		t.Fatal(err)
	}
	conn := connect(t, url)
	const others = 5000
	if _, err := conn.Exec(t.Context(), `SET synchronous_commit = off`); err != nil {
		t.Fatal(err)
	}
	_, err := conn.Exec(t.Context(), `DO $$ BEGIN FOR i IN 1..5000 LOOP
		INSERT INTO freehold.event (stream, version, type, schema, time, id, internal, payload, nonce)
			VALUES ('b-' || i, 1, 'test.happened', 2, 0, md5(i::text) || '-0', false, '{"n":0}', decode(md5(random()::text), 'hex'));
		COMMIT;
	END LOOP; END $$`)
	if err != nil {
		t.Fatal(err)
	}
	for n := 2; n <= 3; n++ {
		if _, err := db.Append(t.Context(), happened("a-1", freehold.At(freehold.Version(n-1)), n)); err != nil {
			t.Fatal(err)
		}
	}
	rs := all(t, db)
	if len(rs) != others+3 {
		t.Fatalf("the journal holds %d events, want %d", len(rs), others+3)
	}
	for i, n := range []int{len(rs) - 2, len(rs) - 1} {
		if rs[n].Stream != "a-1" || rs[n].Version != freehold.Version(i+2) {
			t.Errorf("at %d stands %s@%d, want a-1@%d", n+1, rs[n].Stream, rs[n].Version, i+2)
		}
	}
}

// TestACommitLooksForWhatOthersHaveCommitted: as long as nobody else commits anything, a
// commit that carries a pass need not look for what is due. It knows when somebody has,
// also if his transaction was open when the last pass was made.
func TestACommitLooksForWhatOthersHaveCommitted(t *testing.T) {
	t.Parallel()
	url := testdb.Postgres(t)
	db := asleep(t, url, 0)
	version := freehold.Version(0)
	appends := func() {
		t.Helper()
		for range 3 {
			if _, err := db.Append(t.Context(), happened("a-1", freehold.At(version), int(version))); err != nil {
				t.Fatal(err)
			}
			version++
		}
	}
	conn := connect(t, url)
	exec := func(statement string) {
		t.Helper()
		if _, err := conn.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	insert := func(n int) {
		t.Helper()
		exec(fmt.Sprintf(`INSERT INTO freehold.event (stream, version, type, schema, time, id, internal, payload, nonce)
			VALUES ('b-1', %d, 'test.happened', 2, 0, md5('%[1]d') || '-0', false, '{"n":0}', decode(md5('%[1]d'), 'hex'))`, n))
	}
	appends()
	insert(1)
	appends()
	exec(`BEGIN`)
	insert(2)
	appends()
	exec(`COMMIT`)
	appends()
	var order []string
	for _, r := range all(t, db) {
		order = append(order, string(r.Stream))
	}
	want := "a-1 a-1 a-1 b-1 a-1 a-1 a-1 a-1 a-1 a-1 b-1 a-1 a-1 a-1"
	if got := strings.Join(order, " "); got != want {
		t.Errorf("the journal holds %s, want %s", got, want)
	}
}

// TestCommitsOfTwoSequencersCarryOnePassAtATime: each is told by the other's tick that it
// is late, and its transaction runs again.
func TestCommitsOfTwoSequencersCarryOnePassAtATime(t *testing.T) {
	t.Parallel()
	url := testdb.Postgres(t)
	dbs := []*postgres.DB{asleep(t, url, 0), asleep(t, url, 1)}
	const rounds = 20
	var both sync.WaitGroup
	for i, db := range dbs {
		both.Go(func() {
			for n := range rounds {
				if _, err := db.Append(t.Context(), happened("a-1", freehold.Any, n)); err != nil {
					t.Errorf("instance %d: %v", i, err)
				}
				_, err := db.Update(t.Context(), func(ctx context.Context, tx sqldb.Tx) error {
					return appending(happened("b-1", freehold.Any, n, n))(ctx, tx)
				})
				if err != nil {
					t.Errorf("instance %d: %v", i, err)
				}
			}
		})
	}
	both.Wait()
	if rs := all(t, dbs[0]); len(rs) != rounds*2*3 {
		t.Errorf("the journal holds %d events, want %d", len(rs), rounds*2*3)
	}
}

// carried counts the events of a stream whose positions were given by their own commit.
func carried(t *testing.T, conn *pgx.Conn, stream string) (n int) {
	t.Helper()
	err := conn.QueryRow(t.Context(), `SELECT count(*) FROM freehold.event e JOIN freehold.stamp s USING (seq) WHERE s.xmin = e.xmin AND e.stream = $1`, stream).Scan(&n)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestACommitWaitsForNoTableOfPasses: who has locked the tables of passes holds up
// positions, not commits.
func TestACommitWaitsForNoTableOfPasses(t *testing.T) {
	t.Parallel()
	for _, table := range []string{"tick", "stamp"} {
		t.Run(table, func(t *testing.T) {
			t.Parallel()
			url := testdb.Postgres(t)
			db, locker := asleep(t, url, 0), connect(t, url)
			if _, err := locker.Exec(t.Context(), `BEGIN; LOCK TABLE freehold.`+table+` IN ACCESS EXCLUSIVE MODE`); err != nil {
				t.Fatal(err)
			}
			for n := range 3 {
				err := db.Do(t.Context(), func(ctx context.Context, tx sqldb.Tx) error {
					return appending(happened("a-1", freehold.Any, n))(ctx, tx)
				})
				if err != nil {
					t.Error(err)
				}
			}
			if _, err := locker.Exec(t.Context(), `COMMIT`); err != nil {
				t.Fatal(err)
			}
			wantJournal(t, db, "a-1@1 | a-1@2 | a-1@3 |")
		})
	}
}

// TestACommitThatWaitsLetsOthersHaveTheirPositions: it waits for a value that somebody
// keeps locked, and has given the turn for passes back.
func TestACommitThatWaitsLetsOthersHaveTheirPositions(t *testing.T) {
	t.Parallel()
	url := testdb.Postgres(t)
	db, locker := asleep(t, url, 0), connect(t, url)
	keep := func(value string) error {
		return db.Do(t.Context(), func(ctx context.Context, tx sqldb.Tx) error {
			return errors.Join(db.Keeper(tx).Put(ctx, "s", "k", []byte(value)), appending(happened("a-1", freehold.Any, 1))(ctx, tx))
		})
	}
	if err := keep("1"); err != nil {
		t.Fatal(err)
	}
	if _, err := locker.Exec(t.Context(), `BEGIN; SELECT FROM freehold.keep WHERE key = 'k' FOR UPDATE`); err != nil {
		t.Fatal(err)
	}
	waits := make(chan error, 1)
	go func() { waits <- keep("2") }()
	awaitLocked(t, connect(t, url))
	placed := make(chan error, 1)
	go func() {
		_, err := db.Append(t.Context(), happened("b-1", freehold.NoStream, 1))
		placed <- err
	}()
	select {
	case err := <-placed:
		if err != nil {
			t.Error(err)
		}
	case err := <-waits:
		t.Errorf("the one that waits was answered before: %v", err)
	case <-time.After(20 * time.Second): // as long as a commit may take
		t.Error("no position while another commit waits")
	}
	if _, err := locker.Exec(t.Context(), `COMMIT`); err != nil {
		t.Fatal(err)
	}
	if err := <-waits; err != nil {
		t.Error(err)
	}
}

// TestWhatAClosureSetsDecidesNothing: a time zone, or what a commit waits for.
func TestWhatAClosureSetsDecidesNothing(t *testing.T) {
	t.Parallel()
	url := testdb.Postgres(t)
	db, conn := asleep(t, url, 0), connect(t, url)
	set := func(stream freehold.StreamID, name, value string) {
		t.Helper()
		for n := range 10 {
			_, err := db.Update(t.Context(), func(ctx context.Context, tx sqldb.Tx) error {
				if _, err := tx.ExecContext(ctx, `SELECT set_config($1, $2, true)`, name, value); err != nil {
					return err
				}
				return appending(happened(stream, freehold.Any, n))(ctx, tx)
			})
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	set("zone-1", "TimeZone", "Asia/Tokyo")
	if n := carried(t, conn, "zone-1"); n < 5 {
		t.Errorf("in another time zone %d of 10 commits have carried a pass", n)
	}
	set("late-1", "synchronous_commit", "off") // told as durable by a pass that is
	if n := carried(t, conn, "late-1"); n > 0 {
		t.Errorf("%d commits that were not synced have carried a pass", n)
	}
}

// TestDeferredConstraintsHoldUpNoPass: they run at the COMMIT, for as long as they like.
func TestDeferredConstraintsHoldUpNoPass(t *testing.T) {
	t.Parallel()
	url := testdb.Postgres(t)
	conn := connect(t, url)
	if _, err := conn.Exec(t.Context(), `CREATE TABLE deferred (a int UNIQUE DEFERRABLE INITIALLY DEFERRED)`); err != nil {
		t.Fatal(err)
	}
	db := asleep(t, url, 0)
	for n := range 5 {
		if _, err := db.Append(t.Context(), happened("a-1", freehold.Any, n)); err != nil {
			t.Fatal(err)
		}
	}
	if n := carried(t, conn, "a-1"); n > 0 {
		t.Errorf("%d commits have carried a pass", n)
	}
}

// TestACommitBehindAReadThatFailed ends the sequencer's server process while it reads the
// last tick, and commits before anybody learns of it: what was known of the last tick holds.
func TestACommitBehindAReadThatFailed(t *testing.T) {
	t.Parallel()
	url := testdb.Postgres(t)
	learn := make(chan struct{})
	opts := &postgres.Options{Migrations: tables, Log: slog.New(slog.DiscardHandler)}
	opts.Asleep()
	opts.Ended(func() { <-learn })
	db, err := postgres.Open(t.Context(), url, "test", journaltest.Types(t), opts)
	if err != nil {
		t.Fatal(err)
	}
	release := sync.OnceFunc(func() { close(learn) })
	t.Cleanup(func() { release(); db.Close() })
	if _, err := db.Append(t.Context(), happened("a-1", freehold.NoStream, 1)); err != nil {
		t.Fatal(err)
	}
	conn, locker := connect(t, url), connect(t, url)
	if _, err := locker.Exec(t.Context(), `BEGIN; LOCK TABLE freehold.tick IN ACCESS EXCLUSIVE MODE`); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), `SELECT pg_notify('freehold', 'of another sequencer')`); err != nil {
		t.Fatal(err)
	}
	awaitLocked(t, conn)
	var killed bool
	err = conn.QueryRow(t.Context(), `SELECT bool_and(pg_terminate_backend(pid, 10000)) FROM pg_stat_activity
		WHERE datname = current_database() AND application_name = 'freehold sequencer test' AND wait_event_type = 'Lock'`).Scan(&killed)
	if err != nil || !killed {
		t.Fatalf("the sequencer's server process lives: %v", err)
	}
	if _, err := locker.Exec(t.Context(), `COMMIT`); err != nil {
		t.Fatal(err)
	}
	for n := range 3 {
		err := db.Do(t.Context(), func(ctx context.Context, tx sqldb.Tx) error {
			return appending(happened("b-1", freehold.Any, n))(ctx, tx)
		})
		if err != nil {
			t.Error(err)
		}
	}
	if n := carried(t, conn, "b-1"); n == 0 {
		t.Error("no commit has carried a pass")
	}
	release()
	if rs := all(t, db); len(rs) != 4 {
		t.Errorf("the journal holds %d events, want 4", len(rs))
	}
}
