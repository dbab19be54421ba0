package memory_test

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/journal/journaltest"
	"github.com/freehold-go/freehold/kv"
	"github.com/freehold-go/freehold/memory"
)

// disks are the databases of a test by place.
type disks struct {
	mu sync.Mutex
	at map[string]*memory.Disk
}

func (d *disks) disk(place string) *memory.Disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.at == nil {
		d.at = map[string]*memory.Disk{}
	}
	if d.at[place] == nil {
		d.at[place] = memory.NewDisk()
	}
	return d.at[place]
}

func harness() journaltest.Harness[kv.Tx] {
	var d disks
	return journaltest.Harness[kv.Tx]{
		Open: func(t testing.TB, s journaltest.Setup) journaltest.DB[kv.Tx] {
			t.Helper()
			db, err := memory.Open(t.Context(), "test", s.Types,
				&memory.Options{Disk: d.disk(s.Place), Cancel: s.Limit, Log: slog.New(slog.DiscardHandler)})
			if err != nil {
				t.Fatal(err)
			}
			return db
		},
		Put: func(ctx context.Context, tx kv.Tx, key, value string) error { return tx.Put(ctx, key, []byte(value)) },
		Get: func(ctx context.Context, tx kv.Tx, key string) (string, error) {
			value, _, err := tx.Get(ctx, key)
			return string(value), err
		},
		FailCommits: func(db journaltest.DB[kv.Tx], n int) { db.(*memory.DB).FailCommits(n) },
		Vanishes:    true,
		Alter:       func(_ testing.TB, place string, p freehold.Position) { d.disk(place).Alter(p) },
		Shift:       func(_ testing.TB, place string, p freehold.Position) { d.disk(place).Shift(p) },
	}
}

func TestConformance(t *testing.T) {
	t.Parallel()
	journaltest.Run(t, harness())
}

func BenchmarkConformance(b *testing.B) { journaltest.Benchmark(b, harness()) }

func open(t *testing.T, disk *memory.Disk) *memory.DB {
	t.Helper()
	db, err := memory.Open(t.Context(), "test", journaltest.Types(t), &memory.Options{Disk: disk})
	if err != nil {
		t.Fatal(err)
	}
	return db
}

// note appends an event whose expected number is its place in the stream.
func note(t *testing.T, db *memory.DB, n int) {
	t.Helper()
	if _, err := db.Append(t.Context(), freehold.Write{Stream: "a-1", Expect: freehold.At(freehold.Version(n - 1)), Events: []freehold.Event{journaltest.Happened{N: n}}}); err != nil {
		t.Fatal(err)
	}
}

func head(t *testing.T, db *memory.DB) freehold.Mark {
	t.Helper()
	_, head, err := db.Journal().Bounds(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return head
}

func TestOpeningADiskTakesItFromWhoeverHadIt(t *testing.T) {
	t.Parallel()
	disk := memory.NewDisk()
	first := open(t, disk)
	note(t, first, 1)
	waiting := make(chan error, 1)
	at := head(t, first)
	go func() { waiting <- first.Journal().Wait(t.Context(), at) }()
	inside, goOn := make(chan struct{}), make(chan struct{})
	late := make(chan error, 1)
	go func() {
		_, err := first.Update(t.Context(), func(ctx context.Context, tx kv.Tx) error {
			close(inside)
			<-goOn
			_, err := tx.Append(ctx, "a-1", freehold.Any, journaltest.Happened{N: 99})
			return err
		})
		late <- err
	}()
	<-inside
	second := open(t, disk)
	close(goOn)
	note(t, second, 2)
	for what, err := range map[string]error{
		"the closure that was running": <-late,
		"whoever waited":               <-waiting,
		"a View":                       first.View(t.Context(), func(context.Context, kv.Tx) error { return nil }),
		"an append":                    func() error { _, err := first.Append(t.Context()); return err }(),
		"a read":                       func() error { _, err := first.Journal().Read(t.Context(), at, 1); return err }(),
	} {
		if !errors.Is(err, freehold.ErrClosed) {
			t.Errorf("%s of the killed database: %v, want ErrClosed", what, err)
		}
	}
	if err := first.Close(); err != nil {
		t.Error(err)
	}
	note(t, second, 3)
	if _, err := second.Journal().Verify(t.Context(), freehold.Mark{}, nil); err != nil {
		t.Error(err)
	}
	if got := head(t, second).Position; got != 3 {
		t.Errorf("%d events, want 3", got)
	}
}

func TestACloneIsABackup(t *testing.T) {
	t.Parallel()
	disk := memory.NewDisk()
	db := open(t, disk)
	note(t, db, 1)
	backup := disk.Clone()
	note(t, db, 2)
	restored, again := open(t, backup), open(t, backup.Clone())
	if got := head(t, restored); got.Position != 1 || got.Epoch != head(t, db).Epoch {
		t.Errorf("restored at %v, want position 1 of the same epoch", got)
	}
	// Each history goes its own way.
	note(t, restored, 2)
	note(t, again, 2)
	note(t, db, 3)
	heads := map[freehold.Hash]bool{}
	for _, db := range []*memory.DB{db, restored, again} {
		if _, err := db.Journal().Verify(t.Context(), freehold.Mark{}, nil); err != nil {
			t.Error(err)
		}
		m, err := db.Journal().At(t.Context(), 2)
		if err != nil {
			t.Error(err)
		}
		heads[m.Chain] = true
	}
	if len(heads) != 3 {
		t.Errorf("three histories have %d chain values at position 2", len(heads))
	}
}

func TestAnotherJournalsDiskIsRefused(t *testing.T) {
	t.Parallel()
	disk := memory.NewDisk()
	db := open(t, disk)
	if other, err := memory.Open(t.Context(), "other", journaltest.Types(t), &memory.Options{Disk: disk}); err == nil {
		t.Errorf("opened as %s", other.Journal().Name())
	}
	note(t, db, 1)
}
