package postgres

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// hint is what is notified of commits; passes notify whose they were.
const hint = "due"

// hear takes note of a notification, which may arrive with the answer to any statement.
func (c *session) hear(own *pgconn.PgConn, n *pgconn.Notification) {
	switch {
	case n.PID == own.PID() || c.id != "" && n.Payload == c.id:
	case n.Payload == hint:
		c.told = c.told || c.holds // who follows can do nothing about it
	default:
		c.moved = true
	}
}

// follow waits for news of another instance's sequencer, tells it of commits of this
// instance, and looks for itself now and then.
func (c *session) follow(ctx context.Context) error {
	pause := c.polling(mostIdle)
	if c.owes {
		pause = hintEvery - time.Since(c.hinted)
	}
	if err := c.wait(ctx, pause); err != nil {
		return err
	}
	c.owes, c.told = c.owes || c.told, false
	whole := context.WithoutCancel(ctx)
	if c.owes && time.Since(c.hinted) >= hintEvery {
		c.owes, c.hinted = false, time.Now()
		// It changes no row, so that its commit waits for no disk.
		if _, err := c.conn.Exec(whole, `SELECT pg_notify('freehold', $1)`, hint); err != nil {
			return err
		}
	} else if c.owes && !c.moved {
		return nil
	}
	return c.refresh(whole)
}

// rest waits until there is something to do for who gives positions, and tells others of
// passes that commits have carried: those notify nothing themselves, for that takes a lock
// of the whole server until they are on disk. It tells each hintEvery at most.
func (c *session) rest(ctx context.Context, pause time.Duration) error {
	until := time.Now().Add(pause)
	for {
		wait := time.Until(until)
		if c.untold.Load() {
			wait = hintEvery - time.Since(c.hinted)
			if ctx.Err() != nil {
				wait = 0 // it is the last time
			}
		}
		if c.untold.Load() && wait <= 0 {
			c.untold.Store(false)
			c.hinted = time.Now()
			var xid int64
			if err := c.conn.QueryRow(context.WithoutCancel(ctx), `SELECT pg_current_xact_id()::text::int8, pg_notify('freehold', $1)::text`, c.id).Scan(&xid, nil); err != nil {
				return err
			}
			c.telling.Store(uint64(xid))
			wait = time.Until(until)
		}
		if err := c.wait(ctx, wait); err != nil {
			return err
		}
		if c.told || c.moved || !c.untold.Load() {
			return nil
		}
	}
}

// polling is a pause before a look for what nobody has told.
func (c *session) polling(pause time.Duration) time.Duration {
	if c.s.db.opts.hooks.asleep {
		return time.Minute
	}
	return pause
}

// wait returns when the pause is over or there is something to do: positions that others
// have given, commits of which others tell, or of this instance.
func (c *session) wait(ctx context.Context, pause time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, pause)
	defer cancel()
	poked := make(chan bool, 1)
	go func() {
		select {
		case <-c.s.poke:
			poked <- true
		case <-ctx.Done():
			poked <- false
		}
		cancel()
	}()
	var err error
	for err == nil && ctx.Err() == nil && !c.moved && !c.told {
		err = c.conn.PgConn().WaitForNotification(ctx)
	}
	lost := err != nil && ctx.Err() == nil
	cancel()
	if <-poked && c.s.due.Swap(false) {
		c.told = true
	}
	if lost {
		return err
	}
	return nil
}
