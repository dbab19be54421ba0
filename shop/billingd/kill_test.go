package billingd_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/freehold-go/freehold/internal/fault"
	"github.com/freehold-go/freehold/outbox"
	"github.com/freehold-go/freehold/shop/billing"
	"github.com/freehold-go/freehold/shop/billingd"
	"github.com/freehold-go/freehold/shop/event"
	"github.com/freehold-go/freehold/sqlite"
)

// gateway is a payment provider in the test's own process, so that it survives the
// service. It does each key's operation once and loses every fifth answer.
type gateway struct {
	mu      sync.Mutex
	done    map[string]string // outcome by key
	asked   int
	held    map[string]int64 // by order
	charged map[string]int64
	repaid  map[string]int64
	faults  []string
}

func newGateway() *gateway {
	return &gateway{done: map[string]string{}, held: map[string]int64{}, charged: map[string]int64{}, repaid: map[string]int64{}}
}

func (g *gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	key, order, step := r.FormValue("key"), r.FormValue("order"), r.FormValue("step")
	amount, _ := strconv.ParseInt(r.FormValue("amount"), 10, 64)
	g.mu.Lock()
	outcome, known := g.done[key]
	if !known && step != "query" {
		outcome = g.operate(order, step, amount)
		g.done[key] = outcome
		known = true
	}
	g.asked++
	lose := g.asked%5 == 0
	g.mu.Unlock()
	switch {
	case lose:
		panic(http.ErrAbortHandler) // the connection breaks
	case !known:
		http.NotFound(w, r)
	default:
		_ = json.NewEncoder(w).Encode(billing.Outcome{Approved: outcome == "", Reason: outcome})
	}
}

func (g *gateway) operate(order, step string, amount int64) (refused string) {
	switch step {
	case "authorize":
		g.held[order] += amount
	case "capture":
		if g.held[order] < amount {
			g.faults = append(g.faults, fmt.Sprintf("capture of %d for %s, held %d", amount, order, g.held[order]))
		}
		g.held[order], g.charged[order] = 0, g.charged[order]+amount
	case "void":
		if g.held[order] == 0 {
			g.faults = append(g.faults, "void of nothing for "+order)
		}
		g.held[order] = 0
	case "refund":
		g.repaid[order] += amount
	}
	return ""
}

// remote is the gateway as the service sees it.
type remote struct{ url string }

func (p remote) ask(ctx context.Context, step string, r billing.Request) (o billing.Outcome, err error) {
	form := url.Values{"key": {r.Key}, "order": {r.Order}, "step": {step}, "amount": {strconv.FormatInt(int64(r.Amount), 10)}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url+"?"+form.Encode(), nil)
	if err != nil {
		return o, err
	}
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return o, fmt.Errorf("%w: %w", billing.ErrUnknown, err)
	}
	defer res.Body.Close()
	if res.StatusCode == http.StatusNotFound {
		return o, billing.ErrNoOperation
	}
	if err := json.NewDecoder(res.Body).Decode(&o); err != nil {
		return o, fmt.Errorf("%w: %w", billing.ErrUnknown, err)
	}
	return o, nil
}

func (p remote) Authorize(ctx context.Context, r billing.Request) (billing.Outcome, error) {
	return p.ask(ctx, "authorize", r)
}

func (p remote) Capture(ctx context.Context, r billing.Request) (billing.Outcome, error) {
	return p.ask(ctx, "capture", r)
}

func (p remote) Void(ctx context.Context, r billing.Request) (billing.Outcome, error) {
	return p.ask(ctx, "void", r)
}

func (p remote) Refund(ctx context.Context, r billing.Request) (billing.Outcome, error) {
	return p.ask(ctx, "refund", r)
}

func (p remote) Query(ctx context.Context, key string) (billing.Outcome, error) {
	return p.ask(ctx, "query", billing.Request{Key: key})
}

