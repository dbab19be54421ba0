package sqlite_test

import (
	"context"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/journal/journaltest"
	"github.com/freehold-go/freehold/sqldb"
	"github.com/freehold-go/freehold/sqlite"
)

// TestReplacingARowOfAnInsertOnlyTableIsRefused: INSERT OR REPLACE deletes the row
// that is in its way, and by default runs no trigger for it.
func TestReplacingARowOfAnInsertOnlyTableIsRefused(t *testing.T) {
	t.Parallel()
	tables := fstest.MapFS{"001_book.sql": {Data: []byte(`
		CREATE TABLE book (number INTEGER PRIMARY KEY, document TEXT NOT NULL UNIQUE);
		CREATE TRIGGER book_no_delete BEFORE DELETE ON book BEGIN SELECT RAISE(ABORT, 'book is insert-only'); END;
		CREATE TABLE note (number INTEGER PRIMARY KEY, text TEXT NOT NULL)`)}}
	db, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "test.db"), "test", journaltest.Types(t),
		&sqlite.Options{Migrations: tables, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	exec := func(statement string) error {
		_, err := db.Update(t.Context(), func(ctx context.Context, tx sqldb.Tx) error {
			_, err := tx.ExecContext(ctx, statement)
			return err
		})
		return err
	}
	for i := range 3 {
		if _, err := db.Append(t.Context(), freehold.Write{Stream: "a-1", Expect: freehold.At(freehold.Version(i)), Events: []freehold.Event{journaltest.Happened{N: i}}}); err != nil {
			t.Fatal(err)
		}
	}
	for _, statement := range []string{`INSERT INTO book VALUES (1, 'a')`, `INSERT INTO note VALUES (1, 'a')`, `INSERT OR REPLACE INTO note VALUES (1, 'b')`} {
		if err := exec(statement); err != nil {
			t.Errorf("%s: %v", statement, err)
		}
	}
	_, head, err := db.Journal().Bounds(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	const columns = `stream, version, stream_name, type, schema, time, id, incarnation, internal, last, meta, payload, nonce, digest, chain FROM freehold_event WHERE position = 2`
	for _, statement := range []string{
		`INSERT OR REPLACE INTO book VALUES (1, 'b')`,
		`INSERT OR REPLACE INTO book VALUES (2, 'a')`,
		`REPLACE INTO book (document) VALUES ('a')`,
		`DELETE FROM book`,
		`UPDATE freehold_event SET payload = '{}' WHERE position = 2`,
		`UPDATE OR REPLACE freehold_event SET position = 3 WHERE position = 2`,
		`DELETE FROM freehold_event WHERE position = 3`,
		`INSERT OR REPLACE INTO freehold_event SELECT 2, ` + columns,
		`INSERT OR REPLACE INTO freehold_event SELECT 4, ` + columns,
		`UPDATE freehold_incarnation SET position = 1`,
		`DELETE FROM freehold_incarnation`,
		`INSERT OR REPLACE INTO freehold_incarnation SELECT * FROM freehold_incarnation`,
	} {
		if err := exec(statement); err == nil || !strings.Contains(err.Error(), "insert-only") {
			t.Errorf("%s: %v, want a refusal", statement, err)
		}
	}
	if at, err := db.Journal().Verify(t.Context(), freehold.Mark{}, nil); err != nil || at != head {
		t.Errorf("the journal is %v, %v, was %v", at, err, head)
	}
	err = db.View(t.Context(), func(ctx context.Context, tx sqldb.Tx) error {
		var rows, number int
		err := tx.QueryRowContext(ctx, `SELECT count(*), max(number) FROM book WHERE document = 'a'`).Scan(&rows, &number)
		if rows != 1 || number != 1 {
			t.Errorf("%d rows, number %d: the first row was replaced", rows, number)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// TestAClosureCannotSteerItsTransaction: the statements that would end the
// transaction of a whole group, or change its connection, are refused however they
// are written.
func TestAClosureCannotSteerItsTransaction(t *testing.T) {
	t.Parallel()
	h := harness()
	db := h.Open(t, journaltest.Setup{Place: t.TempDir(), Types: journaltest.Types(t)})
	defer db.Close()
	for _, statement := range []string{
		"COMMIT", "commit;", "COMMIT\t", "\n COMMIT\n", "/* now */ COMMIT", "-- now\nCOMMIT", "COMMIT/**/", "END\tTRANSACTION", "ROLLBACK",
		"BEGIN", "SAVEPOINT\ta", "RELEASE a", "SELECT 1; COMMIT", "PRAGMA recursive_triggers=OFF", "PRAGMA\trecursive_triggers=OFF", "PRAGMA\rsynchronous=OFF",
		"ATTACH 'x' AS x", "VACUUM", "SELECT 1; /* ; */ COMMIT", "\ufeffCOMMIT",
	} {
		_, err := db.Update(t.Context(), func(ctx context.Context, tx sqldb.Tx) error {
			_, exec := tx.ExecContext(ctx, statement)
			rows, query := tx.QueryContext(ctx, statement)
			if query == nil {
				_ = rows.Close()
			}
			_, prepare := tx.PrepareContext(ctx, statement)
			for how, err := range map[string]error{"exec": exec, "query": query, "prepare": prepare} {
				if err == nil || !strings.Contains(err.Error(), "inside a closure") {
					t.Errorf("%s of %q: %v, want a refusal", how, statement, err)
				}
			}
			return nil
		})
		if err != nil {
			t.Errorf("%q: %v", statement, err)
		}
	}
}

// TestAClosureMaySayWhatItLikes: words that steer a transaction stand in strings, in
// names and in the bodies of triggers, too.
func TestAClosureMaySayWhatItLikes(t *testing.T) {
	t.Parallel()
	h := harness()
	db := h.Open(t, journaltest.Setup{Place: t.TempDir(), Types: journaltest.Types(t)})
	defer db.Close()
	_, err := db.Update(t.Context(), func(ctx context.Context, tx sqldb.Tx) error {
		for _, statement := range []string{
			"CREATE TABLE said (text TEXT)",
			"CREATE TRIGGER said_once BEFORE DELETE ON said BEGIN SELECT RAISE(ABORT, 'said is said'); END",
			"INSERT INTO said VALUES ('first; end of story') -- ; COMMIT",
		} {
			if _, err := tx.ExecContext(ctx, statement); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
