package postgres_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/internal/testdb"
	"github.com/freehold-go/freehold/journal"
	"github.com/freehold-go/freehold/journal/journaltest"
	"github.com/freehold-go/freehold/postgres"
	"github.com/freehold-go/freehold/sqldb"
)

// appending is the closure of a Join that appends one write.
func appending(w freehold.Write) func(ctx context.Context, tx freehold.Tx) error {
	return func(ctx context.Context, tx freehold.Tx) error {
		_, err := tx.Append(ctx, w.Stream, w.Expect, w.Events...)
		return err
	}
}

// all reads the journal behind everything that has been committed, and checks its
// chain.
func all(t testing.TB, db *postgres.DB) []freehold.Recorded {
	t.Helper()
	if _, err := db.Append(t.Context()); err != nil { // waits for what has no place yet
		t.Fatal(err)
	}
	var rs []freehold.Recorded
	var mark freehold.Mark
	for {
		page, err := db.Journal().Read(t.Context(), mark, 1000)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			return rs
		}
		for i := range page {
			if !journal.Follows(mark, &page[i]) {
				t.Fatalf("%s does not follow %s", page[i].At, mark)
			}
			mark = page[i].At
		}
		rs = append(rs, page...)
	}
}

// names lists streams and versions, with a bar behind the end of each transaction.
func names(rs []freehold.Recorded) string {
	var b strings.Builder
	for _, r := range rs {
		fmt.Fprintf(&b, "%s@%d ", r.Stream, r.Version)
		if r.Last {
			b.WriteString("| ")
		}
	}
	return strings.TrimSpace(b.String())
}

func wantJournal(t testing.TB, db *postgres.DB, want string) {
	t.Helper()
	if got := names(all(t, db)); got != want {
		t.Errorf("the journal holds\n%s, want\n%s", got, want)
	}
}

// count counts the rows of the team's own table.
func count(t testing.TB, q interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}) (n int) {
	t.Helper()
	if err := q.QueryRow(t.Context(), `SELECT count(*) FROM state`).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestJoinedEventsCommitAndRollBackWithTheTransaction(t *testing.T) {
	t.Parallel()
	db, pool := attach(t, testdb.Postgres(t))
	rolled := errors.New("rolled back")
	for i, end := range []error{nil, rolled, nil} {
		err := pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
			if _, err := tx.Exec(t.Context(), `INSERT INTO state (key, value) VALUES ($1, '')`, fmt.Sprint(i)); err != nil {
				return err
			}
			if err := db.Join(t.Context(), tx, appending(happened("a-1", freehold.Any, i))); err != nil {
				return err
			}
			return end
		})
		if err != end {
			t.Fatal(err)
		}
	}
	wantJournal(t, db, "a-1@1 | a-1@2 |")
	if n := count(t, pool); n != 2 {
		t.Errorf("%d rows, want 2", n)
	}
}

func TestJoinThatFailsLeavesTheTransactionAsItWas(t *testing.T) {
	t.Parallel()
	db, pool := attach(t, testdb.Postgres(t))
	if _, err := db.Append(t.Context(), happened("a-1", freehold.NoStream, 1, 2)); err != nil {
		t.Fatal(err)
	}
	refused := errors.New("refused")
	tx, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), `INSERT INTO state (key, value) VALUES ('kept', '')`); err != nil {
		t.Fatal(err)
	}
	var kept freehold.Tx
	for name, fn := range map[string]func(ctx context.Context, jtx freehold.Tx) error{
		"a conflict": appending(happened("a-1", freehold.NoStream, 3)),
		"an error behind appends and rows": func(ctx context.Context, jtx freehold.Tx) error {
			kept = jtx
			_, err := tx.Exec(ctx, `INSERT INTO state (key, value) VALUES ('gone', '')`)
			if err == nil {
				err = appending(happened("a-1", freehold.At(2), 3))(ctx, jtx)
			}
			return errors.Join(err, refused)
		},
		"a statement that fails": func(ctx context.Context, jtx freehold.Tx) error {
			_, err := tx.Exec(ctx, `SELECT 1/0`)
			return errors.Join(err, refused)
		},
		"an Update inside": func(ctx context.Context, jtx freehold.Tx) error {
			_, err := db.Update(ctx, func(context.Context, sqldb.Tx) error { return nil })
			return err
		},
	} {
		err := db.Join(t.Context(), tx, fn)
		var conflict *freehold.Conflict
		switch {
		case errors.As(err, &conflict) && conflict.Actual == 2 && name == "a conflict":
		case errors.Is(err, freehold.ErrNested) && name == "an Update inside":
		case errors.Is(err, refused):
		default:
			t.Errorf("%s: %v", name, err)
		}
	}
	func() {
		defer func() {
			if recover() == nil {
				t.Error("a panic was swallowed")
			}
		}()
		_ = db.Join(t.Context(), tx, func(ctx context.Context, jtx freehold.Tx) error {
			_ = appending(happened("b-1", freehold.Any, 1))(ctx, jtx)
			panic("for the test")
		})
	}()
	if _, err := kept.Append(t.Context(), "a-1", freehold.Any, journaltest.Happened{}); !errors.Is(err, freehold.ErrTxDone) {
		t.Errorf("a handle that was kept: %v", err)
	}
	if err := db.Join(t.Context(), tx, appending(happened("a-1", freehold.At(2), 3))); err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := db.Join(t.Context(), tx, appending(happened("a-1", freehold.Any, 4))); !errors.Is(err, pgx.ErrTxClosed) {
		t.Errorf("joined a transaction that is over: %v", err)
	}
	wantJournal(t, db, "a-1@1 a-1@2 | a-1@3 |")
	if n := count(t, pool); n != 1 {
		t.Errorf("%d rows, want the one that was kept", n)
	}
}

