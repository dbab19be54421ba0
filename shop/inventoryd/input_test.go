package inventoryd_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/freehold-go/freehold/shop/inventoryd"
)

func TestBadInputIsAnsweredWithTheField(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.post("/products", `{"sku":"A","description":"","price":"1","received":10}`)
	long := strings.Repeat("x", 65)
	product := func(fields string) string { return `{"sku":"A","description":"d","price":"1",` + fields + `}` }
	line := func(fields string) string { return `{"key":"k","lines":[{` + fields + `}]}` }
	for name, c := range map[string]struct {
		path, body string
		status     int
		names      string // the location, or a word of the detail
	}{
		"not JSON":                    {"/products", `{"sku":`, 400, ""},
		"empty":                       {"/products", ``, 400, "required"},
		"text behind":                 {"/products", product(`"received":1`) + `x`, 400, ""},
		"an array":                    {"/products", `[]`, 422, "body"},
		"sku missing":                 {"/products", `{"description":"d","price":"1"}`, 422, "sku"},
		"empty sku":                   {"/products", `{"sku":"","description":"d","price":"1"}`, 422, "body.sku"},
		"over-long sku":               {"/products", `{"sku":"` + long + `","description":"d","price":"1"}`, 422, "body.sku"},
		"control character":           {"/products", `{"sku":"A\u0000","description":"d","price":"1"}`, 422, "body.sku"},
		"over-long description":       {"/products", `{"sku":"A","description":"` + strings.Repeat("x", 201) + `","price":"1"}`, 422, "body.description"},
		"price as a number":           {"/products", `{"sku":"A","description":"d","price":1}`, 422, "body.price"},
		"price that is text":          {"/products", `{"sku":"A","description":"d","price":"cheap"}`, 422, "body.price"},
		"price of four places":        {"/products", `{"sku":"A","description":"d","price":"0.0001"}`, 422, "body.price"},
		"negative price":              {"/products", `{"sku":"A","description":"d","price":"-1"}`, 422, "body.price"},
		"negative delivery":           {"/products", product(`"received":-1`), 422, "body.received"},
		"delivery beyond int64":       {"/products", product(`"received":99999999999999999999`), 422, "received"},
		"part of a unit":              {"/products", product(`"received":1.5`), 422, "body.received"},
		"unknown field":               {"/products", product(`"colour":"red"`), 422, "body.colour"},
		"no products":                 {"/products/batch", `[]`, 422, "body"},
		"bad product of several":      {"/products/batch", `[{"sku":"A","description":"d","price":"1"},{"sku":"B","description":"d","price":"-1"}]`, 422, "body[1].price"},
		"no lines":                    {"/movements", `{"lines":[]}`, 422, "body.lines"},
		"nothing moves":               {"/movements", line(`"sku":"A","quantity":0,"price":"0"`), 422, "body.lines[0].quantity"},
		"quantity too large":          {"/movements", line(`"sku":"A","quantity":1000000001,"price":"0"`), 422, "body.lines[0].quantity"},
		"quantity too small":          {"/movements", line(`"sku":"A","quantity":-1000000001,"price":"0"`), 422, "body.lines[0].quantity"},
		"quantity beyond int64":       {"/movements", line(`"sku":"A","quantity":-99999999999999999999,"price":"0"`), 422, "quantity"},
		"quantity as text":            {"/movements", line(`"sku":"A","quantity":"many","price":"0"`), 422, "body.lines[0].quantity"},
		"price of a movement":         {"/movements", line(`"sku":"A","quantity":1,"price":"x"`), 422, "body.lines[0].price"},
		"a year of five digits":       {"/movements", `{"at":"9999-12-31T23:59:59-05:00","lines":[{"sku":"A","quantity":1,"price":"0"}]}`, 422, "body.at"},
		"such a year in a line":       {"/movements", line(`"sku":"A","quantity":1,"price":"0","at":"9999-12-31T23:59:59-05:00"`), 422, "body.lines[0].at"},
		"such a year in a batch":      {"/movements/batch", `[` + line(`"sku":"A","quantity":1,"price":"0","at":"9999-12-31T23:59:59-05:00"`) + `]`, 422, "body[0].lines[0].at"},
		"a year before the first":     {"/movements", `{"at":"0001-01-01T00:00:00+05:00","lines":[{"sku":"A","quantity":1,"price":"0"}]}`, 422, "body.at"},
		"more than the most":          {"/movements", line(`"sku":"A","quantity":-1,"price":"1000000000.001"`), 422, "body.lines"},
		"beyond int64 in a batch":     {"/movements/batch", `[` + line(`"sku":"A","quantity":1000000000,"price":"9000000000000000"`) + `]`, 422, "body[0].lines"},
		"control character in a line": {"/movements", line(`"sku":"A\u0007","quantity":1,"price":"0"`), 422, "body.lines[0].sku"},
		"unknown currency":            {"/movements", `{"currency":"XXX","lines":[{"sku":"A","quantity":1,"price":"0"}]}`, 422, "body.currency"},
		"over-long key":               {"/movements", `{"key":"` + strings.Repeat("k", 129) + `","lines":[{"sku":"A","quantity":1,"price":"0"}]}`, 422, "body.key"},
		"key missing in a batch":      {"/movements/batch", `[` + line(`"sku":"A","quantity":1,"price":"0"`) + `,{"lines":[{"sku":"A","quantity":1,"price":"0"}]}]`, 422, "body[1].key"},
		"bad line in a batch":         {"/movements/batch", `[` + line(`"sku":"A","quantity":1,"price":"0"`) + `,` + line(`"sku":"A","quantity":0,"price":"0"`) + `]`, 422, "body[1].lines[0].quantity"},
		"bad price in a batch":        {"/movements/batch", `[` + line(`"sku":"A","quantity":1,"price":"0"`) + `,` + line(`"sku":"A","quantity":1,"price":"x"`) + `]`, 422, "body[1].lines[0].price"},
		"too large":                   {"/products", `{"sku":"` + strings.Repeat("x", 3<<20) + `"}`, 413, "too large"},
		"batch too large":             {"/products/batch", `[{"sku":"` + strings.Repeat("x", 17<<20) + `"}]`, 413, "too large"},
	} {
		a := s.ask(http.MethodPost, c.path, c.body, "Content-Type", "application/json")
		var problem struct {
			Status int
			Title  string
			Errors []struct{ Location string }
		}
		if err := json.Unmarshal([]byte(a.text), &problem); err != nil || problem.Status != c.status || problem.Title == "" {
			t.Errorf("%s: not a problem: %s", name, a.text)
		}
		if a.StatusCode != c.status || !strings.Contains(a.text, c.names) || a.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: %d %s %.300s, want %d and %q", name, a.StatusCode, a.Header.Get("Content-Type"), a.text, c.status, c.names)
		}
		if strings.HasPrefix(c.names, "body") && (len(problem.Errors) == 0 || problem.Errors[0].Location != c.names) {
			t.Errorf("%s: names %v, want %s", name, problem.Errors, c.names)
		}
	}
	for path, status := range map[string]int{
		"/products?limit=0": 422, "/products?colour=red": 422, "/stock?limit=5001": 422, "/stock?from=" + long + "x": 422, "/products/" + long: 422,
		"/products/nobody": 404, "/stock/nobody": 404, "/nothing": 404, "/stock/%00": 404,
	} {
		if a := s.ask(http.MethodGet, path, ""); a.StatusCode != status || a.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: %d %s, want %d", path, a.StatusCode, a.text, status)
		}
	}
	if a := s.ask(http.MethodDelete, "/products", ""); a.StatusCode != 405 || a.Header.Get("Allow") == "" {
		t.Errorf("DELETE: %s, Allow %q", a.Status, a.Header.Get("Allow"))
	}
	if a := s.ask(http.MethodGet, "/stock/A", "", "Consistency-Token", "nonsense"); a.StatusCode != 422 || !strings.Contains(a.text, "header.Consistency-Token") {
		t.Errorf("a token that is none: %s %s", a.Status, a.text)
	}
	type page struct {
		Rows []struct {
			SKU            string
			Free, Received int64
		}
	}
	if got := get[page](s, "/stock", ""); len(got.Rows) != 1 || got.Rows[0].Free != 10 || got.Rows[0].Received != 10 {
		t.Errorf("bad input has changed the stock: %+v", got)
	}
}

