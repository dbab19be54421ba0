package pebble_test

import (
	"errors"
	"io"
	"math/rand/v2"
	"path"
	"strconv"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/journal"
	"github.com/freehold-go/freehold/journal/journaltest"
	"github.com/freehold-go/freehold/pebble"
)

const dataDir = "/data/db"

// aged returns a disk with a database that has tables, a log and three openings, as
// it is behind a kill -9, and the number of its events.
func aged(t *testing.T) (*vfs.MemFS, int) {
	t.Helper()
	const each = 150
	files := vfs.NewCrashableMem()
	for round := range 3 {
		db := openOn(t, files, pebble.Options{})
		for i := range each {
			if _, err := db.Append(t.Context(), one(freehold.Stream("a", strconv.Itoa(round*each+i)), freehold.NoStream, i)); err != nil {
				t.Fatal(err)
			}
			if i == each/2 {
				if err := db.Flush(); err != nil {
					t.Fatal(err)
				}
			}
		}
		if round == 2 {
			copied := files.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 1))})
			if err := db.Close(); err != nil {
				t.Fatal(err)
			}
			return copied, 3 * each
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return nil, 0
}

func contents(t *testing.T, files vfs.FS, name string) []byte {
	t.Helper()
	f, err := files.Open(path.Join(dataDir, name))
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(f)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	return data
}

func replace(t *testing.T, files vfs.FS, name string, data []byte) {
	t.Helper()
	f, err := files.Create(path.Join(dataDir, name), "")
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.Write(data)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		t.Fatal(err)
	}
}

// survey opens a damaged directory and reads all of it. It returns the number of
// events, or the error with which the damage was refused.
func survey(t *testing.T, files vfs.FS) (int, error) {
	t.Helper()
	db, err := pebble.Open(t.Context(), dataDir, "test", journaltest.Types(t), quietly(pebble.Options{CacheBytes: 8 << 20}).On(files))
	if err != nil {
		return 0, err
	}
	head, err := db.Journal().Verify(t.Context(), freehold.Mark{}, nil)
	if err == nil {
		_, err = db.Journal().Streams(t.Context(), "", 10_000)
	}
	if closeErr := db.Close(); err == nil && !errors.Is(closeErr, freehold.ErrLatched) {
		err = closeErr
	}
	return int(head.Position), err
}

func wantClear(t *testing.T, what string, err error) {
	t.Helper()
	if strings.Contains(err.Error(), "\n") || len(err.Error()) > 600 {
		t.Errorf("%s: error is not one line: %q", what, err)
	}
}

// TestFlippedBitsAreRefusedOrHarmless flips a bit in each file at many places: the
// directory is refused, or the damage is named when it is read, or nothing of the
// journal is missing. Never is there a shorter or another history.
func TestFlippedBitsAreRefusedOrHarmless(t *testing.T) {
	t.Parallel()
	files, events := aged(t)
	names, err := files.List(dataDir)
	if err != nil {
		t.Fatal(err)
	}
	refused := map[string]int{}
	r := rand.New(rand.NewPCG(3, 5))
	for _, name := range names {
		data := contents(t, files, name)
		if len(data) == 0 || name == "LOCK" {
			continue
		}
		for range 6 {
			at := r.IntN(len(data))
			copied := files.CrashClone(vfs.CrashCloneCfg{})
			changed := append([]byte{}, data...)
			changed[at] ^= 1 << r.IntN(8)
			replace(t, copied, name, changed)
			n, err := survey(t, copied)
			what := name + " at " + strconv.Itoa(at) + " of " + strconv.Itoa(len(data))
			if err != nil {
				wantClear(t, what, err)
				refused[path.Ext(name)]++
			} else if n != events {
				t.Errorf("%s: %d events of %d, and no error", what, n, events)
			}
		}
	}
	if refused[".sst"] == 0 || refused[".log"] == 0 {
		t.Errorf("refusals by file: %v, want some for tables and logs", refused)
	}
}

// TestTruncatedAndMissingFilesAreRefused cuts each file, and takes it away.
func TestTruncatedAndMissingFilesAreRefused(t *testing.T) {
	t.Parallel()
	files, events := aged(t)
	names, err := files.List(dataDir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		data := contents(t, files, name)
		for _, keep := range []int{-1, 0, len(data) / 3, len(data) - 1} {
			if keep >= len(data) || name == "LOCK" {
				continue
			}
			copied := files.CrashClone(vfs.CrashCloneCfg{})
			what := name + " cut to " + strconv.Itoa(keep)
			if keep < 0 {
				what = name + " removed"
				if err := copied.Remove(path.Join(dataDir, name)); err != nil {
					t.Fatal(err)
				}
			} else {
				replace(t, copied, name, data[:keep])
			}
			n, err := survey(t, copied)
			switch {
			case err != nil:
				wantClear(t, what, err)
			case n != events:
				t.Errorf("%s: %d events of %d, and no error", what, n, events)
			}
		}
	}
}

// TestAByteThatWentFromPayloadToNonceIsFound: the digest is of both without a boundary.
func TestAByteThatWentFromPayloadToNonceIsFound(t *testing.T) {
	t.Parallel()
	db := openOn(t, vfs.NewCrashableMem(), pebble.Options{})
	defer db.Close()
	for i := range 5 {
		if _, err := db.Append(t.Context(), one("a-1", freehold.At(freehold.Version(i)), i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := db.Shift(3); err != nil {
		t.Fatal(err)
	}
	// The next append makes a view of what is stored now.
	if _, err := db.Append(t.Context(), one("a-1", freehold.At(5), 5)); err != nil {
		t.Fatal(err)
	}
	if at, err := db.Journal().Verify(t.Context(), freehold.Mark{}, nil); !errors.Is(err, journal.ErrAltered) || at.Position != 2 {
		t.Errorf("verify: up to %d, %v, want ErrAltered behind 2", at.Position, err)
	}
}
