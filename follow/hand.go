package follow

import (
	"cmp"
	"slices"
	"sync"

	"github.com/freehold-go/freehold"
)

// inHand is the batch of each source that is being applied, as it was read: what is left of
// it, event by event and lane by lane, does not tell where a transaction ends.
type inHand struct {
	mu sync.RWMutex
	of map[freehold.Source][]freehold.Recorded
}

func (h *inHand) set(s freehold.Source, events []freehold.Recorded) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.of == nil {
		h.of = map[freehold.Source][]freehold.Recorded{}
	}
	h.of[s] = events
}

// end is the position of the last event of the transaction that an event is of.
func (h *inHand) end(at freehold.Mark) freehold.Position {
	h.mu.RLock()
	events := h.of[at.Source]
	h.mu.RUnlock()
	i, _ := slices.BinarySearchFunc(events, at.Position, func(r freehold.Recorded, p freehold.Position) int { return cmp.Compare(r.At.Position, p) })
	end := at.Position
	for ; i < len(events); i++ {
		if end = events[i].At.Position; events[i].Last {
			break
		}
	}
	return end
}
