package postgres_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/journal"
	"github.com/freehold-go/freehold/postgres"
)

// placed is an event where a reader has met it.
type placed struct {
	tx      string
	stream  string
	version int64
	at      time.Time // when
}

// reader reads an instance's journal.
type reader struct {
	db     *postgres.DB
	at     atomic.Int64
	got    []placed
	breaks int // events that do not follow what was read before
	ends   int // transactions whose end is not marked, or marked elsewhere
}

func (r *reader) follow(ctx context.Context) {
	var at freehold.Mark
	whole := true
	for ctx.Err() == nil {
		rs, err := r.db.Journal().Read(ctx, at, 1000)
		if err != nil { // its connection was killed
			time.Sleep(5 * time.Millisecond)
			continue
		}
		if len(rs) == 0 {
			_ = r.db.Journal().Wait(ctx, at) // the next Read tells whatever there is to tell
			continue
		}
		now := time.Now()
		for i := range rs {
			e := &rs[i]
			if !journal.Follows(at, e) {
				r.breaks++
			}
			if n := len(r.got); n > 0 && whole == (r.got[n-1].tx == e.Meta.Correlation) {
				r.ends++
			}
			r.got = append(r.got, placed{e.Meta.Correlation, string(e.Stream), int64(e.Version), now})
			at, whole = e.At, e.Last
		}
		r.at.Store(int64(at.Position))
	}
}

// control reads the events as other systems do.
type control struct {
	name string
	next func(ctx context.Context, conn *pgx.Conn, c *control) error
	got  []placed
	seq  int64  // cursor
	xid  string // cursor
	snap string // cursor

	above map[int64]time.Time // when a hole was first seen, by the number above it
}

func (c *control) follow(ctx context.Context, t *testing.T, url string) {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Error(err)
		return
	}
	defer conn.Close(context.WithoutCancel(ctx))
	for ctx.Err() == nil {
		before := len(c.got)
		if err := c.next(ctx, conn, c); err != nil && ctx.Err() == nil {
			t.Errorf("%s: %v", c.name, err)
			return
		}
		if len(c.got) == before {
			time.Sleep(5 * time.Millisecond)
		}
	}
}

type controlRow struct {
	placed
	seq int64
	xid string
}

func (c *control) rows(ctx context.Context, conn *pgx.Conn, where string, args ...any) ([]controlRow, error) {
	rows, err := conn.Query(ctx, `SELECT seq, xid::text, stream, version, meta::json->>'correlation' FROM freehold.event WHERE `+where+` LIMIT 2000`, args...)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (r controlRow, err error) {
		r.at = now
		err = row.Scan(&r.seq, &r.xid, &r.stream, &r.version, &r.tx)
		return r, err
	})
}

// take moves the cursor behind rows.
func (c *control) take(rows []controlRow) {
	for _, r := range rows {
		c.got = append(c.got, r.placed)
		c.seq, c.xid = r.seq, r.xid
	}
}

const (
	byPosition      = "position as the cursor"
	byPositionXmin  = "position as the cursor, fenced by xmin"
	byXid           = "(xid, seq) as the cursor, fenced by xmin"
	byTimeOut       = "holes skipped after 100 ms"
	byInsertionOnly = "difference of snapshots, in the order of seq alone"
)

func newControls() []*control {
	return []*control{
		{name: byPosition, next: func(ctx context.Context, conn *pgx.Conn, c *control) error {
			rows, err := c.rows(ctx, conn, `seq > $1 ORDER BY seq`, c.seq)
			c.take(rows)
			return err
		}},
		{name: byPositionXmin, next: func(ctx context.Context, conn *pgx.Conn, c *control) error {
			rows, err := c.rows(ctx, conn, `seq > $1 AND xid < pg_snapshot_xmin(pg_current_snapshot()) ORDER BY seq`, c.seq)
			c.take(rows)
			return err
		}},
		{name: byXid, xid: "0", next: func(ctx context.Context, conn *pgx.Conn, c *control) error {
			rows, err := c.rows(ctx, conn, `(event.xid, seq) > ($1::text::xid8, $2) AND event.xid < pg_snapshot_xmin(pg_current_snapshot()) ORDER BY event.xid, seq`, c.xid, c.seq)
			c.take(rows)
			return err
		}},
		{name: byTimeOut, above: map[int64]time.Time{}, next: skipHoles},
		{name: byInsertionOnly, snap: "1:1:", next: insertionOnly},
	}
}

// skipHoles waits for missing numbers, but not for ever.
func skipHoles(ctx context.Context, conn *pgx.Conn, c *control) error {
	rows, err := c.rows(ctx, conn, `seq > $1 ORDER BY seq`, c.seq)
	if err != nil {
		return err
	}
	now, last := time.Now(), c.seq
	for _, r := range rows {
		if _, seen := c.above[r.seq]; !seen && r.seq > last+1 {
			c.above[r.seq] = now
		}
		last = r.seq
	}
	for i, r := range rows {
		if r.seq > c.seq+1 && now.Sub(c.above[r.seq]) < 100*time.Millisecond {
			break
		}
		c.take(rows[i : i+1])
	}
	return nil
}

// insertionOnly takes what has become visible, in the order of its numbers.
func insertionOnly(ctx context.Context, conn *pgx.Conn, c *control) error {
	rows, err := conn.Query(ctx, `SELECT s.now, e.seq, e.stream, e.version, e.meta::json->>'correlation'
		FROM (SELECT pg_current_snapshot()::text AS now) s
		LEFT JOIN freehold.event e ON e.xid >= pg_snapshot_xmax($1::text::pg_snapshot) OR e.xid = ANY(ARRAY(SELECT pg_snapshot_xip($1::text::pg_snapshot)))
		ORDER BY e.seq`, c.snap)
	if err != nil {
		return err
	}
	defer rows.Close()
	at := time.Now()
	var now string
	for rows.Next() {
		var seq, version *int64
		var stream, tx *string
		if err := rows.Scan(&now, &seq, &stream, &version, &tx); err != nil {
			return err
		}
		if seq != nil {
			c.got = append(c.got, placed{*tx, *stream, *version, at})
		}
	}
	if rows.Err() == nil {
		c.snap = now
	}
	time.Sleep(40 * time.Millisecond) // as who looks now and then
	return rows.Err()
}
