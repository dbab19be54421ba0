package pebble_test

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/journal/journaltest"
	"github.com/freehold-go/freehold/kv"
	"github.com/freehold-go/freehold/pebble"
)

func quietly(o pebble.Options) pebble.Options {
	o.Log = slog.New(slog.DiscardHandler)
	return o
}

func openOn(t testing.TB, files vfs.FS, o pebble.Options) *pebble.DB {
	t.Helper()
	db, err := pebble.Open(t.Context(), "/data/db", "test", journaltest.Types(t), quietly(o).On(files))
	if err != nil {
		t.Fatal(err)
	}
	return db
}

func one(stream freehold.StreamID, expect freehold.Expect, n int) freehold.Write {
	return freehold.Write{Stream: stream, Expect: expect, Events: []freehold.Event{journaltest.Happened{N: n}}}
}

// gate is a disk whose syncs of the log can be held up or made to fail.
type gate struct {
	mu      sync.Mutex
	held    chan struct{} // nil: open
	reached chan struct{} // gets a value for each sync that is held
	fail    func(errorfs.Op) error
}

func (g *gate) String() string { return "gate" }

func (g *gate) MaybeError(op errorfs.Op) error {
	g.mu.Lock()
	held := g.held
	g.mu.Unlock()
	if held != nil && strings.HasSuffix(op.Path, ".log") && (op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData) {
		select {
		case g.reached <- struct{}{}:
		default:
		}
		<-held
	}
	g.mu.Lock()
	fail := g.fail
	g.mu.Unlock()
	if fail != nil {
		return fail(op)
	}
	return nil
}

// hold stops the syncs of the log until the returned function is called.
func (g *gate) hold() (release func()) {
	held := make(chan struct{})
	g.mu.Lock()
	g.held = held
	g.mu.Unlock()
	return func() {
		g.mu.Lock()
		g.held = nil
		g.mu.Unlock()
		close(held)
	}
}

func (g *gate) failWith(fail func(errorfs.Op) error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.fail = fail
}

func newGate() (*gate, vfs.FS) {
	g := &gate{reached: make(chan struct{}, 1)}
	return g, errorfs.Wrap(vfs.NewCrashableMem(), g)
}

type answer struct {
	token freehold.Token
	err   error
}

func appendLater(t *testing.T, db *pebble.DB, w freehold.Write) chan answer {
	answers := make(chan answer, 1)
	go func() {
		token, err := db.Append(context.WithoutCancel(t.Context()), w)
		answers <- answer{token, err}
	}()
	return answers
}

