package orderd_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/freehold-go/freehold"
)

func TestBadInputIsAnsweredWithTheField(t *testing.T) {
	t.Parallel()
	s := setup(t)
	line := func(fields string) string { return `{"lines":[{` + fields + `}]}` }
	long := strings.Repeat("x", 65)
	for name, c := range map[string]struct {
		body   string
		status int
		names  string
	}{
		"not JSON":              {`{"lines":`, 400, "not JSON"},
		"text behind":           {line(`"sku":"A","quantity":1,"price":"1"`) + `x`, 400, "follows"},
		"empty":                 {``, 400, "required"},
		"an array":              {`[]`, 422, "body"},
		"unknown field":         {`{"colour":"red","lines":[{"sku":"A","quantity":1,"price":"1"}]}`, 422, "body.colour"},
		"unknown field in line": {line(`"sku":"A","quantity":1,"price":"1","colour":"red"`), 422, "body.lines[0].colour"},
		"no lines":              {`{"lines":[]}`, 422, "body.lines"},
		"lines missing":         {`{}`, 422, "lines"},
		"zero quantity":         {line(`"sku":"A","quantity":0,"price":"1"`), 422, "body.lines[0].quantity"},
		"negative quantity":     {line(`"sku":"A","quantity":-1,"price":"1"`), 422, "body.lines[0].quantity"},
		"quantity beyond int64": {line(`"sku":"A","quantity":99999999999999999999,"price":"1"`), 422, "quantity"},
		"fractional quantity":   {line(`"sku":"A","quantity":1.5,"price":"1"`), 422, "body.lines[0].quantity"},
		"price as a number":     {line(`"sku":"A","quantity":1,"price":1.5`), 422, "body.lines[0].price"},
		"price of four places":  {line(`"sku":"A","quantity":1,"price":"0.0001"`), 422, "body.lines[0].price"},
		"negative price":        {line(`"sku":"A","quantity":1,"price":"-1"`), 422, "body.lines[0].price"},
		"price missing":         {line(`"sku":"A","quantity":1`), 422, "price"},
		"unknown currency":      {`{"currency":"XXX","lines":[{"sku":"A","quantity":1,"price":"1"}]}`, 422, "body.currency"},
		"unknown policy":        {`{"policy":"some","lines":[{"sku":"A","quantity":1,"price":"1"}]}`, 422, "body.policy"},
		"unknown simulation":    {`{"simulate":"win","lines":[{"sku":"A","quantity":1,"price":"1"}]}`, 422, "body.simulate"},
		"deadline too long":     {`{"deadline_seconds":604801,"lines":[{"sku":"A","quantity":1,"price":"1"}]}`, 422, "body.deadline_seconds"},
		"negative deadline":     {`{"deadline_seconds":-1,"lines":[{"sku":"A","quantity":1,"price":"1"}]}`, 422, "body.deadline_seconds"},
		"over-long customer":    {`{"customer":"` + long + `","lines":[{"sku":"A","quantity":1,"price":"1"}]}`, 422, "body.customer"},
		"over-long sku":         {line(`"sku":"` + long + `","quantity":1,"price":"1"`), 422, "body.lines[0].sku"},
		"over-long key":         {`{"key":"` + strings.Repeat("k", 129) + `","lines":[{"sku":"A","quantity":1,"price":"1"}]}`, 422, "body.key"},
		"control character":     {line(`"sku":"A\u0000","quantity":1,"price":"1"`), 422, "body.lines[0].sku"},
		"a sum that overflows":  {line(`"sku":"A","quantity":1000000000,"price":"9000000000000"`), 422, "body.lines"},
		"the largest amount":    {line(`"sku":"A","quantity":1,"price":"9223372036854775.807","stocked":false`), 422, "body.lines"},
		"a sum beyond the most": {`{"lines":[{"sku":"A","quantity":1,"price":"1000000000"},{"sku":"A","quantity":1,"price":"0.001"}]}`, 422, "body.lines"},
		"a year of five digits": {`{"at":"9999-12-31T23:59:59-05:00","lines":[{"sku":"A","quantity":1,"price":"1"}]}`, 422, "body.at"},
		"such a year in a line": {line(`"sku":"A","quantity":1,"price":"1","at":"9999-12-31T23:59:59-05:00"`), 422, "body.lines[0].at"},
		"not a time":            {`{"at":"yesterday","lines":[{"sku":"A","quantity":1,"price":"1"}]}`, 422, "body.at"},
		"too large":             {`{"customer":"` + strings.Repeat("x", 3<<20) + `"}`, 413, "too large"},
	} {
		got := s.call(http.MethodPost, "/orders", c.body)
		if got.status != c.status || !strings.Contains(got.raw, c.names) {
			t.Errorf("%s: %d %.300s, want %d and %q", name, got.status, got.raw, c.status, c.names)
		}
		if kind := got.header.Get("Content-Type"); kind != "application/problem+json" {
			t.Errorf("%s: content type %s", name, kind)
		}
	}
	for path, status := range map[string]int{
		"/orders?status=lost": 422, "/orders?limit=0": 422, "/orders?colour=red": 422, "/reports/sales?by=mood": 422, "/reports/sales": 422,
		"/orders/" + long: 422, "/orders/x?until=paid&wait=1h": 422, "/orders/x?until=paid&wait=soon": 422, "/nothing": 404,
		"/orders/%00": 404, "/orders/%F0%9F%98%80": 404,
	} {
		if got := s.call(http.MethodGet, path, ""); got.status != status {
			t.Errorf("%s: %d %s, want %d", path, got.status, got.raw, status)
		}
	}
	for method, path := range map[string]string{http.MethodDelete: "/orders", http.MethodPut: "/reports/sales"} {
		if got := s.want(405, s.call(method, path, "")); got.header.Get("Allow") == "" {
			t.Errorf("%s %s: no Allow", method, path)
		}
	}
	if got := s.get(200, "/orders"); len(got.body["orders"].([]any)) != 0 {
		t.Errorf("bad input has placed orders: %s", got.raw)
	}
}

