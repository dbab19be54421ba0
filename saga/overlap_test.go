package saga_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/journal"
	"github.com/freehold-go/freehold/kv"
	"github.com/freehold-go/freehold/memory"
	"github.com/freehold-go/freehold/saga"
)

// slow is a database whose transactions can be held up.
type slow struct {
	*memory.DB
	beforeUpdate func()
	beforeCommit func(ctx context.Context, tx kv.Tx)
	beforeView   func(n int64) // the nth
	inView       func()
	views        atomic.Int64
}

func (s *slow) Update(ctx context.Context, fn func(context.Context, kv.Tx) error) (freehold.Token, error) {
	if s.beforeUpdate != nil {
		s.beforeUpdate()
	}
	return s.DB.Update(ctx, func(ctx context.Context, tx kv.Tx) error {
		err := fn(ctx, tx)
		if err == nil && s.beforeCommit != nil {
			s.beforeCommit(ctx, tx)
		}
		return err
	})
}

func (s *slow) View(ctx context.Context, fn func(context.Context, kv.Tx) error) error {
	if n := s.views.Add(1); s.beforeView != nil {
		s.beforeView(n)
	}
	return s.DB.View(ctx, func(ctx context.Context, tx kv.Tx) error {
		if s.inView != nil {
			s.inView()
		}
		return fn(ctx, tx)
	})
}

// A former leader that is stopped within a transaction commits it after another
// instance has read which deadlines there are.
func TestDeadlineOfAFormerLeaderFires(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		e    freehold.Event
		late bool // the new leader reads its mark behind the commit, and is not fenced
		want string
	}{
		"begun, fenced":       {Begun{"1"}, false, "Rejected{1 time-out: answers}"},
		"begun, not fenced":   {Begun{"1"}, true, "Rejected{1 time-out: answers}"},
		"stashed, fenced":     {Stock{"1"}, false, ""},
		"stashed, not fenced": {Stock{"1"}, true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				db := open(t, nil)
				defer db.Close()
				sources, o := []follow.Source{db.Journal()}, &saga.Options{Stash: 30 * time.Second}
				stopped, goOn := make(chan struct{}), make(chan struct{})
				var once sync.Once
				former := &slow{DB: db, beforeCommit: func(ctx context.Context, tx kv.Tx) {
					if _, found, _ := db.Keeper(tx).Get(ctx, "saga/checkout", "1"); found {
						once.Do(func() {
							close(stopped)
							<-goOn
						})
					}
				}}
				_, stopFormer := runVersion(t, former, 1, o, sources, checkout()...)
				happen(t, db, c.e)
				<-stopped
				next := &slow{DB: db, beforeView: func(n int64) {
					if c.late && n > 1 { // the first reads the deadlines
						<-goOn
						time.Sleep(time.Millisecond) // until it is committed
					}
				}}
				p, stop := runVersion(t, next, 1, o, sources, checkout()...)
				synctest.Wait()
				close(goOn)
				stopFormer()
				time.Sleep(35 * time.Second)
				synctest.Wait()
				stop()
				if got := outcome(t, db, "1"); got != c.want {
					t.Errorf("%q, want %q", got, c.want)
				}
				if live := waitingIn(t, db); len(live) != 0 || p.Pending() != 0 {
					t.Errorf("%q wait, with %d deadlines in memory", live, p.Pending())
				}
			})
		})
	}
}

// The former leader goes on for longer than the new one needs to begin.
func TestDeadlineOfAnInstanceThatWasFasterFires(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		db := open(t, nil)
		defer db.Close()
		sources := []follow.Source{db.Journal()}
		var hold atomic.Bool
		goOn := make(chan struct{})
		slower := &slow{DB: db, beforeUpdate: func() {
			if hold.Load() {
				<-goOn
			}
		}}
		p, stop := runVersion(t, slower, 1, nil, sources, checkout()...)
		_, stopFaster := run(t, db, nil, checkout()...)
		time.Sleep(10 * time.Second)
		hold.Store(true)
		happen(t, db, Begun{"1"})
		synctest.Wait()
		stopFaster()
		close(goOn)
		time.Sleep(31 * time.Second)
		synctest.Wait()
		stop()
		if got := outcome(t, db, "1"); got != "Rejected{1 time-out: answers}" || p.Pending() != 0 {
			t.Errorf("%q after the deadline, %d in memory", got, p.Pending())
		}
	})
}

