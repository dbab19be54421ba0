package sqlite

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"sync"
)

// session is a connection with its prepared statements. Queries of closures go
// through database/sql. What closures change, and statements of the engine, go to
// the driver, which costs half as much; they run inside do only, which keeps
// everything else off the connection meanwhile, also a closure that was left behind.
// One goroutine at a time uses it.
type session struct {
	conn    *sql.Conn
	guests  stmtCache // of queries
	changes direct    // of closures
	own     direct
}

// direct is the driver's side of a session. It may be used inside session.do only.
type direct struct {
	conn  driver.ConnPrepareContext
	stmts map[string]*ownStmt
	args  []driver.NamedValue
}

// ownStmt is a prepared statement of the engine's.
type ownStmt struct {
	driver.Stmt
	exec  driver.StmtExecContext
	query driver.StmtQueryContext
	row   []driver.Value
}

func newDirect() direct { return direct{stmts: map[string]*ownStmt{}} }

func newSession(conn *sql.Conn) *session {
	return &session{conn: conn, guests: newStmtCache(conn), changes: newDirect(), own: newDirect()}
}

// do lets fn run statements of the engine's. fn must not use database/sql.
func (s *session) do(fn func(d *direct) error) error {
	return s.conn.Raw(func(conn any) error {
		s.own.conn = conn.(driver.ConnPrepareContext)
		return fn(&s.own)
	})
}

// exec runs one statement of the engine's.
func (s *session) exec(query string, args ...driver.Value) error {
	return s.do(func(d *direct) error { return d.exec(query, args...) })
}

func (s *session) close() error {
	s.guests.close()
	err := s.do(func(d *direct) error { return errors.Join(d.close(), s.changes.close()) })
	return errors.Join(err, s.conn.Close())
}

func (d *direct) close() error {
	var errs []error
	for _, st := range d.stmts {
		errs = append(errs, st.Close())
	}
	clear(d.stmts)
	return errors.Join(errs...)
}

func (d *direct) prepare(query string) (*ownStmt, error) {
	if st := d.stmts[query]; st != nil {
		return st, nil
	}
	prepared, err := d.conn.PrepareContext(context.Background(), positional(query))
	if err != nil {
		return nil, err
	}
	st := &ownStmt{Stmt: prepared, exec: prepared.(driver.StmtExecContext), query: prepared.(driver.StmtQueryContext)}
	d.stmts[query] = st
	return st, nil
}

// bind numbers values. The slice is valid until the next call.
func (d *direct) bind(values []driver.Value) []driver.NamedValue {
	d.args = d.args[:0]
	for i, v := range values {
		d.args = append(d.args, driver.NamedValue{Ordinal: i + 1, Value: v})
	}
	return d.args
}

// exec runs a statement. Values are int64, string, []byte or nil.
func (d *direct) exec(query string, args ...driver.Value) error {
	st, err := d.prepare(query)
	if err != nil {
		return err
	}
	_, err = st.exec.ExecContext(context.Background(), d.bind(args))
	return err
}

// change runs a closure's statement, with what database/sql takes as values.
func (s *session) change(query string, values []any) (result sql.Result, err error) {
	err = s.conn.Raw(func(conn any) error {
		d := &s.changes
		d.conn = conn.(driver.ConnPrepareContext)
		if len(d.stmts) >= maxStatements && d.stmts[query] == nil {
			if err := d.close(); err != nil {
				return err
			}
		}
		st, err := d.prepare(query)
		if err != nil {
			return err
		}
		d.args = d.args[:0]
		for i, v := range values {
			arg := driver.NamedValue{Ordinal: i + 1}
			if named, ok := v.(sql.NamedArg); ok {
				arg.Name, v = named.Name, named.Value
			}
			if arg.Value, err = driver.DefaultParameterConverter.ConvertValue(v); err != nil {
				return fmt.Errorf("sqlite: argument %d: %w", i+1, err)
			}
			d.args = append(d.args, arg)
		}
		result, err = st.exec.ExecContext(context.Background(), d.args)
		return err
	})
	return result, err
}

// query runs a statement and gives each row to fn; the slice is valid during the
// call, the values it holds are fn's. fn must not run the same query.
func (d *direct) query(query string, fn func(row []driver.Value) error, args ...driver.Value) (err error) {
	st, err := d.prepare(query)
	if err != nil {
		return err
	}
	rows, err := st.query.QueryContext(context.Background(), d.bind(args))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	if n := len(rows.Columns()); len(st.row) != n {
		st.row = make([]driver.Value, n)
	}
	for {
		switch err := rows.Next(st.row); {
		case err == io.EOF:
			return nil
		case err != nil:
			return err
		}
		if err := fn(st.row); err != nil {
			return err
		}
	}
}

// value is what a column holds that must be of type T; the zero value for NULL.
// A column of another type is damage.
func value[T int64 | string | []byte](v driver.Value) (T, error) {
	t, ok := v.(T)
	if !ok && v != nil {
		return t, fmt.Errorf("a column holds %T, want %T", v, t)
	}
	return t, nil
}

// stmtCache keeps the prepared statements of closures on one connection, by query
// text. One goroutine at a time uses it.
type stmtCache struct {
	conn  *sql.Conn
	stmts map[string]*sql.Stmt
}

// maxStatements bounds a cache; a service has far fewer queries, unless it builds
// them from values.
const maxStatements = 512

func newStmtCache(conn *sql.Conn) stmtCache {
	return stmtCache{conn: conn, stmts: map[string]*sql.Stmt{}}
}

func (c *stmtCache) known(query string) bool { return c.stmts[query] != nil }

func (c *stmtCache) get(query string) (*sql.Stmt, error) {
	if stmt := c.stmts[query]; stmt != nil {
		return stmt, nil
	}
	stmt, err := c.conn.PrepareContext(context.Background(), positional(query))
	if err != nil {
		return nil, err
	}
	if len(c.stmts) >= maxStatements {
		c.close()
	}
	c.stmts[query] = stmt
	return stmt, nil
}

func (c *stmtCache) close() {
	for _, stmt := range c.stmts {
		_ = stmt.Close() // a read-only handle; nothing is lost
	}
	clear(c.stmts)
}

// readerPool keeps readers' sessions with their prepared statements.
type readerPool struct {
	slots chan struct{} // as many as there may be readers
	mu    sync.Mutex
	idle  []*session
}

// acquire waits for a slot and returns an idle reader, or a new one.
func (db *DB) acquire(ctx context.Context) (*session, error) {
	p := &db.readers
	select {
	case p.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	p.mu.Lock()
	if n := len(p.idle); n > 0 {
		r := p.idle[n-1]
		p.idle = p.idle[:n-1]
		p.mu.Unlock()
		return r, nil
	}
	p.mu.Unlock()
	conn, err := db.read.Conn(context.Background())
	if err != nil {
		<-p.slots
		return nil, db.unread(err)
	}
	return newSession(conn), nil
}

// release takes a reader back; one that failed is closed.
func (p *readerPool) release(r *session, err error) {
	defer func() { <-p.slots }()
	if err != nil {
		_ = r.close() // gives it back to the pool, which closes it; nothing is lost
		return
	}
	p.mu.Lock()
	p.idle = append(p.idle, r)
	p.mu.Unlock()
}

func (p *readerPool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range p.idle {
		_ = r.close() // read-only: nothing is lost
	}
	p.idle = nil
}