// TestNoOrderStopsTheReportsForTheOthers places the most that an order may come to, and
// tries more: what everything adds up to goes on.
func TestNoOrderStopsTheReportsForTheOthers(t *testing.T) {
	t.Parallel()
	s := setup(t)
	order := func(price string) string {
		return `{"lines":[{"sku":"X","quantity":1,"price":"` + price + `","stocked":false}]}`
	}
	if a := s.call(http.MethodPost, "/orders", order("9223372036854775.807")); a.status != 422 || !strings.Contains(a.raw, "1000000000.000") {
		t.Errorf("the largest amount: %d %s, want 422 that says what is allowed", a.status, a.raw)
	}
	last := s.post(201, "/orders", order("1000000000"))
	for range 10 {
		last = s.post(201, "/orders", order("0.001"))
	}
	paid := s.get(200, "/orders/"+text(last.body["id"])+"?until=paid&wait=20s", "Consistency-Token", last.header.Get("Consistency-Token"))
	sum := s.get(200, "/reports/summary", "Consistency-Token", paid.header.Get("Consistency-Token"))
	if text(sum.body["gross"]) != "1000000000.010" || text(sum.body["confirmed"]) != "11" {
		t.Errorf("what everything adds up to: %s", sum.raw)
	}
	parked := s.get(200, "/operator/parked", "Authorization", "Bearer "+s.cfg.Token)
	if len(parked.list) != 0 {
		t.Errorf("parked: %s", parked.raw)
	}
}

