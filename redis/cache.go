package redis

import (
	"context"
	_ "embed"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/cache"
	"github.com/freehold-go/freehold/journal"
)

//go:embed lua/label.lua
var labelText string

//go:embed lua/lookup.lua
var lookupText string

//go:embed lua/fill.lua
var fillText string

//go:embed lua/invalidate.lua
var invalidateText string

var (
	lookupScript     = rueidis.NewLuaScript(labelText + lookupText)
	fillScript       = rueidis.NewLuaScript(labelText + fillText)
	invalidateScript = rueidis.NewLuaScript(labelText + invalidateText)
)

// CacheOptions tune a [Cache]; the zero value is good.
type CacheOptions struct {
	// Remember is how many keys' last invalidations are remembered for each source, to
	// judge fills that began before them. 0 is 65,536.
	Remember int
	// Life is how long an entry is kept. 0 is an hour.
	Life time.Duration
	// Patience is how long a read waits for the server before it goes to the database,
	// and Pause for how long reads do so then. 0 is 50 ms and 1 s.
	Patience, Pause time.Duration
	// Log is where it is said that the server is away, and back. nil is slog.Default().
	Log *slog.Logger
}

// Cache is the second level of caches: see cache.Cache.Share. It is safe for concurrent
// use. A server that is away is a miss; it is connected to when it is back.
type Cache struct {
	at   address
	name string
	opts CacheOptions

	mu         sync.Mutex
	lib        rueidis.Client // nil while the server has not been reached
	connecting bool
	closed     bool
	until      time.Time // no questions before

	stats struct{ found, missed, kept, refused, away atomic.Int64 }
}

var _ cache.Second = (*Cache)(nil)

// OpenCache returns the cache of a name on the server or cluster that a URL names; see
// [Open]. Programs that encode values differently use different names. Only a URL that
// cannot be read is an error: the server may be away.
func OpenCache(url, name string, o *CacheOptions) (*Cache, error) {
	at, err := parseURL(url)
	if err != nil {
		return nil, err
	}
	if err := checkName(name); err != nil {
		return nil, err
	}
	c := &Cache{at: at, name: name}
	if o != nil {
		c.opts = *o
	}
	if c.opts.Remember <= 0 {
		c.opts.Remember = 1 << 16
	}
	if c.opts.Life <= 0 {
		c.opts.Life = time.Hour
	}
	if c.opts.Patience <= 0 {
		c.opts.Patience = 50 * time.Millisecond
	}
	if c.opts.Pause <= 0 {
		c.opts.Pause = time.Second
	}
	if c.opts.Log == nil {
		c.opts.Log = slog.Default()
	}
	c.connecting = true
	c.connect()
	return c, nil
}

// connect tries once.
func (c *Cache) connect() {
	o := c.at.options()
	o.Dialer.Timeout = time.Second
	lib, err := rueidis.NewClient(o)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.connecting = false
	switch {
	case err != nil:
		c.rest(err)
	case c.closed:
		lib.Close()
	default:
		c.lib = lib
	}
}

// rest makes reads go to the database for a while. The caller holds c.mu.
func (c *Cache) rest(err error) {
	c.stats.away.Add(1)
	if c.until.IsZero() {
		c.opts.Log.Warn("redis: shared cache is away: reads go to the database", "server", c.at.String(), "error", err)
	}
	c.until = time.Now().Add(c.opts.Pause)
}

// client returns the connection, or nil while the server is away.
func (c *Cache) client() rueidis.Client {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || time.Now().Before(c.until) {
		return nil
	}
	if c.lib == nil && !c.connecting {
		c.connecting = true
		go c.connect()
	}
	return c.lib
}

// run runs a script; ok is false if there is no answer.
func (c *Cache) run(ctx context.Context, s *rueidis.Lua, keys, args []string) (answer rueidis.RedisMessage, ok bool) {
	lib := c.client()
	if lib == nil {
		return answer, false
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.opts.Patience)
	defer cancel()
	answer, err := s.Exec(ctx, lib, keys, args).ToMessage()
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.rest(err)
		return answer, false
	}
	if !c.until.IsZero() {
		c.until = time.Time{}
		c.opts.Log.Info("redis: shared cache is back", "server", c.at.String())
	}
	return answer, true
}

