package redis_test

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/redis/rueidis"
	"pgregory.net/rapid"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/cache"
	"github.com/freehold-go/freehold/internal/testredis"
	"github.com/freehold-go/freehold/redis"
)

func at(epoch freehold.Epoch, p freehold.Position) freehold.Mark {
	return freehold.Mark{Source: "inventory", Epoch: epoch, Position: p}
}

// begins is what a follower in memory tells first.
func begins(m freehold.Mark) freehold.Recorded {
	return freehold.Recorded{At: m, Internal: true, Last: true}
}

func keys(r freehold.Recorded) []string { return []string{r.Stream.ID()} }

// shelf is a database whose values say which event changed them last, with all that
// it ever was, by epoch.
type shelf struct {
	mu   sync.Mutex
	head freehold.Mark
	log  map[freehold.Epoch][]freehold.Recorded
}

func newShelf() *shelf {
	s := &shelf{head: at("e", 0), log: map[freehold.Epoch][]freehold.Recorded{}}
	return s
}

func (s *shelf) change(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.head.Position++
	s.log[s.head.Epoch] = append(s.log[s.head.Epoch], freehold.Recorded{At: s.head, Stream: freehold.Stream("product", key), Raw: []byte("{}"), Last: true})
}

// fork restores the database to an older state and goes on in another epoch.
func (s *shelf) fork(base freehold.Position) {
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.log[s.head.Epoch][:base]
	s.head = at(s.head.Epoch+"e", base)
	for _, r := range old {
		r.At.Epoch = s.head.Epoch
		s.log[s.head.Epoch] = append(s.log[s.head.Epoch], r)
	}
}

// was is the value of a key at a mark.
func (s *shelf) was(key string, m freehold.Mark) (last freehold.Position) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.log[m.Epoch] {
		if r.At.Position <= m.Position && r.Stream.ID() == key {
			last = r.At.Position
		}
	}
	return last
}

func (s *shelf) now() freehold.Mark {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.head
}

func (s *shelf) read(_ context.Context, key string) (freehold.Position, freehold.Mark, error) {
	head := s.now()
	return s.was(key, head), head, nil
}

// process is one of those that share a cache.
type process struct {
	cache *cache.Cache[string, freehold.Position]
	seen  freehold.Mark
}

func newProcess(s *shelf, second cache.Second, remember int) *process {
	c := cache.New(s.read, keys, &cache.Options{Remember: remember})
	c.Share(second, func(key string) string { return key }, cache.JSON[freehold.Position]())
	p := &process{cache: c, seen: s.now()}
	p.tell(begins(p.seen))
	return p
}

func (p *process) tell(rs ...freehold.Recorded) {
	_ = p.cache.Apply(context.Background(), rs) // it never fails
	p.seen = rs[len(rs)-1].At
}

// dumped is what a server held.
type dumped map[string]string

func command(t testing.TB, c rueidis.Client, words ...string) rueidis.RedisResult {
	t.Helper()
	r := c.Do(context.Background(), c.B().Arbitrary(words...).Build())
	if err := r.Error(); err != nil && !rueidis.IsRedisNil(err) {
		t.Fatalf("%.60q: %v", words, err)
	}
	return r
}

