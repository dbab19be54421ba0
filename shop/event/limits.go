package event

import (
	"errors"
	"time"
)

// MaxQuantity is the largest quantity of a line.
const MaxQuantity = 1_000_000_000

// MaxAmount is the most that the lines of one command may come to: a thousand million
// pounds. Reports and books add commands up for all, and nine million of the largest
// fit into a Money, so that no client can make a sum overflow for the others.
const MaxAmount Money = 1_000_000_000_000

// ErrTotal is returned for lines that come to more than [MaxAmount].
var ErrTotal = errors.New("want lines that come to at most 1000000000.000 together, each counted without its sign")

// Total is the value of the lines of a command. It is [ErrTotal] if their values, each
// without its sign, come to more than [MaxAmount]: lines that cancel each other out
// still stand alone in the report of their product. Events that were recorded without
// this limit are added up with [Sum].
func Total(lines []Line) (Money, error) {
	var total, size Money
	for _, l := range lines {
		value, err := l.Price.Times(l.Quantity)
		if err != nil || value > MaxAmount || value < -MaxAmount {
			return 0, ErrTotal
		}
		if size += max(value, -value); size > MaxAmount {
			return 0, ErrTotal
		}
		total += value
	}
	return total, nil
}

// ErrYear is returned for a time that cannot be recorded.
var ErrYear = errors.New("want a year from 1 to 9999 in UTC")

// CheckYear refuses a time whose year in UTC has not one to four digits: events could
// not hold it, and the months of reports would not stand in their order.
func CheckYear(t time.Time) error {
	if y := t.UTC().Year(); y < 1 || y > 9999 {
		return ErrYear
	}
	return nil
}
