package follow_test

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
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
