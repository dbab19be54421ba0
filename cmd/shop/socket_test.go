package main

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// TestASocketPostsAsAnyClientDoes: what arrives, what comes back, and a connection
// that is gone is made again by the next call.
func TestASocketPostsAsAnyClientDoes(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	connections := map[string]bool{}
	stuck, release := make(chan struct{}), make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		connections[r.RemoteAddr] = true
		mu.Unlock()
		raw, err := io.ReadAll(r.Body)
		if err != nil || r.Method != "POST" || r.URL.Path != "/orders" || r.Header.Get("Content-Type") != "application/json" || r.Header.Get("Authorization") != "Bearer secret" {
			t.Errorf("%s %s %v, %v", r.Method, r.URL, r.Header, err)
		}
		switch body := string(raw); body {
		case "hang":
			close(stuck)
			<-release
		case "refuse":
			http.Error(w, "no stock", http.StatusConflict)
		case "close":
			w.Header().Set("Connection", "close")
		case "break":
			panic(http.ErrAbortHandler)
		case "long":
			_, _ = io.WriteString(w, strings.Repeat("x", 100_000)) // in chunks; the client says what it got
		default:
			_, _ = io.WriteString(w, body)
		}
	}))
	defer server.Close()
	defer close(release)
	s, ok := newSocket(server.URL+"/orders", "secret")
	if !ok {
		t.Fatal("no socket for " + server.URL)
	}
	defer s.close()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for _, c := range []struct {
		body, want  string
		status      int
		fails       bool
		connections int
	}{
		{"one", "one", 0, false, 1}, {"two", "two", 0, false, 1}, {"long", strings.Repeat("x", 100_000), 0, false, 1},
		{"refuse", "", 409, true, 1}, {"close", "", 0, false, 1}, {"three", "three", 0, false, 2}, {"break", "", 0, true, 2}, {"four", "four", 0, false, 3},
	} {
		answer, err := s.post(ctx, []byte(c.body))
		var status *statusError
		if (err != nil) != c.fails || string(answer) != c.want || errors.As(err, &status) != (c.status != 0) || c.status != 0 && status.status != c.status {
			t.Errorf("%s: %.20q, %v", c.body, answer, err)
		}
		mu.Lock()
		if n := len(connections); n != c.connections {
			t.Errorf("%s: %d connections, want %d", c.body, n, c.connections)
		}
		mu.Unlock()
	}
	go func() {
		<-stuck
		cancel()
	}()
	if _, err := s.post(ctx, []byte("hang")); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	for _, address := range []string{"https://127.0.0.1:1/orders", "http://shop/orders", "%"} {
		if _, ok := newSocket(address, ""); ok {
			t.Errorf("a socket for %s", address)
		}
	}
}
