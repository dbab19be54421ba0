package memory

import (
	"encoding/binary"
	"fmt"
	"slices"
	"sync"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/journal"
)

// Disk is what a database holds. Opened again with the same Disk it holds what it
// held; a clone is a backup, and opening one is a database restored from it. It is
// safe for concurrent use.
type Disk struct {
	mu    sync.RWMutex
	now   state         // replaced as a whole by each commit
	owner *DB           // the database that has it open
	news  chan struct{} // closed and replaced when now or owner changes
}

// state is a snapshot: nobody changes what it holds.
type state struct {
	name         freehold.Source // set when it is first opened
	epoch        freehold.Epoch
	events       []freehold.Recorded // commits append behind every snapshot's length
	index        tree[int]           // place in events, by stream and version
	streams      tree[freehold.Version]
	values       tree[[]byte] // the service's own
	kept         tree[[]byte] // of followers, by space and key
	marks        tree[freehold.Mark]
	incarnations []journal.Incarnation
}

// NewDisk returns an empty disk with an epoch of its own.
func NewDisk() *Disk {
	return &Disk{news: make(chan struct{}), now: state{epoch: freehold.Epoch(journal.NewEpoch())}}
}

// Clone returns a copy as a backup would be: the same history and epoch, open
// nowhere. The disk may be open and written to.
func (d *Disk) Clone() *Disk {
	d.mu.RLock()
	defer d.mu.RUnlock()
	c := &Disk{news: make(chan struct{}), now: d.now}
	c.now.events = slices.Clip(c.now.events) // each copy appends to a slice of its own
	c.now.incarnations = slices.Clip(c.now.incarnations)
	return c
}

// open makes db the owner and records an incarnation.
func (d *Disk) open(db *DB) (journal.Incarnation, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.now.name != "" && d.now.name != db.name {
		return journal.Incarnation{}, fmt.Errorf("memory: the disk holds the journal of %q, not of %q", d.now.name, db.name)
	}
	d.now.name = db.name
	this := journal.Incarnation{ID: journal.NewEpoch(), Start: d.now.head(db.name), Time: journal.Now()}
	d.now.incarnations = append(slices.Clip(d.now.incarnations), this)
	d.owner = db
	d.changed()
	return this, nil
}

func (d *Disk) close(db *DB) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.owner == db {
		d.owner = nil
	}
	d.changed()
}

func (d *Disk) changed() {
	close(d.news)
	d.news = make(chan struct{})
}

// read returns what the owner sees.
func (d *Disk) read(db *DB) (state, error) {
	s, _, err := d.watch(db)
	return s, err
}

// watch returns what the owner sees, and a channel that is closed when that
// changes.
func (d *Disk) watch(db *DB) (state, <-chan struct{}, error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if d.owner != db {
		return state{}, nil, fmt.Errorf("memory: %s: %w", db.name, freehold.ErrClosed)
	}
	return d.now, d.news, nil
}

// write replaces the state.
func (d *Disk) write(db *DB, next state) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.owner != db {
		return fmt.Errorf("memory: %s: %w", db.name, freehold.ErrClosed)
	}
	d.now = next
	d.changed()
	return nil
}

func (s state) head(name freehold.Source) freehold.Mark {
	at := freehold.Mark{Source: name}
	if n := len(s.events); n > 0 {
		at = s.events[n-1].At
	}
	at.Epoch = s.epoch // that of the event may have ended
	return at
}

// present gives events the present epoch, in which all that is here stands.
func (s state) present(rs []freehold.Recorded) []freehold.Recorded {
	for i := range rs {
		rs[i].At.Epoch = s.epoch
	}
	return rs
}

// with is the state with more events.
func (s state) with(events []freehold.Recorded) state {
	for _, r := range events {
		s.index = s.index.set(eventKey(r.Stream, r.Version), len(s.events))
		s.streams = s.streams.set(string(r.Stream), r.Version)
		s.events = append(s.events, r)
	}
	return s
}

func eventKey(s freehold.StreamID, v freehold.Version) string {
	return string(binary.BigEndian.AppendUint64(append([]byte(s), 0), uint64(v)))
}

// stream returns up to limit events of a stream behind a version; limit below 0
// is all.
func (s state) stream(id freehold.StreamID, after freehold.Version, limit int) []freehold.Recorded {
	var rs []freehold.Recorded
	last, _ := s.streams.get(string(id))
	for v := max(after, 0) + 1; v <= last && len(rs) != limit; v++ {
		i, _ := s.index.get(eventKey(id, v))
		rs = append(rs, s.events[i])
	}
	return s.present(rs)
}