// TestNothingIsAnsweredOrVisibleBeforeTheSync holds the log's sync and looks from
// all sides at what has been applied already.
func TestNothingIsAnsweredOrVisibleBeforeTheSync(t *testing.T) {
	t.Parallel()
	g, files := newGate()
	db := openOn(t, files, pebble.Options{})
	defer db.Close()
	if _, err := db.Append(t.Context(), one("a-1", freehold.NoStream, 1)); err != nil {
		t.Fatal(err)
	}
	release := g.hold()
	written := make(chan answer, 1)
	ran := make(chan struct{})
	go func() {
		token, err := db.Update(context.WithoutCancel(t.Context()), func(ctx context.Context, tx kv.Tx) error {
			if err := tx.Put(ctx, "key", []byte("unsynced")); err != nil {
				return err
			}
			_, err := tx.Append(ctx, "a-2", freehold.NoStream, journaltest.Happened{N: 2})
			close(ran)
			return err
		})
		written <- answer{token, err}
	}()
	<-ran
	<-g.reached // the batch is applied, its sync is held
	// Who comes behind sees it, and fails by it: neither may be told yet.
	conflicting := appendLater(t, db, one("a-2", freehold.NoStream, 3))
	read := make(chan answer, 1)
	saw := make(chan string, 1)
	go func() {
		token, err := db.Update(context.WithoutCancel(t.Context()), func(ctx context.Context, tx kv.Tx) error {
			v, _, err := tx.Get(ctx, "key")
			saw <- string(v)
			return err
		})
		read <- answer{token, err}
	}()
	if v := <-saw; v != "unsynced" {
		t.Errorf("a later closure reads %q, want what the one before wrote", v)
	}
	_, head, err := db.Journal().Bounds(t.Context())
	if err != nil || head.Position != 1 {
		t.Errorf("head %d, %v while position 2 is not synced", head.Position, err)
	}
	if rs, err := db.Journal().Read(t.Context(), freehold.Mark{Source: "test"}, 10); err != nil || len(rs) != 1 {
		t.Errorf("the journal shows %d events, %v, want 1", len(rs), err)
	}
	for range db.Events(t.Context(), "a-2", 0) {
		t.Error("the stream shows an event that is not synced")
	}
	if streams, err := db.Journal().Streams(t.Context(), "", 10); err != nil || len(streams) != 1 {
		t.Errorf("streams %v, %v, want one", streams, err)
	}
	err = db.View(t.Context(), func(ctx context.Context, tx kv.Tx) error {
		if v, found, err := tx.Get(ctx, "key"); found || err != nil {
			t.Errorf("a View reads %q, %v, which is not synced", v, err)
		}
		if tx.Mark().Position != 1 {
			t.Errorf("a View's mark is %d, want 1", tx.Mark().Position)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	short, stop := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer stop()
	if err := db.Journal().Wait(short, head); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Wait returned %v before the sync", err)
	}
	for name, answers := range map[string]chan answer{"the writer": written, "the conflicting caller": conflicting, "the reading closure": read} {
		if len(answers) > 0 {
			t.Errorf("%s was answered before the sync", name)
		}
	}
	release()
	if a := <-written; a.err != nil || a.token.Of("test")[0].Position != 2 {
		t.Errorf("the writer: %v %v", a.token, a.err)
	}
	var conflict *freehold.Conflict
	if a := <-conflicting; !errors.As(a.err, &conflict) || conflict.Actual != 1 {
		t.Errorf("the conflicting caller: %v, want a conflict at version 1", a.err)
	}
	if a := <-read; a.err != nil || a.token.Of("test")[0].Position != 2 {
		t.Errorf("the reading closure: %v %v", a.token, a.err)
	}
	err = db.View(t.Context(), func(ctx context.Context, tx kv.Tx) error {
		if v, _, err := tx.Get(ctx, "key"); string(v) != "unsynced" || err != nil {
			t.Errorf("a View behind the answer reads %q, %v", v, err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// TestFailedSyncLatches makes the log's sync fail: nobody learns of a success or a
// conflict that may not exist after a restart, and what was durable stays readable.
func TestFailedSyncLatches(t *testing.T) {
	t.Parallel()
	for name, failing := range map[string]func(errorfs.Op) error{
		"sync": func(op errorfs.Op) error {
			if strings.HasSuffix(op.Path, ".log") && (op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData) {
				return syscall.EIO
			}
			return nil
		},
		"write, the disk is full": func(op errorfs.Op) error {
			if strings.HasSuffix(op.Path, ".log") && op.Kind == errorfs.OpFileWrite {
				return syscall.ENOSPC
			}
			return nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g, files := newGate()
			db := openOn(t, files, pebble.Options{})
			if _, err := db.Append(t.Context(), one("a-1", freehold.NoStream, 1)); err != nil {
				t.Fatal(err)
			}
			release := g.hold()
			first := appendLater(t, db, one("a-2", freehold.NoStream, 2))
			<-g.reached
			second := appendLater(t, db, one("a-3", freehold.NoStream, 3))
			read := make(chan struct{})
			third := make(chan error, 1)
			go func() {
				_, err := db.Update(context.WithoutCancel(t.Context()), func(ctx context.Context, tx kv.Tx) error {
					close(read)
					_, err := tx.Append(ctx, "a-2", freehold.NoStream, journaltest.Happened{N: 4})
					return err
				})
				third <- err
			}()
			<-read
			g.failWith(failing)
			release()
			if a := <-second; !errors.Is(a.err, freehold.ErrUnknown) && !errors.Is(a.err, freehold.ErrLatched) {
				t.Errorf("second: %v, want ErrUnknown or ErrLatched", a.err)
			}
			a, err := <-first, <-third
			var conflict *freehold.Conflict
			if !errors.Is(err, freehold.ErrLatched) && !(a.err == nil && errors.As(err, &conflict)) {
				t.Errorf("a closure that ran into what was lost: %v, want ErrLatched", err)
			}
			if name == "sync" && (!errors.Is(a.err, freehold.ErrUnknown) || errors.Is(a.err, freehold.ErrLatched)) {
				t.Errorf("first: %v, want ErrUnknown", a.err)
			}
			latched(t, db)
			// Opened again after the power cut, all that was told is there.
			again := openOn(t, crashed(files, 0), pebble.Options{})
			defer again.Close()
			rs, err := again.Journal().Read(t.Context(), freehold.Mark{Source: "test"}, 10)
			if err != nil || len(rs) == 0 || rs[0].Stream != "a-1" || a.err == nil && len(rs) < 2 {
				t.Errorf("after the restart: %d events, %v", len(rs), err)
			}
		})
	}
}

// latched checks what a latched database still does, and closes it.
func latched(t *testing.T, db *pebble.DB) {
	t.Helper()
	if _, err := db.Append(t.Context(), one("b-1", freehold.Any, 9)); !errors.Is(err, freehold.ErrLatched) || strings.Contains(err.Error(), "\n") {
		t.Errorf("append: %v, want ErrLatched in one line", err)
	}
	if _, err := db.Update(t.Context(), func(context.Context, kv.Tx) error { t.Error("a closure ran"); return nil }); !errors.Is(err, freehold.ErrLatched) {
		t.Errorf("update: %v, want ErrLatched", err)
	}
	if rs, err := db.Journal().Read(t.Context(), freehold.Mark{Source: "test"}, 1); err != nil || len(rs) != 1 {
		t.Errorf("what was durable cannot be read: %d events, %v", len(rs), err)
	}
	if err := db.View(t.Context(), func(ctx context.Context, tx kv.Tx) error { _, _, err := tx.Get(ctx, "k"); return err }); err != nil {
		t.Errorf("view: %v", err)
	}
	if err := db.Close(); !errors.Is(err, freehold.ErrLatched) {
		t.Errorf("close: %v, want ErrLatched", err)
	}
}

// crashed is the disk after a power cut, with a share of what was not synced.
func crashed(files vfs.FS, percent int) *vfs.MemFS {
	return files.(*errorfs.FS).Unwrap().(*vfs.MemFS).CrashClone(vfs.CrashCloneCfg{
		UnsyncedDataPercent: percent, RNG: rand.New(rand.NewPCG(uint64(percent), 11))})
}

// TestFullDiskLatchesWhateverFileIsWritten lets the disk fill up while tables, the
// manifest or a new log are written, with callers that write on: the process lives,
// every caller is answered, and nothing told is lost.
func TestFullDiskLatchesWhateverFileIsWritten(t *testing.T) {
	t.Parallel()
	kinds := map[string]func(op errorfs.Op) bool{
		"table":     func(op errorfs.Op) bool { return strings.HasSuffix(op.Path, ".sst") && op.Kind == errorfs.OpFileWrite },
		"new table": func(op errorfs.Op) bool { return strings.HasSuffix(op.Path, ".sst") && op.Kind == errorfs.OpCreate },
		"table sync": func(op errorfs.Op) bool {
			return strings.HasSuffix(op.Path, ".sst") && (op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData || op.Kind == errorfs.OpFileSyncTo)
		},
		"manifest": func(op errorfs.Op) bool {
			return strings.Contains(op.Path, "MANIFEST") && op.Kind == errorfs.OpFileWrite
		},
		"new log":   func(op errorfs.Op) bool { return strings.HasSuffix(op.Path, ".log") && op.Kind == errorfs.OpCreate },
		"directory": func(op errorfs.Op) bool { return strings.HasSuffix(op.Path, "db") && op.Kind == errorfs.OpFileSync },
	}
	for name, kind := range kinds {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g, files := newGate()
			db := openOn(t, files, pebble.Options{})
			if _, err := db.Append(t.Context(), one("a-1", freehold.NoStream, 1)); err != nil {
				t.Fatal(err)
			}
			g.failWith(func(op errorfs.Op) error {
				if kind(op) {
					return syscall.ENOSPC
				}
				return nil
			})
			// More than all memtables hold, so that the writer is held by Pebble.
			text := strings.Repeat("x", 400<<10)
			var told atomic.Int64
			var callers sync.WaitGroup
			for c := range 8 {
				callers.Go(func() {
					for i := range 60 {
						_, err := db.Append(t.Context(), freehold.Write{Stream: freehold.Stream("c", strconv.Itoa(c)+"."+strconv.Itoa(i)), Expect: freehold.NoStream,
							Events: []freehold.Event{journaltest.Happened{N: i, Text: text}}})
						switch {
						case err == nil:
							told.Add(1)
						case errors.Is(err, freehold.ErrUnknown), errors.Is(err, freehold.ErrLatched):
							return
						default:
							t.Errorf("append: %v", err)
							return
						}
					}
					t.Error("never latched")
				})
			}
			callers.Wait()
			latched(t, db)
			again := openOn(t, crashed(files, 0), pebble.Options{})
			defer again.Close()
			head, err := again.Journal().Verify(t.Context(), freehold.Mark{}, nil)
			if err != nil || int64(head.Position) < told.Load()+1 {
				t.Errorf("after the restart: %d events, %v; %d were told", head.Position, err, told.Load()+1)
			}
		})
	}
}

// TestFullDiskAtOpening refuses in one line instead of trying for ever.
func TestFullDiskAtOpening(t *testing.T) {
	t.Parallel()
	for _, suffix := range []string{".log", ".sst", "MANIFEST", "OPTIONS", "marker", ".dbtmp"} {
		t.Run(suffix, func(t *testing.T) {
			t.Parallel()
			g, files := newGate()
			db := openOn(t, files, pebble.Options{})
			if _, err := db.Append(t.Context(), one("a-1", freehold.NoStream, 1)); err != nil {
				t.Fatal(err)
			}
			// Not closed: the log must be written to a table when it is opened.
			cut := &gate{}
			again := errorfs.Wrap(crashed(files, 100), cut)
			full := false
			cut.failWith(func(op errorfs.Op) error {
				if strings.Contains(op.Path, suffix) && (op.Kind == errorfs.OpCreate || op.Kind == errorfs.OpFileWrite) {
					full = true
					return syscall.ENOSPC
				}
				return nil
			})
			_, err := pebble.Open(t.Context(), "/data/db", "test", journaltest.Types(t), quietly(pebble.Options{}).On(again))
			if full && (err == nil || !strings.Contains(err.Error(), "disk is full") || strings.Contains(err.Error(), "\n")) {
				t.Errorf("opening: %v, want one line that says that the disk is full", err)
			}
			if !full && suffix != "marker" && suffix != "OPTIONS" {
				t.Error("the disk was not written")
			}
			g.failWith(nil)
			if err := db.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestPowerCutKeepsAllThatWasToldOrSeen cuts the power at random moments of a run
// and keeps a random share of what was not synced.
func TestPowerCutKeepsAllThatWasToldOrSeen(t *testing.T) {
	t.Parallel()
	for _, percent := range []int{0, 30, 80, 100} {
		t.Run(strconv.Itoa(percent), func(t *testing.T) {
			t.Parallel()
			_, files := newGate()
			db := openOn(t, files, pebble.Options{})
			var told, stop atomic.Int64
			var callers sync.WaitGroup
			for c := range 8 {
				callers.Go(func() {
					for i := 0; stop.Load() == 0; i++ {
						key := strconv.Itoa(c) + "." + strconv.Itoa(i)
						_, err := db.Update(t.Context(), func(ctx context.Context, tx kv.Tx) error {
							if _, err := tx.Add(ctx, "count", 1, 0); err != nil {
								return err
							}
							_, err := tx.Append(ctx, freehold.Stream("c", key), freehold.NoStream, journaltest.Happened{N: i})
							return err
						})
						if err != nil {
							t.Error(err)
							return
						}
						told.Add(1)
					}
				})
			}
			for cut := range 12 {
				for told.Load() < int64(cut*40) {
					if err := db.Journal().Wait(t.Context(), freehold.Mark{Position: freehold.Position(told.Load())}); err != nil {
						t.Fatal(err)
					}
				}
				before := told.Load()
				_, seen, err := db.Journal().Bounds(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				second := crashed(files, percent)
				again := openOn(t, second, pebble.Options{})
				head, err := again.Journal().Verify(t.Context(), freehold.Mark{}, nil)
				if err != nil || int64(head.Position) < before || head.Position < seen.Position {
					t.Errorf("after the cut: %d events, %v; told %d, seen %d", head.Position, err, before, seen.Position)
				}
				if at, err := again.Journal().At(t.Context(), seen.Position); err != nil || at.Chain != seen.Chain {
					t.Errorf("what was seen at %d is another history: %v", seen.Position, err)
				}
				// What is seen after a cut survives the next one.
				twice := openOn(t, second.CrashClone(vfs.CrashCloneCfg{}), pebble.Options{})
				if _, last, err := twice.Journal().Bounds(t.Context()); err != nil || last.Position != head.Position || last.Chain != head.Chain {
					t.Errorf("a second cut took it back from %d to %d, %v", head.Position, last.Position, err)
				}
				if err := twice.Close(); err != nil {
					t.Error(err)
				}
				err = again.View(t.Context(), func(ctx context.Context, tx kv.Tx) error {
					if v, _, err := tx.Get(ctx, "count"); err != nil || string(v) != strconv.Itoa(int(head.Position)) && head.Position > 0 {
						t.Errorf("count is %s, %v with %d events", v, err, head.Position)
					}
					return nil
				})
				if err := errors.Join(err, again.Close()); err != nil {
					t.Error(err)
				}
			}
			stop.Store(1)
			callers.Wait()
			if err := db.Close(); err != nil {
				t.Error(err)
			}
			if told.Load() < 440 {
				t.Errorf("only %d transactions", told.Load())
			}
		})
	}
}

// TestDisposableGoesBackAsAWhole cuts the power under a read model: effects and mark
// are of one moment, and an event that a handler wrote is on disk.
func TestDisposableGoesBackAsAWhole(t *testing.T) {
	t.Parallel()
	_, files := newGate()
	db := openOn(t, files, pebble.Options{Disposable: true})
	defer db.Close()
	mark := freehold.Mark{Source: "there"}
	apply := func(n int) {
		_, err := db.Update(t.Context(), func(ctx context.Context, tx kv.Tx) error {
			next := freehold.Mark{Source: "there", Epoch: "e", Position: freehold.Position(n), Chain: freehold.Hash{byte(n)}}
			if err := db.Keeper(tx).Move(ctx, "f", mark, next); err != nil {
				return err
			}
			mark = next
			return tx.Put(ctx, "at", []byte(strconv.Itoa(n)))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	syncs := db.Syncs()
	for n := range 100 {
		apply(n + 1)
	}
	if n := db.Syncs() - syncs; n > 0 {
		t.Errorf("%d syncs for effects that can be applied again", n)
	}
	for _, percent := range []int{0, 50, 100} {
		again := openOn(t, crashed(files, percent), pebble.Options{Disposable: true})
		err := again.View(t.Context(), func(ctx context.Context, tx kv.Tx) error {
			m, err := again.Keeper(tx).Mark(ctx, "f", "there")
			v, _, err2 := tx.Get(ctx, "at")
			if string(v) != strconv.Itoa(int(m.Position)) && m.Position != 0 {
				t.Errorf("mark %d beside effects of %s", m.Position, v)
			}
			return errors.Join(err, err2)
		})
		if err := errors.Join(err, again.Close()); err != nil {
			t.Error(err)
		}
	}
	if _, err := db.Append(t.Context(), one("a-1", freehold.NoStream, 1)); err != nil {
		t.Fatal(err)
	}
	again := openOn(t, crashed(files, 0), pebble.Options{Disposable: true})
	defer again.Close()
	if _, head, err := again.Journal().Bounds(t.Context()); err != nil || head.Position != 1 {
		t.Errorf("an event that was told of is gone: head %d, %v", head.Position, err)
	}
}
