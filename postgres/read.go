package postgres

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/freehold-go/freehold"
)

// Positions are dense, so a read asks for those that it wants and not for what follows
// one: no plan, however old, reads more of them.
const stampsQuery = `SELECT s.seq, s.position, coalesce(i.id, ''), s.last, s.digest, s.chain
	FROM freehold.stamp s LEFT JOIN LATERAL (SELECT id FROM freehold.incarnation WHERE number = s.incarnation LIMIT 1) i ON true
	WHERE s.position > $1 AND s.position <= $2 ORDER BY s.position`

// The events of neighbouring positions have neighbouring numbers, most of the time: then
// they are read as they stand, which takes the same however long the journal is, and does not
// go through the index for each. Their order keeps the server from finding them in
// event_due, which has the numbers, too.
const (
	neighboursQuery = `SELECT e.seq, ` + ownColumns + ` FROM freehold.event e WHERE e.seq >= $1 AND e.seq <= $2 ORDER BY e.seq`
	scatteredQuery  = `SELECT e.seq, ` + ownColumns + ` FROM unnest($1::int8[]) AS u (seq),
		LATERAL (SELECT * FROM freehold.event WHERE event.seq = u.seq ORDER BY event.seq LIMIT 1) e`
)

// Read returns what follows a position, at most limit events, up to the head that is known.
func (s store) Read(ctx context.Context, after freehold.Position, limit int) ([]freehold.Recorded, error) {
	head := s.db.head.get()
	if after >= head.Position {
		return nil, nil
	}
	leave, err := s.db.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	conn, err := s.db.pool.Acquire(ctx)
	if err != nil {
		return nil, s.db.unreached(ctx, err)
	}
	defer conn.Release()
	rs, err := s.db.readRange(ctx, conn.Conn(), after, min(after+freehold.Position(limit), head.Position))
	return rs, unavailable(err)
}

// readRange returns what follows a position, up to another one.
func (db *DB) readRange(ctx context.Context, conn *pgx.Conn, after, upto freehold.Position) ([]freehold.Recorded, error) {
	rows, err := conn.Query(ctx, stampsQuery, int64(after), int64(upto))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var rs []freehold.Recorded
	var seqs []int64
	for rows.Next() {
		r := freehold.Recorded{At: freehold.Mark{Source: db.name, Epoch: db.head.present()}}
		var seq int64
		var digest, chain []byte
		if err := rows.Scan(&seq, (*int64)(&r.At.Position), &r.Incarnation, &r.Last, &digest, &chain); err != nil {
			return nil, err
		}
		copy(r.Digest[:], digest)
		copy(r.At.Chain[:], chain)
		rs, seqs = append(rs, r), append(seqs, seq)
	}
	if err := rows.Err(); err != nil || len(rs) == 0 {
		return nil, err
	}
	return rs, db.readEvents(ctx, conn, rs, seqs)
}

// readEvents reads the events of positions, by their numbers.
func (db *DB) readEvents(ctx context.Context, conn *pgx.Conn, rs []freehold.Recorded, seqs []int64) error {
	place := make(map[int64]int, len(seqs))
	first, last := seqs[0], seqs[0]
	for i, seq := range seqs {
		place[seq] = i
		first, last = min(first, seq), max(last, seq)
	}
	query, args := scatteredQuery, []any{seqs}
	if last-first < int64(2*len(seqs)) {
		query, args = neighboursQuery, []any{first, last}
	}
	rows, err := conn.Query(ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var seq int64
		var r freehold.Recorded
		if err := scanOwn(rows, &r, &seq); err != nil {
			return err
		}
		i, wanted := place[seq]
		if !wanted {
			continue // of a position before or behind these, or of none yet
		}
		delete(place, seq)
		r.At, r.Incarnation, r.Last, r.Digest = rs[i].At, rs[i].Incarnation, rs[i].Last, rs[i].Digest
		rs[i] = r
	}
	if err := rows.Err(); err != nil {
		return err
	}
	for seq, i := range place {
		return fmt.Errorf("postgres: %s: position %d is that of event %d, which is not there: somebody deleted it: restore the database from a backup",
			db.name, rs[i].At.Position, seq)
	}
	return nil
}
