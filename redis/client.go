package redis

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"
)

// timeout bounds how long an answer of the server is waited for.
const timeout = 5 * time.Second

// Options tune a client; the zero value is good.
type Options struct {
	// Relaxed accepts a server whose settings let it drop keys of read models, and
	// one whose settings it will not tell.
	Relaxed bool
	// Keep is how long a View may read: what is replaced meanwhile is kept for it.
	// 0 is 10 s.
	Keep time.Duration
	// Watch is how often an idle store is looked at, to notice that it was emptied or
	// restored. 0 is 1 s.
	Watch time.Duration
	// Warn and Cancel bound how long a closure may hold a store's writer: 0 is 1 s
	// and 5 s.
	Warn, Cancel time.Duration
	// Log is where warnings go. nil is slog.Default().
	Log *slog.Logger
}

func (o *Options) withDefaults() Options {
	var opts Options
	if o != nil {
		opts = *o
	}
	if opts.Keep <= 0 {
		opts.Keep = 10 * time.Second
	}
	if opts.Watch <= 0 {
		opts.Watch = time.Second
	}
	if opts.Warn <= 0 {
		opts.Warn = time.Second // batches go over the network
	}
	if opts.Log == nil {
		opts.Log = slog.Default()
	}
	return opts
}

// Client is a connection to a Redis server or cluster. It is safe for concurrent use.
type Client struct {
	at     address
	lib    rueidis.Client
	opts   Options
	audit  []string
	closed atomic.Bool

	mu     sync.Mutex
	stores map[string]*Store
}

// Open connects to the server or cluster that redis://user:password@host:port/prefix
// names (rediss for TLS, ?db= for another database than 0) and audits its settings:
// a server that is a replica, or that may drop keys when its memory is full, is
// refused.
func Open(ctx context.Context, url string, o *Options) (*Client, error) {
	at, err := parseURL(url)
	if err != nil {
		return nil, err
	}
	c := &Client{at: at, opts: o.withDefaults(), stores: map[string]*Store{}}
	if c.lib, err = rueidis.NewClient(at.options()); err != nil {
		return nil, fmt.Errorf("redis: %s cannot be reached: %w%s: is the server running, and the address right?", at, err, hint(err.Error()))
	}
	if c.audit, err = c.readAudit(ctx); err != nil {
		c.lib.Close()
		return nil, err
	}
	return c, nil
}

// Audit says in words which guarantee the server's settings give.
func (c *Client) Audit() []string { return c.audit }

// Close ends what is under way and closes the connections. Later calls return
// freehold.ErrClosed.
func (c *Client) Close() error {
	if c.closed.Swap(true) {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.stores {
		s.close()
	}
	c.lib.Close()
	return nil
}
