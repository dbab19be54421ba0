package billingd_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/outbox"
	"github.com/freehold-go/freehold/shop/billing"
	"github.com/freehold-go/freehold/shop/billingd"
	"github.com/freehold-go/freehold/shop/event"
	"github.com/freehold-go/freehold/sqlite"
)

// service is a running Billing service beside an Order journal that the test writes.
type service struct {
	t      *testing.T
	url    string
	orders *sqlite.DB
}

const operatorToken = "0123456789abcdef0123456789abcdef"

func start(t *testing.T, change func(*billingd.Config)) *service {
	t.Helper()
	types, err := event.OrderTypes()
	if err != nil {
		t.Fatal(err)
	}
	orders, err := sqlite.Open(t.Context(), filepath.Join(t.TempDir(), "order.db"), "order", types, &sqlite.Options{Relaxed: true})
	if err != nil {
		t.Fatal(err)
	}
	feed := httptest.NewServer(outbox.Feed(orders.Journal()))
	cfg := billingd.Config{Data: t.TempDir(), Token: operatorToken, Order: feed.URL, Relaxed: true, Wait: 10 * time.Second,
		Simulated: &billing.SimulatedOptions{Timeout: time.Millisecond, Late: 20 * time.Millisecond}, Log: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(&cfg)
	}
	s, err := billingd.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
		feed.CloseClientConnections()
		feed.Close()
		if err := orders.Close(); err != nil {
			t.Error(err)
		}
	})
	return &service{t: t, url: s.URL(), orders: orders}
}

// say appends to the Order journal and returns a token for it.
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
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
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

// get reads a JSON answer of status 200.
func get[V any](s *service, path, token string) V {
	s.t.Helper()
	a := s.ask("GET", path, "", "Consistency-Token", token)
	var v V
	if a.StatusCode != http.StatusOK {
		s.t.Fatalf("GET %s: %s %s", path, a.Status, a.text)
	}
	if err := json.Unmarshal([]byte(a.text), &v); err != nil {
		s.t.Fatalf("GET %s: %v: %s", path, err, a.text)
	}
	return v
}

type payment struct {
	State, Total, Authorized, Captured, Voided, Refunded string
	InFlight                                             string `json:"in_flight"`
}

// until reads a payment again whenever Billing's journal grows, until its state is
// one of those wanted.
func (s *service) until(order, token string, states ...string) payment {
	s.t.Helper()
	after := ""
	for range 1000 {
		p := get[payment](s, "/payments/"+order, token)
		if slices.Contains(states, p.State) {
			return p
		}
		a := s.ask("GET", "/feed?limit=0&wait=10&after="+after, "", "Authorization", "Bearer "+operatorToken)
		after = a.Header.Get(outbox.HeaderHead)
	}
	s.t.Fatalf("payment %s does not become %v", order, states)
	return payment{}
}

var at = time.Date(2011, 8, 12, 14, 50, 0, 0, time.UTC)

func placed(order, simulate string, total event.Money) event.OrderPlaced {
	return event.OrderPlaced{Order: order, Simulate: simulate, Total: total,
		Trade: event.Trade{Reference: "536365", Customer: "17850", Country: "United Kingdom", Currency: "GBP", At: at}}
}

func confirmed(order string, amount event.Money) event.OrderConfirmed {
	return event.OrderConfirmed{Order: order, Amount: amount,
		Trade: event.Trade{Reference: "536365", Customer: "17850", Country: "United Kingdom", Currency: "GBP", At: at}}
}

type items[V any] struct{ Items []V }

