package follow

import (
	"context"

	"github.com/freehold-go/freehold"
)

// Hints say what the handlers of a batch will use of their database. They change
// nothing of what handlers do: an engine on another machine takes the locks, in one
// order, and fetches what is there in one go, instead of asking for each by itself.
// What is missing costs time, what is too much is fetched in vain.
type Hints struct {
	// Locks are keys that will be given to freehold.Tx.Lock.
	Locks []string
	// Streams are those of the service's own journal that will be appended to.
	Streams []freehold.StreamID
	// Reads are those that will be read, whether they are appended to or not.
	Reads []freehold.StreamID
	// Kept are the keys of values that followers keep, by space.
	Kept map[string][]string
}

// Add adds other hints.
func (h *Hints) Add(other Hints) {
	h.Locks = append(h.Locks, other.Locks...)
	h.Streams = append(h.Streams, other.Streams...)
	h.Reads = append(h.Reads, other.Reads...)
	for space, keys := range other.Kept {
		if h.Kept == nil {
			h.Kept = map[string][]string{}
		}
		h.Kept[space] = append(h.Kept[space], keys...)
	}
}

// Warm gives hints to the engine of a transaction, if it has a use for them. What hints
// panics with is returned as failed: an error of the handlers that it is for, not of the
// database. Then nothing was given.
func Warm(ctx context.Context, tx freehold.Tx, hints func() Hints) (failed, err error) {
	w, ok := tx.(interface {
		Warm(ctx context.Context, h Hints) error
	})
	if !ok {
		return nil, nil
	}
	var h Hints
	func() {
		defer recovered("Options.Warm", &failed)
		h = hints()
	}()
	if failed != nil {
		return failed, nil
	}
	return nil, w.Warm(ctx, h)
}
