// Package followtest runs a follower's handlers under duplicates, gaps, failing
// reads, failing and repeated commits, restarts at every event, and a second
// instance, and checks that each of these leaves exactly what an undisturbed run
// leaves. It is for the toolkit's engines and for users' own handlers.
//
// # Guarantees
//
// A suite that passes has applied every event of the given history once: the
// digest of the state after each schedule equals that of the clean run.
//
// # Ordering
//
// Schedules run one after the other, each on a fresh database.
//
// # Failure
//
// The failing schedule and the first cut point are the names of the subtests.
package followtest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
)

// Case is a follower under test.
type Case[T freehold.Tx] struct {
	// Open returns a fresh, empty database and closes it when the test ends.
	Open func(t testing.TB) follow.DB[T]
	// Types is the catalog of the events given.
	Types *freehold.Catalog
	// Routes returns the follower's handlers. It is called for each run.
	Routes func() []follow.Route[T]
	// Given is the history to follow; each write is one transaction.
	Given []freehold.Write
	// Source is the history's source name; empty is "given".
	Source freehold.Source
	// Commutes says that the handlers' effects commute across streams, so that every
	// schedule must leave the same in lanes (follow.Options.Lanes).
	Commutes bool
	// Digest describes the state that the handlers left, the same text for the
	// same state.
	Digest func(ctx context.Context, tx T) (string, error)
}

// patience bounds a schedule; it is reached only by a defect. So is the number of
// transactions that a follower may begin for each event, which finds one that goes round
// in circles, however fast the machine is.
const (
	patience = time.Minute
	perEvent = 50
)

// Run runs all schedules.
func Run[T freehold.Tx](t *testing.T, c Case[T]) {
	t.Helper()
	if c.Source == "" {
		c.Source = "given"
	}
	clean := ""
	t.Run("clean", func(t *testing.T) {
		r := c.start(t)
		r.finish(t, 0)
		clean = r.digest(t)
		if r.follow(t, 0); r.digest(t) != clean {
			t.Error("following again from the stored mark changes the state")
		}
	})
	if t.Failed() {
		return
	}
	check := func(name string, schedule func(t *testing.T, r *run[T])) {
		for laned, lanes := range map[string][]int{"": {1}, ", in 2 lanes": {2}, ", in 4 lanes": {4}, ", in 4, 1 and 2 lanes in turn": {4, 1, 2}} {
			if laned != "" && !c.Commutes {
				continue
			}
			t.Run(name+laned, func(t *testing.T) {
				r := c.start(t)
				r.lanes = lanes
				schedule(t, r)
				if got := r.digest(t); got != clean {
					t.Errorf("state differs from the clean run:\n got %s\nwant %s", got, clean)
				}
				if r.follow(t, 0); r.digest(t) != clean {
					t.Error("following again from the stored marks changes the state")
				}
			})
		}
	}
	check("one by one", func(t *testing.T, r *run[T]) { r.finish(t, 1) })
	check("duplicates", func(t *testing.T, r *run[T]) {
		r.script.Mangle(func(_ int, after freehold.Mark, page []freehold.Recorded) ([]freehold.Recorded, error) {
			back := max(0, int(after.Position)-3)
			return append(append([]freehold.Recorded(nil), r.script.events[back:after.Position]...), page...), nil
		})
		r.finish(t, 2)
	})
	check("gaps", func(t *testing.T, r *run[T]) {
		r.script.Mangle(func(read int, _ freehold.Mark, page []freehold.Recorded) ([]freehold.Recorded, error) {
			if read%2 == 1 && len(page) > 1 {
				return page[1:], nil
			}
			return page, nil
		})
		r.finish(t, 3)
	})
	check("an event missing in the middle", func(t *testing.T, r *run[T]) {
		r.script.Mangle(func(read int, _ freehold.Mark, page []freehold.Recorded) ([]freehold.Recorded, error) {
			if read%2 == 1 && len(page) > 2 {
				return append(append([]freehold.Recorded(nil), page[:1]...), page[2:]...), nil
			}
			return page, nil
		})
		r.finish(t, 0)
	})
	check("reads that fail", func(t *testing.T, r *run[T]) {
		r.script.Mangle(func(read int, _ freehold.Mark, page []freehold.Recorded) ([]freehold.Recorded, error) {
			if read%2 == 1 {
				return nil, errScript
			}
			return page, nil
		})
		r.finish(t, 2)
	})
	check("closures that run twice", func(t *testing.T, r *run[T]) {
		r.db.before = func(int64) fate { return runTwice }
		r.finish(t, 2)
	})
	check("commits that fail", func(t *testing.T, r *run[T]) {
		r.db.before = func(n int64) fate { return pick(n%2 == 1, rolledBack) }
		r.finish(t, 2)
	})
	check("commits of unknown outcome that did happen", func(t *testing.T, r *run[T]) {
		r.db.before = func(n int64) fate { return pick(n%2 == 1, unknownCommitted) }
		r.finish(t, 2)
	})
	check("commits of unknown outcome that did not happen", func(t *testing.T, r *run[T]) {
		r.db.before = func(n int64) fate { return pick(n%2 == 1, unknownLost) }
		r.finish(t, 2)
	})
	check("stopped behind every event", func(t *testing.T, r *run[T]) {
		for n := 1; n <= len(r.script.events); n++ {
			r.follow(t, freehold.Position(n))
		}
	})
	check("stopped behind every third event, in batches", func(t *testing.T, r *run[T]) {
		for n := 3; n < len(r.script.events); n += 3 {
			r.until(t, r.newFollower(t, 5), freehold.Position(n))
		}
		r.finish(t, 5)
	})
	check("commits that fail now and then, stopped behind every third event", func(t *testing.T, r *run[T]) {
		r.db.before = func(n int64) fate {
			switch n % 7 {
			case 2:
				return unknownCommitted
			case 4:
				return rolledBack
			case 6:
				return unknownLost
			}
			return committed
		}
		for n := 3; n < len(r.script.events); n += 3 {
			r.until(t, r.newFollower(t, 5), freehold.Position(n))
		}
		r.finish(t, 5)
	})
	check("two instances", func(t *testing.T, r *run[T]) {
		other := r.newFollower(t, 1)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- other.Run(ctx) }()
		r.finish(t, 1)
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the other instance: %v", err)
		}
	})
}

