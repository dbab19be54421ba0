package orderd_test

import (
	"bytes"
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

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/inbox"
	"github.com/freehold-go/freehold/kv"
	"github.com/freehold-go/freehold/memory"
	"github.com/freehold-go/freehold/outbox"
	"github.com/freehold-go/freehold/shop/event"
	"github.com/freehold-go/freehold/shop/orderd"
)

var quiet = slog.New(slog.DiscardHandler)

// service is a running Order service with two participants: small programs that
// answer from journals of their own, over real feeds.
type service struct {
	*orderd.Server
	t    *testing.T
	cfg  orderd.Config
	url  string
	inv  *memory.DB
	bill *memory.DB
	stop func()
}

func setup(t *testing.T) *service {
	t.Helper()
	return setupWith(t, "")
}

// setupWith runs it with its read models at a URL.
func setupWith(t *testing.T, views string) *service {
	t.Helper()
	s := &service{t: t, cfg: orderd.Config{Data: t.TempDir(), Views: views, Token: strings.Repeat("t", 32), Log: quiet, Relaxed: true}}
	s.inv, s.cfg.Inventory = s.participant(event.SourceInventory, event.InventoryTypes)
	s.bill, s.cfg.Billing = s.participant(event.SourceBilling, event.BillingTypes)
	s.start()
	t.Cleanup(func() { s.stop() })
	return s
}

// participant opens a journal and serves its feed.
func (s *service) participant(name freehold.Source, types func() (*freehold.Catalog, error)) (*memory.DB, string) {
	s.t.Helper()
	c, err := types()
	if err != nil {
		s.t.Fatal(err)
	}
	db, err := memory.Open(s.t.Context(), name, c, &memory.Options{Log: quiet})
	if err != nil {
		s.t.Fatal(err)
	}
	server := httptest.NewServer(outbox.Feed(db.Journal()))
	s.t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
		db.Close()
	})
	return db, server.URL
}

// start runs the service, and what answers it, until stop.
func (s *service) start() {
	s.t.Helper()
	var err error
	if s.Server, err = orderd.New(s.t.Context(), s.cfg); err != nil {
		s.t.Fatal(err)
	}
	s.url = s.URL()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 3)
	go func() { ended <- s.Run(ctx) }()
	go func() { ended <- s.follow("stock", s.inv, stock()...).Run(ctx) }()
	go func() { ended <- s.follow("payments", s.bill, payments()...).Run(ctx) }()
	s.stop = func() {
		cancel()
		for range 3 {
			if err := <-ended; err != nil {
				s.t.Error(err)
			}
		}
	}
}

func (s *service) follow(name string, db *memory.DB, routes ...follow.Route[kv.Tx]) *follow.Follower {
	s.t.Helper()
	types, err := event.OrderTypes()
	if err != nil {
		s.t.Fatal(err)
	}
	orders, err := inbox.Remote(event.SourceOrder, s.url+"/feed", types, &inbox.Options{Token: s.cfg.Token, Log: quiet})
	if err != nil {
		s.t.Fatal(err)
	}
	f, err := follow.New(name, db, []follow.Source{orders}, &follow.Options{Log: quiet}, routes...)
	if err != nil {
		s.t.Fatal(err)
	}
	return f
}

// stock answers like Inventory: GONE is never in stock, SLOW is not answered.
func stock() []follow.Route[kv.Tx] {
	return []follow.Route[kv.Tx]{follow.On(func(ctx context.Context, tx kv.Tx, e event.OrderPlaced, _ freehold.Recorded) error {
		var answer freehold.Event = event.StockReserved{Order: e.Order}
		var dropped []int
		for i, l := range e.Lines {
			switch l.SKU {
			case "SLOW":
				return nil
			case "GONE":
				dropped = append(dropped, i)
				answer = event.StockRejected{Order: e.Order, Code: "sold-out", SKU: l.SKU, Reason: "none of GONE in stock"}
			}
		}
		if e.Policy == event.Partial && len(dropped) < len(e.Lines) {
			answer = event.StockReserved{Order: e.Order, Dropped: dropped}
		}
		_, err := tx.Append(ctx, freehold.Stream("reservation", e.Order), freehold.NoStream, answer)
		return err
	})}
}

