package postgres

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/internal/writer"
	"github.com/freehold-go/freehold/journal"
)

// Join runs fn with a handle on a transaction of the caller's own, and inserts what fn
// has appended when it returns. The caller commits: then events and rows are there, or
// neither. Positions are given behind the commit, so a transaction that joins may be
// as slow as it likes, be rolled back, prepared or killed; nobody's events wait for it.
//
// What fn does is done whole or not at all: if it returns an error or panics,
// everything since Join was called is rolled back, by a savepoint, and the transaction
// can be used on. An error of fn comes back as it is, a *freehold.Conflict among them.
// tx may be a savepoint of pgx's, too.
//
// Call Join behind the transaction's last read that matters. In READ COMMITTED, what
// the transaction reads behind Join may have been committed meanwhile, and stands
// behind its events in the journal; in REPEATABLE READ and SERIALIZABLE nothing can be
// read that does. A transaction may join several times: its events stand together.
//
// Streams that fn appends to, or has conditions on, stay locked until the caller
// commits or rolls back: be quick, for their other writers wait. Two transactions that
// lock the same streams in different orders end with PostgreSQL's deadlock error
// (40P01) for one of them. In REPEATABLE READ and SERIALIZABLE a stream that somebody
// has appended to since the transaction's snapshot is a serialization failure (40001)
// instead of a conflict: run the whole transaction again.
//
// There is no token before the commit: an Append without writes, behind it, returns
// one that covers it. Without that, the events are found when the transaction has been
// open behind Join for as long again, and half a second after the commit at the latest.
func (db *DB) Join(ctx context.Context, tx pgx.Tx, fn func(ctx context.Context, tx freehold.Tx) error) (err error) {
	if writer.Nested(ctx) {
		return freehold.ErrNested
	}
	leave, err := db.enter()
	if err != nil {
		return err
	}
	defer leave()
	j := &joined{db: db, tx: tx, now: journal.Now(), appended: nothingAppended()}
	if err := j.begin(ctx); err != nil {
		return fmt.Errorf("postgres: %s: join: %w", db.name, err)
	}
	done := false
	defer func() {
		if j.end(); !done {
			err = errors.Join(err, j.undo(ctx))
		}
	}()
	inner, cancel := writer.Within(ctx)
	defer context.AfterFunc(ctx, func() { cancel(ctx.Err()) })()
	if err := fn(inner, j); err != nil {
		return err
	}
	if err := j.insert(ctx); err != nil {
		return fmt.Errorf("postgres: %s: join: %w", db.name, err)
	}
	done = true
	db.seq.wake() // the caller will commit, and nobody tells when
	return nil
}

// joined is the handle of a Join.
type joined struct {
	db   *DB
	tx   pgx.Tx
	id   string // of the transaction, in the ids of its events
	n    int    // of its events that earlier joins have inserted
	now  time.Time
	mark freehold.Mark

	mu   sync.Mutex
	over bool
	appended
}

var _ freehold.Tx = (*joined)(nil)

// begin sets the savepoint and looks whose journal the transaction sees. An earlier
// join has given the transaction its id. (An equality would let PostgreSQL look for it
// in the order of numbers, through all events, before it has statistics.)
func (j *joined) begin(ctx context.Context) error {
	j.mark = freehold.Mark{Source: j.db.name, Epoch: j.db.head.present()}
	var source freehold.Source
	var epoch freehold.Epoch
	var chain []byte
	var last *string
	if _, err := j.tx.Exec(ctx, `SAVEPOINT freehold`); err != nil {
		return err
	}
	err := j.tx.QueryRow(ctx, `SELECT j.source, j.epoch, coalesce(s.position, 0), s.chain,
			(SELECT id FROM freehold.event WHERE xid >= pg_current_xact_id() AND xid <= pg_current_xact_id() ORDER BY xid DESC, seq DESC LIMIT 1)
		FROM freehold.journal j LEFT JOIN (SELECT position, chain FROM freehold.stamp ORDER BY position DESC LIMIT 1) s ON true`).
		Scan((*string)(&source), (*string)(&epoch), (*int64)(&j.mark.Position), &chain, &last)
	if err == nil && (source != j.db.name || epoch != j.mark.Epoch) {
		err = fmt.Errorf("the transaction is one of a database with the journal of %q, epoch %s, and this is that of %q, epoch %s: begin it on the database that this journal is in; "+
			"if that was restored, start this process anew", source, epoch, j.db.name, j.mark.Epoch)
	}
	if err != nil {
		return errors.Join(err, j.undo(ctx))
	}
	copy(j.mark.Chain[:], chain)
	j.id = journal.NewID()
	if last != nil {
		id, n, _ := strings.Cut(*last, "-")
		before, err := strconv.Atoi(n)
		if err != nil {
			return errors.Join(fmt.Errorf("event id %q: %w", *last, err), j.undo(ctx))
		}
		j.id, j.n = id, before+1
	}
	return nil
}