func TestKeyMeansOneOrder(t *testing.T) {
	t.Parallel()
	s := setup(t)
	other := strings.Replace(simple, `"quantity":3`, `"quantity":4`, 1)
	spaced := strings.ReplaceAll(simple, ",", " ,\n")
	first := s.post(201, "/orders", simple, "Idempotency-Key", "k")
	if again := s.post(200, "/orders", spaced, "Idempotency-Key", "k"); again.body["id"] != first.body["id"] || again.body["repeated"] != true || again.header.Get("Consistency-Token") == "" {
		t.Errorf("again: %s", again.raw)
	}
	if got := s.post(409, "/orders", other, "Idempotency-Key", "k"); !strings.Contains(got.raw, "Idempotency-Key") {
		t.Errorf("another body: %s", got.raw)
	}
	inBody := s.post(200, "/orders", `{"key":"k",`+simple[1:])
	if inBody.body["id"] != first.body["id"] {
		t.Errorf("the key in the body: %s", inBody.raw)
	}
	s.post(422, "/orders", `{"key":"k",`+simple[1:], "Idempotency-Key", "other")
	if a, b := s.post(201, "/orders", simple), s.post(201, "/orders", simple); a.body["id"] == b.body["id"] {
		t.Error("without a key two orders are one")
	}
	back := `{"lines":[{"sku":"A","quantity":1,"price":"1"}]}`
	r := s.post(201, "/returns", back, "Idempotency-Key", "k")
	if again := s.post(200, "/returns", back, "Idempotency-Key", "k"); again.body["id"] != r.body["id"] || r.body["id"] == first.body["id"] {
		t.Errorf("the same return: %s", again.raw)
	}
	s.post(409, "/returns", strings.Replace(back, `"1"`, `"2"`, 1), "Idempotency-Key", "k")
}

// FIELD row 15 from the side of orders: racing requests under one key are one order.
func TestRacingRequestsUnderOneKeyPlaceOneOrder(t *testing.T) {
	t.Parallel()
	s := setup(t)
	const clients = 16
	var all sync.WaitGroup
	status := make([]int, clients)
	ids := make([]string, clients)
	for i := range clients {
		all.Go(func() {
			a := s.call(http.MethodPost, "/orders", simple, "Idempotency-Key", "race")
			status[i], ids[i] = a.status, text(a.body["id"])
		})
	}
	all.Wait()
	created := 0
	for i := range clients {
		if status[i] == 201 {
			created++
		}
		if ids[i] != ids[0] || status[i] != 201 && status[i] != 200 {
			t.Errorf("client %d: %d %s", i, status[i], ids[i])
		}
	}
	if created != 1 {
		t.Errorf("%d of %d requests placed the order", created, clients)
	}
}

func order(key, sku string) string {
	return fmt.Sprintf(`{"key":%q,"customer":"c1","lines":[{"sku":%q,"quantity":1,"price":"1"}]}`, key, sku)
}

func TestBatchIsPlacedInItsOrderAndAnswersEachCommand(t *testing.T) {
	t.Parallel()
	s := setup(t)
	var array, lines []string
	for i := range 200 {
		o := order(fmt.Sprint("k", i), fmt.Sprintf("S%0900d", i)[:60])
		if i%2 == 0 {
			array = append(array, o)
		} else {
			lines = append(lines, o)
		}
	}
	first := s.post(201, "/orders/batch", "["+strings.Join(array, ",")+"]")
	second := s.post(201, "/orders/batch", strings.Join(lines, "\n")+"\n\n", "Content-Type", "application/x-ndjson")
	if len(first.list) != 100 || len(second.list) != 100 {
		t.Fatalf("%d and %d answers, want 100 each", len(first.list), len(second.list))
	}
	var ids []string
	token := second.header.Get("Consistency-Token")
	for after := "0"; ; {
		page := s.get(200, "/orders?customer=c1&limit=70&after="+after, "Consistency-Token", token)
		for _, o := range page.body["orders"].([]any) {
			ids = append(ids, text(o.(map[string]any)["id"]))
		}
		if page.body["after"] == nil {
			break
		}
		after = text(page.body["after"])
	}
	if len(ids) != 200 {
		t.Fatalf("%d orders listed, want 200", len(ids))
	}
	for i, o := range append(first.list, second.list...) {
		if o["id"] != ids[i] || o["status"] != "placed" {
			t.Fatalf("order %d of the batches is %v, listed is %s", i, o, ids[i])
		}
	}
	again := s.post(201, "/orders/batch", "["+strings.Join(array, ",")+"]")
	for i, o := range again.list {
		if o["repeated"] != true || o["id"] != ids[i] {
			t.Fatalf("order %d sent again: %v", i, o)
		}
	}
}

