package follow_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/kv"
	"github.com/freehold-go/freehold/memory"
)

// fragile panics on the text "poison", as a function does that looks into an event for
// what is not there.
func fragile(r freehold.Recorded) string {
	if e, err := r.Decode(); err == nil && e.(Noted).Text == "poison" {
		panic("no lines")
	}
	return "key of " + string(r.Stream)
}

// TestAKeyThatPanicsHoldsItsEventOnly has the function of keys panic on an event that its
// handler cannot take either.
func TestAKeyThatPanicsHoldsItsEventOnly(t *testing.T) {
	t.Parallel()
	for _, lanes := range []int{1, 4} {
		t.Run(fmt.Sprintf("in %d lanes", lanes), func(t *testing.T) {
			t.Parallel()
			db, source := open(t), open(t)
			opts := inLanes(lanes)
			opts.Key = fragile
			fails := follow.On(func(ctx context.Context, tx kv.Tx, e Noted, r freehold.Recorded) error {
				_ = fragile(r)
				return notes(ctx, tx, e, r)
			})
			f, err := follow.New("f", db, []follow.Source{source.Journal()}, opts, fails)
			if err != nil {
				t.Fatal(err)
			}
			run(t, f)
			ctx := patient(t)
			say := func(texts ...string) {
				t.Helper()
				for i, text := range texts {
					appendNotes(t, source, fmt.Sprintf("n-%d", i), text)
				}
				_, head, err := source.Journal().Bounds(ctx)
				if err != nil {
					t.Fatal(err)
				}
				if err := f.WaitFor(ctx, freehold.NewToken(head)); err != nil {
					t.Fatal(err)
				}
			}
			say("1", "1", "1", "1")
			say("2", "poison", "2", "2")
			say("3")
			for stream, want := range map[string]string{"n-0": "1;2;3;", "n-1": "1;", "n-2": "1;2;", "n-3": "1;2;"} {
				if got := read(t, db, "note/"+stream); got != want {
					t.Errorf("%s is %q, want %q", stream, got, want)
				}
			}
			if parked := mustParked(t, f); len(parked) != 1 || parked[0].Key != "n-1" {
				t.Errorf("parked: %+v, want the event, under its stream", parked)
			}
			if err := f.Release(ctx, "here", "n-1"); err != nil {
				t.Error(err)
			}
		})
	}
}

// warmed is a database whose transactions have a use for hints.
type warmed struct{ *memory.DB }

type warmTx struct{ kv.Tx }

func (warmTx) Warm(context.Context, follow.Hints) error { return nil }

func (db warmed) Update(ctx context.Context, fn func(context.Context, kv.Tx) error) (freehold.Token, error) {
	return db.DB.Update(ctx, func(ctx context.Context, tx kv.Tx) error { return fn(ctx, warmTx{tx}) })
}

func (db warmed) Keeper(tx kv.Tx) follow.Keeper {
	if w, ok := tx.(warmTx); ok {
		tx = w.Tx
	}
	return db.DB.Keeper(tx)
}

// TestHintsThatPanicParkTheirEvent has Warm panic on an event.
func TestHintsThatPanicParkTheirEvent(t *testing.T) {
	t.Parallel()
	db := open(t)
	opts := quiet()
	opts.Warm = func(rs []freehold.Recorded) (h follow.Hints) {
		for _, r := range rs {
			h.Locks = append(h.Locks, fragile(r))
		}
		return h
	}
	s := script(t, []freehold.Write{note("n-a", "1"), note("n-b", "poison"), note("n-a", "2")})
	f, err := follow.New("f", warmed{db}, []follow.Source{s}, opts, follow.On(notes))
	if err != nil {
		t.Fatal(err)
	}
	run(t, f)
	if err := f.WaitFor(patient(t), s.Token()); err != nil {
		t.Fatal(err)
	}
	if got := read(t, db, "note/n-a"); got != "1;2;" {
		t.Errorf("n-a is %q, want both of its events", got)
	}
	if parked := mustParked(t, f); len(parked) != 1 || parked[0].Key != "n-b" || !strings.Contains(parked[0].Error, "no lines") {
		t.Errorf("parked: %+v, want the event that has no hints", parked)
	}
}

// TestAQueueWaitsForWhatStandsBeforeItInItsStream parks a key, then an event of a stream whose
// key cannot be told, and then one of that stream with the first key: it may not be applied
// before the one that stands before it.
func TestAQueueWaitsForWhatStandsBeforeItInItsStream(t *testing.T) {
	t.Parallel()
	db := open(t)
	var healed atomic.Bool
	opts := quiet()
	opts.Key = func(r freehold.Recorded) string {
		if e, err := r.Decode(); err == nil && e.(Noted).Text == "no key" {
			panic("no lines")
		}
		return "x"
	}
	s := script(t, []freehold.Write{note("n-a", "poison"), note("n-b", "no key"), note("n-b", "2")})
	f := start(t, db, s, opts, follow.On(func(ctx context.Context, tx kv.Tx, e Noted, r freehold.Recorded) error {
		if e.Text != "2" && !healed.Load() {
			return errors.New("cannot take this")
		}
		return notes(ctx, tx, e, r)
	}))
	ctx := patient(t)
	if err := f.WaitFor(ctx, s.Token()); !errors.Is(err, follow.ErrParked) {
		t.Fatal(err)
	}
	healed.Store(true)
	if err := f.Retry(ctx, s.Name(), "x"); err == nil || !strings.Contains(err.Error(), "under key n-b: retry or release that one first") {
		t.Errorf("%v, want a refusal that names the other key", err)
	}
	if got := read(t, db, "note/n-a") + read(t, db, "note/n-b"); got != "poison;" {
		t.Errorf("applied %q, want the first of the key", got)
	}
	for _, key := range []string{"n-b", "x"} {
		if err := f.Retry(ctx, s.Name(), key); err != nil {
			t.Errorf("%s: %v", key, err)
		}
	}
	if got := read(t, db, "note/n-b"); got != "no key;2;" {
		t.Errorf("applied %q, not in the order of the stream", got)
	}
}
