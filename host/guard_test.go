package host_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/host"
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
