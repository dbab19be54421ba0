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

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/kv"
	"github.com/freehold-go/freehold/memory"
	"github.com/freehold-go/freehold/saga"
)

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

func open(t *testing.T, disk *memory.Disk) *memory.DB {
	t.Helper()
	types, err := freehold.NewCatalog(freehold.JSON[Begun](), freehold.JSON[Stock](), freehold.JSON[Paid](), freehold.JSON[Cancelled](),
		freehold.JSON[Confirmed](), freehold.JSON[Rejected](), freehold.JSON[Undone]())
	if err != nil {
		t.Fatal(err)
	}
	db, err := memory.Open(t.Context(), "here", types, &memory.Options{Disk: disk})
	if err != nil {
		t.Fatal(err)
	}
	return db
}

type state struct{ Stock, Paid bool }

// checkout confirms when both have answered, and compensates otherwise.
func checkout(t *testing.T, db *memory.DB) *saga.Process[kv.Tx, state] {
	t.Helper()
	settle := func(ctx context.Context, tx kv.Tx, s *saga.Step[state]) error {
		if !s.State.Stock || !s.State.Paid {
			return nil
		}
		s.End()
		_, err := tx.Append(ctx, freehold.Stream("out", s.ID), freehold.NoStream, Confirmed{s.ID})
		return err
	}
	fail := func(ctx context.Context, tx kv.Tx, s *saga.Step[state], why string) error {
		s.End()
		if _, err := tx.Append(ctx, freehold.Stream("out", s.ID), freehold.NoStream, Rejected{s.ID, why}); err != nil {
			return err
		}
		return s.Compensate(ctx, tx)
	}
	undo := func(s *saga.Step[state], what string) {
		s.OnUndo(what, freehold.Write{Stream: freehold.Stream("undo", s.ID), Expect: freehold.Any, Events: []freehold.Event{Undone{what}}})
	}
	p, err := saga.New("checkout", 1, db, []follow.Source{db.Journal()}, &saga.Options{Options: follow.Options{Log: slog.New(slog.DiscardHandler)}},
		saga.Start(func(e Begun) string { return e.ID }, func(_ context.Context, _ kv.Tx, s *saga.Step[state], _ Begun) error {
			s.Deadline("answers", 30*time.Second)
			return nil
		}),
		saga.On(func(e Stock) string { return e.ID }, func(ctx context.Context, tx kv.Tx, s *saga.Step[state], _ Stock) error {
			s.State.Stock = true
			undo(s, "stock")
			return settle(ctx, tx, s)
		}),
		saga.On(func(e Paid) string { return e.ID }, func(ctx context.Context, tx kv.Tx, s *saga.Step[state], _ Paid) error {
			s.State.Paid = true
			undo(s, "payment")
			return settle(ctx, tx, s)
		}),
		saga.On(func(e Cancelled) string { return e.ID }, func(ctx context.Context, tx kv.Tx, s *saga.Step[state], _ Cancelled) error {
			return fail(ctx, tx, s, "cancelled")
		}),
		saga.OnTimeout(func(ctx context.Context, tx kv.Tx, s *saga.Step[state], to saga.Timeout) error {
			return fail(ctx, tx, s, "time-out: "+to.Name)
		}))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func run(t *testing.T, p *saga.Process[kv.Tx, state]) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// happen appends events of the outside to a stream of their own.
func happen(t *testing.T, db *memory.DB, events ...freehold.Event) {
	t.Helper()
	for _, e := range events {
		if _, err := db.Append(t.Context(), freehold.Write{Stream: "in-1", Expect: freehold.Any, Events: []freehold.Event{e}}); err != nil {
			t.Fatal(err)
		}
	}
}

// outcome lists what the process has appended.
func outcome(t *testing.T, db *memory.DB) string {
	t.Helper()
	var all []string
	for _, stream := range []freehold.StreamID{"out-1", "undo-1"} {
		for r, err := range db.Events(t.Context(), stream, 0) {
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

func TestEveryOrderOfArrivalEndsWithNetEffectZeroOrOne(t *testing.T) {
	t.Parallel()
	events := []freehold.Event{Begun{"1"}, Stock{"1"}, Paid{"1"}, Cancelled{"1"}}
	permute(events, func(order []freehold.Event) {
		order = slices.Clone(order)
		t.Run(fmt.Sprint(order), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				db := open(t, memory.NewDisk())
				stop := run(t, checkout(t, db))
				for _, e := range order {
					happen(t, db, e, e) // each twice
					synctest.Wait()
				}
				time.Sleep(time.Minute) // past every deadline
				synctest.Wait()
				stop()
				got := outcome(t, db)
				switch {
				case got == "Confirmed{1}":
				case strings.HasPrefix(got, "Rejected{1 cancelled}"):
					for _, what := range []string{"stock", "payment"} {
						if strings.Count(got, what) > 1 {
							t.Errorf("%s is compensated twice: %s", what, got)
						}
					}
				default:
					t.Errorf("the process ends with %q", got)
				}
				if err := db.Close(); err != nil {
					t.Error(err)
				}
			})
		})
	})
}

func permute(events []freehold.Event, fn func([]freehold.Event)) {
	var rec func(int)
	rec = func(k int) {
		if k == len(events) {
			fn(events)
			return
		}
		for i := k; i < len(events); i++ {
			events[k], events[i] = events[i], events[k]
			rec(k + 1)
			events[k], events[i] = events[i], events[k]
		}
	}
	rec(0)
}

func TestSilentParticipantIsRejectedAtTheDeadline(t *testing.T) {
	t.Parallel()
	for name, restart := range map[string]bool{"running": false, "across a restart": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				disk := memory.NewDisk()
				db := open(t, disk)
				stop := run(t, checkout(t, db))
				happen(t, db, Begun{"1"}, Paid{"1"})
				synctest.Wait()
				time.Sleep(29 * time.Second)
				synctest.Wait()
				if got := outcome(t, db); got != "" {
					t.Fatalf("%q before the deadline", got)
				}
				if restart {
					stop()
					if err := db.Close(); err != nil {
						t.Fatal(err)
					}
					time.Sleep(time.Hour) // down when it is due
					db = open(t, disk)
					stop = run(t, checkout(t, db))
				}
				time.Sleep(2 * time.Second)
				synctest.Wait()
				if got, want := outcome(t, db), "Rejected{1 time-out: answers} Undone{payment}"; got != want {
					t.Errorf("%q, want %q", got, want)
				}
				happen(t, db, Stock{"1"}) // too late: counted only
				synctest.Wait()
				stop()
				if got, want := outcome(t, db), "Rejected{1 time-out: answers} Undone{payment}"; got != want {
					t.Errorf("%q after a late answer, want %q", got, want)
				}
				if err := db.Close(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func TestCompensationsRunInReverseOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		db := open(t, memory.NewDisk())
		p, err := saga.New("undoing", 1, db, []follow.Source{db.Journal()}, nil,
			saga.Start(func(e Begun) string { return e.ID }, func(ctx context.Context, tx kv.Tx, s *saga.Step[state], _ Begun) error {
				for _, what := range []string{"a", "b", "c", "a"} {
					s.OnUndo(what, freehold.Write{Stream: "undo-1", Expect: freehold.Any, Events: []freehold.Event{Undone{what}}})
				}
				if err := s.Compensate(ctx, tx); err != nil {
					return err
				}
				return s.Compensate(ctx, tx)
			}))
		if err != nil {
			t.Fatal(err)
		}
		stop := run(t, p)
		happen(t, db, Begun{"1"})
		synctest.Wait()
		stop()
		if got, want := outcome(t, db), "Undone{a} Undone{c} Undone{b}"; got != want {
			t.Errorf("%q, want %q", got, want)
		}
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
}
