package sqlite

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/journal"
)

// streamIDs gives numbers to streams. It remembers those of recent streams; what a
// group has added is forgotten again if the group is rolled back.
type streamIDs struct {
	next  int64 // the number that the next new stream gets
	ids   map[freehold.StreamID]int64
	added []freehold.StreamID
}

// maxStreamIDs is how many numbers are remembered.
const maxStreamIDs = 1 << 17

func (ids *streamIDs) load(ctx context.Context, conn *sql.Conn) error {
	ids.ids = map[freehold.StreamID]int64{}
	return conn.QueryRowContext(ctx, `SELECT coalesce(max(id), 0) + 1 FROM freehold_stream`).Scan(&ids.next)
}

func (ids *streamIDs) remember(s freehold.StreamID, id int64) {
	if len(ids.ids) >= maxStreamIDs && len(ids.added) == 0 {
		clear(ids.ids)
	}
	ids.ids[s] = id
}

func (ids *streamIDs) committed() { ids.added = ids.added[:0] }

func (ids *streamIDs) rolledBack() {
	for _, s := range ids.added {
		delete(ids.ids, s)
	}
	ids.next -= int64(len(ids.added))
	ids.added = ids.added[:0]
}

// lookup reads a stream's stored version, and remembers its number.
func (db *DB) lookup(_ context.Context, s freehold.StreamID) (freehold.Version, error) {
	stmt, err := db.cache.get(`SELECT s.id, (SELECT max(version) FROM freehold_event e WHERE e.stream = s.id)
		FROM freehold_stream s WHERE s.name = $1`)
	if err != nil {
		return 0, err
	}
	var id int64
	var version sql.NullInt64
	err = stmt.QueryRowContext(context.Background(), string(s)).Scan(&id, &version)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	db.streams.remember(s, id)
	return freehold.Version(version.Int64), nil
}

// streamID returns a stream's number, and whether it is new.
func (db *DB) streamID(r *freehold.Recorded) (id int64, fresh bool, err error) {
	if id, ok := db.streams.ids[r.Stream]; ok {
		return id, false, nil
	}
	if r.Version > 1 {
		if _, err := db.lookup(context.Background(), r.Stream); err != nil {
			return 0, false, err
		}
		if id, ok := db.streams.ids[r.Stream]; ok {
			return id, false, nil
		}
		return 0, false, fmt.Errorf("stream %s has events and no number: run freehold verify", r.Stream)
	}
	id = db.streams.next
	db.streams.next++
	db.streams.remember(r.Stream, id)
	db.streams.added = append(db.streams.added, r.Stream)
	return id, true, nil
}

const eventColumns = `position, stream, version, stream_name, id, type, schema, time, incarnation, flags, meta, payload, nonce, digest, chain`

// Statements insert many rows at once: a row costs a third of a statement's. A row
// that cannot be inserted, which only damage makes, ends the transaction: SQLite
// then need not keep what a statement's pages were before it.
var (
	insertEvents  = []insert{newInsert("INSERT OR ROLLBACK INTO freehold_event ("+eventColumns+") VALUES ", 15, 16), newInsert("INSERT OR ROLLBACK INTO freehold_event ("+eventColumns+") VALUES ", 15, 1)}
	insertStreams = []insert{newInsert("INSERT OR ROLLBACK INTO freehold_stream (id, name) VALUES ", 2, 16), newInsert("INSERT OR ROLLBACK INTO freehold_stream (id, name) VALUES ", 2, 1)}
	putKept       = []insert{newPut(16), newPut(1)}
)

// insert is a statement for a fixed number of rows.
type insert struct {
	query string
	rows  int
}

func newInsert(head string, columns, rows int) insert {
	row := "(" + strings.TrimSuffix(strings.Repeat("?,", columns), ",") + ")"
	return insert{head + strings.TrimSuffix(strings.Repeat(row+",", rows), ","), rows}
}

