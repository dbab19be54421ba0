package pebble_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	lib "github.com/cockroachdb/pebble/v2"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/journal/journaltest"
	"github.com/freehold-go/freehold/kv"
	"github.com/freehold-go/freehold/pebble"
)

func TestConformance(t *testing.T) {
	t.Parallel()
	journaltest.Run(t, harness())
}

func harness() journaltest.Harness[kv.Tx] {
	return journaltest.Harness[kv.Tx]{
		Open: func(t testing.TB, s journaltest.Setup) journaltest.DB[kv.Tx] {
			t.Helper()
			db, err := pebble.Open(t.Context(), s.Place, "test", s.Types, &pebble.Options{Cancel: s.Limit, Log: slog.New(slog.DiscardHandler)})
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
		FailCommits: func(db journaltest.DB[kv.Tx], n int) { db.(*pebble.DB).FailCommits(n) },
	}
}

func open(t testing.TB, dir string, name freehold.Source) (*pebble.DB, error) {
	t.Helper()
	return pebble.Open(t.Context(), dir, name, journaltest.Types(t), &pebble.Options{Log: slog.New(slog.DiscardHandler)})
}

// wantRefusal checks that an opening fails with one line that holds the words.
func wantRefusal(t *testing.T, dir string, name freehold.Source, words string) {
	t.Helper()
	db, err := open(t, dir, name)
	if err == nil {
		t.Errorf("opened, want a refusal with %q", words)
		_ = db.Close()
		return
	}
	if !strings.Contains(err.Error(), words) || strings.Contains(err.Error(), "\n") || !strings.HasPrefix(err.Error(), "pebble: ") {
		t.Errorf("refused with %q, want one line with %q", err, words)
	}
}

func TestSecondOpenerIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	db, err := open(t, dir, "test")
	if err != nil {
		t.Fatal(err)
	}
	wantRefusal(t, dir, "test", "is open in another process")
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if db, err = open(t, dir, "test"); err != nil {
		t.Fatalf("after the first has closed: %v", err)
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
}

func TestAnotherJournalsDirectoryIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	db, err := open(t, dir, "test")
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	wantRefusal(t, dir, "other", `of "test"`)
}

func TestForeignDirectoriesAreRefusedAndLeftAlone(t *testing.T) {
	t.Parallel()
	t.Run("a file", func(t *testing.T) {
		t.Parallel()
		file := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		wantRefusal(t, file, "test", "want a directory")
	})
	t.Run("somebody's files", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "letter.txt"), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		wantRefusal(t, dir, "test", "holds letter.txt")
		if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
			t.Errorf("the directory was written to: %v, %v", left, err)
		}
	})
	t.Run("another program's Pebble", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		db, err := lib.Open(dir, &lib.Options{Logger: quiet{}})
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(db.Set([]byte("a"), []byte("b"), lib.Sync), db.Close()); err != nil {
			t.Fatal(err)
		}
		wantRefusal(t, dir, "test", "another program")
	})
	t.Run("a newer layout", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		db, err := lib.Open(dir, &lib.Options{Logger: quiet{}})
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(db.Set([]byte("j"), []byte(`{"format":2,"source":"test","epoch":"e"}`), lib.Sync), db.Close()); err != nil {
			t.Fatal(err)
		}
		wantRefusal(t, dir, "test", "update the program")
	})
	t.Run("no permission", func(t *testing.T) {
		t.Parallel()
		if os.Getuid() == 0 {
			t.Skip("root may write everywhere")
		}
		dir := filepath.Join(t.TempDir(), "closed")
		if err := os.Mkdir(dir, 0o500); err != nil {
			t.Fatal(err)
		}
		wantRefusal(t, dir, "test", "permission denied")
	})
}

