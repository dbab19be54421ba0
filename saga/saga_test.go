package saga_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/kv"
	"github.com/freehold-go/freehold/memory"
	"github.com/freehold-go/freehold/saga"
)

// What participants tell, and what the process decides.
type (
	Begun     struct{ ID string }
	Stock     struct{ ID string }
	Paid      struct{ ID string }
	Cancelled struct{ ID string }
	Confirmed struct{ ID string }
	Rejected  struct{ ID, Why string }
	Undone    struct{ What string }
)

func (Begun) EventType() freehold.Type     { return freehold.T("test.begun", 1) }
func (Stock) EventType() freehold.Type     { return freehold.T("test.stock", 1) }
func (Paid) EventType() freehold.Type      { return freehold.T("test.paid", 1) }
func (Cancelled) EventType() freehold.Type { return freehold.T("test.cancelled", 1) }
func (Confirmed) EventType() freehold.Type { return freehold.T("test.confirmed", 1) }
func (Rejected) EventType() freehold.Type  { return freehold.T("test.rejected", 1) }
func (Undone) EventType() freehold.Type    { return freehold.T("test.undone", 1) }

func (e Begun) id() string     { return e.ID }
func (e Stock) id() string     { return e.ID }
func (e Paid) id() string      { return e.ID }
func (e Cancelled) id() string { return e.ID }

// tester is the part of testing.TB that rapid has too.
type tester interface {
	Helper()
	Fatal(...any)
	Error(...any)
	Errorf(string, ...any)
}

func types(t tester) *freehold.Catalog {
	t.Helper()
	types, err := freehold.NewCatalog(freehold.JSON[Begun](), freehold.JSON[Stock](), freehold.JSON[Paid](), freehold.JSON[Cancelled](),
		freehold.JSON[Confirmed](), freehold.JSON[Rejected](), freehold.JSON[Undone]())
	if err != nil {
		t.Fatal(err)
	}
	return types
}

func open(t tester, disk *memory.Disk) *memory.DB { return openAs(t, "here", disk) }

func openAs(t tester, name freehold.Source, disk *memory.Disk) *memory.DB {
	t.Helper()
	db, err := memory.Open(context.Background(), name, types(t), &memory.Options{Disk: disk})
	if err != nil {
		t.Fatal(err)
	}
	return db
}

// state is the process's memory between its steps.
type state struct{ Stock, Paid bool }

type (
	route   = saga.Route[kv.Tx, state]
	step    = saga.Step[state]
	process = saga.Process[kv.Tx, state]
)

func undo(s *step, what string) {
	s.OnUndo(what, freehold.Write{Stream: freehold.Stream("undo", s.ID), Expect: freehold.Any, Events: []freehold.Event{Undone{what}}})
}

func finish(ctx context.Context, tx kv.Tx, s *step, e freehold.Event) error {
	s.End()
	_, err := tx.Append(ctx, freehold.Stream("out", s.ID), freehold.NoStream, e)
	return err
}

func reject(ctx context.Context, tx kv.Tx, s *step, why string) error {
	if err := finish(ctx, tx, s, Rejected{s.ID, why}); err != nil {
		return err
	}
	return s.Compensate(ctx, tx)
}

// checkout confirms when both participants have agreed, and else compensates.
func checkout() []route {
	settle := func(ctx context.Context, tx kv.Tx, s *step) error {
		if !s.State.Stock || !s.State.Paid {
			return nil
		}
		return finish(ctx, tx, s, Confirmed{s.ID})
	}
	return []route{
		saga.Start(Begun.id, func(_ context.Context, _ kv.Tx, s *step, _ Begun) error {
			s.Deadline("answers", 30*time.Second)
			return nil
		}),
		saga.On(Stock.id, func(ctx context.Context, tx kv.Tx, s *step, _ Stock) error {
			s.State.Stock = true
			undo(s, "stock")
			return settle(ctx, tx, s)
		}),
		saga.On(Paid.id, func(ctx context.Context, tx kv.Tx, s *step, _ Paid) error {
			s.State.Paid = true
			undo(s, "payment")
			return settle(ctx, tx, s)
		}),
		saga.On(Cancelled.id, func(ctx context.Context, tx kv.Tx, s *step, _ Cancelled) error {
			return reject(ctx, tx, s, "cancelled")
		}),
		saga.OnTimeout(func(ctx context.Context, tx kv.Tx, s *step, to saga.Timeout) error {
			return reject(ctx, tx, s, "time-out: "+to.Name)
		}),
	}
}

