package billing

import (
	"fmt"

	"github.com/freehold-go/freehold/shop/event"
)

// Adjustment corrects the ledger by hand, by the value of its lines, which may be
// negative. One of zero is kept and posts nothing.
type Adjustment struct {
	ID string `json:"adjustment"`
	event.Trade
	Lines  []event.Line `json:"lines"`
	Amount event.Money  `json:"amount"` // sum of the lines
}

// Limits of an adjustment.
const (
	MaxLines    = 1000
	MaxQuantity = 1_000_000_000
)

// FieldError names the field of a command that is wrong.
type FieldError struct {
	Field string // as in "lines[2].quantity"
	Want  string
}

// Error says what the field should be.
func (e *FieldError) Error() string { return e.Field + ": " + e.Want }

// NewAdjustment checks a command to adjust the ledger. A *FieldError names what is
// wrong with it.
func NewAdjustment(id string, t event.Trade, lines []event.Line) (Adjustment, error) {
	a := Adjustment{ID: id, Trade: t, Lines: lines}
	switch {
	case t.Currency != "GBP" && t.Currency != "EUR" && t.Currency != "USD":
		return a, &FieldError{"currency", fmt.Sprintf("want GBP, EUR or USD, not %.10q", t.Currency)}
	case len(t.Reference) > 64:
		return a, &FieldError{"reference", "want at most 64 bytes"}
	case len(t.Customer) > 64:
		return a, &FieldError{"customer", "want at most 64 bytes"}
	case len(t.Country) > 64:
		return a, &FieldError{"country", "want at most 64 bytes"}
	case len(lines) == 0 || len(lines) > MaxLines:
		return a, &FieldError{"lines", fmt.Sprintf("want 1 to %d", MaxLines)}
	}
	for i, l := range lines {
		field := func(name string) string { return fmt.Sprintf("lines[%d].%s", i, name) }
		switch {
		case l.SKU == "" || len(l.SKU) > 64:
			return a, &FieldError{field("sku"), "want 1 to 64 bytes"}
		case len(l.Description) > 200:
			return a, &FieldError{field("description"), "want at most 200 bytes"}
		case l.Quantity == 0 || l.Quantity > MaxQuantity || l.Quantity < -MaxQuantity:
			return a, &FieldError{field("quantity"), fmt.Sprintf("want 1 to %d, or negative", int64(MaxQuantity))}
		}
	}
	var err error
	if a.Amount, err = event.Total(lines); err != nil {
		return a, &FieldError{"lines", err.Error()}
	}
	return a, nil
}
