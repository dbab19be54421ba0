package saga_test

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/memory"
	"github.com/freehold-go/freehold/saga"
)

// misfit is what another program has written as a Stock, which this one cannot read.
type misfit struct{ ID int }

func (misfit) EventType() freehold.Type { return Stock{}.EventType() }

// TestEventsBehindOneThatCannotBeReadAreHeld has an event of which nobody can tell to which
// instance it belongs: what follows in its stream may be of the same one, and waits; and
// what follows for that instance waits behind it, also after a restart.
func TestEventsBehindOneThatCannotBeReadAreHeld(t *testing.T) {
	t.Parallel()
	for _, lanes := range []int{1, 4} {
		t.Run(fmt.Sprintf("in %d lanes", lanes), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				others, err := freehold.NewCatalog(freehold.JSON[misfit]())
				if err != nil {
					t.Fatal(err)
				}
				disk := memory.NewDisk()
				old, err := memory.Open(t.Context(), "there", others, &memory.Options{Disk: disk})
				if err != nil {
					t.Fatal(err)
				}
				say := func(db *memory.DB, s freehold.StreamID, e freehold.Event) {
					t.Helper()
					if _, err := db.Append(t.Context(), freehold.Write{Stream: s, Expect: freehold.Any, Events: []freehold.Event{e}}); err != nil {
						t.Fatal(err)
					}
				}
				say(old, "in-7", misfit{7})
				if err := old.Close(); err != nil {
					t.Fatal(err)
				}
				db, there := open(t, nil), openAs(t, "there", disk)
				defer db.Close()
				defer there.Close()
				follows := func() (*process, func()) {
					var o saga.Options
					o.Lanes = lanes
					return runVersion(t, db, 1, &o, []follow.Source{db.Journal(), there.Journal()}, checkout()...)
				}
				_, stop := follows()
				happen(t, db, Begun{"1"}, Begun{"2"})
				time.Sleep(time.Second)
				say(there, "in-7", Paid{"1"})
				say(there, "in-8", Paid{"2"})
				time.Sleep(time.Second)
				stop()
				p, stop := follows()
				say(there, "in-8", Stock{"1"})
				say(there, "in-8", Stock{"2"})
				time.Sleep(time.Second)
				synctest.Wait()
				parked, err := p.Parked(t.Context(), 10)
				if err != nil {
					t.Fatal(err)
				}
				var got []string
				for _, one := range parked {
					got = append(got, fmt.Sprintf("%s %d", one.Key, one.Event.At.Position))
				}
				if got, want := fmt.Sprint(got), "[in-7 1 in-7 2 in-7 4]"; got != want {
					t.Errorf("parked %s, want %s", got, want)
				}
				for _, st := range p.Status(t.Context()) {
					if st.Source == "there" && st.Parked != 1 {
						t.Errorf("%d keys have parked events, want 1", st.Parked)
					}
				}
				if got := outcome(t, db, "2"); got != "Confirmed{2}" {
					t.Errorf("the other instance: %q", got)
				}
				if err := p.Release(t.Context(), "there", "in-7"); err != nil {
					t.Error(err)
				}
				say(there, "in-7", Paid{"2"}) // waits for nobody any more
				time.Sleep(time.Second)
				synctest.Wait()
				if parked, err := p.Parked(t.Context(), 10); err != nil || len(parked) > 0 {
					t.Errorf("parked behind the release: %+v, %v", parked, err)
				}
				stop()
				if got := outcome(t, db, "1"); got != "Confirmed{1}" {
					t.Errorf("behind the release: %q", got)
				}
			})
		})
	}
}
