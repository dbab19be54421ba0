// Package sqlite is the embedded relational engine: a service's tables and its
// journal in one SQLite file, without cgo.
//
// # Guarantees
//
// State, events and marks commit in one transaction (G1), and no caller is
// answered before the commit that carries its work has been synced to disk. The
// settings that this rests on (WAL, synchronous=FULL) are read back when the file
// is opened (G11). One process at a time can open a file. Events cannot be changed
// or deleted, and a table of yours that a DELETE trigger makes insert-only is so for
// INSERT OR REPLACE too: recursive_triggers is on.
//
// # Ordering
//
// One writer runs what callers queue, in the order in which it takes it; callers
// that wait at the same time share one sync. Positions are given by the writer,
// so readers never see a hole (G2).
//
// # Failure
//
// A closure that fails, panics or exits is rolled back to its savepoint without
// harm to its neighbours. If a statement ends the transaction of the whole group,
// each closure of the group runs again alone. After a disk error the database is
// latched: every write returns freehold.ErrLatched until the process restarts,
// and those whose commit was under way get freehold.ErrUnknown.
//
// The table of streams by name lags behind the events, by at most two generations
// of 131,072 streams (see docs/adr/0008). Close completes it; behind a crash Open
// reads the events behind it, about a million at most, and finds every stream.
package sqlite

import (
	"context"
	"database/sql"
	"database/sql/driver"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	_ "modernc.org/sqlite" // the driver

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/internal/writer"
	"github.com/freehold-go/freehold/journal"
	"github.com/freehold-go/freehold/sqldb"
)

//go:embed schema.sql
var schema string

// schemaVersion is that of schema.sql.
const schemaVersion = 1

// Options tune a database; the zero value is good.
type Options struct {
	// Migrations are the service's own tables: .sql files, applied once each, in
	// the order of their names, when the database is opened. nil is none.
	Migrations fs.FS
	// Relaxed commits without waiting for the disk: after a power cut the last
	// transactions may be gone. For tests and what can be rebuilt.
	Relaxed bool
	// Warn and Cancel bound how long a closure may hold the writer: 0 is 100 ms
	// and 5 s.
	Warn, Cancel time.Duration
	// Readers is how many transactions may read at the same time. 0 is 4.
	Readers int
	// CacheBytes is the page cache of the writer; each reader has an eighth of it. 0
	// is 16 MiB.
	CacheBytes int
	// Log is where warnings go. nil is slog.Default().
	Log *slog.Logger

	override func(pragmas []string) []string // for tests: what the driver makes of them
}

// DB is an open database. It is safe for concurrent use.
type DB struct {
	path  string
	name  freehold.Source
	types *freehold.Catalog
	log   *slog.Logger
	lock  *os.File
	audit []string

	queue   *writer.Queue[*job]
	write   *sql.DB  // one connection
	writer  *session // on that connection
	read    *sql.DB
	tail    *journal.Tail
	streams directory
	kept    kept

	checkpoints checkpointer

	readers readerPool
	journal *journal.Journal

	incarnations incarnations

	latched atomic.Pointer[error]
	closing sync.Once
	closed  error // what Close returns

	mu   sync.Mutex // of head and news
	head freehold.Mark
	news chan struct{} // closed and replaced when head moves

	commitHook atomic.Pointer[func() error] // for tests: fails commits
}

// Open opens or creates the database file at path, whose journal has the given
// name and event types. It refuses a file that another process has open, that is
// damaged, that belongs to another journal, or whose schema is newer than this
// program.
func Open(ctx context.Context, path string, name freehold.Source, types *freehold.Catalog, o *Options) (*DB, error) {
	if err := name.Validate(); err != nil {
		return nil, err
	}
	var opts Options
	if o != nil {
		opts = *o
	}
	if opts.Readers <= 0 {
		opts.Readers = 4
	}
	if opts.CacheBytes <= 0 {
		opts.CacheBytes = 16 << 20
	}
	if opts.Log == nil {
		opts.Log = slog.Default()
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("sqlite: %w", err)
	}
	db := &DB{path: path, name: name, types: types, log: opts.Log, news: make(chan struct{}), kept: newKept()}
	db.queue = writer.New[*job](writer.Options{Warn: opts.Warn, Cancel: opts.Cancel, Log: opts.Log})
	if err := db.open(ctx, opts); err != nil {
		return nil, errors.Join(err, db.release())
	}
	go db.loop()
	return db, nil
}

