package audit_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/journal"
	"github.com/freehold-go/freehold/memory"
	"github.com/freehold-go/freehold/shop/audit"
	"github.com/freehold-go/freehold/shop/event"
	"github.com/freehold-go/freehold/shop/inventory"
	"github.com/freehold-go/freehold/shop/orderdb"
)

var trade = event.Trade{Customer: "17850", Country: "EIRE", Currency: "GBP", At: time.Date(2011, 1, 2, 3, 4, 5, 0, time.UTC)}

func line(sku string, quantity int64, price event.Money) event.Line {
	return event.Line{SKU: sku, Quantity: quantity, Price: price, Stocked: true}
}

// books are what the three services have recorded and what their read sides say.
type books struct {
	order, inventory, billing []freehold.Event
	summary                   orderdb.Summary
	stock                     map[string]inventory.Stock
	billed                    audit.Books
	verified                  map[freehold.Source]error
	status                    func(all []follow.Status)
}

// whole is a shop in which everything holds: order a was paid, and a part of it came
// back; b was rejected for want of stock; c was cancelled after it had been paid;
// goods came back without an order, some were written off, and an amount was booked
// by hand. Amounts are in thousandths.
func whole() *books {
	lines := []event.Line{line("NAIL", 8, 125), {SKU: "POST", Quantity: 1, Price: 500}}
	return &books{
		order: []freehold.Event{
			event.OrderPlaced{Order: "a", Trade: trade, Lines: lines, Total: 1500},
			event.OrderConfirmed{Order: "a", Trade: trade, Lines: lines, Amount: 1500},
			event.OrderPaid{Order: "a", Amount: 1500},
			event.OrderShipped{Order: "a"},
			event.OrderReturned{Return: "r1", Order: "a", Trade: trade, Lines: []event.Line{line("NAIL", 2, 125)}, Amount: 250},
			event.OrderPlaced{Order: "b", Trade: trade, Lines: []event.Line{line("GOLD", 1, 9000)}, Total: 9000},
			event.OrderRejected{Order: "b", Code: "sold-out", Total: 9000},
			event.OrderPlaced{Order: "c", Trade: trade, Lines: lines, Total: 1500},
			event.OrderConfirmed{Order: "c", Trade: trade, Lines: lines, Amount: 1500},
			event.OrderPaid{Order: "c", Amount: 1500},
			event.OrderCancelled{Order: "c", Trade: trade, Lines: lines, Amount: 1500},
			event.OrderReturned{Return: "r2", Trade: trade, Lines: []event.Line{line("NAIL", 1, 125)}, Amount: 125},
		},
		inventory: []freehold.Event{
			event.ProductDefined{SKU: "NAIL", Received: 100}, event.ProductDefined{SKU: "GOLD"},
			event.StockReserved{Order: "a"}, event.StockCommitted{Order: "a"},
			event.StockRestocked{Order: "a", Return: "r1"},
			event.StockRejected{Order: "b", Code: "sold-out"},
			event.StockReserved{Order: "c"}, event.StockCommitted{Order: "c"}, event.StockRestocked{Order: "c"},
			event.StockRestocked{Return: "r2"},
			event.StockAdjusted{Movement: "m", Trade: trade, Lines: []event.Line{line("NAIL", 5, 0)}},
		},
		billing: []freehold.Event{
			event.PaymentAuthorized{Order: "a", Amount: 1500}, event.PaymentCaptured{Order: "a", Amount: 1500}, event.InvoiceIssued{Order: "a", Series: "F", Number: 1, Amount: 1500},
			event.CreditNoteIssued{Order: "a", Return: "r1", Series: "C", Number: 1, Amount: 250}, event.PaymentRefunded{Order: "a", Amount: 250},
			event.PaymentAuthorized{Order: "b", Amount: 9000}, event.PaymentVoided{Order: "b", Amount: 9000},
			event.PaymentAuthorized{Order: "c", Amount: 1500}, event.PaymentCaptured{Order: "c", Amount: 1500}, event.InvoiceIssued{Order: "c", Series: "F", Number: 2, Amount: 1500},
			event.CreditNoteIssued{Order: "c", Series: "C", Number: 2, Amount: 1500}, event.PaymentRefunded{Order: "c", Amount: 1500},
			event.CreditNoteIssued{Return: "r2", Series: "C", Number: 3, Amount: 125},
			event.LedgerAdjusted{Adjustment: "x", Trade: trade, Lines: []event.Line{{SKU: "DEBT", Quantity: 1, Price: -40}}},
		},
		summary: orderdb.Summary{Placed: 3, Confirmed: 2, Paid: 2, Rejected: 1, Cancelled: 1, Gross: 1500, Returns: -375, Adjustments: -40, Net: 1085},
		stock: map[string]inventory.Stock{
			"NAIL": {Free: 90, Shipped: 8, Received: 100, Returned: 3, Left: 5},
			"GOLD": {},
		},
		verified: map[freehold.Source]error{event.SourceOrder: nil, event.SourceInventory: nil, event.SourceBilling: nil},
		billed:   audit.Books{Billed: 3000, Captured: 3000, Refunded: 1750, CreditNotes: 1875, Adjustments: -40, Net: 1085, Invoices: 2, Credits: 3},
	}
}

