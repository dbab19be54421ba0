package journaltest

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"testing"

	"github.com/freehold-go/freehold"
)

func (s suite[T]) atomic(t *testing.T, db DB[T]) {
	one := func(key string, fail error) error {
		_, err := db.Update(t.Context(), func(ctx context.Context, tx T) error {
			if err := s.Put(ctx, tx, key, "there"); err != nil {
				return err
			}
			if _, err := tx.Append(ctx, freehold.Stream("a", key), freehold.NoStream, happened(1)); err != nil {
				return err
			}
			return fail
		})
		return err
	}
	if err := one("kept", nil); err != nil {
		t.Fatal(err)
	}
	if err := one("undone", errNo); !errors.Is(err, errNo) {
		t.Errorf("error %v, want the closure's own", err)
	}
	// A conflict takes the state before it back too.
	_, err := db.Update(t.Context(), func(ctx context.Context, tx T) error {
		if err := s.Put(ctx, tx, "kept", "overwritten"); err != nil {
			return err
		}
		_, err := tx.Append(ctx, "a-kept", freehold.NoStream, happened(2))
		return err
	})
	wantConflict(t, err, freehold.Conflict{Stream: "a-kept", Expected: freehold.NoStream, Actual: 1})
	if s.get(t, db, "kept") != "there" || s.get(t, db, "undone") != "" {
		t.Error("state does not agree with the outcomes")
	}
	if rs := readAll(t, db, 10); len(rs) != 1 || rs[0].Stream != "a-kept" {
		t.Errorf("events %v, want only that of the committed closure", rs)
	}
	if err := one("undone", nil); err != nil { // nothing of it was left
		t.Error(err)
	}
}

func numbers[T freehold.Tx](ctx context.Context, t testing.TB, tx T, stream freehold.StreamID, after freehold.Version) []int {
	t.Helper()
	var got []int
	for r, err := range tx.Events(ctx, stream, after) {
		if err != nil {
			t.Error(err)
			return nil
		}
		if r.Stream != stream || r.Version != after+freehold.Version(len(got))+1 {
			t.Errorf("%s version %d where %s version %d is due", r.Stream, r.Version, stream, after+freehold.Version(len(got))+1)
		}
		got = append(got, number(t, r))
	}
	return got
}

