package outbox

import (
	"context"
	"errors"
	"time"

	"github.com/freehold-go/freehold/transport"
)

// settle is how long after a publication the head is announced, so that a burst is
// announced once.
const settle = 200 * time.Millisecond

// announce tells consumers the durable head, so that they notice a lost tail: now
// and then, and when a burst of publications is over.
func (r *Relay) announce(ctx context.Context) {
	next := time.NewTimer(0)
	defer next.Stop()
	soon := false
	for {
		select {
		case <-r.published:
			if !soon {
				soon = true
				next.Reset(min(settle, r.opts.Heartbeat))
			}
			continue
		case <-next.C:
		case <-ctx.Done():
			return
		}
		err := errors.Join(r.announceHead(ctx), r.tell(ctx))
		if !soon {
			err = errors.Join(err, r.check(ctx))
		}
		if err != nil && ctx.Err() == nil {
			// The next heartbeat comes anyway, and consumers that hear none ask the feed.
			r.opts.Log.Debug("heartbeat failed", "source", r.journal.Name(), "error", err)
		}
		soon = false
		next.Reset(r.opts.Heartbeat)
	}
}

func (r *Relay) announceHead(ctx context.Context) error {
	if err := r.learnIncarnation(ctx); err != nil {
		return err
	}
	_, head, err := r.journal.Bounds(ctx)
	if err != nil {
		return err
	}
	r.mu.Lock()
	incarnation := r.incarnation
	r.mu.Unlock()
	return r.pub.Announce(ctx, transport.Head{Mark: head, Incarnation: incarnation})
}

// learnIncarnation asks the journal who writes it now, once; events say it later.
func (r *Relay) learnIncarnation(ctx context.Context) error {
	r.mu.Lock()
	known := r.incarnation != ""
	r.mu.Unlock()
	if known {
		return nil
	}
	openings, err := r.journal.Incarnations(ctx)
	if err != nil || len(openings) == 0 {
		return err
	}
	r.mu.Lock()
	r.incarnation = openings[len(openings)-1].ID
	r.mu.Unlock()
	return nil
}
