package pebble

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	lib "github.com/cockroachdb/pebble/v2"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/internal/fault"
	"github.com/freehold-go/freehold/internal/mutant"
	"github.com/freehold-go/freehold/internal/writer"
	"github.com/freehold-go/freehold/journal"
	"github.com/freehold-go/freehold/kv"
)

// outcome is what a caller will be told once everything before it is durable.
type outcome struct {
	job   *writer.Job[*job]
	token freehold.Token
	err   error
	wrote bool
}

// flight is what is applied and not yet known to be durable.
type flight struct {
	outcomes []outcome
	batches  []*lib.Batch
	events   []freehold.Recorded
	view     *view // the state behind it; nil where nothing was written
}

// syncer is the line between the writer and the goroutine that waits for syncs.
type syncer struct {
	mu     sync.Mutex
	ready  sync.Cond
	line   []flight
	closed bool
	idle   atomic.Bool // the line is empty and its reader waits
	ended  chan struct{}
}

func (s *syncer) init() {
	s.ready.L = &s.mu
	s.ended = make(chan struct{})
}

func (s *syncer) put(f flight) {
	s.mu.Lock()
	s.line = append(s.line, f)
	s.idle.Store(false)
	s.mu.Unlock()
	s.ready.Signal()
}

func (s *syncer) close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.ready.Signal()
}

// take waits for flights and returns all there are; none means the end. spent is
// reused for the line.
func (s *syncer) take(spent []flight) []flight {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.line) == 0 && !s.closed {
		s.idle.Store(true)
		s.ready.Wait()
	}
	s.idle.Store(false)
	line := s.line
	clear(spent)
	s.line = spent[:0]
	return line
}

// awaitSyncs waits for what the writer has applied, in order, publishes it, and
// answers. The latch is looked at behind every wait: see disk.
func (db *DB) awaitSyncs() {
	defer close(db.sync.ended)
	var line []flight
	noted := freehold.Position(-1)
	for {
		if line = db.sync.take(line); len(line) == 0 {
			return
		}
		for _, f := range line {
			for _, b := range f.batches {
				if err := b.SyncWait(); err != nil {
					db.latch(err)
				}
			}
			if db.latchedError() != nil {
				db.lost(f)
				continue
			}
			fault.Point("pebble.sync.after")
			db.journal.Remember(f.events)
			if f.view != nil {
				db.publish(f.view)
				if !db.relaxed && f.view.head.Position != noted {
					_ = db.wit.note(f.view.head) // its error latches
					noted = f.view.head.Position
				}
			}
			for _, o := range f.outcomes {
				if !(mutant.AnswerBeforeCommit && o.err != nil || mutant.AckBeforeCommit && o.err == nil) {
					o.job.Answer(o.token, o.err)
				}
			}
			for _, b := range f.batches {
				_ = b.Close() // gives its memory back
			}
		}
	}
}

// lost answers callers whose work, or what they have read, may be gone.
func (db *DB) lost(f flight) {
	l := db.latched.Load()
	for _, o := range f.outcomes {
		if o.err == nil && o.wrote {
			o.job.Answer(freehold.Token{}, fmt.Errorf("%w: %s: %w", freehold.ErrUnknown, db.dir, hint(l.cause)))
		} else {
			o.job.Answer(freehold.Token{}, l.err)
		}
	}
}

// view is a state of the database of which everything is durable.
type view struct {
	head     freehold.Mark
	snapshot *lib.Snapshot
	readers  int // guarded by DB.mu
}

// publish makes a state the one that is read, and wakes who waits for news.
func (db *DB) publish(v *view) {
	db.mu.Lock()
	old := db.view
	db.view = v
	if v.head.Position != old.head.Position {
		close(db.news)
		db.news = make(chan struct{})
	}
	if old.readers == 0 {
		db.spent = append(db.spent, old.snapshot)
	}
	var spent []*lib.Snapshot
	if len(db.spent) >= 16 {
		spent, db.spent = db.spent, nil
	}
	db.mu.Unlock()
	closeAll(spent)
}

// closeAll closes snapshots, the newest first: Pebble looks for work whenever the
// oldest one goes.
func closeAll(snapshots []*lib.Snapshot) error {
	var errs []error
	for _, s := range slices.Backward(snapshots) {
		errs = append(errs, s.Close())
	}
	return errors.Join(errs...)
}

// acquire returns the durable state to a reader, who must release it.
func (db *DB) acquire() (*view, error) {
	db.mu.Lock()
	defer db.mu.Unlock()
	if db.view == nil {
		return nil, freehold.ErrClosed
	}
	db.view.readers++
	db.readers.Add(1)
	return db.view, nil
}

func (db *DB) release(v *view) {
	db.mu.Lock()
	if v.readers--; v.readers == 0 && v != db.view {
		db.spent = append(db.spent, v.snapshot)
	}
	db.mu.Unlock()
	db.readers.Done()
}

// durable returns the durable head and what is closed when it moves.
func (db *DB) durable() (head freehold.Mark, news chan struct{}, err error) {
	db.mu.Lock()
	defer db.mu.Unlock()
	if db.view == nil {
		return head, nil, freehold.ErrClosed
	}
	return db.view.head, db.news, nil
}

// View runs fn on the durable state; see freehold.DB. What an Update has been
// answered for is in it.
func (db *DB) View(ctx context.Context, fn func(ctx context.Context, tx kv.Tx) error) error {
	v, err := db.acquire()
	if err != nil {
		return err
	}
	defer db.release(v)
	tx := &transaction{db: db, now: journal.Now(), mark: v.head, from: v.snapshot}
	defer tx.end()
	return fn(ctx, tx)
}
