package web

import (
	"encoding/json"
	"net/http"
)

// Handler serves mux, and answers requests for what it does not have with a problem
// like all others.
func Handler(mux *http.ServeMux) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, pattern := mux.Handler(r); pattern != "" {
			mux.ServeHTTP(w, r)
			return
		}
		said := &refusal{header: http.Header{}, status: http.StatusNotFound}
		mux.ServeHTTP(said, r)
		if said.status < 400 { // a redirect to the clean path
			mux.ServeHTTP(w, r)
			return
		}
		if allow := said.header.Get("Allow"); allow != "" {
			w.Header().Set("Allow", allow)
		}
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(said.status)
		_ = json.NewEncoder(w).Encode(map[string]any{ // the reader has gone
			"status": said.status, "title": http.StatusText(said.status), "detail": "see /openapi.json for what there is",
		})
	})
}

// refusal keeps the status and header of an answer.
type refusal struct {
	header http.Header
	status int
}

func (r *refusal) Header() http.Header         { return r.header }
func (r *refusal) WriteHeader(status int)      { r.status = status }
func (r *refusal) Write(b []byte) (int, error) { return len(b), nil }