func quiet(o *saga.Options) *saga.Options {
	if o == nil {
		o = &saga.Options{}
	}
	o.Log = slog.New(slog.DiscardHandler)
	return o
}

// run starts a process on db, which is also its only source.
func run(t tester, db *memory.DB, o *saga.Options, routes ...route) (p *process, stop func()) {
	t.Helper()
	return runVersion(t, db, 1, o, []follow.Source{db.Journal()}, routes...)
}

func runVersion(t tester, db saga.DB[kv.Tx], version int, o *saga.Options, sources []follow.Source, routes ...route) (p *process, stop func()) {
	t.Helper()
	p, err := saga.New("checkout", version, db, sources, quiet(o), routes...)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	return p, func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// happen appends events, each in a transaction of its own.
func happen(t tester, db *memory.DB, events ...freehold.Event) {
	t.Helper()
	for _, e := range events {
		if _, err := db.Append(context.Background(), freehold.Write{Stream: "in-1", Expect: freehold.Any, Events: []freehold.Event{e}}); err != nil {
			t.Fatal(err)
		}
	}
}

// outcome lists what the process has appended for an instance.
func outcome(t tester, db *memory.DB, id string) string {
	t.Helper()
	var all []string
	for _, category := range []string{"out", "undo"} {
		for r, err := range db.Events(context.Background(), freehold.Stream(category, id), 0) {
			if err != nil {
				t.Fatal(err)
			}
			e, err := r.Decode()
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, fmt.Sprintf("%T%v", e, e))
		}
	}
	return strings.ReplaceAll(strings.Join(all, " "), "saga_test.", "")
}

