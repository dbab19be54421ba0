package inbox_test

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/inbox"
	"github.com/freehold-go/freehold/memory"
)

// damaging is a feed on whose way one text becomes another.
func damaging(t *testing.T, s *sender, from, to string) *httptest.Server {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer := httptest.NewRecorder()
		s.Config.Handler.ServeHTTP(answer, r)
		for name, values := range answer.Header() {
			w.Header()[name] = values
		}
		w.WriteHeader(answer.Code)
		_, _ = w.Write(bytes.ReplaceAll(answer.Body.Bytes(), []byte(from), []byte(to))) // the reader has gone
	}))
	t.Cleanup(server.Close)
	return server
}

// TestADamagedEventOnTheFirstPageIsNotRead: a reader without a place of its own has no
// chain value to compare the first event with, but every event has a digest.
func TestADamagedEventOnTheFirstPageIsNotRead(t *testing.T) {
	t.Parallel()
	s := newSender(t, memory.NewDisk())
	s.place(t, 1, 2, 3, 4)
	rs, err := s.db.Journal().Read(t.Context(), freehold.Mark{Source: "order"}, 100)
	if err != nil {
		t.Fatal(err)
	}
	for name, after := range map[string]freehold.Mark{
		"from the beginning":           {Source: "order"},
		"from a place":                 rs[3].At,
		"from a place without a chain": {Source: "order", Position: 4},
	} {
		for from, to := range map[string]string{
			`{"n":3}`:               `{"n":6}`,
			rs[5].At.Chain.String(): rs[4].At.Chain.String(),
			rs[5].Digest.String():   rs[4].Digest.String(),
			`"sequence":"6"`:        `"sequence":"7"`,
			`"nonce":"`:             `"nonce":"00`,
			`"subject":"order-3"`:   `"subject":"order-4"`,
		} {
			server := damaging(t, s, from, to)
			src, err := inbox.Remote("order", server.URL+"/feed", catalog(t), nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, _, err := src.Bounds(t.Context()); err != nil {
				t.Fatal(err)
			}
			if rs, err := src.Read(t.Context(), after, 100); err == nil {
				t.Errorf("%s: %d events are read of a feed where %s became %s", name, len(rs), from, to)
			}
		}
		src := remote(t, s, nil)
		if _, _, err := src.Bounds(t.Context()); err != nil {
			t.Fatal(err)
		}
		if rs, err := src.Read(t.Context(), after, 100); err != nil || len(rs) != 8-int(after.Position) {
			t.Errorf("%s: %d events, %v of a feed that is whole", name, len(rs), err)
		}
	}
}

// TestAFollowerDoesNotApplyADamagedEvent is what the one above is for.
func TestAFollowerDoesNotApplyADamagedEvent(t *testing.T) {
	t.Parallel()
	s := newSender(t, memory.NewDisk())
	s.place(t, 1, 2, 3)
	src, err := inbox.Remote("order", damaging(t, s, `{"n":3}`, `{"n":6}`).URL+"/feed", catalog(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	db := own(t)
	f := receiver(t, db, src)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for { // each status asks the source
		status := f.Status(ctx)[0]
		if status.Mark.Position >= 6 || ctx.Err() != nil {
			t.Fatalf("applied %s: %+v", seen(t, db), status)
		}
		if strings.Contains(status.Error, "does not follow") {
			break
		}
	}
	if got := seen(t, db); got != "" {
		t.Errorf("applied %s of a page that is damaged", got)
	}
}
