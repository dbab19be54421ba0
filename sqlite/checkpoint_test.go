package sqlite_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/journal/journaltest"
	"github.com/freehold-go/freehold/sqlite"
)

// TestLogIsCopiedWhileCallersWrite: the write-ahead log of a database that is never
// idle begins again and again, while readers come and go, and loses nothing.
func TestLogIsCopiedWhileCallersWrite(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "test.db")
	db, err := sqlite.Open(t.Context(), path, "test", journaltest.Types(t), &sqlite.Options{Relaxed: true, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Repeat("x", 16<<10)
	const callers, each = 8, 1200
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			for i := range each {
				w := freehold.Write{Stream: "a-1", Expect: freehold.Any, Events: []freehold.Event{journaltest.Happened{N: i, Text: text}}}
				if _, err := db.Append(t.Context(), w); err != nil {
					t.Error(err)
					return
				}
				if i%50 == 0 {
					if _, err := db.Journal().At(t.Context(), 1); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	all.Wait()
	info, err := os.Stat(path + "-wal")
	if err != nil {
		t.Fatal(err)
	}
	if written := int64(callers * each * len(text)); info.Size() > written/2 {
		t.Errorf("the log has %d MB of %d MB written: it was never begun again", info.Size()>>20, written>>20)
	}
	if head, err := db.Journal().Verify(t.Context(), freehold.Mark{}, nil); err != nil || head.Position != callers*each {
		t.Errorf("verified up to %v, %v", head, err)
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
}
