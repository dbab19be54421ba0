package host_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/host"
	"github.com/freehold-go/freehold/inbox"
	"github.com/freehold-go/freehold/internal/testdb"
	"github.com/freehold-go/freehold/journal"
	"github.com/freehold-go/freehold/nats"
	"github.com/freehold-go/freehold/nats/embed"
	"github.com/freehold-go/freehold/outbox"
	"github.com/freehold-go/freehold/sqldb"
	"github.com/freehold-go/freehold/sqlite"
	"github.com/freehold-go/freehold/transport"
)

func TestMain(m *testing.M) { os.Exit(testdb.Main(m)) }

// client keeps no connections: a service that is started anew has its old address.
var client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: wait}

const token = "0123456789abcdef0123456789abcdef"

var silent = slog.New(slog.DiscardHandler)

type placed struct {
	N int `json:"n"`
}

func (placed) EventType() freehold.Type { return freehold.T("order.placed", 1) }

func catalog(t *testing.T) *freehold.Catalog {
	t.Helper()
	c, err := freehold.NewCatalog(freehold.JSON[placed]())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// database is what order needs of an engine.
type database interface {
	Append(ctx context.Context, writes ...freehold.Write) (freehold.Token, error)
	Journal() *journal.Journal
	io.Closer
}

// process is a running host.
type process struct {
	*host.Host
	db   database
	stop func()
	done <-chan struct{} // closed when it has ended
}

// site is two services: order, which takes commands, and billing, which follows it.
type site struct {
	t              *testing.T
	bus            *nats.Bus
	orderAt        string // the address of order, the same at each start
	billingAt      string
	opened         func() database // opens order's database
	dir            string
	order, billing *process
	invoiced       *sqlite.DB // billing's database
	late           *lateBroker
	alone          bool // order is told of no consumers
}

func newSite(t *testing.T, opened func() database) *site {
	t.Helper()
	s := &site{t: t, dir: t.TempDir(), opened: opened}
	server, err := embed.Start(filepath.Join(s.dir, "broker"), &embed.Options{Log: silent})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	if s.bus, err = nats.Connect(t.Context(), "", &nats.Options{Server: server, Log: silent}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.bus.Close() })
	return s
}

// run runs a host until its stop is called, or the test ends.
func run(t *testing.T, h *host.Host, db database) *process {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	done := make(chan struct{})
	go func() { ended <- h.Run(ctx); close(done) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil && !errors.Is(err, freehold.ErrLatched) {
			t.Errorf("host: %v", err)
		}
	})
	t.Cleanup(stop)
	return &process{h, db, stop, done}
}

func (s *site) startOrder() {
	s.t.Helper()
	db := s.opened()
	var consumers []string
	if !s.alone {
		consumers = append(consumers, "http://"+s.billingAddr())
	}
	h, err := host.New("order", db.Journal(), &host.Options{Addr: s.orderAt, Token: token, Consumers: consumers, Log: silent})
	if err != nil {
		s.t.Fatal(err)
	}
	h.AskWithin(time.Minute) // whoever answers is heard, on any machine
	h.Own(db)
	h.GoSingle("relay", outbox.New(db.Journal(), s.broker(), &outbox.Options{Heartbeat: 50 * time.Millisecond, Log: silent}))
	takeOrders(h, db)
	s.order = run(s.t, h, db)
	s.orderAt = h.Addr()
}

// takeOrders has order's host take commands.
func takeOrders(h *host.Host, db database) {
	h.Handle("POST /place", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, err := strconv.Atoi(r.FormValue("n"))
		if err == nil {
			var tok freehold.Token
			tok, err = db.Append(r.Context(), freehold.Write{Stream: freehold.Stream("order", r.FormValue("n")), Expect: freehold.Any, Events: []freehold.Event{placed{n}}})
			w.Header().Set("Consistency-Token", tok.String())
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		}
	}))
}

// billingAddr is the address of billing, chosen before it starts.
func (s *site) billingAddr() string {
	if s.billingAt == "" {
		l, err := host.Listen("billing", "")
		if err != nil {
			s.t.Fatal(err)
		}
		s.billingAt = l.Addr().String()
		l.Close()
	}
	return s.billingAt
}

func (s *site) startBilling() {
	s.t.Helper()
	db, err := sqlite.Open(s.t.Context(), filepath.Join(s.dir, "billing.db"), "billing", catalog(s.t), &sqlite.Options{Log: silent})
	if err != nil {
		s.t.Fatal(err)
	}
	orders, err := inbox.Remote("order", "http://"+s.orderAt+"/feed", catalog(s.t), &inbox.Options{Token: token, Subscriber: s.bus.Subscriber(), Silence: 200 * time.Millisecond, Log: silent})
	if err != nil {
		s.t.Fatal(err)
	}
	f, err := follow.New("invoices", db, []follow.Source{orders}, &follow.Options{MaxPause: 20 * time.Millisecond, Log: silent},
		follow.On(func(ctx context.Context, tx sqldb.Tx, e placed, _ freehold.Recorded) error {
			_, err := tx.ExecContext(ctx, `CREATE TABLE IF NOT EXISTS invoice (n INTEGER NOT NULL)`)
			if err == nil {
				_, err = tx.ExecContext(ctx, `INSERT INTO invoice (n) VALUES ($1)`, e.N)
			}
			return err
		}))
	if err != nil {
		s.t.Fatal(err)
	}
	h, err := host.New("billing", db.Journal(), &host.Options{Addr: s.billingAddr(), Token: token, Log: silent})
	if err != nil {
		s.t.Fatal(err)
	}
	s.invoiced = db
	h.Own(db)
	h.Go("orders", orders)
	h.GoSingle("invoices", f)
	s.billing = run(s.t, h, db)
}

