package order

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/freehold-go/freehold/shop/event"
)

// Limits of a command. Texts are measured in bytes.
const (
	MaxLines       = 5000
	MaxQuantity    = event.MaxQuantity
	MaxText        = 64
	MaxDescription = 200
	MaxDeadline    = 7 * 24 * time.Hour
)

// DefaultDeadline is how long a checkout waits for answers if the command does not say.
const DefaultDeadline = 30 * time.Second

// Currencies are those that the shop sells in.
var Currencies = []string{"GBP", "EUR", "USD"}

// FieldError names the field of a command that is wrong, and says what it should be.
type FieldError struct {
	Field string
	Want  string
}

// Error gives "lines[3].quantity: want 1 to 1000000000".
func (e *FieldError) Error() string { return e.Field + ": " + e.Want }

// Check validates what trades have in common, and their lines. It returns the sum
// of the lines; the error is a *FieldError.
func Check(trade event.Trade, lines []event.Line) (event.Money, error) {
	if !slices.Contains(Currencies, trade.Currency) {
		return 0, &FieldError{"currency", fmt.Sprintf("want %s, not %.10q", strings.Join(Currencies, ", "), trade.Currency)}
	}
	for _, f := range []struct{ name, text string }{{"reference", trade.Reference}, {"customer", trade.Customer}, {"country", trade.Country}} {
		if want := text(f.text, 0, MaxText); want != "" {
			return 0, &FieldError{f.name, want}
		}
	}
	if err := event.CheckYear(trade.At); err != nil {
		return 0, &FieldError{"at", err.Error()}
	}
	if len(lines) == 0 || len(lines) > MaxLines {
		return 0, &FieldError{"lines", fmt.Sprintf("want 1 to %d", MaxLines)}
	}
	for i := range lines {
		if name, want := checkLine(&lines[i]); want != "" {
			return 0, &FieldError{fmt.Sprintf("lines[%d].%s", i, name), want}
		}
	}
	total, err := event.Total(lines)
	if err != nil {
		return 0, &FieldError{"lines", err.Error()}
	}
	return total, nil
}

// checkLine returns the field that is wrong and what it should be.
func checkLine(l *event.Line) (name, want string) {
	if want := text(l.SKU, 1, MaxText); want != "" {
		return "sku", want
	}
	if want := text(l.Description, 0, MaxDescription); want != "" {
		return "description", want
	}
	if l.At != nil {
		if err := event.CheckYear(*l.At); err != nil {
			return "at", err.Error()
		}
	}
	switch {
	case l.Quantity < 1 || l.Quantity > event.MaxQuantity:
		return "quantity", fmt.Sprintf("want 1 to %d", int64(event.MaxQuantity))
	case l.Price < 0:
		return "price", "want at least 0"
	}
	return "", ""
}

// text says what is wrong with a text, or nothing.
func text(s string, least, most int) string {
	if len(s) < least || len(s) > most {
		return fmt.Sprintf("want %d to %d bytes", least, most)
	}
	for i := range len(s) {
		if s[i] < ' ' || s[i] == 0x7f {
			return "want no control characters"
		}
	}
	return ""
}