// undo rolls back to where Join was called.
func (j *joined) undo(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	_, err := j.tx.Exec(ctx, `ROLLBACK TO SAVEPOINT freehold; RELEASE SAVEPOINT freehold`)
	if errors.Is(err, pgx.ErrTxClosed) || j.tx.Conn().IsClosed() {
		return nil // nothing of it is left
	}
	return err
}

// insert draws numbers for the events, behind all that the transaction has locked and
// read.
func (j *joined) insert(ctx context.Context) error {
	b := &pgx.Batch{}
	if len(j.events) > 0 {
		var seqs []int64
		queueVersions(b, j.stale(), j.versions)
		queueEvents(b, j.events, &seqs)
	}
	b.Queue(`RELEASE SAVEPOINT freehold`)
	return j.tx.SendBatch(ctx, b).Close()
}

// use guards a use of the handle; the returned function ends the use.
func (j *joined) use() (end func(), err error) {
	j.mu.Lock()
	if j.over {
		j.mu.Unlock()
		return nil, freehold.ErrTxDone
	}
	return j.mu.Unlock, nil
}

func (j *joined) end() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.over = true
}

func (j *joined) Append(ctx context.Context, s freehold.StreamID, expect freehold.Expect, events ...freehold.Event) (freehold.Version, error) {
	end, err := j.use()
	if err != nil {
		return 0, err
	}
	defer end()
	if err := s.Validate(); err != nil {
		return 0, err
	}
	drafts, err := journal.Draft(ctx, j.db.types, j.id, j.n+len(j.events), j.now, events)
	if err != nil {
		return 0, err
	}
	v, locked := j.versions[s]
	if !locked {
		b := &pgx.Batch{}
		versions := queueLocks(b, []freehold.StreamID{s})
		if err := j.tx.SendBatch(ctx, b).Close(); err != nil {
			return 0, fmt.Errorf("lock stream %s: %w", s, err)
		}
		if v, locked = versions[s]; !locked {
			return 0, fmt.Errorf("stream %s is younger than the transaction's snapshot: run the transaction again", s)
		}
		j.locked(s, v)
	}
	return j.add(s, expect, v, drafts)
}

func (j *joined) Events(ctx context.Context, s freehold.StreamID, after freehold.Version) iter.Seq2[freehold.Recorded, error] {
	return func(yield func(freehold.Recorded, error) bool) {
		rs, err := j.stream(ctx, s, after)
		if err != nil {
			yield(freehold.Recorded{}, fmt.Errorf("read stream %s: %w", s, err))
			return
		}
		j.db.types.Bind(rs)
		for _, r := range rs {
			if !yield(r, nil) {
				return
			}
		}
	}
}

func (j *joined) stream(ctx context.Context, s freehold.StreamID, after freehold.Version) ([]freehold.Recorded, error) {
	end, err := j.use()
	if err != nil {
		return nil, err
	}
	defer end()
	rows, err := j.tx.Query(ctx, streamQuery, string(s), int64(after), nil)
	if err != nil {
		return nil, err
	}
	rs, err := j.db.scan(rows)
	for _, r := range j.events {
		if r.Stream == s && r.Version > after {
			rs = append(rs, r)
		}
	}
	return rs, err
}

func (j *joined) Lock(ctx context.Context, keys ...string) error {
	end, err := j.use()
	if err != nil {
		return err
	}
	defer end()
	_, err = j.tx.Exec(ctx, lockQuery, unique(keys))
	return err
}

func (j *joined) Mark() freehold.Mark { return j.mark }
func (j *joined) Now() time.Time      { return j.now }
