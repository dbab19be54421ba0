package redis

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/internal/overlay"
	"github.com/freehold-go/freehold/internal/writer"
	"github.com/freehold-go/freehold/journal"
	"github.com/freehold-go/freehold/kv"
)

// Store holds a read model, or several, and the marks of their followers. It has no
// journal. It is safe for concurrent use, by any number of processes.
type Store struct {
	client *Client
	name   string
	keys   []string // values, index, meta, young, old, dead
	queue  *writer.Queue[*job]
	stop   chan struct{}

	mu   sync.Mutex
	seen snapshot // the newest commit that this process knows of
	lost chan struct{}
}

// snapshot is a commit: its number, 15 digits, and its random id. The zero value is
// not known.
type snapshot struct{ n, id string }

const firstStamp = "000000000000000"

// ErrNoJournal is returned by Append and Events: what cannot be rebuilt does not
// belong in Redis.
var ErrNoJournal = fmt.Errorf("redis: a store has no journal: keep events in another database")

// Store returns the store of a name: letters, digits, dots, dashes and underscores.
// In a cluster all its keys are in one slot, so give each large read model one of its
// own.
func (c *Client) Store(name string) (*Store, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed.Load() {
		return nil, freehold.ErrClosed
	}
	if s := c.stores[name]; s != nil {
		return s, nil
	}
	s := &Store{client: c, name: name, stop: make(chan struct{}), lost: make(chan struct{})}
	for _, part := range []string{"values", "index", "meta", "young", "old", "dead"} {
		s.keys = append(s.keys, c.at.key(name, part))
	}
	s.queue = writer.New[*job](writer.Options{Warn: c.opts.Warn, Cancel: c.opts.Cancel, Log: c.opts.Log})
	c.stores[name] = s
	go s.write()
	go s.watch()
	return s, nil
}

// close finishes what is queued.
func (s *Store) close() {
	close(s.stop)
	s.queue.Close()
	<-s.queue.Done()
}

// Keeper returns what followers keep, as part of tx.
func (s *Store) Keeper(tx kv.Tx) follow.Keeper { return overlay.Keeper(tx.(*overlay.Tx)) }

// Lost returns a channel that is closed when the store has been found empty, or
// older than this process has seen it: what followers know in memory of their marks
// is not true any more, and they read them again.
func (s *Store) Lost() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lost
}

// known returns what to compare the store with.
func (s *Store) known() snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen
}

// note compares a snapshot with the one that was known when it was asked for.
func (s *Store) note(known, now snapshot, follows bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case known == snapshot{} && s.seen == snapshot{}:
		s.seen = now
	case known == s.seen && !follows:
		s.client.opts.Log.Warn("redis: a store was emptied, restored or out of sight: its followers read their marks again", "store", s.name, "was", known.n, "is", now.n)
		close(s.lost)
		s.lost = make(chan struct{})
		s.seen = now
	case follows && now.n > s.seen.n:
		s.seen = now
	}
}

// watch looks at the store when nobody else does: an idle follower would not notice
// that its read model is gone.
func (s *Store) watch() {
	tick := time.NewTicker(s.client.opts.Watch)
	defer tick.Stop()
	for {
		select {
		case <-s.stop:
			return
		case <-tick.C:
		}
		if err := s.begin(context.Background()).fetch(); err != nil {
			s.client.opts.Log.Debug("redis: store not seen", "store", s.name, "error", err)
		}
	}
}

// Update runs fn in a transaction; see freehold.DB. What fn reads is one snapshot. If
// another process has committed in between, fn runs again. The token is empty.
func (s *Store) Update(ctx context.Context, fn func(ctx context.Context, tx kv.Tx) error) (freehold.Token, error) {
	j := &job{}
	return s.queue.Do(ctx, j, func(ctx context.Context) error { return fn(ctx, j.tx) })
}

// View runs fn on a snapshot; see freehold.DB. A View that reads for longer than
// Options.Keep, or during which the store is emptied or restored, ends with
// freehold.ErrBehind.
func (s *Store) View(ctx context.Context, fn func(ctx context.Context, tx kv.Tx) error) error {
	b := s.begin(ctx)
	tx := overlay.New("redis", b, journal.Now(), false, nil)
	defer tx.End()
	err := fn(ctx, tx)
	tx.End()
	if b.failed != nil {
		return b.failed
	}
	return err
}

// Append returns ErrNoJournal.
func (s *Store) Append(context.Context, ...freehold.Write) (freehold.Token, error) {
	return freehold.Token{}, ErrNoJournal
}

func (s *Store) begin(ctx context.Context) *base {
	return &base{store: s, ctx: ctx, got: map[string]stored{}}
}

var _ follow.DB[kv.Tx] = (*Store)(nil)
