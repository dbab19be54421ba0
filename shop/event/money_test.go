package event_test

import (
	"encoding/json"
	"errors"
	"math"
	"math/big"
	"testing"

	"github.com/govalues/decimal"
	"pgregory.net/rapid"

	"github.com/freehold-go/freehold/shop/event"
)

// FIELD row 26.
func TestMoneyIsExact(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]event.Money{
		"0": 0, "-0": 0, "0.001": 1, "2.55": 2550, "2.5": 2500, "-11062.06": -11062060, "38970": 38970000, "1.1000": 1100, "007": 7000,
		"9223372036854775.807": math.MaxInt64, "-9223372036854775.808": math.MinInt64, "0.0010000000000000000000": 1,
	} {
		got, err := event.ParseMoney(text)
		if err != nil || got != want {
			t.Errorf("%s is %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "-", ".", "-.5", ".5", "1.", "x", "1.0001", "1e3", "NaN", "Inf", "+1", " 1", "1 ", "1..2", "1.2.3", "--1",
		"9223372036854775.808", "-9223372036854775.809", "99999999999999999999", "9223372036854776", "1,5", "0x10", "１"} {
		if got, err := event.ParseMoney(text); err == nil {
			t.Errorf("%q was accepted as %s", text, got)
		}
	}
	for m, want := range map[event.Money]string{0: "0.000", -1: "-0.001", 2550: "2.550", -11062060: "-11062.060", math.MinInt64: "-9223372036854775.808"} {
		if m.String() != want {
			t.Errorf("%d prints %s, want %s", int64(m), m, want)
		}
	}
	var m event.Money
	for _, raw := range []string{`1.5`, `null1`, `"1.5`, `true`, `"1,5"`} {
		if err := json.Unmarshal([]byte(raw), &m); err == nil {
			t.Errorf("%s was accepted as %s", raw, m)
		}
	}
}

func TestMoneyReadsWhatItWrites(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		m := event.Money(rapid.Int64().Draw(t, "thousandths"))
		raw, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		var back event.Money
		if err := json.Unmarshal(raw, &back); err != nil || back != m {
			t.Fatalf("%s is read as %s, %v", raw, back, err)
		}
	})
}

// The decimal library is the oracle.
func TestMoneyAgreesWithAnotherDecimal(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringMatching(`-?[0-9]{1,14}(\.[0-9]{1,5})?`).Draw(t, "text")
		got, err := event.ParseMoney(text)
		d, oracleErr := decimal.Parse(text)
		if oracleErr != nil {
			t.Fatal(oracleErr)
		}
		if d.Trim(0).Scale() > 3 {
			if err == nil {
				t.Fatalf("%s was accepted as %s", text, got)
			}
			return
		}
		want, _, ok := d.Trim(0).Int64(3)
		if err != nil || !ok || int64(got)/1000 != want {
			t.Fatalf("%s is %s, %v, want %s", text, got, err, d)
		}
	})
}

func TestMoneyArithmeticNoticesOverflow(t *testing.T) {
	t.Parallel()
	fits := func(b *big.Int) bool { return b.IsInt64() && b.Int64() != math.MinInt64 }
	rapid.Check(t, func(t *rapid.T) {
		a, b := rapid.Int64Min(math.MinInt64+1).Draw(t, "a"), rapid.Int64Min(math.MinInt64+1).Draw(t, "b")
		product := new(big.Int).Mul(big.NewInt(a), big.NewInt(b))
		got, err := event.Money(a).Times(b)
		if fits(product) != (err == nil) || err == nil && int64(got) != product.Int64() {
			t.Fatalf("%d times %d is %d, %v", a, b, int64(got), err)
		}
		sum := new(big.Int).Add(big.NewInt(a), big.NewInt(b))
		total, err := event.Money(a).Plus(event.Money(b))
		if sum.IsInt64() != (err == nil) || err == nil && int64(total) != sum.Int64() {
			t.Fatalf("%d plus %d is %d, %v", a, b, int64(total), err)
		}
	})
}

func TestTotalOfACommandHasAMost(t *testing.T) {
	t.Parallel()
	line := func(n int64, price event.Money) event.Line { return event.Line{SKU: "A", Quantity: n, Price: price} }
	for name, c := range map[string]struct {
		lines []event.Line
		want  event.Money // -1 is too much
	}{
		"the most":                      {[]event.Line{line(1, event.MaxAmount)}, event.MaxAmount},
		"the most, negative":            {[]event.Line{line(-1, event.MaxAmount)}, -event.MaxAmount},
		"one too much":                  {[]event.Line{line(1, event.MaxAmount), line(1, 1)}, -1},
		"signs do not help":             {[]event.Line{line(1, event.MaxAmount), line(-1, 1)}, -1},
		"the smallest there is":         {[]event.Line{line(1, math.MinInt64)}, -1},
		"a product beyond 64 bits":      {[]event.Line{line(event.MaxQuantity, math.MaxInt64)}, -1},
		"many that would overflow":      {[]event.Line{line(1, math.MaxInt64), line(1, math.MaxInt64), line(1, 3)}, -1},
		"what comes and goes, together": {[]event.Line{line(3, 100), line(-1, 50)}, 250},
	} {
		got, err := event.Total(c.lines)
		if c.want == -1 && !errors.Is(err, event.ErrTotal) || c.want != -1 && (err != nil || got != c.want) {
			t.Errorf("%s: %s, %v, want %s", name, got, err, c.want)
		}
	}
}

func BenchmarkParseMoney(b *testing.B) {
	b.Run("here", func(b *testing.B) {
		for b.Loop() {
			if _, err := event.ParseMoney("12.550"); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("govalues", func(b *testing.B) {
		for b.Loop() {
			d, err := decimal.Parse("12.550")
			if _, _, ok := d.Int64(3); !ok || err != nil {
				b.Fatal(err)
			}
		}
	})
}
