package postgres_test

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/internal/testdb"
	"github.com/freehold-go/freehold/journal/journaltest"
	"github.com/freehold-go/freehold/postgres"
	"github.com/freehold-go/freehold/sqldb"
)

// TestAnIdlePairAsksSeldom counts the transactions of a database that two instances have
// open and nobody uses. Server processes report theirs a second later, those of opening
// among them, so that there are several windows.
func TestAnIdlePairAsksSeldom(t *testing.T) {
	t.Parallel()
	const window, most = 2 * time.Second, 40
	url := testdb.Postgres(t)
	watch := connect(t, testdb.Postgres(t)) // counts for another database
	open(t, url)
	open(t, url)
	count := func() (n int) {
		err := watch.QueryRow(t.Context(), `SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = $1`, url[strings.LastIndex(url, "/")+1:]).Scan(&n)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	var all []int
	for range 5 {
		before, begun := count(), time.Now()
		<-time.After(window)
		n := count() - before
		n = int(int64(n) * int64(window) / int64(time.Since(begun))) // the machine may have been busy for longer
		if all = append(all, n); n <= most {
			return
		}
	}
	t.Errorf("an idle pair of instances makes %v transactions in %s each, want %d at most", all, window, most)
}

// TestCommitsOfAnyInstanceAreToldOf opens two instances whose sequencers look for nothing
// by themselves: whichever commits, and whichever gives positions, both hear of it.
func TestCommitsOfAnyInstanceAreToldOf(t *testing.T) {
	t.Parallel()
	url := testdb.Postgres(t)
	var dbs []*postgres.DB
	for range 2 { // the first gives positions
		opts := &postgres.Options{Migrations: tables, Log: slog.New(slog.DiscardHandler)}
		opts.Asleep()
		db, err := postgres.Open(t.Context(), url, "test", journaltest.Types(t), opts)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := db.Close(); err != nil {
				t.Error(err)
			}
		})
		dbs = append(dbs, db)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	for n := range 20 {
		for i, writer := range dbs {
			_, head, err := writer.Journal().Bounds(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if n%2 == 0 {
				err = writer.Do(ctx, func(ctx context.Context, tx sqldb.Tx) error {
					return appending(happened("a-1", freehold.Any, n))(ctx, tx)
				})
			} else {
				placed := make(chan error, 1)
				go func() {
					_, err := writer.Append(ctx, happened("a-1", freehold.Any, n))
					placed <- err
				}()
				select {
				case err = <-placed:
				case <-ctx.Done():
					err = ctx.Err()
				}
			}
			if err != nil {
				t.Fatalf("event %d of instance %d has no position: %v", n, i, err)
			}
			for j, reader := range dbs {
				if err := reader.Journal().Wait(ctx, head); err != nil {
					t.Fatalf("instance %d does not hear of event %d of instance %d: %v", j, n, i, err)
				}
			}
		}
	}
}

// TestATokenWithoutEventsCoversWhatOthersCommitted: the head that such a token is made of
// is the database's, of which an instance may not have heard yet.
func TestATokenWithoutEventsCoversWhatOthersCommitted(t *testing.T) {
	t.Parallel()
	url := testdb.Postgres(t)
	writer, other := open(t, url), open(t, url)
	for n := range 50 {
		tok, err := writer.Append(t.Context(), happened("a-1", freehold.Any, n))
		if err != nil {
			t.Fatal(err)
		}
		behind, err := other.Append(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		want, got := tok.Of("test"), behind.Of("test")
		if len(want) != 1 || len(got) != 1 || got[0].Position < want[0].Position {
			t.Fatalf("a token behind event %v says %v", want, got)
		}
	}
}
