package pebble

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	lib "github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/internal/writer"
	"github.com/freehold-go/freehold/journal"
	"github.com/freehold-go/freehold/kv"
)

// Options tune a database; the zero value is good.
type Options struct {
	// Relaxed commits without waiting for the disk: after a power cut the last
	// transactions may be gone, published or not. For tests.
	Relaxed bool
	// Disposable is for read models: what carries no events is committed without
	// waiting for the disk. The marks are as old as the effects beside them, so that
	// after a power cut the followers apply again what is missing.
	Disposable bool
	// Warn and Cancel bound how long a closure may hold the writer: 0 is 100 ms
	// and 5 s.
	Warn, Cancel time.Duration
	// CacheBytes bounds the memory for blocks and memtables. 0 is 64 MiB; below 32
	// MiB reads slow down.
	CacheBytes int64
	// Log is where warnings go. nil is slog.Default().
	Log *slog.Logger

	fs vfs.FS // nil is the operating system's
}

// DB is an open database. It is safe for concurrent use.
type DB struct {
	dir     string
	name    freehold.Source
	types   *freehold.Catalog
	log     *slog.Logger
	audit   []string
	lazy    bool // commits without events are not synced
	relaxed bool // no commit is synced
	disk    *disk
	kv      *lib.DB
	epoch   freehold.Epoch
	queue   *writer.Queue[*job]
	tail    *journal.Tail
	journal *journal.Journal

	latched   atomic.Pointer[latch]
	latchedCh chan struct{} // closed behind latched

	stage  atomic.Int32 // of the writer; see apply
	group  []*writer.Job[*job]
	flight flight // what the writer has not handed over yet
	absent bool   // the stream that the tail asks for has no events

	appends atomic.Int64 // calls of Tail.Append so far
	sync    syncer
	wit     witness

	mu      sync.Mutex // of what is below
	view    *view      // the durable state; nil when closed
	news    chan struct{}
	readers sync.WaitGroup
	spent   []*lib.Snapshot // to be closed

	commitHook atomic.Pointer[func() error] // for tests: fails commits
}

// Open opens or creates the database in a directory, whose journal has the given
// name and event types. It refuses a directory that another process has open,
// that is damaged, that holds something else, or that belongs to another journal
// or to a newer program.
func Open(ctx context.Context, dir string, name freehold.Source, types *freehold.Catalog, o *Options) (*DB, error) {
	if err := name.Validate(); err != nil {
		return nil, err
	}
	var opts Options
	if o != nil {
		opts = *o
	}
	if opts.CacheBytes <= 0 {
		opts.CacheBytes = 64 << 20
	}
	if opts.Log == nil {
		opts.Log = slog.Default()
	}
	if opts.fs == nil {
		opts.fs = vfs.Default
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("pebble: %w", err)
	}
	db := &DB{dir: dir, name: name, types: types, log: opts.Log, relaxed: opts.Relaxed, lazy: opts.Disposable || opts.Relaxed,
		latchedCh: make(chan struct{}), news: make(chan struct{})}
	db.disk = &disk{FS: opts.fs, fail: db.latch}
	db.sync.init()
	db.queue = writer.New[*job](writer.Options{Warn: opts.Warn, Cancel: opts.Cancel, Log: opts.Log})
	if err := checkDir(opts.fs, dir); err != nil {
		return nil, err
	}
	// Pebble does not come back from some errors of the disk.
	opened := make(chan error, 1)
	go func() { opened <- db.open(ctx, opts) }()
	select {
	case err = <-opened:
	case <-db.latchedCh:
	}
	if latched := db.latched.Load(); latched != nil {
		return nil, errors.Join(db.refusal(latched.cause), db.disk.unlock())
	}
	if err != nil {
		return nil, err
	}
	go db.write()
	go db.awaitSyncs()
	go db.undertake()
	return db, nil
}

func (db *DB) open(ctx context.Context, opts Options) (err error) {
	if db.kv, err = openLib(db.dir, db.options(opts)); err != nil {
		return db.refusal(err)
	}
	if err := db.begin(ctx); err != nil {
		if db.view != nil {
			err = errors.Join(err, db.view.snapshot.Close())
		}
		return errors.Join(err, db.wit.close(), db.kv.Close())
	}
	return nil
}

// options are Pebble's.
func (db *DB) options(opts Options) *lib.Options {
	o := &lib.Options{
		FS: db.disk, CacheSize: opts.CacheBytes, MemTableSize: 16 << 20, Logger: logger{db}, MaxOpenFiles: 256,
		// The log of this format tells a cut-off end from a damaged middle.
		FormatMajorVersion: lib.FormatWALSyncChunks,
		EventListener: &lib.EventListener{
			BackgroundError: func(err error) { db.log.Error("pebble: background error", "path", db.dir, "error", err) },
			DataCorruption:  func(info lib.DataCorruptionInfo) { db.latch(info.Details) },
		},
	}
	for i := range o.Levels {
		o.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
		o.Levels[i].BlockSize = 16 << 10
		o.Levels[i].IndexBlockSize = 256 << 10
	}
	return o
}

