package order

import (
	"fmt"
	"time"

	"github.com/freehold-go/freehold/shop/event"
)

// Limits of a command.
const (
	MaxLines    = 5000
	MaxQuantity = 1_000_000_000
	MaxDeadline = 7 * 24 * time.Hour
)

// FieldError names the field of a command that is wrong.
type FieldError struct {
	Field string
	Want  string
}

// Error says what the field should be.
func (e *FieldError) Error() string { return e.Field + ": " + e.Want }

// Check validates what trades have in common, and their lines. It returns the sum
// of the lines.
func Check(trade event.Trade, lines []event.Line) (event.Money, error) {
	switch {
	case trade.Currency != "GBP" && trade.Currency != "EUR" && trade.Currency != "USD":
		return 0, &FieldError{"currency", fmt.Sprintf("want GBP, EUR or USD, not %.10q", trade.Currency)}
	case len(trade.Reference) > 64:
		return 0, &FieldError{"reference", "want at most 64 bytes"}
	case len(trade.Customer) > 64:
		return 0, &FieldError{"customer", "want at most 64 bytes"}
	case len(trade.Country) > 64:
		return 0, &FieldError{"country", "want at most 64 bytes"}
	case len(lines) == 0 || len(lines) > MaxLines:
		return 0, &FieldError{"lines", fmt.Sprintf("want 1 to %d", MaxLines)}
	}
	for i, l := range lines {
		field := func(name string) string { return fmt.Sprintf("lines[%d].%s", i, name) }
		switch {
		case l.SKU == "" || len(l.SKU) > 64:
			return 0, &FieldError{field("sku"), "want 1 to 64 bytes"}
		case len(l.Description) > 200:
			return 0, &FieldError{field("description"), "want at most 200 bytes"}
		case l.Quantity < 1 || l.Quantity > MaxQuantity:
			return 0, &FieldError{field("quantity"), fmt.Sprintf("want 1 to %d", int64(MaxQuantity))}
		case l.Price < 0:
			return 0, &FieldError{field("price"), "want at least 0"}
		}
	}
	total, err := event.Sum(lines)
	if err != nil {
		return 0, &FieldError{"lines", "their sum is too large"}
	}
	return total, nil
}
