package writer

import (
	"context"
	"sync/atomic"
	"time"
)

type nestedKey struct{}

// Nested reports whether ctx was handed to the closure of an Update.
func Nested(ctx context.Context) bool { return ctx.Value(nestedKey{}) != nil }

// closureContext carries the caller's values and the mark that makes a nested
// Update fail, but not the caller's cancellation: a closure that has started is
// finished or rolled back by the writer's decision only.
type closureContext struct {
	caller context.Context
	done   chan struct{}
	err    atomic.Pointer[error]
}

func (c *closureContext) Deadline() (time.Time, bool) { return time.Time{}, false }
func (c *closureContext) Done() <-chan struct{}       { return c.done }

func (c *closureContext) Err() error {
	if p := c.err.Load(); p != nil {
		return *p
	}
	return nil
}

func (c *closureContext) Value(key any) any {
	if _, ok := key.(nestedKey); ok {
		return true
	}
	return c.caller.Value(key)
}

func (c *closureContext) cancel(err error) {
	c.err.Store(&err)
	close(c.done)
}

var _ context.Context = (*closureContext)(nil)

// Within returns the context for a closure that runs without a queue, and the
// function that ends it, to be called at most once.
func Within(caller context.Context) (ctx context.Context, cancel func(error)) {
	cc := &closureContext{caller: caller, done: make(chan struct{})}
	return cc, cc.cancel
}
