package memory

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/internal/mutant"
	"github.com/freehold-go/freehold/internal/writer"
	"github.com/freehold-go/freehold/journal"
	"github.com/freehold-go/freehold/kv"
)

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

// Open opens a database whose journal has the given name and event types. A disk
// that another database has open is taken from it, as if that one had been killed:
// everything that it is asked from then on fails with freehold.ErrClosed.
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
	this, err := db.disk.open(db)
	if err != nil {
		return nil, err
	}
	db.tail = journal.NewTail(this.Start, this.ID, db.version)
	db.journal = journal.New(store{db}, types)
	go db.loop()
	return db, nil
}

func (db *DB) version(_ context.Context, s freehold.StreamID) (freehold.Version, error) {
	now, err := db.disk.read(db)
	v, _ := now.streams.get(string(s))
	return v, err
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

// Close finishes what is queued. Later calls return freehold.ErrClosed, except
// that closing again is nil.
func (db *DB) Close() error {
	db.queue.Close()
	<-db.queue.Done()
	db.disk.close(db)
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
	now, err := db.disk.read(db)
	if err != nil {
		return err
	}
	tx := &transaction{db: db, now: journal.Now(), mark: now.head(db.name), state: now}
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

var errCommit = errors.New("memory: the commit fails on purpose")

// loop is the writer: it runs one closure after the other, each its own commit.
func (db *DB) loop() {
	defer db.queue.Exited()
	for {
		group := db.queue.Next(1)
		if group == nil {
			return
		}
		j := group[0]
		j.Answer(db.do(j))
	}
}

// do runs a closure and commits what it did, or leaves nothing of it.
func (db *DB) do(j *writer.Job[*job]) (freehold.Token, error) {
	was, err := db.disk.read(db)
	if err != nil {
		return freehold.Token{}, err
	}
	save := db.tail.Save()
	tx := &transaction{db: db, writer: true, id: journal.NewID(), now: journal.Now(), mark: db.tail.Head(), state: was, save: save}
	j.Work.tx = tx
	err = j.Run(tx.end)
	if err != nil {
		db.tail.Rollback(save)
		return freehold.Token{}, err
	}
	head := db.tail.Seal()
	next := tx.state.with(db.tail.Pending(save))
	token := freehold.NewToken(head)
	if mutant.AckBeforeCommit {
		j.Answer(token, nil)
	}
	if mutant.PublishBeyondDurable {
		_ = db.disk.write(db, next) // a disk that was taken fails below too
	}
	if db.failCommits.Add(-1) >= 0 {
		err = errCommit
	} else {
		err = db.disk.write(db, next)
	}
	if err != nil {
		db.tail.Rollback(save)
		return freehold.Token{}, fmt.Errorf("commit: %w", err)
	}
	db.tail.Committed()
	return token, nil
}
