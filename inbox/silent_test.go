package inbox_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/inbox"
	"github.com/freehold-go/freehold/memory"
	"github.com/freehold-go/freehold/outbox"
)

// within is the patience of the sources under test.
const within = 100 * time.Millisecond

// behind returns a source that reads the journal of a sender through a handler.
func behind(t *testing.T, s *sender, through func(w http.ResponseWriter, r *http.Request, next http.Handler)) *inbox.Source {
	t.Helper()
	feed := outbox.Feed(s.db.Journal())
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { through(w, r, feed) }))
	t.Cleanup(server.Close)
	src, err := inbox.Remote("order", server.URL+"/feed", catalog(t), &inbox.Options{Within: within, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return src
}

// stops takes a request and gives no answer, as a process that was stopped does.
func stops(r *http.Request) { <-r.Context().Done() }

// An instance of the source is stopped in the middle of something, and another one
// answers what is asked next.
func TestASourceThatStopsIsAskedAgain(t *testing.T) {
	t.Parallel()
	for name, at := range map[string]string{"before it told its head": "limit=0", "before it told events": "limit=256", "while it told events": "limit=256"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, db := newSender(t, memory.NewDisk()), own(t)
			tok := s.place(t, 1, 2, 3)
			var stopped atomic.Bool
			f := receiver(t, db, behind(t, s, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
				if !strings.Contains(r.URL.RawQuery, at) || !stopped.CompareAndSwap(false, true) {
					next.ServeHTTP(w, r)
					return
				}
				if strings.HasPrefix(name, "while") {
					page := httptest.NewRecorder()
					next.ServeHTTP(page, r)
					for key, values := range page.Header() {
						w.Header()[key] = values
					}
					_, _ = io.CopyN(w, page.Body, int64(page.Body.Len()/2))
					w.(http.Flusher).Flush()
				}
				stops(r)
			}))
			wait(t, f, tok)
			if got, want := seen(t, db), "1;2;3;"; got != want || !stopped.Load() {
				t.Errorf("seen %s, want %s", got, want)
			}
		})
	}
}

// The error of a source that is stopped says so, and is not taken for the end of whoever
// asks.
func TestASourceThatStopsIsTold(t *testing.T) {
	t.Parallel()
	src := behind(t, newSender(t, memory.NewDisk()), func(_ http.ResponseWriter, r *http.Request, _ http.Handler) { stops(r) })
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for _, one := range []struct {
		name string
		ask  func() error
		time string // grows: a source that is slow must not be asked the same in vain for ever
	}{
		{"head", func() error { _, _, err := src.Bounds(ctx); return err }, "100ms"},
		{"events", func() error { _, err := src.Read(ctx, freehold.Mark{Source: "order", Position: 1}, 1); return err }, "200ms"},
		{"forks", func() error { _, err := src.Forks(ctx); return err }, "400ms"},
		{"incarnations", func() error { _, err := src.Incarnations(ctx); return err }, "600ms"},
	} {
		err := one.ask()
		if err == nil || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "order has not answered for "+one.time) {
			t.Errorf("%s: %v, want that it waited %s", one.name, err, one.time)
		}
	}
	ended, end := context.WithCancel(ctx)
	end()
	if _, _, err := src.Bounds(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("who has gone gets %v", err)
	}
}

// A source that was asked to wait for news is given that time, and its patience on top.
func TestASourceThatWaitsIsNotStopped(t *testing.T) {
	t.Parallel()
	s, db := newSender(t, memory.NewDisk()), own(t)
	var waited atomic.Bool
	f := receiver(t, db, behind(t, s, func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		if strings.Contains(r.URL.RawQuery, "wait=") && waited.CompareAndSwap(false, true) {
			select {
			case <-time.After(3 * within):
			case <-r.Context().Done():
				t.Error("the reader has gone")
			}
		}
		next.ServeHTTP(w, r)
	}))
	wait(t, f, s.place(t, 1))
	until := time.Now().Add(time.Minute)
	for n := 2; !waited.Load() && time.Now().Before(until); n++ {
		wait(t, f, s.place(t, n))
	}
}

// slowly answers each request with a list, whose parts come one in nine seconds.
func slowly(r *http.Request) (*http.Response, error) {
	body, parts := io.Pipe()
	context.AfterFunc(r.Context(), func() { _ = parts.CloseWithError(context.Cause(r.Context())) })
	go func() {
		for _, part := range []string{"[", " ", " ", "]"} {
			<-time.After(9 * time.Second)
			_, _ = parts.Write([]byte(part)) // the reader has gone
		}
		_ = parts.Close()
	}()
	return &http.Response{StatusCode: http.StatusOK, Body: body}, nil
}

type tripper func(*http.Request) (*http.Response, error)

func (t tripper) RoundTrip(r *http.Request) (*http.Response, error) { return t(r) }

// A page may take its time on a slow line, if something comes of it now and then.
func TestASourceThatIsSlowIsNotStopped(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		src, err := inbox.Remote("order", "http://order/feed", catalog(t), &inbox.Options{Client: &http.Client{Transport: tripper(slowly)}})
		if err != nil {
			t.Fatal(err)
		}
		if all, err := src.Incarnations(t.Context()); err != nil || len(all) != 0 {
			t.Errorf("%v, %v", all, err)
		}
	})
}