// place sends commands to order, which takes them when it has asked the others.
func (s *site) place(numbers ...int) (tokens []string) {
	s.t.Helper()
	for _, n := range numbers {
		s.until(func() bool {
			status, body, tok := s.command(n)
			if status == http.StatusOK {
				tokens = append(tokens, tok)
			} else if !strings.Contains(body, "nobody could be asked yet") {
				s.t.Fatalf("order %d: %d %s", n, status, body)
			}
			return status == http.StatusOK
		}, "order %d is placed", n)
	}
	return tokens
}

// refused waits until a command is refused with a text, and fails if one is taken.
func refused(t *testing.T, at string, n int, texts ...string) {
	t.Helper()
	until(t, func() bool {
		status, body, _ := commandAt(t, at, n)
		if status != http.StatusServiceUnavailable {
			t.Fatalf("a command gets %d %s, want that it is refused", status, body)
		}
		return !slices.ContainsFunc(texts, func(text string) bool { return !strings.Contains(body, text) })
	}, "a command is refused that says %q", texts)
}

func (s *site) command(n int) (status int, body, tok string) {
	s.t.Helper()
	return commandAt(s.t, s.orderAt, n)
}

func commandAt(t *testing.T, at string, n int) (status int, body, tok string) {
	t.Helper()
	resp, err := client.Post("http://"+at+"/place?n="+strconv.Itoa(n), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(raw), resp.Header.Get("Consistency-Token")
}

// invoices lists what billing has done, in order.
func (s *site) invoices() (all []int) {
	s.t.Helper()
	err := s.invoiced.View(s.t.Context(), func(ctx context.Context, tx sqldb.Tx) error {
		all = nil
		rows, err := tx.QueryContext(ctx, `SELECT n FROM invoice ORDER BY rowid`)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var n int
			if err := rows.Scan(&n); err != nil {
				return err
			}
			all = append(all, n)
		}
		return rows.Err()
	})
	if err != nil && !strings.Contains(err.Error(), "no such table") {
		s.t.Fatal(err)
	}
	return all
}

func (s *site) wantInvoices(want ...int) {
	s.t.Helper()
	s.until(func() bool { return len(s.invoices()) >= len(want) }, "invoices %v", want)
	got := s.invoices()
	if len(got) != len(want) {
		s.t.Fatalf("invoices %v, want %v", got, want)
	}
	for i := range want {
		if got[i] != want[i] {
			s.t.Fatalf("invoices %v, want %v", got, want)
		}
	}
}

func (s *site) until(ok func() bool, what string, args ...any) {
	s.t.Helper()
	until(s.t, ok, what, args...)
}

const wait = time.Minute // a state that does not come

func until(t *testing.T, ok func() bool, what string, args ...any) {
	t.Helper()
	for end := time.Now().Add(wait); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("did not happen: "+what, args...)
		}
	}
}

// operator asks an operator's endpoint.
func operator(t *testing.T, method, at, path string, q url.Values, out any) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+at+path+"?"+q.Encode(), nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+token)
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusOK && out != nil {
		if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
			t.Fatal(err)
		}
	}
	return resp.StatusCode
}

func forksAt(t *testing.T, at string) (f host.Forks) {
	t.Helper()
	if status := operator(t, http.MethodGet, at, "/operator/forks", nil, &f); status != http.StatusOK {
		t.Fatalf("forks of %s: %d", at, status)
	}
	return f
}

func (s *site) forks(at string) host.Forks {
	s.t.Helper()
	return forksAt(s.t, at)
}

// decide has an operator of billing choose.
func (s *site) decide(choice string) {
	s.t.Helper()
	if status := operator(s.t, http.MethodPost, s.billingAt, "/operator/"+choice, url.Values{"follower": {"invoices"}, "source": {"order"}}, nil); status != http.StatusOK {
		s.t.Fatalf("%s: %d", choice, status)
	}
}

// broker is what order publishes to.
func (s *site) broker() transport.Publisher {
	if s.late != nil {
		return s.late
	}
	return s.bus.Publisher("order")
}

// lateBroker does not tell what it holds before it is up.
type lateBroker struct {
	transport.Publisher
	err error         // that it tells instead; nil: that it is empty
	up  chan struct{} // closed when it is
}

func (b *lateBroker) Last(ctx context.Context, s freehold.Source) (transport.Head, error) {
	select {
	case <-b.up:
		return b.Publisher.Last(ctx, s)
	default:
		return transport.Head{}, b.err
	}
}

// verified has order's chain recomputed, and that what billing stands at is in it.
func (s *site) verified() {
	s.t.Helper()
	j := s.order.db.Journal()
	if _, err := j.Verify(s.t.Context(), freehold.Mark{}, nil); err != nil {
		s.t.Error(err)
	}
	var seen []follow.Seen
	operator(s.t, http.MethodGet, s.billingAt, "/operator/marks", url.Values{"source": {"order"}}, &seen)
	at, err := j.At(s.t.Context(), seen[0].Mark.Position)
	if err != nil || at != seen[0].Mark {
		s.t.Errorf("billing stands at %s, order has %s: %v", seen[0].Mark, at, err)
	}
}

// tokens checks what order says of tokens of the epoch that ended.
func (s *site) tokens(good, lost []string) {
	s.t.Helper()
	for i, text := range append(append([]string{}, good...), lost...) {
		tok, err := freehold.ParseToken(text)
		if err != nil {
			s.t.Fatal(err)
		}
		if _, err := s.order.db.Journal().Translate(s.t.Context(), tok); (err == nil) != (i < len(good)) {
			s.t.Errorf("token %s: %v", text, err)
		}
	}
}
