package event_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/shop/event"
)

func catalogs(t testing.TB) *freehold.Catalog {
	t.Helper()
	all, err := event.OrderTypes()
	if err != nil {
		t.Fatal(err)
	}
	for _, open := range []func() (*freehold.Catalog, error){event.InventoryTypes, event.BillingTypes} {
		c, err := open()
		if err == nil {
			all, err = all.Merge(c)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// sameJSON checks that an event is stored as encoding/json would store it, and read
// back the same, also from JSON in another form.
func sameJSON(t interface {
	Helper()
	Fatalf(string, ...any)
}, c *freehold.Catalog, e freehold.Event) {
	t.Helper()
	want, err := json.Marshal(e)
	if err != nil {
		t.Fatalf("%T: %v", e, err)
	}
	got, _, err := c.Encode(e)
	if err != nil || string(got) != string(want) {
		t.Fatalf("%T is stored as\n%s (%v), encoding/json gives\n%s", e, got, err, want)
	}
	var tree map[string]json.RawMessage // another order of fields
	if err := json.Unmarshal(want, &tree); err != nil {
		t.Fatalf("%v", err)
	}
	shuffled, err := json.MarshalIndent(tree, " ", "  ")
	if err != nil {
		t.Fatalf("%v", err)
	}
	tree["one_more"] = json.RawMessage(`{"a":[1,"b"]}`)
	longer, err := json.Marshal(tree)
	if err != nil {
		t.Fatalf("%v", err)
	}
	for _, raw := range [][]byte{want, shuffled, longer} {
		back, err := c.Decode(e.EventType(), raw)
		if err != nil {
			t.Fatalf("%T from %s: %v", e, raw, err)
		}
		again, err := json.Marshal(back)
		if err != nil || string(again) != string(want) {
			t.Fatalf("%s is read as\n%s (%v), want\n%s", raw, again, err, want)
		}
	}
}

func TestEventsAreStoredAsEncodingJSONWouldStoreThem(t *testing.T) {
	t.Parallel()
	c := catalogs(t)
	zero := map[string]bool{}
	for _, e := range samples() {
		sameJSON(t, c, e)
		back, err := c.Decode(e.EventType(), []byte("{}"))
		if err != nil {
			t.Fatal(err)
		}
		zero[e.EventType().String()] = true
		sameJSON(t, c, back) // every field empty
	}
	if len(zero) != len(c.Types()) {
		t.Errorf("%d types checked of %d", len(zero), len(c.Types()))
	}
}

func TestAnyEventIsReadAsItWasWritten(t *testing.T) {
	t.Parallel()
	c := catalogs(t)
	words := rapid.OneOf(rapid.StringN(0, 12, -1), rapid.StringMatching(`[A-Z0-9 <>&"\\/\x{2028}é\x00-\x1f]{0,12}`))
	moments := rapid.Custom(func(t *rapid.T) time.Time {
		return time.UnixMicro(rapid.Int64Range(-62135596800_000_000, 253402300799_999_999).Draw(t, "time")).UTC()
	})
	amounts := rapid.Custom(func(t *rapid.T) event.Money { return event.Money(rapid.Int64().Draw(t, "amount")) })
	lines := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) event.Line {
		l := event.Line{SKU: words.Draw(t, "sku"), Description: words.Draw(t, "description"), Quantity: rapid.Int64().Draw(t, "quantity"),
			Price: amounts.Draw(t, "price"), Stocked: rapid.Bool().Draw(t, "stocked")}
		if rapid.Bool().Draw(t, "timed") {
			at := moments.Draw(t, "at")
			l.At = &at
		}
		return l
	}), 0, 4)
	trades := rapid.Custom(func(t *rapid.T) event.Trade {
		return event.Trade{Reference: words.Draw(t, "reference"), Customer: words.Draw(t, "customer"), Country: words.Draw(t, "country"), Currency: words.Draw(t, "currency"), At: moments.Draw(t, "at")}
	})
	rapid.Check(t, func(t *rapid.T) {
		w := func() string { return words.Draw(t, "text") }
		m := func() event.Money { return amounts.Draw(t, "money") }
		n := rapid.Int().Draw(t, "number")
		for _, e := range []freehold.Event{
			event.OrderPlaced{Order: w(), Trade: trades.Draw(t, "trade"), Policy: w(), Deadline: moments.Draw(t, "deadline"), Simulate: w(), Body: w(), Lines: lines.Draw(t, "lines"), Total: m()},
			event.OrderConfirmed{Order: w(), Trade: trades.Draw(t, "trade"), Lines: lines.Draw(t, "lines"), Dropped: n, Amount: m()},
			event.OrderRejected{Order: w(), Code: w(), Reason: w(), Total: m(), Goods: n, Dropped: -n},
			event.OrderCancelled{Order: w(), Trade: trades.Draw(t, "trade"), Code: w(), Reason: w(), Lines: lines.Draw(t, "lines"), Amount: m()},
			event.OrderReturned{Return: w(), Order: w(), Trade: trades.Draw(t, "trade"), Body: w(), Lines: lines.Draw(t, "lines"), Amount: m(), Complete: n%2 == 0},
			event.StockReserved{Order: w(), Dropped: rapid.SliceOf(rapid.Int()).Draw(t, "dropped")},
			event.ProductDefined{SKU: w(), Description: w(), Price: m(), Received: int64(n)},
		} {
			sameJSON(t, c, e)
		}
	})
}

