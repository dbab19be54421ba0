package event

import (
	"errors"
	"fmt"
	"math"
	"math/bits"
	"strconv"

	"github.com/govalues/decimal"
)

// Money is an amount in thousandths of its currency's unit. Its text, also in JSON,
// is a decimal with three places: "2.550".
type Money int64

// ErrAmount is returned for an amount that is not a plain decimal with at most
// three places, or is too large.
var ErrAmount = errors.New("want an amount with at most 3 decimals, below 9200000000000000")

// ParseMoney reads a decimal such as "2.55".
func ParseMoney(s string) (Money, error) {
	d, err := decimal.Parse(s)
	if err != nil {
		return 0, ErrAmount
	}
	if d.Scale() > 3 && !d.Equal(d.Trunc(3)) {
		return 0, ErrAmount
	}
	whole, frac, ok := d.Int64(3)
	if !ok || whole > math.MaxInt64/1000-1 || whole < math.MinInt64/1000+1 {
		return 0, ErrAmount
	}
	return Money(whole*1000 + frac), nil
}

// String gives three decimals.
func (m Money) String() string { return string(m.append(nil)) }

func (m Money) append(b []byte) []byte {
	u := uint64(m)
	if m < 0 {
		b = append(b, '-')
		u = -u
	}
	b = strconv.AppendUint(b, u/1000, 10)
	rest := u % 1000
	return append(b, '.', byte('0'+rest/100), byte('0'+rest/10%10), byte('0'+rest%10))
}

// MarshalJSON gives the text as a JSON string.
func (m Money) MarshalJSON() ([]byte, error) {
	return append(m.append([]byte{'"'}), '"'), nil
}

// UnmarshalJSON reads a JSON string; a JSON number is refused, because many
// programs turn it into a float.
func (m *Money) UnmarshalJSON(raw []byte) error {
	if len(raw) < 2 || raw[0] != '"' {
		return fmt.Errorf("amount %s: want a string such as \"2.550\"", raw)
	}
	v, err := ParseMoney(string(raw[1 : len(raw)-1]))
	if err != nil {
		return fmt.Errorf("amount %s: %w", raw, err)
	}
	*m = v
	return nil
}

// MarshalText gives three decimals.
func (m Money) MarshalText() ([]byte, error) { return m.append(nil), nil }

// UnmarshalText reads a decimal.
func (m *Money) UnmarshalText(text []byte) error {
	v, err := ParseMoney(string(text))
	*m = v
	return err
}

// Times multiplies by a quantity; ErrAmount if the product is too large.
func (m Money) Times(n int64) (Money, error) {
	hi, lo := bits.Mul64(abs(int64(m)), abs(n))
	if hi != 0 || lo > math.MaxInt64 {
		return 0, ErrAmount
	}
	if (m < 0) != (n < 0) {
		return -Money(lo), nil
	}
	return Money(lo), nil
}

// Plus adds; ErrAmount if the sum is too large.
func (m Money) Plus(o Money) (Money, error) {
	sum := m + o
	if (sum > m) != (o > 0) && o != 0 {
		return 0, ErrAmount
	}
	return sum, nil
}

func abs(n int64) uint64 {
	if n < 0 {
		return -uint64(n)
	}
	return uint64(n)
}
