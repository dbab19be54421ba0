package billing_test

import (
	"errors"
	"math"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/freehold-go/freehold/shop/billing"
	"github.com/freehold-go/freehold/shop/event"
)

func TestPostRefusesWhatIsNoEntry(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		kind   billing.Kind
		amount event.Money
	}{
		{billing.KindInvoice, -1}, {billing.KindCapture, -1}, {billing.KindCredit, -1}, {billing.KindRefund, -1},
		{billing.KindAdjustment, math.MinInt64}, {"gift", 1},
	} {
		if entries, err := billing.Post(c.kind, c.amount, "x"); err == nil {
			t.Errorf("posted %s of %d: %+v", c.kind, int64(c.amount), entries)
		}
	}
}

// TestLedgerBalances posts anything and finds the sum of all balances zero, with
// prices of a thousandth (FIELD 26).
func TestLedgerBalances(t *testing.T) {
	t.Parallel()
	kinds := []billing.Kind{billing.KindInvoice, billing.KindCapture, billing.KindCredit, billing.KindRefund, billing.KindAdjustment}
	rapid.Check(t, func(t *rapid.T) {
		balances := map[billing.Account]event.Money{}
		for range rapid.IntRange(0, 50).Draw(t, "n") {
			kind, amount := rapid.SampledFrom(kinds).Draw(t, "kind"), event.Money(rapid.Int64Range(0, 1e12).Draw(t, "amount"))
			if kind == billing.KindAdjustment && rapid.Bool().Draw(t, "negative") {
				amount = -amount
			}
			entries, err := billing.Post(kind, amount, "x")
			if err != nil {
				t.Fatal(err)
			}
			if (amount == 0) != (len(entries) == 0) {
				t.Fatalf("%d entries for %s", len(entries), amount)
			}
			for _, e := range entries {
				if e.Amount <= 0 || e.Debit == e.Credit {
					t.Fatalf("entry %+v", e)
				}
				balances[e.Debit] += e.Amount
				balances[e.Credit] -= e.Amount
			}
		}
		var sum event.Money
		for _, b := range balances {
			sum += b
		}
		if sum != 0 {
			t.Fatalf("the ledger is out by %s", sum)
		}
	})
}

func TestDocumentNumbers(t *testing.T) {
	t.Parallel()
	for _, n := range []billing.Number{{Series: "INV", N: 1}, {Series: "CN2", N: 1234567890123}} {
		if got, err := billing.ParseNumber(n.String()); err != nil || got != n {
			t.Errorf("%s: %+v, %v", n, got, err)
		}
	}
	for _, s := range []string{"", "INV", "INV-", "-1", "INV-0", "INV--1", "INV-+1", "INV-x", "INV-99999999999999999999"} {
		if n, err := billing.ParseNumber(s); err == nil {
			t.Errorf("%q is %+v", s, n)
		}
	}
}

func TestAdjustmentsAreChecked(t *testing.T) {
	t.Parallel()
	trade := event.Trade{Reference: "A563186", Currency: "GBP"}
	line := event.Line{SKU: "B", Quantity: 1, Price: -11062060}
	a, err := billing.NewAdjustment("a", trade, []event.Line{line, {SKU: "B", Quantity: -3, Price: 1}})
	if err != nil || a.Amount != -11062063 {
		t.Errorf("%+v, %v", a, err)
	}
	long := strings.Repeat("x", 65)
	for field, change := range map[string]func(*event.Trade, *event.Line){
		"currency":             func(t *event.Trade, _ *event.Line) { t.Currency = "XXX" },
		"reference":            func(t *event.Trade, _ *event.Line) { t.Reference = long },
		"customer":             func(t *event.Trade, _ *event.Line) { t.Customer = long },
		"country":              func(t *event.Trade, _ *event.Line) { t.Country = long },
		"lines[0].sku":         func(_ *event.Trade, l *event.Line) { l.SKU = "" },
		"lines[0].description": func(_ *event.Trade, l *event.Line) { l.Description = strings.Repeat("x", 201) },
		"lines[0].quantity":    func(_ *event.Trade, l *event.Line) { l.Quantity = 0 },
		"lines":                func(_ *event.Trade, l *event.Line) { l.Quantity, l.Price = billing.MaxQuantity, math.MaxInt64/2 },
	} {
		tr, l := trade, line
		change(&tr, &l)
		_, err := billing.NewAdjustment("a", tr, []event.Line{l})
		if wrong := new(billing.FieldError); !errors.As(err, &wrong) || wrong.Field != field {
			t.Errorf("%s: %v", field, err)
		}
	}
	if _, err := billing.NewAdjustment("a", trade, nil); err == nil {
		t.Error("an adjustment without lines was accepted")
	}
}
