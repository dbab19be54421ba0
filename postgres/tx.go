package postgres

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/internal/statement"
	"github.com/freehold-go/freehold/journal"
	"github.com/freehold-go/freehold/sqldb"
)

// transaction is the sqldb.Tx of an Update or a View, on a connection of its own.
// The caller's context is used for its values only; statements end with ctx, which
// ends when the transaction has taken too long.
type transaction struct {
	db     *DB
	conn   *sql.Conn
	writer bool
	ctx    context.Context
	id     string
	now    time.Time
	mark   freehold.Mark

	mu     sync.Mutex
	over   bool
	xid    string  // of PostgreSQL
	pid    uint32  // of the server's process
	opened bool    // on the server
	broken error   // why it could not be opened
	server *string // that it began on, as far as the sequencer knew
	appended
	read map[freehold.StreamID][]freehold.Recorded // streams that are locked and were read whole
	kept map[keptKey]keptValue
	held map[string]bool // advisory locks, by key
}

var _ sqldb.Tx = (*transaction)(nil)

// native runs fn on the driver's connection.
func native(conn *sql.Conn, fn func(c *pgx.Conn) error) error {
	return conn.Raw(func(c any) error { return fn(c.(*stdlib.Conn).Conn()) })
}

// begin guards a use of the handle; the returned function ends the use.
func (tx *transaction) begin() (end func(), err error) {
	tx.mu.Lock()
	if tx.over {
		tx.mu.Unlock()
		return nil, freehold.ErrTxDone
	}
	if tx.broken != nil {
		tx.mu.Unlock()
		return nil, tx.broken
	}
	return tx.mu.Unlock, nil
}

// end kills the handle.
func (tx *transaction) end() {
	tx.mu.Lock()
	defer tx.mu.Unlock()
	tx.over = true
}

