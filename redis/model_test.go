package redis_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/internal/testredis"
	"github.com/freehold-go/freehold/kv"
	"github.com/freehold-go/freehold/redis"
)

// content is what a store should hold.
type content map[string]string

func (c content) String() string {
	var b strings.Builder
	for _, key := range slices.Sorted(maps.Keys(c)) {
		fmt.Fprintf(&b, "%q=%s ", key, c[key])
	}
	return b.String()
}

// between is a scan of it.
func (c content) between(prefix, from string) content {
	some := content{}
	for key, text := range c {
		if strings.HasPrefix(key, prefix) && key >= from {
			some[key] = text
		}
	}
	return some
}

func scanned(ctx context.Context, tx kv.Tx, prefix, from string) (content, error) {
	all, last := content{}, ""
	for item, err := range tx.Scan(ctx, prefix, from) {
		if err != nil {
			return nil, err
		}
		if item.Key <= last {
			return nil, fmt.Errorf("%q comes behind %q", item.Key, last)
		}
		last = item.Key
		all[item.Key] = string(item.Value)
	}
	return all, nil
}

// held is a View that is kept open.
type held struct {
	ask   chan func(ctx context.Context, tx kv.Tx) error
	got   chan error
	ended chan error
	want  content // of the commit that it reads
	lost  bool    // the store was emptied or restored since
}

func hold(s *redis.Store) *held {
	h := &held{ask: make(chan func(context.Context, kv.Tx) error), got: make(chan error), ended: make(chan error, 1)}
	go func() {
		h.ended <- s.View(context.Background(), func(ctx context.Context, tx kv.Tx) error {
			for do := range h.ask {
				h.got <- do(ctx, tx)
			}
			return nil
		})
	}()
	return h
}

func (h *held) do(fn func(ctx context.Context, tx kv.Tx) error) error {
	h.ask <- fn
	return <-h.got
}

func (h *held) end() error {
	close(h.ask)
	return <-h.ended
}

