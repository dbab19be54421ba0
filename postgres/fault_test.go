package postgres_test

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/internal/testdb"
	"github.com/freehold-go/freehold/journal/journaltest"
	"github.com/freehold-go/freehold/postgres"
)

// TestLostSequencerIsReplacedAtOnce ends the sequencer's server process and waits for
// the place of the next event: for about as long as a few connections take on this
// machine, of which the next sequencer needs one.
func TestLostSequencerIsReplacedAtOnce(t *testing.T) {
	t.Parallel()
	url := testdb.Postgres(t)
	db, conn := open(t, url), connect(t, url)
	best, connecting := time.Hour, time.Hour
	for n := range 8 {
		begun := time.Now()
		connect(t, url)
		connecting = min(connecting, time.Since(begun))
		_, err := conn.Exec(t.Context(), `SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
			WHERE datname = current_database() AND application_name = 'freehold sequencer test'`)
		if err != nil {
			t.Fatal(err)
		}
		begun = time.Now()
		if _, err := db.Append(t.Context(), freehold.Write{Stream: "a-1", Expect: freehold.Any, Events: []freehold.Event{journaltest.Happened{N: n}}}); err != nil {
			t.Fatal(err)
		}
		best = min(best, time.Since(begun))
	}
	if best > 100*time.Millisecond+3*connecting {
		t.Errorf("without a sequencer for %s at best; a connection takes %s", best, connecting)
	}
}

// TestASequencerThatStandsStillIsReplaced stops who gives positions behind a pass, as
// when its process or its machine is stopped while the connection stays open: the server
// ends the connection, and another instance gives positions.
func TestASequencerThatStandsStillIsReplaced(t *testing.T) {
	t.Parallel()
	url := testdb.Postgres(t)
	stands, release := make(chan struct{}), make(chan struct{})
	opts := &postgres.Options{Migrations: tables, Log: slog.New(slog.DiscardHandler)}
	once := sync.OnceFunc(func() { close(stands); <-release })
	opts.Passed(func(int, time.Duration) { once() })
	still, err := postgres.Open(t.Context(), url, "test", journaltest.Types(t), opts)
	if err != nil {
		t.Fatal(err)
	}
	other := open(t, url)
	err = pgx.BeginFunc(t.Context(), connect(t, url), func(tx pgx.Tx) error { // which gives no positions itself
		return still.Join(t.Context(), tx, appending(happened("a-1", freehold.NoStream, 1)))
	})
	if err != nil {
		t.Fatal(err)
	}
	<-stands
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	token, err := other.Append(ctx, happened("a-1", freehold.At(1), 2))
	if err != nil {
		t.Fatal(err)
	}
	if at := token.Of("test"); len(at) != 1 || at[0].Position != 2 {
		t.Errorf("the other instance's event has the positions %v", at)
	}
	close(release)
	if err := still.Close(); err != nil {
		t.Error(err)
	}
}
