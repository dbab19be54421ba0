package pebble

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	lib "github.com/cockroachdb/pebble/v2"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/internal/fault"
	"github.com/freehold-go/freehold/internal/mutant"
	"github.com/freehold-go/freehold/internal/record"
	"github.com/freehold-go/freehold/internal/writer"
	"github.com/freehold-go/freehold/journal"
	"github.com/freehold-go/freehold/kv"
)

// job is what the writer knows of a caller's work: a closure's transaction, or
// writes that need no closure.
type job struct {
	tx     *transaction
	writes []freehold.Write
	drafts [][]freehold.Recorded
	absent []bool // the write's stream had no events when appends had this count
	at     int64
}

// maxGroup is how many callers the writer takes from the queue at a time, and how
// many appends share a batch at most.
const maxGroup = 512

// patience is for how long the writer goes on with a group although the syncer has
// nothing to do: the time of a fast sync. It never waits for callers.
const patience = 100 * time.Microsecond

// Stages of the writer.
const (
	stageRunning  int32 = iota
	stageApplying       // in Pebble's hands
	stageDead           // replaced by the undertaker
)

// Update runs fn in a transaction; see freehold.DB.
func (db *DB) Update(ctx context.Context, fn func(ctx context.Context, tx kv.Tx) error) (freehold.Token, error) {
	j := &job{}
	return db.queue.Do(ctx, j, func(ctx context.Context) error { return fn(ctx, j.tx) })
}

// Append writes to one or more streams atomically; see freehold.DB. What can be
// done by the caller is: events are encoded, and streams that should be new are
// looked for, before the writer is asked. Appends that wait at the same time share
// a batch.
func (db *DB) Append(ctx context.Context, writes ...freehold.Write) (freehold.Token, error) {
	j := &job{writes: writes, drafts: make([][]freehold.Recorded, len(writes)), absent: make([]bool, len(writes)), at: db.appends.Load()}
	id, now, n := journal.NewID(), journal.Now(), 0
	for i, w := range writes {
		drafts, err := journal.Draft(ctx, db.types, id, n, now, w.Events)
		if err != nil {
			return freehold.Token{}, err
		}
		j.drafts[i], n = drafts, n+len(drafts)
	}
	if err := db.look(j); err != nil {
		return freehold.Token{}, err
	}
	return db.queue.Do(ctx, j, nil)
}

// look finds which streams that should be new have no events yet.
func (db *DB) look(j *job) error {
	v, err := db.acquire() // so that the database stays open
	if err != nil {
		return err
	}
	defer db.release(v)
	for i, w := range j.writes {
		if w.Expect != freehold.NoStream || w.Stream.Validate() != nil {
			continue
		}
		_, closer, err := db.kv.Get(appendStream(make([]byte, 0, len(w.Stream)+10), w.Stream, 1))
		if errors.Is(err, lib.ErrNotFound) {
			j.absent[i] = true
		} else if err != nil {
			return db.wrap(err)
		} else if err := closer.Close(); err != nil {
			return db.wrap(err)
		}
	}
	return nil
}

// write is the writer: it takes what is queued, applies it in order, and hands it
// over to the syncer behind the last of a group, or sooner if the group takes long
// and the syncer has nothing to do.
func (db *DB) write() {
	for {
		db.group = db.queue.Next(maxGroup)
		if db.group == nil {
			break
		}
		if db.latchedError() != nil {
			db.refuse()
			continue
		}
		batch := db.gather()
		begun := time.Now()
		for len(db.group) > 0 {
			j := db.group[0]
			if j.Closure() {
				db.applyAppends(&batch)
				db.group = db.group[1:]
				db.runClosure(j)
				batch = db.gather()
			} else {
				db.group = db.group[1:]
				db.runAppend(j)
			}
			if len(db.group) > 0 && db.sync.idle.Load() && time.Since(begun) > patience {
				db.applyAppends(&batch)
				db.handOver()
				batch, begun = db.gather(), time.Now()
			}
		}
		db.applyAppends(&batch)
		db.handOver()
	}
	db.end()
}

