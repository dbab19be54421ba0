package redis_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/follow/followtest"
	"github.com/freehold-go/freehold/internal/testredis"
	"github.com/freehold-go/freehold/kv"
	"github.com/freehold-go/freehold/redis"
)

type Counted struct{ N int64 }

func (Counted) EventType() freehold.Type { return freehold.T("test.counted", 1) }

func types(t testing.TB) *freehold.Catalog {
	t.Helper()
	c, err := freehold.NewCatalog(freehold.JSON[Counted]())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func open(t testing.TB, url string, o *redis.Options) *redis.Client {
	t.Helper()
	if o == nil {
		o = &redis.Options{}
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	c, err := redis.Open(t.Context(), url, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func store(t testing.TB, url string, o *redis.Options) *redis.Store {
	t.Helper()
	s, err := open(t, url, o).Store("views")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// counting adds each event up under its stream, and in a list of all.
func counting() []follow.Route[kv.Tx] {
	return []follow.Route[kv.Tx]{follow.On(func(ctx context.Context, tx kv.Tx, e Counted, r freehold.Recorded) error {
		if _, err := tx.Add(ctx, "sum/"+string(r.Stream), e.N, 0); err != nil {
			return err
		}
		return tx.Put(ctx, fmt.Sprintf("all/%06d", r.At.Position), []byte(fmt.Sprint(e.N)))
	})}
}

func given(n int) []freehold.Write {
	var all []freehold.Write
	for i := range n {
		all = append(all, freehold.Write{Stream: freehold.StreamID(fmt.Sprintf("a-%d", i%3)), Expect: freehold.Any, Events: []freehold.Event{Counted{int64(i + 1)}}})
	}
	return all
}

func dump(ctx context.Context, tx kv.Tx) (string, error) {
	var b strings.Builder
	for item, err := range tx.Scan(ctx, "", "") {
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&b, "%q %s\n", item.Key, item.Value)
	}
	return b.String(), nil
}

func TestFollowersLoseAndDoubleNothing(t *testing.T) {
	t.Parallel()
	url := testredis.Start(t)
	n := 0
	followtest.Run(t, followtest.Case[kv.Tx]{
		Open: func(t testing.TB) follow.DB[kv.Tx] {
			n++
			s, err := open(t, url, nil).Store(fmt.Sprint("run", n))
			if err != nil {
				t.Fatal(err)
			}
			return s
		},
		Types: types(t), Given: given(20), Routes: counting, Digest: dump,
	})
}

func put(t testing.TB, s *redis.Store, key, text string) error {
	t.Helper()
	_, err := s.Update(t.Context(), func(ctx context.Context, tx kv.Tx) error { return tx.Put(ctx, key, []byte(text)) })
	return err
}

func get(t testing.TB, s *redis.Store, key string) (text string) {
	t.Helper()
	err := s.View(t.Context(), func(ctx context.Context, tx kv.Tx) error {
		raw, _, err := tx.Get(ctx, key)
		text = string(raw)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return text
}