// TestOrderIsPaidAndInvoicedOverPull takes orders through all that the provider can
// do, over the feed alone, and reads the books.
func TestOrderIsPaidAndInvoicedOverPull(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	for _, simulate := range []string{"", billing.SimulateTimeout, billing.SimulateLate} {
		order := "ok" + simulate
		s.until(order, s.say(order, placed(order, simulate, 5001)), "authorized")
		p := s.until(order, s.say(order, confirmed(order, 5001)), "captured")
		if want := (payment{State: "captured", Total: "5.001", Authorized: "5.001", Captured: "5.001", Voided: "0.000", Refunded: "0.000"}); p != want {
			t.Errorf("%s: %+v, want %+v", order, p, want)
		}
	}
	s.until("declined", s.say("declined", placed("declined", billing.SimulateDecline, 5000)), "declined")
	s.until("refused", s.say("refused", placed("refused", billing.SimulateCaptureDecline, 5000)), "authorized")
	s.until("refused", s.say("refused", confirmed("refused", 5000)), "voided")
	s.until("ok", s.say("ok", event.OrderCancelled{Order: "ok"}), "refunded")
	token := s.say("c1", event.OrderReturned{Return: "c1", Trade: event.Trade{Reference: "C1", Currency: "GBP", At: at}, Amount: 1})

	invoices := get[items[billing.Invoice]](s, "/invoices?order=oklate", token)
	if len(invoices.Items) != 1 {
		t.Fatalf("invoices %+v", invoices)
	}
	one := get[billing.Invoice](s, "/invoices/"+invoices.Items[0].Number, token)
	want := billing.Invoice{Number: "INV-000000003", Order: "oklate", Amount: 5001, Issued: one.Issued,
		Trade: event.Trade{Reference: "536365", Customer: "17850", Country: "United Kingdom", Currency: "GBP", At: at}}
	if diff := cmp.Diff(want, one); diff != "" {
		t.Errorf("invoice (-want +got):\n%s", diff)
	}
	credits := get[items[billing.CreditNote]](s, "/credit-notes", token)
	if len(credits.Items) != 2 || credits.Items[0].Order != "ok" || credits.Items[1].Return != "c1" {
		t.Errorf("credit notes %+v", credits)
	}
	books := get[items[billing.Books]](s, "/books", token)
	wantBooks := []billing.Books{{Currency: "GBP", Billed: 15003, Captured: 15003, Refunded: 5001, CreditNotes: 5002, Net: 10001, Invoices: 3, Credits: 2, Entries: 9}}
	if diff := cmp.Diff(wantBooks, books.Items); diff != "" {
		t.Errorf("books (-want +got):\n%s", diff)
	}
	var sum event.Money
	for _, a := range get[items[billing.Balance]](s, "/ledger/accounts", token).Items {
		sum += a.Balance
	}
	if sum != 0 {
		t.Errorf("the ledger is out by %s", sum)
	}
	if entries := get[items[billing.Entry]](s, "/ledger/entries?after=6&limit=2", token); len(entries.Items) != 2 {
		t.Errorf("entries %+v", entries)
	}
}

const adjust = `{"reference":"A563186","country":"United Kingdom","currency":"GBP","at":"2011-08-12T14:51:00Z","lines":[{"sku":"B","description":"Adjust bad debt","quantity":1,"price":"-11062.06"}]}`

// TestAdjustments posts one by one and in batches, repeats, and reads what it wrote.
func TestAdjustments(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	first := s.ask("POST", "/adjustments", adjust, "Idempotency-Key", "A563186")
	again := s.ask("POST", "/adjustments", adjust, "Idempotency-Key", "A563186")
	if first.StatusCode != http.StatusCreated || again.StatusCode != http.StatusOK || again.Header.Get("Consistency-Token") == "" {
		t.Fatalf("first %s %s, again %s %s", first.Status, first.text, again.Status, again.text)
	}
	if a := s.ask("POST", "/adjustments", strings.Replace(adjust, "-11062", "11062", 1), "Idempotency-Key", "A563186"); a.StatusCode != http.StatusConflict {
		t.Errorf("another body under the key: %s %s", a.Status, a.text)
	}
	withKey := func(key, price string) string {
		return fmt.Sprintf(`{"key":%q,"reference":%q,"currency":"GBP","lines":[{"sku":"B","quantity":1,"price":%q}]}`, key, key, price)
	}
	array := "[" + withKey("a", "11062.060") + "," + withKey("b", "0.001") + "]"
	lines := withKey("b", "0.001") + "\n\n" + withKey("c", "0") + "\n"
	a := s.ask("POST", "/adjustments/batch", array)
	b := s.ask("POST", "/adjustments/batch", lines, "Content-Type", "application/x-ndjson")
	if a.StatusCode != http.StatusOK || b.StatusCode != http.StatusOK || strings.Count(b.text, `"repeated":true`) != 1 {
		t.Fatalf("array %s %s, lines %s %s", a.Status, a.text, b.Status, b.text)
	}
	books := get[items[billing.Books]](s, "/books", b.Header.Get("Consistency-Token"))
	want := []billing.Books{{Currency: "GBP", Adjustments: 1, Net: 1, Corrections: 4, Entries: 3}}
	if diff := cmp.Diff(want, books.Items); diff != "" {
		t.Errorf("books (-want +got):\n%s", diff)
	}
	if all := get[items[billing.Adjustment]](s, "/adjustments?after=1", ""); len(all.Items) != 3 || all.Items[0].Amount != 11062060 {
		t.Errorf("adjustments %+v", all)
	}
	// A batch with one that conflicts is refused as a whole.
	if a := s.ask("POST", "/adjustments/batch", "["+withKey("d", "5")+","+withKey("a", "5")+"]"); a.StatusCode != http.StatusConflict {
		t.Errorf("conflict in a batch: %s %s", a.Status, a.text)
	}
	if all := get[items[billing.Adjustment]](s, "/adjustments", ""); len(all.Items) != 4 {
		t.Errorf("%d adjustments, want 4", len(all.Items))
	}
}