// TestEveryReadIsOfOneCommit compares several processes' Updates and long Views with a
// map, while the store is emptied and restored.
func TestEveryReadIsOfOneCommit(t *testing.T) {
	t.Parallel()
	srv := testredis.NewServer(t)
	raw := direct(t, srv)
	compared, rotated := 0, 0
	rapid.Check(t, func(rt *rapid.T) {
		command(t, raw, "FLUSHALL")
		keep := rapid.SampledFrom([]time.Duration{time.Millisecond, time.Hour}).Draw(rt, "keep")
		var processes []*redis.Store
		for range 2 {
			c, err := redis.Open(context.Background(), srv.URL(), &redis.Options{Keep: keep, Watch: time.Hour, Log: quiet})
			if err != nil {
				rt.Fatal(err)
			}
			defer c.Close()
			s, err := c.Store("views")
			if err != nil {
				rt.Fatal(err)
			}
			processes = append(processes, s)
		}
		someone := rapid.SampledFrom(processes)
		someKey := rapid.SampledFrom([]string{"a", "a/1", "a/2", "a\x00", "a\xff", "b", "b/1", "\xff\xff", "c"})
		somePrefix := rapid.SampledFrom([]string{"", "a", "a/", "b", "\xff", "zz"})
		now := content{}
		var views []*held
		var backup dumped
		var backed content
		defer func() {
			for _, v := range views {
				_ = v.end() // each read was checked
			}
		}()
		lose := func(rt *rapid.T, to content) {
			now = maps.Clone(to)
			for _, v := range views {
				v.lost = true
			}
		}
		rt.Repeat(map[string]func(*rapid.T){
			"update": func(rt *rapid.T) {
				next := maps.Clone(now)
				_, err := someone.Draw(rt, "process").Update(context.Background(), func(ctx context.Context, tx kv.Tx) error {
					for range rapid.IntRange(1, 4).Draw(rt, "writes") {
						key := someKey.Draw(rt, "key")
						switch rapid.IntRange(0, 3).Draw(rt, "kind") {
						case 0:
							delete(next, key)
							if err := tx.Delete(ctx, key); err != nil {
								return err
							}
						default:
							text := fmt.Sprint(rapid.IntRange(0, 99).Draw(rt, "value"))
							next[key] = text
							if err := tx.Put(ctx, key, []byte(text)); err != nil {
								return err
							}
						}
					}
					prefix, from := somePrefix.Draw(rt, "prefix"), someKey.Draw(rt, "from")
					got, err := scanned(ctx, tx, prefix, from)
					if err != nil || !maps.Equal(got, next.between(prefix, from)) {
						return fmt.Errorf("scan of %q from %q: %v, %w; want %v", prefix, from, got, err, next.between(prefix, from))
					}
					return nil
				})
				if err != nil {
					rt.Fatal(err)
				}
				now = next
			},
			"update that fails": func(rt *rapid.T) {
				no := errors.New("no")
				_, err := someone.Draw(rt, "process").Update(context.Background(), func(ctx context.Context, tx kv.Tx) error {
					return errors.Join(tx.Put(ctx, someKey.Draw(rt, "key"), []byte("wrong")), no)
				})
				if !errors.Is(err, no) {
					rt.Fatal(err)
				}
			},
			"update that loses a race": func(rt *rapid.T) {
				key, other := someKey.Draw(rt, "key"), someKey.Draw(rt, "other")
				runs := 0
				_, err := processes[0].Update(context.Background(), func(ctx context.Context, tx kv.Tx) error {
					v, _, err := tx.Get(ctx, other)
					if err != nil {
						return err
					}
					if runs++; runs == 1 {
						if err := put(t, processes[1], other, string(v)+"x"); err != nil {
							return err
						}
						now[other] = string(v) + "x"
					}
					return tx.Put(ctx, key, append(v, 'y'))
				})
				if err != nil || runs != 2 {
					rt.Fatalf("%d runs, %v", runs, err)
				}
				now[key] = now[other] + "y"
			},
			"begin a view": func(rt *rapid.T) {
				v := hold(someone.Draw(rt, "process"))
				key := someKey.Draw(rt, "key")
				v.want = maps.Clone(now)
				views = append(views, v)
				if err := v.do(func(ctx context.Context, tx kv.Tx) error { return wantValue(ctx, tx, v.want, key) }); err != nil {
					rt.Fatal(err)
				}
			},
			"read in a view": func(rt *rapid.T) {
				if len(views) == 0 {
					rt.Skip()
				}
				i := rapid.IntRange(0, len(views)-1).Draw(rt, "view")
				v, key, prefix, from := views[i], someKey.Draw(rt, "key"), somePrefix.Draw(rt, "prefix"), someKey.Draw(rt, "from")
				err := v.do(func(ctx context.Context, tx kv.Tx) error {
					got, err := scanned(ctx, tx, prefix, from)
					if err == nil && !maps.Equal(got, v.want.between(prefix, from)) {
						return fmt.Errorf("scan of %q from %q: %v; want %v", prefix, from, got, v.want.between(prefix, from))
					}
					return errors.Join(err, wantValue(ctx, tx, v.want, key))
				})
				switch {
				case err == nil:
					compared++
				case errors.Is(err, freehold.ErrBehind) && (v.lost || keep == time.Millisecond):
					rotated++
					if err := v.end(); !errors.Is(err, freehold.ErrBehind) {
						rt.Fatalf("the view ends with %v", err)
					}
					views = slices.Delete(views, i, i+1)
				default:
					rt.Fatal(err)
				}
			},
			"emptied": func(rt *rapid.T) {
				if rapid.IntRange(0, 3).Draw(rt, "seldom") == 0 {
					command(t, raw, "FLUSHALL")
					lose(rt, content{})
				}
			},
			"back up": func(*rapid.T) { backup, backed = save(t, raw), maps.Clone(now) },
			"restored": func(rt *rapid.T) {
				if backup != nil && rapid.IntRange(0, 1).Draw(rt, "seldom") == 0 {
					restore(t, raw, backup)
					lose(rt, backed)
				}
			},
		})
	})
	if compared < enough(40) || rotated < enough(10) {
		t.Errorf("%d reads compared, %d snapshots gone: the test has not done enough", compared, rotated)
	}
}

// enough is what a test must have done where n is wanted: with -short rapid takes a tenth
// of the steps, by chance sometimes far fewer.
func enough(n int) int {
	if testing.Short() {
		return 1
	}
	return n
}

func wantValue(ctx context.Context, tx kv.Tx, want content, key string) error {
	raw, found, err := tx.Get(ctx, key)
	if text, there := want[key]; err == nil && (found != there || string(raw) != text) {
		return fmt.Errorf("%q is %q, %v; want %q, %v", key, raw, found, text, there)
	}
	return err
}
