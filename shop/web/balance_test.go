package web_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/inbox"
	"github.com/freehold-go/freehold/kv"
	"github.com/freehold-go/freehold/memory"
	"github.com/freehold-go/freehold/outbox"
	"github.com/freehold-go/freehold/shop/web"
)

type listed struct {
	N int `json:"n"`
}

func (listed) EventType() freehold.Type { return freehold.T("order.listed", 1) }

func types() (*freehold.Catalog, error) { return freehold.NewCatalog(freehold.JSON[listed]()) }

// One of two instances of a source is stopped: its kernel takes requests, and it says
// nothing. A follower comes to the head by the other one.
func TestAFollowerGoesOnWithTheInstanceThatAnswers(t *testing.T) {
	t.Parallel()
	catalog, err := types()
	if err != nil {
		t.Fatal(err)
	}
	db, err := memory.Open(t.Context(), "order", catalog, nil)
	if err != nil {
		t.Fatal(err)
	}
	tok, err := db.Append(t.Context(), freehold.Write{Stream: "order-1", Expect: freehold.NoStream, Events: []freehold.Event{listed{1}, listed{2}}})
	if err != nil {
		t.Fatal(err)
	}
	var asked atomic.Int32
	stopped := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		<-r.Context().Done()
	}))
	t.Cleanup(stopped.Close)
	answers := httptest.NewServer(outbox.Feed(db.Journal()))
	t.Cleanup(answers.Close)
	quiet := slog.New(slog.DiscardHandler)
	source, err := web.Remote("order", stopped.URL+","+answers.URL, types, &inbox.Options{Within: 200 * time.Millisecond, Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	own, err := memory.Open(t.Context(), "billing", catalog, nil)
	if err != nil {
		t.Fatal(err)
	}
	f, err := follow.New("orders", own, []follow.Source{source}, &follow.Options{Log: quiet},
		follow.On(func(context.Context, kv.Tx, listed, freehold.Recorded) error { return nil }))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	if err := f.WaitFor(ctx, tok); err != nil {
		t.Errorf("%v; %+v", err, f.Status(t.Context()))
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if asked.Load() == 0 {
		t.Error("the stopped instance was not asked at all")
	}
}

// hang is a transport to instances of which some take requests and say nothing.
type hang struct {
	stopped map[string]bool
	asked   map[string]int
}

func (h *hang) RoundTrip(r *http.Request) (*http.Response, error) {
	h.asked[r.URL.Host]++
	if h.stopped[r.URL.Host] {
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	return &http.Response{StatusCode: http.StatusOK, Body: http.NoBody}, nil
}

// An instance that says nothing costs one request a minute, gets its part again when it
// answers, and is asked all the same if no other one is there.
func TestAnInstanceThatSaysNothingIsLeftOut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, err := web.NewInstances("order", "http://a,http://b")
		if err != nil {
			t.Fatal(err)
		}
		h := &hang{stopped: map[string]bool{"a": true}, asked: map[string]int{}}
		s.Through(h)
		client := s.Client(10 * time.Second)
		get := func(n int) (failed int) {
			for range n {
				resp, err := client.Get(s.URL() + "/")
				if err != nil {
					failed++
					continue
				}
				_ = resp.Body.Close()
			}
			return failed
		}
		for minute := range 3 {
			if failed := get(50); failed != 1 || h.asked["a"] != minute+1 {
				t.Errorf("minute %d: %d requests failed, the instance was asked %d times", minute, failed, h.asked["a"])
			}
			<-time.After(time.Minute)
		}
		h.stopped["a"] = false
		if failed := get(50); failed != 0 || h.asked["a"] < 20 {
			t.Errorf("%d requests failed, the instance that answers again was asked %d times", failed, h.asked["a"])
		}
		h.stopped["a"], h.stopped["b"] = true, true
		if failed := get(4); failed != 4 {
			t.Errorf("%d of 4 requests failed, and nobody answers", failed)
		}
		h.stopped["a"], h.stopped["b"] = false, false
		if failed := get(4); failed != 0 {
			t.Errorf("%d requests failed", failed)
		}
	})
}

// Who has gone, or had no time left, says nothing about the instance that was asked.
func TestAnInstanceIsNotLeftOutBecauseItsReaderHasGone(t *testing.T) {
	t.Parallel()
	for name, gone := range map[string]func() (context.Context, context.CancelFunc){
		"before": func() (context.Context, context.CancelFunc) {
			ctx, leave := context.WithCancel(t.Context())
			leave()
			return ctx, leave
		},
		"meanwhile": func() (context.Context, context.CancelFunc) {
			ctx, leave := context.WithCancel(t.Context())
			time.AfterFunc(10*time.Millisecond, leave)
			return ctx, leave
		},
		"with little time": func() (context.Context, context.CancelFunc) {
			return context.WithTimeout(t.Context(), 10*time.Millisecond)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := web.NewInstances("order", "http://a,http://b")
			if err != nil {
				t.Fatal(err)
			}
			h := &hang{stopped: map[string]bool{"a": true, "b": true}, asked: map[string]int{}}
			s.Through(h)
			ask := func(ctx context.Context) error {
				req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL(), nil)
				if err != nil {
					t.Fatal(err)
				}
				_, err = s.RoundTrip(req)
				return err
			}
			ctx, leave := gone()
			defer leave()
			if ask(ctx) == nil {
				t.Fatal("a request without an answer did not fail")
			}
			clear(h.stopped)
			clear(h.asked)
			for range 4 {
				if err := ask(t.Context()); err != nil {
					t.Error(err)
				}
			}
			if got := fmt.Sprint(h.asked); got != "map[a:2 b:2]" {
				t.Errorf("asked %s", got)
			}
		})
	}
}
