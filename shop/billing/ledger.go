package billing

import (
	"errors"
	"fmt"

	"github.com/freehold-go/freehold/shop/event"
)

// Account is a ledger account.
type Account string

const (
	// Receivable is what customers owe us (asset).
	Receivable Account = "receivable"
	// Cash is what the payment provider has charged for us (asset).
	Cash Account = "cash"
	// Sales is what has been invoiced (income).
	Sales Account = "sales"
	// Returns is what has been credited (deduction from income).
	Returns Account = "returns"
	// CustomerCredit is what we owe customers (liability).
	CustomerCredit Account = "customer-credit"
	// Adjustments is what has been corrected by hand, such as bad debt (income, or
	// a deduction from it).
	Adjustments Account = "adjustments"
)

// Kind says what a ledger entry records.
type Kind string

const (
	// KindInvoice: the customer owes the amount. Receivable to Sales.
	KindInvoice Kind = "invoice"
	// KindCapture: the provider has charged it. Cash to Receivable.
	KindCapture Kind = "capture"
	// KindCredit: a credit note. Returns to CustomerCredit.
	KindCredit Kind = "credit"
	// KindRefund: the provider has paid it back. CustomerCredit to Cash.
	KindRefund Kind = "refund"
	// KindAdjustment: a correction. Receivable to Adjustments, or the other way if
	// it is negative.
	KindAdjustment Kind = "adjustment"
)

// Entry is one entry of the ledger with both of its sides: the debit account gets
// the amount, the credit account gives it. So every entry balances by itself, and
// with it every transaction and the ledger.
type Entry struct {
	Kind     Kind
	Debit    Account
	Credit   Account
	Amount   event.Money // above zero
	Document string      // number of the invoice or credit note, or id of the adjustment
}

var sides = map[Kind][2]Account{
	KindInvoice:    {Receivable, Sales},
	KindCapture:    {Cash, Receivable},
	KindCredit:     {Returns, CustomerCredit},
	KindRefund:     {CustomerCredit, Cash},
	KindAdjustment: {Receivable, Adjustments},
}

// Post returns the entries of one kind: one, or none if the amount is zero. Only an
// adjustment may be negative: its sides are exchanged.
func Post(kind Kind, amount event.Money, document string) ([]Entry, error) {
	s, ok := sides[kind]
	switch {
	case !ok:
		return nil, fmt.Errorf("billing: post: unknown kind %q", kind)
	case amount == 0:
		return nil, nil
	case amount < 0 && kind != KindAdjustment:
		return nil, fmt.Errorf("billing: post: %s of %s: want an amount above zero", kind, amount)
	case amount < 0:
		if amount = -amount; amount < 0 {
			return nil, errors.New("billing: post: amount out of range")
		}
		s[0], s[1] = s[1], s[0]
	}
	return []Entry{{Kind: kind, Debit: s[0], Credit: s[1], Amount: amount, Document: document}}, nil
}

// Books are the totals that the ledger and the documents give, of one currency.
type Books struct {
	Currency    string      `json:"currency"`
	Billed      event.Money `json:"billed" doc:"sum of all invoices"`
	Captured    event.Money `json:"captured" doc:"charged by the provider"`
	Refunded    event.Money `json:"refunded" doc:"paid back by the provider"`
	CreditNotes event.Money `json:"credit_notes" doc:"sum of all credit notes"`
	Adjustments event.Money `json:"adjustments" doc:"sum of all ledger adjustments, with their sign"`
	Net         event.Money `json:"net" doc:"billed less credit notes, with adjustments"`
	Invoices    int64       `json:"invoices" doc:"how many invoices"`
	Credits     int64       `json:"credits" doc:"how many credit notes"`
	Corrections int64       `json:"corrections" doc:"how many adjustments"`
	Entries     int64       `json:"entries" doc:"how many ledger entries"`
}

// Balance is an account's balance: debits less credits. The balances of all
// accounts sum up to zero.
type Balance struct {
	Account  Account     `json:"account"`
	Currency string      `json:"currency"`
	Debit    event.Money `json:"debit"`
	Credit   event.Money `json:"credit"`
	Balance  event.Money `json:"balance" doc:"debit less credit"`
}
