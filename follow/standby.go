package follow

import (
	"context"
	"errors"
	"time"

	"github.com/freehold-go/freehold"
)

// Stand keeps the follower's places up to date while another instance of the service
// runs it, so that tokens can be waited for here too. It returns nil when ctx ends. It
// looks often while somebody waits for a token, and sleeps else: several followers stand
// by in an instance, and a process that wakes up each few milliseconds for nothing takes
// the processor from those that work.
func (f *Follower) Stand(ctx context.Context) error {
	const busy, idle = 10 * time.Millisecond, time.Second
	looked := time.Time{}
	for ctx.Err() == nil {
		due := time.Since(looked) >= idle
		pause := idle
		for _, fd := range f.feeds {
			fd.mu.Lock()
			awaited := fd.waiters > 0
			fd.mu.Unlock()
			if awaited {
				pause = busy
			} else if !due {
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
		wait := time.NewTimer(pause)
		select {
		case <-wait.C:
		case <-f.wanted:
		case <-ctx.Done():
		}
		wait.Stop()
	}
	return nil
}