func instance(t tester, p *process, id string) saga.Instance {
	t.Helper()
	i, _, err := p.Instance(context.Background(), id)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// expected is what must come of events that arrive in an order: the process as a
// plain function.
func expected(order []string) (outcome string, late int) {
	var waiting []string
	begun, ended, stock, paid := false, false, false, false
	undone := ""
	end := func(how string) { outcome, ended = how, true }
	answer := func(what string) {
		switch {
		case ended:
			late++
		case what == "stock":
			stock, undone = true, " Undone{stock}"+undone
		case what == "paid":
			paid, undone = true, " Undone{payment}"+undone
		case what == "cancelled":
			end("Rejected{1 cancelled}" + undone)
		}
		if !ended && stock && paid {
			end("Confirmed{1}")
		}
	}
	for _, what := range append(slices.Clone(order), "time-out") {
		switch {
		case what == "time-out" && begun && !ended:
			end("Rejected{1 time-out: answers}" + undone)
		case what == "time-out":
		case what == "begun":
			begun = true
			for _, w := range waiting {
				answer(w)
			}
		case !begun:
			waiting = append(waiting, what)
		default:
			answer(what)
		}
	}
	return outcome, late
}

var told = map[string]freehold.Event{"begun": Begun{"1"}, "stock": Stock{"1"}, "paid": Paid{"1"}, "cancelled": Cancelled{"1"}}

// FIELD rows 13 and 38: every order of arrival of the beginning, both answers, a
// cancel and the deadline ends in net effect 0 or 1, and in the one that the
// order asks for.
func TestEveryOrderOfArrivalEndsWithNetEffectZeroOrOne(t *testing.T) {
	t.Parallel()
	outcomes := map[string]int{}
	permute([]string{"begun", "stock", "paid", "cancelled", "time-out"}, func(order []string) {
		synctest.Test(t, func(t *testing.T) {
			db := open(t, nil)
			p, stop := run(t, db, nil, checkout()...)
			for _, what := range order {
				if e := told[what]; e != nil {
					happen(t, db, e)
				} else {
					time.Sleep(31 * time.Second)
				}
				synctest.Wait()
			}
			time.Sleep(31 * time.Second)
			synctest.Wait()
			want, late := expected(order)
			if got := outcome(t, db, "1"); got != want {
				t.Errorf("%v ends with %q, want %q", order, got, want)
			}
			i := instance(t, p, "1")
			if i.Ended.IsZero() || i.Late != late || p.Pending() != 0 {
				t.Errorf("%v leaves %+v and %d deadlines, want %d late", order, i, p.Pending(), late)
			}
			outcomes[want]++
			stop()
			db.Close()
		})
	})
	if len(outcomes) != 7 { // the run must have done enough
		t.Errorf("only these outcomes: %v", outcomes)
	}
}

// The same with everything told twice: redelivery changes nothing (FIELD row 18).
func TestEverythingToldTwiceChangesNothing(t *testing.T) {
	t.Parallel()
	permute([]string{"begun", "stock", "paid", "cancelled"}, func(order []string) {
		synctest.Test(t, func(t *testing.T) {
			db := open(t, nil)
			_, stop := run(t, db, nil, checkout()...)
			for _, what := range order {
				happen(t, db, told[what], told[what])
				synctest.Wait()
			}
			want, _ := expected(order)
			if got := outcome(t, db, "1"); got != want {
				t.Errorf("%v ends with %q, want %q", order, got, want)
			}
			stop()
			db.Close()
		})
	})
}

func permute(items []string, fn func([]string)) {
	var rec func(int)
	rec = func(k int) {
		if k == len(items) {
			fn(slices.Clone(items))
			return
		}
		for i := k; i < len(items); i++ {
			items[k], items[i] = items[i], items[k]
			rec(k + 1)
			items[k], items[i] = items[i], items[k]
		}
	}
	rec(0)
}

func TestCompensationsRunInReverseOrderEachOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		db := open(t, nil)
		defer db.Close()
		p, stop := run(t, db, nil,
			saga.Start(Begun.id, func(_ context.Context, _ kv.Tx, s *step, _ Begun) error {
				for _, what := range []string{"a", "b", "c", "a"} {
					undo(s, what)
				}
				return nil
			}),
			saga.On(Cancelled.id, func(ctx context.Context, tx kv.Tx, s *step, _ Cancelled) error {
				if err := s.Compensate(ctx, tx); err != nil {
					return err
				}
				return s.Compensate(ctx, tx)
			}))
		happen(t, db, Begun{"1"})
		synctest.Wait()
		if got, want := instance(t, p, "1").Undo, []string{"b", "c", "a"}; !cmp.Equal(got, want) {
			t.Errorf("registered %v, want %v", got, want)
		}
		happen(t, db, Cancelled{"1"}, Cancelled{"1"})
		synctest.Wait()
		stop()
		if got, want := outcome(t, db, "1"), "Undone{a} Undone{c} Undone{b}"; got != want {
			t.Errorf("%q, want %q", got, want)
		}
	})
}

func TestLateAnswersAreCountedAndNotActedOn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		db := open(t, nil)
		defer db.Close()
		p, stop := run(t, db, nil, checkout()...)
		happen(t, db, Begun{"1"}, Cancelled{"1"}, Stock{"1"}, Paid{"1"}, Begun{"1"})
		synctest.Wait()
		time.Sleep(time.Minute)
		synctest.Wait()
		stop()
		if got, want := outcome(t, db, "1"), "Rejected{1 cancelled}"; got != want {
			t.Errorf("%q, want %q", got, want)
		}
		i := instance(t, p, "1")
		if i.Late != 2 || !strings.HasPrefix(i.LastLate, "test.paid here:") {
			t.Errorf("%+v, want 2 late, the last test.paid", i)
		}
	})
}

