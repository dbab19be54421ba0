// Package pebble is the embedded key-value engine: a service's values and its
// journal in one Pebble directory.
//
// # Guarantees
//
// State, events and marks of a closure are one batch: all of it is there after a
// crash, or nothing (G1). No caller is answered before the sync of its batch and
// of everything it may have read; nothing beyond the durable head is read by
// followers, served or published (Pebble itself shows a batch before its sync).
//
// # Ordering
//
// One writer runs closures one after the other; syncs are shared and waited for
// behind it, in order.
//
// # Failure
//
// After an error of the write-ahead log nothing in memory can be trusted: callers
// under way get freehold.ErrUnknown, later ones freehold.ErrLatched, until the
// process restarts.
package pebble

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/internal/writer"
	"github.com/freehold-go/freehold/journal"
	"github.com/freehold-go/freehold/kv"
)

// Options tune a database; the zero value is good.
type Options struct {
	// Disposable commits without waiting for the disk. The mark beside the effects
	// keeps a read model consistent: after a power cut it follows again from where
	// it was. Not for data that a service owns.
	Disposable bool
	// Warn and Cancel bound how long a closure may hold the writer: 0 is 100 ms
	// and 5 s.
	Warn, Cancel time.Duration
	// CacheBytes is the block cache. 0 is 16 MiB.
	CacheBytes int64
	// FS is the file system, for tests. nil is the operating system's.
	FS vfs.FS
	// Log is where warnings go. nil is slog.Default().
	Log *slog.Logger
}

// Key spaces, by their first byte. Numbers are 8 bytes, big-endian.
const (
	keyMeta        = 'h' // the journal's name and epoch
	keyIncarnation = 'i' // number
	keyEvent       = 'j' // position
	keyStream      = 's' // stream, 0, version: position
	keyVersion     = 'v' // stream: version
	keyMark        = 'm' // follower, 0x1f, source
	keyKeep        = 'k' // space, 0x1e, key
	keyData        = 'd' // the service's own
)

const formatVersion = 1

type meta struct {
	Source freehold.Source `json:"source"`
	Epoch  freehold.Epoch  `json:"epoch"`
	Format int             `json:"format"`
}

// DB is an open database. It is safe for concurrent use.
type DB struct {
	dir     string
	name    freehold.Source
	types   *freehold.Catalog
	log     *slog.Logger
	sync    *pebble.WriteOptions
	audit   []string
	kv      *pebble.DB
	cache   *pebble.Cache
	queue   *writer.Queue[*job]
	tail    *journal.Tail
	journal *journal.Journal
	latched atomic.Pointer[error]

	syncing chan syncing
	synced  chan struct{} // closed when the syncer has ended

	mu      sync.Mutex
	epoch   freehold.Epoch
	head    freehold.Mark // durable
	applied uint64        // batches handed to Pebble
	durable uint64        // of which are synced
	news    chan struct{} // closed and replaced when durable moves

	commitHook atomic.Pointer[func() error] // for tests: fails commits
}

// Open opens or creates the database in a directory, whose journal has the given
// name and event types. It refuses a directory that another process has open,
// that is damaged, or that belongs to another journal or a newer program.
func Open(ctx context.Context, dir string, name freehold.Source, types *freehold.Catalog, o *Options) (*DB, error) {
	if err := name.Validate(); err != nil {
		return nil, err
	}
	var opts Options
	if o != nil {
		opts = *o
	}
	if opts.CacheBytes <= 0 {
		opts.CacheBytes = 16 << 20
	}
	if opts.Log == nil {
		opts.Log = slog.Default()
	}
	if opts.FS == nil {
		opts.FS = vfs.Default
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("pebble: %w", err)
	}
	if err := checkDir(opts.FS, dir); err != nil {
		return nil, err
	}
	db := &DB{dir: dir, name: name, types: types, log: opts.Log, sync: pebble.Sync, news: make(chan struct{}),
		syncing: make(chan syncing, 1024), synced: make(chan struct{})}
	db.audit = []string{"write-ahead log on", "every batch is synced before it is answered"}
	if opts.Disposable {
		db.sync = pebble.NoSync
		db.audit = []string{"disposable: a power cut may lose the last batches, which are followed again"}
	}
	db.queue = writer.New[*job](writer.Options{Warn: opts.Warn, Cancel: opts.Cancel, Log: opts.Log})
	db.cache = pebble.NewCache(opts.CacheBytes)
	db.kv, err = pebble.Open(dir, &pebble.Options{
		FS: opts.FS, Cache: db.cache, Logger: logger{opts.Log, dir}, MemTableSize: 16 << 20, ErrorIfNotExists: false,
		FormatMajorVersion: pebble.FormatNewest,
	})
	if err != nil {
		db.cache.Unref()
		if strings.Contains(err.Error(), "lock") {
			return nil, fmt.Errorf("pebble: %s is open in another process: stop it first, or use another data directory", dir)
		}
		return nil, fmt.Errorf("pebble: %s: %w: if the files are damaged, restore them from a backup", dir, err)
	}
	if err := db.begin(ctx); err != nil {
		return nil, errors.Join(err, db.release())
	}
	go db.loop()
	go db.awaitSyncs()
	return db, nil
}

// checkDir refuses a directory that holds something else than a Pebble database.
func checkDir(fs vfs.FS, dir string) error {
	names, err := fs.List(dir)
	if err != nil || len(names) == 0 {
		return nil // Pebble creates it
	}
	for _, name := range names {
		if strings.HasPrefix(name, "MANIFEST") || strings.HasPrefix(name, "marker") || name == "LOCK" {
			return nil
		}
	}
	return fmt.Errorf("pebble: %s is not empty and holds no Pebble database: give another directory", dir)
}