func TestRefusedCommandsOfABatchDoNotKeepTheOthersOut(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.post(201, "/orders", order("known", "A"))
	mixed := strings.Join([]string{
		order("one", "A"), `{"lines":`, order("known", "B"), `{"key":"two","colour":"red","lines":[]}`, `{"lines":[{"sku":"A","quantity":1,"price":"1"}]}`,
		order("three", "A"), order("three", "A"), order("three", "B"), order("known", "A"),
	}, "\n")
	got := s.post(207, "/orders/batch", mixed)
	want := []string{"placed", "400", "409", "422", "placed", "placed", "repeated", "409", "repeated"}
	for i, o := range got.list {
		is := text(o["status"])
		if o["repeated"] == true {
			is = "repeated"
		}
		if e, refused := o["error"].(map[string]any); refused {
			raw, _ := json.Marshal(e["status"])
			is = string(raw)
		}
		if is != want[i] {
			t.Errorf("command %d: %v, want %s", i, o, want[i])
		}
	}
	if !strings.Contains(got.raw, "body[3].colour") {
		t.Errorf("the field is not named: %s", got.raw)
	}
	s.post(400, "/orders/batch", `[{"key":"x"`)
	s.post(400, "/orders/batch", `[] []`)
	s.post(422, "/orders/batch", `[]`)
	s.post(422, "/orders/batch", strings.Repeat(order("x", "A")+"\n", 1001))
	s.post(413, "/orders/batch", strings.Repeat(" ", 17<<20))
}

func TestReadsHonourTokens(t *testing.T) {
	t.Parallel()
	s := setup(t)
	own, err := freehold.ParseToken(s.post(201, "/orders", simple).header.Get("Consistency-Token"))
	if err != nil {
		t.Fatal(err)
	}
	at := own.Of("order")[0]
	for _, path := range []string{"/orders", "/orders/x", "/reports/summary", "/reports/sales?by=day", "/reports/digest?by=day"} {
		s.want(422, s.call(http.MethodGet, path, "", "Consistency-Token", "nonsense"))
		at := at
		at.Position = 1
		at.Epoch = "another"
		if got := s.call(http.MethodGet, path, "", "Consistency-Token", freehold.NewToken(at).String()); got.status != 409 || !strings.Contains(got.raw, "history-lost") {
			t.Errorf("%s with the token of a lost history: %d %s", path, got.status, got.raw)
		}
	}
}

func TestReadThatIsBehindItsTokenSaysSo(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.stop()
	s.cfg.Wait = 50_000_000 // 50 ms
	s.start()
	own, err := freehold.ParseToken(s.post(201, "/orders", simple).header.Get("Consistency-Token"))
	if err != nil {
		t.Fatal(err)
	}
	at := own.Of("order")[0]
	at.Position += 1000
	got := s.get(503, "/orders", "Consistency-Token", freehold.NewToken(at).String())
	if got.header.Get("Retry-After") == "" {
		t.Error("503 without Retry-After")
	}
	_, head, err := s.inv.Journal().Bounds(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	head.Position += 1000
	s.get(503, "/reports/summary", "Consistency-Token", freehold.NewToken(head).String())
}

func TestInterfaceIsDescribed(t *testing.T) {
	t.Parallel()
	s := setup(t)
	doc := s.get(200, "/openapi.json")
	if v := text(doc.body["openapi"]); !strings.HasPrefix(v, "3.1") {
		t.Errorf("openapi %s, want 3.1", v)
	}
	paths := doc.body["paths"].(map[string]any)
	for _, p := range []string{"/orders", "/orders/batch", "/orders/{id}", "/orders/{id}/cancel", "/orders/{id}/ship", "/orders/{id}/return", "/returns", "/returns/batch", "/reports/sales", "/reports/summary", "/reports/digest"} {
		if paths[p] == nil {
			t.Errorf("%s is not described", p)
		}
	}
	if !strings.Contains(doc.raw, `"OrderIn"`) || !strings.Contains(doc.raw, "application/x-ndjson") {
		t.Errorf("bodies are not described: %.500s", doc.raw)
	}
	if !strings.Contains(doc.raw, "1000000000.000") {
		t.Error("the most that lines may come to is not described")
	}
	s.get(200, "/healthz")
	s.get(401, "/feed?after=0")
	if got := s.call(http.MethodGet, "/readyz", ""); got.status != 200 {
		t.Errorf("readyz: %d %s", got.status, got.raw)
	}
}
