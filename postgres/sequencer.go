package postgres

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/freehold-go/freehold"
)

// sequencer gives positions to events of this journal while it holds the lock, and
// learns what another instance's gives while it does not.
type sequencer struct {
	db     *DB
	config *pgx.ConnConfig
	poke   chan struct{} // due or untold is set
	due    atomic.Bool   // somebody has committed
	cancel context.CancelFunc
	done   chan struct{}
	live   atomic.Pointer[pgconn.PgConn] // the connection, so that stop can end it

	planted string // the base of the latest pass, of a planted bug

	mu      sync.Mutex
	waiting map[drawn][]chan freehold.Mark
	// young and old are the places of the latest events: the sequencer may be faster
	// than the writer's connection.
	young, old map[drawn]freehold.Mark

	checked time.Time   // when it was last looked for events that a pass has missed
	missed  atomic.Bool // there are such events
	checks  sync.WaitGroup

	carrier atomic.Pointer[session] // whose passes commits may carry, if this is the sequencer

	knew     freehold.Mark   // the head as the last connection knew it
	cluster  string          // whose databases these are, since the first connection
	openings map[string]bool // of the journal: all of the last connection, and the newest since
}

// generation is how many places young holds before it becomes old.
const generation = 8192

// Who gives positions is told of commits: by writers of its instance, by other instances'
// sequencers, and by nobody of those of transactions that have joined, or if who would
// have told is lost. So it also looks by itself, behind pauses that begin at leastIdle
// and double, up to mostIdle, while there is nothing: what nobody has told is found so
// much later at most. Who follows looks each mostIdle, too.
const (
	leastIdle = time.Millisecond
	mostIdle  = 500 * time.Millisecond
	// hintEvery is how often an instance tells the others of its commits at most.
	hintEvery = 5 * time.Millisecond
	// lockEvery is how often an instance that is not the sequencer tries to be.
	lockEvery = time.Second
	// checkEvery is how often it is looked for events without a position where there
	// should be none.
	checkEvery = time.Minute
)

// startSequencer connects and runs until stop. It returns when the head is known.
func startSequencer(ctx context.Context, db *DB, config *pgx.ConnConfig) (*sequencer, error) {
	s := &sequencer{db: db, config: config.Copy(), poke: make(chan struct{}, 1), done: make(chan struct{}), waiting: map[drawn][]chan freehold.Mark{}}
	s.config.RuntimeParams["application_name"] = "freehold sequencer " + string(db.name)
	if !db.opts.hooks.asleep {
		// It asks each second at least: one that stands still, as a process or a machine
		// that was stopped does, must not keep the lock.
		s.config.RuntimeParams["idle_session_timeout"] = fmt.Sprint(leaseIdle.Milliseconds())
	}
	c, err := s.connect(ctx)
	if err != nil {
		return nil, fmt.Errorf("postgres: %s: sequencer: %w", db.name, err)
	}
	running, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	go s.run(running, c)
	return s, nil
}

// connect tries to become the sequencer and reads the head.
func (s *sequencer) connect(ctx context.Context) (*session, error) {
	c := &session{s: s, turn: newTurn(), owes: true} // what the last connection owed may be forgotten
	conn, err := s.db.dial(ctx, s.config, c.hear)
	if err != nil {
		return nil, err
	}
	c.conn = conn
	s.live.Store(conn.PgConn())
	if err := c.open(ctx); err != nil {
		c.end()
		return nil, err
	}
	return c, nil
}

// stop lets the sequencer finish. A server that does not answer is not waited for.
func (s *sequencer) stop() {
	s.cancel()
	limit := time.AfterFunc(s.db.patience(), func() { _ = s.live.Load().Conn().Close() })
	<-s.done
	limit.Stop()
	s.checks.Wait()
}

// run works on a connection and on another one when that is lost.
func (s *sequencer) run(ctx context.Context, c *session) {
	defer close(s.done)
	pause := 10 * time.Millisecond
	for {
		if c != nil {
			err := c.work(ctx)
			if ended := s.db.opts.hooks.ended; ended != nil {
				ended()
			}
			c.end()
			if c.last.head.Position > 0 {
				s.knew = c.last.head
			}
			c = nil
			if ctx.Err() != nil {
				return
			}
			s.db.opts.Log.Warn("sequencer begins again", "journal", s.db.name, "error", err)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
		var err error
		if c, err = s.connect(ctx); err == nil {
			pause = 10 * time.Millisecond
			continue
		}
		pause = min(2*pause, time.Second)
		if ctx.Err() == nil {
			s.db.opts.Log.Warn("sequencer cannot connect", "journal", s.db.name, "again_in", pause, "error", err)
		}
	}
}

// gone reports whether the pass that this sequencer knows as the last one is not there.
func gone(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == "23502" && pg.SchemaName == "freehold" && pg.TableName == "tick"
}

// fenced reports whether another sequencer has written what this one would have.
func fenced(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == "23505" && pg.SchemaName == "freehold" && (pg.TableName == "tick" || pg.TableName == "incarnation")
}

// wake says that somebody has committed.
func (s *sequencer) wake() {
	s.due.Store(true)
	s.nudge()
}

func (s *sequencer) nudge() {
	select {
	case s.poke <- struct{}{}:
	default:
	}
}

// work gives positions, or follows who does, until ctx ends; then it finishes. What
// it has begun is not interrupted.
func (c *session) work(ctx context.Context) error {
	whole := context.WithoutCancel(ctx)
	idle := leastIdle
	tried := time.Now()
	for ctx.Err() == nil {
		if !c.holds && time.Since(tried) >= lockEvery {
			tried = time.Now()
			if err := c.tryLock(whole); err != nil {
				return err
			}
		}
		if !c.holds {
			if err := c.follow(ctx); err != nil {
				return err
			}
			continue
		}
		where := inDifference
		if time.Since(c.s.checked) > checkEvery {
			c.s.checked = time.Now()
			c.s.checks.Go(func() { c.s.check(ctx) })
		}
		if c.s.missed.Swap(false) {
			where = inRecent
		}
		c.told = false
		n, err := c.pass(whole, where)
		if err != nil {
			if where == inRecent {
				c.s.missed.Store(true) // the next session looks
			}
			return err
		}
		if n > 0 {
			idle = leastIdle
			if time.Since(c.looked) > lockEvery { // another instance may have begun an epoch
				if err := c.refresh(whole); err != nil {
					return err
				}
			}
			continue
		}
		// Another sequencer, before this one or at the same time, may have done it.
		if c.moved || idle == mostIdle || len(c.s.awaited()) > 0 {
			if err := c.refresh(whole); err != nil {
				return err
			}
		}
		if err := c.rest(ctx, c.polling(idle)); err != nil {
			return err
		}
		if idle = min(2*idle, mostIdle); c.told {
			idle = leastIdle
		}
	}
	if !c.holds {
		return nil
	}
	for {
		if n, err := c.pass(whole, inDifference); n == 0 || err != nil {
			return err
		}
	}
}
