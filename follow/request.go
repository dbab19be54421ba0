package follow

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/internal/mutant"
	"github.com/freehold-go/freehold/journal"
)

// operable is a sink that can park, and whose mark an operator may move.
type operable interface {
	release(ctx context.Context, source Source, key string, giveUp bool) error
	list(ctx context.Context, source Source, limit int) ([]Parked, error)
	isParked(ctx context.Context, source Source, at freehold.Position) (bool, error)
}

// errMoved says that a request has changed the stored mark.
var errMoved = errors.New("follow: mark moved")

// request is something an operator wants done in a source's loop, and waits for.
type request struct {
	do     func(ctx context.Context, sink operable) error
	moves  bool
	caller context.Context // ends when nobody waits any more
	done   chan error
}

// Parked lists up to limit parked events of all sources.
func (f *Follower) Parked(ctx context.Context, limit int) ([]Parked, error) {
	sink, ok := f.sink.(operable)
	if !ok {
		return nil, nil
	}
	var all []Parked
	for _, fd := range f.feeds {
		some, err := sink.list(ctx, fd.source, limit-len(all))
		if err != nil {
			return nil, err
		}
		if all = append(all, some...); len(all) >= limit {
			break
		}
	}
	return all, nil
}

// Retry applies the parked events of a key in order. At the first that fails again
// it stops and returns the handler's error; that event and those behind it stay
// parked. [ErrNotParked] if there are none, [ErrNotRunning] if another instance runs the
// follower. If ctx ends before its turn has come nothing is done; once it has begun its
// outcome is waited for.
func (f *Follower) Retry(ctx context.Context, s freehold.Source, key string) error {
	return f.release(ctx, s, key, false)
}

// Release gives up the first parked event of a key, keeps it on record, and
// applies those behind it like [Follower.Retry].
func (f *Follower) Release(ctx context.Context, s freehold.Source, key string) error {
	return f.release(ctx, s, key, true)
}

func (f *Follower) release(ctx context.Context, s freehold.Source, key string, giveUp bool) error {
	fd, err := f.feedOf(s)
	if err != nil {
		return err
	}
	key = storable(key)
	do := func(ctx context.Context, sink operable) error { return sink.release(ctx, fd.source, key, giveUp) }
	if mutant.ReleaseOutsideLoop {
		if sink, ok := f.sink.(operable); ok {
			return do(ctx, sink)
		}
	}
	return fd.ask(ctx, &request{do: do})
}

// historian is a source that can say which openings its history has.
type historian interface {
	Incarnations(ctx context.Context) ([]journal.Incarnation, error)
}

// Adopt accepts that a source went back in time: the mark is moved down to the
// place where the histories part, and what the source wrote since is applied. The
// effects of the events that were lost stay; compare them with the source by
// business key. Those that are parked are given up. It works only while the source is
// stopped as diverged, and returns the new mark. See [Follower.Keep].
func (f *Follower) Adopt(ctx context.Context, s freehold.Source) (freehold.Mark, error) {
	return f.decide(ctx, s, Adopted)
}

func (f *Follower) feedOf(s freehold.Source) (*feed, error) {
	for _, fd := range f.feeds {
		if fd.source.Name() == s {
			return fd, nil
		}
	}
	return nil, fmt.Errorf("follow: %s does not follow %s", f.name, s)
}

// ask hands a request to the source's loop and waits for its answer. If the caller goes
// first, the request is not done; one that has begun is waited for, since what became of it
// is known soon and its caller is to be told nothing else.
func (fd *feed) ask(ctx context.Context, req *request) error {
	fd.mu.Lock()
	if err := fd.notRunning(); err != nil {
		fd.mu.Unlock()
		return err
	}
	req.caller, req.done = ctx, make(chan error, 1)
	fd.requests = append(fd.requests, req)
	if fd.wake != nil {
		fd.wake()
	}
	fd.mu.Unlock()
	select {
	case err := <-req.done:
		return err
	case <-ctx.Done():
	}
	fd.mu.Lock()
	if i := slices.Index(fd.requests, req); i >= 0 {
		fd.requests = slices.Delete(fd.requests, i, i+1)
		req.done <- req.tooLate()
	}
	fd.mu.Unlock()
	return <-req.done
}

// tooLate is the answer to a request whose caller has gone before it began.
func (req *request) tooLate() error {
	return fmt.Errorf("follow: nothing was done, its turn had not come: %w", req.caller.Err())
}

// notRunning is why no loop serves requests, if that is so. It is called with mu held.
func (fd *feed) notRunning() error {
	switch fd.state {
	case Stopped:
		return fmt.Errorf("%w: it has not begun, or has ended: see the service's log", ErrNotRunning)
	case Failed:
		return fmt.Errorf("%w: it has failed, restart the process: %w", ErrNotRunning, fd.err)
	case Standby:
		return fmt.Errorf("%w: another instance of the service runs it: ask that one", ErrNotRunning)
	}
	return nil
}

// serve does what was asked for, in the loop. It returns errMoved if the mark is
// another one now, or if only the database knows what was done: what the sink remembers
// of it, its parked keys too, is read again then.
func (f *Follower) serve(ctx context.Context, fd *feed) error {
	fd.mu.Lock()
	defer fd.mu.Unlock()
	var moved error
	if fd.reread {
		fd.reread, moved = false, errMoved
	}
	for len(fd.requests) > 0 {
		req := fd.requests[0] // the others may be taken back meanwhile
		fd.requests = fd.requests[1:]
		var err error
		func() {
			fd.mu.Unlock()
			defer fd.mu.Lock()
			err = f.do(ctx, req)
		}()
		if req.moves && err == nil || errors.Is(err, freehold.ErrUnknown) {
			moved = errMoved
		}
		fd.broadcast()
	}
	return moved
}

// do does a request, unless its caller has gone, and answers it.
func (f *Follower) do(ctx context.Context, req *request) (err error) {
	err = errExited // unless it returns
	defer func() { req.done <- err }()
	if req.caller.Err() != nil {
		return req.tooLate()
	}
	sink, ok := f.sink.(operable)
	if !ok {
		return errNoDatabase
	}
	return req.do(ctx, sink)
}

// turnAway ends the loop's service: the state is final and open requests are
// refused.
func (fd *feed) turnAway() {
	fd.mu.Lock()
	defer fd.mu.Unlock()
	if fd.state != Failed {
		fd.state, fd.err = Stopped, nil
	}
	fd.broadcast()
	for _, req := range fd.requests {
		req.done <- fd.notRunning()
	}
	fd.requests = nil
}
