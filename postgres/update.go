package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/internal/mutant"
	"github.com/freehold-go/freehold/internal/writer"
	"github.com/freehold-go/freehold/journal"
	"github.com/freehold-go/freehold/sqldb"
)

// maxRuns is how often a closure runs at most, if PostgreSQL ends its transaction
// for a deadlock or a lost race.
const maxRuns = 20

// Update runs fn in a transaction of its own; see freehold.DB.
func (db *DB) Update(ctx context.Context, fn func(ctx context.Context, tx sqldb.Tx) error) (freehold.Token, error) {
	leave, err := db.enter()
	if err != nil {
		return freehold.Token{}, err
	}
	defer leave()
	events, err := db.update(ctx, fn)
	switch {
	case err != nil:
		return freehold.Token{}, err
	case len(events) > 0:
		return db.seq.token(events[len(events)-1])
	}
	tok, err := db.tokenWithoutEvents()
	if err != nil { // what fn has written is committed all the same
		return freehold.Token{}, db.unplaced(err)
	}
	return tok, nil
}

// Do is Update for those who need no token: it does not wait until the events have
// their positions.
func (db *DB) Do(ctx context.Context, fn func(ctx context.Context, tx sqldb.Tx) error) error {
	leave, err := db.enter()
	if err != nil {
		return err
	}
	defer leave()
	events, err := db.update(ctx, fn)
	if len(events) > 0 {
		db.seq.committed(events[len(events)-1])
	}
	return err
}

