package postgres

import (
	"encoding/json"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/internal/mutant"
)

// appended is what a transaction appends: it is inserted at its end.
type appended struct {
	versions map[freehold.StreamID]freehold.Version // of the streams that it has locked, with its own events
	stored   map[freehold.StreamID]freehold.Version // what their rows say
	written  map[freehold.StreamID]bool
	events   []freehold.Recorded
}

func nothingAppended() appended {
	return appended{versions: map[freehold.StreamID]freehold.Version{}, stored: map[freehold.StreamID]freehold.Version{}, written: map[freehold.StreamID]bool{}}
}

// locked takes note of a stream that is locked, and of the version that its row says.
func (a *appended) locked(s freehold.StreamID, v freehold.Version) { a.versions[s], a.stored[s] = v, v }

// stale are the streams whose rows do not say their versions.
func (a *appended) stale() (streams []freehold.StreamID) {
	for s, v := range a.versions {
		if v != a.stored[s] {
			streams = append(streams, s)
		}
	}
	return streams
}

// add appends to a stream that is locked and at version v.
func (a *appended) add(s freehold.StreamID, expect freehold.Expect, v freehold.Version, drafts []freehold.Recorded) (freehold.Version, error) {
	if !expect.Met(v) {
		return 0, &freehold.Conflict{Stream: s, Expected: expect, Actual: v}
	}
	if len(drafts) == 0 {
		return v, nil
	}
	for i := range drafts {
		v++
		drafts[i].Stream, drafts[i].Version = s, v
	}
	a.events = append(a.events, drafts...)
	a.versions[s], a.written[s] = v, true
	return v, nil
}

// lockStream locks the row of one stream until the end of the transaction, and returns the
// stream's version. The row says already that n events more are there: in most transactions
// it is then not touched again.
func (a *appended) lockStream(send func(*pgx.Batch) error, s freehold.StreamID, n int) (v freehold.Version, err error) {
	b := &pgx.Batch{}
	if n == 0 { // a condition
		versions := queueLocks(b, []freehold.StreamID{s})
		err := send(b)
		if err == nil {
			a.locked(s, versions[s])
		}
		return versions[s], err
	}
	b.Queue(`INSERT INTO freehold.stream AS s (name, version) VALUES ($1, $2)
		ON CONFLICT (name) DO UPDATE SET version = s.version + $2 RETURNING version`, string(s), n).
		QueryRow(func(row pgx.Row) error { return row.Scan((*int64)(&v)) })
	if err := send(b); err != nil {
		return 0, err
	}
	a.stored[s], v = v, v-freehold.Version(n)
	a.versions[s] = v
	return v, nil
}

// drew are the events with the numbers that they drew, in their order.
func (a *appended) drew(seqs []int64) []drawn {
	all := make([]drawn, len(seqs))
	for i, seq := range seqs {
		all[i] = drawn{seq, a.events[i].ID}
	}
	return all
}

// queueLocks locks the rows of streams until the end of the transaction, in the
// order of their names, and returns their versions. Streams that do not exist get a
// row.
func queueLocks(b *pgx.Batch, streams []freehold.StreamID) map[freehold.StreamID]freehold.Version {
	names := make([]string, len(streams))
	for i, s := range streams {
		names[i] = string(s)
	}
	versions := make(map[freehold.StreamID]freehold.Version, len(streams))
	b.Queue(`INSERT INTO freehold.stream (name, version) SELECT n, 0 FROM unnest($1::text[]) n ORDER BY n COLLATE "C" ON CONFLICT DO NOTHING`, names)
	b.Queue(`SELECT name, version FROM freehold.stream WHERE name = ANY($1::text[]) ORDER BY name FOR UPDATE`, names).Query(func(rows pgx.Rows) error {
		defer rows.Close()
		for rows.Next() {
			var s freehold.StreamID
			var v freehold.Version
			if err := rows.Scan((*string)(&s), (*int64)(&v)); err != nil {
				return err
			}
			versions[s] = v
		}
		return rows.Err()
	})
	return versions
}

// queueVersions stores the versions of streams that are locked.
func queueVersions(b *pgx.Batch, streams []freehold.StreamID, versions map[freehold.StreamID]freehold.Version) {
	names, numbers := make([]string, len(streams)), make([]int64, len(streams))
	for i, s := range streams {
		names[i], numbers[i] = string(s), int64(versions[s])
	}
	// All are there: this way they are found by the index, whatever the settings.
	b.Queue(`INSERT INTO freehold.stream (name, version) SELECT name, version FROM unnest($1::text[], $2::int8[]) AS v(name, version)
		ON CONFLICT (name) DO UPDATE SET version = excluded.version`, names, numbers)
}

// queueEvents inserts events. Each row draws its number when the transaction holds
// all its locks and has read all that it will read, so that it stands behind what it
// has read. seqs is set to the numbers.
func queueEvents(b *pgx.Batch, events []freehold.Recorded, seqs *[]int64) {
	n := len(events)
	all := make([]int64, 0, n)
	streams, versions := make([]string, n), make([]int64, n)
	types, schemas := make([]string, n), make([]int32, n)
	times, ids, internal := make([]int64, n), make([]string, n), make([]bool, n)
	metas, payloads, nonces := make([]*string, n), make([][]byte, n), make([][]byte, n)
	for i := range events {
		r := &events[i]
		streams[i], versions[i] = string(r.Stream), int64(r.Version)
		types[i], schemas[i] = r.Type.Name, int32(r.Type.Version)
		times[i], ids[i], internal[i] = r.Time.UnixMicro(), r.ID, r.Internal
		payloads[i], nonces[i] = r.Raw, r.Nonce
		if r.Meta != (freehold.Meta{}) {
			raw, _ := json.Marshal(r.Meta) // a struct of strings
			text := string(raw)
			metas[i] = &text
		}
	}
	seq, drawn := ``, ``
	if mutant.DrawBeforeLock {
		seq, drawn = `seq, `, `unnest((current_setting('freehold.drawn')::int8[])[1:array_length($1::text[], 1)]), `
	}
	// The rows of unnest in a SELECT list are made, and inserted, one by one in their order.
	b.Queue(`INSERT INTO freehold.event (`+seq+`stream, version, type, schema, time, id, internal, meta, payload, nonce)
		SELECT `+drawn+`unnest($1::text[]), unnest($2::int8[]), unnest($3::text[]), unnest($4::int4[]), unnest($5::int8[]), unnest($6::text[]),
			unnest($7::bool[]), unnest($8::text[]), unnest($9::bytea[]), unnest($10::bytea[])
		RETURNING seq`,
		streams, versions, types, schemas, times, ids, internal, metas, payloads, nonces).
		Query(func(rows pgx.Rows) error {
			defer rows.Close()
			for rows.Next() {
				var seq int64
				if err := rows.Scan(&seq); err != nil {
					return err
				}
				if len(all) > 0 && seq <= all[len(all)-1] {
					return fmt.Errorf("postgres: event %d has drawn number %d behind %d", len(all), seq, all[len(all)-1])
				}
				all = append(all, seq)
			}
			*seqs = all
			return rows.Err()
		})
}