// allowed refuses statements that would end the transaction or change the
// connection for those who use it afterwards.
func allowed(query string) error {
	for _, word := range statement.PostgreSQL.Words(query) {
		switch word {
		case "BEGIN", "START", "COMMIT", "END", "ROLLBACK", "ABORT", "SAVEPOINT", "RELEASE", "PREPARE", "SET", "RESET", "DISCARD", "LISTEN", "NOTIFY":
			return fmt.Errorf("postgres: %s inside a closure: the closure is the transaction: return nil to commit, an error to roll back", word)
		}
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
	if err := errors.Join(allowed(query), tx.open()); err != nil {
		return nil, err
	}
	return tx.conn.ExecContext(tx.ctx, query, args...)
}

func (tx *transaction) QueryContext(_ context.Context, query string, args ...any) (*sql.Rows, error) {
	end, err := tx.begin()
	if err != nil {
		return nil, err
	}
	defer end()
	if err := errors.Join(allowed(query), tx.open()); err != nil {
		return nil, err
	}
	return tx.conn.QueryContext(tx.ctx, query, args...)
}

// QueryRowContext reports an unusable handle or query as the error of Scan.
func (tx *transaction) QueryRowContext(_ context.Context, query string, args ...any) *sql.Row {
	end, err := tx.begin()
	if err == nil {
		defer end()
		err = errors.Join(allowed(query), tx.open())
	}
	if err != nil {
		return tx.db.failedRow(err)
	}
	return tx.conn.QueryRowContext(tx.ctx, query, args...)
}

// failedRow returns a row whose Scan fails: database/sql makes one only from a
// query that failed, so a context that has ended with the error does it.
func (db *DB) failedRow(err error) *sql.Row {
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(err)
	return db.sql.QueryRowContext(causeContext{ctx}, "SELECT 1")
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
	if err := errors.Join(allowed(query), tx.open()); err != nil {
		return nil, err
	}
	return tx.conn.PrepareContext(tx.ctx, query)
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
	if err := s.Validate(); err != nil {
		return 0, err
	}
	drafts, err := journal.Draft(ctx, tx.db.types, tx.id, len(tx.events), tx.now, events)
	if err != nil {
		return 0, err
	}
	v, locked := tx.versions[s]
	if !locked {
		if v, err = tx.lockStream(tx.send, s, len(drafts)); err != nil {
			return 0, fmt.Errorf("lock stream %s: %w", s, err)
		}
	}
	return tx.add(s, expect, v, drafts)
}

func (tx *transaction) Events(_ context.Context, s freehold.StreamID, after freehold.Version) iter.Seq2[freehold.Recorded, error] {
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

// stream reads what the transaction sees of a stream, with what it has appended.
func (tx *transaction) stream(s freehold.StreamID, after freehold.Version) (rs []freehold.Recorded, err error) {
	end, err := tx.begin()
	if err != nil {
		return nil, err
	}
	defer end()
	if stored, known := tx.read[s]; known {
		for _, r := range stored {
			if r.Version > after {
				rs = append(rs, r)
			}
		}
		return tx.withOwn(rs, s, after), nil
	}
	if err := tx.open(); err != nil {
		return nil, err
	}
	err = native(tx.conn, func(c *pgx.Conn) error {
		rows, err := c.Query(tx.ctx, streamQuery, string(s), int64(after), nil)
		if err == nil {
			rs, err = tx.db.scan(rows)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read stream %s: %w", s, err)
	}
	return tx.withOwn(rs, s, after), nil
}

// withOwn adds what the transaction has appended to a stream behind a version.
func (tx *transaction) withOwn(rs []freehold.Recorded, s freehold.StreamID, after freehold.Version) []freehold.Recorded {
	if !tx.written[s] {
		return rs
	}
	for _, r := range tx.events {
		if r.Stream == s && r.Version > after {
			rs = append(rs, r)
		}
	}
	return rs
}

// Lock takes advisory locks until the end of the transaction, in the order of the
// keys.
func (tx *transaction) Lock(_ context.Context, keys ...string) error {
	end, err := tx.begin()
	if err != nil {
		return err
	}
	defer end()
	if !tx.writer || len(keys) == 0 {
		return nil
	}
	b := &pgx.Batch{}
	tx.queueUnheld(b, keys)
	if b.Len() == 0 {
		return nil
	}
	return tx.send(b)
}

func (tx *transaction) Mark() freehold.Mark { return tx.mark }
func (tx *transaction) Now() time.Time      { return tx.now }
func (tx *transaction) Sets() bool          { return true } // see sqldb.Sets

// View runs fn on a snapshot; see freehold.DB.
func (db *DB) View(ctx context.Context, fn func(ctx context.Context, tx sqldb.Tx) error) error {
	leave, err := db.enter()
	if err != nil {
		return err
	}
	defer leave()
	conn, err := db.sql.Conn(ctx)
	if err != nil {
		return db.unreached(ctx, err)
	}
	defer conn.Close()
	statements, endStatements := context.WithCancel(context.WithoutCancel(ctx))
	defer endStatements()
	tx := &transaction{db: db, conn: conn, ctx: statements, now: journal.Now(), kept: map[keptKey]keptValue{}}
	err = native(conn, func(c *pgx.Conn) error {
		b := &pgx.Batch{}
		b.Queue(`BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY`)
		b.Queue(`SELECT position, chain FROM freehold.stamp ORDER BY position DESC LIMIT 1`).QueryRow(func(row pgx.Row) error {
			err := db.scanMark(row, &tx.mark)
			if errors.Is(err, pgx.ErrNoRows) {
				err = nil
			}
			return err
		})
		return c.SendBatch(ctx, b).Close()
	})
	if err != nil {
		db.discard(conn)
		return db.unreached(ctx, err)
	}
	defer func() {
		tx.end()
		endStatements() // the connection is not given back before rows are closed
		if _, err := conn.ExecContext(context.WithoutCancel(ctx), `ROLLBACK`); err != nil {
			db.discard(conn)
		}
	}()
	return unavailable(fn(ctx, tx))
}

// scanMark reads a position and a chain value of this journal, and what follows them.
func (db *DB) scanMark(row pgx.Row, m *freehold.Mark, more ...any) error {
	*m = freehold.Mark{Source: db.name, Epoch: db.head.present()}
	var chain []byte
	err := row.Scan(append([]any{(*int64)(&m.Position), &chain}, more...)...)
	copy(m.Chain[:], chain)
	return err
}

// discard closes a connection of which nobody knows in what state it is.
func (db *DB) discard(conn *sql.Conn) {
	_ = native(conn, func(c *pgx.Conn) error {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		return c.Close(ctx) // the pool drops it; the server rolls back
	})
}

// unreached is the error of a call for which there was no connection, or the
// caller's own if it has gone.
func (db *DB) unreached(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return unavailable(fmt.Errorf("postgres: %s: %w", db.name, err))
}

// unavailable marks an error that says that the server is away, or will not work just
// now, so that nobody takes it for one of what was asked.
func unavailable(err error) error {
	if err == nil || errors.Is(err, freehold.ErrUnknown) || errors.Is(err, freehold.ErrUnavailable) || errors.Is(err, freehold.ErrTooLong) {
		return err
	}
	away := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, driver.ErrBadConn) || errors.Is(err, sql.ErrConnDone) ||
		errors.Is(err, net.ErrClosed) || errors.As(err, new(*pgconn.ConnectError)) || errors.As(err, new(net.Error)) || strings.Contains(err.Error(), "conn closed")
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		switch pg.Code {
		case "57P01", "57P02", "57P03", "53300", "53100", "25006": // shutdown, crash, starting, too many connections, disk full, read-only
			away = true
		default:
			away = strings.HasPrefix(pg.Code, "08")
		}
	}
	if !away {
		return err
	}
	return fmt.Errorf("%w: %w", freehold.ErrUnavailable, err)
}
