package retail

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/freehold-go/freehold/shop/event"
)

// Kind is what a row of the file is to the shop.
type Kind int

const (
	// Sale is a priced line of an ordinary invoice: a line of an order. Stocked
	// codes reserve stock, others only bill.
	Sale Kind = iota
	// Movement is a line without a price: goods leave, or a count is corrected.
	Movement
	// Return is a line of an invoice whose number begins with C.
	Return
	// Adjustment is a line of an invoice whose number begins with A, or one with a
	// negative price: it concerns the ledger only.
	Adjustment
)

// Stocked reports whether a code stands for goods: it begins with a digit or DCGS,
// or is PADS. All others are services, fees and vouchers.
func Stocked(code string) bool {
	return code != "" && code[0] >= '0' && code[0] <= '9' || strings.HasPrefix(code, "DCGS") || code == "PADS"
}

// Classify says what a row is, or why it is nothing the shop can take.
func Classify(r Row) (Kind, error) {
	digits := strings.Trim(r.Invoice, "0123456789") == ""
	switch {
	case strings.HasPrefix(r.Invoice, "A") || r.Price < 0:
		return Adjustment, nil
	case strings.HasPrefix(r.Invoice, "C") && r.Quantity < 0:
		return Return, nil
	case strings.HasPrefix(r.Invoice, "C"):
		return 0, errors.New("a positive Quantity on an invoice that begins with C")
	case !digits:
		return 0, errors.New("InvoiceNo is neither digits nor C or A with digits")
	case r.Price == 0:
		return Movement, nil
	case r.Quantity < 0:
		return 0, errors.New("a negative Quantity with a price on an ordinary invoice")
	default:
		return Sale, nil
	}
}

// Invoice is all rows of one invoice number, in file order.
type Invoice struct {
	Number string
	Rows   []Row
	Kinds  []Kind
	seen   int         // rows read of it, rejected ones included
	size   event.Money // what its rows come to, each without its sign
}

// Plan is what a first reading of the file finds out: how many rows each invoice
// has, so that a second reading can hand out whole invoices with little memory.
type Plan struct {
	rows     map[string]int
	Invoices int
	Total    int // data rows, rejected ones included
}

// Survey reads a file once. Bad rows are left out here and rejected by [Invoices].
func Survey(path string, limit int) (*Plan, error) {
	r, err := Open(path, limit, nil)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	p := &Plan{rows: map[string]int{}}
	for {
		row, err := r.Next()
		if errors.Is(err, io.EOF) {
			p.Invoices, p.Total = len(p.rows), r.Rows()
			return p, nil
		}
		if err != nil {
			return nil, err
		}
		if _, err := Classify(row); err == nil {
			p.rows[row.Invoice]++
		}
	}
}

// Invoices calls fn with each whole invoice, in the order of their first rows. An
// invoice whose rows are scattered holds back those that begin behind it.
func Invoices(r *Reader, p *Plan, fn func(Invoice) error) error {
	open := map[string]*Invoice{}
	var order []*Invoice
	for {
		row, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		kind, err := Classify(row)
		if err != nil {
			r.reject(row.Line, err.Error(), []string{row.Invoice, row.Code, row.Description})
			continue
		}
		inv := open[row.Invoice]
		if inv == nil {
			inv = &Invoice{Number: row.Invoice}
			open[row.Invoice] = inv
			order = append(order, inv)
		}
		inv.seen++
		value, err := row.Price.Times(row.Quantity)
		if size := inv.size + max(value, -value); err != nil || size > event.MaxAmount {
			r.reject(row.Line, fmt.Sprintf("the rows of invoice %s come to more than %s with this one", row.Invoice, event.MaxAmount), []string{row.Invoice, row.Code, row.Description})
		} else {
			inv.size, inv.Rows, inv.Kinds = size, append(inv.Rows, row), append(inv.Kinds, kind)
		}
		for len(order) > 0 && order[0].seen >= p.rows[order[0].Number] {
			if err := fn(*order[0]); err != nil {
				return err
			}
			delete(open, order[0].Number)
			order = order[1:]
		}
	}
	for _, inv := range order {
		if err := fn(*inv); err != nil {
			return err
		}
	}
	return nil
}