// A deadline that fires moves no mark, so nobody is fenced if a former leader fires it.
func TestDeadlineThatAFormerLeadersDeadlineSetFires(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		db := open(t, nil)
		defer db.Close()
		var fired firings
		routes := deadlines(&fired, func(s *step, to saga.Timeout) error {
			if to.Name == "first" {
				s.Deadline("second", time.Minute)
			}
			return nil
		})
		p, stop := run(t, db, nil, routes...)
		happen(t, db, Begun{"first=30s"})
		time.Sleep(10 * time.Second)
		early := func() time.Time { return time.Now().Add(25 * time.Second) }
		_, stopFormer := run(t, db, &saga.Options{Now: early}, routes...)
		synctest.Wait()
		stopFormer()
		if got := fired.String(); got != "first" {
			t.Fatalf("fired %q, want first", got)
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		stop()
		if got := fired.String(); got != "first second" || p.Pending() != 0 {
			t.Errorf("fired %q, want first second; %d in memory", got, p.Pending())
		}
	})
}

// An instance that ends while the deadlines are read again leaves none in memory.
func TestReadingDeadlinesAgainBringsNoneBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		db := open(t, nil)
		defer db.Close()
		start := time.Now()
		var once sync.Once
		busy := &slow{DB: db, inView: func() {
			if time.Since(start) >= time.Second { // they are read again
				once.Do(func() {
					happen(t, db, Stock{"1"}, Paid{"1"})
					time.Sleep(10 * time.Millisecond)
				})
			}
		}}
		p, stop := runVersion(t, busy, 1, nil, []follow.Source{db.Journal()}, checkout()...)
		happen(t, db, Begun{"1"})
		time.Sleep(10 * time.Second)
		synctest.Wait()
		stop()
		if got := outcome(t, db, "1"); got != "Confirmed{1}" {
			t.Errorf("%q before its deadline, want Confirmed{1}", got)
		}
		if n := p.Pending(); n != 0 {
			t.Errorf("%d deadlines in memory", n)
		}
	})
}

// lagging is a journal of several instances whose events this process hears of late. Its
// reads take their time.
type lagging struct {
	*journal.Journal
	first, known freehold.Mark
}

func (l lagging) Bounds(context.Context) (first, head freehold.Mark, err error) {
	return l.first, l.known, nil
}

func (l lagging) Read(ctx context.Context, after freehold.Mark, limit int) ([]freehold.Recorded, error) {
	time.Sleep(time.Second)
	return l.Journal.Read(ctx, after, limit)
}

// The answer was there when the former leader ended, but the new one had not heard of it.
func TestAnswersNotHeardOfAreSeenBeforeOverdueDeadlinesFire(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		db := open(t, nil)
		defer db.Close()
		_, stopFormer := run(t, db, nil, checkout()...)
		happen(t, db, Begun{"1"})
		synctest.Wait()
		stopFormer()
		l := lagging{Journal: db.Journal()}
		var err error
		if l.first, l.known, err = db.Journal().Bounds(t.Context()); err != nil {
			t.Fatal(err)
		}
		happen(t, db, Stock{"1"}, Paid{"1"})
		time.Sleep(time.Minute)
		_, stop := runVersion(t, db, 1, nil, []follow.Source{l}, checkout()...)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		stop()
		if got := outcome(t, db, "1"); got != "Confirmed{1}" {
			t.Errorf("%q, want Confirmed{1}", got)
		}
	})
}

// What is parked in one source says nothing of the answers in another.
func TestAnswersAreSeenBesideAParkedEvent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		db, there := open(t, nil), openAs(t, "there", nil)
		defer db.Close()
		defer there.Close()
		routes := checkout()
		routes[3] = saga.On(Cancelled.id, func(context.Context, kv.Tx, *step, Cancelled) error { return errors.New("no") })
		sources := []follow.Source{db.Journal(), lagging{Journal: there.Journal()}}
		o := &saga.Options{Options: follow.Options{Attempts: 1}}
		p, stop := runVersion(t, db, 1, o, sources, routes...)
		happen(t, db, Begun{"1"}, Begun{"2"}, Cancelled{"2"})
		time.Sleep(10 * time.Second)
		if parked, err := p.Parked(t.Context(), 10); err != nil || len(parked) != 1 {
			t.Fatalf("%d parked, %v", len(parked), err)
		}
		stop()
		happen(t, there, Stock{"1"}, Paid{"1"})
		time.Sleep(time.Minute)
		_, stop = runVersion(t, db, 1, o, sources, routes...)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		stop()
		if got := outcome(t, db, "1"); got != "Confirmed{1}" {
			t.Errorf("%q, want Confirmed{1}", got)
		}
	})
}
