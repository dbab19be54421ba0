package follow

import (
	"context"
	"errors"
	"time"

	"github.com/freehold-go/freehold"
)

// Stand keeps the follower's places up to date while another instance of the service
// runs it, so that tokens can be waited for here too. It returns nil when ctx ends.
func (f *Follower) Stand(ctx context.Context) error {
	const busy, idle = 10 * time.Millisecond, time.Second
	looked := time.Time{}
	for ctx.Err() == nil {
		due := time.Since(looked) >= idle
		for _, fd := range f.feeds {
			fd.mu.Lock()
			awaited := fd.waiters > 0
			fd.mu.Unlock()
			if !awaited && !due {
				continue
			}
			at, err := f.sink.Mark(ctx, fd.source.Name())
			switch {
			case ctx.Err() != nil:
			case errors.Is(err, freehold.ErrLatched), errors.Is(err, freehold.ErrClosed):
				return err
			default:
				if err == nil {
					fd.arrive(at)
				}
				fd.set(Standby, err)
			}
		}
		if due {
			looked = time.Now()
		}
		sleep(ctx, busy)
	}
	return nil
}