func newPut(rows int) insert {
	i := newInsert("INSERT INTO freehold_keep (space, key, value) VALUES ", 3, rows)
	i.query += " ON CONFLICT (space, key) DO UPDATE SET value = excluded.value"
	return i
}

// insertAll executes the statements over all values, largest first.
func (db *DB) insertAll(statements []insert, columns int, values []any) error {
	for _, st := range statements {
		for n := st.rows * columns; len(values) >= n; values = values[n:] {
			if err := db.exec(st.query, values[:n]...); err != nil {
				return err
			}
		}
	}
	return nil
}

// flush stores the group's events.
func (db *DB) flush(events []freehold.Recorded) error {
	if len(events) == 0 {
		return nil
	}
	values := make([]any, 0, 15*len(events))
	var streams []any
	for i := range events {
		r := &events[i]
		id, fresh, err := db.streamID(r)
		if err != nil {
			return err
		}
		if fresh {
			streams = append(streams, id, string(r.Stream))
		}
		var flags int64
		if r.Internal {
			flags |= 1
		}
		if r.Last {
			flags |= 2
		}
		meta := ""
		if r.Meta != (freehold.Meta{}) {
			raw, err := json.Marshal(r.Meta)
			if err != nil {
				return err
			}
			meta = string(raw)
		}
		values = append(values, int64(r.At.Position), id, int64(r.Version), string(r.Stream), r.ID, r.Type.Name, int64(r.Type.Version),
			r.Time.UnixMicro(), r.Incarnation, flags, meta, string(r.Raw), r.Nonce, r.Digest[:], r.At.Chain[:])
	}
	if err := db.insertAll(insertStreams, 2, streams); err != nil {
		return err
	}
	return db.insertAll(insertEvents, 15, values)
}

// scan reads events from rows that have eventColumns.
func (db *DB) scan(rows *sql.Rows, epoch freehold.Epoch, rs []freehold.Recorded) ([]freehold.Recorded, error) {
	defer rows.Close()
	var position, stream, version, schema, micros, flags int64
	var streamName, id, typ, incarnation, meta string
	var payload, nonce, digest, chain []byte
	for rows.Next() {
		if err := rows.Scan(&position, &stream, &version, &streamName, &id, &typ, &schema, &micros, &incarnation, &flags, &meta, &payload, &nonce, &digest, &chain); err != nil {
			return nil, err
		}
		r := freehold.Recorded{
			ID: id, Incarnation: incarnation, Stream: freehold.StreamID(streamName), Version: freehold.Version(version),
			Type: freehold.T(typ, int(schema)), Time: time.UnixMicro(micros).UTC(), Internal: flags&1 != 0, Last: flags&2 != 0,
			Raw: payload, Nonce: nonce,
			At: freehold.Mark{Source: db.name, Epoch: epoch, Position: freehold.Position(position)},
		}
		copy(r.Digest[:], digest)
		copy(r.At.Chain[:], chain)
		if meta != "" {
			if err := json.Unmarshal([]byte(meta), &r.Meta); err != nil {
				return nil, fmt.Errorf("position %d: meta: %w", position, err)
			}
		}
		rs = append(rs, r)
	}
	return rs, rows.Err()
}

// readStream reads events of a stream on the connection of a cache. A negative
// limit reads all.
func (db *DB) readStream(c *stmtCache, s freehold.StreamID, after freehold.Version, limit int) ([]freehold.Recorded, error) {
	stmt, err := c.get(`SELECT ` + eventColumns + ` FROM freehold_event
		WHERE stream = (SELECT id FROM freehold_stream WHERE name = $1) AND version > $2 ORDER BY version LIMIT $3`)
	if err != nil {
		return nil, err
	}
	rows, err := stmt.QueryContext(context.Background(), string(s), int64(after), limit)
	if err != nil {
		return nil, err
	}
	head, _ := db.durable()
	return db.scan(rows, head.Epoch, nil)
}

// store reads the journal for package journal.
type store struct{ db *DB }

