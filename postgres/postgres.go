package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/journal"
	"github.com/freehold-go/freehold/sqldb"
)

// Options tune a database; the zero value is good.
type Options struct {
	// Migrations are the service's own tables: .sql files, applied once each, in
	// the order of their names, when the database is opened. nil is none.
	Migrations fs.FS
	// Relaxed opens a database whose settings do not make every commit durable: after
	// a crash of the server the last transactions may be gone. For tests and what
	// can be rebuilt.
	Relaxed bool
	// Warn and Cancel bound how long a closure may hold a transaction: 0 is 100 ms
	// and 5 s.
	Warn, Cancel time.Duration
	// Connections is how many connections closures and readers may use at the same
	// time, beside two of the engine's own. 0 is 16. Attach takes those of its pool.
	Connections int
	// Log is where warnings go. nil is slog.Default().
	Log *slog.Logger

	hooks hooks
}

// hooks are what tests change in an instance; the zero value changes nothing.
type hooks struct {
	// lock is added to the number of the sequencer's lock: instances with locks of
	// their own all give positions at the same time.
	lock int64
	// passed is called behind each pass that has written something.
	passed func(events int, took time.Duration)
	// asleep keeps the sequencer from looking by itself: it works when it is told to.
	asleep bool
	// limited is called before the connection of a closure is closed that has taken
	// too long.
	limited func()
	// ended is called when the sequencer's connection is lost, before anybody else learns
	// of it.
	ended func()
	// reconnected is called when the sequencer has a new connection, before what is known
	// of the journal is held against it.
	reconnected func()
	// patience is used instead of the constant, if it is not 0.
	patience time.Duration
}

// DB is an open database. It is safe for concurrent use.
type DB struct {
	name    freehold.Source
	types   *freehold.Catalog
	opts    Options
	pool    *pgxpool.Pool
	sql     *sql.DB // over pool
	journal *journal.Journal
	head    head
	seq     *sequencer
	seqPID  atomic.Uint32 // of the server's process for the sequencer's connection
	appends appends
	audit   []string

	attached bool // the pool is the caller's

	mu      sync.Mutex
	closed  bool           // no call begins any more
	calls   sync.WaitGroup // those under way
	closing sync.Once

	server      atomic.Pointer[string] // that the sequencer is connected to, see thisServer
	failCommits atomic.Int64
	latched     atomic.Pointer[error] // why no call begins any more, see [DB.latch]
}

// Open opens the database at a URL (postgres://user:password@host:port/database),
// whose journal has the given name and event types. In an empty database it makes
// Freehold's tables. It refuses a server that is a standby or too old, settings that
// do not make commits durable, the database of another journal, and a schema that
// is newer than this program.
func Open(ctx context.Context, url string, name freehold.Source, types *freehold.Catalog, o *Options) (*DB, error) {
	if err := name.Validate(); err != nil {
		return nil, err
	}
	opts := o.complete()
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("postgres: URL of %s: want postgres://user:password@host:port/database: %w", name, err)
	}
	cfg.MaxConns = int32(max(opts.Connections, leastConns))
	cfg.ConnConfig.RuntimeParams["application_name"] = "freehold " + string(name)
	cfg.AfterConnect = func(ctx context.Context, c *pgx.Conn) error {
		_, err := c.Exec(ctx, planByIndex(cfg.ConnConfig.RuntimeParams, false))
		return err
	}
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("postgres: %s: %w", name, err)
	}
	return start(ctx, &DB{name: name, types: types, opts: opts, pool: pool})
}

// leastConns is how many connections preparing takes at the same time.
const leastConns = 3

// complete returns the options with what was left out.
func (o *Options) complete() (opts Options) {
	if o != nil {
		opts = *o
	}
	if opts.Warn <= 0 {
		opts.Warn = 100 * time.Millisecond
	}
	if opts.Cancel <= 0 {
		opts.Cancel = 5 * time.Second
	}
	opts.Warn = min(opts.Warn, opts.Cancel)
	if opts.Connections <= 0 {
		opts.Connections = 16
	}
	if opts.Log == nil {
		opts.Log = slog.Default()
	}
	return opts
}

