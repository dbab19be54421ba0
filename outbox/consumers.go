package outbox

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/journal"
)

// consumerOf returns who asks, if he says so.
func consumerOf(r *http.Request) (string, error) {
	name := r.URL.Query().Get("consumer")
	service, follower, ok := strings.Cut(name, "/")
	if name != "" && (!ok || service == "" || follower == "" || len(name) > 200 || strings.IndexByte(name, 0) >= 0) {
		return "", errors.New("consumer: want the names of a service and its follower, with a slash between, up to 200 bytes")
	}
	return name, nil
}

func listConsumers(j *journal.Journal, w http.ResponseWriter, r *http.Request) {
	all, err := j.Consumers(r.Context())
	if err != nil {
		problem(w, http.StatusServiceUnavailable, err.Error(), nil)
		return
	}
	if all == nil {
		all = []journal.Consumer{}
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(all) // the reader has gone
}

func forgetConsumer(j *journal.Journal, w http.ResponseWriter, r *http.Request) {
	name := r.URL.Query().Get("name")
	if name == "" {
		problem(w, http.StatusBadRequest, "name: want that of a consumer, see GET /feed/consumers", nil)
		return
	}
	if err := j.Unregister(r.Context(), name); err != nil {
		problem(w, http.StatusServiceUnavailable, err.Error(), nil)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// tellEvery is how often a relay tells the journal what the broker holds.
const tellEvery = time.Minute

// tell lets the journal keep what the broker does not hold yet.
func (r *Relay) tell(ctx context.Context) error {
	if !r.asking.TryLock() {
		return nil // next time
	}
	held := r.held
	r.asking.Unlock()
	if held == (freehold.Mark{}) || held == r.told || time.Since(r.toldAt) < tellEvery {
		return nil
	}
	err := r.journal.Register(ctx, r.Name(), held)
	if err == nil {
		r.told, r.toldAt = held, time.Now()
	}
	return err
}