func (s suite[T]) ownWrites(t *testing.T, db DB[T]) {
	mustAppend(t, db, write("a-1", freehold.NoStream, happened(1)), write("b-1", freehold.NoStream, happened(7)))
	_, err := db.Update(t.Context(), func(ctx context.Context, tx T) error {
		if err := errors.Join(s.Put(ctx, tx, "k", "1"), s.Put(ctx, tx, "k", "2")); err != nil {
			return err
		}
		if v, err := s.Get(ctx, tx, "k"); v != "2" || err != nil {
			t.Errorf("the transaction reads %q, %v, want what it wrote", v, err)
		}
		if _, err := tx.Append(ctx, "a-1", freehold.At(1), happened(2)); err != nil {
			return err
		}
		if _, err := tx.Append(ctx, "c-1", freehold.NoStream, happened(5)); err != nil {
			return err
		}
		if _, err := tx.Append(ctx, "a-1", freehold.At(2), happened(3), happened(4)); err != nil {
			return err
		}
		for _, want := range []struct {
			stream freehold.StreamID
			after  freehold.Version
			events []int
		}{{"a-1", 0, []int{1, 2, 3, 4}}, {"a-1", 1, []int{2, 3, 4}}, {"a-1", 3, []int{4}}, {"a-1", 4, nil}, {"a-1", 9, nil},
			{"b-1", 0, []int{7}}, {"c-1", 0, []int{5}}, {"d-1", 0, nil}} {
			if got := numbers(ctx, t, tx, want.stream, want.after); !slices.Equal(got, want.events) {
				t.Errorf("the transaction sees %v of %s behind %d, want %v", got, want.stream, want.after, want.events)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func (s suite[T]) handledConflict(t *testing.T, db DB[T]) {
	mustAppend(t, db, write("a-1", freehold.NoStream, happened(1)))
	_, err := db.Update(t.Context(), func(ctx context.Context, tx T) error {
		if err := s.Put(ctx, tx, "k", "v"); err != nil {
			return err
		}
		if _, err := tx.Append(ctx, "b-1", freehold.NoStream, happened(2)); err != nil {
			return err
		}
		_, err := tx.Append(ctx, "a-1", freehold.NoStream, happened(3), happened(4))
		wantConflict(t, err, freehold.Conflict{Stream: "a-1", Expected: freehold.NoStream, Actual: 1})
		_, err = tx.Append(ctx, "a-1", freehold.At(1), happened(5))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	var got []int
	for _, r := range readAll(t, db, 10) {
		got = append(got, number(t, r))
	}
	if !slices.Equal(got, []int{1, 2, 5}) || s.get(t, db, "k") != "v" {
		t.Errorf("events %v and state %q, want 1 2 5 and v", got, s.get(t, db, "k"))
	}
}

func (s suite[T]) leftEarly(t *testing.T, db DB[T]) {
	var events []freehold.Event
	for i := range 50 {
		events = append(events, happened(i))
	}
	mustAppend(t, db, write("a-1", freehold.NoStream, events...))
	use := func(ctx context.Context, tx T, writing bool) error {
		k := db.Keeper(tx)
		for range 3 {
			for _, err := range tx.Events(ctx, "a-1", 0) {
				if err != nil {
					return err
				}
				break
			}
			for _, err := range k.Scan(ctx, "space", "") {
				if err != nil {
					return err
				}
				break
			}
			if _, err := s.Get(ctx, tx, "k"); err != nil {
				return err
			}
		}
		if !writing {
			return nil
		}
		// Other streams may be read and written while one is read.
		for r, err := range tx.Events(ctx, "a-1", 0) {
			if err != nil {
				return err
			}
			if r.Version > 5 {
				break
			}
			if _, err := tx.Append(ctx, "b-1", freehold.At(r.Version-1), happened(int(r.Version))); err != nil {
				return err
			}
			if got := len(numbers(ctx, t, tx, "b-1", 0)); got != int(r.Version) {
				t.Errorf("%d events of b-1, want %d", got, r.Version)
			}
			if err := errors.Join(s.Put(ctx, tx, "k", "v"), k.Put(ctx, "space", strconv.Itoa(int(r.Version)), nil)); err != nil {
				return err
			}
		}
		return nil
	}
	for range 2 {
		if err := db.View(t.Context(), func(ctx context.Context, tx T) error { return use(ctx, tx, false) }); err != nil {
			t.Error(err)
		}
	}
	if _, err := db.Update(t.Context(), func(ctx context.Context, tx T) error { return use(ctx, tx, true) }); err != nil {
		t.Error(err)
	}
	for r, err := range db.Events(t.Context(), "a-1", 0) {
		if err != nil || r.Version != 1 {
			t.Errorf("version %d, %v", r.Version, err)
		}
		break
	}
	if got := len(readAll(t, db, 10)); got != 55 {
		t.Errorf("%d events, want 55", got)
	}
}

func (s suite[T]) nested(t *testing.T, db DB[T]) {
	_, err := db.Update(t.Context(), func(ctx context.Context, _ T) error {
		if _, err := db.Append(ctx, write("a-1", freehold.Any, happened(1))); !errors.Is(err, freehold.ErrNested) {
			t.Errorf("append: %v, want ErrNested", err)
		}
		inner, cancel := context.WithCancel(freehold.WithMeta(ctx, freehold.Meta{Actor: "a"}))
		defer cancel()
		_, err := db.Update(inner, func(context.Context, T) error { return nil })
		return err
	})
	if !errors.Is(err, freehold.ErrNested) {
		t.Errorf("error %v, want ErrNested", err)
	}
}

// wantDead uses every method of a handle whose closure is over.
func (s suite[T]) wantDead(t *testing.T, db DB[T], tx T, want error) {
	t.Helper()
	ctx, k := t.Context(), db.Keeper(tx)
	check := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", what, err, want)
		}
	}
	_, err := tx.Append(ctx, "a-1", freehold.Any, happened(1))
	check("append", err)
	_, err = tx.Append(ctx, "a-1", freehold.Any)
	check("condition", err)
	check("put", s.Put(ctx, tx, "k", "v"))
	check("keeper put", k.Put(ctx, "space", "k", nil))
	check("keeper delete", k.Delete(ctx, "space", "k"))
	check("move", k.Move(ctx, "f", freehold.Mark{Source: "s"}, freehold.Mark{Source: "s", Epoch: "e", Position: 1}))
	if want == freehold.ErrReadOnlyTx {
		return
	}
	for _, err := range tx.Events(ctx, "a-1", 0) {
		check("events", err)
	}
	_, err = s.Get(ctx, tx, "k")
	check("get", err)
	_, err = k.Mark(ctx, "f", "s")
	check("mark", err)
	_, err = k.Marks(ctx)
	check("marks", err)
	_, _, err = k.Get(ctx, "space", "k")
	check("keeper get", err)
	for _, err := range k.Scan(ctx, "space", "") {
		check("keeper scan", err)
	}
	check("lock", tx.Lock(ctx, "k"))
}

func (s suite[T]) deadHandle(t *testing.T, db DB[T]) {
	mustAppend(t, db, write("a-1", freehold.NoStream, happened(1)))
	var committed, failed, viewed, panicked T
	_, err := db.Update(t.Context(), func(_ context.Context, tx T) error { committed = tx; return nil })
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Update(t.Context(), func(_ context.Context, tx T) error { failed = tx; return errNo }); !errors.Is(err, errNo) {
		t.Fatal(err)
	}
	if err := db.View(t.Context(), func(_ context.Context, tx T) error { viewed = tx; return nil }); err != nil {
		t.Fatal(err)
	}
	alone(func() {
		defer func() { _ = recover() }()
		_, _ = db.Update(t.Context(), func(_ context.Context, tx T) error { panicked = tx; panic("boom") })
	})
	for _, tx := range []T{committed, failed, viewed, panicked} {
		s.wantDead(t, db, tx, freehold.ErrTxDone)
	}
	if got := len(readAll(t, db, 10)); got != 1 {
		t.Errorf("%d events, want 1", got)
	}
}

func (s suite[T]) keptHandle(t *testing.T, db DB[T]) {
	var used sync.WaitGroup
	kept := 0
	for round := range 20 {
		stream := freehold.Stream("a", strconv.Itoa(round))
		acknowledged := false
		_, err := db.Update(t.Context(), func(ctx context.Context, tx T) error {
			if _, err := tx.Append(ctx, stream, freehold.NoStream, happened(0)); err != nil {
				return err
			}
			used.Go(func() {
				for i := 1; ; i++ {
					if _, err := tx.Append(ctx, stream, freehold.Any, happened(i)); err != nil {
						if !errors.Is(err, freehold.ErrTxDone) {
							t.Errorf("error %v, want ErrTxDone", err)
						}
						return
					}
					runtime.Gosched()
				}
			})
			if round%2 == 0 {
				return errNo
			}
			acknowledged = true
			return nil
		})
		if (err == nil) != acknowledged {
			t.Errorf("error %v", err)
		}
		if acknowledged {
			kept++
		}
	}
	used.Wait()
	streams, err := db.Journal().Streams(t.Context(), "", 100)
	if err != nil || len(streams) != kept {
		t.Errorf("%d streams, %v, want %d", len(streams), err, kept)
	}
}

func (s suite[T]) readOnly(t *testing.T, db DB[T]) {
	mustAppend(t, db, write("a-1", freehold.NoStream, happened(1)))
	err := db.View(t.Context(), func(_ context.Context, tx T) error {
		s.wantDead(t, db, tx, freehold.ErrReadOnlyTx)
		if tx.Now().IsZero() {
			t.Error("a View has no time")
		}
		return errNo
	})
	if !errors.Is(err, errNo) {
		t.Errorf("error %v, want the closure's own", err)
	}
	if got := len(readAll(t, db, 10)); got != 1 || s.get(t, db, "k") != "" {
		t.Errorf("%d events and state %q after writes in a View", got, s.get(t, db, "k"))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := db.View(ctx, func(ctx context.Context, tx T) error { return ctx.Err() }); !errors.Is(err, context.Canceled) {
		t.Errorf("View of a caller that was cancelled: %v", err)
	}
}
