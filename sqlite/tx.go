package sqlite

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"sync"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/internal/statement"
	"github.com/freehold-go/freehold/journal"
	"github.com/freehold-go/freehold/sqldb"
)

// transaction is the sqldb.Tx of an Update (on the writer's connection) or a View
// (on a reader's). The caller's context is used for its values only: a statement
// that is interrupted would roll back the whole group.
type transaction struct {
	db     *DB
	writer bool
	id     string
	now    time.Time
	events int
	save   journal.Save
	mark   freehold.Mark

	session *session
	before  seen // of a View: taken before its snapshot

	mu    sync.Mutex
	over  bool
	ended bool  // a statement has ended the group's transaction
	disk  error // the first error of the disk that a statement met
}

var _ sqldb.Tx = (*transaction)(nil)

// end kills the handle and returns what the disk did to its statements.
func (tx *transaction) end() error {
	tx.mu.Lock()
	defer tx.mu.Unlock()
	tx.over = true
	return tx.disk
}

// begin guards a use of the handle; the returned function ends the use.
func (tx *transaction) begin() (end func(), err error) {
	tx.mu.Lock()
	if tx.over {
		tx.mu.Unlock()
		return nil, freehold.ErrTxDone
	}
	if tx.ended {
		tx.mu.Unlock()
		return nil, errVoid // what a statement did now would commit by itself
	}
	return tx.mu.Unlock, nil
}

// note looks at the error of a statement: the disk may have failed, or the
// transaction have ended, as INSERT OR ROLLBACK does.
func (tx *transaction) note(err error) error {
	if err == nil {
		return nil
	}
	if ofDisk(err) && tx.disk == nil {
		tx.disk = err
	}
	if tx.writer && code(err) != 0 && tx.session.exec("BEGIN") == nil { // fails inside a transaction
		tx.ended = true
		return errors.Join(err, tx.session.exec("ROLLBACK"))
	}
	return err
}

// statement returns the cached statement for a query that may run in a closure.
func (tx *transaction) statement(query string) (*sql.Stmt, error) {
	if !tx.session.guests.known(query) {
		if err := allowed(query); err != nil {
			return nil, err
		}
	}
	return tx.session.guests.get(query)
}

// allowed refuses what a closure may not run.
func allowed(query string) error {
	if word := controlWord(query); word != "" {
		return fmt.Errorf("sqlite: %s inside a closure: the closure is the transaction: return nil to commit, an error to roll back", word)
	}
	return nil
}

func (tx *transaction) ExecContext(_ context.Context, query string, args ...any) (sql.Result, error) {
	end, err := tx.begin()
	if err != nil {
		return nil, err
	}
	defer end()
	if !tx.writer {
		return nil, freehold.ErrReadOnlyTx
	}
	if tx.session.changes.stmts[query] == nil {
		if err := allowed(query); err != nil {
			return nil, err
		}
	}
	result, err := tx.session.change(query, args)
	return result, tx.note(err)
}

func (tx *transaction) QueryContext(_ context.Context, query string, args ...any) (*sql.Rows, error) {
	end, err := tx.begin()
	if err != nil {
		return nil, err
	}
	defer end()
	stmt, err := tx.statement(query)
	if err != nil {
		return nil, err
	}
	rows, err := stmt.QueryContext(context.Background(), args...)
	return rows, tx.note(err)
}

// QueryRowContext reports an unusable handle or query as the error of Scan.
func (tx *transaction) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	end, err := tx.begin()
	if err != nil {
		return tx.db.failedRow(err)
	}
	defer end()
	stmt, err := tx.statement(query)
	if err != nil {
		return tx.db.failedRow(err)
	}
	row := stmt.QueryRowContext(context.Background(), args...)
	_ = tx.note(row.Err()) // Scan returns it
	return row
}

// failedRow returns a row whose Scan fails: database/sql makes one only from a
// query that failed, so a context that has ended with the error does it.
func (db *DB) failedRow(err error) *sql.Row {
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(err)
	return db.read.QueryRowContext(causeContext{ctx}, "SELECT 1")
}

// causeContext gives the cause as its error.
type causeContext struct{ context.Context }

func (c causeContext) Err() error { return context.Cause(c.Context) }

