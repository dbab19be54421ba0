package orderd_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/freehold-go/freehold/internal/testredis"
	"github.com/freehold-go/freehold/shop/orderd"
)

// TestReadModelsInRedisMayVanishAtAnyMoment: the server is emptied between any two
// requests, and every answer is what it would have been.
func TestReadModelsInRedisMayVanishAtAnyMoment(t *testing.T) {
	t.Parallel()
	srv := testredis.NewServer(t)
	s := setupWith(t, srv.URL()+"/shop")
	for i := range 5 {
		id := text(s.post(201, "/orders", simple, "Idempotency-Key", fmt.Sprint("k", i)).body["id"])
		srv.Do("FLUSHALL")
		if got := s.get(200, "/orders/"+id+"?until=paid&wait=20s"); history(got) != "placed confirmed paid" {
			t.Errorf("paid: %s", got.raw)
		}
		srv.Do("FLUSHALL")
		shipped := s.post(200, "/orders/"+id+"/ship", "")
		token := shipped.header.Get("Consistency-Token")
		srv.Do("FLUSHALL")
		if got := s.get(200, "/orders/"+id, "Consistency-Token", token); got.body["status"] != "shipped" {
			t.Errorf("shipped: %s", got.raw)
		}
		srv.Do("FLUSHALL")
		if got := s.get(200, "/orders?limit=100", "Consistency-Token", token); len(got.body["orders"].([]any)) != i+1 {
			t.Errorf("%d orders: %s", i+1, got.raw)
		}
		srv.Do("FLUSHALL")
		if got := s.get(200, "/reports/summary", "Consistency-Token", token); text(got.body["paid"]) != fmt.Sprint(i+1) {
			t.Errorf("%d orders: %s", i+1, got.raw)
		}
	}
}

// TestOrdersAreTakenWhileRedisIsAway: commands go on, reads say that they cannot be
// answered, and a new, empty server is filled without a restart of the service.
func TestOrdersAreTakenWhileRedisIsAway(t *testing.T) {
	t.Parallel()
	srv := testredis.NewServer(t)
	s := setupWith(t, srv.URL())
	first := text(s.post(201, "/orders", simple).body["id"])
	s.get(200, "/orders/"+first+"?until=paid&wait=20s")
	srv.Kill()
	placed := s.post(201, "/orders", simple)
	got := s.get(503, "/orders/"+first)
	if got.header.Get("Retry-After") == "" || !strings.Contains(got.raw, "redis://127.0.0.1") {
		t.Errorf("while it is away: %v %s", got.header, got.raw)
	}
	srv.Restart()
	path := "/orders/" + text(placed.body["id"]) + "?until=paid&wait=20s"
	for s.call(http.MethodGet, path, "").status == 503 {
		if t.Context().Err() != nil {
			t.Fatal("it does not come back")
		}
	}
	s.get(200, path)
	if got := s.get(200, "/orders/"+first, "Consistency-Token", placed.header.Get("Consistency-Token")); history(got) != "placed confirmed paid" {
		t.Errorf("the order from before: %s", got.raw)
	}
}

func TestReadModelsURLIsCheckedAndItsPasswordKept(t *testing.T) {
	t.Parallel()
	for _, at := range []string{"redis://shop:secret@127.0.0.1:1/x", "redis://shop:secret@:1", "redis://shop:secret@127.0.0.1:1/x?password=secret", "mongodb://shop:secret@h/x"} {
		_, err := orderd.New(t.Context(), orderd.Config{Data: t.TempDir(), Views: at, Relaxed: true, Log: quiet})
		if err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%v", err)
		}
	}
}
