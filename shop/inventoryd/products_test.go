package inventoryd_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"

	"github.com/freehold-go/freehold/shop/inventoryd"
)

// TestProductReadsGoThroughACacheThatNeverLies: a definition's token makes the next
// read show it, whatever the cache holds; reads of what does not change do not reach
// the database.
func TestProductReadsGoThroughACacheThatNeverLies(t *testing.T) {
	t.Parallel()
	s, err := inventoryd.New(t.Context(), inventoryd.Config{Data: t.TempDir(), Token: strings.Repeat("t", 32), OrderFeed: "http://127.0.0.1:1/feed", Log: slog.New(slog.DiscardHandler)})
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
