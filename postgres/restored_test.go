package postgres_test

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/internal/testdb"
	"github.com/freehold-go/freehold/journal/journaltest"
	"github.com/freehold-go/freehold/postgres"
	"github.com/freehold-go/freehold/sqldb"
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

// copied starts a server with an empty journal, of which it has a copy.
func copied(t *testing.T) *testdb.Server {
	t.Helper()
	server := testdb.NewPostgres(t)
	server.Start()
	if err := open(t, server.URL()).Close(); err != nil {
		t.Fatal(err)
	}
	server.Stop()
	server.Copy()
	server.Start()
	return server
}

// TestNoCommitCarriesAPassBehindARestart starts the server again, with the files that it
// had or with older ones, and commits before the sequencer knows of it: the event has no
// position before the process has compared what it knows.
func TestNoCommitCarriesAPassBehindARestart(t *testing.T) {
	t.Parallel()
	for name, restore := range map[string]bool{"the same": false, "older": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := copied(t)
			compare := make(chan struct{})
			release := sync.OnceFunc(func() { close(compare) })
			opts := &postgres.Options{Migrations: tables, Log: slog.New(slog.DiscardHandler)}
			opts.Ended(func() { <-compare })
			db, err := postgres.Open(t.Context(), server.URL(), "test", journaltest.Types(t), opts)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { release(); db.Close() })
			if _, err := db.Append(t.Context(), happened("a-1", freehold.NoStream, 1)); err != nil {
				t.Fatal(err)
			}
			server.Stop()
			if restore {
				server.Restore()
			}
			server.Start()
			write := func() error {
				return db.Do(t.Context(), func(ctx context.Context, tx sqldb.Tx) error {
					return appending(happened("b-1", freehold.NoStream, 1))(ctx, tx)
				})
			}
			err = write()
			for errors.Is(err, freehold.ErrUnavailable) { // the connections of before
				err = write()
			}
			if err != nil {
				t.Fatal(err)
			}
			conn := connect(t, server.URL())
			var placed int
			err = conn.QueryRow(t.Context(), `SELECT count(*) FROM freehold.event JOIN freehold.stamp USING (seq) WHERE stream = 'b-1'`).Scan(&placed)
			if err != nil || placed != 0 {
				t.Errorf("%d events have positions, error %v, want none", placed, err)
			}
			release()
			if !restore {
				wantStamped(t, conn, 2)
				return
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if err := db.Journal().Wait(ctx, freehold.Mark{Position: math.MaxInt64}); !errors.Is(err, freehold.ErrLatched) {
				t.Errorf("it goes on: error %v, want ErrLatched", err)
			}
		})
	}
}

// TestACommitThatIsLostIsNotTakenForAnothers loses a transaction with its server, which is
// restored to before it: there its id is given to somebody else's, which is committed.
func TestACommitThatIsLostIsNotTakenForAnothers(t *testing.T) {
	t.Parallel()
	for name, write := range map[string]func(ctx context.Context, tx sqldb.Tx) error{
		"events": func(ctx context.Context, tx sqldb.Tx) error {
			return appending(happened("mine-1", freehold.NoStream, 1))(ctx, tx)
		},
		"state": func(ctx context.Context, tx sqldb.Tx) error {
			_, err := tx.ExecContext(ctx, `INSERT INTO state (key, value) VALUES ('mine', '1')`)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := copied(t)
			db, err := postgres.Open(t.Context(), server.URL(), "test", journaltest.Types(t), &postgres.Options{Migrations: tables, Cancel: time.Minute, Log: slog.New(slog.DiscardHandler)})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { db.Close() })
			begun, commit, answer := make(chan uint64, 1), make(chan struct{}), make(chan error, 1)
			go func() {
				_, err := db.Update(context.WithoutCancel(t.Context()), func(ctx context.Context, tx sqldb.Tx) error {
					var xid uint64
					if err := tx.QueryRowContext(ctx, `SELECT pg_current_xact_id()::text::bigint`).Scan(&xid); err != nil {
						return err
					}
					if err := write(ctx, tx); err != nil {
						return err
					}
					begun <- xid
					<-commit
					return nil
				})
				answer <- err
			}()
			xid := <-begun
			server.Stop()
			server.Restore()
			server.Start()
			conn := connect(t, server.URL())
			for other := uint64(0); other <= xid; {
				if err := conn.QueryRow(t.Context(), `SELECT pg_current_xact_id()::text::bigint`).Scan(&other); err != nil {
					t.Fatal(err)
				}
			}
			close(commit)
			err = <-answer
			var there int
			if err := conn.QueryRow(t.Context(), `SELECT (SELECT count(*) FROM state) + (SELECT count(*) FROM freehold.event)`).Scan(&there); err != nil {
				t.Fatal(err)
			}
			if err == nil && there == 0 {
				t.Error("success, and what was written is not there")
			}
		})
	}
}
