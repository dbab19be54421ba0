package postgres_test

import (
	"context"
	"database/sql"
	"errors"
	"flag"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"testing/fstest"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/internal/testdb"
	"github.com/freehold-go/freehold/journal/journaltest"
	"github.com/freehold-go/freehold/postgres"
	"github.com/freehold-go/freehold/sqldb"
)

// TestMain lets random cases be fewer than rapid's hundred, for each makes a database
// and opens it several times; -rapid.checks has the last word.
func TestMain(m *testing.M) {
	if err := flag.Set("rapid.checks", "15"); err != nil {
		panic(err)
	}
	os.Exit(testdb.Main(m))
}

var tables = fstest.MapFS{"001_state.sql": {Data: []byte(`CREATE TABLE state (key TEXT PRIMARY KEY, value TEXT NOT NULL)`)}}

// spare are databases that subtests have left as they were: to make one takes longer
// than most subtests do.
var spare = make(chan string, 32)

// giveBack empties a database to which nobody is connected any more.
func giveBack(t testing.TB, url string) {
	if t.Failed() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return
	}
	defer conn.Close(ctx)
	for range 50 { // server processes end a moment after their connections
		var others int
		err := conn.QueryRow(ctx, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()`).Scan(&others)
		if err != nil {
			return
		}
		if others > 0 {
			time.Sleep(2 * time.Millisecond)
			continue
		}
		if _, err := conn.Exec(ctx, `DROP SCHEMA freehold CASCADE; DROP TABLE state`); err != nil {
			return
		}
		select {
		case spare <- url:
		default:
		}
		return
	}
}

// at returns the URL of the database that a directory stands for: also to another
// process, as which a test runs itself.
func at(t testing.TB, place string) string {
	t.Helper()
	file := filepath.Join(place, "url")
	if raw, err := os.ReadFile(file); err == nil {
		return string(raw)
	}
	var url string
	select {
	case url = <-spare:
	default:
		url = testdb.Postgres(t)
	}
	t.Cleanup(func() { giveBack(t, url) })
	if err := os.WriteFile(file, []byte(url), 0o600); err != nil {
		t.Fatal(err)
	}
	return url
}

func harness() journaltest.Harness[sqldb.Tx] {
	return journaltest.Harness[sqldb.Tx]{
		Open: func(t testing.TB, s journaltest.Setup) journaltest.DB[sqldb.Tx] {
			t.Helper()
			db, err := postgres.Open(t.Context(), at(t, s.Place), "test", s.Types,
				&postgres.Options{Migrations: tables, Cancel: s.Limit, Connections: 8, Log: slog.New(slog.DiscardHandler)})
			if err != nil {
				t.Fatal(err)
			}
			return db
		},
		Shared: true,
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
		Alter: func(t testing.TB, place string, p freehold.Position) {
			alter(t, place, p, `payload = set_byte(payload, length(payload) / 2, get_byte(payload, length(payload) / 2) # 1)`)
		},
		Shift: func(t testing.TB, place string, p freehold.Position) {
			alter(t, place, p, `nonce = nonce || substr(payload, 1, 1), payload = substr(payload, 2)`)
		},
		FailCommits: func(db journaltest.DB[sqldb.Tx], n int) { db.(*postgres.DB).FailCommits(n) },
	}
}

// alter changes the row of the event at a position, as somebody with all rights can.
func alter(t testing.TB, place string, p freehold.Position, set string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), at(t, place))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	_, err = conn.Exec(t.Context(), `ALTER TABLE freehold.event DISABLE TRIGGER insert_only`)
	if err == nil {
		_, err = conn.Exec(t.Context(), `UPDATE freehold.event SET `+set+` WHERE seq = (SELECT seq FROM freehold.stamp WHERE position = $1)`, int64(p))
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestConformance(t *testing.T) {
	t.Parallel()
	journaltest.Run(t, harness())
}