var _ journal.Store = store{}

func (s store) Source() freehold.Source { return s.db.name }

func (s store) Bounds(context.Context) (first, head freehold.Mark, err error) {
	head, _ = s.db.durable()
	return freehold.Mark{Source: head.Source, Epoch: head.Epoch}, head, nil
}

// query runs a read on a reader's connection, outside any transaction.
func (s store) query(ctx context.Context, fn func(c *stmtCache) error) error {
	r, err := s.db.acquire(ctx)
	if err != nil {
		return err
	}
	err = fn(r.stmts)
	s.db.readers.release(r, err)
	if err != nil {
		return s.db.unread(err)
	}
	return nil
}

// unread is the error of a read.
func (db *DB) unread(err error) error {
	select {
	case <-db.queue.Done():
		err = freehold.ErrClosed
	default:
	}
	return fmt.Errorf("sqlite: %s: %w", db.path, hint(err))
}

func (s store) Read(ctx context.Context, after freehold.Position, limit int) (rs []freehold.Recorded, err error) {
	head, _ := s.db.durable()
	if after >= head.Position {
		return nil, nil
	}
	err = s.query(ctx, func(c *stmtCache) error {
		stmt, err := c.get(`SELECT ` + eventColumns + ` FROM freehold_event WHERE position > $1 AND position <= $2 ORDER BY position LIMIT $3`)
		if err != nil {
			return err
		}
		rows, err := stmt.QueryContext(context.Background(), int64(after), int64(head.Position), limit)
		if err != nil {
			return err
		}
		rs, err = s.db.scan(rows, head.Epoch, make([]freehold.Recorded, 0, min(int64(limit), int64(head.Position-after))))
		return err
	})
	return rs, err
}

func (s store) ReadStream(ctx context.Context, id freehold.StreamID, after freehold.Version, limit int) (rs []freehold.Recorded, err error) {
	err = s.query(ctx, func(c *stmtCache) error {
		rs, err = s.db.readStream(c, id, after, limit)
		return err
	})
	return rs, err
}

func (s store) Streams(ctx context.Context, after freehold.StreamID, limit int) (all []journal.StreamInfo, err error) {
	err = s.query(ctx, func(c *stmtCache) error {
		all = nil
		stmt, err := c.get(`SELECT s.name, (SELECT max(version) FROM freehold_event e WHERE e.stream = s.id)
			FROM freehold_stream s WHERE s.name > $1 ORDER BY s.name LIMIT $2`)
		if err != nil {
			return err
		}
		rows, err := stmt.QueryContext(context.Background(), string(after), limit)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var info journal.StreamInfo
			if err := rows.Scan(&info.Stream, &info.Version); err != nil {
				return err
			}
			all = append(all, info)
		}
		return rows.Err()
	})
	return all, err
}

func (s store) Wait(ctx context.Context, after freehold.Position) error {
	for {
		head, news := s.db.durable()
		if head.Position > after {
			return nil
		}
		select {
		case <-news:
		case <-s.db.queue.Done():
			return freehold.ErrClosed
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s store) Incarnations(ctx context.Context) (all []journal.Incarnation, err error) {
	head, _ := s.db.durable()
	err = s.query(ctx, func(c *stmtCache) error {
		all = nil
		stmt, err := c.get(`SELECT id, position, chain, time FROM freehold_incarnation ORDER BY number`)
		if err != nil {
			return err
		}
		rows, err := stmt.QueryContext(context.Background())
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			in := journal.Incarnation{Start: freehold.Mark{Source: s.db.name, Epoch: head.Epoch}}
			var micros int64
			var chain []byte
			if err := rows.Scan(&in.ID, &in.Start.Position, &chain, &micros); err != nil {
				return err
			}
			copy(in.Start.Chain[:], chain)
			in.Time = time.UnixMicro(micros).UTC()
			all = append(all, in)
		}
		return rows.Err()
	})
	return all, err
}