func (db *DB) open(ctx context.Context, opts Options) error {
	if err := db.takeLock(); err != nil {
		return err
	}
	if err := checkFile(db.path); err != nil {
		return err
	}
	synchronous := "FULL"
	if opts.Relaxed {
		synchronous = "OFF"
	}
	pragmas := []string{"journal_mode(WAL)", "synchronous(" + synchronous + ")", "busy_timeout(5000)", "foreign_keys(1)", "recursive_triggers(1)",
		"wal_autocheckpoint(0)", fmt.Sprintf("cache_size(-%d)", opts.CacheBytes>>10)}
	if opts.override != nil {
		pragmas = opts.override(pragmas)
	}
	var err error
	// What a savepoint keeps of pages is copied in memory: SQLite would write what is
	// beyond 64 KiB of a transaction's into a file of its own.
	if db.write, err = sql.Open("sqlite", dsn(db.path, append(pragmas, "temp_store(MEMORY)"))); err != nil {
		return fmt.Errorf("sqlite: open %s: %w", db.path, err)
	}
	db.write.SetMaxOpenConns(1)
	conn, err := db.write.Conn(ctx)
	if err != nil {
		return fmt.Errorf("sqlite: open %s: %w", db.path, hint(err))
	}
	db.writer = newSession(conn)
	if err := db.auditSettings(ctx, opts.Relaxed); err != nil {
		return err
	}
	if err := db.prepareSchema(ctx); err != nil {
		return err
	}
	if opts.Migrations != nil {
		if err := db.migrate(ctx, opts.Migrations); err != nil {
			return err
		}
	}
	if err := db.refuseDeferrable(ctx); err != nil {
		return err
	}
	if db.read, err = sql.Open("sqlite", dsn(db.path, append(pragmas, "query_only(1)", fmt.Sprintf("cache_size(-%d)", opts.CacheBytes>>13)))); err != nil {
		return fmt.Errorf("sqlite: open %s: %w", db.path, err)
	}
	beside, err := db.read.Conn(ctx)
	if err != nil {
		return fmt.Errorf("sqlite: open %s: %w", db.path, hint(err))
	}
	db.startCheckpoints(beside)
	db.readers.slots = make(chan struct{}, opts.Readers)
	db.journal = journal.New(store{db}, db.types)
	return db.beginIncarnation(ctx)
}

func dsn(path string, pragmas []string) string {
	q := url.Values{"_pragma": pragmas}
	return (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: q.Encode()}).String()
}