func list(t testing.TB, c rueidis.Client) []string {
	t.Helper()
	all, err := command(t, c, "KEYS", "*").AsStrSlice()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func save(t testing.TB, c rueidis.Client) dumped {
	t.Helper()
	d := dumped{}
	for _, key := range list(t, c) {
		if text, err := command(t, c, "DUMP", key).ToString(); err == nil {
			d[key] = text
		}
	}
	return d
}

func restore(t testing.TB, c rueidis.Client, d dumped) {
	t.Helper()
	command(t, c, "FLUSHALL")
	for key, text := range d {
		command(t, c, "RESTORE", key, "0", text)
	}
}

func direct(t testing.TB, srv *testredis.Server) rueidis.Client {
	t.Helper()
	c, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{"127.0.0.1:" + srv.Port()}, DisableCache: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func openCache(t testing.TB, url string, o *redis.CacheOptions) *redis.Cache {
	t.Helper()
	if o == nil {
		o = &redis.CacheOptions{}
	}
	if o.Patience == 0 {
		o.Patience = 20 * time.Second
	}
	o.Log = slog.New(slog.DiscardHandler)
	c, err := redis.OpenCache(url, "products", o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// TestASharedCacheIsNeverOlderThanItSays: whatever is filled late, told twice, late or
// not at all, evicted, emptied or restored, a value is what the database held at the
// marks that come with it, and a process never reads what it knows to be old.
func TestASharedCacheIsNeverOlderThanItSays(t *testing.T) {
	t.Parallel()
	srv := testredis.NewServer(t)
	raw := direct(t, srv)
	found, fills := 0, 0
	rapid.Check(t, func(rt *rapid.T) {
		command(t, raw, "FLUSHALL")
		remember := rapid.IntRange(1, 5).Draw(rt, "remember")
		second := openCache(t, srv.URL(), &redis.CacheOptions{Remember: remember})
		defer second.Close()
		s := newShelf()
		all := []*process{newProcess(s, second, remember), newProcess(s, second, remember), newProcess(s, second, remember)}
		someKey := rapid.SampledFrom([]string{"a", "b", "c", "d"})
		someone := rapid.IntRange(0, len(all)-1)
		type fill struct {
			key   string
			value freehold.Position
			at    freehold.Mark
		}
		var slow []fill
		var backup dumped
		check := func(rt *rapid.T) {
			for _, key := range []string{"a", "b", "c", "d"} {
				text, marks, ok := second.Get(context.Background(), key)
				if !ok {
					continue
				}
				found++
				if len(marks) != 1 || string(text) != fmt.Sprint(s.was(key, marks[0])) {
					rt.Fatalf("%s is %s at %v, it was %d", key, text, marks, s.was(key, marks[0]))
				}
			}
		}
		rt.Repeat(map[string]func(*rapid.T){
			"": check,
			"change": func(rt *rapid.T) {
				for range rapid.IntRange(1, 3).Draw(rt, "n") {
					s.change(someKey.Draw(rt, "key"))
				}
			},
			"tell": func(rt *rapid.T) {
				p := all[someone.Draw(rt, "process")]
				log := s.log[p.seen.Epoch]
				if rest := len(log) - int(p.seen.Position); rest > 0 {
					p.tell(log[p.seen.Position:][:rapid.IntRange(1, rest).Draw(rt, "n")]...)
				}
			},
			"miss": func(rt *rapid.T) {
				p := all[someone.Draw(rt, "process")]
				if log := s.log[p.seen.Epoch]; int(p.seen.Position)+1 < len(log) {
					p.tell(log[p.seen.Position+1]) // a gap
				}
			},
			"restart": func(rt *rapid.T) { all[someone.Draw(rt, "process")] = newProcess(s, second, remember) },
			"read": func(rt *rapid.T) {
				p, key := all[someone.Draw(rt, "process")], someKey.Draw(rt, "key")
				if p.seen.Epoch != s.head.Epoch {
					rt.Skip() // it stands still until it is restarted
				}
				v, err := p.cache.Get(context.Background(), key, freehold.Token{})
				if err != nil || v < s.was(key, p.seen) || v > s.was(key, s.head) {
					rt.Fatalf("%s is %d, %v; it was %d at %s and is %d", key, v, err, s.was(key, p.seen), p.seen, s.was(key, s.head))
				}
			},
			"read with a token": func(rt *rapid.T) {
				p, key := all[someone.Draw(rt, "process")], someKey.Draw(rt, "key")
				if v, err := p.cache.Get(context.Background(), key, freehold.NewToken(s.head)); err != nil || v != s.was(key, s.head) {
					rt.Fatalf("%s is %d, %v; it is %d", key, v, err, s.was(key, s.head))
				}
			},
			"begin a slow fill": func(rt *rapid.T) {
				key := someKey.Draw(rt, "key")
				slow = append(slow, fill{key, s.was(key, s.head), s.head})
			},
			"end a slow fill": func(rt *rapid.T) {
				if len(slow) == 0 {
					rt.Skip()
				}
				i := rapid.IntRange(0, len(slow)-1).Draw(rt, "fill")
				f := slow[i]
				slow = append(slow[:i], slow[i+1:]...)
				second.Fill(context.Background(), f.key, []byte(strconv.Itoa(int(f.value))), []freehold.Mark{f.at})
				fills++
			},
			"another epoch": func(rt *rapid.T) {
				if rapid.IntRange(0, 3).Draw(rt, "seldom") == 0 {
					s.fork(freehold.Position(rapid.IntRange(0, int(s.head.Position)).Draw(rt, "base")))
				}
			},
			"emptied": func(rt *rapid.T) {
				if rapid.IntRange(0, 3).Draw(rt, "seldom") == 0 {
					command(t, raw, "FLUSHALL")
				}
			},
			"evict": func(rt *rapid.T) {
				if all := list(t, raw); len(all) > 0 {
					command(t, raw, "DEL", rapid.SampledFrom(all).Draw(rt, "key"))
				}
			},
			"back up": func(*rapid.T) { backup = save(t, raw) },
			"restored": func(rt *rapid.T) {
				if backup != nil {
					restore(t, raw, backup)
				}
			},
		})
	})
	if found < enough(500) || fills < enough(50) {
		t.Errorf("%d values found and %d slow fills: the test has not done enough", found, fills)
	}
}

func TestASharedCacheSparesOtherProcessesTheDatabase(t *testing.T) {
	t.Parallel()
	srv := testredis.NewServer(t)
	second := openCache(t, srv.URL()+"/shop", nil)
	s := newShelf()
	first, other := newProcess(s, second, 100), newProcess(s, second, 100)
	s.change("a")
	first.tell(s.log["e"]...)
	other.tell(s.log["e"]...)
	read := func(p *process) {
		t.Helper()
		if v, err := p.cache.Get(t.Context(), "a", freehold.NewToken(s.head)); err != nil || v != s.was("a", s.head) {
			t.Errorf("a is %d, %v", v, err)
		}
	}
	read(first)
	read(other)
	if n := other.cache.Stats().Shared; n != 1 {
		t.Errorf("the other process has read %d values from the shared cache, want 1", n)
	}
	s.change("a")
	first.tell(s.log["e"][1:]...)
	read(other) // which has not been told; its token asks for more than it knows
	if st := second.Stats(); st.Found != 1 || st.Kept != 2 {
		t.Errorf("%+v", st)
	}
	read(newProcess(s, second, 100)) // a restart finds a warm cache
	if st := second.Stats(); st.Found != 2 {
		t.Errorf("%+v", st)
	}
}

func TestASharedCacheThatIsAwayIsAMiss(t *testing.T) {
	t.Parallel()
	srv := testredis.NewServer(t)
	srv.Kill()
	second := openCache(t, srv.URL(), &redis.CacheOptions{Pause: time.Microsecond})
	s := newShelf()
	p := newProcess(s, second, 100)
	read := func() {
		t.Helper()
		s.change("a")
		p.tell(s.log["e"][len(s.log["e"])-1])
		if v, err := p.cache.Get(t.Context(), "a", freehold.NewToken(s.head)); err != nil || v != s.was("a", s.head) {
			t.Errorf("a is %d, %v", v, err)
		}
	}
	for range 3 { // away, back, away, ...
		for range 5 {
			read()
		}
		srv.Restart()
		for kept := second.Stats().Kept; second.Stats().Kept == kept; {
			read()
		}
		srv.Kill()
	}
	read()
	if second.Stats().Away == 0 {
		t.Error("the server was never away")
	}
}
