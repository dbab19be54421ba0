package journaltest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
)

// keep runs fn with the keeper of an Update that ends with an error or nil.
func keep[T freehold.Tx](t *testing.T, db DB[T], fail error, fn func(ctx context.Context, k follow.Keeper) error) {
	t.Helper()
	_, err := db.Update(t.Context(), func(ctx context.Context, tx T) error {
		if err := fn(ctx, db.Keeper(tx)); err != nil {
			return err
		}
		return fail
	})
	if !errors.Is(err, fail) {
		t.Errorf("error %v, want %v", err, fail)
	}
}

func (s suite[T]) marks(t *testing.T, db DB[T]) {
	a, b := there(1), there(2)
	forged, otherEpoch := b, b
	forged.Chain = freehold.Hash{3}
	otherEpoch.Epoch = "f"
	zero := freehold.Mark{Source: "there"}
	move := func(follower string, from, to freehold.Mark) error {
		_, err := db.Update(t.Context(), func(ctx context.Context, tx T) error { return db.Keeper(tx).Move(ctx, follower, from, to) })
		return err
	}
	for i, step := range []struct {
		from, to freehold.Mark
		fenced   bool
	}{{a, b, true}, {zero, a, false}, {zero, a, true}, {zero, b, true}, {a, b, false}, {a, b, true}, {forged, a, true}, {otherEpoch, a, true}, {b, b, false}, {b, a, false}} {
		if err := move("f", step.from, step.to); errors.Is(err, freehold.ErrFenced) != step.fenced || err != nil && !step.fenced {
			t.Errorf("step %d, from %v to %v: %v, want fenced %v", i, step.from, step.to, err, step.fenced)
		}
	}
	// A follower has a place in each source, and each follower its own.
	elsewhere := freehold.Mark{Source: "elsewhere", Epoch: "e", Position: 9, Chain: freehold.Hash{9}}
	if err := errors.Join(move("f", freehold.Mark{Source: "elsewhere"}, elsewhere), move("f2", zero, b), move("e", zero, b)); err != nil {
		t.Error(err)
	}
	err := db.View(t.Context(), func(ctx context.Context, tx T) error {
		k := db.Keeper(tx)
		if m, err := k.Mark(ctx, "f", "there"); m != a || err != nil {
			t.Errorf("mark %v, %v, want %v", m, err, a)
		}
		if m, err := k.Mark(ctx, "other", "there"); m != zero || err != nil {
			t.Errorf("mark of another follower %v, %v", m, err)
		}
		want := []follow.Place{{Follower: "e", Mark: b}, {Follower: "f", Mark: elsewhere}, {Follower: "f", Mark: a}, {Follower: "f2", Mark: b}}
		if all, err := k.Marks(ctx); err != nil || !slices.Equal(all, want) {
			t.Errorf("marks %v, %v, want %v", all, err, want)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	// A move is seen by its own transaction.
	keep(t, db, nil, func(ctx context.Context, k follow.Keeper) error {
		if err := k.Move(ctx, "f", a, b); err != nil {
			return err
		}
		if err := k.Move(ctx, "f", a, b); !errors.Is(err, freehold.ErrFenced) {
			t.Errorf("the same move again: %v, want ErrFenced", err)
		}
		m, err := k.Mark(ctx, "f", "there")
		if m != b {
			t.Errorf("mark %v, want %v", m, b)
		}
		return err
	})
}

func (s suite[T]) racingMoves(t *testing.T, db DB[T]) {
	for round := range 5 {
		var all sync.WaitGroup
		var mu sync.Mutex
		won := 0
		for i := range 16 {
			all.Go(func() {
				_, err := db.Update(t.Context(), func(ctx context.Context, tx T) error {
					if err := db.Keeper(tx).Move(ctx, "f", there(round), there(round+1)); err != nil {
						return err
					}
					_, err := tx.Append(ctx, "a-1", freehold.Any, happened(i)) // the effect beside the mark
					return err
				})
				switch {
				case err == nil:
					mu.Lock()
					defer mu.Unlock()
					won++
				case !errors.Is(err, freehold.ErrFenced):
					t.Errorf("error %v, want ErrFenced", err)
				}
			})
		}
		all.Wait()
		if won != 1 {
			t.Errorf("%d of 16 moved the mark, want 1", won)
		}
	}
	if got := len(readAll(t, db, 10)); got != 5 {
		t.Errorf("%d effects, want 5", got)
	}
}

func (s suite[T]) keeps(t *testing.T, db DB[T]) {
	keys := []string{"", "a", "a\x1e", "a\x1fb", "a b", "b'\"%_", "ü", "z\U0001F600"}
	slices.Sort(keys)
	spaces := []string{"s", "s/t", "s2", "S", "s'\"%_"}
	scan := func(ctx context.Context, k follow.Keeper, space, from string) []string {
		var got []string
		for item, err := range k.Scan(ctx, space, from) {
			if err != nil {
				t.Error(err)
				break
			}
			if want := space + "=" + item.Key; string(item.Value) != want {
				t.Errorf("scan of %q gives %q the value %q", space, item.Key, item.Value)
			}
			got = append(got, item.Key)
		}
		return got
	}
	look := func(ctx context.Context, k follow.Keeper) error {
		for _, space := range spaces {
			for i, key := range keys {
				if v, found, err := k.Get(ctx, space, key); string(v) != space+"="+key || !found || err != nil {
					t.Errorf("get %q %q: %q %v %v", space, key, v, found, err)
				}
				if got := scan(ctx, k, space, key); !slices.Equal(got, keys[i:]) {
					t.Errorf("scan of %q from %q gives %q, want %q", space, key, got, keys[i:])
				}
			}
			if got := scan(ctx, k, space, "aa"); !slices.Equal(got, keys[slices.Index(keys, "b'\"%_"):]) {
				t.Errorf("scan of %q from aa gives %q", space, got)
			}
		}
		return nil
	}
	keep(t, db, nil, func(ctx context.Context, k follow.Keeper) error {
		for _, space := range spaces {
			for _, key := range keys {
				if err := errors.Join(k.Put(ctx, space, key, []byte("old")), k.Put(ctx, space, key, []byte(space+"="+key))); err != nil {
					return fmt.Errorf("space %q, key %q: %w", space, key, err)
				}
			}
		}
		return look(ctx, k)
	})
	if err := db.View(t.Context(), func(ctx context.Context, tx T) error { return look(ctx, db.Keeper(tx)) }); err != nil {
		t.Error(err)
	}
	// Empty values are there, long ones come back, deleted ones are gone.
	long := make([]byte, 200_000)
	for i := range long {
		long[i] = byte(i * 7)
	}
	keep(t, db, nil, func(ctx context.Context, k follow.Keeper) error {
		return errors.Join(k.Put(ctx, "e", "nil", nil), k.Put(ctx, "e", "empty", []byte{}), k.Put(ctx, "e", "long", long),
			k.Delete(ctx, "e", "never"), k.Delete(ctx, "s", "a"), k.Put(ctx, "e", "again", []byte("1")), k.Delete(ctx, "e", "again"))
	})
	keep(t, db, nil, func(ctx context.Context, k follow.Keeper) error {
		for key, want := range map[string][]byte{"nil": {}, "empty": {}, "long": long} {
			if v, found, err := k.Get(ctx, "e", key); !slices.Equal(v, want) || !found || err != nil {
				t.Errorf("%s: %d bytes, %v, %v, want %d bytes", key, len(v), found, err, len(want))
			}
		}
		for space, key := range map[string]string{"e": "again", "s": "a", "nowhere": "x"} {
			if v, found, err := k.Get(ctx, space, key); found || err != nil {
				t.Errorf("%s %s: %q is there, %v", space, key, v, err)
			}
		}
		if got := scan(ctx, k, "s", "a"); len(got) == 0 || got[0] != "a\x1e" {
			t.Errorf("scan behind a deleted key gives %q", got)
		}
		return k.Put(ctx, "s", "a", []byte("s=a")) // and may come back
	})
	keep(t, db, nil, func(ctx context.Context, k follow.Keeper) error {
		for i := range 600 {
			if err := k.Put(ctx, "many", fmt.Sprintf("%04d", i), fmt.Appendf(nil, "many=%04d", i)); err != nil {
				return err
			}
		}
		if got := len(scan(ctx, k, "many", "0100")); got != 500 {
			t.Errorf("scan gives %d items, want 500", got)
		}
		return look(ctx, k)
	})
	err := db.View(t.Context(), func(ctx context.Context, tx T) error { // what is stored may be read in pages
		for _, from := range []int{0, 88, 89, 344, 345} { // also where pages of 256 end with the space
			got := scan(ctx, db.Keeper(tx), "many", fmt.Sprintf("%04d", from))
			if want := 600 - from; len(got) != want || !slices.IsSorted(got) || len(slices.Compact(got)) != want {
				t.Errorf("scan of what is stored from %d gives %d items, want %d in order", from, len(got), want)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func (s suite[T]) keepsRollBack(t *testing.T, db DB[T]) {
	keep(t, db, nil, func(ctx context.Context, k follow.Keeper) error {
		return errors.Join(k.Put(ctx, "s", "a", []byte("1")), k.Move(ctx, "f", there(0), there(1)))
	})
	undone := func(ctx context.Context, k follow.Keeper) error {
		return errors.Join(k.Put(ctx, "s", "a", []byte("2")), k.Put(ctx, "s", "b", nil), k.Move(ctx, "f", there(1), there(2)), k.Move(ctx, "g", there(0), there(1)))
	}
	// Beside neighbours that succeed, so that it happens inside groups.
	var all sync.WaitGroup
	for i := range 16 {
		all.Go(func() { keep(t, db, errNo, undone) })
		all.Go(func() {
			keep(t, db, nil, func(ctx context.Context, k follow.Keeper) error { return k.Put(ctx, "n", strconv.Itoa(i), nil) })
		})
	}
	all.Wait()
	keep(t, db, errNo, func(ctx context.Context, k follow.Keeper) error {
		return errors.Join(k.Delete(ctx, "s", "a"), k.Put(ctx, "s", "c", nil))
	})
	err := db.View(t.Context(), func(ctx context.Context, tx T) error {
		k := db.Keeper(tx)
		if v, found, err := k.Get(ctx, "s", "a"); string(v) != "1" || !found || err != nil {
			t.Errorf("a is %q, %v, %v, want 1", v, found, err)
		}
		n := 0
		for _, err := range k.Scan(ctx, "s", "") {
			if n++; err != nil {
				return err
			}
		}
		if n != 1 {
			t.Errorf("%d values, want 1", n)
		}
		n = 0
		for _, err := range k.Scan(ctx, "n", "") {
			if n++; err != nil {
				return err
			}
		}
		if n != 16 {
			t.Errorf("%d values of the neighbours, want 16", n)
		}
		if marks, err := k.Marks(ctx); err != nil || len(marks) != 1 || marks[0].Mark != there(1) {
			t.Errorf("marks %v, %v, want only %v", marks, err, there(1))
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func (s suite[T]) keeperReadOnly(t *testing.T, db DB[T]) {
	err := db.View(t.Context(), func(ctx context.Context, tx T) error {
		k := db.Keeper(tx)
		for what, err := range map[string]error{"put": k.Put(ctx, "s", "a", nil), "delete": k.Delete(ctx, "s", "a"), "move": k.Move(ctx, "f", there(0), there(1))} {
			if !errors.Is(err, freehold.ErrReadOnlyTx) {
				t.Errorf("%s in a View: %v, want ErrReadOnlyTx", what, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
