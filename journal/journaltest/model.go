package journaltest

import (
	"maps"
	"slices"

	"github.com/freehold-go/freehold"
)

// model is what a database is expected to hold, in plain maps: no encoding, no
// concurrency, a transaction is a copy.
type model struct {
	events []told
	state  map[string]string
	kept   map[[2]string]string // by space and key
	marks  map[string]freehold.Mark
}

// told is an event as its writer told it.
type told struct {
	stream freehold.StreamID
	event  freehold.Event
	last   bool
}

func newModel() *model {
	return &model{state: map[string]string{}, kept: map[[2]string]string{}, marks: map[string]freehold.Mark{}}
}

// begin returns a copy to work on; it becomes the model if the transaction commits.
func (m *model) begin() *model {
	return &model{events: slices.Clone(m.events), state: maps.Clone(m.state), kept: maps.Clone(m.kept), marks: maps.Clone(m.marks)}
}

// commit ends a transaction that began from was.
func (m *model) commit(was *model) {
	if len(m.events) > len(was.events) {
		m.events[len(m.events)-1].last = true
	}
}

func (m *model) version(s freehold.StreamID) freehold.Version {
	return freehold.Version(len(m.stream(s, 0)))
}

// stream is the events of a stream behind a version.
func (m *model) stream(s freehold.StreamID, after freehold.Version) []freehold.Event {
	var all []freehold.Event
	for _, e := range m.events {
		if e.stream == s {
			all = append(all, e.event)
		}
	}
	return all[min(int(after), len(all)):]
}

func (m *model) append(s freehold.StreamID, expect freehold.Expect, events []freehold.Event) *freehold.Conflict {
	v := m.version(s)
	ok := false
	switch expect {
	case freehold.Any:
		ok = true
	case freehold.Exists:
		ok = v > 0
	default:
		ok = freehold.Version(expect) == v
	}
	if !ok {
		return &freehold.Conflict{Stream: s, Expected: expect, Actual: v}
	}
	for _, e := range events {
		m.events = append(m.events, told{stream: s, event: e})
	}
	return nil
}

// scan is the keys of a space from a key on.
func (m *model) scan(space, from string) []string {
	var keys []string
	for k := range m.kept {
		if k[0] == space && k[1] >= from {
			keys = append(keys, k[1])
		}
	}
	slices.Sort(keys)
	return keys
}

func (m *model) streams() []freehold.StreamID {
	seen := map[freehold.StreamID]bool{}
	for _, e := range m.events {
		seen[e.stream] = true
	}
	return slices.Sorted(maps.Keys(seen))
}
