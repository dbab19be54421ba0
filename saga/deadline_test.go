package saga_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/kv"
	"github.com/freehold-go/freehold/memory"
	"github.com/freehold-go/freehold/saga"
)

// FIELD row 17.
func TestSilentParticipantIsRejectedAtTheDeadline(t *testing.T) {
	t.Parallel()
	for name, restart := range map[string]bool{"running": false, "across a restart": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				disk := memory.NewDisk()
				db := open(t, disk)
				_, stop := run(t, db, nil, checkout()...)
				happen(t, db, Begun{"1"}, Paid{"1"})
				synctest.Wait()
				time.Sleep(29 * time.Second)
				synctest.Wait()
				if got := outcome(t, db, "1"); got != "" {
					t.Fatalf("%q before the deadline", got)
				}
				if restart {
					stop()
					db.Close()
					time.Sleep(time.Hour) // down when it is due
					db = open(t, disk)
					_, stop = run(t, db, nil, checkout()...)
				}
				time.Sleep(2 * time.Second)
				synctest.Wait()
				stop()
				if got, want := outcome(t, db, "1"), "Rejected{1 time-out: answers} Undone{payment}"; got != want {
					t.Errorf("%q, want %q", got, want)
				}
				db.Close()
			})
		})
	}
}

// An answer that came while the service was down was in time.
func TestAnswersAreSeenBeforeOverdueDeadlinesFire(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		disk := memory.NewDisk()
		db, there := open(t, disk), openAs(t, "there", nil)
		defer there.Close()
		sources := func() []follow.Source { return []follow.Source{db.Journal(), there.Journal()} }
		_, stop := runVersion(t, db, 1, nil, sources(), checkout()...)
		happen(t, db, Begun{"1"})
		synctest.Wait()
		stop()
		db.Close()
		for range 2000 { // some reading to do
			happen(t, there, Stock{"other"})
		}
		happen(t, there, Stock{"1"}, Paid{"1"})
		time.Sleep(time.Hour)
		db = open(t, disk)
		_, stop = runVersion(t, db, 1, nil, sources(), checkout()...)
		time.Sleep(time.Minute)
		synctest.Wait()
		stop()
		if got := outcome(t, db, "1"); got != "Confirmed{1}" {
			t.Errorf("%q, want Confirmed{1}", got)
		}
		db.Close()
	})
}

// unreachable is a source that cannot be asked.
type unreachable struct{ follow.Source }

func (unreachable) Bounds(context.Context) (first, head markOf, err error) {
	return first, head, errors.New("nobody there")
}

func TestUnreachableSourceDoesNotStopDeadlines(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		disk := memory.NewDisk()
		db, there := open(t, disk), openAs(t, "there", nil)
		defer there.Close()
		defer db.Close()
		_, stop := runVersion(t, db, 1, nil, []follow.Source{db.Journal(), unreachable{there.Journal()}}, checkout()...)
		happen(t, db, Begun{"1"})
		time.Sleep(31 * time.Second)
		synctest.Wait()
		if got := outcome(t, db, "1"); got != "Rejected{1 time-out: answers}" {
			t.Errorf("%q at the deadline", got)
		}
		stop()
	})
}

// firings are names of deadlines, in the order in which they fired.
type firings struct {
	mu  sync.Mutex
	all []string
}

func (f *firings) add(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.all = append(f.all, name)
}

func (f *firings) String() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return strings.Join(f.all, " ")
}

// deadlines is a process whose beginning sets what the id says: names and seconds.
func deadlines(fired *firings, fail func(s *step, to saga.Timeout) error) []route {
	return []route{
		saga.Start(Begun.id, func(_ context.Context, _ kv.Tx, s *step, e Begun) error {
			for _, part := range strings.Fields(e.ID) {
				name, after, _ := strings.Cut(part, "=")
				d, err := time.ParseDuration(after)
				if err != nil {
					s.Clear(name)
					continue
				}
				s.Deadline(name, d)
			}
			return nil
		}),
		saga.OnTimeout(func(_ context.Context, _ kv.Tx, s *step, to saga.Timeout) error {
			if fail != nil {
				if err := fail(s, to); err != nil {
					return err
				}
			}
			fired.add(to.Name)
			return nil
		}),
	}
}

