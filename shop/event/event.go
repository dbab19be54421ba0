// Package event is the published language of the shop: every event that its three
// services write, and how amounts are written.
//
// # Guarantees
//
// A published type never changes: each has a golden JSON file in testdata, and a
// test refuses another form. A new version gets a new number and an upcast.
// Amounts are exact; arithmetic that would overflow is an error.
//
// # Ordering
//
// Events of one order stand in the streams order-<id> (Order), reservation-<id>
// (Inventory) and payment-<id> (Billing). Between the services there is no order.
//
// # Failure
//
// Text that is not a plain decimal with at most three places is [ErrAmount].
package event

import (
	"time"

	"github.com/freehold-go/freehold"
)

// Source names of the services.
const (
	SourceOrder     freehold.Source = "order"
	SourceInventory freehold.Source = "inventory"
	SourceBilling   freehold.Source = "billing"
)

// Policies for orders of which some lines are not in stock.
const (
	AllOrNothing = "all-or-nothing"
	Partial      = "partial"
)

// Line is one line of an order, a return, or a movement of stock.
type Line struct {
	SKU         string `json:"sku"`
	Description string `json:"description,omitempty"`
	Quantity    int64  `json:"quantity"`
	Price       Money  `json:"price"`
	// Stocked lines reserve stock; others only bill.
	Stocked bool `json:"stocked,omitempty"`
	// At is when the line was sold, where it is not the time of the whole.
	At *time.Time `json:"at,omitempty"`
}

// Sum is the value of lines.
func Sum(lines []Line) (Money, error) {
	var total Money
	for _, l := range lines {
		value, err := l.Price.Times(l.Quantity)
		if err == nil {
			total, err = total.Plus(value)
		}
		if err != nil {
			return 0, err
		}
	}
	return total, nil
}

// Trade is what orders, returns, movements and adjustments have in common.
type Trade struct {
	Reference string    `json:"reference,omitempty"` // the client's own number
	Customer  string    `json:"customer,omitempty"`  // empty is a guest
	Country   string    `json:"country,omitempty"`
	Currency  string    `json:"currency"`
	At        time.Time `json:"at"` // of the business, not of the recording
}

// OrderPlaced begins an order and its checkout. Source order.
type OrderPlaced struct {
	Order string `json:"order"`
	Trade
	Policy   string    `json:"policy"`
	Deadline time.Time `json:"deadline"`           // of the answers of Inventory and Billing
	Simulate string    `json:"simulate,omitempty"` // what the simulated provider shall do
	Body     string    `json:"body"`               // digest of the command, to recognise another one under its key
	Lines    []Line    `json:"lines"`
	Total    Money     `json:"total"`
}

// OrderConfirmed says which lines go on, and what is to be captured for them.
type OrderConfirmed struct {
	Order string `json:"order"`
	Trade
	Lines   []Line `json:"lines"`
	Dropped int    `json:"dropped,omitempty"` // lines left out for want of stock
	Amount  Money  `json:"amount"`
}

// OrderRejected ends an order that was not confirmed.
type OrderRejected struct {
	Order  string `json:"order"`
	Code   string `json:"code"` // sold-out, unknown-sku, declined, time-out
	Reason string `json:"reason"`
	Total  Money  `json:"total"`
	// Goods is how many lines of goods it had, Dropped how many of them were left out
	// one by one for want of stock (policy partial).
	Goods   int `json:"goods"`
	Dropped int `json:"dropped,omitempty"`
}

// OrderPaid says that the amount has been captured; now it can be shipped.
type OrderPaid struct {
	Order  string `json:"order"`
	Amount Money  `json:"amount"`
}

// OrderCancelled ends an order before it was shipped. It repeats what had been
// confirmed, so that books can take it back; no lines if nothing had been.
type OrderCancelled struct {
	Order string `json:"order"`
	Trade
	Code   string `json:"code"` // cancelled, capture-failed
	Reason string `json:"reason"`
	Lines  []Line `json:"lines,omitempty"`
	Amount Money  `json:"amount"`
}