// Damaged JSON is an error, as it is for encoding/json.
func TestDamagedEventsAreRefused(t *testing.T) {
	t.Parallel()
	c := catalogs(t)
	e := samples()[0]
	raw, _, err := c.Encode(e)
	if err != nil {
		t.Fatal(err)
	}
	want, err := c.Decode(e.EventType(), raw)
	if err != nil {
		t.Fatal(err)
	}
	for cut := range raw {
		if got, err := c.Decode(e.EventType(), raw[:cut]); err == nil {
			t.Fatalf("cut off at %d: read as %+v", cut, got)
		}
	}
	for i := range raw {
		damaged := append([]byte(nil), raw...)
		damaged[i] ^= 0x15
		got, err := c.Decode(e.EventType(), damaged)
		var slow event.OrderPlaced
		if slowErr := json.Unmarshal(damaged, &slow); (err == nil) != (slowErr == nil) {
			t.Fatalf("byte %d changed: %v, encoding/json says %v: %s", i, err, slowErr, damaged)
		} else if err == nil {
			if diff := cmp.Diff(slow, got); diff != "" {
				t.Fatalf("byte %d changed:\n%s", i, diff)
			}
		}
	}
	if diff := cmp.Diff(e, want); diff != "" {
		t.Error(diff)
	}
}

// benchOrder is an order of a number of lines.
func benchOrder(lines int) event.OrderPlaced {
	at := time.Date(2010, 12, 1, 8, 26, 0, 0, time.UTC)
	e := event.OrderPlaced{Order: "0d3b4a5e-6a57-5d0b-9a6b-000000000001", Policy: event.AllOrNothing, Total: 397800, Body: "0123456789abcdef0123456789abcdef", Deadline: at,
		Trade: event.Trade{Reference: "536365", Customer: "17850", Country: "United Kingdom", Currency: "GBP", At: at}}
	for range lines {
		e.Lines = append(e.Lines, event.Line{SKU: "85123A", Description: "WHITE HANGING HEART T-LIGHT HOLDER", Quantity: 6, Price: 2550, Stocked: true})
	}
	return e
}

func BenchmarkOrderPlaced(b *testing.B) {
	c := catalogs(b)
	for name, e := range map[string]event.OrderPlaced{"3 lines": benchOrder(3), "26 lines": benchOrder(26)} {
		raw, _, err := c.Encode(e)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(name+"/encode", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, _, _ = c.Encode(e)
			}
		})
		b.Run(name+"/decode", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, _ = c.Decode(e.EventType(), raw)
			}
		})
		b.Run(name+"/encoding-json encode", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_, _ = json.Marshal(e)
			}
		})
		b.Run(name+"/encoding-json decode", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				var e event.OrderPlaced
				_ = json.Unmarshal(raw, &e)
			}
		})
	}
}
