package follow

import (
	"context"
	"time"

	"github.com/freehold-go/freehold"
)

// standStill waits until a request of an operator has changed the mark.
func (f *Follower) standStill(ctx context.Context, fd *feed) {
	for ctx.Err() == nil {
		if f.serve(ctx, fd) == errMoved {
			return
		}
		<-fd.waiting(ctx).Done()
	}
}

// rest is what a follower does that has read everything: the sink stores what it has not
// stored yet, now or later, and it waits.
func (f *Follower) rest(ctx context.Context, fd *feed, place freehold.Mark) (err error) {
	var again time.Duration
	if s, ok := f.sink.(interface {
		rest(ctx context.Context, s freehold.Source) (again time.Duration, err error)
	}); ok {
		if again, err = s.rest(ctx, fd.source.Name()); err != nil {
			return err
		}
		f.tell(fd, place)
	}
	return fd.wait(ctx, place, again)
}

// goBack has the follower read its stored mark again, and reports whether there is a
// difference: events of which nothing was stored, for nobody wants them, may be of
// another history.
func (f *Follower) goBack(s freehold.Source) bool {
	sink, ok := f.sink.(interface{ forget(s freehold.Source) bool })
	return ok && sink.forget(s)
}

// beginAgain has a follower begin at the source's head again, and reports whether it
// holds no state that would miss anything.
func (f *Follower) beginAgain(s freehold.Source) bool {
	sink, ok := f.sink.(interface{ beginAgain(s freehold.Source) })
	if ok {
		sink.beginAgain(s)
	}
	return ok
}

// wait returns when the source may have news, a request came in, or time is up, if there
// is a limit.
func (fd *feed) wait(ctx context.Context, place freehold.Mark, limit time.Duration) error {
	waitCtx := fd.waiting(ctx)
	if limit > 0 {
		var cancel context.CancelFunc
		waitCtx, cancel = context.WithTimeout(waitCtx, limit)
		defer cancel()
	}
	if waitCtx.Err() != nil {
		return nil
	}
	err := fd.source.Wait(waitCtx, place)
	if waitCtx.Err() != nil {
		return nil
	}
	return err
}

// waiting returns a context that ends when a request comes in.
func (fd *feed) waiting(ctx context.Context) context.Context {
	waitCtx, cancel := context.WithCancel(ctx)
	fd.mu.Lock()
	defer fd.mu.Unlock()
	if fd.wake != nil {
		fd.wake()
	}
	fd.wake = cancel
	if len(fd.requests) > 0 || fd.reread {
		cancel()
	}
	return waitCtx
}
