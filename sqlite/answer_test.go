package sqlite_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/journal/journaltest"
	"github.com/freehold-go/freehold/sqldb"
	"github.com/freehold-go/freehold/sqlite"
)

// TestErrorsAreAnsweredBehindTheCommit: a closure that fails may have read what others
// of its group have written, so nobody hears of it before the group's commit is known.
func TestErrorsAreAnsweredBehindTheCommit(t *testing.T) {
	t.Parallel()
	opened := harness().Open(t, journaltest.Setup{Place: t.TempDir(), Types: journaltest.Types(t)})
	defer opened.Close()
	db := opened.(*sqlite.DB)
	refused := errors.New("refused")
	for attempt := 1; ; attempt++ {
		if attempt > 100 {
			t.Fatal("two closures that wait together were never committed together")
		}
		var failed atomic.Bool
		begun, both := make(chan struct{}), false
		release := make(chan struct{})
		answered := make(chan error, 1)
		commits := 0
		db.HoldCommits(func() {
			if commits++; commits == 1 {
				close(begun)
				<-release
				return
			}
			if both = failed.Load(); !both {
				return
			}
			select {
			case err := <-answered:
				t.Errorf("answered %v while the commit was still to come", err)
				answered <- err
			case <-time.After(100 * time.Millisecond):
			}
		})
		done := make(chan error, 2)
		update := func(err error) {
			_, got := db.Update(t.Context(), func(ctx context.Context, tx sqldb.Tx) error {
				if err != nil {
					failed.Store(true)
					return err
				}
				_, err := tx.Append(ctx, "a-1", freehold.Any, journaltest.Happened{})
				return err
			})
			if err != nil {
				answered <- got
			} else {
				done <- got
			}
		}
		go update(nil)
		<-begun
		go update(nil)
		go update(refused)
		time.Sleep(time.Millisecond) // so that both wait when the writer comes for them
		close(release)
		for range 2 {
			if err := <-done; err != nil {
				t.Fatal(err)
			}
		}
		if err := <-answered; !errors.Is(err, refused) {
			t.Fatalf("answered %v, want the closure's own error", err)
		}
		if both {
			return
		}
	}
}
