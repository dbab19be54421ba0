package inventoryd_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/memory"
	"github.com/freehold-go/freehold/outbox"
	"github.com/freehold-go/freehold/shop/event"
	"github.com/freehold-go/freehold/shop/inventory"
	"github.com/freehold-go/freehold/shop/inventoryd"
)

var quiet = slog.New(slog.DiscardHandler)

const operatorToken = "0123456789abcdef0123456789abcdef"

// service is a running Inventory service beside an Order journal that the test
// writes.
type service struct {
	t      *testing.T
	cfg    inventoryd.Config
	url    string
	orders *memory.DB
	stop   func()
}

func setup(t *testing.T) *service {
	t.Helper()
	s := &service{t: t}
	types, err := event.OrderTypes()
	if err != nil {
		t.Fatal(err)
	}
	if s.orders, err = memory.Open(t.Context(), event.SourceOrder, types, &memory.Options{Log: quiet}); err != nil {
		t.Fatal(err)
	}
	feed := httptest.NewServer(outbox.Feed(s.orders.Journal()))
	t.Cleanup(func() {
		feed.CloseClientConnections()
		feed.Close()
		if err := s.orders.Close(); err != nil {
			t.Error(err)
		}
	})
	s.cfg = inventoryd.Config{Data: t.TempDir(), Token: operatorToken, Order: feed.URL, Wait: 20 * time.Second, Relaxed: true, Log: quiet}
	s.start()
	t.Cleanup(func() { s.stop() })
	return s
}

func (s *service) start() {
	s.t.Helper()
	server, err := inventoryd.New(s.t.Context(), s.cfg)
	if err != nil {
		s.t.Fatal(err)
	}
	s.url = server.URL()
	ctx, cancel := context.WithCancel(context.WithoutCancel(s.t.Context()))
	done := make(chan error, 1)
	go func() { done <- server.Run(ctx) }()
	s.stop = func() {
		cancel()
		if err := <-done; err != nil {
			s.t.Error(err)
		}
	}
}

// say appends events to the Order journal and returns a token for them.
func (s *service) say(order string, events ...freehold.Event) string {
	s.t.Helper()
	token, err := s.orders.Append(s.t.Context(), freehold.Write{Stream: freehold.Stream("order", order), Expect: freehold.Any, Events: events})
	if err != nil {
		s.t.Fatal(err)
	}
	return token.String()
}

type answer struct {
	*http.Response
	text string
}

