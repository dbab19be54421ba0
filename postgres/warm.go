package postgres

import (
	"context"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
)

// Warm takes locks and fetches what a batch will use, in one round trip, and a second
// one for streams that nobody remembers. Locks are
// taken in the order of their names, advisory ones before those of streams, so that
// two batches that hint at all they lock do not wait for each other in a circle.
func (tx *transaction) Warm(_ context.Context, h follow.Hints) error {
	end, err := tx.begin()
	if err != nil {
		return err
	}
	defer end()
	if !tx.writer {
		return nil
	}
	b := &pgx.Batch{}
	tx.queueUnheld(b, h.Locks)
	streams := slices.DeleteFunc(unique(slices.Concat(h.Streams, h.Reads)), func(s freehold.StreamID) bool {
		_, locked := tx.versions[s]
		return locked || s.Validate() != nil
	})
	var versions map[freehold.StreamID]freehold.Version
	if len(streams) > 0 {
		versions = queueLocks(b, streams)
	}
	for space, keys := range h.Kept {
		keys = slices.DeleteFunc(unique(keys), func(key string) bool {
			_, known := tx.kept[keptKey{space, key}]
			return known
		})
		if len(keys) == 0 {
			continue
		}
		b.Queue(`SELECT key, value FROM freehold.keep WHERE space = $1 AND key = ANY($2::text[])`, space, keys).Query(func(rows pgx.Rows) error {
			defer rows.Close()
			for _, key := range keys {
				tx.kept[keptKey{space, key}] = keptValue{}
			}
			for rows.Next() {
				v := keptValue{found: true}
				var key string
				if err := rows.Scan(&key, &v.value); err != nil {
					return err
				}
				tx.kept[keptKey{space, key}] = v
			}
			return rows.Err()
		})
	}
	if b.Len() == 0 {
		return nil
	}
	if err := tx.send(b); err != nil {
		return fmt.Errorf("fetch what a batch will use: %w", err)
	}
	for s, v := range versions {
		tx.locked(s, v)
	}
	return tx.warmStreams(slices.DeleteFunc(unique(h.Reads), func(s freehold.StreamID) bool {
		_, locked := versions[s]
		return !locked // by an earlier use, or not at all: it is read when it is asked for
	}))
}

// warmStreams reads whole streams that the transaction has just locked: from memory if
// the journal remembers all of them up to the version that is locked, the others in one
// round trip.
func (tx *transaction) warmStreams(streams []freehold.StreamID) error {
	var unknown []string
	for _, s := range streams {
		rs, ok := tx.db.journal.Remembered(s, 0, tx.versions[s])
		if !ok {
			unknown = append(unknown, string(s))
			continue
		}
		for i := range rs {
			rs[i].At.Epoch = tx.mark.Epoch
		}
		tx.read[s] = rs
	}
	if len(unknown) == 0 {
		return nil
	}
	var rs []freehold.Recorded
	err := native(tx.conn, func(c *pgx.Conn) error {
		rows, err := c.Query(tx.ctx, streamsQuery, unknown)
		if err == nil {
			rs, err = tx.db.scan(rows)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("fetch the streams that a batch will read: %w", err)
	}
	for _, s := range unknown {
		tx.read[freehold.StreamID(s)] = nil // known, also if it has no events
	}
	for i := range rs {
		tx.read[rs[i].Stream] = append(tx.read[rs[i].Stream], rs[i])
	}
	return nil
}

const lockQuery = `SELECT pg_advisory_xact_lock(hashtextextended(k, 0)) FROM unnest($1::text[]) WITH ORDINALITY AS u(k, n) ORDER BY n`

// streamsQuery reads whole streams.
const streamsQuery = `SELECT ` + eventColumns + `
	FROM unnest($1::text[]) AS u (name),
		LATERAL (SELECT * FROM freehold.event WHERE stream = u.name ORDER BY version LIMIT 1000000000) e ` + stampOf + `
	ORDER BY e.stream, e.version`

// queueUnheld has a batch take, in the order of their names, those locks that the
// transaction does not hold.
func (tx *transaction) queueUnheld(b *pgx.Batch, keys []string) {
	locks := slices.DeleteFunc(unique(keys), func(key string) bool { return tx.held[key] })
	if len(locks) == 0 {
		return
	}
	b.Queue(lockQuery, locks).Exec(func(pgconn.CommandTag) error {
		for _, key := range locks {
			tx.held[key] = true
		}
		return nil
	})
}

// unique returns a sorted copy without repetitions.
func unique[S ~string](all []S) []S {
	all = slices.Clone(all)
	slices.Sort(all)
	return slices.Compact(all)
}

type keptKey struct{ space, key string }

// keptValue is what is known of a value that followers keep; changed ones are stored
// at the end of the transaction.
type keptValue struct {
	value   []byte
	found   bool
	changed bool
}

// queueKept stores what has changed of the values that followers keep.
func queueKept(b *pgx.Batch, kept map[keptKey]keptValue) {
	var spaces, keys, goneSpaces, goneKeys []string
	var values [][]byte
	for k, v := range kept {
		switch {
		case !v.changed:
		case v.found:
			spaces, keys, values = append(spaces, k.space), append(keys, k.key), append(values, v.value)
		default:
			goneSpaces, goneKeys = append(goneSpaces, k.space), append(goneKeys, k.key)
		}
	}
	if len(keys) > 0 {
		b.Queue(`INSERT INTO freehold.keep (space, key, value)
			SELECT space, key, value FROM unnest($1::text[], $2::text[], $3::bytea[]) AS k(space, key, value) ORDER BY space COLLATE "C", key COLLATE "C"
			ON CONFLICT (space, key) DO UPDATE SET value = excluded.value`, spaces, keys, values)
	}
	if len(goneKeys) > 0 {
		b.Queue(`DELETE FROM freehold.keep k USING unnest($1::text[], $2::text[]) AS g(space, key) WHERE k.space = g.space AND k.key = g.key`, goneSpaces, goneKeys)
	}
}
