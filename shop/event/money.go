package event

import (
	"errors"
	"fmt"
	"math"
	"math/bits"
	"strconv"
)

// Money is an amount in thousandths of its currency's unit. Its text, also in JSON,
// is a decimal with three places: "2.550". Every Money can be written and read.
type Money int64

// ErrAmount is returned for an amount that is not a plain decimal with at most
// three places, or is too large.
var ErrAmount = errors.New("want an amount with at most 3 decimals, below 9223372036854775")

// ParseMoney reads a decimal such as "2.55": an optional minus, digits, and
// optionally a point with digits behind it, of which those behind the third are 0.
func ParseMoney(s string) (Money, error) { return parseMoney(s) }

func parseMoney[T string | []byte](s T) (Money, error) {
	i, negative := 0, false
	if len(s) > 0 && s[0] == '-' {
		i, negative = 1, true
	}
	var n uint64
	digits, places := 0, -1 // places behind the point; -1 before it
	for ; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '.' && places < 0 && digits > 0:
			places = 0
			continue
		case c < '0' || c > '9' || places >= 3 && c != '0':
			return 0, ErrAmount
		}
		digits++
		if places >= 3 {
			continue
		}
		if places >= 0 {
			places++
		}
		if n > math.MaxInt64/10 {
			return 0, ErrAmount
		}
		n = 10*n + uint64(c-'0')
	}
	if digits == 0 || places == 0 {
		return 0, ErrAmount
	}
	for ; places < 3; places++ {
		if places < 0 {
			places = 0
		}
		if n > math.MaxInt64/10 {
			return 0, ErrAmount
		}
		n *= 10
	}
	switch {
	case negative && n <= 1<<63:
		return -Money(n), nil
	case negative || n > math.MaxInt64:
		return 0, ErrAmount
	}
	return Money(n), nil
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
	if len(raw) < 2 || raw[0] != '"' || raw[len(raw)-1] != '"' {
		return fmt.Errorf("amount %s: want a string such as \"2.550\"", raw)
	}
	v, err := parseMoney(raw[1 : len(raw)-1])
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
	v, err := parseMoney(text)
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