func (tx *transaction) PrepareContext(_ context.Context, query string) (*sql.Stmt, error) {
	end, err := tx.begin()
	if err != nil {
		return nil, err
	}
	defer end()
	if word := controlWord(query); word != "" {
		return nil, fmt.Errorf("sqlite: %s inside a closure", word)
	}
	stmt, err := tx.session.conn.PrepareContext(context.Background(), query)
	return stmt, tx.note(err)
}

func (tx *transaction) Append(ctx context.Context, s freehold.StreamID, expect freehold.Expect, events ...freehold.Event) (freehold.Version, error) {
	end, err := tx.begin()
	if err != nil {
		return 0, err
	}
	defer end()
	if !tx.writer {
		return 0, freehold.ErrReadOnlyTx
	}
	drafts, err := journal.Draft(ctx, tx.db.types, tx.id, tx.events, tx.now, events)
	if err != nil {
		return 0, err
	}
	tx.events += len(drafts)
	v, err := tx.db.tail.Append(ctx, s, expect, drafts)
	return v, tx.note(err)
}

func (tx *transaction) Events(ctx context.Context, s freehold.StreamID, after freehold.Version) iter.Seq2[freehold.Recorded, error] {
	return func(yield func(freehold.Recorded, error) bool) {
		rs, err := tx.stream(s, after)
		if err != nil {
			yield(freehold.Recorded{}, err)
			return
		}
		tx.db.types.Bind(rs)
		for _, r := range rs {
			if !yield(r, nil) {
				return
			}
		}
	}
}

// stream reads what the transaction sees of a stream: on the writer's connection
// also what this group has appended and not yet stored.
func (tx *transaction) stream(s freehold.StreamID, after freehold.Version) ([]freehold.Recorded, error) {
	end, err := tx.begin()
	if err != nil {
		return nil, err
	}
	defer end()
	if !tx.writer {
		return tx.stored(s, after)
	}
	upto, err := tx.db.tail.Version(context.Background(), s)
	if err != nil {
		return nil, tx.note(err)
	}
	var pending []freehold.Recorded
	for _, r := range tx.db.tail.Pending(journal.Save{}) {
		if r.Stream == s {
			upto = min(upto, r.Version-1)
			if r.Version > after {
				pending = append(pending, r)
			}
		}
	}
	rs, ok := tx.db.journal.Remembered(s, after, upto)
	if !ok {
		if rs, err = tx.stored(s, after); err != nil {
			return nil, err
		}
	}
	return append(rs, pending...), nil
}

// stored reads what the database has of a stream.
func (tx *transaction) stored(s freehold.StreamID, after freehold.Version) (rs []freehold.Recorded, err error) {
	err = tx.session.do(func(d *direct) error {
		var number int64
		var found bool
		if tx.writer {
			number, found, err = tx.db.streams.number(d, s)
		} else {
			number, found, err = tx.db.streams.numberIn(d, s, tx.before)
		}
		if err != nil || !found {
			return err
		}
		rs, err = tx.db.readStream(d, number, after, -1)
		return err
	})
	return rs, tx.note(err)
}

func (tx *transaction) Lock(context.Context, ...string) error {
	end, err := tx.begin()
	if err == nil {
		end()
	}
	return err
}

func (tx *transaction) Mark() freehold.Mark { return tx.mark }
func (tx *transaction) Now() time.Time      { return tx.now }

// View runs fn on a snapshot; see freehold.DB.
func (db *DB) View(ctx context.Context, fn func(ctx context.Context, tx sqldb.Tx) error) (err error) {
	select {
	case <-db.queue.Done():
		return freehold.ErrClosed
	default:
	}
	r, err := db.acquire(ctx)
	if err != nil {
		return err
	}
	before, mark := db.seen() // a lower bound of what the snapshot holds
	if err := r.exec("BEGIN"); err != nil {
		db.readers.release(r, err)
		return fmt.Errorf("sqlite: %s: %w", db.path, hint(err))
	}
	tx := &transaction{db: db, now: journal.Now(), mark: mark, session: r, before: before}
	defer func() {
		_ = tx.end()
		db.readers.release(r, r.exec("ROLLBACK"))
	}()
	return fn(ctx, tx)
}

// controlWord returns the word with which a query would end or begin a
// transaction, or change the connection.
func controlWord(query string) string {
	for _, word := range statement.SQLite.Words(query) {
		switch word {
		case "BEGIN", "COMMIT", "END", "ROLLBACK", "SAVEPOINT", "RELEASE", "ATTACH", "DETACH", "PRAGMA", "VACUUM":
			return word
		}
	}
	return ""
}