func TestReadThatCannotSeeItsTokenSaysSo(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.stop()
	s.cfg.Wait = 1 // a nanosecond
	s.start()
	own := s.post("/products", `{"sku":"A","description":"","price":"1"}`)
	at := strings.LastIndex(own, ":")
	if a := s.ask(http.MethodGet, "/stock/A", "", "Consistency-Token", own[:at]+":999"); a.StatusCode != 503 || a.Header.Get("Retry-After") == "" {
		t.Errorf("a token of the future: %s %s, Retry-After %q", a.Status, a.text, a.Header.Get("Retry-After"))
	}
	parts := strings.Split(own, ":")
	parts[1] = strings.Repeat("0", len(parts[1]))
	if a := s.ask(http.MethodGet, "/stock/A", "", "Consistency-Token", strings.Join(parts, ":")); a.StatusCode != 409 || !strings.Contains(a.text, "history-lost") {
		t.Errorf("a token of another history: %s %s", a.Status, a.text)
	}
}

func TestServiceThatCannotStartSaysWhyAndHoldsNothing(t *testing.T) {
	t.Parallel()
	cfg := inventoryd.Config{Data: t.TempDir(), Order: "nonsense", Relaxed: true, Log: quiet}
	if _, err := inventoryd.New(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "nonsense") {
		t.Errorf("bad feed URL: %v", err)
	}
	cfg.Order = "http://127.0.0.1:1"
	s, err := inventoryd.New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if other, err := inventoryd.New(t.Context(), cfg); err == nil {
		_ = other.Close() // the test has failed
		t.Error("two services run on one data directory")
	}
	taken := cfg
	taken.Data, taken.Addr = t.TempDir(), s.Addr()
	if other, err := inventoryd.New(t.Context(), taken); err == nil || !strings.Contains(err.Error(), "port") {
		_ = other.Close() // the test has failed
		t.Errorf("a port in use: %v", err)
	}
	taken.Addr = ""
	if other, err := inventoryd.New(t.Context(), taken); err != nil {
		t.Errorf("a service that could not listen holds its database: %v", err)
	} else if err := other.Close(); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