// begin reads where the journal stands, and records this opening.
func (db *DB) begin(ctx context.Context) error {
	db.journal = journal.New(store{db}, db.types)
	m := meta{Source: db.name, Epoch: freehold.Epoch(journal.NewEpoch()), Format: formatVersion}
	raw, found, err := get(db.kv, []byte{keyMeta})
	if err != nil {
		return db.wrap(err)
	}
	if found {
		if err := json.Unmarshal(raw, &m); err != nil {
			return db.wrap(fmt.Errorf("journal's name: %w", err))
		}
	}
	switch {
	case m.Source != db.name:
		return fmt.Errorf("pebble: %s holds the journal of %q, not of %q: give another directory", db.dir, m.Source, db.name)
	case m.Format > formatVersion:
		return fmt.Errorf("pebble: %s has format %d, this program knows %d: update the program", db.dir, m.Format, formatVersion)
	}
	db.epoch = m.Epoch
	head := freehold.Mark{Source: db.name, Epoch: m.Epoch}
	it, err := db.kv.NewIter(&pebble.IterOptions{LowerBound: []byte{keyEvent}, UpperBound: []byte{keyEvent + 1}})
	if err != nil {
		return db.wrap(err)
	}
	if it.Last() {
		var r freehold.Recorded
		if r, err = db.decode(it.Key(), it.Value()); err == nil {
			head = r.At
		}
	}
	if err := errors.Join(err, it.Close()); err != nil {
		return db.wrap(err)
	}
	incarnations, err := store{db}.Incarnations(ctx)
	if err != nil {
		return db.wrap(err)
	}
	in := journal.Incarnation{ID: journal.NewEpoch(), Start: head, Time: journal.Now()}
	rawIn, err := json.Marshal(in)
	if err != nil {
		return err
	}
	if raw, err = json.Marshal(m); err != nil {
		return err
	}
	b := db.kv.NewBatch()
	defer b.Close()
	err = errors.Join(b.Set([]byte{keyMeta}, raw, nil), b.Set(numbered(keyIncarnation, int64(len(incarnations))), rawIn, nil), b.Commit(db.sync))
	if err != nil {
		return db.wrap(err)
	}
	db.head = head
	db.tail = journal.NewTail(head, in.ID, db.version)
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

func (db *DB) wrap(err error) error { return fmt.Errorf("pebble: %s: %w", db.dir, err) }

// Journal is the database's log.
func (db *DB) Journal() *journal.Journal { return db.journal }

// Audit says in words which durability settings the open database has.
func (db *DB) Audit() []string { return db.audit }

// Events yields a stream's committed events behind a version, oldest first.
func (db *DB) Events(ctx context.Context, s freehold.StreamID, after freehold.Version) iter.Seq2[freehold.Recorded, error] {
	return db.journal.Stream(ctx, s, after)
}

// Keeper returns what followers keep, as part of tx.
func (db *DB) Keeper(tx kv.Tx) follow.Keeper { return keeper{tx.(*transaction)} }

// Close finishes what is queued and closes the directory. Later calls return
// freehold.ErrClosed.
func (db *DB) Close() error {
	db.queue.Close()
	<-db.queue.Done()
	<-db.synced
	return db.release()
}

func (db *DB) release() error {
	err := db.kv.Close()
	db.cache.Unref()
	return err
}

// View runs fn on a snapshot; see freehold.DB. It returns when what the snapshot
// holds is durable.
func (db *DB) View(ctx context.Context, fn func(ctx context.Context, tx kv.Tx) error) error {
	select {
	case <-db.queue.Done():
		return freehold.ErrClosed
	default:
	}
	db.mu.Lock()
	head, applied := db.head, db.applied
	snapshot := db.kv.NewSnapshot()
	db.mu.Unlock()
	tx := &transaction{db: db, now: journal.Now(), mark: head, from: snapshot}
	err := func() error {
		defer snapshot.Close()
		defer tx.end()
		return fn(ctx, tx)
	}()
	if err != nil {
		return err
	}
	return db.untilDurable(ctx, applied)
}

func (db *DB) untilDurable(ctx context.Context, batch uint64) error {
	for {
		db.mu.Lock()
		durable, news := db.durable, db.news
		db.mu.Unlock()
		if durable >= batch {
			return nil
		}
		if err := db.latchedError(); err != nil {
			return err
		}
		select {
		case <-news:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

var _ follow.DB[kv.Tx] = (*DB)(nil)

// logger hands Pebble's messages on. After a fatal one the process must end:
// Pebble can neither go on nor return it.
type logger struct {
	log *slog.Logger
	dir string
}

func (l logger) Infof(format string, args ...any) {}
func (l logger) Errorf(format string, args ...any) {
	l.log.Error(fmt.Sprintf(format, args...), "database", l.dir)
}
func (l logger) Fatalf(format string, args ...any) {
	l.log.Error("database cannot go on: look at the disk and start again: "+fmt.Sprintf(format, args...), "database", l.dir)
	os.Exit(1)
}

func numbered(prefix byte, n int64) []byte {
	return binary.BigEndian.AppendUint64([]byte{prefix}, uint64(n))
}

func get(r pebble.Reader, key []byte) ([]byte, bool, error) {
	raw, closer, err := r.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	value := append([]byte{}, raw...)
	return value, true, closer.Close()
}