// OrderShipped says that the goods have left.
type OrderShipped struct {
	Order string `json:"order"`
}

// OrderReturned says that goods came back: at the end of their order's stream, or,
// where the order is not known, in a stream return-<id> of their own.
type OrderReturned struct {
	Return string `json:"return"`
	Order  string `json:"order,omitempty"`
	Trade
	Body     string `json:"body"`
	Lines    []Line `json:"lines"`
	Amount   Money  `json:"amount"`
	Complete bool   `json:"complete,omitempty"` // nothing is left of the order
}

// ProductDefined sets a product's description and price. Source inventory.
type ProductDefined struct {
	SKU         string `json:"sku"`
	Description string `json:"description"`
	Price       Money  `json:"price"`
	Received    int64  `json:"received,omitempty"` // units that came with it
}

// StockReserved answers order.placed: these lines are held.
type StockReserved struct {
	Order   string `json:"order"`
	Dropped []int  `json:"dropped,omitempty"` // indexes of lines that were not in stock
}

// StockRejected answers order.placed: nothing is held.
type StockRejected struct {
	Order  string `json:"order"`
	Code   string `json:"code"` // sold-out, unknown-sku
	SKU    string `json:"sku,omitempty"`
	Reason string `json:"reason"`
}

// StockCommitted says that the reserved goods are the customer's.
type StockCommitted struct {
	Order string `json:"order"`
}

// StockReleased says that a reservation was undone.
type StockReleased struct {
	Order string `json:"order"`
}

// StockRestocked says that goods came back into stock.
type StockRestocked struct {
	Order  string `json:"order,omitempty"`
	Return string `json:"return,omitempty"`
}

// StockAdjusted corrects stock without an order: write-offs, found goods, gifts.
// Quantities of its lines are what leaves.
type StockAdjusted struct {
	Movement string `json:"movement"`
	Trade
	Body  string `json:"body"`
	Lines []Line `json:"lines"`
}

// CallRequested is Billing's intent to call the payment provider. Internal.
type CallRequested struct {
	Order    string `json:"order"`
	Step     string `json:"step"` // authorize, capture, void, refund
	Amount   Money  `json:"amount"`
	Simulate string `json:"simulate,omitempty"`
}

// PaymentAuthorized answers order.placed: the amount is held on the customer's card.
type PaymentAuthorized struct {
	Order  string `json:"order"`
	Amount Money  `json:"amount"`
}

// PaymentDeclined answers order.placed: there will be no payment.
type PaymentDeclined struct {
	Order  string `json:"order"`
	Reason string `json:"reason"`
}

// PaymentCaptured answers order.confirmed.
type PaymentCaptured struct {
	Order  string `json:"order"`
	Amount Money  `json:"amount"`
}

// PaymentCaptureFailed answers order.confirmed.
type PaymentCaptureFailed struct {
	Order  string `json:"order"`
	Reason string `json:"reason"`
}

// PaymentVoided says that an authorisation was given back.
type PaymentVoided struct {
	Order  string `json:"order"`
	Amount Money  `json:"amount"`
}

// PaymentRefunded says that a captured amount was paid back.
type PaymentRefunded struct {
	Order  string `json:"order"`
	Amount Money  `json:"amount"`
}

// InvoiceIssued carries a number from a series without gaps.
type InvoiceIssued struct {
	Order  string `json:"order"`
	Series string `json:"series"`
	Number int64  `json:"number"`
	Amount Money  `json:"amount"`
}

// CreditNoteIssued corrects an invoice, or credits a stand-alone return.
type CreditNoteIssued struct {
	Order  string `json:"order,omitempty"`
	Return string `json:"return,omitempty"`
	Series string `json:"series"`
	Number int64  `json:"number"`
	Amount Money  `json:"amount"`
}