// payments answers like Billing.
func payments() []follow.Route[kv.Tx] {
	answer := func(ctx context.Context, tx kv.Tx, order string, e freehold.Event) error {
		_, err := tx.Append(ctx, freehold.Stream("payment", order), freehold.Any, e)
		return err
	}
	return []follow.Route[kv.Tx]{
		follow.On(func(ctx context.Context, tx kv.Tx, e event.OrderPlaced, _ freehold.Recorded) error {
			if err := tx.Put(ctx, "simulate/"+e.Order, []byte(e.Simulate)); err != nil {
				return err
			}
			if e.Simulate == "decline" {
				return answer(ctx, tx, e.Order, event.PaymentDeclined{Order: e.Order, Reason: "card declined"})
			}
			return answer(ctx, tx, e.Order, event.PaymentAuthorized{Order: e.Order, Amount: e.Total})
		}),
		follow.On(func(ctx context.Context, tx kv.Tx, e event.OrderConfirmed, _ freehold.Recorded) error {
			simulate, _, err := tx.Get(ctx, "simulate/"+e.Order)
			if err != nil {
				return err
			}
			if string(simulate) == "capture-decline" {
				return answer(ctx, tx, e.Order, event.PaymentCaptureFailed{Order: e.Order, Reason: "card expired"})
			}
			return answer(ctx, tx, e.Order, event.PaymentCaptured{Order: e.Order, Amount: e.Amount})
		}),
	}
}

// answer is an HTTP answer, read.
type answer struct {
	status int
	header http.Header
	body   map[string]any
	list   []map[string]any
	raw    string
}

// call sends a request. headers are name, value, …
func (s *service) call(method, path, body string, headers ...string) answer {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), method, s.url+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	a := answer{status: resp.StatusCode, header: resp.Header, raw: string(raw)}
	if len(raw) > 0 && raw[0] == '[' {
		err = json.Unmarshal(raw, &a.list)
	} else if len(raw) > 0 {
		d := json.NewDecoder(bytes.NewReader(raw))
		d.UseNumber()
		err = d.Decode(&a.body)
	}
	if err != nil {
		s.t.Fatalf("%s %s: %v: %s", method, path, err, raw)
	}
	return a
}

// want checks an answer's status.
func (s *service) want(status int, a answer) answer {
	s.t.Helper()
	if a.status != status {
		s.t.Fatalf("status %d, want %d: %s", a.status, status, a.raw)
	}
	return a
}

func (s *service) post(status int, path, body string, headers ...string) answer {
	s.t.Helper()
	return s.want(status, s.call(http.MethodPost, path, body, headers...))
}

func (s *service) get(status int, path string, headers ...string) answer {
	s.t.Helper()
	return s.want(status, s.call(http.MethodGet, path, "", headers...))
}

func text(v any) string { return fmt.Sprint(v) }

// history lists the types of an order's events.
func history(a answer) string {
	var all []string
	for _, h := range a.body["history"].([]any) {
		all = append(all, strings.TrimPrefix(text(h.(map[string]any)["event"]), "order."))
	}
	return strings.Join(all, " ")
}

const simple = `{"customer":"17850","country":"EIRE","reference":"R-1","at":"2026-01-02T03:04:00Z","lines":[{"sku":"A","quantity":3,"price":"2.55"},{"sku":"POST","quantity":1,"price":"0.001","stocked":false}]}`

func TestOrderGoesFromPlacedToReturnedOverHTTP(t *testing.T) {
	t.Parallel()
	s := setup(t)
	placed := s.post(201, "/orders", simple, "Idempotency-Key", "first")
	id := text(placed.body["id"])
	if placed.header.Get("Location") != "/orders/"+id || placed.header.Get("Consistency-Token") == "" || placed.body["status"] != "placed" {
		t.Errorf("placed: %v %s", placed.header, placed.raw)
	}
	paid := s.get(200, "/orders/"+id+"?until=paid&wait=20s", "Consistency-Token", placed.header.Get("Consistency-Token"))
	if paid.body["status"] != "paid" || paid.body["amount"] != "7.651" || paid.body["country"] != "EIRE" || history(paid) != "placed confirmed paid" {
		t.Errorf("paid: %s", paid.raw)
	}
	if lines := paid.body["lines"].([]any); len(lines) != 2 || lines[0].(map[string]any)["price"] != "2.550" {
		t.Errorf("lines: %v", lines)
	}
	if cause := paid.body["history"].([]any)[1].(map[string]any)["cause"]; cause == nil {
		t.Error("the confirmation does not say which event led to it")
	}
	shipped := s.post(200, "/orders/"+id+"/ship", "")
	s.post(200, "/orders/"+id+"/ship", "") // again
	if a := s.post(422, "/orders/"+id+"/return", `{"at":"9999-12-31T23:59:59-05:00"}`); !strings.Contains(a.raw, "body.at") {
		t.Errorf("a return in a year of five digits: %s", a.raw)
	}
	s.post(409, "/orders/"+id+"/cancel", "")
	token := shipped.header.Get("Consistency-Token")
	if got := s.get(200, "/orders/"+id, "Consistency-Token", token); got.body["status"] != "shipped" {
		t.Errorf("with the token of the shipment: %s", got.raw)
	}
	back := s.post(201, "/orders/"+id+"/return", `{"lines":[{"sku":"A","quantity":2}]}`, "Idempotency-Key", "back")
	if again := s.post(200, "/orders/"+id+"/return", `{"lines":[{"sku":"A","quantity":2}]}`, "Idempotency-Key", "back"); again.body["id"] != back.body["id"] || again.body["repeated"] != true {
		t.Errorf("return again: %s", again.raw)
	}
	s.post(409, "/orders/"+id+"/return", `{"lines":[{"sku":"A","quantity":1}]}`, "Idempotency-Key", "back")
	if over := s.post(422, "/orders/"+id+"/return", `{"lines":[{"sku":"A","quantity":2}]}`); !strings.Contains(over.raw, "body.lines[0].quantity") {
		t.Errorf("too much back: %s", over.raw)
	}
	last := s.post(201, "/orders/"+id+"/return", "")
	got := s.get(200, "/orders/"+id, "Consistency-Token", last.header.Get("Consistency-Token"))
	if got.body["status"] != "returned" || got.body["returned"] != "7.651" || history(got) != "placed confirmed paid shipped returned returned" {
		t.Errorf("returned: %s", got.raw)
	}
	sum := s.get(200, "/reports/summary", "Consistency-Token", last.header.Get("Consistency-Token"))
	if sum.body["gross"] != "7.651" || sum.body["returns"] != "-7.651" || sum.body["net"] != "0.000" {
		t.Errorf("summary: %s", sum.raw)
	}
}

