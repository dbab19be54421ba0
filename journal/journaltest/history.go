package journaltest

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"testing"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/journal"
)

func (s suite[T]) reopen(t *testing.T, _ DB[T]) {
	setup := place(t)
	var heads []freehold.Mark
	ids := map[string]bool{}
	for i := range 4 {
		db := s.Open(t, setup)
		incarnations, err := db.Journal().Incarnations(t.Context())
		if err != nil || len(incarnations) != i+1 {
			t.Fatalf("%d incarnations, %v, want %d", len(incarnations), err, i+1)
		}
		this := incarnations[i]
		if ids[this.ID] || this.ID == "" {
			t.Errorf("opening %d has the id %q", i+1, this.ID)
		}
		ids[this.ID] = true
		_, head, err := db.Journal().Bounds(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if i > 0 {
			if head != heads[i-1] {
				t.Errorf("opened at %v, closed at %v", head, heads[i-1])
			}
			if this.Start != head {
				t.Errorf("opening %d starts at %v, want %v", i+1, this.Start, head)
			}
			last := strconv.Itoa(i - 1)
			if s.get(t, db, "k"+last) != last {
				t.Errorf("the state of opening %d is gone", i)
			}
			err := db.View(t.Context(), func(ctx context.Context, tx T) error {
				if m, err := db.Keeper(tx).Mark(ctx, "f", "there"); err != nil || m != there(i) {
					t.Errorf("mark %v, %v, want %v", m, err, there(i))
				}
				if v, found, err := db.Keeper(tx).Get(ctx, "space", last); err != nil || !found || string(v) != last {
					t.Errorf("kept value %q, %v, %v", v, found, err)
				}
				if tx.Mark() != head {
					t.Errorf("a View is at %v, want %v", tx.Mark(), head)
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
			_, err = db.Append(t.Context(), write("a-1", freehold.NoStream, happened(1)))
			wantConflict(t, err, freehold.Conflict{Stream: "a-1", Expected: freehold.NoStream, Actual: freehold.Version(2 * i)})
		}
		_, err = db.Update(t.Context(), func(ctx context.Context, tx T) error {
			k := db.Keeper(tx)
			if err := k.Move(ctx, "f", there(i), there(i+1)); err != nil {
				return err
			}
			if _, err := tx.Append(ctx, "a-1", freehold.At(freehold.Version(2*i)), happened(i), Secret{i}); err != nil {
				return err
			}
			return errors.Join(s.Put(ctx, tx, "k"+strconv.Itoa(i), strconv.Itoa(i)), k.Put(ctx, "space", strconv.Itoa(i), []byte(strconv.Itoa(i))))
		})
		if err != nil {
			t.Fatal(err)
		}
		verify(t, db)
		rs := readAll(t, db, 100)
		if last := rs[len(rs)-1]; last.Incarnation != this.ID || len(rs) != 2*(i+1) {
			t.Errorf("event %d carries incarnation %s, want %s", len(rs), last.Incarnation, this.ID)
		}
		if _, head, err = db.Journal().Bounds(t.Context()); err != nil {
			t.Fatal(err)
		}
		heads = append(heads, head)
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// there is a place of another source.
func there(i int) freehold.Mark {
	m := freehold.Mark{Source: "there"}
	if i > 0 {
		m.Epoch, m.Position, m.Chain = "e", freehold.Position(i), freehold.Hash{byte(i), 31: 255}
	}
	return m
}

func (s suite[T]) altered(t *testing.T, _ DB[T]) { s.alteredBy(t, s.Alter) }

func (s suite[T]) shifted(t *testing.T, _ DB[T]) { s.alteredBy(t, s.Shift) }

func (s suite[T]) alteredBy(t *testing.T, alter func(t testing.TB, place string, p freehold.Position)) {
	t.Helper()
	if alter == nil {
		t.Skip("the harness cannot alter what is stored")
	}
	setup := place(t)
	db := s.Open(t, setup)
	for i := range 40 {
		mustAppend(t, db, write(freehold.Stream("a", strconv.Itoa(i%3)), freehold.Any, Happened{N: i, Text: "some text to alter"}, Secret{i}))
	}
	verify(t, db)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	const at = 31
	alter(t, setup.Place, at)
	db = s.Open(t, setup)
	reached, err := db.Journal().Verify(t.Context(), freehold.Mark{}, nil)
	if !errors.Is(err, journal.ErrAltered) || reached.Position != at-1 {
		t.Errorf("verify: up to %d, %v, want ErrAltered behind %d", reached.Position, err, at-1)
	}
	// The rest is as it was: the chain before the altered event and behind it.
	m, err := db.Journal().At(t.Context(), at)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := db.Journal().Verify(t.Context(), m, nil); err != nil || got.Position != 80 {
		t.Errorf("verify behind it: up to %d, %v", got.Position, err)
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
}

func (s suite[T]) upcasts(t *testing.T, _ DB[T]) {
	setup := place(t)
	setup.Types = catalog(t, freehold.JSON[happenedOnce]())
	db := s.Open(t, setup)
	mustAppend(t, db, write("a-1", freehold.NoStream, happenedOnce{1}, happenedOnce{2}))
	before := readAll(t, db, 10)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	setup.Types = Types(t)
	db = s.Open(t, setup)
	mustAppend(t, db, write("a-1", freehold.At(2), happened(3)))
	after := readAll(t, db, 10)
	for i, r := range after {
		if number(t, r) != i+1 {
			t.Errorf("event %d decodes to %d", i+1, number(t, r))
		}
	}
	for i, r := range before {
		if got := after[i]; got.Type != r.Type || !slices.Equal(got.Raw, r.Raw) || got.Digest != r.Digest {
			t.Errorf("event %d is stored as %s %s, was %s %s", i+1, got.Type, got.Raw, r.Type, r.Raw)
		}
	}
	err := db.View(t.Context(), func(ctx context.Context, tx T) error {
		if got := numbers(ctx, t, tx, "a-1", 0); !slices.Equal(got, []int{1, 2, 3}) {
			t.Errorf("a transaction reads %v, want 1 2 3", got)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	verify(t, db)
	if err := db.Close(); err != nil {
		t.Error(err)
	}
}

func (s suite[T]) unknownTypes(t *testing.T, _ DB[T]) {
	setup := place(t)
	setup.Types = catalog(t, freehold.JSON[Happened](), freehold.JSON[unlisted]())
	db := s.Open(t, setup)
	mustAppend(t, db, write("a-1", freehold.NoStream, happened(1), unlisted{}, happened(3)))
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	setup.Types = catalog(t, freehold.JSON[happenedOnce]()) // a program that was rolled back to an older one
	db = s.Open(t, setup)
	rs := readAll(t, db, 10)
	if len(rs) != 3 || string(rs[1].Raw) != "{}" || rs[1].Type != (unlisted{}).EventType() {
		t.Errorf("read %+v", rs)
	}
	for _, r := range rs {
		if e, err := r.Decode(); !errors.Is(err, freehold.ErrUnknownType) {
			t.Errorf("%s decodes to %v, %v, want ErrUnknownType", r.Type, e, err)
		}
	}
	mustAppend(t, db, write("a-1", freehold.At(3), happenedOnce{4}))
	verify(t, db)
	if err := db.Close(); err != nil {
		t.Error(err)
	}
}