func TestDeadlines(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ id, want string }{
		"in their order":         {"b=2s a=1s c=3s", "a b c"},
		"replaced by a later":    {"a=1s b=2s a=3s", "b a"},
		"replaced by an earlier": {"a=3s b=2s a=1s", "a b"},
		"cleared":                {"a=1s b=2s a=", "b"},
		"set again":              {"a=1s a= a=2s b=3s", "a b"},
		"passed already":         {"a=-1h", "a"},
		"now":                    {"a=0s", "a"},
		"clear of none":          {"a= b=1s", "b"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				db := open(t, nil)
				defer db.Close()
				var fired firings
				p, stop := run(t, db, nil, deadlines(&fired, nil)...)
				happen(t, db, Begun{c.id})
				time.Sleep(10 * time.Second)
				synctest.Wait()
				stop()
				if got := fired.String(); got != c.want {
					t.Errorf("fired %q, want %q", got, c.want)
				}
				if n := p.Pending(); n != 0 {
					t.Errorf("%d deadlines left in memory", n)
				}
			})
		})
	}
}

// Memory is that of live instances: nothing waits until a deadline of an instance
// that has ended long ago.
func TestEndedInstanceLeavesNoDeadlineInMemory(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		db := open(t, nil)
		defer db.Close()
		p, stop := run(t, db, nil, checkout()...)
		for i := range 1000 {
			id := fmt.Sprint(i)
			happen(t, db, Begun{id}, Stock{id}, Paid{id})
		}
		synctest.Wait()
		if n := p.Pending(); n != 0 {
			t.Errorf("%d deadlines in memory", n)
		}
		happen(t, db, Begun{"x"})
		synctest.Wait()
		if n := p.Pending(); n != 1 {
			t.Errorf("%d deadlines in memory, want 1", n)
		}
		stop()
	})
}

// A transaction that is rolled back has set and cleared nothing.
func TestDeadlinesFollowTheCommit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		db := open(t, nil)
		defer db.Close()
		flaky := &counting{DB: db, fate: func(n int64) (fails, unknown bool) { return n%3 != 0, false }}
		p, stop := runVersion(t, flaky, 1, nil, []follow.Source{db.Journal()}, checkout()...)
		happen(t, db, Begun{"1"}, Stock{"1"}, Paid{"1"})
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if got := outcome(t, db, "1"); got != "Confirmed{1}" || p.Pending() != 0 {
			t.Errorf("%q, %d deadlines", got, p.Pending())
		}
		happen(t, db, Begun{"2"})
		time.Sleep(45 * time.Second)
		synctest.Wait()
		stop()
		if got := outcome(t, db, "2"); got != "Rejected{2 time-out: answers}" || p.Pending() != 0 {
			t.Errorf("%q, %d deadlines", got, p.Pending())
		}
	})
}

func TestFailingDeadlineHoldsUpNoOther(t *testing.T) {
	t.Parallel()
	for name, fail := range map[string]func() error{
		"with an error": func() error { return errors.New("no") },
		"with a panic":  func() error { panic("no") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				db := open(t, nil)
				defer db.Close()
				var fired firings
				var tries atomic.Int64
				_, stop := run(t, db, nil, deadlines(&fired, func(_ *step, to saga.Timeout) error {
					if to.Name == "bad" && tries.Add(1) < 10 {
						return fail()
					}
					return nil
				})...)
				happen(t, db, Begun{"bad=1s x=3s"}, Begun{"y=1s"}, Begun{"z=2s"})
				time.Sleep(3500 * time.Millisecond)
				synctest.Wait()
				if got := fired.String(); got != "y z x" {
					t.Errorf("fired %q, want y z x at their times", got)
				}
				time.Sleep(time.Minute)
				synctest.Wait()
				stop()
				if got := fired.String(); got != "y z x bad" || tries.Load() != 10 {
					t.Errorf("fired %q in %d tries, want bad too, at its tenth", got, tries.Load())
				}
			})
		})
	}
}