// refuse answers a latched database's callers.
func (db *DB) refuse() {
	for _, j := range db.group {
		j.Answer(freehold.Token{}, db.latchedError())
	}
	db.group = nil
}

func (db *DB) end() {
	db.handOver()
	db.sync.close()
	db.queue.Exited()
}

// undertake takes the writer's place when Pebble does not give the writer back
// after an error of the disk: it waits for a flush that will never come.
func (db *DB) undertake() {
	select {
	case <-db.queue.Done():
		return
	case <-db.latchedCh:
	}
	if !db.stage.CompareAndSwap(stageApplying, stageDead) {
		return // the writer will see the latch
	}
	db.flight.view = nil
	db.sync.put(db.flight)
	db.flight = flight{}
	for ; db.group != nil; db.group = db.queue.Next(maxGroup) {
		db.refuse()
		db.group = []*writer.Job[*job]{}
	}
	db.end()
}

// appends are the calls without a closure that share the next batch.
type appends struct {
	save  journal.Save
	first int // of their outcomes
}

// gather starts a batch behind all that the flight holds.
func (db *DB) gather() appends {
	return appends{save: db.tail.Save(), first: len(db.flight.outcomes)}
}

// runAppend gives an append its place, or tells its conflict.
func (db *DB) runAppend(j *writer.Job[*job]) {
	save, was := db.tail.Save(), db.tail.Head()
	for i, w := range j.Work.writes {
		// A stream that was new a moment ago and is unknown to the tail is still new:
		// the tail has not forgotten it meanwhile.
		db.absent = j.Work.absent[i] && db.appends.Load()-j.Work.at < journal.TailMemory
		_, err := db.tail.Append(context.Background(), w.Stream, w.Expect, j.Work.drafts[i])
		db.absent = false
		db.appends.Add(1)
		if err != nil {
			db.tail.Rollback(save)
			db.add(outcome{job: j, err: err})
			return
		}
	}
	head := db.tail.Seal()
	db.add(outcome{job: j, token: freehold.NewToken(head), wrote: head.Position > was.Position})
}

// applyAppends applies what appends have gathered, as one batch.
func (db *DB) applyAppends(a *appends) {
	if events := db.tail.Pending(a.save); len(events) > 0 {
		b := db.kv.NewBatchWithSize(batchSize(events))
		db.commit(b, *a, db.put(b, events))
	}
	*a = db.gather()
}

// runClosure gives a closure its turn over a batch of its own and applies it.
func (db *DB) runClosure(j *writer.Job[*job]) {
	a := db.gather()
	b := db.kv.NewIndexedBatch()
	tx := &transaction{db: db, id: journal.NewID(), now: journal.Now(), save: a.save, mark: db.tail.Head(), batch: b, from: b}
	j.Work.tx = tx
	err := j.Run(tx.end)
	if err != nil {
		db.tail.Rollback(a.save)
		_ = b.Close() // nothing of it was applied
		db.add(outcome{job: j, err: err})
		return
	}
	head := db.tail.Seal()
	err = db.put(b, db.tail.Pending(a.save))
	db.add(outcome{job: j, token: freehold.NewToken(head), wrote: !b.Empty()})
	db.commit(b, a, err)
}

// add notes what a caller will be told when everything before is durable.
func (db *DB) add(o outcome) {
	if mutant.AnswerBeforeCommit && o.err != nil || mutant.AckBeforeCommit && o.err == nil {
		o.job.Answer(o.token, o.err)
	}
	db.flight.outcomes = append(db.flight.outcomes, o)
}

// commit applies the batch of the outcomes from a.first on, or fails them all.
func (db *DB) commit(b *lib.Batch, a appends, err error) {
	fault.Point("pebble.commit.before")
	if hook := db.commitHook.Load(); hook != nil && err == nil && !b.Empty() {
		err = (*hook)()
	}
	if err == nil && b.Empty() {
		_ = b.Close() // a transaction that only read
		db.tail.Committed()
		return
	}
	if err == nil {
		err = db.apply(b)
	}
	if err != nil {
		db.tail.Rollback(a.save)
		for i := range db.flight.outcomes[a.first:] {
			o := &db.flight.outcomes[a.first+i]
			o.token, o.err, o.wrote = freehold.Token{}, err, false
		}
		return
	}
	fault.Point("pebble.commit.after")
	db.flight.events = append(db.flight.events, db.tail.Pending(journal.Save{})...)
	db.tail.Committed()
	db.flight.batches = append(db.flight.batches, b)
}

