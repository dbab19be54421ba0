package follow

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/freehold-go/freehold"
)

// State is what a follower does with a source.
type State string

const (
	// Stopped: Run has not begun, or has ended.
	Stopped State = "stopped"
	// Running: reading, or waiting for the next event.
	Running State = "running"
	// Retrying: the source or the database failed; the follower pauses and tries again.
	Retrying State = "retrying"
	// Diverged: the source's history is another one, or archived below the mark; an
	// operator must decide.
	Diverged State = "diverged"
	// Standby: another instance of the service follows; the place is the stored one.
	Standby State = "standby"
	// Failed: Run has ended with an error. The process must restart if the database can no
	// longer be used.
	Failed State = "failed"
)

// StallAfter is how long a follower may stand still behind its source's head
// before its status says that it is stalled.
const StallAfter = 10 * time.Second

// Status is where a follower stands in one source.
type Status struct {
	Follower string            `json:"follower"`
	Source   freehold.Source   `json:"source"`
	State    State             `json:"state"`
	Error    string            `json:"error,omitempty"`
	Mark     freehold.Mark     `json:"mark"`
	Head     freehold.Position `json:"head"`
	Lag      int64             `json:"lag"`         // events behind the head
	Seconds  float64           `json:"lag_seconds"` // since it last moved, 0 at the head
	Parked   int               `json:"parked"`      // keys with parked events
	Stalled  bool              `json:"stalled"`     // behind the head, or unable to see it, and not moving for StallAfter
}

// Status tells where the follower stands in each source. A source that cannot be
// asked for its head shows the last place as its head and its error.
func (f *Follower) Status(ctx context.Context) []Status {
	all := make([]Status, 0, len(f.feeds))
	for _, fd := range f.feeds {
		_, head, err := fd.source.Bounds(ctx)
		fd.mu.Lock()
		st := Status{Follower: f.name, Source: fd.source.Name(), State: fd.state, Mark: fd.place, Head: max(head.Position, fd.place.Position)}
		moved, stateSince := fd.moved, fd.since
		if fd.err != nil {
			st.Error = fd.err.Error()
		} else if err != nil {
			st.Error = err.Error()
		}
		fd.mu.Unlock()
		st.Lag = int64(st.Head - st.Mark.Position)
		if moved.IsZero() {
			moved = stateSince
		}
		if st.Lag > 0 {
			st.Seconds = time.Since(moved).Seconds()
			st.Stalled = time.Since(moved) > StallAfter
		}
		if st.State != Running && st.State != Standby && time.Since(stateSince) > StallAfter {
			st.Stalled = true
		}
		if s, ok := f.sink.(interface{ parkedCount(freehold.Source) int }); ok {
			st.Parked = s.parkedCount(st.Source)
		}
		all = append(all, st)
	}
	return all
}

func (s *databaseSink[T]) parkedCount(source freehold.Source) int { return s.parked.count(source) }

// Follows reports whether s is one of the follower's sources.
func (f *Follower) Follows(s freehold.Source) bool {
	_, err := f.feedOf(s)
	return err == nil
}

// Bind makes events that were kept elsewhere decode with their source's catalog.
func (f *Follower) Bind(rs []freehold.Recorded) {
	for i := range rs {
		if fd, err := f.feedOf(rs[i].At.Source); err == nil {
			fd.source.Types().Bind(rs[i : i+1])
		}
	}
}

// WaitFor returns when the follower has applied everything that the token asks of
// its sources; what the token asks of others is not its business. If ctx ends
// first the error is freehold.ErrBehind; [ErrParked] and freehold.ErrHistoryLost
// mean that waiting will not help.
func (f *Follower) WaitFor(ctx context.Context, tok freehold.Token) error {
	for _, fd := range f.feeds {
		for _, want := range tok.Of(fd.source.Name()) {
			if err := f.waitFor(ctx, fd, want); err != nil {
				return err
			}
		}
	}
	return nil
}

func (f *Follower) waitFor(ctx context.Context, fd *feed, want freehold.Mark) error {
	fd.mu.Lock()
	fd.waiters++
	fd.mu.Unlock()
	defer func() {
		fd.mu.Lock()
		fd.waiters--
		fd.mu.Unlock()
	}()
	for told := false; ; {
		fd.mu.Lock()
		place, known, changed := fd.place, fd.known && fd.state != Diverged, fd.changed
		fd.mu.Unlock()
		covered := false
		if known {
			var err error
			if covered, err = fd.covers(ctx, place, want); err != nil {
				return fmt.Errorf("%s: %w", f.name, err)
			}
		}
		if covered {
			sink, ok := f.sink.(operable)
			if !ok {
				return nil
			}
			parked, err := sink.isParked(ctx, fd.source, want.Position)
			if parked {
				return fmt.Errorf("%s: %s: %w", f.name, want, ErrParked)
			}
			return err
		}
		if !told {
			told = true
			select {
			case f.wanted <- struct{}{}:
			default:
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.Canceled) {
				return ctx.Err()
			}
			return fmt.Errorf("%s is at %s, asked for %s: %w", f.name, place, want, freehold.ErrBehind)
		}
	}
}
