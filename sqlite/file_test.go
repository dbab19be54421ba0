package sqlite_test

import (
	"encoding/binary"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/journal/journaltest"
	"github.com/freehold-go/freehold/sqlite"
)

// copied is a copy of a database and its log, as a process that is killed now would
// leave them, and how many events it holds. The log holds pages that the file has
// not.
func copied(t *testing.T) (path string, events int) {
	t.Helper()
	place := filepath.Join(t.TempDir(), "test.db")
	path = filepath.Join(t.TempDir(), "test.db")
	for range 2 { // the first time the log is copied into the file at the end
		db, err := sqlite.Open(t.Context(), place, "test", journaltest.Types(t), &sqlite.Options{Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		for range 20 {
			e := journaltest.Happened{Text: strings.Repeat("x", 3000)}
			if _, err := db.Append(t.Context(), freehold.Write{Stream: freehold.StreamID(fmt.Sprintf("s-%d", events)), Events: []freehold.Event{e}}); err != nil {
				t.Fatal(err)
			}
			events++
		}
		for _, suffix := range []string{"", "-wal"} {
			text, err := os.ReadFile(place + suffix)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path+suffix, text, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return path, events
}

func edit(t *testing.T, path string, f func([]byte) []byte) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, f(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// firstPageCopied does what a checkpoint does first: it copies the last version of
// the first page, which says how long the file is, from the log.
func firstPageCopied(t *testing.T, path string) {
	t.Helper()
	log, err := os.ReadFile(path + "-wal")
	if err != nil {
		t.Fatal(err)
	}
	size := int(binary.BigEndian.Uint32(log[8:]))
	edit(t, path, func(file []byte) []byte {
		before := binary.BigEndian.Uint32(file[28:])
		for at := 32; at+24+size <= len(log); at += 24 + size {
			if binary.BigEndian.Uint32(log[at:]) == 1 {
				copy(file, log[at+24:at+24+size])
			}
		}
		if after := binary.BigEndian.Uint32(file[28:]); after <= before {
			t.Fatalf("the log makes no pages: %d, before %d", after, before)
		}
		return file
	})
}

// TestAFileWhoseLogWasBeingCopiedOpens: a process that is killed in the middle of a
// checkpoint leaves a file that is shorter than it says, and nothing is lost.
func TestAFileWhoseLogWasBeingCopiedOpens(t *testing.T) {
	t.Parallel()
	path, events := copied(t)
	firstPageCopied(t, path)
	db, err := sqlite.Open(t.Context(), path, "test", journaltest.Types(t), &sqlite.Options{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	mark, err := db.Journal().Verify(t.Context(), freehold.Mark{}, nil)
	if err != nil || mark.Position != freehold.Position(events) {
		t.Errorf("%d events, %v, want %d", mark.Position, err, events)
	}
}

// TestAFileThatHasLostPagesIsRefused: what SQLite would take for an empty database,
// or find out in the middle of a day.
func TestAFileThatHasLostPagesIsRefused(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, want string
		damage     func(t *testing.T, path string)
	}{
		{"the log of a file that needs it is gone", "is cut off", func(t *testing.T, path string) {
			firstPageCopied(t, path)
			if err := os.Remove(path + "-wal"); err != nil {
				t.Fatal(err)
			}
		}},
		{"the log has not all", "is cut off", func(t *testing.T, path string) {
			firstPageCopied(t, path)
			edit(t, path, func(file []byte) []byte { return file[:8192] })
		}},
		{"the file is empty, its log is not", "is gone or empty", func(t *testing.T, path string) {
			edit(t, path, func([]byte) []byte { return nil })
		}},
		{"the file is gone, its log is not", "is gone or empty", func(t *testing.T, path string) {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}},
		{"another file", "is not a SQLite database", func(t *testing.T, path string) {
			edit(t, path, func([]byte) []byte { return []byte("no database at all") })
		}},
		{"a directory", "is a directory", func(t *testing.T, path string) {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			if err := os.Mkdir(path, 0o700); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			path, _ := copied(t)
			c.damage(t, path)
			db, err := sqlite.Open(t.Context(), path, "test", journaltest.Types(t), &sqlite.Options{Log: slog.New(slog.DiscardHandler)})
			if err == nil {
				_ = db.Close()
				t.Fatal("opened")
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("refused with %q, want %q", err, c.want)
			}
		})
	}
}