func TestOrderThatCannotGoOnEndsWithTheReason(t *testing.T) {
	t.Parallel()
	s := setup(t)
	for name, c := range map[string]struct{ body, status, code, history string }{
		"sold out":        {`{"lines":[{"sku":"A","quantity":1,"price":"1"},{"sku":"GONE","quantity":1,"price":"1"}]}`, "rejected", "sold-out", "placed rejected"},
		"declined":        {`{"simulate":"decline","lines":[{"sku":"A","quantity":1,"price":"1"}]}`, "rejected", "declined", "placed rejected"},
		"no answer":       {`{"deadline_seconds":1,"lines":[{"sku":"SLOW","quantity":1,"price":"1"}]}`, "rejected", "time-out", "placed rejected"},
		"not captured":    {`{"simulate":"capture-decline","lines":[{"sku":"A","quantity":1,"price":"1"}]}`, "cancelled", "capture-failed", "placed confirmed cancelled"},
		"partly in stock": {`{"policy":"partial","lines":[{"sku":"GONE","quantity":1,"price":"5"},{"sku":"A","quantity":1,"price":"1"}]}`, "paid", "<nil>", "placed confirmed paid"},
	} {
		t.Run(name, func(t *testing.T) {
			id := text(s.post(201, "/orders", c.body, "Idempotency-Key", name).body["id"])
			got := s.get(200, "/orders/"+id+"?until=done&wait=20")
			if text(got.body["status"]) != c.status || text(got.body["code"]) != c.code || history(got) != c.history {
				t.Errorf("%s: %s", name, got.raw)
			}
			if c.status == "paid" && (got.body["amount"] != "1.000" || text(got.body["dropped"]) != "1") {
				t.Errorf("partial order: %s", got.raw)
			}
		})
	}
}

func TestCustomerMayCancelUntilTheGoodsLeave(t *testing.T) {
	t.Parallel()
	s := setup(t)
	id := text(s.post(201, "/orders", `{"lines":[{"sku":"SLOW","quantity":1,"price":"1"}]}`).body["id"])
	s.post(200, "/orders/"+id+"/cancel?reason=too+slow", "")
	again := s.post(200, "/orders/"+id+"/cancel", "")
	got := s.get(200, "/orders/"+id, "Consistency-Token", again.header.Get("Consistency-Token"))
	if got.body["status"] != "cancelled" || got.body["reason"] != "too slow" || history(got) != "placed cancelled" {
		t.Errorf("cancelled before an answer: %s", got.raw)
	}
	id = text(s.post(201, "/orders", simple).body["id"])
	s.get(200, "/orders/"+id+"?until=paid&wait=20s")
	token := s.post(200, "/orders/"+id+"/cancel", "").header.Get("Consistency-Token")
	s.post(409, "/orders/"+id+"/ship", "")
	if got := s.get(200, "/orders/"+id, "Consistency-Token", token); history(got) != "placed confirmed paid cancelled" {
		t.Errorf("cancelled when paid: %s", got.raw)
	}
	for _, by := range []string{"country", "month", "day", "customer", "sku", "invoice"} {
		if got := s.get(200, "/reports/sales?by="+by, "Consistency-Token", token); len(got.body["rows"].([]any)) != 0 {
			t.Errorf("sales by %s of a cancelled order: %s", by, got.raw)
		}
	}
	s.post(404, "/orders/nobody/cancel", "")
	s.get(404, "/orders/nobody")
	s.get(404, "/orders/nobody?until=paid")
}

