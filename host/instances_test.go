package host_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/host"
)

// witness is a consumer of order as order asks it. It answers its first questions
// together, when so many have come as there are instances.
type witness struct {
	mu       sync.Mutex
	seen     follow.Seen
	missing  int
	gathered chan struct{}
}

func (c *witness) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	if c.missing--; c.missing == 0 {
		close(c.gathered)
	}
	seen := c.seen
	c.mu.Unlock()
	select {
	case <-c.gathered:
		_ = json.NewEncoder(w).Encode([]follow.Seen{seen}) // who asked has gone
	case <-r.Context().Done():
	}
}

func (c *witness) stands(seen follow.Seen) {
	c.mu.Lock()
	defer c.mu.Unlock()
	seen.Follower, c.seen = "invoices", seen
}

// instances runs two hosts of order at once on a database that was put back behind its
// second order, and a consumer of them, which has applied two more.
func instances(t *testing.T, e engine, at func(lost follow.Seen) follow.Seen) (a, b *process, c *witness, lost follow.Seen) {
	t.Helper()
	orders := func(db database, numbers ...int) (tok freehold.Token) {
		for _, n := range numbers {
			var err error
			if tok, err = db.Append(t.Context(), freehold.Write{Stream: "order-1", Expect: freehold.Any, Events: []freehold.Event{placed{n}}}); err != nil {
				t.Fatal(err)
			}
		}
		return tok
	}
	db := e.open()
	orders(db, 1, 2)
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	e.copy()
	db = e.open()
	lost.Mark = orders(db, 3, 4).Of("order")[0]
	openings, err := db.Journal().Incarnations(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range openings {
		lost.Incarnations = append(lost.Incarnations, o.ID)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	e.restore()

	c = &witness{missing: 2, gathered: make(chan struct{})}
	c.stands(at(lost))
	consumer := httptest.NewServer(c)
	t.Cleanup(consumer.Close)
	first := e.open()
	t.Cleanup(func() { first.Close() })
	second := first
	if e.shared {
		second = e.open()
		t.Cleanup(func() { second.Close() })
	}
	started := func(db database) *process {
		h, err := host.New("order", db.Journal(), &host.Options{Token: token, Consumers: []string{consumer.URL}, Log: silent})
		if err != nil {
			t.Fatal(err)
		}
		h.AskWithin(time.Minute) // whoever answers is heard, on any machine
		takeOrders(h, db)
		return run(t, h, db)
	}
	return started(first), started(second), c, lost
}

// refuses reports whether a host refuses commands because of a fork.
func (p *process) refuses(t *testing.T, n int) bool {
	t.Helper()
	status, body, _ := commandAt(t, p.Addr(), n)
	return status == http.StatusServiceUnavailable && strings.Contains(body, "stopped by a fork") && strings.Contains(body, "freehold adopt")
}

func (p *process) takes(t *testing.T, n int) bool {
	t.Helper()
	status, _, _ := commandAt(t, p.Addr(), n)
	return status == http.StatusOK
}

// Two instances start together on a restored database, and each is told so before the
// other has recorded anything: one fork is recorded, both refuse commands, and both
// take them when the consumer has been told to go on.
func TestInstancesThatStartTogetherRecordOneFork(t *testing.T) {
	for name, on := range engines {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, b, c, _ := instances(t, on(t), func(lost follow.Seen) follow.Seen { return lost })
			refused(t, a.Addr(), 5, "stopped by a fork", "freehold adopt")
			refused(t, b.Addr(), 6, "stopped by a fork", "freehold adopt")
			fork := forksAt(t, a.Addr()).Forks[0]
			for _, p := range []*process{a, b} {
				if f := forksAt(t, p.Addr()); len(f.Forks) != 1 || f.Forks[0].Base.Position != 2 || f.Epoch != fork.Epoch {
					t.Fatalf("forks %+v in epoch %s, want one behind 2", f.Forks, f.Epoch)
				}
			}
			c.stands(follow.Seen{Mark: fork.Base})
			for n, p := range []*process{a, b} {
				until(t, func() bool { return p.takes(t, 7+n) }, "commands")
			}
			if f := forksAt(t, b.Addr()); len(f.Forks) != 1 || f.Forks.Open() {
				t.Errorf("forks %+v, want one that is settled", f.Forks)
			}
		})
	}
}

