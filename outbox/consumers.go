package outbox

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
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
	forget, nobody := j.Unregister, "nobody of that name keeps events here"
	switch retired := r.URL.Query().Get("retired"); retired {
	case "":
	case "true":
		forget, nobody = j.Retire, "no follower of this service itself has that name"
	default:
		problem(w, http.StatusBadRequest, "retired: want true, or leave it out", nil)
		return
	}
	switch err := forget(r.Context(), name); {
	case err == nil:
		w.WriteHeader(http.StatusNoContent)
	case errors.Is(err, journal.ErrNoConsumer):
		problem(w, http.StatusNotFound, nobody+", see GET /feed/consumers", nil)
	case errors.Is(err, journal.ErrOwnFollower):
		problem(w, http.StatusConflict, name+" is a follower of this service itself, and has applied what its mark says: start it, or if it is gone for good say DELETE /feed/consumers?name="+url.QueryEscape(name)+"&retired=true", nil)
	default:
		problem(w, http.StatusServiceUnavailable, err.Error(), nil)
	}
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
