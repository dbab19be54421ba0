package etcd_test

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/etcd"
	"github.com/freehold-go/freehold/journal/journaltest"
)

// The cluster is restored to an older state under a process that has it open. It writes
// nothing there before it has been started anew, whether it waits or writes, and
// whatever others have written meanwhile. It records the fork if it knows where the
// histories part: if it has the events that were lost, and nobody has written since.
func TestProcessWritesNothingToAClusterThatWentBack(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	t.Parallel()
	idle := func(ctx context.Context, db *etcd.DB) error {
		return db.Journal().Wait(ctx, freehold.Mark{Position: math.MaxInt64})
	}
	write := func(ctx context.Context, db *etcd.DB) error {
		for {
			_, err := db.Update(ctx, add(1000))
			if !errors.Is(err, freehold.ErrUnavailable) && !errors.Is(err, freehold.ErrUnknown) {
				return err
			}
		}
	}
	for name, test := range map[string]struct {
		read   bool // what was lost was written by another process, this one has read it
		others int  // events that another process writes behind the restore
		find   func(ctx context.Context, db *etcd.DB) error
		forks  int // that it records
	}{
		"and waits":                        {false, 0, idle, 1},
		"and waits while others write":     {false, 1, idle, 0},
		"and writes":                       {false, 0, write, 1},
		"and writes behind another":        {false, 20, write, 0},
		"and writes, having only read":     {true, 0, write, 0},
		"and writes where it has not been": {true, 2, write, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := start(t, 1)
			url := c.prefixed()
			opened := func() *etcd.DB {
				db, err := etcd.Open(t.Context(), url, "test", journaltest.Types(t), etcd.Options{Log: quiet}.Through((&wire{}).call, time.Second))
				if err != nil {
					t.Fatal(err)
				}
				return db
			}
			written := 0
			var last freehold.Token
			more := func(db *etcd.DB, n int) {
				for range n {
					var err error
					if last, err = db.Update(t.Context(), add(written)); err != nil {
						t.Fatal(err)
					}
					written++
				}
			}
			first := opened()
			more(first, 2)
			if err := first.Close(); err != nil {
				t.Fatal(err)
			}
			var db *etcd.DB
			if test.read {
				db = opened()
				defer db.Close()
			}
			c.Kill(0)
			if err := errors.Join(c.Copy(), c.Start(0), c.Ready()); err != nil {
				t.Fatal(err)
			}
			if test.read {
				other := opened()
				more(other, 3)
				if err := other.Close(); err != nil {
					t.Fatal(err)
				}
				if _, head, err := db.Journal().Fresh(t.Context()); err != nil || head.Position != 5 {
					t.Fatalf("head %d, error %v, want 5", head.Position, err)
				}
			} else {
				db = opened()
				defer db.Close()
				more(db, 3)
			}
			lost := last
			c.Kill(0)
			if err := errors.Join(c.Restore(), c.Start(0), c.Ready()); err != nil {
				t.Fatal(err)
			}
			if test.others > 0 {
				other := opened()
				more(other, test.others)
				if err := other.Close(); err != nil {
					t.Fatal(err)
				}
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if err := test.find(ctx, db); !errors.Is(err, freehold.ErrLatched) || !strings.Contains(err.Error(), "freehold forks") {
				t.Errorf("error %v, want ErrLatched that names freehold forks", err)
			}
			if _, err := db.Update(t.Context(), add(1000)); !errors.Is(err, freehold.ErrLatched) {
				t.Errorf("it goes on to write: %v", err)
			}
			again := opened()
			defer again.Close()
			forks, err := again.Journal().Forks(t.Context())
			if err != nil || len(forks) != test.forks || len(forks) > 0 && forks[0].Base.Position != 2 {
				t.Errorf("forks %+v, %v, want %d behind 2", forks, err, test.forks)
			}
			if _, err := again.Journal().Translate(t.Context(), lost); test.forks > 0 && !errors.Is(err, freehold.ErrHistoryLost) {
				t.Errorf("a token of what was lost: %v, want ErrHistoryLost", err)
			}
			wantEvents(t, again, 2+test.others)
			more(again, 1)
			wantEvents(t, again, 3+test.others)
		})
	}
}
