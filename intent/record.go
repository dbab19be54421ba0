package intent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/internal/fault"
)

// recordError is an error of the record function, as opposed to one of the database.
type recordError struct{ error }

func (e recordError) Unwrap() error { return e.error }

// recordAll records outcomes, all that are ready in one transaction, until stop is
// closed; then it records what is left and moves the mark as far as it goes.
func (c *Caller[T, E, O]) recordAll(ctx context.Context, stop <-chan struct{}) error {
	var later []*task[E, O] // whose record failed, the next attempt first
	for stopping := false; !stopping; {
		var again <-chan time.Time
		if len(later) > 0 {
			again = time.After(time.Until(later[0].again))
		}
		select {
		case <-c.ready:
		case <-again:
		case <-stop:
			stopping = true
		}
		due := c.take()
		for len(later) > 0 && (stopping || !later[0].again.After(time.Now())) {
			due, later = append(due, later[0]), later[1:]
		}
		failed, err := c.recordReady(ctx, due)
		if fatal(err) {
			return err
		}
		if err != nil {
			c.opts.Log.Warn("outcomes not recorded yet", "caller", c.name, "waiting", len(failed), "error", err)
		}
		for _, t := range failed {
			t.pause = min(max(2*t.pause, c.opts.Pause), c.opts.MaxPause)
			t.again = time.Now().Add(t.pause)
		}
		later = append(later, failed...)
		slices.SortStableFunc(later, func(a, b *task[E, O]) int { return a.again.Compare(b.again) })
	}
	return nil
}

// fatal reports whether Run must end: the database cannot go on, or another caller
// has this one's place.
func fatal(err error) bool {
	return errors.Is(err, freehold.ErrLatched) || errors.Is(err, freehold.ErrClosed) || errors.Is(err, freehold.ErrFenced)
}

func (c *Caller[T, E, O]) take() []*task[E, O] {
	c.mu.Lock()
	defer c.mu.Unlock()
	due := c.results
	c.results = nil
	return due
}

// recordReady records the outcomes in one transaction or, if a record fails, each
// in one of its own. It returns those that failed, with the last error.
func (c *Caller[T, E, O]) recordReady(ctx context.Context, due []*task[E, O]) (failed []*task[E, O], err error) {
	err = c.recordTogether(ctx, due)
	if err == nil {
		return nil, nil
	}
	if len(due) <= 1 || !errors.As(err, new(recordError)) {
		return due, err
	}
	for i, t := range due {
		one := c.recordTogether(ctx, due[i:i+1])
		if one == nil {
			continue
		}
		failed, err = append(failed, t), one
		if !errors.As(one, new(recordError)) { // the database: the others would not get on better
			return append(failed, due[i+1:]...), err
		}
	}
	if len(failed) == 0 {
		err = nil
	}
	return failed, err
}

// recordTogether records outcomes and the new place in one transaction. Without
// outcomes it moves the mark, if it can.
func (c *Caller[T, E, O]) recordTogether(ctx context.Context, due []*task[E, O]) error {
	slices.SortFunc(due, func(a, b *task[E, O]) int { return cmp.Compare(a.r.At.Position, b.r.At.Position) })
	positions := make([]freehold.Position, len(due))
	for i, t := range due {
		positions[i] = t.r.At.Position
	}
	c.mu.Lock()
	from := c.places.stored
	to, err := c.places.with(positions)
	wanted := c.loaded && (len(due) > 0 || c.places.far() || ctx.Err() != nil && to.mark != from.mark)
	c.mu.Unlock()
	if err != nil || !wanted {
		return err
	}
	var failed error
	fault.Point("intent.record.before")
	err = follow.Do(context.WithoutCancel(ctx), c.db, func(ctx context.Context, tx T) error {
		failed = nil
		if err := c.move(ctx, c.db.Keeper(tx), from, to); err != nil {
			return err
		}
		var err error
		if failed, err = c.warm(ctx, tx, due); failed != nil {
			return failed
		} else if err != nil {
			return err
		}
		failed = c.recordDue(ctx, tx, due)
		return failed
	})
	fault.Point("intent.record.after")
	if errors.Is(err, freehold.ErrUnknown) {
		err = c.resolve(ctx, from, to, err)
	}
	if err != nil {
		if (failed != nil || errors.Is(err, freehold.ErrTooLong)) && !fatal(err) && !errors.Is(err, freehold.ErrUnknown) {
			return recordError{err}
		}
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.places.commit(to, positions)
	for _, t := range due {
		<-c.room
		c.next(ctx, t)
	}
	c.moved = time.Now()
	close(c.changed)
	c.changed = make(chan struct{})
	return nil
}

// warm tells the engine what is going to be used.
func (c *Caller[T, E, O]) warm(ctx context.Context, tx T, due []*task[E, O]) (failed, err error) {
	if c.opts.Warm == nil || len(due) == 0 {
		return nil, nil
	}
	return follow.Warm(ctx, tx, func() follow.Hints {
		rs := make([]freehold.Recorded, len(due))
		for i, t := range due {
			rs[i] = t.r
		}
		return c.opts.Warm(rs)
	})
}

// next lets the stream's next call go. It is called with mu held.
func (c *Caller[T, E, O]) next(ctx context.Context, t *task[E, O]) {
	behind := c.waiting[t.r.Stream]
	if len(behind) == 0 {
		delete(c.waiting, t.r.Stream)
		return
	}
	c.waiting[t.r.Stream] = behind[1:]
	c.start(ctx, behind[0])
}

// recordDue calls the record function. What it panics with is its error.
func (c *Caller[T, E, O]) recordDue(ctx context.Context, tx T, due []*task[E, O]) (err error) {
	if len(due) == 0 {
		return nil
	}
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("record panicked: %v\n%s", p, debug.Stack())
		}
	}()
	done := make([]Done[E, O], len(due))
	for i, t := range due {
		done[i] = Done[E, O]{t.event, t.r, t.outcome}
	}
	if err := c.record(ctx, tx, done); err != nil {
		return fmt.Errorf("%d outcomes, the first of %s at %s: %w", len(due), due[0].r.Type, due[0].r.At, err)
	}
	return nil
}

