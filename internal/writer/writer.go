// Package writer is the queue before an engine's single writer. Callers hand in
// closures and wait; the writer takes what is queued, gives each closure its turn
// on the caller's own goroutine, and answers when the group's outcome is known.
//
// Running a closure on its caller's goroutine means that a panic unwinds through
// the caller's own stack and runtime.Goexit ends the right goroutine; the writer
// only sees that the closure did not return normally and rolls it back first.
package writer

import (
	"context"
	"errors"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/freehold-go/freehold"
)

// ErrAborted is what [Job.Run] returns for a closure that panicked or called
// runtime.Goexit. Its caller never sees it.
var ErrAborted = errors.New("writer: closure did not return")

// Options bound how long a closure may hold the writer.
type Options struct {
	Warn   time.Duration // log a warning behind this, 0 is 100 ms
	Cancel time.Duration // roll back behind this, 0 is 5 s
	Log    *slog.Logger  // nil is slog.Default()
}

// Queue is the line of callers. W is what the engine needs to know of each.
type Queue[W any] struct {
	jobs   chan *Job[W]
	closed chan struct{} // no more jobs
	exited chan struct{} // the writer has gone
	once   sync.Once
	opts   Options
	timer  *time.Timer
	last   int // the size of the last group; of the writer
}

// Job is one caller's piece of work.
type Job[W any] struct {
	Work W

	queue     *Queue[W]
	caller    context.Context
	fn        func(context.Context) error
	state     atomic.Int32
	turn      chan *closureContext
	ended     chan error
	done      chan result
	abandoned bool
}

type result struct {
	token freehold.Token
	err   error
}

const (
	queued int32 = iota
	started
	withdrawn
)

// maxIdle is how often Next lets others run in vain before it goes on.
const maxIdle = 64

// New returns an empty queue.
func New[W any](opts Options) *Queue[W] {
	if opts.Warn == 0 {
		opts.Warn = 100 * time.Millisecond
	}
	if opts.Cancel == 0 {
		opts.Cancel = 5 * time.Second
	}
	opts.Warn = min(opts.Warn, opts.Cancel) // the first look at a closure
	if opts.Log == nil {
		opts.Log = slog.Default()
	}
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	return &Queue[W]{jobs: make(chan *Job[W], 1024), closed: make(chan struct{}), exited: make(chan struct{}), opts: opts, timer: timer}
}

// Do queues work and returns its outcome. fn, which may be nil, is the closure to
// which the writer gives turns by [Job.Run]; it may be called more than once. If
// ctx ends before the writer has started on it, nothing happens and Do returns
// ctx's error; afterwards Do returns the outcome and nothing else.
func (q *Queue[W]) Do(ctx context.Context, work W, fn func(context.Context) error) (freehold.Token, error) {
	if Nested(ctx) {
		return freehold.Token{}, freehold.ErrNested
	}
	if err := ctx.Err(); err != nil {
		return freehold.Token{}, err
	}
	j := &Job[W]{Work: work, queue: q, caller: ctx, fn: fn, done: make(chan result, 1)}
	if fn != nil {
		j.turn, j.ended = make(chan *closureContext, 1), make(chan error, 1)
	}
	select {
	case <-q.closed:
		return freehold.Token{}, freehold.ErrClosed
	default:
	}
	select {
	case q.jobs <- j:
	case <-q.closed:
		return freehold.Token{}, freehold.ErrClosed
	case <-ctx.Done():
		return freehold.Token{}, ctx.Err()
	}
	cancelled, exited := ctx.Done(), q.exited
	for {
		select {
		case cc := <-j.turn:
			j.call(cc)
		case r := <-j.done:
			return r.token, r.err
		case <-cancelled:
			if j.state.CompareAndSwap(queued, withdrawn) {
				return freehold.Token{}, ctx.Err()
			}
			cancelled = nil
		case <-exited:
			if j.state.CompareAndSwap(queued, withdrawn) {
				return freehold.Token{}, freehold.ErrClosed
			}
			exited = nil
		}
	}
}

// call runs the closure on this, the caller's, goroutine. If the closure does not
// return, the writer rolls it back and answers before the stack unwinds further.
func (j *Job[W]) call(cc *closureContext) {
	returned := false
	defer func() {
		if !returned {
			j.ended <- ErrAborted
			<-j.done
		}
	}()
	err := j.fn(cc)
	returned = true
	j.ended <- err
}

