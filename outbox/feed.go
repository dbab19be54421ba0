package outbox

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/journal"
	"github.com/freehold-go/freehold/transport"
)

// Headers of a feed answer: the place before the first event there is, the durable
// head, and what identifies the history.
const (
	HeaderFirst      = "Freehold-First"
	HeaderFirstChain = "Freehold-First-Chain"
	HeaderHead       = "Freehold-Head"
	HeaderHeadChain  = "Freehold-Head-Chain"
	HeaderEpoch      = "Freehold-Epoch"
)

// MaxPage is how many events an answer of the feed has at most, and MaxWait how
// long it waits for news.
const (
	MaxPage = 1000
	MaxWait = 30 * time.Second
)

// Feed serves a journal: GET /feed?after=<position>&limit=<n> answers with the
// events behind a position as lines of CloudEvents JSON, about limit of them
// (100), ending at a transaction boundary. &chain=<hex> says which chain value the
// reader has at its position; &wait=<seconds> waits for news at the head. Status
// 409 means that the history is another one or ends before the position, 410
// that the events have been archived, and tells the first position there is. A reader
// that has to have every event names itself: &consumer=<service>/<follower> says that
// it has applied everything up to after, so that what stands behind is not cut before
// it has told a higher position or is forgotten; once a minute is often enough. GET
// /feed/consumers lists them and the service's own followers, first who keeps most.
// DELETE /feed/consumers?name= forgets a consumer; with &retired=true, an own follower
// that is gone for good: 409 if it is not said, 404 if there is none. GET
// /feed/incarnations lists the openings of the journal, and GET /feed/forks its
// forks. Nothing beyond the durable head is ever served, and internal
// events are placeholders. The caller guards it.
func Feed(j *journal.Journal) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /feed", func(w http.ResponseWriter, r *http.Request) { serveFeed(j, w, r) })
	mux.HandleFunc("GET /feed/incarnations", func(w http.ResponseWriter, r *http.Request) {
		all, err := j.Incarnations(r.Context())
		if err != nil {
			problem(w, http.StatusServiceUnavailable, err.Error(), nil)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(all) // the reader has gone
	})
	mux.HandleFunc("GET /feed/forks", func(w http.ResponseWriter, r *http.Request) {
		all, err := j.Forks(r.Context())
		if err != nil {
			problem(w, http.StatusServiceUnavailable, err.Error(), nil)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(append(journal.Forks{}, all...)) // the reader has gone
	})
	mux.HandleFunc("GET /feed/consumers", func(w http.ResponseWriter, r *http.Request) { listConsumers(j, w, r) })
	mux.HandleFunc("DELETE /feed/consumers", func(w http.ResponseWriter, r *http.Request) { forgetConsumer(j, w, r) })
	return mux
}

func serveFeed(j *journal.Journal, w http.ResponseWriter, r *http.Request) {
	after, limit, wait, chain, err := feedQuery(r)
	if err != nil {
		problem(w, http.StatusBadRequest, err.Error(), nil)
		return
	}
	ctx := r.Context()
	consumer, err := consumerOf(r)
	if err != nil {
		problem(w, http.StatusBadRequest, err.Error(), nil)
		return
	}
	if chain != nil || after > 0 || consumer != "" {
		at, err := j.At(ctx, after)
		if err == nil && chain != nil && at.Chain != *chain {
			err = freehold.ErrDiverged
		}
		if err == nil && consumer != "" {
			err = j.Register(ctx, consumer, at)
		}
		if err != nil {
			refuse(j, w, ctx, after, err)
			return
		}
	}
	place := freehold.Mark{Source: j.Name(), Position: after}
	if wait > 0 {
		waitCtx, cancel := context.WithTimeout(ctx, wait)
		err := j.Wait(waitCtx, place)
		cancel()
		if err != nil && waitCtx.Err() == nil {
			problem(w, http.StatusServiceUnavailable, err.Error(), nil)
			return
		}
	}
	var events []freehold.Recorded
	if limit > 0 {
		if events, err = j.Read(ctx, place, limit); err != nil {
			refuse(j, w, ctx, after, err)
			return
		}
	}
	if !heads(j, w, ctx, limit == 0) {
		return
	}
	w.Header().Set("Content-Type", transport.PageType)
	line := make([]byte, 0, 1024)
	for i := range events {
		line = append(transport.AppendJSON(line[:0], &events[i]), '\n')
		if _, err := w.Write(line); err != nil {
			return // the reader has gone
		}
	}
}

// heads sets the headers that say where the journal stands. Who asks for nothing else
// compares his place with them, so then they are those of the database.
func heads(j *journal.Journal, w http.ResponseWriter, ctx context.Context, fresh bool) bool {
	bounds := j.Bounds
	if fresh {
		bounds = j.Fresh
	}
	first, head, err := bounds(ctx)
	if err != nil {
		problem(w, http.StatusServiceUnavailable, err.Error(), nil)
		return false
	}
	h := w.Header()
	h.Set(HeaderFirst, strconv.FormatInt(int64(first.Position), 10))
	h.Set(HeaderFirstChain, first.Chain.String())
	h.Set(HeaderHead, strconv.FormatInt(int64(head.Position), 10))
	h.Set(HeaderHeadChain, head.Chain.String())
	h.Set(HeaderEpoch, string(head.Epoch))
	return true
}

func feedQuery(r *http.Request) (after freehold.Position, limit int, wait time.Duration, chain *freehold.Hash, err error) {
	q := r.URL.Query()
	number := func(name string, fallback, most int64) int64 {
		text := q.Get(name)
		if text == "" {
			return fallback
		}
		n, parseErr := strconv.ParseInt(text, 10, 64)
		if parseErr != nil || n < 0 {
			err = errors.New(name + ": want a number from 0")
		}
		return min(n, most)
	}
	after = freehold.Position(number("after", 0, 1<<62))
	limit = int(number("limit", 100, MaxPage))
	wait = time.Duration(number("wait", 0, int64(MaxWait/time.Second))) * time.Second
	if text := q.Get("chain"); text != "" {
		chain = new(freehold.Hash)
		if chainErr := chain.UnmarshalText([]byte(text)); chainErr != nil {
			err = errors.New("chain: want 64 hexadecimal digits")
		}
	}
	return after, limit, wait, chain, err
}

func refuse(j *journal.Journal, w http.ResponseWriter, ctx context.Context, after freehold.Position, err error) {
	first, head, boundsErr := j.Bounds(ctx)
	more := map[string]any{"first": first.Position, "head": head.Position}
	switch {
	case boundsErr != nil:
		problem(w, http.StatusServiceUnavailable, boundsErr.Error(), nil)
	case errors.Is(err, freehold.ErrDiverged):
		problem(w, http.StatusConflict, "this journal's history is not the one that led to your position", more)
	case errors.Is(err, freehold.ErrGone):
		problem(w, http.StatusGone, journal.Gone(j.Name(), after, first.Position).Error(), more)
	default:
		problem(w, http.StatusServiceUnavailable, err.Error(), nil)
	}
}

// problem answers in the form of RFC 9457.
func problem(w http.ResponseWriter, status int, detail string, more map[string]any) {
	body := map[string]any{"status": status, "title": http.StatusText(status), "detail": strings.TrimPrefix(detail, "freehold: ")}
	for k, v := range more {
		body[k] = v
	}
	w.Header().Set("Content-Type", "application/problem+json")
	if status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the reader has gone
}
