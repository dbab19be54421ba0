package main

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/freehold-go/freehold/memory"
	"github.com/freehold-go/freehold/outbox"
	"github.com/freehold-go/freehold/shop/event"
	"github.com/freehold-go/freehold/shop/inventory"
	"github.com/freehold-go/freehold/shop/inventoryd"
)

// TestStockIsReceivedOnceThoughTheAnswerIsLost: a shop that is seeded, and a load, send
// their products again when no answer has come.
func TestStockIsReceivedOnceThoughTheAnswerIsLost(t *testing.T) {
	t.Parallel()
	quiet := slog.New(slog.DiscardHandler)
	types, err := event.OrderTypes()
	if err != nil {
		t.Fatal(err)
	}
	orders, err := memory.Open(t.Context(), event.SourceOrder, types, &memory.Options{Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	defer orders.Close()
	feed := httptest.NewServer(outbox.Feed(orders.Journal()))
	defer feed.Close()
	defer feed.CloseClientConnections()
	server, err := inventoryd.New(t.Context(), inventoryd.Config{Data: t.TempDir(), Token: strings.Repeat("t", 32), Order: feed.URL, Relaxed: true, Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx) }()
	defer func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()

	to, err := url.Parse(server.URL())
	if err != nil {
		t.Fatal(err)
	}
	var lose atomic.Int64 // so many answers to commands
	lossy := httputil.NewSingleHostReverseProxy(to)
	lossy.ModifyResponse = func(r *http.Response) error {
		if r.Request.Method == http.MethodPost && lose.Add(-1) >= 0 {
			panic(http.ErrAbortHandler)
		}
		return nil
	}
	proxy := httptest.NewServer(lossy)
	defer proxy.Close()
	free := func(sku string) int64 {
		t.Helper()
		resp, err := http.Get(server.URL() + "/stock/" + sku)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var stock inventory.Stock
		if err := json.NewDecoder(resp.Body).Decode(&stock); err != nil {
			t.Fatal(err)
		}
		return stock.Free
	}

	s := &shop{urls: urls{Order: feed.URL, Inventory: proxy.URL}}
	lose.Store(2)
	if err := seed(t.Context(), s, func(string) {}); err != nil || lose.Load() >= 0 {
		t.Fatalf("%v, %d answers were not lost", err, lose.Load())
	}
	for _, p := range catalogue {
		if got := free(p.SKU); got != p.Received {
			t.Errorf("%d of %s are free, want the %d that came", got, p.SKU, p.Received)
		}
	}
	c, err := newClient(s.urls, "")
	if err != nil {
		t.Fatal(err)
	}
	lose.Store(1)
	for range 2 { // each load brings its own
		if err := (&generator{c: c}).stockUp(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if got := free("LOAD-0000"); got != 2_000_000_000 {
		t.Errorf("%d of a load's product are free, want what two loads have brought", got)
	}
}
