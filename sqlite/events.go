package sqlite

import (
	"database/sql/driver"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/freehold-go/freehold"
)

const insertEvent = `INSERT INTO freehold_event
	(position, stream, version, stream_name, type, schema, time, id, incarnation, internal, last, meta, payload, nonce, digest, chain)
	VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`

// flush stores the group's events, and puts some streams into the directory's
// table. Rows are inserted one by one: a statement for many rows would keep what
// their pages were before it, which costs more than it saves.
func (db *DB) flush(events []freehold.Recorded) error {
	for i := range events {
		if r := &events[i]; r.Version == 1 {
			db.streams.fresh[r.Stream] = int64(r.At.Position)
		}
	}
	return db.writer.do(func(d *direct) error {
		if err := db.streams.merge(d, len(events)); err != nil {
			return err
		}
		for i := range events {
			if err := db.insert(d, &events[i]); err != nil {
				return err
			}
		}
		return nil
	})
}

func (db *DB) insert(d *direct, r *freehold.Recorded) error {
	number, found, err := db.streams.number(d, r.Stream)
	if err != nil {
		return err
	}
	if !found {
		return fmt.Errorf("stream %s has events and is in no list: run freehold verify", r.Stream)
	}
	var meta driver.Value
	if r.Meta != (freehold.Meta{}) {
		raw, err := json.Marshal(r.Meta)
		if err != nil {
			return err
		}
		meta = string(raw)
	}
	return d.exec(insertEvent, int64(r.At.Position), number, int64(r.Version), string(r.Stream), r.Type.Name, int64(r.Type.Version),
		r.Time.UnixMicro(), r.ID, db.incarnations.current, bit(r.Internal), bit(r.Last), meta, string(r.Raw), r.Nonce, r.Digest[:], r.At.Chain[:])
}

func bit(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// eventColumns are those that reading takes. Each column costs several calls of the
// driver, so numbers that are small and hashes that are fixed in length share one.
const eventColumns = `position, version, stream_name, type, schema * 4 + internal * 2 + last, time, id, incarnation, meta, CAST(payload AS BLOB), digest || chain || nonce`

// reading turns rows that have eventColumns into events.
type reading struct {
	db     *DB
	epoch  freehold.Epoch
	types  map[string]string // names of types, shared by the events of a page
	events []freehold.Recorded
}

// errRow says that a row does not hold what an event has.
var errRow = errors.New("the row is not an event's: run freehold verify")

func (rd *reading) row(row []driver.Value) error {
	position, ok1 := row[0].(int64)
	version, ok2 := row[1].(int64)
	name, ok3 := row[2].(string)
	typ, ok4 := row[3].(string)
	flags, ok5 := row[4].(int64)
	micros, ok6 := row[5].(int64)
	id, ok7 := row[6].(string)
	incarnation, ok8 := row[7].(int64)
	payload, ok9 := row[9].([]byte)
	hashes, ok10 := row[10].(string)
	const size = len(freehold.Hash{})
	if !(ok1 && ok2 && ok3 && ok4 && ok5 && ok6 && ok7 && ok8 && ok9 && ok10) || len(hashes) < 2*size {
		return fmt.Errorf("position %v: %w", row[0], errRow)
	}
	rd.events = append(rd.events, freehold.Recorded{
		At:      freehold.Mark{Source: rd.db.name, Epoch: rd.epoch, Position: freehold.Position(position), Chain: freehold.Hash([]byte(hashes[size : 2*size]))},
		Version: freehold.Version(version), Stream: freehold.StreamID(name), ID: id,
		Type: freehold.Type{Name: rd.typeName(typ), Version: int(flags >> 2)}, Time: time.UnixMicro(micros).UTC(),
		Internal: flags&2 != 0, Last: flags&1 != 0, Raw: payload,
		Digest: freehold.Hash([]byte(hashes[:size])), Nonce: []byte(hashes[2*size:]),
	})
	r := &rd.events[len(rd.events)-1]
	var err error
	if r.Incarnation, err = rd.db.incarnations.id(incarnation); err != nil {
		return fmt.Errorf("position %d: %w", position, err)
	}
	if meta, ok := row[8].(string); ok {
		if err := json.Unmarshal([]byte(meta), &r.Meta); err != nil {
			return fmt.Errorf("position %d: meta: %w", position, err)
		}
	}
	return nil
}

func (rd *reading) typeName(name string) string {
	if shared, ok := rd.types[name]; ok {
		return shared
	}
	if rd.types == nil {
		rd.types = map[string]string{}
	}
	rd.types[name] = name
	return name
}

// readStream reads events of the stream with a number. A negative limit reads all.
func (db *DB) readStream(d *direct, number int64, after freehold.Version, limit int) ([]freehold.Recorded, error) {
	head, _ := db.durable()
	rd := reading{db: db, epoch: head.Epoch}
	err := d.query(`SELECT `+eventColumns+` FROM freehold_event
		WHERE stream = ? AND version > ? ORDER BY version LIMIT ?`, rd.row, number, int64(after), int64(limit))
	return rd.events, err
}

// incarnations are the openings of the journal by number; events refer to it. The
// list does not change while the database is open.
type incarnations struct {
	ids     map[int64]string
	current int64
}

func (in *incarnations) id(number int64) (string, error) {
	if id, ok := in.ids[number]; ok {
		return id, nil
	}
	return "", fmt.Errorf("no incarnation has the number %d: run freehold verify", number)
}