// TestChildService is no test: it is the service that TestKilledAtEveryPoint kills.
func TestChildService(t *testing.T) {
	data := os.Getenv("BILLING_DATA")
	if data == "" {
		t.SkipNow() // run by TestKilledAtEveryPoint in a process of its own
	}
	s, err := billingd.New(t.Context(), billingd.Config{Data: data, Token: operatorToken, Order: os.Getenv("BILLING_ORDERS"),
		Provider: remote{os.Getenv("BILLING_GATEWAY")}, Relaxed: true, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println("serving " + s.URL())
	if err := s.Run(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// nudge waits until the service has what the token asks for, or has died.
func nudge(address, token string) {
	req, err := http.NewRequest(http.MethodGet, address, nil)
	if err != nil {
		return
	}
	req.Header.Set("Consistency-Token", token)
	if res, err := http.DefaultClient.Do(req); err == nil {
		res.Body.Close()
	}
}

// TestKilledAtEveryPoint kills the service with SIGKILL at each step between an
// order and its books, several times, and starts it again on the same data. In the
// end every order has been charged once or not at all, by the provider's own
// account, and the books say the same.
func TestKilledAtEveryPoint(t *testing.T) {
	t.Parallel()
	types, err := event.OrderTypes()
	if err != nil {
		t.Fatal(err)
	}
	orders, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "order.db"), "order", types, &sqlite.Options{Relaxed: true})
	if err != nil {
		t.Fatal(err)
	}
	defer orders.Close()
	feed := httptest.NewServer(outbox.Feed(orders.Journal()))
	defer feed.Close()
	defer feed.CloseClientConnections()
	g := newGateway()
	provider := httptest.NewUnstartedServer(g)
	provider.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	provider.Start()
	defer provider.Close()

	data := t.TempDir()
	var said []string // by the process that was launched last
	launch := func(point string) (*exec.Cmd, string) {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestChildService$")
		cmd.Env = append(os.Environ(), "BILLING_DATA="+data, "BILLING_ORDERS="+feed.URL, "BILLING_GATEWAY="+provider.URL, fault.Env+"="+point)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cmd.Process.Kill() }) // where it has not been killed
		lines := bufio.NewScanner(out)
		said = said[:0]
		for lines.Scan() {
			said = append(said, lines.Text())
			if url, ok := strings.CutPrefix(lines.Text(), "serving "); ok {
				return cmd, url
			}
		}
		return cmd, "" // killed while it started
	}
	s := &service{t: t, orders: orders}
	var token string
	want := map[string]int64{}
	n := 0
	more := func() { // orders of each kind
		for _, kind := range []string{"paid", "rejected", "cancelled", "returned", "open"} {
			order := fmt.Sprintf("%s%d", kind, n)
			n++
			token = s.say(order, placed(order, "", 5000))
			switch kind {
			case "paid":
				token, want[order] = s.say(order, confirmed(order, 4000)), 4000
			case "rejected":
				token = s.say(order, event.OrderRejected{Order: order})
			case "cancelled":
				s.say(order, confirmed(order, 5000))
				token = s.say(order, event.OrderCancelled{Order: order})
			case "returned":
				s.say(order, confirmed(order, 5000))
				token, want[order] = s.say(order, event.OrderReturned{Return: order, Order: order, Amount: 1500}), 3500
			}
		}
	}
	kills := 0
	for _, point := range []string{"billing.call.before", "billing.call.after", "follow.apply.before", "follow.apply.after", "sqlite.commit.before", "sqlite.commit.after"} {
		for nth := 1; nth <= 3; nth++ {
			more()
			cmd, url := launch(fmt.Sprintf("%s:%d", point, nth))
			done := make(chan error, 1)
			go func() { done <- cmd.Wait() }()
			for dead := false; !dead; {
				if n > 2000 {
					t.Fatalf("%s:%d never comes", point, nth)
				}
				more()
				nudge(url+"/books", token) // returns when the service has the orders, or is dead
				select {
				case <-done:
					dead = true
					kills++
				default:
				}
			}
			// An event on which the process dies three times is parked, so each death is
			// followed by some progress, and by a death at no point in particular.
			cmd, url = launch("")
			nudge(url+"/books", token)
			_ = cmd.Process.Kill()
			_ = cmd.Wait() // killed
			kills++
		}
	}
	cmd, url := launch("")
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // killed
	}()
	if s.url = url; url == "" {
		t.Fatalf("the service does not start any more: %s", strings.Join(said, "\n"))
	}
	var paid event.Money
	for i := range n {
		kind := []string{"paid", "rejected", "cancelled", "returned", "open"}[i%5]
		order := fmt.Sprintf("%s%d", kind, i)
		switch kind {
		case "paid":
			s.until(order, token, "captured")
		case "rejected":
			s.until(order, token, "voided")
		case "cancelled":
			s.until(order, token, "refunded", "voided") // the cancellation may have been first
		case "returned":
			for s.until(order, token, "captured").Refunded != "1.500" {
			}
		case "open":
			s.until(order, token, "authorized")
		}
		g.mu.Lock()
		if got := g.charged[order] - g.repaid[order]; got != want[order] {
			t.Errorf("%s: the customer has paid %d, want %d", order, got, want[order])
		}
		if held := g.held[order]; held != 0 && kind != "open" {
			t.Errorf("%s: %d is still held", order, held)
		}
		g.mu.Unlock()
		paid += event.Money(want[order])
	}
	for _, f := range g.faults {
		t.Error(f)
	}
	books := get[items[billing.Books]](s, "/books", token).Items[0]
	if books.Captured-books.Refunded != paid || books.Net != paid || books.Billed != books.Captured {
		t.Errorf("books %+v, paid %s", books, paid)
	}
	if kills != 36 {
		t.Errorf("killed %d times, want 36", kills)
	}
	t.Logf("killed %d times, %d orders, %d requests to the provider", kills, n, g.asked)
}