// ask sends a request; header is in pairs.
func (s *service) ask(method, path, body string, header ...string) answer {
	s.t.Helper()
	r, err := http.NewRequestWithContext(s.t.Context(), method, s.url+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return answer{res, string(text)}
}

// post sends a command that must succeed, and returns its token.
func (s *service) post(path, body string, header ...string) string {
	s.t.Helper()
	a := s.ask(http.MethodPost, path, body, header...)
	if a.StatusCode != http.StatusOK {
		s.t.Fatalf("%s: %s %s", path, a.Status, a.text)
	}
	return a.Header.Get("Consistency-Token")
}

// get reads a JSON answer of status 200.
func get[V any](s *service, path, token string) (v V) {
	s.t.Helper()
	a := s.ask(http.MethodGet, path, "", "Consistency-Token", token)
	if a.StatusCode != http.StatusOK {
		s.t.Fatalf("%s: %s %s", path, a.Status, a.text)
	}
	if err := json.Unmarshal([]byte(a.text), &v); err != nil {
		s.t.Fatalf("%s: %v: %s", path, err, a.text)
	}
	return v
}

func placed(order, sku string, n int64) event.OrderPlaced {
	return event.OrderPlaced{Order: order, Trade: event.Trade{Currency: "GBP"}, Policy: event.AllOrNothing, Lines: []event.Line{{SKU: sku, Quantity: n, Stocked: true}}}
}

func TestStockFollowsOrdersOverTheFeed(t *testing.T) {
	t.Parallel()
	s := setup(t)
	own := s.post("/products", `{"sku":"A/1","description":"first","price":"2.55","received":10}`)
	if got, want := get[inventory.Stock](s, "/stock/A%2F1", own), (inventory.Stock{Free: 10, Received: 10}); got != want {
		t.Errorf("stock with the token of the delivery: %+v, want %+v", got, want)
	}
	s.say("1", placed("1", "A/1", 4))
	s.say("1", event.OrderConfirmed{Order: "1"})
	s.say("2", placed("2", "A/1", 7))
	s.say("3", placed("3", "A/1", 1))
	token := s.say("3", event.OrderRejected{Order: "3"})
	if got, want := get[inventory.Stock](s, "/stock/A%2F1", token), (inventory.Stock{Free: 6, Shipped: 4, Received: 10}); got != want {
		t.Errorf("stock with the token of an order: %+v, want %+v", got, want)
	}
	if got := get[struct{ Price string }](s, "/products/A%2F1", ""); got.Price != "2.550" {
		t.Errorf("product %+v", got)
	}
}

func TestRestartForgetsNothingAndRepeatsNothing(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.post("/products", `{"sku":"A","description":"","price":"1","received":10}`)
	token := s.say("1", placed("1", "A", 4))
	get[inventory.Stock](s, "/stock/A", token)
	s.stop()
	s.say("1", event.OrderConfirmed{Order: "1"})
	token = s.say("1", event.OrderConfirmed{Order: "1"})
	s.start()
	if got, want := get[inventory.Stock](s, "/stock/A", token), (inventory.Stock{Free: 6, Shipped: 4, Received: 10}); got != want {
		t.Errorf("stock %+v, want %+v", got, want)
	}
}

func TestMovementUnderOneKeyCountsOnce(t *testing.T) {
	t.Parallel()
	s := setup(t)
	const body = `{"lines":[{"sku":"A","quantity":-5,"price":"0"}]}`
	s.post("/movements", body, "Idempotency-Key", "k")
	token := s.post("/movements", body, "Idempotency-Key", "k")
	if got, want := get[inventory.Stock](s, "/stock/A", token), (inventory.Stock{Free: 5, Left: -5}); got != want {
		t.Errorf("stock %+v, want %+v", got, want)
	}
	if a := s.ask("POST", "/movements", strings.Replace(body, "-5", "-6", 1), "Idempotency-Key", "k"); a.StatusCode != 409 || !strings.Contains(a.text, "another body") {
		t.Errorf("another movement under its key: %s %s", a.Status, a.text)
	}
	batch := `[{"key":"b1","lines":[{"sku":"A","quantity":1,"price":"0"}]},{"key":"b2","lines":[{"sku":"A","quantity":1,"price":"0"}]}]`
	s.post("/movements/batch", batch)
	token = s.post("/movements/batch", batch)
	if a := s.ask("POST", "/movements/batch", strings.Replace(batch, `"quantity":1`, `"quantity":2`, 1)); a.StatusCode != 409 {
		t.Errorf("another batch under its keys: %s %s", a.Status, a.text)
	}
	if got, want := get[inventory.Stock](s, "/stock/A", token), (inventory.Stock{Free: 3, Left: -3}); got != want {
		t.Errorf("stock %+v, want %+v", got, want)
	}
}

// TestDefinitionUnderOneKeyIsReceivedOnce: a client that got no answer sends its products
// again, and there are no more of them than it has.
func TestDefinitionUnderOneKeyIsReceivedOnce(t *testing.T) {
	t.Parallel()
	s := setup(t)
	const kettle, last = `{"sku":"KETTLE-1L","description":"Enamel kettle","price":"24.500","received":500}`, `{"sku":"LAST-ONE","description":"The only one","price":"999.000","received":1}`
	for path, body := range map[string]string{"/products": kettle, "/products/batch": "[" + strings.Replace(kettle, "KETTLE", "OTHER", 1) + "," + last + "]"} {
		s.post(path, body, "Idempotency-Key", "k"+path)
		s.post("/movements", `{"lines":[{"sku":"KETTLE-1L","quantity":1,"price":"0"}]}`, "Idempotency-Key", "between "+path)
		s.post(path, strings.ReplaceAll(body, ",", " ,\n"), "Idempotency-Key", "k"+path)
		other := strings.ReplaceAll(body, `"received":500`, `"received":501`)
		if a := s.ask("POST", path, other, "Idempotency-Key", "k"+path); a.StatusCode != 409 || !strings.Contains(a.text, "another body") {
			t.Errorf("%s: another body under its key: %s %s", path, a.Status, a.text)
		}
		if a := s.ask("POST", path, body, "Idempotency-Key", strings.Repeat("k", 129)); a.StatusCode != 422 || !strings.Contains(a.text, "header.Idempotency-Key") {
			t.Errorf("%s: an over-long key: %s %s", path, a.Status, a.text)
		}
	}
	s.stop()
	s.start()
	token := s.post("/products", kettle, "Idempotency-Key", "k/products")
	for sku, want := range map[string]inventory.Stock{"KETTLE-1L": {Free: 498, Left: 2, Received: 500}, "OTHER-1L": {Free: 500, Received: 500}, "LAST-ONE": {Free: 1, Received: 1}} {
		if got := get[inventory.Stock](s, "/stock/"+sku, token); got != want {
			t.Errorf("%s: stock %+v, want %+v", sku, got, want)
		}
	}
	type operation struct {
		Post struct {
			Parameters []struct{ Name, Description string }
		}
	}
	for path, o := range get[struct{ Paths map[string]operation }](s, "/openapi.json", "").Paths {
		p := o.Post.Parameters
		if strings.HasPrefix(path, "/products") && path != "/products/{sku}" && (len(p) != 1 || p[0].Name != "Idempotency-Key" || p[0].Description == "") {
			t.Errorf("POST %s is described with %+v", path, p)
		}
	}
	s.post("/products", kettle)
	token = s.post("/products", kettle) // without a key each request is another delivery
	if got := get[inventory.Stock](s, "/stock/KETTLE-1L", token); got.Received != 1500 {
		t.Errorf("two deliveries without a key: %+v", got)
	}
}

func TestListingsHavePages(t *testing.T) {
	t.Parallel()
	s := setup(t)
	var lines []string
	for i := range 5 {
		lines = append(lines, fmt.Sprintf(`{"sku":"P%d","description":"","price":"1","received":%d}`, i, i))
	}
	token := s.post("/products/batch", "["+strings.Join(lines, ",")+"]")
	type page struct {
		Rows []struct{ SKU string }
		More bool
	}
	got := get[page](s, "/stock?from=P3&limit=1", token)
	want := page{Rows: []struct{ SKU string }{{"P3"}}, More: true}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("a page from P3 (-want +got):\n%s", diff)
	}
	if got := get[page](s, "/stock?from=P4", token); len(got.Rows) != 1 || got.More {
		t.Errorf("the last page: %+v", got)
	}
	if got := get[[]struct{ SKU string }](s, "/products?from=P2&limit=2", token); len(got) != 2 || got[0].SKU != "P2" {
		t.Errorf("products from P2: %+v", got)
	}
	if a := s.ask("GET", "/products?from=Q", "", "Consistency-Token", token); strings.TrimSpace(a.text) != "[]" {
		t.Errorf("behind the last: %s", a.text)
	}
}