func TestManyDeadlinesShareTransactions(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		db := open(t, nil)
		defer db.Close()
		counted := &counting{DB: db}
		_, stop := runVersion(t, counted, 1, nil, []follow.Source{db.Journal()}, checkout()...)
		for i := range 1000 {
			happen(t, db, Begun{fmt.Sprint(i)})
		}
		synctest.Wait()
		counted.updates.Store(0)
		time.Sleep(31 * time.Second)
		synctest.Wait()
		for i := range 1000 {
			if got := outcome(t, db, fmt.Sprint(i)); !strings.Contains(got, "time-out") {
				t.Fatalf("%d: %q", i, got)
			}
		}
		if n := counted.updates.Load(); n > 100 {
			t.Errorf("%d transactions", n)
		}
		counted.updates.Store(0)
		time.Sleep(time.Hour)
		synctest.Wait()
		if n := counted.updates.Load(); n != 0 {
			t.Errorf("%d writes of an idle process", n)
		}
		stop()
	})
}

// The wall clock may be set while nothing happens.
func TestDeadlineFollowsAClockThatIsSet(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		db := open(t, nil)
		defer db.Close()
		var offset atomic.Int64
		now := func() time.Time { return time.Now().Add(time.Duration(offset.Load())) }
		_, stop := run(t, db, &saga.Options{Now: now}, checkout()...)
		happen(t, db, Begun{"1"})
		synctest.Wait()
		offset.Store(int64(-time.Hour)) // back
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := outcome(t, db, "1"); got != "" {
			t.Errorf("%q before the clock says so", got)
		}
		offset.Store(int64(time.Hour)) // forward
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if got := outcome(t, db, "1"); got != "Rejected{1 time-out: answers}" {
			t.Errorf("%q after the clock has passed the deadline", got)
		}
		stop()
	})
}

func TestDeadlineWithoutAHandlerIsAnError(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		db := open(t, nil)
		defer db.Close()
		for _, name := range []string{"a", ""} {
			p, stop := run(t, db, nil, saga.Start(Begun.id, func(_ context.Context, _ kv.Tx, s *step, _ Begun) error {
				s.Deadline(name, time.Second)
				return nil
			}))
			happen(t, db, Begun{"1"})
			time.Sleep(time.Minute)
			synctest.Wait()
			if parked, err := p.Parked(t.Context(), 10); err != nil || len(parked) != 1 {
				t.Errorf("%d parked, %v", len(parked), err)
			}
			if err := p.Release(t.Context(), "here", "1"); err != nil {
				t.Error(err)
			}
			stop()
		}
	})
}

// A deadline may be so far away that the time until then has no [time.Duration].
func TestFarDeadlineIsNotLookedAtAllTheTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		db := open(t, nil)
		defer db.Close()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var rounds atomic.Int64
		now := func() time.Time {
			if rounds.Add(1) == 1000 {
				cancel()
			}
			return time.Now()
		}
		far := time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)
		p, err := saga.New("checkout", 1, db, []follow.Source{db.Journal()}, quiet(&saga.Options{Now: now}),
			saga.Start(Begun.id, func(_ context.Context, _ kv.Tx, s *step, _ Begun) error {
				s.DeadlineAt("never", far)
				return nil
			}),
			saga.OnTimeout(func(context.Context, kv.Tx, *step, saga.Timeout) error { return nil }))
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- p.Run(ctx) }()
		happen(t, db, Begun{"1"})
		time.Sleep(time.Minute)
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if n := rounds.Load(); n > 70 {
			t.Errorf("looked at the clock %d times in a minute", n)
		}
		if at := instance(t, p, "1").Deadlines["never"]; !at.Equal(far) {
			t.Errorf("the deadline is at %s, want %s", at, far)
		}
	})
}
