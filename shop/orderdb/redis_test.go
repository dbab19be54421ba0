package orderdb_test

import (
	"context"
	"fmt"
	"log/slog"
	"testing"

	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/follow/followtest"
	"github.com/freehold-go/freehold/internal/testredis"
	"github.com/freehold-go/freehold/kv"
	"github.com/freehold-go/freehold/redis"
	"github.com/freehold-go/freehold/shop/orderdb"
)

// TestReadModelsHoldInRedis runs every fault schedule on a real server.
func TestReadModelsHoldInRedis(t *testing.T) {
	t.Parallel()
	c, err := redis.Open(t.Context(), testredis.Start(t), &redis.Options{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	n := 0
	for name, routes := range map[string]func() []follow.Route[kv.Tx]{
		"orders": func() []follow.Route[kv.Tx] { return orderdb.NewOrders("ns").Routes() },
		"sales":  func() []follow.Route[kv.Tx] { return orderdb.NewSales("ns").Routes() },
	} {
		t.Run(name, func(t *testing.T) {
			followtest.Run(t, followtest.Case[kv.Tx]{
				Open: func(t testing.TB) follow.DB[kv.Tx] {
					n++
					s, err := c.Store(fmt.Sprint("run", n))
					if err != nil {
						t.Fatal(err)
					}
					return s
				},
				Types: types(t), Given: given(), Routes: routes,
				Digest: func(ctx context.Context, tx kv.Tx) (string, error) { return dump(ctx, tx, "ns") },
			})
		})
	}
}
