package host

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/journal"
)

// Token reads the operator's token from a file, or makes one and stores it with
// mode 0600. Processes that start at the same time get the same token.
func Token(path string) (string, error) {
	token, err := readToken(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return token, err
	}
	var b [24]byte
	rand.Read(b[:])
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*") // with mode 0600
	if err != nil {
		return "", fmt.Errorf("host: token: %w", err)
	}
	_, err = f.WriteString(hex.EncodeToString(b[:]) + "\n")
	if err = errors.Join(err, f.Close()); err == nil {
		// A link, unlike a rename, never replaces the token that another process made.
		err = os.Link(f.Name(), path)
	}
	if err = errors.Join(err, os.Remove(f.Name())); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("host: token: %w", err)
	}
	return readToken(path)
}

func readToken(path string) (string, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("host: token: %w", err)
	}
	if token := strings.TrimSpace(string(raw)); len(token) >= 32 {
		return token, nil
	}
	return "", fmt.Errorf("host: %s holds no token: delete it, a new one is made at the next start", path)
}

// HandleOperator serves a pattern of net/http to those who have the operator's token.
func (h *Host) HandleOperator(pattern string, handler http.Handler) {
	h.mux.Handle(pattern, h.guarded(handler))
}

// guarded lets only requests with the token through.
func (h *Host) guarded(next http.Handler) http.Handler {
	want := []byte("Bearer " + h.opts.Token)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got := []byte(r.Header.Get("Authorization"))
		if h.opts.Token == "" || subtle.ConstantTimeCompare(got, want) != 1 {
			w.Header().Set("WWW-Authenticate", "Bearer")
			answer(w, http.StatusUnauthorized, map[string]any{"status": 401, "title": "Unauthorized", "detail": "send the operator's token: Authorization: Bearer <token>"})
			return
		}
		next.ServeHTTP(w, r)
	})
}

func answer(w http.ResponseWriter, status int, body any) {
	contentType := "application/json"
	if status >= 400 {
		contentType = "application/problem+json"
	}
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the reader has gone
}

func refuse(w http.ResponseWriter, status int, err error) {
	answer(w, status, map[string]any{"status": status, "title": http.StatusText(status), "detail": err.Error()})
}

func (h *Host) operatorEndpoints() {
	handle := func(pattern string, fn http.HandlerFunc) { h.mux.Handle(pattern, h.guarded(fn)) }
	handle("GET /operator/followers", func(w http.ResponseWriter, r *http.Request) {
		answer(w, http.StatusOK, h.statuses(r.Context()))
	})
	handle("GET /operator/audit", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, h.opts.Audit) })
	handle("GET /operator/parked", h.listParked)
	handle("POST /operator/parked/{action}", h.actOnParked)
	handle("GET /operator/marks", h.listMarks)
	handle("GET /operator/forks", h.listForks)
	handle("POST /operator/adopt", func(w http.ResponseWriter, r *http.Request) { h.decide(w, r, follow.Adopted) })
	handle("POST /operator/keep", func(w http.ResponseWriter, r *http.Request) { h.decide(w, r, follow.Kept) })
	handle("POST /operator/skip", func(w http.ResponseWriter, r *http.Request) { h.decide(w, r, follow.Skipped) })
	handle("GET /operator/streams", h.listStreams)
	handle("GET /operator/streams/{stream}", h.readStream)
	handle("GET /operator/verify", func(w http.ResponseWriter, r *http.Request) {
		at, err := h.journal.Verify(r.Context(), freehold.Mark{}, nil)
		switch {
		case errors.Is(err, freehold.ErrUnavailable): // which says nothing about the journal
			refuse(w, http.StatusServiceUnavailable, err)
			return
		case err != nil:
			refuse(w, http.StatusInternalServerError, err)
			return
		}
		answer(w, http.StatusOK, at)
	})
}

func (h *Host) statuses(ctx context.Context) []follow.Status {
	all := []follow.Status{}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	for _, r := range h.runners {
		if f, ok := r.Runner.(follower); ok {
			all = append(all, h.seen(r, f.Status(ctx))...)
		}
	}
	return all
}

