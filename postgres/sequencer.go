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
	"github.com/freehold-go/freehold/internal/mutant"
	"github.com/freehold-go/freehold/journal"
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
	c := &session{s: s, owes: true} // what the last connection owed may be forgotten
	conn, err := s.db.dial(ctx, s.config, c.hear)
	if err != nil {
		return nil, err
	}
	c.conn = conn
	if err := c.open(ctx); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

func (s *sequencer) stop() {
	s.cancel()
	<-s.done
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
			c.turn.Lock() // whoever carries a pass is done with it
			s.carrier.Store(nil)
			c.turn.Unlock()
			c.close()
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
	return errors.As(err, &pg) && pg.Code == "23502" && pg.TableName == "tick"
}

// fenced reports whether another sequencer has written what this one would have.
func fenced(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == "23505" && (pg.TableName == "tick" || pg.TableName == "incarnation")
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

// session is a sequencer's time on one connection.
type session struct {
	s           *sequencer
	conn        *pgx.Conn
	holds       bool       // the lock
	turn        sync.Mutex // of who makes a pass: guards last and stale, and what a pass tells
	last        tick
	stale       bool  // there may be a tick behind last
	lost        error // last is not there: the database was restored
	server      string
	incarnation int
	id          string
	looked      time.Time // when the head was last read
	newest      string    // the newest opening then

	untold atomic.Bool // a commit has carried a pass, of which others do not know

	moved  bool      // another sequencer has given positions
	told   bool      // somebody has committed, or will soon
	owes   bool      // others are to be told of it, by who follows
	hinted time.Time // when they were last
}

// tick is the last pass as it is stored.
type tick struct {
	pass  int64
	base  string
	drain *string
	head  freehold.Mark
}

func (c *session) close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = c.conn.Close(ctx) // releases the lock
}

// open reads the head and tries to become the sequencer.
func (c *session) open(ctx context.Context) error {
	if _, err := c.conn.PgConn().Exec(ctx, planByIndex(nil, false)+`; LISTEN freehold`).ReadAll(); err != nil {
		return err
	}
	if err := c.conn.QueryRow(ctx, `SELECT `+thisServer).Scan(&c.server); err != nil {
		return err
	}
	if err := c.compare(ctx); err != nil {
		return err
	}
	if err := c.tryLock(ctx); err != nil {
		return err
	}
	return c.refresh(ctx)
}

func (c *session) read(ctx context.Context) error {
	c.last, c.stale, c.looked, c.moved = tick{head: freehold.Mark{Source: c.s.db.name}}, false, time.Now(), false
	var chain []byte
	err := c.conn.QueryRow(ctx, `SELECT pass, base::text, drain::text, position, chain,
			(SELECT epoch FROM freehold.journal), coalesce((SELECT id FROM freehold.incarnation ORDER BY number DESC LIMIT 1), '')
		FROM freehold.tick ORDER BY pass DESC LIMIT 1`).
		Scan(&c.last.pass, &c.last.base, &c.last.drain, (*int64)(&c.last.head.Position), &chain, &c.last.head.Epoch, &c.newest)
	copy(c.last.head.Chain[:], chain)
	if mutant.SnapshotInMemory && c.s.planted != "" {
		c.last.base = c.s.planted
	}
	if err == nil {
		c.s.db.head.turn(c.last.head.Epoch)
	}
	return err
}

// tryLock takes the sequencer's lock, if it is free, and records an incarnation. The
// lock only saves work: a pass of two sequencers is written by one of them.
func (c *session) tryLock(ctx context.Context) error {
	var got bool
	if err := c.conn.QueryRow(ctx, `SELECT pg_try_advisory_lock($1)`, sequencerLock+c.s.db.opts.hooks.lock).Scan(&got); err != nil || !got {
		return err
	}
	if err := c.refresh(ctx); err != nil {
		return err
	}
	c.id = journal.NewEpoch()
	next := c.last
	next.pass++
	b := &pgx.Batch{}
	b.Queue(`BEGIN`)
	b.Queue(`INSERT INTO freehold.incarnation (number, id, position, chain, time)
		SELECT coalesce(max(number), 0) + 1, $1, $2, $3, $4 FROM freehold.incarnation RETURNING number`,
		c.id, int64(c.last.head.Position), c.last.head.Chain[:], journal.Now().UnixMicro()).
		QueryRow(func(row pgx.Row) error { return row.Scan(&c.incarnation) })
	queueTick(b, c.last, next)
	b.Queue(`COMMIT`)
	if err := c.conn.SendBatch(ctx, b).Close(); fenced(err) { // as long as another one is faster, follow it
		_, err := c.conn.Exec(ctx, `ROLLBACK`)
		return err
	} else if err != nil {
		return err
	}
	c.last, c.holds = next, true
	c.s.openings[c.id] = true
	if err := c.rebase(ctx); err != nil {
		return err
	}
	c.s.carrier.Store(c)
	return nil
}

// rebase makes the snapshots of the ticks those of this cluster, if they are
// another's: transaction ids mean nothing in another system, behind a fail-over, or
// in a database that was restored from a dump.
func (c *session) rebase(ctx context.Context) error {
	var same bool
	if err := c.conn.QueryRow(ctx, `SELECT cluster = `+thisCluster+` FROM freehold.journal`).Scan(&same); err != nil || same {
		return err
	}
	c.s.db.opts.Log.Warn("the database was restored or has failed over: looking for events without a position", "journal", c.s.db.name)
	c.last.drain = nil
	for {
		// What commits from now on is in the difference to this snapshot.
		if err := c.conn.QueryRow(ctx, `SELECT pg_current_snapshot()::text`).Scan(&c.last.base); err != nil {
			return err
		}
		n, err := c.pass(ctx, anywhere)
		if err != nil {
			return err
		}
		if n < passSize {
			break
		}
	}
	_, err := c.conn.Exec(ctx, `UPDATE freehold.journal SET cluster = `+thisCluster)
	return err
}

// refresh reads how far the journal reaches, and tells who waits.
func (c *session) refresh(ctx context.Context) error {
	c.turn.Lock()
	err := c.read(ctx)
	c.turn.Unlock()
	if err != nil {
		return err
	}
	c.s.openings[c.newest] = true
	c.s.db.head.advance(c.last.head)
	awaited := c.s.awaited()
	if len(awaited) == 0 {
		return nil
	}
	rows, err := c.conn.Query(ctx, `SELECT seq, e.id, s.position, s.chain FROM freehold.stamp s JOIN freehold.event e USING (seq) WHERE seq = ANY($1)`, awaited)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var e drawn
		var chain []byte
		at := freehold.Mark{Source: c.s.db.name, Epoch: c.s.db.head.present()}
		if err := rows.Scan(&e.seq, &e.id, (*int64)(&at.Position), &chain); err != nil {
			return err
		}
		copy(at.Chain[:], chain)
		c.s.db.head.advance(at)
		c.s.mu.Lock()
		c.s.stamped(e, at)
		c.s.mu.Unlock()
	}
	return rows.Err()
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