// openLib opens Pebble's own database. Pebble panics on some damages.
func openLib(dir string, o *lib.Options) (d *lib.DB, err error) {
	defer func() {
		if p := recover(); p != nil {
			d, err = nil, fmt.Errorf("%v: %w", p, lib.ErrCorruption)
		}
	}()
	return lib.Open(dir, o)
}

// begin reads where the journal stands, records this opening with a synced commit,
// and audits what durability rests on.
func (db *DB) begin(ctx context.Context) error {
	m, err := db.readMeta()
	if err != nil {
		return err
	}
	db.epoch = m.Epoch
	head, err := db.lastEvent()
	if err != nil {
		return db.wrap(err)
	}
	number, err := db.nextIncarnation()
	if err != nil {
		return db.wrap(err)
	}
	in := journal.Incarnation{ID: journal.NewEpoch(), Start: head, Time: journal.Now()}
	rawMeta, err := json.Marshal(m)
	if err != nil {
		return err
	}
	rawIn, err := json.Marshal(in)
	if err != nil {
		return err
	}
	if err := db.wit.open(db, head); err != nil {
		return err
	}
	b := db.kv.NewBatch()
	syncs := db.disk.syncs.Load()
	err = errors.Join(b.Set([]byte{kindJournal}, rawMeta, nil), b.Set(numbered(kindIncarnation, number), rawIn, nil), b.Commit(lib.Sync), b.Close())
	if err != nil {
		return db.wrap(err)
	}
	if err := db.auditSettings(db.disk.syncs.Load() > syncs); err != nil {
		return err
	}
	db.journal = journal.New(store{db}, db.types)
	db.tail = journal.NewTail(head, in.ID, db.lookup)
	db.view = &view{head: head, snapshot: db.kv.NewSnapshot()}
	// The last events are checked at each opening; all of them by freehold verify.
	const recent = 256
	from := freehold.Mark{Source: db.name, Epoch: m.Epoch}
	if head.Position > recent {
		if from, err = db.journal.At(ctx, head.Position-recent); err != nil {
			return err
		}
	}
	if _, err := db.journal.Verify(ctx, from, nil); err != nil {
		return fmt.Errorf("pebble: %s is damaged: %w: restore it from a backup", db.dir, err)
	}
	return nil
}

// Journal is the database's log.
func (db *DB) Journal() *journal.Journal { return db.journal }

// Audit says in words which durability settings the open database has.
func (db *DB) Audit() []string { return db.audit }

// Events yields a stream's durable events behind a version, oldest first.
func (db *DB) Events(ctx context.Context, s freehold.StreamID, after freehold.Version) iter.Seq2[freehold.Recorded, error] {
	return db.journal.Stream(ctx, s, after)
}

// Keeper returns what followers keep, as part of tx.
func (db *DB) Keeper(tx kv.Tx) follow.Keeper { return keeper{tx.(*transaction)} }

// Close finishes what is queued, waits for Views and closes the directory. Later
// calls return freehold.ErrClosed.
func (db *DB) Close() error {
	db.queue.Close()
	<-db.queue.Done()
	<-db.sync.ended
	db.mu.Lock()
	v := db.view
	db.view = nil
	db.mu.Unlock()
	if v == nil {
		return nil // closed before
	}
	db.journal.Forget()
	db.readers.Wait()
	snapshots := db.spent
	if !slices.Contains(snapshots, v.snapshot) { // a View may have outlived the line above
		snapshots = append(snapshots, v.snapshot)
	}
	closed := make(chan error, 1)
	go func() {
		select {
		case <-db.latchedCh: // Pebble's own end would write
		default:
			closed <- db.wrap(errors.Join(closeAll(snapshots), db.wit.close(), db.kv.Close()))
		}
	}()
	select {
	case err := <-closed:
		if latched := db.latchedError(); latched != nil {
			return latched
		}
		return err
	case <-db.latchedCh:
		return errors.Join(db.latchedError(), db.disk.unlock())
	}
}

func (db *DB) wrap(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("pebble: %s: %w", db.dir, hint(err))
}

// latch is why a database is read-only for good.
type latch struct{ cause, err error }

// latch stops all writing; see disk.
func (db *DB) latch(cause error) {
	l := &latch{cause, fmt.Errorf("%w: %s: %w", freehold.ErrLatched, db.dir, hint(cause))}
	if db.latched.CompareAndSwap(nil, l) {
		db.disk.latched.Store(true)
		close(db.latchedCh)
		db.log.Error("database latched", "path", db.dir, "error", l.err)
	}
}

func (db *DB) latchedError() error {
	if l := db.latched.Load(); l != nil {
		return l.err
	}
	return nil
}

// logger hands on what Pebble has to say. A fatal message must not return, and
// must not end the process: its goroutine waits for the end.
type logger struct{ db *DB }

func (logger) Infof(string, ...any) {}

func (l logger) Errorf(format string, args ...any) {
	l.db.log.Error("pebble: "+fmt.Sprintf(format, args...), "path", l.db.dir)
}

func (l logger) Fatalf(format string, args ...any) {
	l.db.latch(fmt.Errorf(format, args...))
	l.db.disk.wait()
}

var _ follow.DB[kv.Tx] = (*DB)(nil)