// apply hands a batch to Pebble, whose log writes and syncs it behind. An error
// means that nothing was done. If the disk fails meanwhile Pebble may keep the
// goroutine for ever; the undertaker then replaces it, and should it come back
// nevertheless, it ends here.
func (db *DB) apply(b *lib.Batch) error {
	db.stage.Store(stageApplying)
	if err := db.latchedError(); err != nil {
		if !db.stage.CompareAndSwap(stageApplying, stageRunning) {
			runtime.Goexit()
		}
		return err
	}
	func() {
		defer func() {
			if p := recover(); p != nil {
				db.latch(fmt.Errorf("%v", p)) // the outcomes become unknown
			}
		}()
		var err error
		if db.synced() {
			err = db.kv.ApplyNoSyncWait(b, lib.Sync)
		} else {
			err = db.kv.Apply(b, lib.NoSync)
		}
		if err != nil {
			db.latch(err)
		}
	}()
	if !db.stage.CompareAndSwap(stageApplying, stageRunning) {
		runtime.Goexit()
	}
	return nil
}

// synced reports whether a batch is waited for until it is on disk. A disposable
// database does so for events only; since the log is one sequence, what was
// applied before is then on disk as well.
func (db *DB) synced() bool {
	return !db.lazy || !db.relaxed && len(db.tail.Pending(journal.Save{})) > 0
}

// handOver gives the syncer what has been applied since the last time, with the
// state that becomes visible when it is durable.
func (db *DB) handOver() {
	f := db.flight
	if len(f.outcomes) == 0 {
		return
	}
	db.flight = flight{outcomes: make([]outcome, 0, 64)}
	if len(f.batches) > 0 && db.latchedError() == nil {
		f.view = &view{head: db.tail.Head(), snapshot: db.kv.NewSnapshot()}
	}
	if mutant.PublishBeyondDurable && f.view != nil {
		db.publish(f.view)
		f.view = nil
	}
	db.sync.put(f)
}

// batchSize estimates the bytes of the events' batch.
func batchSize(events []freehold.Recorded) int {
	n := 64
	for i := range events {
		n += 360 + 2*len(events[i].Stream) + len(events[i].Raw)
	}
	return n
}

// put stores events and their entries under their streams.
func (db *DB) put(b *lib.Batch, events []freehold.Recorded) error {
	var key, value []byte
	for i := range events {
		r := &events[i]
		key = appendNumbered(key[:0], kindEvent, int64(r.At.Position))
		value = record.Append(value[:0], r)
		if err := b.Set(key, value, nil); err != nil {
			return err
		}
		position := key[1:]
		value = appendStream(value[:0], r.Stream, r.Version)
		if err := b.Set(value, position, nil); err != nil {
			return err
		}
	}
	return nil
}

// lookup reads a stream's version from what has been applied.
func (db *DB) lookup(_ context.Context, s freehold.StreamID) (freehold.Version, error) {
	if db.absent {
		return 0, nil
	}
	key := appendStream(make([]byte, 0, len(s)+10), s, 1)
	_, closer, err := db.kv.Get(key)
	if errors.Is(err, lib.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, db.wrap(err)
	}
	if err := closer.Close(); err != nil {
		return 0, db.wrap(err)
	}
	upper := append(key[:len(key)-9:len(key)-9], 1)
	it, err := db.kv.NewIter(&lib.IterOptions{LowerBound: key, UpperBound: upper})
	if err != nil {
		return 0, db.wrap(err)
	}
	var v freehold.Version
	if it.Last() {
		_, v, _ = streamOf(it.Key())
	}
	if err := errors.Join(it.Error(), it.Close()); err != nil {
		return 0, db.wrap(err)
	}
	return v, nil
}
