package memory

import (
	"context"
	"iter"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/internal/writer"
	"github.com/freehold-go/freehold/journal"
	"github.com/freehold-go/freehold/kv"
)

// Disk is what a database holds. Opened again with the same Disk it holds what it
// held; a clone is a backup. It is safe for concurrent use.
type Disk struct {
	mu    sync.RWMutex
	state // replaced as a whole by each commit, never changed in place
	news  chan struct{}
}

// state is a snapshot: maps and slices that nobody changes any more.
type state struct {
	epoch        freehold.Epoch
	events       []freehold.Recorded // appended to behind every snapshot's length
	streams      map[freehold.StreamID]freehold.Version
	values       map[string][]byte
	marks        map[string]freehold.Mark
	incarnations []journal.Incarnation
}

// NewDisk returns an empty disk with an epoch of its own.
func NewDisk() *Disk {
	return &Disk{news: make(chan struct{}), state: state{epoch: freehold.Epoch(journal.NewEpoch()),
		streams: map[freehold.StreamID]freehold.Version{}, values: map[string][]byte{}, marks: map[string]freehold.Mark{}}}
}

// Clone returns a copy as a backup would be, with the same epoch.
func (d *Disk) Clone() *Disk {
	s := d.snapshot()
	s.events = slices.Clip(s.events)
	return &Disk{state: s, news: make(chan struct{})}
}

func (d *Disk) snapshot() state {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.state
}

func (s state) head(name freehold.Source) freehold.Mark {
	if n := len(s.events); n > 0 {
		return s.events[n-1].At
	}
	return freehold.Mark{Source: name, Epoch: s.epoch}
}

// Options tune a database; the zero value is good.
type Options struct {
	// Disk is what to open. nil is a new, empty one.
	Disk *Disk
	// Warn and Cancel bound how long a closure may hold the writer: 0 is 100 ms
	// and 5 s.
	Warn, Cancel time.Duration
	// Log is where warnings go. nil is slog.Default().
	Log *slog.Logger
}

// DB is an open database. It is safe for concurrent use.
type DB struct {
	disk    *Disk
	name    freehold.Source
	types   *freehold.Catalog
	queue   *writer.Queue[*job]
	tail    *journal.Tail
	journal *journal.Journal

	failCommits atomic.Int64
}

// Open opens a database whose journal has the given name and event types.
func Open(_ context.Context, name freehold.Source, types *freehold.Catalog, o *Options) (*DB, error) {
	if err := name.Validate(); err != nil {
		return nil, err
	}
	var opts Options
	if o != nil {
		opts = *o
	}
	if opts.Disk == nil {
		opts.Disk = NewDisk()
	}
	db := &DB{disk: opts.Disk, name: name, types: types}
	db.queue = writer.New[*job](writer.Options{Warn: opts.Warn, Cancel: opts.Cancel, Log: opts.Log})
	db.disk.mu.Lock()
	head := db.disk.head(name)
	incarnation := journal.Incarnation{ID: journal.NewEpoch(), Start: head, Time: journal.Now()}
	db.disk.incarnations = append(slices.Clip(db.disk.incarnations), incarnation)
	db.disk.mu.Unlock()
	db.tail = journal.NewTail(head, incarnation.ID, func(_ context.Context, s freehold.StreamID) (freehold.Version, error) {
		return db.disk.snapshot().streams[s], nil
	})
	db.journal = journal.New(store{db}, types)
	go db.loop()
	return db, nil
}

// Journal is the database's log.
func (db *DB) Journal() *journal.Journal { return db.journal }

// Audit says in words which durability the database has.
func (db *DB) Audit() []string { return []string{"in memory: nothing outlives the process"} }

// Events yields a stream's committed events behind a version, oldest first.
func (db *DB) Events(ctx context.Context, s freehold.StreamID, after freehold.Version) iter.Seq2[freehold.Recorded, error] {
	return db.journal.Stream(ctx, s, after)
}

// Keeper returns what followers keep, as part of tx.
func (db *DB) Keeper(tx kv.Tx) follow.Keeper { return keeper{tx.(*transaction)} }

// Close finishes what is queued. Later calls return freehold.ErrClosed.
func (db *DB) Close() error {
	db.queue.Close()
	<-db.queue.Done()
	return nil
}

// FailCommits makes the next n commits fail, for tests.
func (db *DB) FailCommits(n int) { db.failCommits.Store(int64(n)) }

// Update runs fn in a transaction; see freehold.DB.
func (db *DB) Update(ctx context.Context, fn func(ctx context.Context, tx kv.Tx) error) (freehold.Token, error) {
	j := &job{}
	return db.queue.Do(ctx, j, func(ctx context.Context) error { return fn(ctx, j.tx) })
}

// View runs fn on a snapshot; see freehold.DB.
func (db *DB) View(ctx context.Context, fn func(ctx context.Context, tx kv.Tx) error) error {
	select {
	case <-db.queue.Done():
		return freehold.ErrClosed
	default:
	}
	s := db.disk.snapshot()
	tx := &transaction{db: db, now: journal.Now(), mark: s.head(db.name), base: s}
	defer tx.end()
	return fn(ctx, tx)
}

// Append writes to one or more streams atomically; see freehold.DB.
func (db *DB) Append(ctx context.Context, writes ...freehold.Write) (freehold.Token, error) {
	return db.Update(ctx, func(ctx context.Context, tx kv.Tx) error {
		for _, w := range writes {
			if _, err := tx.Append(ctx, w.Stream, w.Expect, w.Events...); err != nil {
				return err
			}
		}
		return nil
	})
}

var _ follow.DB[kv.Tx] = (*DB)(nil)

type job struct{ tx *transaction }

// loop is the writer: it runs one closure after the other, each its own commit.
func (db *DB) loop() {
	defer db.queue.Exited()
	for {
		group := db.queue.Next(1)
		if group == nil {
			return
		}
		j := group[0]
		save := db.tail.Save()
		tx := &transaction{db: db, writer: true, id: journal.NewID(), now: journal.Now(), save: save, mark: db.tail.Head(), base: db.disk.snapshot(),
			values: map[string][]byte{}, marks: map[string]freehold.Mark{}}
		j.Work.tx = tx
		err := j.Run()
		tx.end()
		if err == nil && db.failCommits.Add(-1) >= 0 {
			err = errCommit
		}
		if err != nil {
			db.tail.Rollback(save)
			j.Answer(freehold.Token{}, err)
			continue
		}
		head := db.tail.Seal()
		db.commit(tx, db.tail.Pending(save))
		db.tail.Committed()
		j.Answer(freehold.NewToken(head), nil)
	}
}

// commit replaces the state by one that has what the transaction wrote.
func (db *DB) commit(tx *transaction, events []freehold.Recorded) {
	next := tx.base
	next.events = append(next.events, events...)
	if len(events) > 0 {
		next.streams = maps.Clone(next.streams)
		for _, r := range events {
			next.streams[r.Stream] = r.Version
		}
	}
	if len(tx.values) > 0 {
		next.values = maps.Clone(next.values)
		for k, v := range tx.values {
			if v == nil {
				delete(next.values, k)
			} else {
				next.values[k] = v
			}
		}
	}
	if len(tx.marks) > 0 {
		next.marks = maps.Clone(next.marks)
		maps.Copy(next.marks, tx.marks)
	}
	db.disk.mu.Lock()
	defer db.disk.mu.Unlock()
	next.incarnations = db.disk.incarnations
	db.disk.state = next
	close(db.disk.news)
	db.disk.news = make(chan struct{})
}
