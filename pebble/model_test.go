package pebble_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/journal/journaltest"
	"github.com/freehold-go/freehold/kv"
	"github.com/freehold-go/freehold/memory"
	"github.com/freehold-go/freehold/pebble"
)

// step is one use of a transaction; it returns what can be seen of the outcome.
type step func(ctx context.Context, tx kv.Tx, k follow.Keeper) string

func drawStep(t *rapid.T) step {
	key := rapid.StringMatching(`[ab]/?[a-c\xff]{0,2}`).Filter(func(s string) bool { return s != "" }).Draw(t, "key")
	value := []byte(rapid.StringN(0, 8, -1).Draw(t, "value"))
	items := func(seq func(yield func(kv.Item, error) bool)) string {
		var b strings.Builder
		for item, err := range seq {
			fmt.Fprintf(&b, "%q=%q,%v ", item.Key, item.Value, err)
		}
		return b.String()
	}
	switch rapid.IntRange(0, 10).Draw(t, "step") {
	case 0, 1:
		return func(ctx context.Context, tx kv.Tx, _ follow.Keeper) string {
			return fmt.Sprint(tx.Put(ctx, key, value))
		}
	case 2:
		return func(ctx context.Context, tx kv.Tx, _ follow.Keeper) string { return fmt.Sprint(tx.Delete(ctx, key)) }
	case 3:
		return func(ctx context.Context, tx kv.Tx, _ follow.Keeper) string {
			v, found, err := tx.Get(ctx, key)
			return fmt.Sprintf("%q %v %v", v, found, err)
		}
	case 4:
		from := rapid.StringMatching(`[ab]?/?[a-c]?`).Draw(t, "from")
		return func(ctx context.Context, tx kv.Tx, _ follow.Keeper) string { return items(tx.Scan(ctx, key[:1], from)) }
	case 5:
		delta := rapid.Int64Range(-5, 5).Draw(t, "delta")
		return func(ctx context.Context, tx kv.Tx, _ follow.Keeper) string {
			n, err := tx.Add(ctx, "n"+key[:1], delta, -3)
			return fmt.Sprint(n, errors.Is(err, kv.ErrBound))
		}
	case 6:
		stream := freehold.Stream("s", key[:1])
		expect := rapid.SampledFrom([]freehold.Expect{freehold.NoStream, freehold.Any, freehold.Exists, freehold.At(1), freehold.At(2)}).Draw(t, "expect")
		n := rapid.IntRange(0, 3).Draw(t, "events")
		return func(ctx context.Context, tx kv.Tx, _ follow.Keeper) string {
			v, err := tx.Append(ctx, stream, expect, make([]freehold.Event, 0)...)
			for i := range n {
				v, err = tx.Append(ctx, stream, expect, journaltest.Happened{N: i})
			}
			return fmt.Sprint(v, err)
		}
	case 7:
		return func(ctx context.Context, tx kv.Tx, _ follow.Keeper) string {
			var b strings.Builder
			for r, err := range tx.Events(ctx, freehold.Stream("s", key[:1]), 1) {
				fmt.Fprintf(&b, "%d %s %v ", r.Version, r.Raw, err)
			}
			return b.String()
		}
	case 8:
		return func(ctx context.Context, _ kv.Tx, k follow.Keeper) string {
			return fmt.Sprint(k.Put(ctx, "space", key, value))
		}
	case 9:
		return func(ctx context.Context, _ kv.Tx, k follow.Keeper) string {
			return items(k.Scan(ctx, "space", key[:1]))
		}
	default:
		from, to := rapid.Int64Range(0, 2).Draw(t, "from mark"), rapid.Int64Range(1, 3).Draw(t, "to mark")
		return func(ctx context.Context, _ kv.Tx, k follow.Keeper) string {
			mark := func(n int64) freehold.Mark {
				if n == 0 {
					return freehold.Mark{Source: "there"}
				}
				return freehold.Mark{Source: "there", Epoch: "e", Position: freehold.Position(n), Chain: freehold.Hash{byte(n)}}
			}
			err := k.Move(ctx, key[:1], mark(from), mark(to))
			all, err2 := k.Marks(ctx)
			return fmt.Sprint(errors.Is(err, freehold.ErrFenced), all, err2)
		}
	}
}

var errDecided = errors.New("rolled back on purpose")

// TestBehavesAsMemory runs the same transactions on Pebble and on the reference
// engine, some rolled back, and compares all that the closures see.
func TestBehavesAsMemory(t *testing.T) {
	t.Parallel()
	types := journaltest.Types(t)
	n := 0
	rapid.Check(t, func(rt *rapid.T) {
		n++
		_, files := newGate()
		db := openOn(t, files, pebble.Options{Disposable: n%2 == 0})
		defer db.Close()
		reference, err := memory.Open(t.Context(), "test", types, nil)
		if err != nil {
			rt.Fatal(err)
		}
		defer reference.Close()
		for range rapid.IntRange(1, 12).Draw(rt, "transactions") {
			var steps []step
			for range rapid.IntRange(1, 8).Draw(rt, "steps") {
				steps = append(steps, drawStep(rt))
			}
			var fail error
			if rapid.IntRange(0, 4).Draw(rt, "fails") == 0 {
				fail = errDecided
			}
			run := func(d follow.DB[kv.Tx]) (seen []string) {
				_, err := d.Update(t.Context(), func(ctx context.Context, tx kv.Tx) error {
					for _, s := range steps {
						seen = append(seen, s(ctx, tx, d.Keeper(tx)))
					}
					return fail
				})
				if !errors.Is(err, fail) {
					rt.Fatal(err)
				}
				err = d.View(t.Context(), func(ctx context.Context, tx kv.Tx) error {
					seen = append(seen, fmt.Sprint("mark ", tx.Mark().Position))
					for item, err := range tx.Scan(ctx, "", "") {
						seen = append(seen, fmt.Sprintf("%q=%q,%v", item.Key, item.Value, err))
					}
					return nil
				})
				if err != nil {
					rt.Fatal(err)
				}
				return seen
			}
			if diff := cmp.Diff(run(reference), run(db)); diff != "" {
				rt.Fatalf("memory and Pebble differ (-memory +pebble):\n%s", diff)
			}
		}
	})
}