// run is one schedule.
type run[T freehold.Tx] struct {
	c      Case[T]
	db     *faultyDB[T]
	script *Script
	lanes  []int // of the followers, in turn
	made   int
}

func (c Case[T]) start(t *testing.T) *run[T] {
	t.Helper()
	script, err := NewScript(c.Source, c.Types, c.Given)
	if err != nil {
		t.Fatal(err)
	}
	return &run[T]{c: c, db: &faultyDB[T]{DB: c.Open(t)}, script: script}
}

func (r *run[T]) newFollower(t *testing.T, batch int) *follow.Follower {
	t.Helper()
	lanes := 1
	if len(r.lanes) > 0 {
		lanes = r.lanes[r.made%len(r.lanes)]
	}
	r.made++
	f, err := follow.New("follower-under-test", r.db, []follow.Source{r.script}, &follow.Options{
		Batch: batch, Lanes: lanes, Pause: time.Microsecond, MaxPause: time.Millisecond, Log: slog.New(slog.DiscardHandler),
	}, r.c.Routes()...)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// finish follows the whole history in batches of about the given size.
func (r *run[T]) finish(t *testing.T, batch int) {
	t.Helper()
	f := r.newFollower(t, batch)
	r.until(t, f, freehold.Position(len(r.script.events)))
}

// follow runs a follower of its own until it has applied position p, 0 for all.
func (r *run[T]) follow(t *testing.T, p freehold.Position) {
	t.Helper()
	if p == 0 {
		p = freehold.Position(len(r.script.events))
	}
	r.until(t, r.newFollower(t, 1), p)
}

func (r *run[T]) until(t *testing.T, f *follow.Follower, p freehold.Position) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	most := r.db.updates.Load() + perEvent*int64(len(r.script.events)+20)
	r.db.over.Store(&limit{most, cancel})
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	if p > 0 {
		if err := f.WaitFor(ctx, freehold.NewToken(r.script.events[p-1].At)); err != nil {
			if r.db.updates.Load() >= most {
				t.Fatalf("the follower does not get to position %d in %d transactions for each event; status %+v", p, perEvent, f.Status(ctx))
			}
			t.Fatalf("waiting for position %d: %v; status %+v", p, err, f.Status(ctx))
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatalf("follower: %v", err)
	}
}

func (r *run[T]) digest(t *testing.T) string {
	t.Helper()
	var digest string
	err := r.db.View(t.Context(), func(ctx context.Context, tx T) (err error) {
		digest, err = r.c.Digest(ctx, tx)
		return err
	})
	if err != nil {
		t.Fatalf("digest: %v", err)
	}
	return digest
}

// fate is what happens to a transaction.
type fate int

const (
	committed fate = iota
	runTwice
	rolledBack
	unknownCommitted
	unknownLost
)

func pick(yes bool, f fate) fate {
	if yes {
		return f
	}
	return committed
}

// faultyDB decides the fate of each Update.
type faultyDB[T freehold.Tx] struct {
	follow.DB[T]
	updates atomic.Int64
	over    atomic.Pointer[limit]
	before  func(n int64) fate
}

// limit is how many updates there may be, and what is done about more.
type limit struct {
	most int64
	stop func()
}

var (
	errAgain = errors.New("followtest: rolled back on purpose")
	errLost  = fmt.Errorf("followtest: on purpose: %w", freehold.ErrUnknown)
)

func (db *faultyDB[T]) Update(ctx context.Context, fn func(context.Context, T) error) (freehold.Token, error) {
	f, n := committed, db.updates.Add(1)
	if l := db.over.Load(); l != nil && n >= l.most {
		l.stop()
	}
	if db.before != nil {
		f = db.before(n)
	}
	undone := func(ctx context.Context, tx T) error {
		if err := fn(ctx, tx); err != nil {
			return err
		}
		return errAgain
	}
	switch f {
	case runTwice:
		if tok, err := db.DB.Update(ctx, undone); !errors.Is(err, errAgain) {
			return tok, err
		}
	case rolledBack:
		return db.DB.Update(ctx, undone)
	case unknownLost:
		tok, err := db.DB.Update(ctx, undone)
		if errors.Is(err, errAgain) {
			err = errLost
		}
		return tok, err
	case unknownCommitted:
		tok, err := db.DB.Update(ctx, fn)
		if err == nil {
			err = errLost
		}
		return tok, err
	}
	return db.DB.Update(ctx, fn)
}
