package sqlite

import (
	"context"
	"database/sql/driver"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/journal"
)

// directory finds streams by name. A stream's number is the position of its first
// event, so it never changes.
//
// Names are mostly random: to insert each when its stream begins would write a page
// of the table for each stream, many times the bytes of the event. So new names are
// collected in memory, and inserted in the order of names, many to a page, a few
// with each commit. freehold_journal.listed is the position up to which the table
// has every stream; after a crash the others are read from the events behind it.
type directory struct {
	generation int // how many streams are collected before they are inserted

	// Of the writer only.
	fresh  map[freehold.StreamID]int64 // began in this group
	known  map[freehold.StreamID]int64 // found in the table lately
	sorted <-chan []freehold.StreamID  // delivers the names of old, in order
	names  []freehold.StreamID         // of old, those not in the table yet
	head   int64                       // the position of the last committed event
	listed int64                       // the position up to which young begins, or old if there is one
	upto   int64                       // the position up to which old goes
	merged int                         // names inserted by this group
	last   bool                        // this group has inserted the last of old
	newest freehold.StreamID           // no name in the table is greater

	mu         sync.RWMutex
	young, old map[freehold.StreamID]int64 // committed; old is being inserted, nil if none is
	dropped    uint64                      // how many generations are in the table only
}

// defaultGeneration is the size of a generation: some 15 MB of names. A table of a
// million streams has 12,000 pages, of which a generation writes each once.
const defaultGeneration = 1 << 17

// spanOfGeneration bounds, in generations, how many events are read after a crash.
const spanOfGeneration = 4

// maxKnown is how many numbers found in the table are remembered.
const maxKnown = 1 << 16

// load finds the streams that began behind what the table has.
func (d *directory) load(c *direct, head freehold.Position) error {
	if d.generation == 0 {
		d.generation = defaultGeneration
	}
	d.fresh, d.known, d.young = map[freehold.StreamID]int64{}, map[freehold.StreamID]int64{}, map[freehold.StreamID]int64{}
	d.head = int64(head)
	err := c.query(`SELECT listed, (SELECT max(name) FROM freehold_stream) FROM freehold_journal`, func(row []driver.Value) (err error) {
		if d.listed, err = value[int64](row[0]); err != nil {
			return err
		}
		newest, err := value[string](row[1])
		d.newest = freehold.StreamID(newest)
		return err
	})
	if err != nil {
		return err
	}
	return begun(c, 0, func(name freehold.StreamID, number int64) { d.young[name] = number })
}

// begun gives fn the streams that began behind a position and behind what the
// table has in the snapshot of a connection.
func begun(c *direct, after freehold.Position, fn func(name freehold.StreamID, number int64)) error {
	return c.query(`SELECT stream_name, stream FROM freehold_event
		WHERE position > max(?, (SELECT listed FROM freehold_journal)) AND version = 1`, func(row []driver.Value) error {
		name, err := value[string](row[0])
		if err != nil {
			return err
		}
		number, err := value[int64](row[1])
		fn(freehold.StreamID(name), number)
		return err
	}, int64(after))
}

// recent looks among those that are not in the table yet.
func (d *directory) recent(s freehold.StreamID) (number int64, found bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if number, found = d.young[s]; !found {
		number, found = d.old[s]
	}
	return number, found
}

// generations is how many generations are in the table only.
func (d *directory) generations() uint64 {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.dropped
}

func listedNumber(c *direct, s freehold.StreamID) (number int64, found bool, err error) {
	err = c.query(`SELECT number FROM freehold_stream WHERE name = ?`, func(row []driver.Value) (err error) {
		found = true
		number, err = value[int64](row[0])
		return err
	}, string(s))
	return number, found, err
}

// number returns a stream's number for the writer.
func (d *directory) number(c *direct, s freehold.StreamID) (number int64, found bool, err error) {
	if number, found = d.fresh[s]; found {
		return number, true, nil
	}
	if number, found = d.recent(s); found {
		return number, true, nil
	}
	if number, found = d.known[s]; found {
		return number, true, nil
	}
	if s > d.newest { // as most new ones, if names begin with their time, or the table is empty
		return 0, false, nil
	}
	number, found, err = listedNumber(c, s)
	if found {
		if len(d.known) >= maxKnown {
			clear(d.known)
		}
		d.known[s] = number
	}
	return number, found, err
}

// seen is what the directory knew when a reader began, or earlier.
type seen struct {
	generations uint64            // that were in the table only
	head        freehold.Position // every stream that began up to here was in memory or in the table
}

// seen says so; it is to be taken before a reader's snapshot.
func (db *DB) seen() (s seen, head freehold.Mark) {
	s.generations = db.streams.generations()
	head, _ = db.durable()
	s.head = head.Position
	return s, head
}

// numberIn returns a stream's number for a reader.
func (d *directory) numberIn(c *direct, s freehold.StreamID, before seen) (number int64, found bool, err error) {
	if number, found = d.recent(s); found {
		return number, true, nil
	}
	if number, found, err = listedNumber(c, s); found || err != nil {
		return number, found, err
	}
	after := before.head // the snapshot may hold a commit that is not in memory yet
	if d.generations() != before.generations {
		// A generation has gone from memory, and the snapshot may be older than its
		// insertion: then its events are behind what is listed in the snapshot.
		after = 0
	}
	err = begun(c, after, func(name freehold.StreamID, n int64) {
		if name == s {
			number, found = n, true
		}
	})
	return number, found, err
}