// A stopped service goes on where it was.
func TestRestartForgetsNothing(t *testing.T) {
	t.Parallel()
	s := setup(t)
	slow := text(s.post(201, "/orders", `{"deadline_seconds":2,"lines":[{"sku":"SLOW","quantity":1,"price":"1"}]}`).body["id"])
	fine := text(s.post(201, "/orders", simple, "Idempotency-Key", "k").body["id"])
	s.get(200, "/orders/"+fine+"?until=paid&wait=20s")
	s.stop()
	s.start()
	if got := s.get(200, "/orders/"+slow+"?until=done&wait=20s"); got.body["code"] != "time-out" {
		t.Errorf("deadline across a restart: %s", got.raw)
	}
	again := s.post(200, "/orders", simple, "Idempotency-Key", "k")
	if text(again.body["id"]) != fine || again.body["status"] != "paid" {
		t.Errorf("the same command after a restart: %s", again.raw)
	}
	if got := s.get(200, "/orders/"+fine, "Consistency-Token", again.header.Get("Consistency-Token")); history(got) != "placed confirmed paid" {
		t.Errorf("after a restart: %s", got.raw)
	}
}

func TestSalesAddUpWhatThreeServicesSay(t *testing.T) {
	t.Parallel()
	s := setup(t)
	at := time.Date(2026, 1, 2, 3, 4, 0, 0, time.UTC)
	trade := event.Trade{Reference: "M-1", Country: "EIRE", Currency: "GBP", At: at}
	id := text(s.post(201, "/orders", simple).body["id"])
	token := s.post(201, "/returns", `{"reference":"C-1","country":"France","at":"2026-02-01T00:00:00Z","lines":[{"sku":"A","quantity":2,"price":"2.55","at":"2026-02-02T00:00:00Z"}]}`).header.Get("Consistency-Token")
	moved, err := s.inv.Append(t.Context(), freehold.Write{Stream: "movement-1", Events: []freehold.Event{event.StockAdjusted{Movement: "1", Trade: trade, Lines: []event.Line{{SKU: "A", Quantity: -7}}}}})
	if err != nil {
		t.Fatal(err)
	}
	adjusted, err := s.bill.Append(t.Context(), freehold.Write{Stream: "adjustment-1", Events: []freehold.Event{event.LedgerAdjusted{Adjustment: "1", Trade: trade, Lines: []event.Line{{SKU: "B", Quantity: 1, Price: -11062060}}}}})
	if err != nil {
		t.Fatal(err)
	}
	s.get(200, "/orders/"+id+"?until=paid&wait=20s")
	paid := s.get(200, "/orders/"+id)
	last := paid.body["history"].([]any)[2].(map[string]any)["position"]
	own, err := freehold.ParseToken(token)
	if err != nil {
		t.Fatal(err)
	}
	epoch := own.Of(event.SourceOrder)[0].Epoch
	token = own.Merge(moved, adjusted).String() + fmt.Sprintf(",order:%s:%s", epoch, last)
	for by, want := range map[string]string{
		"country":  "EIRE 4 -2 -11054.409, France 1 -2 -5.100",
		"month":    "2026-01 4 -2 -11054.409, 2026-02 1 -2 -5.100",
		"day":      "2026-01-02 4 -2 -11054.409, 2026-02-02 1 -2 -5.100",
		"customer": " 3 -8 -11067.160, 17850 2 4 7.651",
		"sku":      "A 3 -6 2.550, B 1 1 -11062.060, POST 1 1 0.001",
		"invoice":  "C-1 1 -2 -5.100, M-1 2 -6 -11062.060, R-1 2 4 7.651",
	} {
		got := s.get(200, "/reports/sales?by="+by, "Consistency-Token", token)
		var rows []string
		for _, r := range got.body["rows"].([]any) {
			r := r.(map[string]any)
			rows = append(rows, fmt.Sprint(r["key"], " ", r["rows"], " ", r["units"], " ", r["value"]))
		}
		if text := strings.Join(rows, ", "); text != want {
			t.Errorf("by %s: %s\nwant %s", by, text, want)
		}
		digest := s.get(200, "/reports/digest?by="+by, "Consistency-Token", token)
		if digest.body["value"] != "-11059.509" || text(digest.body["rows"]) != "5" || text(digest.body["keys"]) != fmt.Sprint(len(rows)) {
			t.Errorf("digest by %s: %s", by, digest.raw)
		}
	}
	page := s.get(200, "/reports/sales?by=sku&from=B&limit=1")
	if len(page.body["rows"].([]any)) != 1 || page.body["more"] != true {
		t.Errorf("a page from B: %s", page.raw)
	}
}
