package saga_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/kv"
	"github.com/freehold-go/freehold/memory"
	"github.com/freehold-go/freehold/saga"
)

// oldState is what definition 1 stored.
type oldState struct{ Have int }

// definition1 ends when it has two answers of any kind; it asks for no deadline
// name that definition 2 knows.
func definition1() []saga.Route[kv.Tx, oldState] {
	answered := func(ctx context.Context, tx kv.Tx, s *saga.Step[oldState]) error {
		if s.State.Have++; s.State.Have < 2 {
			return nil
		}
		s.End()
		_, err := tx.Append(ctx, "out-"+streamID(s.ID), 0, Rejected{s.ID, "by the old routes"})
		return err
	}
	return []saga.Route[kv.Tx, oldState]{
		saga.Start(Begun.id, func(_ context.Context, _ kv.Tx, s *saga.Step[oldState], _ Begun) error {
			s.Deadline("old", 30*time.Second)
			return nil
		}),
		saga.On(Stock.id, func(ctx context.Context, tx kv.Tx, s *saga.Step[oldState], _ Stock) error {
			return answered(ctx, tx, s)
		}),
		saga.On(Undone.id, func(ctx context.Context, tx kv.Tx, s *saga.Step[oldState], _ Undone) error {
			return answered(ctx, tx, s)
		}),
		saga.OnTimeout(func(ctx context.Context, tx kv.Tx, s *saga.Step[oldState], to saga.Timeout) error {
			s.End()
			_, err := tx.Append(ctx, "out-"+streamID(s.ID), 0, Rejected{s.ID, "old time-out: " + to.Name})
			return err
		}),
	}
}

func (e Undone) id() string { return e.What }

func runOld(t *testing.T, db *memory.DB) (stop func()) {
	t.Helper()
	p, err := saga.New("checkout", 1, db, []follow.Source{db.Journal()}, quiet(nil), definition1()...)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// begunUnder1 has instances 1 and 2 under way under definition 1, each with one
// answer, and one answer for instance 3, which has not begun.
func begunUnder1(t *testing.T, disk *memory.Disk) {
	t.Helper()
	db := open(t, disk)
	stop := runOld(t, db)
	happen(t, db, Begun{"1"}, Stock{"1"}, Begun{"2"}, Stock{"2"}, Stock{"3"})
	synctest.Wait()
	stop()
	db.Close()
}

func TestInstanceFinishesOnTheRoutesItBeganUnder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		disk := memory.NewDisk()
		begunUnder1(t, disk)
		db := open(t, disk)
		defer db.Close()
		p, stop := runVersion(t, db, 2, nil, []follow.Source{db.Journal()}, append(checkout(), saga.Old[state](1, definition1()...))...)
		if i := instance(t, p, "1"); i.Version != 1 {
			t.Errorf("%+v, want version 1", i)
		}
		happen(t, db,
			Undone{"1"}, // only the old routes know it
			Paid{"2"},   // the old routes do not know it
			Undone{"9"}, // an instance that nobody began
			Begun{"3"}, Paid{"3"})
		time.Sleep(31 * time.Second)
		synctest.Wait()
		stop()
		for id, want := range map[string]string{
			"1": "Rejected{1 by the old routes}", "2": "Rejected{2 old time-out: old}", "3": "Confirmed{3}", "9": ""} {
			if got := outcome(t, db, id); got != want {
				t.Errorf("%s ends with %q, want %q", id, got, want)
			}
		}
		if _, found, err := p.Instance(t.Context(), "9"); found || err != nil {
			t.Errorf("an event that only old routes want was stashed: %v", err)
		}
	})
}

func TestInstanceIsMigrated(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		disk := memory.NewDisk()
		begunUnder1(t, disk)
		db := open(t, disk)
		defer db.Close()
		migrate := func(version int, raw json.RawMessage) (json.RawMessage, error) {
			var old oldState
			if err := json.Unmarshal(raw, &old); err != nil || version != 1 {
				t.Errorf("migrate %d %s: %v", version, raw, err)
			}
			return json.Marshal(state{Stock: old.Have == 1})
		}
		_, stop := runVersion(t, db, 2, &saga.Options{Migrate: migrate}, []follow.Source{db.Journal()}, checkout()...)
		happen(t, db, Paid{"1"})
		time.Sleep(31 * time.Second)
		synctest.Wait()
		stop()
		for id, want := range map[string]string{"1": "Confirmed{1}", "2": "Rejected{2 time-out: old}"} {
			if got := outcome(t, db, id); got != want {
				t.Errorf("%s ends with %q, want %q", id, got, want)
			}
		}
	})
}

func TestProcessDoesNotRunOnInstancesItKnowsNothingOf(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		version int
		routes  []route
	}{
		"older, without a way on":       {3, append(checkout(), saga.Old[state](2, checkout()...))},
		"newer than the program's":      {1, checkout()},
		"older, with a migration error": {3, checkout()},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				disk := memory.NewDisk()
				db := open(t, disk)
				began := 1
				if c.version == 1 {
					began = 2
				}
				_, stop := runVersion(t, db, began, nil, []follow.Source{db.Journal()}, checkout()...)
				happen(t, db, Begun{"1"})
				synctest.Wait()
				stop()
				o := quiet(nil)
				if strings.Contains(name, "error") {
					o.Migrate = func(int, json.RawMessage) (json.RawMessage, error) { return nil, context.Canceled }
				}
				p, err := saga.New("checkout", c.version, db, []follow.Source{db.Journal()}, o, c.routes...)
				if err != nil {
					t.Fatal(err)
				}
				if err := p.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "checkout 1") {
					t.Errorf("%v, want an error that names the instance", err)
				}
				db.Close()
			})
		})
	}
}
