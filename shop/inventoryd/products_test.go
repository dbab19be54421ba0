package inventoryd_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/freehold-go/freehold/internal/testredis"
	"github.com/freehold-go/freehold/shop/inventoryd"
)

// TestProductReadsGoThroughACacheThatNeverLies: a definition's token makes the next
// read show it, whatever the cache holds; reads of what does not change do not reach
// the database.
func TestProductReadsGoThroughACacheThatNeverLies(t *testing.T) {
	t.Parallel()
	testProductReads(t, "")
}

// TestProductReadsGoThroughASharedCacheThatIsEmptiedAndAway is the same, while the
// server of the shared cache is emptied, killed and started again.
func TestProductReadsGoThroughASharedCacheThatIsEmptiedAndAway(t *testing.T) {
	t.Parallel()
	srv := testredis.NewServer(t)
	stop := make(chan struct{})
	var chaos sync.WaitGroup
	chaos.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			if srv.Do("FLUSHALL"); i%200 == 199 {
				srv.Kill()
				srv.Restart()
			}
		}
	})
	testProductReads(t, srv.URL()+"/shop")
	close(stop)
	chaos.Wait()
}

func TestACacheURLThatCannotBeReadIsRefused(t *testing.T) {
	t.Parallel()
	_, err := inventoryd.New(t.Context(), inventoryd.Config{Data: t.TempDir(), Order: "http://127.0.0.1:1", Cache: "redis://user:secret@:6379/x", Log: slog.New(slog.DiscardHandler)})
	if err == nil || strings.Contains(err.Error(), "secret") || !strings.Contains(err.Error(), "redis://") {
		t.Errorf("%v", err)
	}
}

func testProductReads(t *testing.T, cacheURL string) {
	t.Helper()
	s, err := inventoryd.New(t.Context(), inventoryd.Config{Cache: cacheURL, Data: t.TempDir(), Token: strings.Repeat("t", 32), Order: "http://127.0.0.1:1", Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	call := func(method, path, body, token string) (int, string, http.Header) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, s.URL()+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		if token != "" {
			req.Header.Set("Consistency-Token", token)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		raw, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(raw), resp.Header
	}
	if status, body, _ := call("GET", "/products/A%2FB", "", ""); status != http.StatusNotFound {
		t.Errorf("before it is defined: %d %s", status, body)
	}
	for i := range 50 {
		status, body, header := call("POST", "/products", fmt.Sprintf(`{"sku":"A/B","description":"Mug %d","price":"%d.500"}`, i, i), "")
		if status/100 != 2 {
			t.Fatalf("%d %s", status, body)
		}
		for range 2 {
			status, body, _ := call("GET", "/products/A%2FB", "", header.Get("Consistency-Token"))
			var p struct{ Description string }
			if err := json.Unmarshal([]byte(body), &p); err != nil || status != http.StatusOK || p.Description != fmt.Sprint("Mug ", i) {
				t.Fatalf("definition %d is read as %d %s", i, status, body)
			}
		}
	}
	_, metrics, _ := call("GET", "/metrics", "", "")
	if !strings.Contains(metrics, "freehold_cache_entries") || strings.Contains(metrics, `freehold_cache_hits{service="inventory"} 0`) {
		t.Errorf("no read was answered by the cache:\n%s", metrics)
	}
}