func (c *Cache) meta() string                        { return c.at.key(c.name, "meta") }
func (c *Cache) lasts(source freehold.Source) string { return c.at.key(c.name, "last:"+string(source)) }
func (c *Cache) entry(key string) string             { return c.at.key(c.name, "entry:"+key) }

// Get returns a value and up to where it holds; see cache.Second.
func (c *Cache) Get(ctx context.Context, key string) (raw []byte, at []freehold.Mark, found bool) {
	answer, ok := c.run(ctx, lookupScript, []string{c.entry(key), c.meta()}, nil)
	if !ok {
		return nil, nil, false
	}
	said, err := answer.AsStrSlice()
	if err != nil || len(said) < 4 {
		c.stats.missed.Add(1)
		return nil, nil, false
	}
	for i := 1; i+2 < len(said); i += 3 {
		position, err := strconv.ParseInt(said[i+2], 10, 64)
		if err != nil {
			return nil, nil, false
		}
		at = append(at, freehold.Mark{Source: freehold.Source(said[i]), Epoch: freehold.Epoch(said[i+1]), Position: freehold.Position(position)})
	}
	c.stats.found.Add(1)
	return []byte(said[0]), at, true
}

// Fill keeps a value unless something newer may be known; see cache.Second.
func (c *Cache) Fill(ctx context.Context, key string, raw []byte, at []freehold.Mark) {
	if len(at) == 0 {
		return
	}
	keys := []string{c.entry(key), c.meta()}
	args := []string{key, strconv.FormatInt(c.opts.Life.Milliseconds(), 10), string(raw)}
	for _, m := range at {
		keys = append(keys, c.lasts(m.Source))
		args = append(args, string(m.Source), string(m.Epoch), strconv.FormatInt(int64(m.Position), 10))
	}
	answer, ok := c.run(ctx, fillScript, keys, args)
	if !ok {
		return
	}
	if said, err := answer.ToString(); err == nil && said == "kept" {
		c.stats.kept.Add(1)
	} else {
		c.stats.refused.Add(1)
	}
}

// Invalidate tells what events have changed; see cache.Second.
func (c *Cache) Invalidate(ctx context.Context, from, to freehold.Mark, changed []cache.Change) {
	keys := []string{c.meta(), c.lasts(to.Source)}
	args := []string{string(to.Source), string(to.Epoch), strconv.FormatInt(int64(from.Position), 10), strconv.FormatInt(int64(to.Position), 10),
		strconv.Itoa(c.opts.Remember), journal.NewEpoch()}
	for _, ch := range changed {
		keys = append(keys, c.entry(ch.Key))
		args = append(args, ch.Key, strconv.FormatInt(int64(ch.At), 10))
	}
	c.run(ctx, invalidateScript, keys, args)
}

// CacheStats is what a [Cache] has been asked since it was opened.
type CacheStats struct {
	Found, Missed int64 // reads
	Kept, Refused int64 // fills
	Away          int64 // how often the server did not answer
}

// Stats counts.
func (c *Cache) Stats() CacheStats {
	return CacheStats{c.stats.found.Load(), c.stats.missed.Load(), c.stats.kept.Load(), c.stats.refused.Load(), c.stats.away.Load()}
}

// Audit says in words what is known of the server.
func (c *Cache) Audit() []string {
	promise := "a miss when it is away, never older than the process"
	lib := c.client()
	if lib == nil {
		return []string{"away now", promise}
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	for _, node := range lib.Nodes() {
		info, err := node.Do(ctx, node.B().Info().Build()).ToString()
		if err != nil {
			return []string{"settings not known: INFO is not permitted", promise}
		}
		is := fields(info)
		return []string{"Redis " + is["redis_version"], "maxmemory-policy " + is["maxmemory_policy"], promise}
	}
	return []string{fmt.Sprintf("%d servers", len(lib.Nodes())), promise}
}

// Close closes the connection. Later reads are misses.
func (c *Cache) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	if c.lib != nil {
		c.lib.Close()
	}
	return nil
}
