// Package transport is the seam between a service and what carries its events to
// others: a publisher for the relay, a subscriber for inboxes, and the wire format
// (CloudEvents 1.0) that the broker and the feed share.
//
// # Guarantees
//
// None that anyone relies on: a transport may lose, double, reorder, or forget
// everything. Positions and the chain travel with each event, readers check
// them, and what is missing comes from the source's own feed (G4, G5).
//
// # Ordering
//
// A publisher refuses to place an event behind anything but its predecessor.
//
// # Failure
//
// Every method may fail at any time; callers stop, ask again what the broker
// holds, and go on from there.
package transport

import (
	"context"
	"errors"

	"github.com/freehold-go/freehold"
)

// Head is where a source stands: its mark and the incarnation that wrote it.
type Head struct {
	freehold.Mark
	Incarnation string `json:"incarnation"`
}

// ErrMoved is returned by Publish when the broker does not end at the expected
// place: somebody else has published, or it was purged or restored.
var ErrMoved = errors.New("transport: the broker's end has moved: read it again")

// Publisher carries one source's events to the broker. One goroutine uses it.
type Publisher interface {
	// Last returns what the broker last holds of the source; a zero position if
	// it holds nothing.
	Last(ctx context.Context, s freehold.Source) (Head, error)
	// Publish places events behind after, which is what the broker last holds, as Last or
	// the Publish before has said, and returns when it has taken them all. The events are
	// in order, and may begin further on than after: readers get what is between from the
	// feed. An event that is too large for the broker is left out, for the same reason, so
	// that held, what the broker now holds, may stand before the last event. ErrMoved
	// means that the broker does not end at after. After any error the caller must ask
	// Last again: a part may have been taken.
	Publish(ctx context.Context, after freehold.Mark, events []freehold.Recorded) (held freehold.Mark, err error)
	// Announce tells consumers the source's durable head, outside the stream.
	Announce(ctx context.Context, h Head) error
}

// Handler receives what a subscription delivers. Its functions are called from one
// goroutine, and block the subscription while they run.
type Handler struct {
	// Events receives events of the source in the broker's order: usually the next
	// ones, but nothing is promised. They are not bound to a catalog.
	Events func(ctx context.Context, events []freehold.Recorded) error
	// Head receives announcements.
	Head func(Head)
}

// Subscriber delivers a source's events. It is safe for concurrent use.
type Subscriber interface {
	// Subscribe delivers what the broker holds behind a mark and then what comes,
	// until ctx ends (nil) or the subscription fails. It never asks the broker
	// to keep a position.
	Subscribe(ctx context.Context, s freehold.Source, after freehold.Mark, h Handler) error
}
