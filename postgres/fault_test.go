package postgres_test

import (
	"testing"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/internal/testdb"
	"github.com/freehold-go/freehold/journal/journaltest"
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
