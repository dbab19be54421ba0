package aggregate_test

import (
	"bytes"
	"context"
	"testing"

	"github.com/freehold-go/freehold/aggregate"
	"github.com/freehold-go/freehold/kv"
	"github.com/freehold-go/freehold/memory"
)

const snapshots = "snapshot" // the keeper's space

func saving(db *counting, schema int) *aggregate.Options {
	return &aggregate.Options{Snapshots: aggregate.Keep(db.DB, schema), SnapshotEvery: 10}
}

// eventsRead says how many events a fresh process reads to load the shelf, which
// must have the given number left.
func eventsRead(t *testing.T, db *counting, schema, left int) int {
	t.Helper()
	db.events.Store(0)
	o := saving(db, schema)
	o.SnapshotEvery = 1 << 30 // read only
	got, _, err := aggregate.New[Shelf]("shelf", db, o).Load(t.Context(), "1")
	if err != nil || got.Left != left {
		t.Errorf("%d left, %v, want %d", got.Left, err, left)
	}
	return int(db.events.Load())
}

func TestSnapshotShortensReading(t *testing.T) {
	t.Parallel()
	db := setup(t)
	r := aggregate.New[Shelf]("shelf", db, saving(db, 1))
	for range 25 {
		do(t, r, "1", add(1))
	}
	// Version 20 is saved: its event is compared, and five more are read.
	if n := eventsRead(t, db, 1, 25); n != 6 {
		t.Errorf("%d events read, want 6", n)
	}
}

func TestStreamWrittenByHandlersGetsASnapshotWhenItIsRead(t *testing.T) {
	t.Parallel()
	db := setup(t)
	_, err := db.Update(t.Context(), func(ctx context.Context, tx kv.Tx) error {
		for range 25 {
			if _, err := aggregate.New[Shelf]("shelf", db, nil).DoTx(ctx, tx, "1", add(1)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := aggregate.New[Shelf]("shelf", db, saving(db, 1)).Load(t.Context(), "1"); err != nil {
		t.Fatal(err)
	}
	if n := eventsRead(t, db, 1, 25); n != 1 {
		t.Errorf("%d events read, want 1", n)
	}
}

func TestUnusableSnapshotIsLeftOutOfAccount(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func([]byte) []byte{
		"nothing":           func([]byte) []byte { return []byte{} },
		"cut off":           func(raw []byte) []byte { return raw[:len(raw)/2] },
		"another number":    func(raw []byte) []byte { return bytes.Replace(raw, []byte(`"Left":20`), []byte(`"Left":21`), 1) },
		"another structure": func([]byte) []byte { return []byte(`{"schema":1,"version":20,"state":[1],"sum":1}`) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := setup(t)
			r := aggregate.New[Shelf]("shelf", db, saving(db, 1))
			for range 25 {
				do(t, r, "1", add(1))
			}
			_, err := db.Update(t.Context(), func(ctx context.Context, tx kv.Tx) error {
				k := db.Keeper(tx)
				raw, found, err := k.Get(ctx, snapshots, "shelf-1")
				if err != nil || !found {
					t.Fatalf("no snapshot: %v", err)
				}
				spoiled := spoil(bytes.Clone(raw))
				if bytes.Equal(raw, spoiled) {
					t.Fatalf("nothing spoiled in %s", raw)
				}
				return k.Put(ctx, snapshots, "shelf-1", spoiled)
			})
			if err != nil {
				t.Fatal(err)
			}
			if n := eventsRead(t, db, 1, 25); n != 25 {
				t.Errorf("%d events read, want all 25", n)
			}
			// It is replaced by the next one.
			do(t, aggregate.New[Shelf]("shelf", db, saving(db, 1)), "1", add(1))
			if n := eventsRead(t, db, 1, 26); n != 1 {
				t.Errorf("%d events read, want 1", n)
			}
		})
	}
}

func TestSnapshotOfAnotherSchemaIsLeftOutOfAccountAndReplaced(t *testing.T) {
	t.Parallel()
	db := setup(t)
	r := aggregate.New[Shelf]("shelf", db, saving(db, 1))
	for range 25 {
		do(t, r, "1", add(1))
	}
	if n := eventsRead(t, db, 2, 25); n != 25 {
		t.Errorf("%d events read, want all 25", n)
	}
	do(t, aggregate.New[Shelf]("shelf", db, saving(db, 2)), "1", add(1))
	if n := eventsRead(t, db, 2, 26); n != 1 {
		t.Errorf("%d events read, want 1", n)
	}
	err := db.View(t.Context(), func(ctx context.Context, tx kv.Tx) error {
		n := 0
		for _, err := range db.Keeper(tx).Scan(ctx, snapshots, "") {
			if n++; err != nil {
				return err
			}
		}
		if n != 1 {
			t.Errorf("%d snapshots of one stream", n)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Snapshots that are kept elsewhere may be newer than a journal that was restored.
func TestSnapshotOfAnotherHistoryIsLeftOutOfAccount(t *testing.T) {
	t.Parallel()
	disk := memory.NewDisk()
	db, elsewhere := open(t, disk), setup(t)
	o := &aggregate.Options{Snapshots: aggregate.Keep(elsewhere.DB, 1), SnapshotEvery: 10}
	r := aggregate.New[Shelf]("shelf", db, o)
	for range 15 {
		do(t, r, "1", add(1))
	}
	backup := disk.Clone()
	for range 10 {
		do(t, r, "1", add(1)) // a snapshot at 20
	}
	db.Close()
	restored := open(t, backup)
	defer restored.Close()
	fresh := func() *aggregate.Repo[Shelf] { return aggregate.New[Shelf]("shelf", restored, o) }
	if got, version, err := fresh().Load(t.Context(), "1"); err != nil || got.Left != 15 || version != 15 {
		t.Fatalf("%d left at %d, %v, want 15 at 15", got.Left, version, err)
	}
	for range 10 {
		do(t, aggregate.New[Shelf]("shelf", restored, nil), "1", add(100)) // another history of the same length
	}
	if got, version, err := fresh().Load(t.Context(), "1"); err != nil || got.Left != 1015 || version != 25 {
		t.Errorf("%d left at %d, %v, want 1015 at 25", got.Left, version, err)
	}
}