// takeLock holds a lock on a file beside the database for as long as it is open.
func (db *DB) takeLock() error {
	f, err := os.OpenFile(db.path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("sqlite: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return fmt.Errorf("sqlite: %s is open in another process: stop it first, or use another data directory", db.path)
	}
	db.lock = f
	return nil
}

// beginIncarnation reads where the journal stands and records this opening.
func (db *DB) beginIncarnation(ctx context.Context) error {
	head := freehold.Mark{Source: db.name}
	if err := db.writer.conn.QueryRowContext(ctx, `SELECT epoch FROM freehold_journal`).Scan(&head.Epoch); err != nil {
		return fmt.Errorf("sqlite: %s: %w", db.path, hint(err))
	}
	var chain []byte
	err := db.writer.conn.QueryRowContext(ctx, `SELECT position, chain FROM freehold_event ORDER BY position DESC LIMIT 1`).Scan(&head.Position, &chain)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return fmt.Errorf("sqlite: %s: %w", db.path, hint(err))
	}
	copy(head.Chain[:], chain)
	if err := db.writer.do(func(d *direct) error { return db.streams.load(d, head.Position) }); err != nil {
		return fmt.Errorf("sqlite: %s: %w", db.path, hint(err))
	}
	id := journal.NewEpoch()
	_, err = db.writer.conn.ExecContext(ctx, `INSERT INTO freehold_incarnation (id, position, chain, time) VALUES ($1, $2, $3, $4)`,
		id, head.Position, head.Chain[:], journal.Now().UnixMicro())
	if err != nil {
		return fmt.Errorf("sqlite: %s: %w", db.path, hint(err))
	}
	db.incarnations.ids = map[int64]string{}
	err = db.writer.do(func(d *direct) error {
		return d.query(`SELECT number, id FROM freehold_incarnation ORDER BY number`, func(row []driver.Value) (err error) {
			if db.incarnations.current, err = value[int64](row[0]); err != nil {
				return err
			}
			db.incarnations.ids[db.incarnations.current], err = value[string](row[1])
			return err
		})
	})
	if err != nil {
		return fmt.Errorf("sqlite: %s: %w", db.path, hint(err))
	}
	db.head = head
	db.tail = journal.NewTail(head, id, db.lookup)
	// The last events are checked at each opening; all of them by freehold verify.
	const recent = 256
	from := freehold.Mark{Source: db.name, Epoch: head.Epoch}
	if head.Position > recent {
		if from, err = db.journal.At(ctx, head.Position-recent); err != nil {
			return err
		}
	}
	if _, err := db.journal.Verify(ctx, from, nil); err != nil {
		return fmt.Errorf("sqlite: %s is damaged: %w: restore it from a backup", db.path, err)
	}
	return nil
}

// Journal is the database's log.
func (db *DB) Journal() *journal.Journal { return db.journal }

// Audit says in words which durability settings the open database has.
func (db *DB) Audit() []string { return db.audit }

// Events yields a stream's committed events behind a version, oldest first.
func (db *DB) Events(ctx context.Context, s freehold.StreamID, after freehold.Version) iter.Seq2[freehold.Recorded, error] {
	return db.journal.Stream(ctx, s, after)
}

// Keeper returns what followers keep, as part of tx.
func (db *DB) Keeper(tx sqldb.Tx) follow.Keeper { return keeper{tx.(*transaction)} }

// Close finishes what is queued and closes the file. Later calls return
// freehold.ErrClosed.
func (db *DB) Close() error {
	db.queue.Close()
	<-db.queue.Done()
	db.closing.Do(func() {
		var err error
		if db.latchedError() == nil {
			err = db.streams.mergeAll(db)
		}
		db.closed = errors.Join(err, db.release())
	})
	return db.closed
}

func (db *DB) release() error {
	var errs []error
	if db.journal != nil {
		db.journal.Forget()
	}
	if db.read != nil {
		errs = append(errs, db.checkpoints.close())
		db.readers.close()
		errs = append(errs, db.read.Close())
	}
	if db.writer != nil {
		errs = append(errs, db.writer.close())
	}
	if db.write != nil {
		errs = append(errs, db.write.Close())
	}
	if db.lock != nil {
		// A process that is being forked just now may hold a copy of the handle:
		// closing ours alone would leave the file locked until it has gone.
		errs = append(errs, syscall.Flock(int(db.lock.Fd()), syscall.LOCK_UN), db.lock.Close())
	}
	return errors.Join(errs...)
}

func (db *DB) durable() (freehold.Mark, chan struct{}) {
	db.mu.Lock()
	defer db.mu.Unlock()
	return db.head, db.news
}

func (db *DB) advance(head freehold.Mark) {
	db.mu.Lock()
	defer db.mu.Unlock()
	if db.head == head {
		return
	}
	db.head = head
	close(db.news)
	db.news = make(chan struct{})
}

var _ follow.DB[sqldb.Tx] = (*DB)(nil)
