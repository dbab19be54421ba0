package postgres_test

import (
	"log/slog"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/freehold-go/freehold/internal/testdb"
	"github.com/freehold-go/freehold/journal/journaltest"
	"github.com/freehold-go/freehold/postgres"
)

// open opens a database that is closed when the test ends.
func open(t testing.TB, url string) *postgres.DB {
	t.Helper()
	db, err := postgres.Open(t.Context(), url, "test", journaltest.Types(t), &postgres.Options{Migrations: tables, Log: slog.New(slog.DiscardHandler)})
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

func connect(t testing.TB, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(t.Context()) })
	return conn
}

func TestOneInstanceLeadsAtATime(t *testing.T) {
	t.Parallel()
	url := testdb.Postgres(t)
	conn := connect(t, url)
	testdb.Lease(t, open(t, url), open(t, url), func() {
		_, err := conn.Exec(t.Context(), `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
			WHERE datname = current_database() AND application_name = 'freehold lease test'`)
		if err != nil {
			t.Error(err)
		}
	})
}
