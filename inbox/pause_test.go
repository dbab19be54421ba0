package inbox_test

import (
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/inbox"
	"github.com/freehold-go/freehold/memory"
	"github.com/freehold-go/freehold/transport"
)

// teller is a broker that delivers nothing, and tells the heads that it is given.
type teller chan transport.Head

func (b teller) Subscribe(ctx context.Context, _ freehold.Source, _ freehold.Mark, h transport.Handler) error {
	for {
		select {
		case head := <-b:
			h.Head(head)
		case <-ctx.Done():
			return nil
		}
	}
}

// TestAHeadThatTheFeedDoesNotHaveIsAskedForNowAndThen: a head may be told before every
// instance that serves the feed knows of it, or by somebody who made it up.
func TestAHeadThatTheFeedDoesNotHaveIsAskedForNowAndThen(t *testing.T) {
	t.Parallel()
	s := newSender(t, memory.NewDisk())
	var asked atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		s.Config.Handler.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	broker := teller(make(chan transport.Head))
	src, err := inbox.Remote("order", server.URL+"/feed", catalog(t), &inbox.Options{Subscriber: broker, Silence: time.Minute, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	run(t, src)
	db := own(t)
	f := receiver(t, db, src)
	tell := func(beyond freehold.Position) {
		t.Helper()
		_, head, err := s.db.Journal().Bounds(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		incarnations, err := s.db.Journal().Incarnations(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		head.Position += beyond
		broker <- transport.Head{Mark: head, Incarnation: incarnations[len(incarnations)-1].ID}
	}
	tok := s.place(t, 1)
	tell(0)
	wait(t, f, tok)
	for n := range 2 {
		tell(100)
		before := asked.Load()
		<-time.After(300 * time.Millisecond)
		if times := asked.Load() - before; times < 2 || times > 12 {
			t.Errorf("the feed was asked %d times in 300 ms", times)
		}
		begun := time.Now()
		wait(t, f, s.place(t, 2+n))
		if took := time.Since(begun); took > 10*time.Second {
			t.Errorf("an event that came meanwhile took %s", took)
		}
	}
}
