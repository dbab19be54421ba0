package journal

import (
	"context"

	"github.com/freehold-go/freehold"
)

// Consumer is a follower of a journal, most often in another service, and up to where
// it is known to have applied the journal's events.
type Consumer struct {
	Name string        `json:"name"`
	Mark freehold.Mark `json:"mark"`
}

// registry is a store that cuts old events, and so must know who still needs them.
type registry interface {
	Register(ctx context.Context, consumer string, at freehold.Mark) error
	Consumers(ctx context.Context) ([]Consumer, error)
	Unregister(ctx context.Context, consumer string) error
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
// service itself included. Journals that are never cut have none.
func (j *Journal) Consumers(ctx context.Context) ([]Consumer, error) {
	if s, ok := j.store.(registry); ok {
		return s.Consumers(ctx)
	}
	return nil, nil
}

// Unregister forgets a consumer that is gone for good, so that events it has not
// applied may be cut. A consumer that is not known is no error.
func (j *Journal) Unregister(ctx context.Context, consumer string) error {
	if s, ok := j.store.(registry); ok {
		return s.Unregister(ctx, consumer)
	}
	return nil
}
