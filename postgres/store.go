package postgres

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/journal"
)

// store reads the journal for package journal.
type store struct{ db *DB }

var _ journal.Store = store{}

func (s store) Source() freehold.Source { return s.db.name }

func (s store) Bounds(context.Context) (first, head freehold.Mark, err error) {
	leave, err := s.db.enter()
	if err != nil {
		return first, head, err
	}
	defer leave()
	return freehold.Mark{Source: s.db.name, Epoch: s.db.head.present()}, s.db.head.get(), nil
}

const headQuery = `SELECT position, chain, (SELECT epoch FROM freehold.journal) FROM freehold.tick ORDER BY pass DESC LIMIT 1`

// Refresh reads the head, which another instance's sequencer may have moved.
func (s store) Refresh(ctx context.Context) error {
	leave, err := s.db.enter()
	if err != nil {
		return err
	}
	defer leave()
	if err := s.db.learnHead(s.db.pool.QueryRow(ctx, headQuery)); err != nil {
		return s.db.unreached(ctx, err)
	}
	return nil
}

// learnHead takes note of a row of headQuery.
func (db *DB) learnHead(row pgx.Row) error {
	var m freehold.Mark
	var epoch freehold.Epoch
	if err := db.scanMark(row, &m, &epoch); err != nil {
		return err
	}
	m.Epoch = epoch
	db.head.turn(epoch)
	db.head.advance(m)
	return nil
}

func (s store) Wait(ctx context.Context, after freehold.Position) error {
	return s.db.head.wait(ctx, after)
}

// ownColumns are those of freehold.event, which is e, that reading takes.
const ownColumns = `e.stream, e.version, e.type, e.schema, e.time, e.id, e.internal, e.meta, e.payload, e.nonce`

// scanOwn reads ownColumns, and others before them.
func scanOwn(rows pgx.Rows, r *freehold.Recorded, before ...any) error {
	var micros int64
	var meta *string
	err := rows.Scan(append(before, (*string)(&r.Stream), (*int64)(&r.Version), &r.Type.Name, &r.Type.Version, &micros,
		&r.ID, &r.Internal, &meta, &r.Raw, &r.Nonce)...)
	if err != nil {
		return err
	}
	r.Time = time.UnixMicro(micros).UTC()
	return readMeta(meta, r)
}

// eventColumns are those that reading a stream takes. What belongs to an event is fetched
// for each by itself (LATERAL with a LIMIT), by an index: a join planned while the tables
// are empty reads all of them for as long as the plan is kept.
//
// In them, e is freehold.event, s its stamp, if it
// has one, and i the stamp's incarnation.
const eventColumns = `coalesce(s.position, 0), coalesce(i.id, ''), coalesce(s.last, false), s.digest, s.chain, ` + ownColumns

func (db *DB) scan(rows pgx.Rows) ([]freehold.Recorded, error) {
	defer rows.Close()
	var all []freehold.Recorded
	for rows.Next() {
		r := freehold.Recorded{At: freehold.Mark{Source: db.name, Epoch: db.head.present()}}
		var digest, chain []byte
		if err := scanOwn(rows, &r, (*int64)(&r.At.Position), &r.Incarnation, &r.Last, &digest, &chain); err != nil {
			return nil, err
		}
		copy(r.Digest[:], digest)
		copy(r.At.Chain[:], chain)
		all = append(all, r)
	}
	return all, rows.Err()
}

// readMeta sets an event's metadata to what is stored of it.
func readMeta(meta *string, r *freehold.Recorded) error {
	if meta == nil || plainMeta(*meta, &r.Meta) {
		return nil
	}
	r.Meta = freehold.Meta{}
	if err := json.Unmarshal([]byte(*meta), &r.Meta); err != nil {
		return fmt.Errorf("event %s: meta: %w", r.ID, err)
	}
	return nil
}

// plainMeta reads metadata as queueEvents writes it, if no text has escapes: nearly
// always, and every event is read several times.
func plainMeta(s string, m *freehold.Meta) bool {
	if len(s) < 2 || s[0] != '{' || s[len(s)-1] != '}' || strings.IndexByte(s, '\\') >= 0 {
		return false
	}
	for s = s[1 : len(s)-1]; ; s = s[1:] {
		key, rest, _ := strings.Cut(s, `":"`)
		value, after, ok := strings.Cut(rest, `"`)
		if !ok {
			return false
		}
		switch key {
		case `"correlation`:
			m.Correlation = value
		case `"causation`:
			m.Causation = value
		case `"tenant`:
			m.Tenant = value
		case `"actor`:
			m.Actor = value
		case `"traceparent`:
			m.TraceParent = value
		default:
			return false
		}
		if s = after; s == "" {
			return true
		} else if s[0] != ',' {
			return false
		}
	}
}

func (s store) query(ctx context.Context, sql string, args ...any) ([]freehold.Recorded, error) {
	leave, err := s.db.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	rows, err := s.db.pool.Query(ctx, sql, args...)
	if err != nil {
		return nil, s.db.unreached(ctx, err)
	}
	rs, err := s.db.scan(rows)
	return rs, unavailable(err)
}

// stampOf joins an event's stamp and incarnation, if it has them yet.
const stampOf = `LEFT JOIN LATERAL (SELECT * FROM freehold.stamp WHERE stamp.seq = e.seq LIMIT 1) s ON true
	LEFT JOIN LATERAL (SELECT * FROM freehold.incarnation WHERE number = s.incarnation LIMIT 1) i ON true`

const streamQuery = `SELECT ` + eventColumns + `
	FROM freehold.event e ` + stampOf + `
	WHERE e.stream = $1 AND e.version > $2
	ORDER BY e.version LIMIT $3`

func (s store) ReadStream(ctx context.Context, id freehold.StreamID, after freehold.Version, limit int) ([]freehold.Recorded, error) {
	return s.query(ctx, streamQuery, string(id), int64(after), limit)
}

func (s store) Streams(ctx context.Context, after freehold.StreamID, limit int) ([]journal.StreamInfo, error) {
	leave, err := s.db.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	rows, err := s.db.pool.Query(ctx, `SELECT name, version FROM freehold.stream WHERE name > $1 AND version > 0 ORDER BY name LIMIT $2`, string(after), limit)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (info journal.StreamInfo, err error) {
		err = row.Scan((*string)(&info.Stream), (*int64)(&info.Version))
		return info, err
	})
}

func (s store) Incarnations(ctx context.Context) ([]journal.Incarnation, error) {
	leave, err := s.db.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	rows, err := s.db.pool.Query(ctx, `SELECT id, position, chain, time FROM freehold.incarnation ORDER BY number`)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (in journal.Incarnation, err error) {
		in.Start = freehold.Mark{Source: s.db.name, Epoch: s.db.head.present()}
		var chain []byte
		var micros int64
		err = row.Scan(&in.ID, (*int64)(&in.Start.Position), &chain, &micros)
		copy(in.Start.Chain[:], chain)
		in.Time = time.UnixMicro(micros).UTC()
		return in, err
	})
}