// TestJoinsOfOneTransactionStandTogether joins several times, also in savepoints that
// are rolled back, while others append between.
func TestJoinsOfOneTransactionStandTogether(t *testing.T) {
	t.Parallel()
	db, pool := attach(t, testdb.Postgres(t))
	other := func(s freehold.StreamID) {
		if _, err := db.Append(t.Context(), happened(s, freehold.Any, 0)); err != nil {
			t.Error(err)
		}
	}
	err := pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
		if err := db.Join(t.Context(), tx, appending(happened("a-1", freehold.NoStream, 1, 2))); err != nil {
			return err
		}
		other("b-1")
		inner, err := tx.Begin(t.Context()) // a savepoint
		if err != nil {
			return err
		}
		if err := db.Join(t.Context(), inner, appending(happened("a-1", freehold.At(2), 3, 4))); err != nil {
			return err
		}
		if err := inner.Rollback(t.Context()); err != nil {
			return err
		}
		other("b-2")
		return pgx.BeginFunc(t.Context(), tx, func(inner pgx.Tx) error {
			return db.Join(t.Context(), inner, func(ctx context.Context, jtx freehold.Tx) error {
				n := 0
				for _, err := range jtx.Events(ctx, "a-1", 0) {
					if err != nil {
						return err
					}
					n++
				}
				if n != 2 {
					return fmt.Errorf("the transaction sees %d of its own events, want 2", n)
				}
				return appending(happened("a-1", freehold.At(2), 5))(ctx, jtx)
			})
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	rs := all(t, db)
	if got, want := names(rs), "b-1@1 | b-2@1 | a-1@1 a-1@2 a-1@3 |"; got != want {
		t.Errorf("the journal holds\n%s, want\n%s", got, want)
	}
	seen := map[string]bool{}
	for _, r := range rs {
		if seen[r.ID] {
			t.Errorf("two events have the id %s", r.ID)
		}
		seen[r.ID] = true
	}
}

// TestRacingJoinsConflictTyped: of many transactions that join for one version one
// commits, and each other is told the version, or to run again by PostgreSQL.
func TestRacingJoinsConflictTyped(t *testing.T) {
	t.Parallel()
	db, pool := attach(t, testdb.Postgres(t))
	for name, level := range map[freehold.StreamID]pgx.TxIsoLevel{
		"committed-1": pgx.ReadCommitted, "repeatable-1": pgx.RepeatableRead, "serializable-1": pgx.Serializable} {
		const rounds, racers = 5, 8
		for round := range rounds {
			var won, conflicts, again atomic.Int64
			var race sync.WaitGroup
			for n := range racers {
				race.Go(func() {
					err := pgx.BeginTxFunc(t.Context(), pool, pgx.TxOptions{IsoLevel: level}, func(tx pgx.Tx) error {
						var one int
						if err := tx.QueryRow(t.Context(), `SELECT 1`).Scan(&one); err != nil { // takes the snapshot
							return err
						}
						if n%4 == 3 { // not all by Join
							_, err := db.Append(t.Context(), happened(name, freehold.At(freehold.Version(round)), n))
							return err
						}
						return db.Join(t.Context(), tx, appending(happened(name, freehold.At(freehold.Version(round)), n)))
					})
					var conflict *freehold.Conflict
					var pg *pgconn.PgError
					switch {
					case err == nil:
						won.Add(1)
					case errors.As(err, &conflict) && conflict.Actual == freehold.Version(round+1) && conflict.Stream == name:
						conflicts.Add(1)
					case errors.As(err, &pg) && pg.Code == "40001" && level != pgx.ReadCommitted:
						again.Add(1)
					default:
						t.Errorf("%s: %v", name, err)
					}
				})
			}
			race.Wait()
			if won.Load() != 1 || conflicts.Load()+again.Load() != racers-1 {
				t.Errorf("%s: %d won, %d conflicts, %d to run again, of %d", name, won.Load(), conflicts.Load(), again.Load(), racers)
			}
		}
	}
	if rs := all(t, db); len(rs) != 15 {
		t.Errorf("%d events, want 15", len(rs))
	}
}

// TestKilledBetweenJoinAndCommitLeavesNothing ends the transaction's server process, and
// lets other writers go on at once.
func TestKilledBetweenJoinAndCommitLeavesNothing(t *testing.T) {
	t.Parallel()
	db, pool := attach(t, testdb.Postgres(t))
	tx, err := pool.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Join(t.Context(), tx, appending(happened("a-1", freehold.NoStream, 1, 2))); err != nil {
		t.Fatal(err)
	}
	if _, err := db.Append(t.Context(), happened("b-1", freehold.NoStream, 1)); err != nil { // not held up
		t.Fatal(err)
	}
	if _, err := pool.Exec(t.Context(), `SELECT pg_terminate_backend($1, 10000)`, int32(tx.Conn().PgConn().PID())); err != nil {
		t.Fatal(err)
	}
	if err := tx.Commit(t.Context()); err == nil {
		t.Error("committed behind its end")
	}
	if _, err := db.Append(t.Context(), happened("a-1", freehold.NoStream, 3)); err != nil {
		t.Error(err)
	}
	wantJournal(t, db, "b-1@1 | a-1@1 |")
}

// TestJoinedTransactionStandsBehindWhatItHasRead holds a transaction open while
// others commit, reads what they did, and joins: by default behind the read, with a
// snapshot anywhere.
func TestJoinedTransactionStandsBehindWhatItHasRead(t *testing.T) {
	t.Parallel()
	db, pool := attach(t, testdb.Postgres(t))
	err := pgx.BeginFunc(t.Context(), pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(t.Context(), `INSERT INTO state (key, value) VALUES ('early', '')`); err != nil { // has its id first
			return err
		}
		if _, err := db.Append(t.Context(), happened("b-1", freehold.NoStream, 1)); err != nil {
			return err
		}
		return db.Join(t.Context(), tx, func(ctx context.Context, jtx freehold.Tx) error {
			if jtx.Mark().Position != 1 {
				t.Errorf("the transaction surely sees %s, want position 1", jtx.Mark())
			}
			_, err := jtx.Append(ctx, "b-1", freehold.At(1)) // a condition
			return errors.Join(err, appending(happened("a-1", freehold.NoStream, 1))(ctx, jtx))
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	err = pgx.BeginTxFunc(t.Context(), pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead}, func(tx pgx.Tx) error {
		return db.Join(t.Context(), tx, func(ctx context.Context, jtx freehold.Tx) error {
			if _, err := db.Append(t.Context(), happened("c-1", freehold.NoStream, 1)); err != nil {
				return err
			}
			if jtx.Mark().Position > 2 {
				t.Errorf("the transaction says that it sees %s, and has a snapshot of position 2", jtx.Mark())
			}
			return appending(happened("d-1", freehold.NoStream, 1))(ctx, jtx)
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	wantJournal(t, db, "b-1@1 | a-1@1 | c-1@1 | d-1@1 |")
}

func TestTransactionsOfOtherDatabasesCannotJoin(t *testing.T) {
	t.Parallel()
	db, _ := attach(t, testdb.Postgres(t))
	empty, journals := connect(t, testdb.Postgres(t)), testdb.Postgres(t)
	_ = open(t, journals) // of the same name
	for words, conn := range map[string]*pgx.Conn{`freehold.journal" does not exist`: empty, "begin it on the database that this journal is in": connect(t, journals)} {
		err := pgx.BeginFunc(t.Context(), conn, func(tx pgx.Tx) error {
			err := db.Join(t.Context(), tx, appending(happened("a-1", freehold.Any, 1)))
			if err == nil || !strings.Contains(err.Error(), words) {
				t.Errorf("joined with %v, want a refusal with %q", err, words)
			}
			return nil // it can still be committed
		})
		if err != nil {
			t.Error(err)
		}
	}
}
