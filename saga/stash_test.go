package saga_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/kv"
	"github.com/freehold-go/freehold/memory"
	"github.com/freehold-go/freehold/saga"
)

type markOf = freehold.Mark

// noting writes down what its steps saw, and by what they were caused.
func noting(seen *[]string) []route {
	note := func(ctx context.Context, what string) error {
		if m := freehold.MetaOf(ctx); m.Causation == "" {
			what += " without a cause"
		}
		*seen = append(*seen, what)
		return nil
	}
	return []route{
		saga.Start(Begun.id, func(ctx context.Context, _ kv.Tx, _ *step, _ Begun) error { return note(ctx, "begun") }),
		saga.On(Stock.id, func(ctx context.Context, _ kv.Tx, _ *step, _ Stock) error { return note(ctx, "stock") }),
		saga.On(Paid.id, func(ctx context.Context, _ kv.Tx, _ *step, _ Paid) error { return note(ctx, "paid") }),
		saga.On(Cancelled.id, func(ctx context.Context, _ kv.Tx, s *step, _ Cancelled) error {
			s.End()
			return note(ctx, "cancelled")
		}),
	}
}

func TestStashedEventsAreHandledAfterTheBeginningInTheirOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		disk := memory.NewDisk()
		db, there := open(t, disk), openAs(t, "there", nil)
		defer there.Close()
		var seen []string
		sources := func() []follow.Source { return []follow.Source{db.Journal(), there.Journal()} }
		p, stop := runVersion(t, db, 1, nil, sources(), noting(&seen)...)
		happen(t, there, Paid{"1"})
		synctest.Wait()
		happen(t, db, Stock{"1"})
		synctest.Wait()
		happen(t, there, Paid{"1"})
		synctest.Wait()
		if i := instance(t, p, "1"); i.Stashed != 3 || i.Version != 0 || len(i.Deadlines) != 1 {
			t.Errorf("%+v, want 3 stashed", i)
		}
		stop()
		db.Close() // the stash outlives the process
		db = open(t, disk)
		defer db.Close()
		p, stop = runVersion(t, db, 1, nil, sources(), noting(&seen)...)
		happen(t, db, Begun{"1"}, Stock{"1"})
		synctest.Wait()
		if got, want := strings.Join(seen, ", "), "begun, paid, stock, paid, stock"; got != want {
			t.Errorf("%s, want %s", got, want)
		}
		if i := instance(t, p, "1"); i.Stashed != 0 || i.Version != 1 || len(i.Deadlines) != 0 || p.Pending() != 0 {
			t.Errorf("%+v, %d deadlines, want nothing stashed", i, p.Pending())
		}
		stop()
	})
}

func TestStashedEventsBehindTheEndAreCounted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		db := open(t, nil)
		defer db.Close()
		var seen []string
		p, stop := run(t, db, nil, noting(&seen)...)
		happen(t, db, Cancelled{"1"}, Paid{"1"}, Begun{"1"}, Stock{"1"})
		synctest.Wait()
		stop()
		if got, want := strings.Join(seen, ", "), "begun, cancelled"; got != want {
			t.Errorf("%s, want %s", got, want)
		}
		if i := instance(t, p, "1"); i.Late != 2 || i.Ended.IsZero() {
			t.Errorf("%+v, want 2 late", i)
		}
	})
}

func TestStashIsDroppedAtItsDeadline(t *testing.T) {
	t.Parallel()
	for name, restart := range map[string]bool{"running": false, "across a restart": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				disk := memory.NewDisk()
				db := open(t, disk)
				var seen []string
				o := &saga.Options{Stash: time.Minute}
				p, stop := run(t, db, o, noting(&seen)...)
				happen(t, db, Stock{"1"})
				synctest.Wait()
				time.Sleep(59 * time.Second)
				happen(t, db, Paid{"1"})
				synctest.Wait()
				if i := instance(t, p, "1"); i.Stashed != 2 {
					t.Errorf("%+v before the deadline", i)
				}
				if restart {
					stop()
					db.Close()
					time.Sleep(time.Hour)
					db = open(t, disk)
					p, stop = run(t, db, o, noting(&seen)...)
				}
				time.Sleep(2 * time.Second)
				synctest.Wait()
				if i := instance(t, p, "1"); i.Stashed != 0 {
					t.Errorf("%+v behind the deadline", i)
				}
				happen(t, db, Begun{"1"})
				synctest.Wait()
				stop()
				if got := strings.Join(seen, ", "); got != "begun" {
					t.Errorf("%s, want a beginning without the stash", got)
				}
				db.Close()
			})
		})
	}
}

func TestFullStashParksTheRest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		db := open(t, nil)
		defer db.Close()
		var seen []string
		p, stop := run(t, db, nil, noting(&seen)...)
		for range 300 {
			happen(t, db, Stock{"1"})
		}
		happen(t, db, Begun{"2"})
		time.Sleep(time.Minute)
		synctest.Wait()
		parked, err := p.Parked(t.Context(), 1000)
		if err != nil || len(parked) != 44 || instance(t, p, "1").Stashed != 256 {
			t.Errorf("%d parked, %v, %d stashed, want 44 and 256", len(parked), err, instance(t, p, "1").Stashed)
		}
		if got := strings.Join(seen, ", "); got != "begun" {
			t.Errorf("%s: another instance must go on", got)
		}
		stop()
	})
}

// An event that concerns nobody is nobody's.
func TestEmptyIDConcernsNoInstance(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		db := open(t, nil)
		defer db.Close()
		var seen []string
		p, stop := run(t, db, nil, noting(&seen)...)
		happen(t, db, Stock{""}, Begun{""})
		synctest.Wait()
		stop()
		if _, found, err := p.Instance(t.Context(), ""); found || err != nil || len(seen) > 0 {
			t.Errorf("found %v, %v, saw %v", found, err, seen)
		}
	})
}

// TestAnIDThatPanicsHoldsItsEventOnly has the function that names the instance look for
// what an event does not have.
func TestAnIDThatPanicsHoldsItsEventOnly(t *testing.T) {
	t.Parallel()
	for _, lanes := range []int{1, 4} {
		t.Run(fmt.Sprintf("in %d lanes", lanes), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				db := open(t, nil)
				defer db.Close()
				var o saga.Options
				o.Lanes = lanes
				routes := checkout()
				routes[1] = saga.On(func(e Stock) string { return string([]byte(e.ID)[:1]) }, func(_ context.Context, _ kv.Tx, s *step, _ Stock) error {
					s.State.Stock = true
					return nil
				})
				p, stop := run(t, db, &o, routes...)
				happen(t, db, Begun{"1"}, Begun{"2"})
				synctest.Wait()
				if _, err := db.Append(t.Context(), freehold.Write{Stream: "in-2", Expect: freehold.Any, Events: []freehold.Event{Stock{""}}}); err != nil {
					t.Fatal(err)
				}
				happen(t, db, Stock{"1"}, Stock{"2"}, Paid{"1"}, Paid{"2"})
				time.Sleep(20 * time.Second)
				synctest.Wait()
				for _, id := range []string{"1", "2"} {
					if got, want := outcome(t, db, id), "Confirmed{"+id+"}"; got != want {
						t.Errorf("instance %s: %q, want %q", id, got, want)
					}
				}
				parked, err := p.Parked(t.Context(), 10)
				if err != nil || len(parked) != 1 || parked[0].Key != "in-2" {
					t.Errorf("parked %+v, %v, want the event that names no instance, under its stream", parked, err)
				}
				stop()
			})
		})
	}
}
