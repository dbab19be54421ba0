package host_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/host"
	"github.com/freehold-go/freehold/journal"
)

// A command that does not wait is not taken as long as the consumer has not told where
// it stands, whatever it tells then; and is, behind that.
func TestNoCommandIsTakenBeforeConsumersWereAsked(t *testing.T) {
	t.Parallel()
	asked, tell := make(chan struct{}, 1), make(chan struct{})
	consumer := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case asked <- struct{}{}:
		default:
		}
		select {
		case <-tell:
			_ = json.NewEncoder(w).Encode([]follow.Seen{})
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(consumer.Close)
	db := onMemory(t).open()
	h, err := host.New("order", db.Journal(), &host.Options{Token: token, Consumers: []string{consumer.URL}, Log: silent})
	if err != nil {
		t.Fatal(err)
	}
	h.AskWithin(wait)
	h.Own(db)
	taken := 0
	h.Handle("POST /place", http.HandlerFunc(func(http.ResponseWriter, *http.Request) { taken++ }))
	run(t, h, db)
	impatient, cancel := context.WithCancel(t.Context())
	cancel()
	place := func() {
		h.Handler().ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(impatient, http.MethodPost, "/place", nil))
	}
	<-asked
	if place(); taken != 0 {
		t.Fatal("a command is taken before the consumer has told where it stands")
	}
	close(tell)
	until(t, func() bool { place(); return taken == 1 }, "a command is taken")
}

// A service that takes commands is told that its database went back in time. No command
// passes any more from the proof on, so that none is answered with a token of the epoch
// that is about to end.
func TestNoCommandPassesBetweenTheProofOfAForkAndItsRecord(t *testing.T) {
	t.Parallel()
	c := &witness{missing: 1, gathered: make(chan struct{})}
	c.stands(follow.Seen{})
	consumer := httptest.NewServer(c)
	t.Cleanup(consumer.Close)
	db := onMemory(t).open()
	h, err := host.New("order", db.Journal(), &host.Options{Token: token, Consumers: []string{consumer.URL}, Log: silent})
	if err != nil {
		t.Fatal(err)
	}
	h.AskWithin(wait)
	h.Own(db)
	takeOrders(h, db)
	between := make(chan int, 1)
	h.Proved(func() {
		w := httptest.NewRecorder()
		h.Handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/place?n=2", nil))
		between <- w.Code
	})
	if p := run(t, h, db); !p.takes(t, 1) {
		t.Fatal("a command is refused while nobody is ahead")
	}
	_, head, err := db.Journal().Bounds(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	lost := freehold.Mark{Source: "order", Epoch: head.Epoch, Position: 7, Chain: head.Chain}
	c.stands(follow.Seen{Mark: lost, Incarnations: []string{journal.NewEpoch()}})
	q := url.Values{"after": {"7"}, "chain": {lost.Chain.String()}, "limit": {"1"}}
	if status := operator(t, http.MethodGet, h.Addr(), "/feed", q, nil); status != http.StatusConflict {
		t.Fatalf("a reader of another history gets %d", status)
	}
	if status := <-between; status != http.StatusServiceUnavailable {
		t.Errorf("a command gets %d between the proof of a fork and its record", status)
	}
	refused(t, h.Addr(), 3, "stopped by a fork", "freehold adopt")
}