// TestNoAdjustmentStopsTheBooks posts the most that adjustments may come to, and tries
// more: the ledger can never be repaired, so nothing may enter it that does not add up.
func TestNoAdjustmentStopsTheBooks(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	for i, price := range []string{"9000000000000000", "9000000000000000", "1000000000", "1000000000", "-1000000000"} {
		body := fmt.Sprintf(`{"key":"k%d","lines":[{"sku":"B","quantity":1,"price":%q}]}`, i, price)
		want := http.StatusCreated
		if i < 2 {
			want = http.StatusUnprocessableEntity
		}
		if a := s.ask("POST", "/adjustments", body); a.StatusCode != want {
			t.Errorf("%s: %s %s, want %d", price, a.Status, a.text, want)
		}
	}
	for path, says := range map[string]string{"/books": `"adjustments":"1000000000.000"`, "/ledger/accounts": "GBP"} {
		if a := s.ask("GET", path, ""); a.StatusCode != http.StatusOK || !strings.Contains(a.text, says) {
			t.Errorf("%s: %s %s, want %s", path, a.Status, a.text, says)
		}
	}
}

// TestBadInputIsAnsweredWithTheField sends what is wrong in every way.
func TestBadInputIsAnsweredWithTheField(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *billingd.Config) { c.Wait = 10 * time.Millisecond })
	change := func(old, new string) string {
		if !strings.Contains(adjust, old) {
			t.Fatalf("no %q", old)
		}
		return strings.Replace(adjust, old, new, 1)
	}
	key := []string{"Idempotency-Key", "k"}
	for _, c := range []struct {
		name, method, path, body string
		header                   []string
		status                   int
		field                    string
	}{
		{"malformed JSON", "POST", "/adjustments", `{"reference":`, key, 400, "body"},
		{"no body", "POST", "/adjustments", ``, key, 400, ""},
		{"no key", "POST", "/adjustments", adjust, nil, 422, "header.Idempotency-Key"},
		{"key too long", "POST", "/adjustments", adjust, []string{"Idempotency-Key", strings.Repeat("k", 129)}, 422, "header.Idempotency-Key"},
		{"unknown field", "POST", "/adjustments", change(`{"reference"`, `{"surprise":1,"reference"`), key, 422, "body.surprise"},
		{"unknown currency", "POST", "/adjustments", change("GBP", "XXX"), key, 422, "body.currency"},
		{"no lines field", "POST", "/adjustments", `{"currency":"GBP"}`, key, 422, "body"},
		{"no key in a batch", "POST", "/adjustments/batch", "[" + adjust + "]", nil, 422, "body[0].key"},
		{"two keys", "POST", "/adjustments", change(`{"reference"`, `{"key":"other","reference"`), key, 422, "header.Idempotency-Key"},
		{"zero quantity", "POST", "/adjustments", change(`"quantity":1`, `"quantity":0`), key, 422, "body.lines[0].quantity"},
		{"quantity beyond int64", "POST", "/adjustments", change(`"quantity":1`, `"quantity":9223372036854775808`), key, 422, ""},
		{"quantity as text", "POST", "/adjustments", change(`"quantity":1`, `"quantity":"1"`), key, 422, "body.lines[0].quantity"},
		{"price as number", "POST", "/adjustments", change(`"-11062.06"`, `-11062.06`), key, 422, "body.lines[0].price"},
		{"four decimals", "POST", "/adjustments", change(`11062.06`, `11062.0601`), key, 422, "body.lines[0].price"},
		{"too much money", "POST", "/adjustments", change(`11062.06`, `99999999999999999999`), key, 422, "body.lines[0].price"},
		{"sum too large", "POST", "/adjustments", strings.NewReplacer(`11062.06`, `9000000000000000`, `"quantity":1`, `"quantity":1000`).Replace(adjust), key, 422, "body.lines"},
		{"year of five digits", "POST", "/adjustments", change("2011-08-12T14:51:00Z", "9999-12-31T23:59:59-05:00"), key, 422, "body.at"},
		{"such a year in a line", "POST", "/adjustments", change(`"sku":"B"`, `"sku":"B","at":"9999-12-31T23:59:59-05:00"`), key, 422, "body.lines[0].at"},
		{"the largest amount", "POST", "/adjustments", change(`-11062.06`, `9223372036854775.807`), key, 422, "body.lines"},
		{"more than the most, without the signs", "POST", "/adjustments", change(`"lines":[`, `"lines":[{"sku":"B","quantity":1,"price":"1000000000"},`), key, 422, "body.lines"},
		{"reference too long", "POST", "/adjustments", change("A563186", strings.Repeat("A", 65)), key, 422, "body.reference"},
		{"no lines", "POST", "/adjustments", change(`{"sku":"B","description":"Adjust bad debt","quantity":1,"price":"-11062.06"}`, ``), key, 422, "body.lines"},
		{"bad time", "POST", "/adjustments", change("2011-08-12T14:51:00Z", "12/8/2011"), key, 422, "body.at"},
		{"too large", "POST", "/adjustments", change("Adjust bad debt", strings.Repeat("x", 3<<20)), key, 413, ""},
		{"bad one in a batch", "POST", "/adjustments/batch", `[{"key":"a","currency":"GBP","lines":[{"sku":"B","quantity":1,"price":"1"}]},{"key":"b","currency":"GBP","lines":[{"sku":"","quantity":1,"price":"1"}]}]`, nil, 422, "body[1].lines[0].sku"},
		{"bad price in a batch", "POST", "/adjustments/batch", `[{"key":"a","lines":[{"sku":"B","quantity":1,"price":"1"},{"sku":"B","quantity":1,"price":"x"}]}]`, nil, 422, "body[0].lines[1].price"},
		{"unknown media type", "POST", "/adjustments", adjust, append([]string{"Content-Type", "text/xml"}, key...), 415, ""},
		{"bad number", "GET", "/invoices/42", "", nil, 422, "path.number"},
		{"no such invoice", "GET", "/invoices/INV-000000042", "", nil, 404, ""},
		{"no such payment", "GET", "/payments/nobody", "", nil, 404, ""},
		{"limit too high", "GET", "/invoices?limit=1001", "", nil, 422, "query.limit"},
		{"limit as text", "GET", "/ledger/entries?limit=many", "", nil, 422, "query.limit"},
		{"bad after", "GET", "/credit-notes?after=x", "", nil, 422, "query.after"},
		{"unknown parameter", "GET", "/invoices?sort=up", "", nil, 422, "query.sort"},
		{"bad token", "GET", "/books", "", []string{"Consistency-Token", "order"}, 422, "header.Consistency-Token"},
		{"token of the future", "GET", "/books", "", []string{"Consistency-Token", "order:x:7"}, 503, ""},
		{"token of another history", "GET", "/books", "", []string{"Consistency-Token", "billing:0000:0"}, 409, "header.Consistency-Token"},
		{"token of a service that Billing does not follow", "GET", "/books", "", []string{"Consistency-Token", "inventory:x:7"}, 200, ""},
		{"operator's endpoint without the token", "GET", "/feed", "", nil, 401, ""},
	} {
		a := s.ask(c.method, c.path, c.body, c.header...)
		if a.StatusCode != c.status {
			t.Errorf("%s: %s %.300s, want %d", c.name, a.Status, a.text, c.status)
			continue
		}
		if c.status < 400 {
			continue
		}
		if got := a.Header.Get("Content-Type"); got != "application/problem+json" {
			t.Errorf("%s: content type %q", c.name, got)
		}
		if c.status == http.StatusServiceUnavailable && a.Header.Get("Retry-After") == "" {
			t.Errorf("%s: no Retry-After", c.name)
		}
		var p struct {
			Status int
			Errors []struct{ Location string }
		}
		if err := json.Unmarshal([]byte(a.text), &p); err != nil || p.Status != c.status {
			t.Errorf("%s: %v %s", c.name, err, a.text)
		}
		if c.field != "" && (len(p.Errors) == 0 || p.Errors[0].Location != c.field) {
			t.Errorf("%s: %.300s, want the field %s", c.name, a.text, c.field)
		}
	}
	if books := get[items[billing.Books]](s, "/books", ""); len(books.Items) != 0 {
		t.Errorf("bad input left %+v", books.Items)
	}
}