// One of two instances is told by a reader of its feed that the database went back in
// time. The other one, whom nobody told, refuses commands too; and when an operator of
// that one lets the service go on, the first takes commands as well.
func TestForkThatOneInstanceFindsStopsTheOther(t *testing.T) {
	for name, on := range engines {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a, b, c, lost := instances(t, on(t), func(follow.Seen) follow.Seen { return follow.Seen{} })
			until(t, func() bool { return a.takes(t, 5) }, "commands, for nobody is ahead")
			until(t, func() bool { return b.takes(t, 6) }, "commands, for nobody is ahead")
			c.stands(lost)
			q := url.Values{"after": {"4"}, "chain": {lost.Mark.Chain.String()}, "limit": {"1"}}
			if status := operator(t, http.MethodGet, a.Addr(), "/feed", q, nil); status != http.StatusConflict {
				t.Fatalf("a reader of another history gets %d", status)
			}
			until(t, func() bool { return b.refuses(t, 7) }, "the other one refuses commands")
			refused(t, a.Addr(), 8, "stopped by a fork")
			if f := forksAt(t, b.Addr()); len(f.Forks) != 1 || f.Forks[0].Base.Position != 2 || f.Stopped == nil {
				t.Errorf("forks %+v, want one behind 2", f.Forks)
			}
			if status := operator(t, http.MethodPost, b.Addr(), "/operator/adopt", nil, nil); status != http.StatusOK {
				t.Fatalf("adopt: %d", status)
			}
			for n, p := range []*process{b, a} {
				until(t, func() bool { return p.takes(t, 9+n) }, "commands")
			}
			if f := forksAt(t, a.Addr()); len(f.Forks) != 1 || f.Stopped != nil {
				t.Errorf("forks %+v, want one", f.Forks)
			}
		})
	}
}

// A consumer that answers, but not to the question, is not said to be away: the reason
// says what to do.
func TestConsumerThatRefusesToAnswerIsToldApart(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		answer http.HandlerFunc // nil: nobody listens
		want   []string
	}{
		"has another token":    {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(401) }, []string{"401 Unauthorized", "check the token"}},
		"is of an old version": {http.NotFound, []string{"404 Not Found", "upgrade the consumer"}},
		"is in trouble":        {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) }, []string{"500 Internal Server Error", "see its log"}},
		"is something else":    {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) }, []string{"answers something else", "check its URL"}},
		"is away":              {nil, []string{"cannot be reached", "start it"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			consumer := httptest.NewServer(test.answer)
			t.Cleanup(consumer.Close)
			if test.answer == nil {
				consumer.Close()
			}
			db := onMemory(t).open()
			_, head, err := db.Journal().Bounds(t.Context())
			if err == nil {
				_, err = db.Journal().Fork(t.Context(), nil, head, "for a test")
			}
			if err != nil {
				t.Fatal(err)
			}
			h, err := host.New("order", db.Journal(), &host.Options{Token: token, Consumers: []string{consumer.URL}, Log: silent})
			if err != nil {
				t.Fatal(err)
			}
			h.Own(db)
			takeOrders(h, db)
			run(t, h, db)
			refused(t, h.Addr(), 1, append(test.want, "No answer from "+consumer.URL, "freehold adopt")...)
			if f := forksAt(t, h.Addr()); f.Stopped == nil || len(f.Stopped.Silent) != 1 || !strings.Contains(f.Stopped.Silent[0].Reason, test.want[0]) {
				t.Errorf("stopped %+v", f.Stopped)
			}
		})
	}
}
