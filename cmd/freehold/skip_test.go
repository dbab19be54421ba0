package main_test

import (
	"context"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/host"
	"github.com/freehold-go/freehold/inbox"
	"github.com/freehold-go/freehold/kv"
	"github.com/freehold-go/freehold/memory"
	"github.com/freehold-go/freehold/outbox"
)

// A new follower needs events that its source has cut: an operator sees so, and lets it
// begin behind them.
func TestFollowerSkipsWhatWasCut(t *testing.T) {
	t.Parallel()
	quiet := slog.New(slog.DiscardHandler)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	types, err := freehold.NewCatalog(freehold.JSON[placed]())
	must(err)
	orders, err := memory.Open(t.Context(), "orders", types, &memory.Options{Log: quiet})
	must(err)
	t.Cleanup(func() { orders.Close() })
	var tok freehold.Token
	for n := range 3 {
		tok, err = orders.Append(t.Context(), freehold.Write{Stream: "order-1", Expect: freehold.Any, Events: []freehold.Event{placed{n}}})
		must(err)
	}
	cut, err := orders.Journal().At(t.Context(), 2)
	must(err)
	// A feed of orders as if its first two events had been cut.
	var old atomic.Bool // by a program that does not tell the chain value there
	feed := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("after") == "0" && r.FormValue("limit") != "0" {
			w.WriteHeader(http.StatusGone)
			return
		}
		told := httptest.NewRecorder()
		outbox.Feed(orders.Journal()).ServeHTTP(told, r)
		maps.Copy(w.Header(), told.Header())
		w.Header().Set(outbox.HeaderFirst, "2")
		w.Header().Set(outbox.HeaderFirstChain, cut.Chain.String())
		if old.Load() {
			w.Header().Del(outbox.HeaderFirstChain)
		}
		w.WriteHeader(told.Code)
		_, _ = w.Write(told.Body.Bytes())
	}))
	t.Cleanup(feed.Close)

	own, err := memory.Open(t.Context(), "billing", types, &memory.Options{Log: quiet})
	must(err)
	source, err := inbox.Remote("orders", feed.URL+"/feed", types, nil)
	must(err)
	var applied atomic.Int64
	invoices, err := follow.New("invoices", own, []follow.Source{source}, &follow.Options{Log: quiet},
		follow.On(func(_ context.Context, _ kv.Tx, e placed, _ freehold.Recorded) error {
			applied.Add(1)
			return nil
		}))
	must(err)
	h, err := host.New("billing", own.Journal(), &host.Options{Token: token, Log: quiet})
	must(err)
	h.Own(own)
	h.Go("invoices", invoices)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- h.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	billing := operatorOf(t, h.URL())

	cutAway := func(out string) bool { return strings.Contains(out, "has cut") }
	prints(t, billing.until(1, cutAway, "forks"), "billing is at epoch OLD\ninvoices is stopped: it has not applied orders:1 to 2, which orders has cut\n")
	says(t, billing.run(1, "skip"), "name the follower and the source")
	says(t, billing.run(1, "adopt", "invoices", "orders"), "409", "events 1 to 2 of orders, which were cut: nothing to adopt, but to skip")
	old.Store(true)
	says(t, billing.run(1, "skip", "invoices", "orders"), "409", "does not tell its hash at 2", "upgrade it")
	says(t, billing.run(1, "forks"), "invoices is stopped:", "upgrade it")
	old.Store(false)
	prints(t, billing.run(0, "skip", "invoices", "orders"), "invoices goes on behind orders:2; what it skipped is on record\n")
	must(invoices.WaitFor(t.Context(), tok))
	if n := applied.Load(); n != 1 {
		t.Errorf("%d events are applied, want the last of three", n)
	}
	prints(t, billing.run(0, "forks"), "billing is at epoch OLD\nTIME skip invoices orders:1 to 2 not applied\n")
	says(t, billing.run(1, "skip", "invoices", "orders"), "409", "nothing to skip")
}
