package postgres

import (
	"context"
	"errors"
	"maps"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/internal/mutant"
	"github.com/freehold-go/freehold/internal/writer"
	"github.com/freehold-go/freehold/journal"
	"github.com/freehold-go/freehold/sqldb"
)

type appendCall struct {
	ctx    context.Context
	writes []freehold.Write
	done   chan outcome

	drafts [][]freehold.Recorded // of each write
	last   int                   // place of its last event in the transaction, -1 without events
	placed drawn                 // that event
	alone  bool
	err    error // a conflict, told when the transaction is over
}

type outcome struct {
	last  drawn // its last event, zero without events
	err   error
	alone bool // run it by itself
}

// Append writes to one or more streams atomically; see freehold.DB.
func (db *DB) Append(ctx context.Context, writes ...freehold.Write) (freehold.Token, error) {
	if writer.Nested(ctx) {
		return freehold.Token{}, freehold.ErrNested
	}
	if err := ctx.Err(); err != nil {
		return freehold.Token{}, err
	}
	leave, err := db.enter()
	if err != nil {
		return freehold.Token{}, err
	}
	defer leave()
	call := &appendCall{ctx: ctx, writes: writes, done: make(chan outcome, 1)}
	if err := call.draft(db.types); err != nil {
		return freehold.Token{}, err
	}
	select {
	case db.appends.calls <- call:
	case <-ctx.Done():
		return freehold.Token{}, ctx.Err()
	}
	switch o := <-call.done; {
	case o.alone:
	case o.err != nil:
		return freehold.Token{}, o.err
	case o.last == drawn{}:
		return db.tokenWithoutEvents()
	default:
		return db.seq.token(o.last)
	}
	return db.Update(context.WithoutCancel(ctx), func(ctx context.Context, tx sqldb.Tx) error {
		for _, w := range writes {
			if _, err := tx.Append(ctx, w.Stream, w.Expect, w.Events...); err != nil {
				return err
			}
		}
		return nil
	})
}

// draft encodes the events.
func (call *appendCall) draft(types *freehold.Catalog) error {
	id, now, n := journal.NewID(), journal.Now(), 0
	for _, w := range call.writes {
		if err := w.Stream.Validate(); err != nil {
			return err
		}
		drafts, err := journal.Draft(call.ctx, types, id, n, now, w.Events)
		if err != nil {
			return err
		}
		n += len(drafts)
		call.drafts = append(call.drafts, drafts)
	}
	return nil
}

// appendTogether runs calls in one transaction and answers them when its outcome
// is known.
func (db *DB) appendTogether(group []*appendCall) {
	waiting := group[:0]
	for _, call := range group {
		if err := call.ctx.Err(); err != nil {
			call.done <- outcome{err: err}
			continue
		}
		waiting = append(waiting, call)
	}
	if len(waiting) == 0 {
		return
	}
	err := db.tryTogether(waiting)
	if err != nil && len(waiting) == 1 && !lostRace(err) {
		waiting[0].done <- outcome{err: unavailable(err)} // it was alone already
		return
	}
	if err != nil {
		for _, call := range waiting {
			call.done <- outcome{alone: true}
		}
		return
	}
	db.appends.callers.Store(int64(len(waiting) + len(db.appends.calls)))
	for _, call := range waiting {
		if call.alone || call.err != nil {
			call.done <- outcome{err: call.err, alone: call.alone}
			continue
		}
		call.done <- outcome{last: call.placed}
	}
}

// tryTogether commits what it can of the group. It returns an error only if
// nothing was written.
func (db *DB) tryTogether(group []*appendCall) error {
	events, err := db.sendTogether(group, newStreams)
	if madeMeanwhile(err) {
		events, err = db.sendTogether(group, newOrMade)
	}
	if lost := (*lostCommit)(nil); errors.As(err, &lost) {
		events, err = db.settle(lost)
	}
	if errors.Is(err, freehold.ErrUnknown) {
		for _, call := range group {
			call.err, call.alone = err, false // to run it again might do it twice
		}
		return nil
	}
	for _, call := range group {
		if err == nil && call.last >= 0 && call.err == nil && !call.alone {
			call.placed = events[call.last]
		}
	}
	return err
}

// newStreams makes rows of streams that are not there. Of a row that is inserted ON CONFLICT
// the server logs the row and then that it stays, which costs half as much again; so this
// fails if somebody else makes one of them at the same time, for the whole group, and
// newOrMade, which leaves such a one out, comes after it. The look for each is a subquery of
// one value, which no setting makes a join of the whole table.
const (
	ofStreams  = `SELECT name, version FROM unnest($1::text[], $2::int8[]) AS g(name, version)`
	newStreams = `INSERT INTO freehold.stream (name, version) ` + ofStreams + `
		WHERE (SELECT s.name FROM freehold.stream s WHERE s.name = g.name) IS NULL ORDER BY name COLLATE "C" RETURNING name`
	newOrMade = `INSERT INTO freehold.stream (name, version) ` + ofStreams + ` ORDER BY name COLLATE "C" ON CONFLICT DO NOTHING RETURNING name`
)