// LedgerAdjusted books an amount that no order explains.
type LedgerAdjusted struct {
	Adjustment string `json:"adjustment"`
	Trade
	Body  string `json:"body"`
	Lines []Line `json:"lines"`
}

func (OrderPlaced) EventType() freehold.Type          { return freehold.T("order.placed", 1) }
func (OrderConfirmed) EventType() freehold.Type       { return freehold.T("order.confirmed", 1) }
func (OrderRejected) EventType() freehold.Type        { return freehold.T("order.rejected", 1) }
func (OrderPaid) EventType() freehold.Type            { return freehold.T("order.paid", 1) }
func (OrderCancelled) EventType() freehold.Type       { return freehold.T("order.cancelled", 1) }
func (OrderShipped) EventType() freehold.Type         { return freehold.T("order.shipped", 1) }
func (OrderReturned) EventType() freehold.Type        { return freehold.T("order.returned", 1) }
func (ProductDefined) EventType() freehold.Type       { return freehold.T("product.defined", 1) }
func (StockReserved) EventType() freehold.Type        { return freehold.T("stock.reserved", 1) }
func (StockRejected) EventType() freehold.Type        { return freehold.T("stock.rejected", 1) }
func (StockCommitted) EventType() freehold.Type       { return freehold.T("stock.committed", 1) }
func (StockReleased) EventType() freehold.Type        { return freehold.T("stock.released", 1) }
func (StockRestocked) EventType() freehold.Type       { return freehold.T("stock.restocked", 1) }
func (StockAdjusted) EventType() freehold.Type        { return freehold.T("stock.adjusted", 1) }
func (CallRequested) EventType() freehold.Type        { return freehold.T("payment.call-requested", 1) }
func (PaymentAuthorized) EventType() freehold.Type    { return freehold.T("payment.authorized", 1) }
func (PaymentDeclined) EventType() freehold.Type      { return freehold.T("payment.declined", 1) }
func (PaymentCaptured) EventType() freehold.Type      { return freehold.T("payment.captured", 1) }
func (PaymentCaptureFailed) EventType() freehold.Type { return freehold.T("payment.capture-failed", 1) }
func (PaymentVoided) EventType() freehold.Type        { return freehold.T("payment.voided", 1) }
func (PaymentRefunded) EventType() freehold.Type      { return freehold.T("payment.refunded", 1) }
func (InvoiceIssued) EventType() freehold.Type        { return freehold.T("invoice.issued", 1) }
func (CreditNoteIssued) EventType() freehold.Type     { return freehold.T("credit-note.issued", 1) }
func (LedgerAdjusted) EventType() freehold.Type       { return freehold.T("ledger.adjusted", 1) }

// OrderTypes is the catalog of Order's journal.
func OrderTypes() (*freehold.Catalog, error) {
	return freehold.NewCatalog(public[OrderPlaced](), public[OrderConfirmed](), public[OrderRejected](), public[OrderPaid](),
		public[OrderCancelled](), public[OrderShipped](), public[OrderReturned]())
}

// InventoryTypes is the catalog of Inventory's journal.
func InventoryTypes() (*freehold.Catalog, error) {
	return freehold.NewCatalog(public[ProductDefined](), public[StockReserved](), public[StockRejected](), public[StockCommitted](),
		public[StockReleased](), public[StockRestocked](), public[StockAdjusted]())
}

// BillingTypes is the catalog of Billing's journal.
func BillingTypes() (*freehold.Catalog, error) {
	return freehold.NewCatalog(internal[CallRequested](), public[PaymentAuthorized](), public[PaymentDeclined](),
		public[PaymentCaptured](), public[PaymentCaptureFailed](), public[PaymentVoided](), public[PaymentRefunded](),
		public[InvoiceIssued](), public[CreditNoteIssued](), public[LedgerAdjusted]())
}
