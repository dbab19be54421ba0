package sqlite_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/journal"
	"github.com/freehold-go/freehold/journal/journaltest"
	"github.com/freehold-go/freehold/sqldb"
	"github.com/freehold-go/freehold/sqlite"
)

// TestConformanceWhileNamesAreInserted is the suite on a directory that inserts
// names all the time.
func TestConformanceWhileNamesAreInserted(t *testing.T) {
	t.Parallel()
	h := harness()
	open := h.Open
	h.Open = func(t testing.TB, s journaltest.Setup) journaltest.DB[sqldb.Tx] {
		t.Helper()
		db := open(t, s)
		db.(*sqlite.DB).Collect(3)
		return db
	}
	journaltest.Run(t, h)
}

// errUndo makes a closure fail.
var errUndo = errors.New("undo")

// machine compares a database with a map of its streams' versions, while the
// database is closed, killed and opened again.
type machine struct {
	t       testing.TB
	db      *sqlite.DB
	path    string
	streams map[freehold.StreamID]freehold.Version
	names   []freehold.StreamID // in order of creation
}

func (m *machine) open() {
	var err error
	m.db, err = sqlite.Open(context.Background(), m.path, "test", journaltest.Types(m.t), &sqlite.Options{Relaxed: true, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		m.t.Fatal(err)
	}
	m.db.Collect(5)
}

// kill goes on with the files as they are now: what a process that is killed
// between two commits leaves. A commit is atomic, so there is nothing else.
func (m *machine) kill() {
	dir, err := os.MkdirTemp(filepath.Dir(filepath.Dir(m.path)), "killed")
	if err != nil {
		m.t.Fatal(err)
	}
	next := filepath.Join(dir, "test.db")
	for _, suffix := range []string{"", "-wal"} {
		raw, err := os.ReadFile(m.path + suffix)
		if err != nil {
			m.t.Fatal(err)
		}
		if err := os.WriteFile(next+suffix, raw, 0o600); err != nil {
			m.t.Fatal(err)
		}
	}
	m.close()
	m.path = next
}

func (m *machine) close() {
	if err := m.db.Close(); err != nil {
		m.t.Fatal(err)
	}
}

// write builds a write to a new stream or to one that exists.
func (m *machine) write(r *rapid.T) freehold.Write {
	e := []freehold.Event{journaltest.Happened{N: len(m.names)}}
	if len(m.names) > 0 && rapid.IntRange(0, 3).Draw(r, "old") == 0 {
		s := rapid.SampledFrom(m.names).Draw(r, "stream")
		return freehold.Write{Stream: s, Expect: freehold.At(m.streams[s]), Events: e}
	}
	s := freehold.StreamID(fmt.Sprintf("order-%02x%d", rapid.IntRange(0, 255).Draw(r, "name"), len(m.names)))
	return freehold.Write{Stream: s, Expect: freehold.NoStream, Events: e}
}

func (m *machine) wrote(w freehold.Write) {
	if m.streams[w.Stream] == 0 {
		m.names = append(m.names, w.Stream)
	}
	m.streams[w.Stream] += freehold.Version(len(w.Events))
}

func (m *machine) append(r *rapid.T) {
	for range rapid.IntRange(1, 8).Draw(r, "writes") {
		w := m.write(r)
		if _, err := m.db.Append(context.Background(), w); err != nil {
			m.t.Fatalf("%s at %d: %v", w.Stream, m.streams[w.Stream], err)
		}
		m.wrote(w)
	}
}

func (m *machine) undone(r *rapid.T) {
	w := m.write(r)
	_, err := m.db.Update(context.Background(), func(ctx context.Context, tx sqldb.Tx) error {
		_, err := tx.Append(ctx, w.Stream, w.Expect, w.Events...)
		return errors.Join(err, errUndo)
	})
	if !errors.Is(err, errUndo) {
		m.t.Fatal(err)
	}
	m.db.FailCommits(1)
	if _, err := m.db.Append(context.Background(), w); err == nil {
		m.t.Fatal("a commit that must fail has not")
	}
	m.db.FailCommits(0)
}

// check looks for every stream in every way.
func (m *machine) check() {
	for s, version := range m.streams {
		_, err := m.db.Append(context.Background(), freehold.Write{Stream: s, Expect: freehold.NoStream, Events: []freehold.Event{journaltest.Happened{}}})
		var conflict *freehold.Conflict
		if !errors.As(err, &conflict) || conflict.Actual != version {
			m.t.Fatalf("a new %s: %v, want a conflict with version %d", s, err, version)
		}
		if got := versionIn(m.t, m.db.Events(context.Background(), s, 0)); got != version {
			m.t.Fatalf("%s has version %d, want %d", s, got, version)
		}
		err = m.db.View(context.Background(), func(ctx context.Context, tx sqldb.Tx) error {
			if got := versionIn(m.t, tx.Events(ctx, s, 0)); got != version {
				return fmt.Errorf("a View sees version %d of %s, want %d", got, s, version)
			}
			return nil
		})
		if err != nil {
			m.t.Fatal(err)
		}
	}
	var got, want []journal.StreamInfo
	for after := freehold.StreamID(""); ; after = got[len(got)-1].Stream {
		page, err := m.db.Journal().Streams(context.Background(), after, 7)
		if err != nil {
			m.t.Fatal(err)
		}
		if got = append(got, page...); len(page) < 7 {
			break
		}
	}
	for _, s := range slices.Sorted(slices.Values(m.names)) {
		want = append(want, journal.StreamInfo{Stream: s, Version: m.streams[s]})
	}
	if diff := cmp.Diff(want, got); diff != "" {
		m.t.Fatalf("the list of streams differs:\n%s", diff)
	}
}

func versionIn(t testing.TB, events func(func(freehold.Recorded, error) bool)) (v freehold.Version) {
	t.Helper()
	for r, err := range events {
		if err != nil {
			t.Fatal(err)
		}
		if v++; r.Version != v {
			t.Fatalf("%s: version %d in place of %d", r.Stream, r.Version, v)
		}
	}
	return v
}

func TestEveryStreamIsFoundWhateverIsInMemoryOrInTheTable(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	rapid.Check(t, func(r *rapid.T) {
		place, err := os.MkdirTemp(dir, "run")
		if err != nil {
			t.Fatal(err)
		}
		m := &machine{t: t, path: filepath.Join(place, "test.db"), streams: map[freehold.StreamID]freehold.Version{}}
		m.open()
		for range rapid.IntRange(1, 12).Draw(r, "steps") {
			switch rapid.IntRange(0, 5).Draw(r, "step") {
			case 0:
				m.close()
				m.open()
			case 1:
				m.kill()
				m.open()
			case 2:
				m.undone(r)
			default:
				m.append(r)
			}
		}
		m.check()
		m.close()
	})
}

func TestASnapshotThatIsOlderThanTheInsertionOfANameFindsTheStream(t *testing.T) {
	t.Parallel()
	m := &machine{t: t, path: filepath.Join(t.TempDir(), "test.db")}
	m.open()
	defer m.close()
	begin := func(s freehold.StreamID) {
		if _, err := m.db.Append(t.Context(), freehold.Write{Stream: s, Expect: freehold.NoStream, Events: []freehold.Event{journaltest.Happened{}}}); err != nil {
			t.Fatal(err)
		}
	}
	begin("order-early")
	err := m.db.View(t.Context(), func(ctx context.Context, tx sqldb.Tx) error {
		if v := versionIn(t, tx.Events(ctx, "order-early", 0)); v != 1 {
			return fmt.Errorf("version %d before, want 1", v)
		}
		for i := 0; m.db.Generations() < 3; i++ {
			begin(freehold.StreamID(fmt.Sprintf("order-%d", i)))
		}
		if v := versionIn(t, tx.Events(ctx, "order-early", 0)); v != 1 {
			return fmt.Errorf("version %d behind three generations, want 1", v)
		}
		if v := versionIn(t, tx.Events(ctx, "order-0", 0)); v != 0 {
			return fmt.Errorf("version %d of a stream that began behind the snapshot, want 0", v)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestAFewStreamsOfManyEventsAreListedToo(t *testing.T) {
	t.Parallel()
	m := &machine{t: t, path: filepath.Join(t.TempDir(), "test.db")}
	m.open()
	defer m.close()
	for n := 0; m.db.Generations() == 0; n++ { // far less than a generation of streams
		if n == 100_000 {
			t.Fatal("a crash would still read all events to find the streams")
		}
		if _, err := m.db.Append(t.Context(), freehold.Write{Stream: "order-1", Expect: freehold.Any, Events: []freehold.Event{journaltest.Happened{}}}); err != nil {
			t.Fatal(err)
		}
	}
}
