package sqlite

import (
	"context"
	"database/sql"
	"sync"
)

// checkpointer copies the write-ahead log into the file. The bulk is copied beside
// the writer, on a connection of its own; what the writer has added meanwhile, a
// small rest, by the writer itself between two groups, so that the log can start
// from its beginning again. A writer that did all of it would keep its callers
// waiting for tens of milliseconds.
type checkpointer struct {
	conn *sql.Conn
	bulk chan struct{} // asks for the bulk
	rest chan int      // the bulk is done; pages in the log
	end  sync.WaitGroup

	commits int // since the log last began, of the writer
	limit   int // after so many the bulk is asked for
	running bool
}

// checkpointPages is about how long the log grows before it is copied.
const checkpointPages = 4000

// checkpoint copies what can be copied without keeping anybody waiting.
func checkpoint(conn *sql.Conn) (pages int, err error) {
	var busy, log, copied int
	err = conn.QueryRowContext(context.Background(), `PRAGMA wal_checkpoint(PASSIVE)`).Scan(&busy, &log, &copied)
	return log, err
}

func (db *DB) startCheckpoints(conn *sql.Conn) {
	c := &db.checkpoints
	*c = checkpointer{conn: conn, bulk: make(chan struct{}, 1), rest: make(chan int, 1), limit: 64}
	c.end.Go(func() {
		for range c.bulk {
			pages, err := checkpoint(c.conn)
			if ofDisk(err) {
				db.latch(err)
			} // any other error is a file that is busy: the next one gets further
			c.rest <- pages
		}
	})
}

// committed is called by the writer behind each commit, when it has answered.
func (c *checkpointer) committed(db *DB) {
	c.commits++
	if !c.running {
		if c.commits >= c.limit {
			c.running = true
			c.bulk <- struct{}{}
		}
		return
	}
	select {
	case pages := <-c.rest:
		c.running = false
		if pages > 0 {
			c.limit = min(max(c.commits*checkpointPages/pages, 16), 4096)
		}
		c.commits = 0
		if _, err := checkpoint(db.writer.conn); ofDisk(err) {
			db.latch(err)
		}
	default:
	}
}

func (c *checkpointer) close() error {
	if c.conn == nil {
		return nil
	}
	close(c.bulk)
	c.end.Wait()
	return c.conn.Close()
}
