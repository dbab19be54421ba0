package postgres_test

import (
	"context"
	"log/slog"
	"testing"

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
	conn := connect(t, url)
	var carried int
	err := conn.QueryRow(t.Context(), `SELECT count(*) FROM freehold.event e JOIN freehold.stamp s USING (seq) WHERE s.xmin = e.xmin`).Scan(&carried)
	if err != nil {
		t.Fatal(err)
	}
	if carried < writes/2 { // the sequencer makes a pass when it begins, and may be at one
		t.Errorf("%d of %d commits have carried a pass", carried, writes)
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

// TestCommitsOfTwoSequencersCarryOnePassAtATime: each is told by the other's tick that it
// is late, and its transaction runs again.
func TestCommitsOfTwoSequencersCarryOnePassAtATime(t *testing.T) {
	t.Parallel()
	url := testdb.Postgres(t)
	dbs := []*postgres.DB{asleep(t, url, 0), asleep(t, url, 1)}
	const rounds = 20
	for n := range rounds {
		for i, db := range dbs {
			if _, err := db.Append(t.Context(), happened("a-1", freehold.Any, n)); err != nil {
				t.Fatalf("instance %d: %v", i, err)
			}
			_, err := db.Update(t.Context(), func(ctx context.Context, tx sqldb.Tx) error {
				return appending(happened("b-1", freehold.Any, n, n))(ctx, tx)
			})
			if err != nil {
				t.Fatalf("instance %d: %v", i, err)
			}
		}
	}
	if rs := all(t, dbs[0]); len(rs) != rounds*2*3 {
		t.Errorf("the journal holds %d events, want %d", len(rs), rounds*2*3)
	}
}
