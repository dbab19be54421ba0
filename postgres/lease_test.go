package postgres_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

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

// TestWhoGivesPositionsLeads: also if another instance has asked first.
func TestWhoGivesPositionsLeads(t *testing.T) {
	t.Parallel()
	url := testdb.Postgres(t)
	first, second := open(t, url), open(t, url)
	leads := make(chan string, 2)
	hold := func(db *postgres.DB, name string) (end func()) {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- db.Hold(ctx, func() {}, func(ctx context.Context) {
				leads <- name
				<-ctx.Done()
			})
		}()
		return func() {
			t.Helper()
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	}
	endSecond := hold(second, "second")
	select {
	case name := <-leads:
		t.Fatalf("%s leads, and the other one gives positions", name)
	case <-time.After(300 * time.Millisecond):
	}
	endFirst := hold(first, "first")
	if name := <-leads; name != "first" {
		t.Errorf("%s leads, and the other one gives positions", name)
	}
	endFirst()
	if name := <-leads; name != "second" { // rather than nobody
		t.Errorf("%s leads again", name)
	}
	endSecond()
}