func TestAuditStatesWhatWasReadBack(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		opts pebble.Options
		want string
	}{
		{pebble.Options{}, "every commit is synced before it is answered or read"},
		{pebble.Options{Disposable: true}, "disposable"},
		{pebble.Options{Relaxed: true}, "relaxed"},
	} {
		opts := quietly(c.opts)
		db, err := pebble.Open(t.Context(), t.TempDir(), "test", journaltest.Types(t), &opts)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(db.Audit(), "; "); !strings.Contains(got, "disable_wal=false") || !strings.Contains(got, c.want) {
			t.Errorf("audit says %q, want %q", got, c.want)
		}
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestCloseWaitsForViewsAndIsRepeatable(t *testing.T) {
	t.Parallel()
	db, err := open(t, t.TempDir(), "test")
	if err != nil {
		t.Fatal(err)
	}
	reading, finish := make(chan struct{}), make(chan struct{})
	viewed := make(chan error, 1)
	go func() {
		viewed <- db.View(context.WithoutCancel(t.Context()), func(ctx context.Context, tx kv.Tx) error {
			close(reading)
			<-finish
			_, _, err := tx.Get(ctx, "key") // the database is still there
			return err
		})
	}()
	<-reading
	closed := make(chan error, 1)
	go func() { closed <- db.Close() }()
	close(finish)
	if err := errors.Join(<-viewed, <-closed, db.Close()); err != nil {
		t.Error(err)
	}
	if err := db.View(t.Context(), func(context.Context, kv.Tx) error { return nil }); !errors.Is(err, freehold.ErrClosed) {
		t.Errorf("view: %v, want ErrClosed", err)
	}
	if _, _, err := db.Journal().Bounds(t.Context()); !errors.Is(err, freehold.ErrClosed) {
		t.Errorf("bounds: %v, want ErrClosed", err)
	}
	if err := db.Journal().Wait(t.Context(), freehold.Mark{}); !errors.Is(err, freehold.ErrClosed) {
		t.Errorf("wait: %v, want ErrClosed", err)
	}
}

func TestKeysAndNumbersAreChecked(t *testing.T) {
	t.Parallel()
	db, err := open(t, t.TempDir(), "test")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for name, fn := range map[string]func(ctx context.Context, tx kv.Tx) error{
		"empty key":    func(ctx context.Context, tx kv.Tx) error { return tx.Put(ctx, "", []byte("v")) },
		"long key":     func(ctx context.Context, tx kv.Tx) error { return tx.Put(ctx, strings.Repeat("k", 1025), nil) },
		"empty delete": func(ctx context.Context, tx kv.Tx) error { return tx.Delete(ctx, "") },
		"zero in space": func(ctx context.Context, tx kv.Tx) error {
			return db.Keeper(tx).Put(ctx, "a\x00b", "k", nil)
		},
		"zero in follower": func(ctx context.Context, tx kv.Tx) error {
			_, err := db.Keeper(tx).Mark(ctx, "a\x00b", "there")
			return err
		},
		"not a number": func(ctx context.Context, tx kv.Tx) error {
			if err := tx.Put(ctx, "text", []byte("many")); err != nil {
				t.Error(err)
			}
			_, err := tx.Add(ctx, "text", 1, 0)
			return err
		},
		"overflow": func(ctx context.Context, tx kv.Tx) error {
			if _, err := tx.Add(ctx, "n", 1<<62, 0); err != nil {
				t.Error(err)
			}
			_, err := tx.Add(ctx, "n", 1<<62, 0)
			return err
		},
		"underflow": func(ctx context.Context, tx kv.Tx) error {
			if _, err := tx.Add(ctx, "n", -1<<63, -1<<63); err != nil {
				t.Error(err)
			}
			_, err := tx.Add(ctx, "n", -1, -1<<63)
			return err
		},
		"below the bound": func(ctx context.Context, tx kv.Tx) error {
			_, err := tx.Add(ctx, "n", -1, 0)
			if !errors.Is(err, kv.ErrBound) {
				t.Errorf("%v, want kv.ErrBound", err)
			}
			return err
		},
	} {
		if _, err := db.Update(t.Context(), fn); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