// madeMeanwhile reports whether newStreams failed because somebody else has made a stream.
func madeMeanwhile(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == "23505" && pg.SchemaName == "freehold" && pg.TableName == "stream"
}

// sendTogether locks the streams of all calls, of which making makes those that are new,
// checks what they expect, and commits. It returns the events.
func (db *DB) sendTogether(group []*appendCall, making string) ([]drawn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), db.opts.Cancel)
	defer cancel()
	conn, err := db.pool.Acquire(ctx)
	if err != nil {
		return nil, err
	}
	defer conn.Release()
	c := conn.Conn()
	b := &pgx.Batch{}
	var xid string
	server := db.server.Load()
	db.queueBegin(b)
	b.Queue(`SELECT pg_current_xact_id()::text`).QueryRow(func(row pgx.Row) error { return row.Scan(&xid) })
	a := queueLocksTogether(b, group, making)
	if err := c.SendBatch(ctx, b).Close(); err != nil {
		_, _ = c.Exec(context.WithoutCancel(ctx), `ROLLBACK`) // of no effect on a connection that is lost
		return nil, err
	}
	if missing := a.missing(group); len(missing) > 0 {
		b := &pgx.Batch{}
		a.queueLocked(b, missing)
		if err := c.SendBatch(ctx, b).Close(); err != nil {
			_, _ = c.Exec(context.WithoutCancel(ctx), `ROLLBACK`) // of no effect on a connection that is lost
			return nil, err
		}
	}
	for _, call := range group {
		call.place(a)
	}
	events, err := db.finish(c, a, nil, turnPatience)
	switch {
	case err != nil && !definite(err):
		return nil, &lostCommit{xid, c.PgConn().PID(), server, a.events, err}
	case err != nil:
		_, _ = c.Exec(context.WithoutCancel(ctx), `ROLLBACK`) // the pool drops a connection that is not idle
	}
	return events, err
}

// queueLocksTogether locks the streams of a group that no other transaction has locked.
// Those that may be new get a row, with the version that it will have if all that could be
// appended to it is; those that may be there are looked for.
func queueLocksTogether(b *pgx.Batch, group []*appendCall, making string) *appended {
	a := nothingAppended()
	var names, old []string
	for _, call := range group {
		for i, w := range call.writes {
			v, known := a.stored[w.Stream]
			if !known && w.Expect.Met(0) {
				names = append(names, string(w.Stream))
			}
			if !known && w.Expect != freehold.NoStream {
				old = append(old, string(w.Stream))
			}
			if w.Expect.Met(v) {
				v += freehold.Version(len(call.drafts[i]))
			}
			a.stored[w.Stream] = v
		}
	}
	versions := make([]int64, len(names))
	for i, name := range names {
		versions[i] = int64(a.stored[freehold.StreamID(name)])
	}
	if len(names) > 0 {
		b.Queue(making, names, versions).Query(func(rows pgx.Rows) error {
			defer rows.Close()
			for rows.Next() {
				var s freehold.StreamID
				if err := rows.Scan((*string)(&s)); err != nil {
					return err
				}
				a.versions[s] = 0
			}
			return rows.Err()
		})
	}
	if len(old) > 0 {
		a.queueLocked(b, old)
	}
	return &a
}

// queueLocked locks the rows of streams that are there and that nobody else has locked.
func (a *appended) queueLocked(b *pgx.Batch, streams []string) {
	b.Queue(`SELECT name, version FROM freehold.stream WHERE name = ANY($1::text[]) ORDER BY name FOR UPDATE SKIP LOCKED`, streams).
		Query(func(rows pgx.Rows) error {
			defer rows.Close()
			for rows.Next() {
				var s freehold.StreamID
				var v freehold.Version
				if err := rows.Scan((*string)(&s), (*int64)(&v)); err != nil {
					return err
				}
				if _, made := a.versions[s]; !made {
					a.locked(s, v)
				}
			}
			return rows.Err()
		})
}

// missing are the streams of a group that were there although they were to be new. (What is
// missing besides is locked, or being made at this moment, or is not there.)
func (a *appended) missing(group []*appendCall) (streams []string) {
	for _, call := range group {
		for _, w := range call.writes {
			if _, locked := a.versions[w.Stream]; !locked && w.Expect == freehold.NoStream {
				streams = append(streams, string(w.Stream))
			}
		}
	}
	return streams
}

// place gives the call's events their versions and adds them to those of the
// transaction, or sets its error to the conflict.
func (call *appendCall) place(a *appended) {
	was := make(map[freehold.StreamID]freehold.Version, len(call.writes))
	begin := len(a.events)
	for i, w := range call.writes {
		v, locked := a.versions[w.Stream]
		if _, there := was[w.Stream]; locked && !there {
			was[w.Stream] = v
		}
		if !locked {
			call.alone = true
		} else if _, err := a.add(w.Stream, w.Expect, v, call.drafts[i]); err != nil {
			call.err = err
			if mutant.AnswerBeforeCommit {
				call.done <- outcome{err: call.err}
			}
		}
		if call.alone || call.err != nil {
			maps.Copy(a.versions, was)
			a.events = a.events[:begin]
			return
		}
	}
	call.last = -1
	if len(a.events) > begin {
		call.last = len(a.events) - 1
	}
}