// Next waits for work and takes what is queued, at most limit jobs. Callers that
// were answered together come back together: behind a group of several Next lets
// them run for as long as that brings more, so that they do not part into two
// halves that wait for each other's syncs. Jobs whose context has ended are
// answered and left out. It returns nil when the queue is closed and empty. Only
// the writer may call it.
func (q *Queue[W]) Next(limit int) []*Job[W] {
	var group []*Job[W]
	for len(group) == 0 {
		select {
		case j := <-q.jobs:
			group = j.start(group)
		case <-q.closed:
			select {
			case j := <-q.jobs:
				group = j.start(group)
			default:
				return nil
			}
		}
	}
	group = q.take(group, limit)
	// len(group) were waiting before the last ones were answered, so as many as
	// both together may come.
	limit = min(limit, len(group)+q.last)
	for idle := 0; q.last > 1 && len(group) < limit && idle < maxIdle; idle++ {
		n := len(group)
		runtime.Gosched()
		if group = q.take(group, limit); len(group) > n {
			idle = -1
		}
	}
	q.last = len(group)
	return group
}

// take adds what is queued to a group.
func (q *Queue[W]) take(group []*Job[W], limit int) []*Job[W] {
	for len(group) < limit {
		select {
		case j := <-q.jobs:
			group = j.start(group)
		default:
			return group
		}
	}
	return group
}

func (j *Job[W]) start(group []*Job[W]) []*Job[W] {
	if err := j.caller.Err(); err != nil && j.state.CompareAndSwap(queued, withdrawn) {
		j.done <- result{err: err}
		return group
	}
	if !j.state.CompareAndSwap(queued, started) {
		return group // the caller has gone
	}
	return append(group, j)
}

// Waiting is how many callers are queued, for tests: what they have queued while a
// closure holds the writer runs in one group behind it.
func (q *Queue[W]) Waiting() int { return len(q.jobs) }

// Closure reports whether the job has a closure to run.
func (j *Job[W]) Closure() bool { return j.fn != nil }

// Context is the caller's context, for its values only.
func (j *Job[W]) Context() context.Context { return j.caller }

// Run gives the closure its turn and waits for it to end. It returns the
// closure's error, [ErrAborted] if it did not return, or freehold.ErrTooLong if
// it was still running at the limit: then the engine must roll back and not run
// the job again. Run calls end, which kills the handle that the closure holds,
// once in any case: at the limit before the closure's context is cancelled, so that
// a closure that learns of it can do nothing more.
func (j *Job[W]) Run(end func()) error {
	if j.abandoned {
		end()
		return freehold.ErrTooLong
	}
	q := j.queue
	cc := &closureContext{caller: j.caller, done: make(chan struct{})}
	q.timer.Reset(q.opts.Warn)
	begun := time.Now()
	j.turn <- cc
	for {
		select {
		case err := <-j.ended:
			q.timer.Stop()
			end()
			if errors.Is(err, ErrAborted) {
				j.abandoned = true
			}
			return err
		case <-q.timer.C:
			if held := time.Since(begun); held < q.opts.Cancel {
				q.opts.Log.Warn("transaction holds the writer", "for", held, "cancelled_at", q.opts.Cancel)
				q.timer.Reset(q.opts.Cancel - held)
				continue
			}
			j.abandoned = true
			end()
			cc.cancel(freehold.ErrTooLong)
			return freehold.ErrTooLong
		}
	}
}

// Answer gives the caller its outcome. Call it once, when the outcome of the
// commit is known; only the first answer counts.
func (j *Job[W]) Answer(token freehold.Token, err error) {
	j.abandoned = true // its caller may be gone: it must not run again
	select {
	case j.done <- result{token, err}:
	default:
	}
}

// Close lets no more work in. Work that is queued is still done.
func (q *Queue[W]) Close() { q.once.Do(func() { close(q.closed) }) }

// Exited says that the writer takes no more work; it closes the queue and turns
// away whoever still waits in it. Only the writer may call it, once, at its end.
func (q *Queue[W]) Exited() {
	q.Close()
	close(q.exited)
}

// Done is closed when the writer has gone.
func (q *Queue[W]) Done() <-chan struct{} { return q.exited }
