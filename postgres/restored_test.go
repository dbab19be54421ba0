package postgres_test

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"sync/atomic"
	"testing"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/internal/testdb"
	"github.com/freehold-go/freehold/journal/journaltest"
	"github.com/freehold-go/freehold/postgres"
)

// TestTheLostConnectionKnewWhatIsNotThere restores the server to an older state under an
// instance that has it open. Before that one's sequencer has a new connection, another
// instance writes on, beyond what was lost, and a reader of the first one sees it: all
// that it has seen last is in the journal, and only what the lost connection knew is not.
func TestTheLostConnectionKnewWhatIsNotThere(t *testing.T) {
	t.Parallel()
	server := testdb.NewPostgres(t)
	server.Start()
	write := func(db *postgres.DB, events int) {
		for n := range events {
			if _, err := db.Append(t.Context(), happened("a-1", freehold.Any, n)); err != nil {
				t.Error(err)
			}
		}
	}
	first := open(t, server.URL())
	write(first, 2)
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	server.Stop()
	server.Copy()
	server.Start()
	var db *postgres.DB
	var restored atomic.Bool
	seen := make(chan freehold.Position)
	opts := &postgres.Options{Migrations: tables, Log: slog.New(slog.DiscardHandler)}
	opts.Reconnected(func() {
		if !restored.Swap(false) {
			return
		}
		other := open(t, server.URL())
		write(other, 3)
		if err := other.Close(); err != nil {
			t.Error(err)
		}
		_, head, err := db.Journal().Fresh(t.Context())
		for errors.Is(err, freehold.ErrUnavailable) { // the connections of before
			_, head, err = db.Journal().Fresh(t.Context())
		}
		seen <- head.Position
	})
	db, err := postgres.Open(t.Context(), server.URL(), "test", journaltest.Types(t), opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	write(db, 2)
	server.Stop()
	server.Restore()
	restored.Store(true)
	server.Start()
	if at := <-seen; at != 5 {
		t.Fatalf("a reader sees %d events, want 5", at)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := db.Journal().Wait(ctx, freehold.Mark{Position: math.MaxInt64}); !errors.Is(err, freehold.ErrLatched) {
		t.Errorf("it goes on: error %v, want ErrLatched", err)
	}
	forks, err := open(t, server.URL()).Journal().Forks(t.Context())
	if err != nil || len(forks) != 1 || forks[0].Base.Position != 2 {
		t.Errorf("forks %+v, error %v, want one behind 2", forks, err)
	}
}
