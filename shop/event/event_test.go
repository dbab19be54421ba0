package event_test

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/shop/event"
)

var update = flag.Bool("update", false, "write the golden files of new types")

// samples is one event of each type, with every field set.
func samples() []freehold.Event {
	at := time.Date(2026, 1, 2, 3, 4, 0, 0, time.UTC)
	later := at.Add(time.Minute)
	trade := event.Trade{Reference: "R-1", Customer: "17850", Country: "EIRE", Currency: "GBP", At: at}
	lines := []event.Line{{SKU: "85123A", Description: "LAMP", Quantity: 6, Price: 2550, Stocked: true}, {SKU: "POST", Quantity: 1, Price: 1, At: &later}}
	return []freehold.Event{
		event.OrderPlaced{Order: "o", Trade: trade, Policy: event.Partial, Deadline: later, Simulate: "late", Body: "ab", Lines: lines, Total: 15301},
		event.OrderConfirmed{Order: "o", Trade: trade, Lines: lines, Dropped: 1, Amount: 15301},
		event.OrderRejected{Order: "o", Code: "sold-out", Reason: "no", Total: 15301, Goods: 2, Dropped: 1},
		event.OrderPaid{Order: "o", Amount: 15301},
		event.OrderCancelled{Order: "o", Trade: trade, Code: "cancelled", Reason: "no", Lines: lines, Amount: 15301},
		event.OrderShipped{Order: "o"},
		event.OrderReturned{Return: "r", Order: "o", Trade: trade, Body: "ab", Lines: lines, Amount: 15301, Complete: true},
		event.ProductDefined{SKU: "85123A", Description: "LAMP", Price: 2550, Received: 10},
		event.StockReserved{Order: "o", Dropped: []int{1}},
		event.StockRejected{Order: "o", Code: "sold-out", SKU: "85123A", Reason: "no"},
		event.StockCommitted{Order: "o"},
		event.StockReleased{Order: "o"},
		event.StockRestocked{Order: "o", Return: "r"},
		event.StockAdjusted{Movement: "m", Trade: trade, Body: "ab", Lines: lines},
		event.CallRequested{Order: "o", Step: "capture", Amount: 15301, Simulate: "late"},
		event.PaymentAuthorized{Order: "o", Amount: 15301},
		event.PaymentDeclined{Order: "o", Reason: "no"},
		event.PaymentCaptured{Order: "o", Amount: 15301},
		event.PaymentCaptureFailed{Order: "o", Reason: "no"},
		event.PaymentVoided{Order: "o", Amount: 15301},
		event.PaymentRefunded{Order: "o", Amount: 15301},
		event.InvoiceIssued{Order: "o", Series: "INV", Number: 7, Amount: 15301},
		event.CreditNoteIssued{Order: "o", Return: "r", Series: "CN", Number: 7, Amount: 15301},
		event.LedgerAdjusted{Adjustment: "a", Trade: trade, Body: "ab", Lines: lines},
	}
}

func TestPublishedEventsKeepTheirForm(t *testing.T) {
	t.Parallel()
	catalogs := map[string]bool{}
	for _, open := range []func() (*freehold.Catalog, error){event.OrderTypes, event.InventoryTypes, event.BillingTypes} {
		c, err := open()
		if err != nil {
			t.Fatal(err)
		}
		for _, typ := range c.Types() {
			catalogs[typ.String()] = true
		}
	}
	for _, e := range samples() {
		name := e.EventType().String()
		delete(catalogs, name)
		got, err := json.MarshalIndent(e, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join("testdata", name+".json")
		want, err := os.ReadFile(path)
		if os.IsNotExist(err) && *update {
			if err := os.WriteFile(path, append(got, '\n'), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err != nil {
			t.Fatalf("%v: run the test with -update once for a new type", err)
		}
		if string(want) != string(got)+"\n" {
			t.Errorf("%s has changed: add a new version and an upcast instead\n got %s\nwant %s", name, got, want)
		}
	}
	for name := range catalogs {
		t.Errorf("%s has no sample", name)
	}
}