// merge inserts some names into the table, as part of the transaction of a group of
// so many events. It keeps ahead of the streams that begin, and of the events.
func (d *directory) merge(c *direct, events int) error {
	if d.old == nil {
		if len(d.young) < d.generation && d.head-d.listed < int64(spanOfGeneration*d.generation) {
			return nil
		}
		d.freeze()
	}
	if d.sorted != nil {
		select {
		case d.names = <-d.sorted:
			d.sorted = nil
		default:
			return nil // still sorting
		}
	}
	n := 16 + max(len(d.fresh)+len(d.fresh)/4, events/spanOfGeneration)
	return d.insert(c, min(len(d.names), n))
}

// freeze makes the young ones the old ones, and lets them be sorted.
func (d *directory) freeze() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.old, d.young = d.young, make(map[freehold.StreamID]int64, len(d.young))
	d.upto = d.head
	sorted := make(chan []freehold.StreamID, 1)
	go func(old map[freehold.StreamID]int64) { sorted <- slices.Sorted(maps.Keys(old)) }(d.old)
	d.sorted = sorted
}

// A crash may have left some of a generation in the table. Many rows in a statement that
// leaves out what is there need no copy of the pages, as one that may fail in the middle does.
const (
	namesAtOnce = 16
	insertName  = `INSERT OR IGNORE INTO freehold_stream (name, number) VALUES (?, ?)`
)

var insertNames = insertName + strings.Repeat(`, (?, ?)`, namesAtOnce-1)

// insert inserts the next n names; behind the last of them the table is listed up
// to where the generation goes.
func (d *directory) insert(c *direct, n int) error {
	for left := d.names[:n]; len(left) > 0; {
		rows, into := 1, insertName
		if len(left) >= namesAtOnce {
			rows, into = namesAtOnce, insertNames
		}
		args := make([]driver.Value, 0, 2*namesAtOnce)
		for _, name := range left[:rows] {
			args = append(args, string(name), d.old[name])
		}
		if err := c.exec(into, args...); err != nil {
			return err
		}
		left = left[rows:]
	}
	if n > 0 {
		d.newest = max(d.newest, d.names[n-1])
	}
	d.merged, d.last = n, n == len(d.names)
	if !d.last {
		return nil
	}
	return c.exec(`UPDATE freehold_journal SET listed = ?`, d.upto)
}

// committed makes the group's streams visible to readers.
func (d *directory) committed(head freehold.Position) {
	d.head = int64(head)
	d.names = d.names[d.merged:]
	d.merged = 0
	if len(d.fresh) == 0 && !d.last {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	maps.Copy(d.young, d.fresh)
	clear(d.fresh)
	if d.last {
		d.old, d.names, d.last = nil, nil, false
		d.listed = d.upto
		d.dropped++
	}
}

// rolledBack forgets the group.
func (d *directory) rolledBack() {
	d.merged, d.last = 0, false
	clear(d.fresh)
}

// mergeAll inserts what is missing, so that the next opening need not look for it.
func (d *directory) mergeAll(db *DB) error {
	for d.listed < d.head {
		err := db.inTx(context.Background(), func() error {
			return db.writer.do(func(c *direct) error {
				if d.old == nil {
					d.freeze()
				}
				if d.sorted != nil {
					d.names, d.sorted = <-d.sorted, nil
				}
				return d.insert(c, len(d.names))
			})
		})
		if err != nil {
			d.rolledBack()
			return err
		}
		d.committed(freehold.Position(d.head))
	}
	return nil
}

// lookup reads a stream's stored version for the tail.
func (db *DB) lookup(_ context.Context, s freehold.StreamID) (version freehold.Version, err error) {
	err = db.writer.do(func(c *direct) error {
		number, found, err := db.streams.number(c, s)
		if err != nil || !found {
			return err
		}
		version, err = latest(c, number)
		return err
	})
	return version, err
}

// latest is the version of the stream with a number.
func latest(c *direct, number int64) (version freehold.Version, err error) {
	err = c.query(`SELECT max(version) FROM freehold_event WHERE stream = ?`, func(row []driver.Value) error {
		v, err := value[int64](row[0])
		version = freehold.Version(v)
		return err
	}, number)
	return version, err
}

// list returns the first streams behind a name, from memory and from the table.
func (d *directory) list(c *direct, after freehold.StreamID, limit int) (all []journal.StreamInfo, err error) {
	numbers := map[freehold.StreamID]int64{}
	d.mu.RLock() // before the table is read: what has gone from memory by now is there
	for _, recent := range []map[freehold.StreamID]int64{d.young, d.old} {
		for name, number := range recent {
			if name > after {
				numbers[name] = number
			}
		}
	}
	d.mu.RUnlock()
	err = c.query(`SELECT name, number FROM freehold_stream WHERE name > ? ORDER BY name LIMIT ?`, func(row []driver.Value) error {
		name, err := value[string](row[0])
		if err != nil {
			return err
		}
		numbers[freehold.StreamID(name)], err = value[int64](row[1])
		return err
	}, string(after), int64(limit))
	if err != nil {
		return nil, err
	}
	names := slices.Sorted(maps.Keys(numbers))
	for _, name := range names[:min(limit, len(names))] {
		version, err := latest(c, numbers[name])
		if err != nil {
			return nil, err
		}
		all = append(all, journal.StreamInfo{Stream: name, Version: version})
	}
	return all, nil
}
