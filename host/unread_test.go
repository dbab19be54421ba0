package host_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/host"
	"github.com/freehold-go/freehold/journal"
)

// absent is a journal whose database cannot be read until it is there.
type absent struct {
	journal.Store
	there atomic.Bool
}

var errAbsent = errors.New("no route to the database")

func (s *absent) err() error {
	if s.there.Load() {
		return nil
	}
	return errAbsent
}

func (s *absent) Source() freehold.Source { return "order" }
func (s *absent) Bounds(context.Context) (first, head freehold.Mark, err error) {
	return first, head, s.err()
}
func (s *absent) Forks(context.Context) (journal.Forks, error) { return nil, s.err() }
func (s *absent) PutFork(context.Context, journal.Fork) error  { return s.err() }
func (s *absent) Wait(ctx context.Context, _ freehold.Position) error {
	<-ctx.Done()
	return ctx.Err()
}

// While its own database cannot be read, nobody can be asked: a command is refused
// after a while, it does not wait for ever, and /readyz says why. It goes on by itself.
func TestCommandsAreRefusedWhileTheOwnDatabaseCannotBeRead(t *testing.T) {
	t.Parallel()
	store := &absent{}
	h, err := host.New("order", journal.New(store, catalog(t)), &host.Options{Token: token, Log: silent})
	if err != nil {
		t.Fatal(err)
	}
	h.Handle("POST /place", http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	run(t, h, nil)
	until(t, func() bool {
		status, body, retry := fetch(t, http.MethodPost, h.URL()+"/place")
		if status != http.StatusServiceUnavailable || retry == "" {
			t.Fatalf("a command gets %d %s, and is told to come again in %q", status, body, retry)
		}
		return strings.Contains(body, errAbsent.Error())
	}, "a command is refused that says %q", errAbsent)
	if status, body, _ := fetch(t, http.MethodGet, h.URL()+"/readyz"); status != http.StatusServiceUnavailable || !strings.Contains(body, errAbsent.Error()) {
		t.Errorf("readyz: %d %s, want 503 that says %q", status, body, errAbsent)
	}
	store.there.Store(true)
	until(t, func() bool { status, _, _ := commandAt(t, h.Addr(), 1); return status == http.StatusOK }, "commands")
	if status, body, _ := fetch(t, http.MethodGet, h.URL()+"/readyz"); status != http.StatusOK {
		t.Errorf("readyz: %d %s", status, body)
	}
}

func fetch(t *testing.T, method, url string) (status int, body, retry string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(raw), resp.Header.Get("Retry-After")
}
