package billing

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/freehold-go/freehold/shop/event"
)

// Series names of documents. Numbers run 1, 2, 3 without holes within a series. A
// journal that has gone back in time and written on begins new ones ("INV9F86D081", by its epoch), so
// that a number that has been sent out is never given to anything else.
const (
	InvoiceSeries = "INV"
	CreditSeries  = "CN"
)

// Number is a document's number in its series.
type Number struct {
	Series string
	N      int64
}

// String gives "INV-000000042".
func (n Number) String() string { return fmt.Sprintf("%s-%09d", n.Series, n.N) }

// ParseNumber reads the text form.
func ParseNumber(s string) (Number, error) {
	i := strings.IndexByte(s, '-')
	if i < 1 || i > 16 || len(s) > 40 {
		return Number{}, fmt.Errorf("billing: document number %.60q: want a series, - and digits, as in INV-000000042", s)
	}
	n, err := strconv.ParseInt(s[i+1:], 10, 64)
	if err != nil || n < 1 || s[i+1] == '+' {
		return Number{}, fmt.Errorf("billing: document number %.60q: want digits behind the -, as in INV-000000042", s)
	}
	return Number{s[:i], n}, nil
}

// Invoice is what a customer is billed for one order.
type Invoice struct {
	Number string `json:"number"`
	Order  string `json:"order"`
	event.Trade
	Amount event.Money `json:"amount"`
	Issued time.Time   `json:"issued"`
}

// CreditNote takes back an invoice or a part of it, or credits a return that
// belongs to no order.
type CreditNote struct {
	Number string `json:"number"`
	Order  string `json:"order,omitempty"`  // empty for a return without an order
	Return string `json:"return,omitempty"` // empty for a cancelled order
	event.Trade
	Amount event.Money `json:"amount"`
	Issued time.Time   `json:"issued"`
}
