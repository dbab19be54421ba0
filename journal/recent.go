package journal

import (
	"sort"
	"sync"

	"github.com/freehold-go/freehold"
)

// recentBytes bounds what a journal keeps of its newest events. Followers that keep
// up read them from here; the others read the store.
const recentBytes = 8 << 20

// recordBytes is about what an event takes beside its payload.
const recordBytes = 512

// recent holds the newest durable events, without a gap, as they were committed:
// what many followers read a moment after the commit is read from the database by
// none of them.
type recent struct {
	asked   sync.Once // for a stream
	mu      sync.RWMutex
	chunks  [][]freehold.Recorded // of a commit or a read each; never empty, never changed
	bytes   int
	streams map[freehold.StreamID][]*freehold.Recorded // the events of each stream, in order; nil before somebody asked for one
	clears  int                                        // how often it was cleared
	epoch   freehold.Epoch                             // that the newest fork began
}

// since tells extend when a read began.
func (r *recent) since() int {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.clears
}

// add appends copies of events that continue what there is. Events that do not are a new
// beginning.
func (r *recent) add(events []freehold.Recorded) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.append(events)
}

// extend adds what was read from the store and is newer than what there is: where
// another instance writes, the followers of this one all read the same, and one of them
// reads it from the database. It adds nothing if the memory was cleared since the read
// began: what was read may have gone with it.
func (r *recent) extend(since int, events []freehold.Recorded) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if n := len(events); r.clears == since && n > 0 && events[n-1].At.Position > r.end().Position {
		r.append(events)
	}
}

// end is where the last event stands, nowhere without one.
func (r *recent) end() freehold.Mark {
	if len(r.chunks) == 0 {
		return freehold.Mark{}
	}
	last := r.chunks[len(r.chunks)-1]
	return last[len(last)-1].At
}

// append is called with mu held. What is there already is left out, if it is the same.
func (r *recent) append(events []freehold.Recorded) {
	end := r.end()
	known := sort.Search(len(events), func(i int) bool { return events[i].At.Position > end.Position })
	switch {
	case len(events) == 0:
		return
	case known == len(events) && events[known-1].At.Chain == end.Chain:
		return
	case known == len(events) || !Follows(end, &events[known]):
		r.forget()
	default:
		events = events[known:]
	}
	chunk := append(make([]freehold.Recorded, 0, len(events)), events...)
	r.chunks = append(r.chunks, chunk)
	r.bytes += bytesOf(chunk)
	r.sort(chunk)
	for len(r.chunks) > 1 && r.bytes > recentBytes {
		oldest := r.chunks[0]
		r.bytes -= bytesOf(oldest)
		r.chunks[0] = nil
		r.chunks = r.chunks[1:]
		if r.streams == nil {
			continue
		}
		for i := range oldest {
			if of := r.streams[oldest[i].Stream]; len(of) > 1 {
				r.streams[oldest[i].Stream] = of[1:]
			} else {
				delete(r.streams, oldest[i].Stream)
			}
		}
	}
}

// sort puts a chunk's events to their streams, if streams are asked for: a service
// that keeps its state in tables of its own never does.
func (r *recent) sort(chunk []freehold.Recorded) {
	if r.streams == nil {
		return
	}
	for i := range chunk {
		e := &chunk[i]
		r.streams[e.Stream] = append(r.streams[e.Stream], e)
	}
}

// byStream sorts what there is, and from now on what is added.
func (r *recent) byStream() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.streams = map[freehold.StreamID][]*freehold.Recorded{}
	for _, chunk := range r.chunks {
		r.sort(chunk)
	}
}

// stream returns copies of a stream's events behind a version up to another, or
// false if it does not hold them all.
func (r *recent) stream(s freehold.StreamID, after, upto freehold.Version) ([]freehold.Recorded, bool) {
	if after >= upto {
		return nil, true
	}
	r.asked.Do(r.byStream)
	r.mu.RLock()
	defer r.mu.RUnlock()
	of := r.streams[s]
	if len(of) == 0 || of[0].Version > after+1 || of[len(of)-1].Version < upto {
		return nil, false
	}
	of = of[after+1-of[0].Version : upto+1-of[0].Version]
	rs := make([]freehold.Recorded, len(of), len(of)+2)
	for i, e := range of {
		rs[i] = *e
	}
	return rs, true
}

// read returns copies of up to limit events behind a position, or none if it does
// not hold the first of them.
func (r *recent) read(after freehold.Position, limit int) []freehold.Recorded {
	r.mu.RLock()
	defer r.mu.RUnlock()
	i := sort.Search(len(r.chunks), func(i int) bool { c := r.chunks[i]; return c[len(c)-1].At.Position > after })
	if i == len(r.chunks) || r.chunks[i][0].At.Position > after+1 {
		return nil
	}
	skip := int(after + 1 - r.chunks[i][0].At.Position)
	n := -skip
	for _, c := range r.chunks[i:] {
		if n += len(c); n >= limit {
			break
		}
	}
	rs := make([]freehold.Recorded, 0, min(n, limit))
	for _, c := range r.chunks[i:] {
		c = c[skip:]
		skip = 0
		rs = append(rs, c[:min(len(c), limit-len(rs))]...)
		if len(rs) == limit {
			break
		}
	}
	return rs
}

// turn clears the memory if a fork has begun another epoch since: what is in it may be
// what was lost.
func (r *recent) turn(e freehold.Epoch) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.epoch != e {
		r.epoch = e
		r.clears++
		r.forget()
	}
}

func (r *recent) clear() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.clears++
	r.forget()
}

func (r *recent) forget() {
	r.chunks, r.bytes = nil, 0
	clear(r.streams)
}

func bytesOf(events []freehold.Recorded) (n int) {
	for i := range events {
		n += recordBytes + len(events[i].Raw)
	}
	return n
}
