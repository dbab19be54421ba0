package nats_test

import (
	"context"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/nats"
	"github.com/freehold-go/freehold/nats/embed"
	"github.com/freehold-go/freehold/outbox"
	"github.com/freehold-go/freehold/transport"
)

// counted counts publications.
type counted struct {
	transport.Publisher
	n atomic.Int64
}

func (c *counted) Publish(ctx context.Context, after freehold.Mark, events []freehold.Recorded) (freehold.Mark, error) {
	c.n.Add(1)
	return c.Publisher.Publish(ctx, after, events)
}

// TestAnEventThatIsTooLargeIsNotTakenForLost: the newest event of a journal is one that
// the broker does not take, and nothing happens for a while.
func TestAnEventThatIsTooLargeIsNotTakenForLost(t *testing.T) {
	inBothWays(t, anEventThatIsTooLargeIsNotTakenForLost)
}

func anEventThatIsTooLargeIsNotTakenForLost(t *testing.T, start func(testing.TB, string) (*embed.Server, *nats.Bus)) {
	_, bus := start(t, filepath.Join(t.TempDir(), "js"))
	db := open(t, "order")
	pub := &counted{Publisher: bus.Publisher("order")}
	relay := outbox.New(db.Journal(), pub, &outbox.Options{Heartbeat: 20 * time.Millisecond, Log: quiet})
	goes(t, relay)
	place := func(n int, actor string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(freehold.WithMeta(t.Context(), freehold.Meta{Actor: actor}), time.Minute)
		defer cancel()
		tok, err := db.Append(ctx, freehold.Write{Stream: "order-1", Expect: freehold.Any, Events: []freehold.Event{Placed{n}}})
		if err == nil {
			err = relay.WaitFor(ctx, tok)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	place(1, "")
	place(2, strings.Repeat("x", 9<<20)) // more than the server takes, however it is sent
	if last, err := bus.Publisher("order").Last(t.Context(), "order"); err != nil || last.Position != 1 {
		t.Fatalf("the broker ends at %v, %v, want what stands before the large event", last, err)
	}
	before := pub.n.Load()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	heads := 0
	err := bus.Subscriber().Subscribe(ctx, "order", freehold.Mark{Source: "order"}, transport.Handler{
		Events: func(context.Context, []freehold.Recorded) error { return nil },
		Head: func(transport.Head) { // the broker is asked behind each
			if heads++; heads == 10 {
				cancel()
			}
		},
	})
	if err != nil || heads < 10 {
		t.Fatalf("%d heads, %v", heads, err)
	}
	place(3, "")
	if n := pub.n.Load() - before; n != 1 {
		t.Errorf("one event was placed, and %d publications were tried", n)
	}
}