// start prepares and opens a database that has its pool.
func start(ctx context.Context, db *DB) (*DB, error) {
	db.sql = stdlib.OpenDBFromPool(db.pool)
	db.sql.SetMaxIdleConns(0) // the pool keeps them
	db.journal = journal.New(store{db}, db.types)
	db.head.news = make(chan struct{})
	err := db.prepare(ctx)
	if err == nil {
		db.seq, err = startSequencer(ctx, db, db.pool.Config().ConnConfig)
	}
	if err != nil {
		db.disconnect()
		return nil, err
	}
	db.appends.start(db)
	return db, nil
}

// Journal is the database's log.
func (db *DB) Journal() *journal.Journal { return db.journal }

// Audit says in words which durability settings the server has.
func (db *DB) Audit() []string { return db.audit }

// Events yields a stream's committed events behind a version, oldest first. An
// event that was committed a moment ago may not have its position yet: then its
// place is the zero mark.
func (db *DB) Events(ctx context.Context, s freehold.StreamID, after freehold.Version) iter.Seq2[freehold.Recorded, error] {
	return db.journal.Stream(ctx, s, after)
}

// Keeper returns what followers keep, as part of tx.
func (db *DB) Keeper(tx sqldb.Tx) follow.Keeper { return keeper{tx.(*transaction)} }

var _ follow.DB[sqldb.Tx] = (*DB)(nil)

// Close finishes what is under way, gives positions to what was committed, and
// closes the connections. If the server does not answer it ends within a minute all the
// same: what has no position yet gets one from the next sequencer. Later calls
// return freehold.ErrClosed, except that closing again is nil.
func (db *DB) Close() error {
	db.closing.Do(func() {
		db.mu.Lock()
		db.closed = true
		db.mu.Unlock()
		db.calls.Wait()
		db.appends.close()
		db.seq.stop()
		db.head.close()
		db.journal.Forget()
		db.disconnect()
	})
	return nil
}

func (db *DB) disconnect() {
	_ = db.sql.Close() // holds no connection of its own
	if !db.attached {
		db.pool.Close()
	}
}

// enter lets a call in, unless the database is closed. The returned function ends
// the call.
func (db *DB) enter() (leave func(), err error) {
	db.mu.Lock()
	defer db.mu.Unlock()
	if db.closed {
		return nil, freehold.ErrClosed
	}
	if err := db.latched.Load(); err != nil {
		return nil, *err
	}
	db.calls.Add(1)
	return db.calls.Done, nil
}

// head is how far the journal is known to reach, and who waits for it.
type head struct {
	mu     sync.Mutex
	mark   freehold.Mark
	epoch  freehold.Epoch // the present one, whichever mark was read in
	ended  map[freehold.Epoch]bool
	news   chan struct{} // closed and replaced when mark moves
	closed bool
	failed error // of a latched database
}

func (h *head) get() freehold.Mark {
	h.mu.Lock()
	defer h.mu.Unlock()
	m := h.mark
	m.Epoch = h.epoch
	return m
}

// advance moves the head forward. What is behind it is durable.
func (h *head) advance(m freehold.Mark) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if m.Position > h.mark.Position || h.mark.Source == "" {
		h.mark = m
		close(h.news)
		h.news = make(chan struct{})
	}
}

func (h *head) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
	close(h.news)
	h.news = make(chan struct{})
}

// wait returns when the head is beyond a position.
func (h *head) wait(ctx context.Context, after freehold.Position) error {
	for {
		h.mu.Lock()
		mark, news, closed, failed := h.mark, h.news, h.closed, h.failed
		h.mu.Unlock()
		switch {
		case closed:
			return freehold.ErrClosed
		case failed != nil:
			return failed
		case mark.Position > after:
			return nil
		}
		select {
		case <-news:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// errCommit is the error of commits that fail on purpose, in tests.
var errCommit = errors.New("postgres: the commit fails on purpose")