// listParked serves what all followers have parked, or the one of ?follower=.
func (h *Host) listParked(w http.ResponseWriter, r *http.Request) {
	all, asked := []follow.Parked{}, h.followers()
	if r.FormValue("follower") != "" {
		f, err := h.follower(r)
		if err != nil {
			refuse(w, http.StatusNotFound, err)
			return
		}
		asked = []follower{f}
	}
	for _, f := range asked {
		some, err := f.Parked(r.Context(), 1000)
		if err != nil {
			refuse(w, http.StatusServiceUnavailable, err)
			return
		}
		all = append(all, some...)
	}
	answer(w, http.StatusOK, all)
}

// actOnParked serves retry and release of ?follower=&source=&key=.
func (h *Host) actOnParked(w http.ResponseWriter, r *http.Request) {
	f, err := h.follower(r)
	if err != nil {
		refuse(w, http.StatusNotFound, err)
		return
	}
	source, key := freehold.Source(r.FormValue("source")), r.FormValue("key")
	switch r.PathValue("action") {
	case "retry":
		err = f.Retry(r.Context(), source, key)
	case "release":
		err = f.Release(r.Context(), source, key)
	default:
		http.NotFound(w, r)
		return
	}
	switch {
	case errors.Is(err, follow.ErrNotParked):
		refuse(w, http.StatusNotFound, err)
	case err != nil:
		refuse(w, http.StatusConflict, err)
	default:
		answer(w, http.StatusOK, map[string]string{"released": key})
	}
}

func (h *Host) follower(r *http.Request) (follower, error) {
	name, has := r.FormValue("follower"), []string{}
	for _, f := range h.followers() {
		if f.Name() == name {
			return f, nil
		}
		has = append(has, f.Name())
	}
	return nil, fmt.Errorf("%s has no follower %q: it has %s", h.name, name, cmp.Or(strings.Join(has, ", "), "none"))
}

func (h *Host) listStreams(w http.ResponseWriter, r *http.Request) {
	limit, err := strconv.Atoi(r.FormValue("limit"))
	if err != nil || limit < 1 || limit > 1000 {
		limit = 100
	}
	all, err := h.journal.Streams(r.Context(), freehold.StreamID(r.FormValue("after")), limit)
	if err != nil {
		refuse(w, http.StatusServiceUnavailable, err)
		return
	}
	if all == nil {
		all = []journal.StreamInfo{}
	}
	answer(w, http.StatusOK, all)
}

func (h *Host) readStream(w http.ResponseWriter, r *http.Request) {
	all := []map[string]any{}
	for rec, err := range h.journal.Stream(r.Context(), freehold.StreamID(r.PathValue("stream")), 0) {
		if err != nil {
			refuse(w, http.StatusServiceUnavailable, err)
			return
		}
		all = append(all, map[string]any{"position": rec.At.Position, "version": rec.Version, "type": rec.Type.String(), "time": rec.Time,
			"meta": rec.Meta, "internal": rec.Internal, "data": json.RawMessage(rec.Raw)})
	}
	answer(w, http.StatusOK, all)
}

// healthz says that the process serves.
func (h *Host) healthz(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusOK, map[string]string{"status": "ok"})
}

// readyz says whether everything runs, and what does not.
func (h *Host) readyz(w http.ResponseWriter, r *http.Request) {
	problems := []string{}
	h.mu.Lock()
	for name, err := range h.failed {
		problems = append(problems, name+": "+err.Error())
	}
	h.mu.Unlock()
	if problem, _ := h.guard.problem(); problem != "" {
		problems = append(problems, problem)
	}
	for _, st := range h.statuses(r.Context()) {
		if st.Stalled || st.State == follow.Diverged || st.State == follow.Failed {
			problems = append(problems, fmt.Sprintf("%s follows %s: %s, %d behind: %s", st.Follower, st.Source, st.State, st.Lag, st.Error))
		}
	}
	if len(problems) > 0 {
		answer(w, http.StatusServiceUnavailable, map[string]any{"status": 503, "title": "not ready", "problems": problems})
		return
	}
	answer(w, http.StatusOK, map[string]any{"status": "ready"})
}