// TestInterfaceIsDescribed reads the OpenAPI document: amounts are text there too.
func TestInterfaceIsDescribed(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	a := s.ask("GET", "/openapi.json", "")
	var doc struct {
		OpenAPI    string `json:"openapi"`
		Paths      map[string]any
		Components struct {
			Schemas map[string]struct {
				Properties map[string]struct{ Type any }
			}
		}
	}
	if err := json.Unmarshal([]byte(a.text), &doc); err != nil || !strings.HasPrefix(doc.OpenAPI, "3.1") {
		t.Fatalf("%v %s %.100s", err, doc.OpenAPI, a.text)
	}
	for _, path := range []string{"/payments/{order}", "/invoices", "/invoices/{number}", "/credit-notes", "/ledger/entries", "/ledger/accounts", "/books", "/adjustments", "/adjustments/batch"} {
		if doc.Paths[path] == nil {
			t.Errorf("%s is not described", path)
		}
	}
	if got := doc.Components.Schemas["Invoice"].Properties["amount"].Type; got != "string" {
		t.Errorf("an amount is described as %v", got)
	}
}

// TestRestartGoesOn stops the service with calls in flight and starts it again on
// the same data.
func TestRestartGoesOn(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
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
	s := &service{t: t, orders: orders}
	const n = 20
	var token string
	for i := range n {
		order := fmt.Sprint("o", i)
		s.say(order, placed(order, billing.SimulateLate, 1000))
		token = s.say(order, confirmed(order, 1000))
	}
	for round := range 6 {
		server, err := billingd.New(t.Context(), billingd.Config{Data: data, Token: operatorToken, Order: feed.URL, Relaxed: true,
			Simulated: &billing.SimulatedOptions{Late: 2 * time.Millisecond}, Log: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- server.Run(ctx) }()
		s.url = server.URL()
		if round < 5 {
			s.ask("GET", "/feed?limit=0&wait=10&after="+fmt.Sprint(round*20), "", "Authorization", "Bearer "+operatorToken)
		} else {
			for i := range n {
				s.until(fmt.Sprint("o", i), token, "captured")
			}
			books := get[items[billing.Books]](s, "/books", token)
			if len(books.Items) != 1 || books.Items[0].Captured != n*1000 || books.Items[0].Invoices != n {
				t.Errorf("books %+v", books)
			}
		}
		stop()
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
}

// TestTwoServersOnOneDirectory refuses the second.
func TestTwoServersOnOneDirectory(t *testing.T) {
	t.Parallel()
	data := t.TempDir()
	start(t, func(c *billingd.Config) { c.Data = data })
	_, err := billingd.New(t.Context(), billingd.Config{Data: data, Order: "http://127.0.0.1:1", Relaxed: true})
	if err == nil || bytes.ContainsRune([]byte(err.Error()), '\n') {
		t.Errorf("%v, want one line that refuses", err)
	}
}

// TestDatabaseDownIsAnsweredWithRetryAfter asks a service whose database is closed.
func TestDatabaseDownIsAnsweredWithRetryAfter(t *testing.T) {
	t.Parallel()
	s, err := billingd.New(t.Context(), billingd.Config{Data: t.TempDir(), Order: "http://127.0.0.1:1", Relaxed: true, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for _, r := range []*http.Request{
		httptest.NewRequest("GET", "/books", nil), httptest.NewRequest("GET", "/payments/1", nil),
		httptest.NewRequest("POST", "/adjustments", strings.NewReader(adjust)),
	} {
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Idempotency-Key", "k")
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, r)
		if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
			t.Errorf("%s %s: %d %s", r.Method, r.URL, w.Code, w.Body)
		}
	}
}
