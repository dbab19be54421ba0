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

// TestAnyTextIsAKey parks under keys that are easily taken for something else, or that
// an engine cannot keep as they are, across a restart, and retries them one by one.
func TestAnyTextIsAKey(t *testing.T) {
	t.Parallel()
	keys := map[freehold.StreamID]string{
		"n-none": "", "n-one": "k", "n-joined": "k\x1fx", "n-ends": "k\x1f", "n-begins": "\x1f",
		"n-nul": "k\x00x", "n-bytes": "k\xff", "n-long": strings.Repeat("ä", 5000), "n-longer": strings.Repeat("ä", 5001),
	}
	db := open(t)
	there, err := memory.Open(t.Context(), "there", types(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { there.Close() })
	write := func(texts ...string) (tok freehold.Token) {
		t.Helper()
		for stream := range keys {
			for _, text := range texts {
				if _, err = there.Append(t.Context(), note(string(stream), text)); err != nil {
					t.Fatal(err)
				}
			}
		}
		if tok, err = there.Append(t.Context(), note("n-free", "1")); err != nil {
			t.Fatal(err)
		}
		return tok
	}
	opts := quiet()
	opts.Key = func(r freehold.Recorded) string {
		if key, ok := keys[r.Stream]; ok {
			return key
		}
		return string(r.Stream)
	}
	var healed atomic.Bool
	ctx := patient(t)
	before, err := follow.New("f", db, []follow.Source{there.Journal()}, opts, poisoned(&healed))
	if err != nil {
		t.Fatal(err)
	}
	stop := run(t, before)
	if err := before.WaitFor(ctx, write("poison", "2")); err != nil {
		t.Fatal(err)
	}
	stop()
	healed.Store(true)
	f := start(t, db, there.Journal(), opts, poisoned(&healed))
	if err := f.WaitFor(ctx, write("3")); err != nil {
		t.Fatal(err)
	}
	for stream, key := range keys {
		if got := read(t, db, "note/"+string(stream)); got != "" {
			t.Errorf("%s is %q before its retry", stream, got)
		}
		if err := f.Retry(ctx, "there", key); err != nil {
			t.Errorf("retry of %.20q: %v", key, err)
		}
		if got, want := read(t, db, "note/"+string(stream)), "poison;2;3;"; got != want {
			t.Errorf("%s is %q, want %q", stream, got, want)
		}
	}
	if left, err := f.Parked(ctx, 100); err != nil || len(left) > 0 {
		t.Errorf("%d events are parked still, %v", len(left), err)
	}
}

// TestATokenNamesItsWholeTransaction parks the first event of a command, whose token names
// the last one: nobody may read as if the first one had been applied.
func TestATokenNamesItsWholeTransaction(t *testing.T) {
	t.Parallel()
	for _, lanes := range []int{1, 4} {
		t.Run(fmt.Sprintf("in %d lanes", lanes), func(t *testing.T) {
			t.Parallel()
			db, source := open(t), open(t)
			command := func(events ...freehold.Event) freehold.Token {
				t.Helper()
				tok, err := source.Append(t.Context(), freehold.Write{Stream: "n-a", Expect: freehold.Any, Events: events})
				if err != nil {
					t.Fatal(err)
				}
				return tok
			}
			ctx := patient(t)
			f := start(t, db, source.Journal(), inLanes(lanes), poisoned(new(atomic.Bool)))
			before := command(Noted{"1"}, Other{})
			if err := f.WaitFor(ctx, before); err != nil {
				t.Fatal(err)
			}
			failed := command(Noted{"poison"}, Other{}, Other{})
			if err := f.WaitFor(ctx, failed); !errors.Is(err, follow.ErrParked) {
				t.Errorf("its first event is parked: %v, want ErrParked", err)
			}
			queued := command(Noted{"2"}, Other{})
			if err := f.WaitFor(ctx, queued); !errors.Is(err, follow.ErrParked) {
				t.Errorf("its first event waits behind a parked one: %v, want ErrParked", err)
			}
			behind := command(Other{}, Other{})
			for name, tok := range map[string]freehold.Token{"before": before, "behind": behind} {
				if err := f.WaitFor(ctx, tok); err != nil {
					t.Errorf("the command %s has no part of it: %v", name, err)
				}
			}
			if err := f.Release(ctx, "here", "n-a"); err != nil {
				t.Fatal(err)
			}
			if err := f.WaitFor(ctx, failed); err != nil {
				t.Errorf("given up: %v", err)
			}
		})
	}
}

// unsure is a database that does not tell the outcome of its next update: it is done, or
// rolled back.
type unsure struct {
	*memory.DB
	next atomic.Pointer[string]
}

func (u *unsure) Update(ctx context.Context, fn func(context.Context, kv.Tx) error) (freehold.Token, error) {
	fate := u.next.Swap(nil)
	if fate == nil {
		return u.DB.Update(ctx, fn)
	}
	errUndone := errors.New("rolled back on purpose")
	_, err := u.DB.Update(ctx, func(ctx context.Context, tx kv.Tx) error {
		if err := fn(ctx, tx); err != nil || *fate == "done" {
			return err
		}
		return errUndone
	})
	if err == nil || errors.Is(err, errUndone) {
		err = freehold.ErrUnknown
	}
	return freehold.Token{}, err
}

// TestAReleaseWithoutAnOutcomeIsLookedUp: the key is parked or free as the database has
// it, and what comes next is applied or set aside accordingly.
func TestAReleaseWithoutAnOutcomeIsLookedUp(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		fate    string
		release bool // the event is given up
		want    string
		parked  int // when the next event has come
	}{
		{"done", false, "poison;2;", 0},
		{"done", true, "2;", 0},
		{"undone", false, "", 2},
		{"undone", true, "", 2},
	} {
		t.Run(fmt.Sprintf("%s, given up: %v", c.fate, c.release), func(t *testing.T) {
			t.Parallel()
			ctx := patient(t)
			there, err := memory.Open(ctx, "there", types(t), nil)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { there.Close() })
			db := &unsure{DB: open(t)}
			var healed atomic.Bool
			f, err := follow.New("f", db, []follow.Source{there.Journal()}, quiet(), poisoned(&healed))
			if err != nil {
				t.Fatal(err)
			}
			run(t, f)
			say := func(text string) (freehold.Token, error) { return there.Append(ctx, note("n-1", text)) }
			tok, err := say("poison")
			if err == nil {
				err = f.WaitFor(ctx, tok)
			}
			if !errors.Is(err, follow.ErrParked) {
				t.Fatal(err)
			}
			healed.Store(true)
			let := f.Retry
			if c.release {
				let = f.Release
			}
			db.next.Store(&c.fate)
			if err := let(ctx, "there", "n-1"); !errors.Is(err, freehold.ErrUnknown) || strings.Contains(err.Error(), "still parked") {
				t.Errorf("%v, want ErrUnknown, and nothing that is not known", err)
			}
			if tok, err = say("2"); err == nil {
				err = f.WaitFor(ctx, tok)
			}
			if err != nil && !(c.parked > 0 && errors.Is(err, follow.ErrParked)) {
				t.Errorf("wait for the next event: %v", err)
			}
			if got := read(t, db.DB, "note/n-1"); got != c.want {
				t.Errorf("applied %q, want %q", got, c.want)
			}
			if parked := mustParked(t, f); len(parked) != c.parked {
				t.Errorf("%d events are parked, want %d", len(parked), c.parked)
			}
			if err := f.Retry(ctx, "there", "n-1"); c.parked > 0 && err != nil || c.parked == 0 && !errors.Is(err, follow.ErrNotParked) {
				t.Errorf("retry: %v", err)
			}
			if got := read(t, db.DB, "note/n-1"); c.parked > 0 && got != "poison;2;" {
				t.Errorf("retried: %q", got)
			}
		})
	}
}
