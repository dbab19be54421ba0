package sqlite_test

import (
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"path/filepath"
	"testing"
	"testing/fstest"

	"github.com/freehold-go/freehold/journal/journaltest"
	"github.com/freehold-go/freehold/sqldb"
	"github.com/freehold-go/freehold/sqlite"
)

var tables = fstest.MapFS{"001_state.sql": {Data: []byte(`CREATE TABLE state (key TEXT PRIMARY KEY, value TEXT NOT NULL)`)}}

func harness() journaltest.Harness[sqldb.Tx] {
	return journaltest.Harness[sqldb.Tx]{
		Open: func(t testing.TB, s journaltest.Setup) journaltest.DB[sqldb.Tx] {
			t.Helper()
			db, err := sqlite.Open(t.Context(), filepath.Join(s.Place, "test.db"), "test", s.Types,
				&sqlite.Options{Migrations: tables, Cancel: s.Limit, Log: slog.New(slog.DiscardHandler)})
			if err != nil {
				t.Fatal(err)
			}
			return db
		},
		Put: func(ctx context.Context, tx sqldb.Tx, key, value string) error {
			_, err := tx.ExecContext(ctx, `INSERT INTO state (key, value) VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET value = excluded.value`, key, value)
			return err
		},
		Get: func(ctx context.Context, tx sqldb.Tx, key string) (value string, err error) {
			err = tx.QueryRowContext(ctx, `SELECT value FROM state WHERE key = $1`, key).Scan(&value)
			if errors.Is(err, sql.ErrNoRows) {
				return "", nil
			}
			return value, err
		},
		FailCommits: func(db journaltest.DB[sqldb.Tx], n int) { db.(*sqlite.DB).FailCommits(n) },
	}
}

func TestConformance(t *testing.T) {
	t.Parallel()
	journaltest.Run(t, harness())
}
