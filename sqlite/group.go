package sqlite

import (
	"context"
	"errors"
	"fmt"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/internal/fault"
	"github.com/freehold-go/freehold/internal/mutant"
	"github.com/freehold-go/freehold/internal/writer"
	"github.com/freehold-go/freehold/journal"
	"github.com/freehold-go/freehold/sqldb"
)

// job is what the writer knows of a caller's work: a closure's transaction, or
// writes that need no closure.
type job struct {
	tx     *transaction
	writes []freehold.Write
	drafts [][]freehold.Recorded
}

// maxGroup is how many callers share a commit at most.
const maxGroup = 512

// errVoid says that the group's transaction is gone.
var errVoid = errors.New("sqlite: a statement ended the transaction of the group")

// Update runs fn in a transaction; see freehold.DB.
func (db *DB) Update(ctx context.Context, fn func(ctx context.Context, tx sqldb.Tx) error) (freehold.Token, error) {
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

// loop is the writer: it takes what is queued, and commits it together.
func (db *DB) loop() {
	defer db.queue.Exited()
	for {
		group := db.queue.Next(maxGroup)
		if group == nil {
			return
		}
		if db.latched.Load() != nil {
			for _, j := range group {
				j.Answer(freehold.Token{}, db.latchedError())
			}
			continue
		}
		if !db.commitTogether(group) {
			for _, j := range group {
				if !db.commitTogether([]*writer.Job[*job]{j}) {
					j.Answer(freehold.Token{}, errVoid)
				}
			}
		}
	}
}

// outcome is what a caller will be told if the group commits.
type outcome struct {
	token freehold.Token
	err   error
}

// commitTogether runs the jobs in one transaction, each in a savepoint of its own,
// commits, and answers. It reports false, having answered nobody and changed
// nothing, if the transaction ended under the jobs; alone, a job is always
// answered, unless it ended its own transaction.
func (db *DB) commitTogether(group []*writer.Job[*job]) (done bool) {
	alone := len(group) == 1
	whole := db.tail.Save()
	outcomes := make([]outcome, len(group))
	if err := db.exec("BEGIN IMMEDIATE"); err != nil {
		db.answerAll(group, db.failed(err))
		return true
	}
	written := false // a closure has run in this transaction
	for i, j := range group {
		outcomes[i].err = db.run(j, alone, !written)
		written = written || j.Closure()
		if errors.Is(outcomes[i].err, errVoid) {
			db.abandon(whole)
			if disk := db.latchedError(); disk != nil {
				db.answerAll(group, disk)
				return true
			}
			return false
		}
		if mutant.AnswerBeforeCommit && outcomes[i].err != nil {
			j.Answer(freehold.Token{}, outcomes[i].err)
		}
		if outcomes[i].err == nil {
			outcomes[i].token = freehold.NewToken(db.tail.Head())
		}
	}
	if alone && outcomes[0].err != nil {
		db.abandon(whole)
		db.answer(group, outcomes)
		return true
	}
	if mutant.AckBeforeCommit {
		db.answer(group, outcomes)
	}
	err := db.flush(db.tail.Pending(whole))
	if err == nil {
		err = db.storeKept()
	}
	fault.Point("sqlite.commit.before")
	if hook := db.commitHook.Load(); err == nil && hook != nil {
		err = (*hook)()
	}
	if mutant.PublishBeyondDurable {
		db.advance(db.tail.Head())
	}
	if err == nil {
		if err = db.exec("COMMIT"); ofDisk(err) {
			// The sync may have failed behind the write: nobody can say.
			db.latch(err)
			db.answerAll(group, fmt.Errorf("%w: %w", freehold.ErrUnknown, hint(err)))
			return true
		}
	}
	if err != nil {
		db.abandon(whole)
		if ofDisk(err) {
			db.answerAll(group, db.failed(err))
			return true
		}
		if !alone {
			return false
		}
		db.answerAll(group, fmt.Errorf("sqlite: commit: %w", err))
		return true
	}
	fault.Point("sqlite.commit.after")
	db.streams.committed(db.tail.Head().Position)
	db.kept.done()
	db.journal.Remember(db.tail.Pending(journal.Save{}))
	db.tail.Committed()
	db.advance(db.tail.Head())
	if !mutant.AckBeforeCommit {
		db.answer(group, outcomes)
	}
	db.checkpoints.committed(db)
	return true
}

// run executes one job and leaves nothing of it if it fails. errVoid means that
// the group's transaction does not stand any more. first says that nothing has been
// written in it yet: a closure needs no savepoint then, for which SQLite would copy
// every page before it changes.
func (db *DB) run(j *writer.Job[*job], alone, first bool) error {
	save, kept := db.tail.Save(), db.kept.save()
	w := j.Work
	if !j.Closure() {
		for i, write := range w.writes {
			// The drafts are copied: a job that runs again starts from clean ones.
			drafts := append([]freehold.Recorded(nil), w.drafts[i]...)
			if _, err := db.tail.Append(context.Background(), write.Stream, write.Expect, drafts); err != nil {
				db.tail.Rollback(save)
				if ofDisk(err) {
					db.latch(err)
					return errVoid
				}
				return err
			}
		}
		db.tail.Seal()
		return nil
	}
	if !first {
		if err := db.exec("SAVEPOINT closure"); err != nil {
			return db.voidFor(err)
		}
	}
	w.tx = &transaction{db: db, writer: true, session: db.writer, id: journal.NewID(), now: journal.Now(), save: save, mark: db.tail.Head()}
	var diskErr error
	err := j.Run(func() { diskErr = w.tx.end() })
	if diskErr != nil {
		return db.voidFor(diskErr)
	}
	if w.tx.ended {
		return errVoid
	}
	if err != nil {
		db.tail.Rollback(save)
		db.kept.rollback(kept)
		if alone {
			return err
		}
		if undoErr := db.undo(first); undoErr != nil {
			return db.voidFor(undoErr)
		}
	} else {
		db.tail.Seal()
	}
	if standErr := db.stands(first); standErr != nil {
		return db.voidFor(standErr)
	}
	return err
}

// undo takes back what a closure has written. What others have appended is not in
// the database yet, so the first closure's is all that there is.
func (db *DB) undo(first bool) error {
	if !first {
		return db.exec("ROLLBACK TO closure")
	}
	if err := db.exec("ROLLBACK"); err != nil { // fails if the transaction has ended
		return err
	}
	return db.exec("BEGIN IMMEDIATE")
}

// stands ends a closure's savepoint. It fails if the transaction has ended: without
// it, what follows would commit by itself.
func (db *DB) stands(first bool) error {
	if !first {
		return db.exec("RELEASE closure")
	}
	if db.exec("BEGIN") == nil { // fails inside a transaction
		return errors.Join(errVoid, db.exec("ROLLBACK"))
	}
	return nil
}

func (db *DB) voidFor(err error) error {
	if ofDisk(err) {
		db.latch(err)
	}
	return errVoid
}

// abandon takes everything of the group back.
func (db *DB) abandon(whole journal.Save) {
	_ = db.exec("ROLLBACK") // fails if the transaction is over already
	db.tail.Rollback(whole)
	db.kept.rollback(0)
	db.streams.rolledBack()
}

func (db *DB) answer(group []*writer.Job[*job], outcomes []outcome) {
	for i, j := range group {
		if mutant.AnswerBeforeCommit && outcomes[i].err != nil {
			continue
		}
		j.Answer(outcomes[i].token, outcomes[i].err)
	}
}

func (db *DB) answerAll(group []*writer.Job[*job], err error) {
	for _, j := range group {
		j.Answer(freehold.Token{}, err)
	}
}

// failed is the error for callers whose transaction surely did not happen.
func (db *DB) failed(err error) error {
	if ofDisk(err) {
		db.latch(err)
		return db.latchedError()
	}
	return fmt.Errorf("sqlite: %s: %w", db.path, err)
}

func (db *DB) latch(err error) {
	err = fmt.Errorf("%w: %s: %w", freehold.ErrLatched, db.path, hint(err))
	if db.latched.CompareAndSwap(nil, &err) {
		db.log.Error("database latched", "path", db.path, "error", err)
	}
}

func (db *DB) latchedError() error {
	if p := db.latched.Load(); p != nil {
		return *p
	}
	return nil
}

// exec runs a statement of the engine's own on the writer's connection.
func (db *DB) exec(query string) error { return db.writer.exec(query) }
