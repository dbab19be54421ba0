package postgres_test

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/internal/testdb"
	"github.com/freehold-go/freehold/postgres"
	"github.com/freehold-go/freehold/sqldb"
)

// TestWritersSendNoNotification: NOTIFY takes a lock of the whole server at each
// commit, so only the connections of sequencers send any. First none gives positions, and
// the instance tells whoever does, once for many commits; then it gives them itself, and
// tells of that.
func TestWritersSendNoNotification(t *testing.T) {
	t.Parallel()
	url := testdb.Postgres(t)
	if err := postgres.Migrate(t.Context(), url, "test", &postgres.Options{Migrations: tables}, postgres.Roles{}); err != nil {
		t.Fatal(err)
	}
	release := holdSequencers(t, url)
	db, pool := attach(t, url)
	listener := connect(t, url)
	if _, err := listener.Exec(t.Context(), `LISTEN freehold`); err != nil {
		t.Fatal(err)
	}
	var sequencer uint32
	err := pool.QueryRow(t.Context(), `SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'freehold sequencer test'`).Scan(&sequencer)
	if err != nil {
		t.Fatal(err)
	}
	const writes = 20
	write := func() {
		t.Helper()
		for n := range writes {
			var err error
			switch n % 3 {
			case 0:
				err = db.Do(t.Context(), func(ctx context.Context, tx sqldb.Tx) error {
					return appending(happened("a-1", freehold.Any, n))(ctx, tx)
				})
			case 1:
				err = pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
					return db.Join(t.Context(), tx, appending(happened("a-1", freehold.Any, n)))
				})
			default:
				_, answers := db.Together(t.Context(), happened("a-1", freehold.Any, n))
				err = answers[0]
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	write()
	// Notifications arrive in the order of commits: this one is behind those of writers.
	if _, err := pool.Exec(t.Context(), `SELECT pg_notify('freehold', 'of the test')`); err != nil {
		t.Fatal(err)
	}
	hints := 0
	for {
		n, err := listener.WaitForNotification(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if n.Payload == "of the test" {
			break
		}
		if hints++; n.PID != sequencer || n.Payload != "due" {
			t.Errorf("a writer has sent %+v", n)
		}
	}
	if hints > writes {
		t.Errorf("%d hints of %d commits", hints, writes)
	}
	release()
	wantStamped(t, connect(t, url), writes)
	write()
	for told := false; !told; {
		n, err := listener.WaitForNotification(t.Context())
		if err != nil {
			t.Fatalf("the sequencer has not sent that it gave positions: %v", err)
		}
		told = n.Payload != "due"
		if n.PID != sequencer {
			t.Errorf("a writer has sent %+v", n)
		}
	}
}

// TestIdleFollowersWriteNothing lets followers come to the end of the journal, and
// compares all row versions of the database before and behind a second of idleness.
func TestIdleFollowersWriteNothing(t *testing.T) {
	t.Parallel()
	url := testdb.Postgres(t)
	db, pool := attach(t, url)
	tok, err := db.Append(t.Context(), happened("a-1", freehold.NoStream, 1))
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	const followers = 20
	ended := make(chan error, followers)
	for n := range followers {
		f, err := follow.New(fmt.Sprintf("idle-%d", n), db, []follow.Source{db.Journal()}, &follow.Options{Log: slog.New(slog.DiscardHandler)},
			follow.Each(func(context.Context, sqldb.Tx, freehold.Recorded) error { return nil }))
		if err != nil {
			t.Fatal(err)
		}
		go func() { ended <- f.Run(ctx) }()
		if err := f.WaitFor(t.Context(), tok); err != nil {
			t.Fatal(err)
		}
	}
	conn := connect(t, url)
	rows := func() (all string) {
		for _, table := range []string{"journal", "incarnation", "stream", "event", "stamp", "tick", "mark", "keep", "migration"} {
			var sum string
			err := conn.QueryRow(t.Context(), `SELECT count(*) || ' ' || coalesce(md5(string_agg(concat(ctid, xmin, xmax), ',' ORDER BY ctid)), '') FROM freehold.`+table).Scan(&sum)
			if err != nil {
				t.Fatal(err)
			}
			all += table + " " + sum + "\n"
		}
		return all
	}
	before, asked := rows(), pool.Stat().AcquireCount()
	<-time.After(time.Second)
	if after := rows(); after != before {
		t.Errorf("%d idle followers have written: rows were\n%sand are\n%s", followers, before, after)
	}
	if n := pool.Stat().AcquireCount() - asked; n > followers {
		t.Errorf("%d idle followers have taken connections %d times in a second", followers, n)
	}
	stop()
	for range followers {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

// TestAnAppendReadsAsMuchBehindALongHistory counts the rows that an append's statements
// look at, in an empty journal and behind 20,000 events, without statistics of them.
func TestAnAppendReadsAsMuchBehindALongHistory(t *testing.T) {
	t.Parallel()
	db, pool := attach(t, testdb.Postgres(t))
	looked := func(s freehold.StreamID) (rows int) {
		err := pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
			var before int // of what the session has not reported yet
			read := func(n *int) error {
				return tx.QueryRow(t.Context(), `SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0)) FROM pg_stat_xact_all_tables WHERE schemaname = 'freehold'`).Scan(n)
			}
			if err := read(&before); err != nil {
				return err
			}
			for n := range 10 { // plans are chosen anew up to the sixth
				if err := db.Join(t.Context(), tx, appending(happened(freehold.StreamID(fmt.Sprintf("%s-%d", s, n)), freehold.NoStream, 1))); err != nil {
					return err
				}
			}
			err := read(&rows)
			rows -= before
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return rows
	}
	empty := looked("a")
	for n := range 20 {
		var writes []freehold.Write
		for i := range 250 {
			writes = append(writes, happened(freehold.StreamID(fmt.Sprintf("long-%d", 250*n+i)), freehold.NoStream, 1, 2, 3, 4))
		}
		if _, err := db.Append(t.Context(), writes...); err != nil {
			t.Fatal(err)
		}
	}
	if full := looked("b"); full > empty+50 {
		t.Errorf("10 appends look at %d rows in an empty journal, and at %d behind 20,000 events", empty, full)
	}
}

// TestAStrangerInAnotherDatabaseDelaysNobody holds a transaction id in another database
// of the same server. Each call of Append waits for its place.
func TestAStrangerInAnotherDatabaseDelaysNobody(t *testing.T) {
	t.Parallel()
	stranger := connect(t, testdb.Postgres(t))
	if _, err := stranger.Exec(t.Context(), `BEGIN; CREATE TABLE strange (a int)`); err != nil {
		t.Fatal(err)
	}
	db := open(t, testdb.Postgres(t))
	placed := make(chan error, 1)
	go func() {
		var err error
		for n := 0; n < 50 && err == nil; n++ {
			_, err = db.Append(t.Context(), happened("a-1", freehold.Any, n))
		}
		placed <- err
	}()
	select {
	case err := <-placed:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(patience):
		t.Error("events wait for a transaction of another database")
	}
	if _, err := stranger.Exec(t.Context(), `COMMIT`); err != nil {
		t.Fatal(err)
	}
	if n := len(all(t, db)); n != 50 {
		t.Errorf("%d events, want 50", n)
	}
}

// TestADumpedAndRestoredJournalGoesOn restores a journal whose transaction ids are far
// beyond those of the server, with an event that had no place yet.
func TestADumpedAndRestoredJournalGoesOn(t *testing.T) {
	t.Parallel()
	old, restored := testdb.Postgres(t), testdb.Postgres(t)
	db := open(t, old)
	if _, err := db.Append(t.Context(), happened("a-1", freehold.NoStream, 1, 2)); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	conn := connect(t, old)
	_, err := conn.Exec(t.Context(), `UPDATE freehold.stream SET version = 3;
		INSERT INTO freehold.event (stream, version, type, schema, time, id, internal, payload, nonce)
			SELECT stream, 3, type, schema, time, 'late-0', internal, payload, nonce FROM freehold.event WHERE version = 2`)
	if err != nil {
		t.Fatal(err)
	}
	testdb.Restore(t, old, restored)
	conn = connect(t, restored)
	_, err = conn.Exec(t.Context(), `ALTER TABLE freehold.event DISABLE TRIGGER insert_only;
		UPDATE freehold.event SET xid = (xid::text::bigint + 1000000000000)::text::xid8;
		ALTER TABLE freehold.event ENABLE TRIGGER insert_only;
		UPDATE freehold.tick SET base = '2000000000000:2000000000000:'`)
	if err != nil {
		t.Fatal(err)
	}
	db = open(t, restored)
	wantStamped(t, conn, 3)
	for n := range 20 {
		if err := db.Do(t.Context(), func(ctx context.Context, tx sqldb.Tx) error {
			return appending(happened("b-1", freehold.Any, n))(ctx, tx)
		}); err != nil {
			t.Fatal(err)
		}
	}
	wantStamped(t, conn, 23)
	if rs := all(t, db); rs[2].ID != "late-0" || len(rs) != 23 {
		t.Errorf("%d events, the third is %s", len(rs), rs[2].ID)
	}
}

// A slow reader tells an epoch that has ended meanwhile: it does not come back, or else
// tokens and events would carry it.
func TestAnEpochThatHasEndedDoesNotComeBack(t *testing.T) {
	t.Parallel()
	if got := postgres.Turned("a", "b", "a"); got != "b" {
		t.Errorf("the present epoch is %q, want b", got)
	}
	if got := postgres.Turned("a", "b", "a", "c", "b"); got != "c" {
		t.Errorf("the present epoch is %q, want c", got)
	}
}