// What the process causes, by an event or by a deadline, belongs to the
// conversation of its beginning.
func TestEventsOfAProcessBelongToItsConversation(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		db := open(t, nil)
		defer db.Close()
		_, stop := run(t, db, nil, checkout()...)
		ctx := freehold.WithMeta(t.Context(), freehold.Meta{Correlation: "talk", Tenant: "shop"})
		if _, err := db.Append(ctx, freehold.Write{Stream: "in-1", Expect: freehold.Any, Events: []freehold.Event{Begun{"1"}}}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		stop()
		for r, err := range db.Events(t.Context(), "out-1", 0) {
			if err != nil || r.Meta.Correlation != "talk" || r.Meta.Tenant != "shop" {
				t.Errorf("%+v, %v", r.Meta, err)
			}
		}
		if got := outcome(t, db, "1"); got != "Rejected{1 time-out: answers}" {
			t.Error(got)
		}
	})
}

// G7: an event that fails is held with every later one of its instance, and other
// instances go on.
func TestFailingInstanceHoldsUpNoOther(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		db := open(t, nil)
		defer db.Close()
		broken := true
		routes := checkout()
		routes[1] = saga.On(Stock.id, func(_ context.Context, _ kv.Tx, s *step, e Stock) error {
			if broken && e.ID == "1" {
				panic("no")
			}
			s.State.Stock = true
			return nil
		})
		p, stop := run(t, db, nil, routes...)
		for _, id := range []string{"1", "2"} {
			happen(t, db, Begun{id}, Stock{id}, Paid{id})
		}
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if got := outcome(t, db, "2"); got != "Confirmed{2}" {
			t.Errorf("the other instance: %q", got)
		}
		parked, err := p.Parked(t.Context(), 10)
		if err != nil || len(parked) != 2 || parked[0].Key != "1" || parked[1].Key != "1" {
			t.Fatalf("parked %+v, %v, want two events of instance 1", parked, err)
		}
		broken = false
		if err := p.Retry(t.Context(), "here", "1"); err != nil {
			t.Error(err)
		}
		stop()
		if got := outcome(t, db, "1"); got != "Confirmed{1}" {
			t.Errorf("after the retry: %q", got)
		}
	})
}

// A start reads live instances only, so an instance leaves nothing among them.
func TestEndedInstanceIsNotAmongTheLiveOnes(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		db := open(t, nil)
		defer db.Close()
		_, stop := run(t, db, nil, checkout()...)
		for i := range 100 {
			id := fmt.Sprint(i)
			happen(t, db, Begun{id}, Stock{id})
			if i < 98 {
				happen(t, db, Paid{id})
			}
		}
		synctest.Wait()
		stop()
		live := 0
		err := db.View(t.Context(), func(ctx context.Context, tx kv.Tx) error {
			for item, err := range db.Keeper(tx).Scan(ctx, "saga/checkout", "") {
				if live++; err != nil || len(item.Value) > 350 {
					t.Errorf("%s: %d bytes: %s, %v", item.Key, len(item.Value), item.Value, err)
				}
			}
			return nil
		})
		if err != nil || live != 2 {
			t.Errorf("%d live, %v, want 2", live, err)
		}
	})
}

func TestWrongDefinitionsAreRefused(t *testing.T) {
	t.Parallel()
	db := open(t, nil)
	t.Cleanup(func() { db.Close() })
	all := checkout()
	start, on, timeout := all[0], all[1], all[4]
	for name, c := range map[string]struct {
		version int
		routes  []route
	}{
		"no start":               {1, []route{on}},
		"version 0":              {0, []route{start}},
		"two routes for a type":  {1, []route{start, on, on}},
		"two for deadlines":      {1, []route{start, timeout, timeout}},
		"old as new":             {2, []route{start, saga.Old[state](2, start)}},
		"old given twice":        {3, []route{start, saga.Old[state](1, start), saga.Old[state](1, start)}},
		"old with two routes":    {2, []route{start, saga.Old[state](1, start, on, on)}},
		"old of version 0":       {2, []route{start, saga.Old[state](0, start)}},
		"type in no catalog":     {1, []route{start, saga.On(func(elsewhere) string { return "" }, func(context.Context, kv.Tx, *step, elsewhere) error { return nil })}},
		"only an old definition": {2, []route{saga.Old[state](1, start)}},
	} {
		if _, err := saga.New("checkout", c.version, db, []follow.Source{db.Journal()}, nil, c.routes...); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

type elsewhere struct{}

func (elsewhere) EventType() freehold.Type { return freehold.T("test.elsewhere", 1) }
