package pebble

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/internal/fault"
	"github.com/freehold-go/freehold/internal/mutant"
	"github.com/freehold-go/freehold/internal/writer"
	"github.com/freehold-go/freehold/journal"
	"github.com/freehold-go/freehold/kv"
)

// job is what the writer knows of a caller's work.
type job struct {
	tx     *transaction
	writes []freehold.Write
	drafts [][]freehold.Recorded
}

// syncing is an outcome that may be told when everything up to it is synced.
type syncing struct {
	job    *writer.Job[*job]
	batch  *pebble.Batch // nil: nothing was written
	number uint64
	head   freehold.Mark
	token  freehold.Token
	err    error
}

// Update runs fn in a transaction; see freehold.DB.
func (db *DB) Update(ctx context.Context, fn func(ctx context.Context, tx kv.Tx) error) (freehold.Token, error) {
	j := &job{}
	return db.queue.Do(ctx, j, func(ctx context.Context) error { return fn(ctx, j.tx) })
}

// Append writes to one or more streams atomically; see freehold.DB.
func (db *DB) Append(ctx context.Context, writes ...freehold.Write) (freehold.Token, error) {
	j := &job{writes: writes, drafts: make([][]freehold.Recorded, len(writes))}
	id, now, n := journal.NewID(), journal.Now(), 0
	for i, w := range writes {
		drafts, err := journal.Draft(ctx, db.types, id, n, now, w.Events)
		if err != nil {
			return freehold.Token{}, err
		}
		j.drafts[i], n = drafts, n+len(drafts)
	}
	return db.queue.Do(ctx, j, nil)
}

// loop is the writer: it runs closures one after the other, and hands their batches
// to Pebble without waiting for their sync.
func (db *DB) loop() {
	defer db.queue.Exited()
	defer close(db.syncing)
	for {
		group := db.queue.Next(256)
		if group == nil {
			return
		}
		for _, j := range group {
			if err := db.latchedError(); err != nil {
				db.syncing <- syncing{job: j, err: err}
				continue
			}
			s := db.run(j)
			if mutant.AnswerBeforeCommit && s.err != nil || mutant.AckBeforeCommit && s.err == nil {
				j.Answer(s.token, s.err)
			}
			db.syncing <- s
		}
	}
}

// run executes one job and applies its batch.
func (db *DB) run(j *writer.Job[*job]) syncing {
	save := db.tail.Save()
	fail := func(b *pebble.Batch, err error) syncing {
		db.tail.Rollback(save)
		_ = b.Close() // it is given up
		return syncing{job: j, err: err}
	}
	var b *pebble.Batch
	if j.Closure() {
		b = db.kv.NewIndexedBatch()
		j.Work.tx = &transaction{db: db, id: journal.NewID(), now: journal.Now(), save: save, mark: db.tail.Head(), batch: b, from: b}
		err := j.Run()
		j.Work.tx.end()
		if err != nil {
			return fail(b, err)
		}
	} else {
		b = db.kv.NewBatch()
		for i, w := range j.Work.writes {
			if _, err := db.tail.Append(context.Background(), w.Stream, w.Expect, j.Work.drafts[i]); err != nil {
				return fail(b, err)
			}
		}
	}
	head := db.tail.Seal()
	if err := db.store(b, db.tail.Pending(save)); err != nil {
		return fail(b, err)
	}
	s := syncing{job: j, batch: b, head: head, token: freehold.NewToken(head)}
	if b.Empty() {
		db.tail.Committed()
		return s
	}
	fault.Point("pebble.commit.before")
	err := error(nil)
	if hook := db.commitHook.Load(); hook != nil {
		err = (*hook)()
	}
	if err != nil {
		return fail(b, fmt.Errorf("pebble: commit: %w", err))
	}
	db.mu.Lock()
	db.applied++
	s.number = db.applied
	if db.sync.Sync {
		err = db.kv.ApplyNoSyncWait(b, db.sync)
	} else {
		err = db.kv.Apply(b, db.sync)
	}
	if mutant.PublishBeyondDurable {
		db.head = head
	}
	db.mu.Unlock()
	db.tail.Committed()
	if err != nil {
		db.latch(err)
		s.err = fmt.Errorf("%w: %w", freehold.ErrUnknown, err)
	}
	return s
}

// awaitSyncs waits for the syncs in order, and answers callers.
func (db *DB) awaitSyncs() {
	defer close(db.synced)
	for s := range db.syncing {
		if s.batch != nil && !s.batch.Empty() && s.err == nil && db.sync.Sync {
			if err := s.batch.SyncWait(); err != nil {
				db.latch(err)
			}
		}
		if latched := db.latchedError(); latched != nil && !errors.Is(s.err, freehold.ErrLatched) {
			// What it wrote, or read, may be gone after a restart.
			s.err = fmt.Errorf("%w: %w", freehold.ErrUnknown, latched)
		}
		fault.Point("pebble.commit.after")
		if s.batch != nil {
			if s.err == nil && s.number > 0 {
				db.advance(s.number, s.head)
			}
			_ = s.batch.Close() // applied
		}
		s.job.Answer(s.token, s.err)
	}
}

func (db *DB) advance(number uint64, head freehold.Mark) {
	db.mu.Lock()
	defer db.mu.Unlock()
	db.durable, db.head = number, head
	close(db.news)
	db.news = make(chan struct{})
}

func (db *DB) latch(err error) {
	err = fmt.Errorf("%w: %s: %w", freehold.ErrLatched, db.dir, err)
	if db.latched.CompareAndSwap(nil, &err) {
		db.log.Error("database latched", "database", db.dir, "error", err)
	}
	db.mu.Lock()
	defer db.mu.Unlock()
	close(db.news)
	db.news = make(chan struct{})
}

func (db *DB) latchedError() error {
	if p := db.latched.Load(); p != nil {
		return *p
	}
	return nil
}

// store adds events to a batch.
func (db *DB) store(b *pebble.Batch, events []freehold.Recorded) error {
	var value, key []byte
	for i := range events {
		r := &events[i]
		value = encode(value[:0], r)
		position := numbered(keyEvent, int64(r.At.Position))
		key = append(append(append(key[:0], keyStream), r.Stream...), 0)
		key = binary.BigEndian.AppendUint64(key, uint64(r.Version))
		if err := errors.Join(b.Set(position, value, nil), b.Set(key, position[1:], nil)); err != nil {
			return err
		}
		if i == len(events)-1 || events[i+1].Stream != r.Stream {
			key = append(append(key[:0], keyVersion), r.Stream...)
			if err := b.Set(key, binary.BigEndian.AppendUint64(nil, uint64(r.Version)), nil); err != nil {
				return err
			}
		}
	}
	return nil
}

// version reads a stream's applied version.
func (db *DB) version(_ context.Context, s freehold.StreamID) (freehold.Version, error) {
	raw, found, err := get(db.kv, append([]byte{keyVersion}, s...))
	if err != nil || !found {
		return 0, err
	}
	return freehold.Version(binary.BigEndian.Uint64(raw)), nil
}