// source is a journal that holds events.
func source(t *testing.T, name freehold.Source, types func() (*freehold.Catalog, error), events []freehold.Event) *journal.Journal {
	t.Helper()
	catalog, err := types()
	if err != nil {
		t.Fatal(err)
	}
	db, err := memory.Open(t.Context(), name, catalog, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	for _, e := range events {
		if _, err := db.Append(t.Context(), freehold.Write{Stream: "all", Expect: freehold.Any, Events: []freehold.Event{e}}); err != nil {
			t.Fatal(err)
		}
	}
	return db.Journal()
}

func (b *books) shop(t *testing.T) audit.Shop {
	t.Helper()
	s := audit.Shop{
		Order:     source(t, event.SourceOrder, event.OrderTypes, b.order),
		Inventory: source(t, event.SourceInventory, event.InventoryTypes, b.inventory),
		Billing:   source(t, event.SourceBilling, event.BillingTypes, b.billing),
		Summary:   b.summary, Stock: b.stock, Billed: b.billed, Verified: b.verified,
	}
	for _, from := range []follow.Source{s.Order, s.Inventory, s.Billing} {
		_, head, err := from.Bounds(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		s.Followers = append(s.Followers, follow.Status{Follower: "f", Source: from.Name(), State: follow.Running, Mark: head},
			follow.Status{Follower: "relay", Source: from.Name(), State: follow.Retrying}) // what a broker holds does not count
	}
	if b.status != nil {
		b.status(s.Followers)
	}
	return s
}

func TestAShopInWhichEverythingHolds(t *testing.T) {
	t.Parallel()
	report, err := audit.Run(t.Context(), whole().shop(t))
	if err != nil || len(report.Violations) > 0 || report.Checks < 100 {
		t.Errorf("%d checks, %v, %v", report.Checks, report.Violations, err)
	}
}

// TestEachSeriesBeginsWithItsFirstNumber: after a fork, Billing numbers in a new series.
func TestEachSeriesBeginsWithItsFirstNumber(t *testing.T) {
	t.Parallel()
	b := whole()
	b.billing[9] = event.InvoiceIssued{Order: "c", Series: "F7", Number: 1, Amount: 1500}
	b.billing[10] = event.CreditNoteIssued{Order: "c", Series: "C7", Number: 1, Amount: 1500}
	b.billing[12] = event.CreditNoteIssued{Return: "r2", Series: "C7", Number: 2, Amount: 125}
	report, err := audit.Run(t.Context(), b.shop(t))
	if err != nil || len(report.Violations) > 0 {
		t.Errorf("%v, %v", report.Violations, err)
	}
}

// without removes the nth event that is like e, from 0.
func without[E freehold.Event](events []freehold.Event, n int) []freehold.Event {
	for i, e := range events {
		if _, same := e.(E); same {
			if n--; n < 0 {
				return slices.Delete(slices.Clone(events), i, i+1)
			}
		}
	}
	panic(fmt.Sprintf("there is no event %T", *new(E)))
}

// TestEveryViolationIsFound plants one violation at a time, at least one for each
// check, and wants it named.
func TestEveryViolationIsFound(t *testing.T) {
	t.Parallel()
	more := func(to *[]freehold.Event, events ...freehold.Event) { *to = append(*to, events...) }
	for name, c := range map[string]struct {
		plant func(b *books)
		says  string
	}{
		"an order without its beginning": {func(b *books) { b.order = without[event.OrderPlaced](b.order, 0) }, "order a: placed 0 times"},
		"an order without an end":        {func(b *books) { b.order = without[event.OrderRejected](b.order, 0) }, "order b: has no end"},
		"an order paid twice":            {func(b *books) { more(&b.order, event.OrderPaid{Order: "a", Amount: 1500}) }, "order a: confirmed 1, paid 2"},
		"both ends":                      {func(b *books) { more(&b.order, event.OrderRejected{Order: "a"}) }, "order a: both confirmed and rejected"},
		"a wrong sum": {func(b *books) {
			b.order[1] = event.OrderConfirmed{Order: "a", Trade: trade, Lines: []event.Line{line("NAIL", 8, 125)}, Amount: 1500}
		}, "order a: confirmed for 1.500, its lines add up to 1.000"},
		"two answers of Inventory":       {func(b *books) { more(&b.inventory, event.StockReserved{Order: "a"}) }, "order a: Inventory answered 2 times"},
		"two answers of Billing":         {func(b *books) { more(&b.billing, event.PaymentDeclined{Order: "a"}) }, "order a: Billing answered 2 times"},
		"a double charge":                {func(b *books) { more(&b.billing, event.PaymentCaptured{Order: "a", Amount: 1500}) }, "order a: 2 captures, 1 invoices"},
		"a charge of another amount":     {func(b *books) { b.billing[1] = event.PaymentCaptured{Order: "a", Amount: 1499} }, "order a: paid 1.500, captured 1.499"},
		"paid without an invoice":        {func(b *books) { b.billing = without[event.InvoiceIssued](b.billing, 0) }, "order a: paid 1.500, invoiced 0.000"},
		"paid without goods":             {func(b *books) { b.inventory = without[event.StockCommitted](b.inventory, 0) }, "order a: paid, and its stock is committed 0"},
		"goods back without money":       {func(b *books) { b.billing = without[event.PaymentRefunded](b.billing, 0) }, "order a: goods for 0.250 came back, 0.250 were credited, 0.000 refunded"},
		"goods back without credit":      {func(b *books) { b.billing = without[event.CreditNoteIssued](b.billing, 0) }, "order a: goods for 0.250 came back, 0.000 were credited"},
		"cancelled without money back":   {func(b *books) { b.billing = without[event.PaymentRefunded](b.billing, 1) }, "order c: it did not go through, and 0.000 of 1.500 were refunded"},
		"cancelled without credit":       {func(b *books) { b.billing = without[event.CreditNoteIssued](b.billing, 1) }, "order c: it did not go through, and 0.000 of 1.500 were credited"},
		"cancelled and kept":             {func(b *books) { b.inventory = without[event.StockRestocked](b.inventory, 1) }, "order c: cancelled, and its stock is reserved 1, committed 1, restocked 0"},
		"rejected and charged":           {func(b *books) { more(&b.billing, event.PaymentCaptured{Order: "b"}) }, "order b: rejected, with 1 captures"},
		"rejected and reserved for ever": {func(b *books) { b.inventory[5] = event.StockReserved{Order: "b"} }, "order b: rejected, and its stock is reserved 1, released 0"},
		"rejected and held for ever":     {func(b *books) { b.billing = without[event.PaymentVoided](b.billing, 0) }, "order b: rejected, and its payment is authorised 1, voided 0"},
		"a gap in invoice numbers":       {func(b *books) { b.billing[9] = event.InvoiceIssued{Order: "c", Series: "F", Number: 3, Amount: 1500} }, "invoice numbers, series F: 3 stands where 2 should"},
		"an invoice number twice":        {func(b *books) { b.billing[9] = event.InvoiceIssued{Order: "c", Series: "F", Number: 1, Amount: 1500} }, "invoice numbers, series F: 1 stands where 2 should"},
		"a gap in credit note numbers": {func(b *books) {
			b.billing[10] = event.CreditNoteIssued{Order: "c", Series: "C", Number: 5, Amount: 1500}
		}, "credit note numbers, series C: 3 stands where 2 should"},
		"a return that is not credited": {func(b *books) { b.billing = without[event.CreditNoteIssued](b.billing, 2) }, "return r2: recorded 1 times for 0.125, credited 0 times"},
		"a return recorded twice":       {func(b *books) { more(&b.order, b.order[11]) }, "return r2: recorded 2 times"},
		"books: captured":               {func(b *books) { b.billed.Captured++ }, "Billing's books say 3.001 captured"},
		"books: billed":                 {func(b *books) { b.billed.Billed++ }, "Billing's books say 3.001 billed"},
		"books: refunded":               {func(b *books) { b.billed.Refunded++ }, "Billing's books say 1.751 refunded"},
		"books: credited":               {func(b *books) { b.billed.CreditNotes++ }, "Billing's books say 1.876 credited"},
		"books: adjusted":               {func(b *books) { b.billed.Adjustments++ }, "Billing's books say -0.039 adjusted"},
		"books: invoices":               {func(b *books) { b.billed.Invoices++ }, "Billing's books say 3 invoices"},
		"books: credit notes":           {func(b *books) { b.billed.Credits++ }, "Billing's books say 4 credit notes"},
		"books: net":                    {func(b *books) { b.billed.Net++ }, "Billing's books say 1.086 net, Order's report 1.085"},
		"a unit is lost":                {func(b *books) { s := b.stock["NAIL"]; s.Free--; b.stock["NAIL"] = s }, "stock of NAIL does not add up"},
		"a unit is reserved for ever":   {func(b *books) { s := b.stock["NAIL"]; s.Free--; s.Reserved++; b.stock["NAIL"] = s }, "1 of NAIL are reserved although"},
		"oversold":                      {func(b *books) { b.stock["GOLD"] = inventory.Stock{Free: -1, Shipped: 1} }, "GOLD is oversold by 1"},
		"shipped twice":                 {func(b *books) { s := b.stock["NAIL"]; s.Free -= 8; s.Shipped += 8; b.stock["NAIL"] = s }, "16 of NAIL are with customers, the journals say 8"},
		"a return counted twice":        {func(b *books) { s := b.stock["NAIL"]; s.Free++; s.Returned++; b.stock["NAIL"] = s }, "4 of NAIL came back, the journals say 3"},
		"a movement counted twice":      {func(b *books) { s := b.stock["NAIL"]; s.Free -= 5; s.Left += 5; b.stock["NAIL"] = s }, "10 of NAIL left without an order, the journals say 5"},
		"a product that nobody lists":   {func(b *books) { delete(b.stock, "NAIL") }, "0 of NAIL are with customers, the journals say 8"},
		"sales report: placed":          {func(b *books) { b.summary.Placed++ }, "sales report: placed is 4, the journals say 3"},
		"sales report: confirmed":       {func(b *books) { b.summary.Confirmed++ }, "sales report: confirmed is 3"},
		"sales report: paid":            {func(b *books) { b.summary.Paid++ }, "sales report: paid is 3"},
		"sales report: rejected":        {func(b *books) { b.summary.Rejected++ }, "sales report: rejected is 2"},
		"sales report: cancelled":       {func(b *books) { b.summary.Cancelled++ }, "sales report: cancelled is 2"},
		"sales report: gross":           {func(b *books) { b.summary.Gross++ }, "sales report: gross is 1.501"},
		"sales report: returns":         {func(b *books) { b.summary.Returns++ }, "sales report: returns is -0.374"},
		"sales report: adjustments":     {func(b *books) { b.summary.Adjustments++ }, "sales report: adjustments is -0.039"},
		"sales report: net":             {func(b *books) { b.summary.Net++ }, "sales report: net is 1.086"},
		"an altered internal event":     {func(b *books) { b.verified[event.SourceBilling] = journal.ErrAltered }, "billing has not verified its journal: journal: altered"},
		"a journal not verified":        {func(b *books) { delete(b.verified, event.SourceOrder) }, "order has not verified its journal"},
		"a follower that is behind":     {func(b *books) { b.status = func(all []follow.Status) { all[0].Mark.Position-- } }, "f follows order: stands at 11, the head is 12"},
		"a follower of another history": {func(b *books) { b.status = func(all []follow.Status) { all[0].Mark.Chain[0] ^= 1 } }, "f follows order: stands at 12, the head is 12, or their chains differ"},
		"parked events":                 {func(b *books) { b.status = func(all []follow.Status) { all[0].Parked = 2 } }, "f follows order: events of 2 keys are parked"},
		"a follower that does not follow": {func(b *books) {
			b.status = func(all []follow.Status) { all[0].State, all[0].Error = follow.Diverged, "why" }
		}, "f follows order: it is diverged: why"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := whole()
			c.plant(b)
			report, err := audit.Run(t.Context(), b.shop(t))
			if err != nil {
				t.Fatal(err)
			}
			if !slices.ContainsFunc(report.Violations, func(v string) bool { return strings.Contains(v, c.says) }) {
				t.Errorf("%q is not among the violations %q", c.says, report.Violations)
			}
		})
	}
}

// altered is a journal of which an event is not as it was written.
type altered struct {
	follow.Source
	change func(r *freehold.Recorded)
	short  bool
}

func (a altered) Read(ctx context.Context, after freehold.Mark, limit int) ([]freehold.Recorded, error) {
	rs, err := a.Source.Read(ctx, after, limit)
	if a.short {
		return nil, err
	}
	for i := range rs {
		if rs[i].At.Position == 3 {
			a.change(&rs[i])
		}
	}
	return rs, err
}

func TestAnAlteredJournalIsFound(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change func(r *freehold.Recorded)
		says   string
	}{
		"a byte":        {func(r *freehold.Recorded) { r.Raw = []byte(strings.Replace(string(r.Raw), "1.500", "1.600", 1)) }, ":3: bytes and digest do not agree"},
		"bytes, digest": {func(r *freehold.Recorded) { r.Meta.Actor = "me"; r.Digest = journal.Digest(r) }, ":3 does not continue the chain"},
		"its place":     {func(r *freehold.Recorded) { r.At.Position = 4 }, ":4 does not continue the chain"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := whole().shop(t)
			s.Order = altered{Source: s.Order, change: c.change}
			report, err := audit.Run(t.Context(), s)
			if err != nil || !slices.ContainsFunc(report.Violations, func(v string) bool { return strings.Contains(v, c.says) }) {
				t.Errorf("%q is not among %q, %v", c.says, report.Violations, err)
			}
		})
	}
	s := whole().shop(t)
	s.Billing = altered{Source: s.Billing, short: true}
	if _, err := audit.Run(t.Context(), s); err == nil || errors.Is(err, context.Canceled) {
		t.Errorf("a journal that ends before its head: %v", err)
	}
}
