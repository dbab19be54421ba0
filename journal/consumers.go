package journal

import (
	"context"
	"errors"
	"fmt"

	"github.com/freehold-go/freehold"
)

// Consumer is a follower of a journal, most often in another service, and up to where
// it is known to have applied the journal's events.
type Consumer struct {
	Name string        `json:"name"`
	Mark freehold.Mark `json:"mark"`
	// Own: it is a follower of the service itself; its mark is its own to move.
	Own bool `json:"own,omitempty"`
	// Retired: it was declared gone for good where it stands, and keeps nothing there.
	Retired bool `json:"retired,omitempty"`
}

// ErrNoConsumer is returned for a name that no follower of the journal has.
var ErrNoConsumer = errors.New("journal: no such consumer")

// ErrOwnFollower is returned when a follower of the service itself is to be forgotten
// like a consumer: its mark says what it has applied. See [Journal.Retire].
var ErrOwnFollower = errors.New("journal: a follower of the service itself cannot be forgotten, only retired")

// registry is a store that cuts old events, and so must know who still needs them.
type registry interface {
	Register(ctx context.Context, consumer string, at freehold.Mark) error
	Consumers(ctx context.Context) ([]Consumer, error)
	Unregister(ctx context.Context, consumer string) error
	Retire(ctx context.Context, follower string) error
}

// Register remembers that a consumer has applied everything up to a mark of this
// journal: what stands behind it is not cut before the consumer has told a higher one,
// or is forgotten. A consumer tells its mark at its start, and now and then as it moves
// on. freehold.ErrGone means that events behind the mark have been cut already.
// Journals that are never cut remember nothing.
func (j *Journal) Register(ctx context.Context, consumer string, at freehold.Mark) error {
	if s, ok := j.store.(registry); ok {
		return s.Register(ctx, consumer, at)
	}
	return nil
}

// Consumers lists the followers whose marks keep events from being cut, those of the
// service itself included: the first is the one that keeps most, retired ones come last.
// Journals that are never cut have none.
func (j *Journal) Consumers(ctx context.Context) ([]Consumer, error) {
	if s, ok := j.store.(registry); ok {
		return s.Consumers(ctx)
	}
	return nil, nil
}

// Unregister forgets a consumer that is gone for good, so that events it has not
// applied may be cut. [ErrNoConsumer]: nobody has that name. [ErrOwnFollower]: it is
// not in another service.
func (j *Journal) Unregister(ctx context.Context, consumer string) error {
	if s, ok := j.store.(registry); ok {
		return s.Unregister(ctx, consumer)
	}
	return ErrNoConsumer
}

// Retire says that a follower of the service itself is gone for good, so that events it
// has not applied may be cut. Its mark stays: should it be started again, it goes on
// from there, or stops with freehold.ErrGone, and keeps what it needs as soon as it has
// moved on. [ErrNoConsumer]: no follower of the service has that name.
func (j *Journal) Retire(ctx context.Context, follower string) error {
	if s, ok := j.store.(registry); ok {
		return s.Retire(ctx, follower)
	}
	return ErrNoConsumer
}

// Gone is the error of who has applied events up to a position of a journal that begins
// behind a later one: freehold.ErrGone, and in words what is lost to him and what to do.
func Gone(s freehold.Source, after, first freehold.Position) error {
	return fmt.Errorf("events %d to %d of %s were cut, and this reader has not applied them; nothing behind them is delivered to it: start it from a database that has applied them, such as a younger backup, or have it begin behind them with freehold skip, and let new readers tell where they are (consumer=) before the events they need are older than retain: %w",
		after+1, first, s, freehold.ErrGone)
}