// space holds the documents of all callers, by name.
const space = "intent"

// move replaces what is stored, if it is as this caller left it.
func (c *Caller[T, E, O]) move(ctx context.Context, k follow.Keeper, from, to stored) error {
	now, err := c.read(ctx, k)
	if err != nil {
		return err
	}
	if !now.equal(from) {
		return fmt.Errorf("%s at %s: %w", c.name, now.mark, freehold.ErrFenced)
	}
	if to.mark != from.mark {
		if err := k.Move(ctx, c.name, from.mark, to.mark); err != nil {
			return err
		}
	}
	if string(to.doc) == string(from.doc) {
		return nil
	}
	return k.Put(ctx, space, c.name, to.doc)
}

func (c *Caller[T, E, O]) read(ctx context.Context, k follow.Keeper) (s stored, err error) {
	if s.mark, err = k.Mark(ctx, c.name, c.own.Name()); err != nil {
		return s, err
	}
	s.doc, _, err = k.Get(ctx, space, c.name)
	return s, err
}

func (c *Caller[T, E, O]) stored(ctx context.Context) (s stored, err error) {
	err = c.db.View(ctx, func(ctx context.Context, tx T) error {
		s, err = c.read(ctx, c.db.Keeper(tx))
		return err
	})
	return s, err
}

// resolve finds out what became of a commit of unknown outcome: what is stored
// tells, because every commit changes it.
func (c *Caller[T, E, O]) resolve(ctx context.Context, from, to stored, unknown error) error {
	now, err := c.stored(context.WithoutCancel(ctx))
	switch {
	case err != nil:
		return errors.Join(unknown, err)
	case now.equal(to):
		return nil
	case now.equal(from):
		return unknown
	}
	return fmt.Errorf("%s at %s: %w", c.name, now.mark, freehold.ErrFenced)
}

// finished is the place up to which all outcomes are recorded, and a channel that
// is closed when it may have moved.
func (c *Caller[T, E, O]) finished() (mark freehold.Mark, moved time.Time, changed <-chan struct{}) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.places.finished(), c.moved, c.changed
}

// WaitFor returns when the outcomes of all intents up to the token are recorded. If
// ctx ends first the error is freehold.ErrBehind.
func (c *Caller[T, E, O]) WaitFor(ctx context.Context, tok freehold.Token) error {
	if err := c.Follower.WaitFor(ctx, tok); err != nil {
		return err
	}
	for _, want := range tok.Of(c.own.Name()) {
		for {
			mark, _, changed := c.finished()
			if mark.Position >= want.Position {
				break
			}
			select {
			case <-changed:
			case <-ctx.Done():
				if errors.Is(ctx.Err(), context.Canceled) {
					return ctx.Err()
				}
				return fmt.Errorf("%s: recorded up to %s, asked for %s: %w", c.name, mark, want, freehold.ErrBehind)
			}
		}
	}
	return nil
}

// Status tells up to where all outcomes are recorded, and how far that is behind
// the journal's head.
func (c *Caller[T, E, O]) Status(ctx context.Context) []follow.Status {
	all := c.Follower.Status(ctx)
	for i := range all {
		mark, moved, _ := c.finished()
		if mark.Position >= all[i].Mark.Position || mark.Source == "" {
			continue
		}
		all[i].Mark = mark
		all[i].Lag = int64(all[i].Head - mark.Position)
		if !moved.IsZero() {
			all[i].Seconds = time.Since(moved).Seconds()
		}
	}
	return all
}

// Open is how many intents have no recorded outcome yet, of those that the caller
// has read.
func (c *Caller[T, E, O]) Open() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.places.items)
}
