package sqlite

import (
	"context"
	"database/sql"
	"sync"
)

// stmtCache keeps the prepared statements of one connection, by query text. One
// goroutine at a time uses it.
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
	stmt, err := c.conn.PrepareContext(context.Background(), query)
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

// readerPool keeps readers' connections with their prepared statements.
type readerPool struct {
	slots chan struct{} // as many as there may be readers
	mu    sync.Mutex
	idle  []*reader
}

type reader struct {
	conn  *sql.Conn
	stmts *stmtCache
}

// acquire waits for a slot and returns an idle reader, or a new one.
func (db *DB) acquire(ctx context.Context) (*reader, error) {
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
	stmts := newStmtCache(conn)
	return &reader{conn, &stmts}, nil
}

// release takes a reader back; one that failed is closed.
func (p *readerPool) release(r *reader, err error) {
	defer func() { <-p.slots }()
	if err != nil {
		r.close()
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
		r.close()
	}
	p.idle = nil
}

func (r *reader) close() {
	r.stmts.close()
	_ = r.conn.Close() // gives it back to the pool, which closes it
}

func (r *reader) exec(query string) error {
	stmt, err := r.stmts.get(query)
	if err == nil {
		_, err = stmt.ExecContext(context.Background())
	}
	return err
}