// update runs fn, again if PostgreSQL ends its transaction for a lost race, and
// returns its events.
func (db *DB) update(ctx context.Context, fn func(ctx context.Context, tx sqldb.Tx) error) ([]drawn, error) {
	if writer.Nested(ctx) {
		return nil, freehold.ErrNested
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	waiting := ctx // the caller may go only while nothing has been started
	patience := time.Duration(0)
	for run := 1; ; run++ {
		events, err := db.run(waiting, ctx, fn, patience)
		if lost := (*lostCommit)(nil); errors.As(err, &lost) {
			events, err = db.settle(lost)
		}
		if err == nil || !lostRace(err) {
			return events, unavailable(err)
		}
		if run == maxRuns {
			return nil, fmt.Errorf("postgres: %s: nothing was written, as %d attempts were undone for others' transactions: try again later: %w", db.name, run, err)
		}
		waiting, patience = context.WithoutCancel(ctx), -1
		time.Sleep(rand.N(time.Duration(run) * time.Millisecond))
	}
}

// lostRace reports whether PostgreSQL ended a transaction that may succeed when it
// is run again.
func lostRace(err error) bool {
	if errors.Is(err, errCarried) {
		return true
	}
	var pg *pgconn.PgError
	if !errors.As(err, &pg) {
		return false
	}
	switch pg.Code {
	case "40001", "40P01": // serialization_failure, deadlock_detected
		return true
	case "23505": // unique_violation
		return pg.SchemaName == "freehold" && pg.TableName == "event"
	}
	return false
}

// run runs the closure once and commits. It returns its events. Its connection is
// free again when it returns. How patience works says finish.
func (db *DB) run(waiting, ctx context.Context, fn func(ctx context.Context, tx sqldb.Tx) error, patience time.Duration) (events []drawn, err error) {
	conn, err := db.sql.Conn(waiting)
	if err != nil {
		return nil, db.unreached(waiting, err)
	}
	defer conn.Close()
	tx, err := db.begin(conn)
	if err != nil {
		db.discard(conn)
		return nil, db.unreached(waiting, err)
	}
	inner, cancelInner := writer.Within(ctx)
	tooLong, endStatements := db.limit(tx, cancelInner)
	committed := false
	defer func() {
		tooLong() // for a closure that did not return
		tx.end()
		endStatements() // the connection is not given back before rows are closed
		if !committed {
			db.rollback(conn)
		}
	}()
	err = fn(inner, tx)
	if tooLong() {
		return nil, freehold.ErrTooLong
	}
	if err != nil {
		return nil, err
	}
	tx.end()
	events, err = db.commit(tx, patience)
	committed = err == nil
	return events, err
}

// begin begins the transaction of an Update.
func (db *DB) begin(conn *sql.Conn) (*transaction, error) {
	tx := &transaction{db: db, conn: conn, writer: true, id: journal.NewID(), now: journal.Now(), mark: db.head.get(), server: db.server.Load(),
		appended: nothingAppended(), read: map[freehold.StreamID][]freehold.Recorded{},
		kept: map[keptKey]keptValue{}, held: map[string]bool{}}
	return tx, native(conn, func(c *pgx.Conn) error {
		tx.pid = c.PgConn().PID()
		return nil
	})
}

// send sends statements. The first ones begin the transaction on the server: that saves a
// round trip. Its id is asked for before any number is drawn. If that fails the handle is
// of no more use: nobody may write without a transaction.
func (tx *transaction) send(b *pgx.Batch) (err error) {
	if tx.broken != nil {
		return tx.broken
	}
	if tx.writer && !tx.opened {
		defer func() { tx.opened, tx.broken = err == nil, err }()
		first := &pgx.Batch{}
		tx.db.queueBegin(first)
		first.Queue(`SELECT pg_current_xact_id()::text`).QueryRow(func(row pgx.Row) error { return row.Scan(&tx.xid) })
		first.QueuedQueries = append(first.QueuedQueries, b.QueuedQueries...)
		b = first
	}
	return native(tx.conn, func(c *pgx.Conn) error {
		if c.PgConn().IsBusy() { // database/sql would wait for the rows to be closed
			return errRows
		}
		if b.Len() == 0 {
			return nil
		}
		return c.SendBatch(tx.ctx, b).Close()
	})
}

// open begins the transaction on the server, if that was not done, for statements that
// are not sent by send. It fails while rows are open.
func (tx *transaction) open() error { return tx.send(&pgx.Batch{}) }

// limit gives the closure's statements a context, and ends it, the closure's own
// and the handle when time is up. tooLong ends the limit and reports whether it had
// been reached. Either the limit or the end of the closure comes first, and what comes
// second does not begin before the first is done: the connection is given back, or
// used for the commit, by whoever has it alone. (A connection that is given back while
// it is being closed makes database/sql panic.)
func (db *DB) limit(tx *transaction, cancelInner func(error)) (tooLong func() bool, endStatements func()) {
	tx.ctx, endStatements = context.WithCancel(context.Background())
	begun := time.Now()
	warn := time.AfterFunc(db.opts.Warn, func() {
		db.opts.Log.Warn("transaction is slow", "for", time.Since(begun), "cancelled_at", db.opts.Cancel)
	})
	ended := make(chan struct{})
	limit := time.AfterFunc(db.opts.Cancel, func() {
		defer close(ended)
		endStatements()
		tx.end()
		cancelInner(freehold.ErrTooLong)
		if db.opts.hooks.limited != nil {
			db.opts.hooks.limited()
		}
		db.discard(tx.conn) // lets others have what it has locked
	})
	return sync.OnceValue(func() bool {
		warn.Stop()
		if limit.Stop() {
			return false
		}
		<-ended
		return true
	}), endStatements
}

func (db *DB) rollback(conn *sql.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	err := native(conn, func(c *pgx.Conn) error {
		if c.IsClosed() || c.PgConn().TxStatus() == 'I' {
			return nil
		}
		_, err := c.Exec(ctx, `ROLLBACK`)
		return err
	})
	if err != nil {
		db.discard(conn)
	}
}

// commit inserts the events of a closure and commits.
func (db *DB) commit(tx *transaction, patience time.Duration) (events []drawn, err error) {
	if tx.broken != nil {
		return nil, fmt.Errorf("%w: %w", errStatement, tx.broken)
	}
	if !tx.opened && len(tx.kept) == 0 {
		return nil, nil // nothing was read or written
	}
	if err := tx.open(); err != nil {
		return nil, err
	}
	err = native(tx.conn, func(c *pgx.Conn) error {
		if status := c.PgConn().TxStatus(); status != 'T' {
			return errStatement
		}
		events, err = db.finish(c, &tx.appended, tx.kept, patience)
		if err != nil && !definite(err) {
			err = &lostCommit{tx.xid, tx.pid, tx.server, tx.events, err}
		}
		return err
	})
	return events, err
}

// lostCommit is the error of a commit whose answer was lost with the connection.
type lostCommit struct {
	xid string
	pid uint32 // of the server's process that may still work on it
	// In a database that was restored xids and numbers of processes are given again.
	server *string // on which it began
	events []freehold.Recorded
	err    error
}

func (l *lostCommit) Error() string { return "connection lost: " + l.err.Error() }
func (l *lostCommit) Unwrap() error { return l.err }

// finish is the end of every writing transaction: what followers keep, versions, events,
// a pass if it carries one, COMMIT. It returns the events. With patience it waits so
// long for the turn to make a pass, if it has to, and below 0 it carries none.
func (db *DB) finish(c *pgx.Conn, a *appended, kept map[keptKey]keptValue, patience time.Duration) (events []drawn, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	var seqs []int64
	b := &pgx.Batch{}
	queueKept(b, kept)
	if stale := a.stale(); len(stale) > 0 {
		queueVersions(b, stale, a.versions)
	}
	if len(a.events) > 0 {
		queueEvents(b, a.events, &seqs)
	}
	fail := db.failCommits.Add(-1) >= 0
	if patience >= 0 && !fail && len(a.events) > 0 {
		turn := db.seq.tryCarry(0)
		if turn == nil && patience > 0 && db.seq.mayCarry() {
			if err := c.SendBatch(ctx, b).Close(); err != nil {
				return nil, fmt.Errorf("%w: %w", errNotSent, err)
			}
			b = &pgx.Batch{}
			turn = db.seq.tryCarry(patience)
		}
		if turn != nil {
			err := turn.carry(ctx, c, b, a.events, &seqs)
			return a.drew(seqs), err
		}
	}
	if fail {
		b.Queue(`ROLLBACK`)
	} else {
		b.Queue(`COMMIT`)
	}
	err = c.SendBatch(ctx, b).Close()
	if err == nil && fail && !mutant.AckBeforeCommit {
		err = errCommit
	}
	return a.drew(seqs), err
}

// definite reports whether an error says that the transaction was not committed.
// Any other may have come instead of the answer to a COMMIT.
func definite(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.SeverityUnlocalized == "ERROR" || errors.Is(err, errCarried) || errors.Is(err, errNotSent) || errors.Is(err, errCommit) || errors.Is(err, errStatement)
}

// errNotSent is the error of a transaction that failed before its COMMIT was sent.
var errNotSent = errors.New("postgres: nothing was written")

// errStatement is returned for a closure that hides the error of a statement.
var errStatement = errors.New("postgres: a statement of the closure failed, so that nothing was written, and the closure returned nil: return the statement's error")

// errRows is returned for a statement that comes while rows are open, and for a closure that
// leaves them open, of which nothing is written then.
var errRows = errors.New("postgres: rows of a query were open when the closure's next statement came, or when it returned: close rows before")

// patience is for how long the outcome of a commit is looked for.
const patience = 10 * time.Second

// settle finds out what became of a transaction whose connection was lost during
// its commit. The process that may still work on it is ended first. It needs a
// connection, so its caller must not hold one.
func (db *DB) settle(lost *lostCommit) (events []drawn, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	unknown := fmt.Errorf("postgres: %s: %w (%w)", db.name, freehold.ErrUnknown, lost)
	for pause := time.Millisecond; ; pause = min(2*pause, 250*time.Millisecond) {
		var status *string
		var server string
		err := db.pool.QueryRow(ctx, `SELECT pg_xact_status($1::text::xid8), `+thisServer, lost.xid).Scan(&status, &server)
		switch same := lost.server != nil && server == *lost.server; {
		case err != nil || status == nil:
		case *status == "committed" && len(lost.events) == 0:
			if same {
				return nil, nil
			}
			return nil, unknown
		case *status == "committed":
			rows, _ := db.pool.Query(ctx, `SELECT seq, id FROM freehold.event WHERE xid = $1::text::xid8 ORDER BY seq`, lost.xid)
			events, err = pgx.CollectRows(rows, scanDrawn)
			if err == nil && !slices.EqualFunc(events, lost.events, func(d drawn, r freehold.Recorded) bool { return d.id == r.ID }) {
				return nil, unknown
			}
			if err == nil {
				return events, nil
			}
		case *status == "aborted":
			return nil, fmt.Errorf("postgres: %s: nothing was written: %w", db.name, lost)
		case same:
			_, _ = db.pool.Exec(ctx, `SELECT pg_terminate_backend($1)`, int32(lost.pid)) // what it has done decides
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, unknown
		}
	}
}
