package outbox

import (
	"context"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
)

// Seen asks the broker what it last holds of the journal: a tail that the journal does
// not have means that the journal went back in time.
func (r *Relay) Seen(ctx context.Context, s freehold.Source) (follow.Seen, error) {
	for !r.asking.TryLock() { // it may be held for as long as a broker does not answer
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return follow.Seen{}, ctx.Err()
		}
	}
	defer r.asking.Unlock()
	last, err := r.pub.Last(ctx, s)
	if err != nil || last.Position == 0 {
		return follow.Seen{Follower: r.Name(), Mark: freehold.Mark{Source: s}}, err
	}
	return follow.Seen{Follower: r.Name(), Mark: last.Mark, Incarnations: []string{last.Incarnation}}, nil
}

// Forked tells the relay that the journal has recorded a fork: what the broker holds
// behind the base is of an epoch that has ended, and publishing goes on behind it.
func (r *Relay) Forked() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.restart != nil {
		r.restart()
	}
}
