// Package audit recomputes what must hold for a whole shop from the journals of its
// services, and compares it with what the services' own read sides say. Tests,
// benchmarks and the command line use the same auditor.
//
// # Guarantees
//
// A report without violations means: every order has ended; stock adds up,
// is what the journals say, and nothing was oversold; one capture per paid order and none otherwise; invoices
// have numbers without gaps and agree with captures; read models equal the fold
// of the journals; and every consumer stands at its source's head with the same
// chain value.
//
// # Ordering
//
// The shop must have settled: an audit of a shop at work reports what is under way.
//
// # Failure
//
// An error means that the audit could not be made, not that something is wrong.
package audit

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/journal"
	"github.com/freehold-go/freehold/shop/event"
	"github.com/freehold-go/freehold/shop/inventory"
	"github.com/freehold-go/freehold/shop/orderdb"
)

// Shop is what the auditor reads of a shop.
type Shop struct {
	// Journals of the three services, placeholders in the places of internal events.
	Order, Inventory, Billing follow.Source
	// Verified is what each service found when it read its own journal, in which
	// internal events are not placeholders: nil, or what was altered.
	Verified map[freehold.Source]error
	// Summary is what Order's read side adds up to.
	Summary orderdb.Summary
	// Stock is Inventory's read side: every product.
	Stock map[string]inventory.Stock
	// Billed is what Billing's read side adds up to.
	Billed Books
	// Followers is where all followers of all services stand.
	Followers []follow.Status
}

// Books are Billing's totals.
type Books struct {
	Billed, Captured, Refunded, CreditNotes, Adjustments, Net event.Money
	Invoices, Credits                                         int64
}

// Report is the outcome of an audit.
type Report struct {
	Checks     int      `json:"checks"`
	Violations []string `json:"violations"`
}

// maxFindings bounds how many violations are told; all are counted.
const maxFindings = 1000

func (r *Report) check(ok bool, format string, args ...any) {
	r.Checks++
	if !ok && len(r.Violations) < maxFindings {
		r.Violations = append(r.Violations, fmt.Sprintf(format, args...))
	}
}

// sale is what the journals say of one order.
type sale struct {
	placed, confirmed, paid, rejected, cancelled, shipped int
	amount                                                event.Money

	reserved, stockRejected, committed, released, restocked int

	authorized, declined, captured, failed, voided, refunded, invoices int
	capturedAmount, invoicedAmount, refundedAmount                     event.Money
	returnedAmount, creditedAmount                                     event.Money
}

// goodsBack is what the journals say of one return without an order.
type goodsBack struct {
	returned, credits int
	amount, credited  event.Money
}

type books struct {
	report  *Report
	sales   map[string]*sale
	summary orderdb.Summary
	returns map[string]*goodsBack
	numbers numbers // of invoices
	credits numbers // of credit notes
	heads   map[freehold.Source]freehold.Mark
	moved   map[string]*inventory.Stock // what the journals say of each product
}

// numbers are those of documents, by series: each epoch of Billing's journal has its own.
type numbers map[string][]int64

// check wants the numbers of each series to run from 1, and returns how many there are.
func (n numbers) check(report *Report, of string) (all int64) {
	for _, series := range slices.Sorted(maps.Keys(n)) {
		slices.Sort(n[series])
		for i, number := range n[series] {
			report.check(number == int64(i+1), "%s numbers, series %s: %d stands where %d should", of, series, number, i+1)
		}
		all += int64(len(n[series]))
	}
	return all
}

// Run audits a shop.
func Run(ctx context.Context, s Shop) (*Report, error) {
	b := &books{report: &Report{Violations: []string{}}, sales: map[string]*sale{}, returns: map[string]*goodsBack{}, numbers: numbers{}, credits: numbers{}, heads: map[freehold.Source]freehold.Mark{}, moved: map[string]*inventory.Stock{}}
	// Order comes last: what an order's lines mean to the stock is known then, and
	// need not be kept.
	for _, source := range []follow.Source{s.Inventory, s.Billing, s.Order} {
		if err := b.fold(ctx, source); err != nil {
			return nil, fmt.Errorf("audit: journal of %s: %w", source.Name(), err)
		}
		err, told := s.Verified[source.Name()]
		b.report.check(told && err == nil, "%s has not verified its journal: %v", source.Name(), err)
	}
	for _, id := range slices.Sorted(maps.Keys(b.sales)) {
		b.checkSale(id, b.sales[id])
	}
	b.checkInvoices(s.Billed)
	b.checkStock(s.Stock)
	b.checkSummary(s.Summary)
	b.report.check(s.Billed.Net == s.Summary.Net, "Billing's books say %s net, Order's report %s", s.Billed.Net, s.Summary.Net)
	b.checkFollowers(s.Followers)
	return b.report, nil
}

// fold reads a journal to its head, checking the chain on the way.
func (b *books) fold(ctx context.Context, source follow.Source) error {
	first, head, err := source.Bounds(ctx)
	if err != nil {
		return err
	}
	if first.Position > 0 {
		return fmt.Errorf("it begins behind %d, for older events were cut: the audit needs all of them: keep them with retain=0 in the URL of the database", first.Position)
	}
	place := freehold.Mark{Source: source.Name()}
	for place.Position < head.Position {
		rs, err := source.Read(ctx, place, 1000)
		if err != nil {
			return err
		}
		if len(rs) == 0 {
			return errors.New("it ends before its head")
		}
		for i := range rs {
			r := &rs[i]
			b.report.check(journal.Intact(r), "%s: bytes and digest do not agree", r.At)
			b.report.check(r.At.Position == place.Position+1 && r.At.Chain == journal.Chain(place.Chain, r.At.Position, r.Digest), "%s does not continue the chain", r.At)
			place = r.At
			if r.Placeholder() {
				continue
			}
			e, err := r.Decode()
			if err != nil {
				return err
			}
			b.apply(e)
		}
	}
	b.heads[source.Name()] = place
	return nil
}

func (b *books) sale(id string) *sale {
	if b.sales[id] == nil {
		b.sales[id] = &sale{}
	}
	return b.sales[id]
}

func (b *books) goodsBack(id string) *goodsBack {
	if b.returns[id] == nil {
		b.returns[id] = &goodsBack{}
	}
	return b.returns[id]
}

func (b *books) apply(e freehold.Event) {
	switch e := e.(type) {
	case event.OrderPlaced:
		s := b.sale(e.Order)
		s.placed++
		b.summary.Placed++
	case event.OrderConfirmed:
		s := b.sale(e.Order)
		s.confirmed++
		s.amount = e.Amount
		if s.committed > 0 && s.restocked == 0 {
			b.shipped(e.Lines)
		}
		b.summary.Confirmed++
		b.summary.Gross += e.Amount
		b.summary.Net += e.Amount
		sum, err := event.Sum(e.Lines)
		b.report.check(err == nil && sum == e.Amount, "order %s: confirmed for %s, its lines add up to %s", e.Order, e.Amount, sum)
	case event.OrderRejected:
		b.sale(e.Order).rejected++
		b.summary.Rejected++
	case event.OrderPaid:
		b.sale(e.Order).paid++
		b.summary.Paid++
	case event.OrderCancelled:
		s := b.sale(e.Order)
		s.cancelled++
		b.summary.Cancelled++
		b.summary.Gross -= s.amount
		b.summary.Net -= s.amount
	case event.OrderShipped:
		b.sale(e.Order).shipped++
	case event.OrderReturned:
		if e.Order != "" {
			b.sale(e.Order).returnedAmount += e.Amount
		} else {
			back := b.goodsBack(e.Return)
			back.returned++
			back.amount += e.Amount
		}
		b.returned(e.Lines)
		b.summary.Returns -= e.Amount
		b.summary.Net -= e.Amount
	case event.StockReserved:
		b.sale(e.Order).reserved++
	case event.StockRejected:
		b.sale(e.Order).stockRejected++
	case event.StockCommitted:
		b.sale(e.Order).committed++
	case event.StockReleased:
		b.sale(e.Order).released++
	case event.StockRestocked:
		if e.Return == "" {
			b.sale(e.Order).restocked++
		}
	case event.StockAdjusted:
		b.left(e.Lines)
	case event.PaymentAuthorized:
		b.sale(e.Order).authorized++
	case event.PaymentDeclined:
		b.sale(e.Order).declined++
	case event.PaymentCaptured:
		s := b.sale(e.Order)
		s.captured++
		s.capturedAmount += e.Amount
	case event.PaymentCaptureFailed:
		b.sale(e.Order).failed++
	case event.PaymentVoided:
		b.sale(e.Order).voided++
	case event.PaymentRefunded:
		s := b.sale(e.Order)
		s.refunded++
		s.refundedAmount += e.Amount
	case event.InvoiceIssued:
		s := b.sale(e.Order)
		s.invoices++
		s.invoicedAmount += e.Amount
		b.numbers[e.Series] = append(b.numbers[e.Series], e.Number)
	case event.CreditNoteIssued:
		b.credits[e.Series] = append(b.credits[e.Series], e.Number)
		if e.Order != "" {
			b.sale(e.Order).creditedAmount += e.Amount
		} else {
			back := b.goodsBack(e.Return)
			back.credits++
			back.credited += e.Amount
		}
	case event.LedgerAdjusted:
		if sum, err := event.Sum(e.Lines); err == nil {
			b.summary.Adjustments += sum
			b.summary.Net += sum
		}
	}
}

// checkSale checks one order against what its participants did.
func (b *books) checkSale(id string, s *sale) {
	check := func(ok bool, format string, args ...any) {
		b.report.check(ok, "order "+id+": "+format, args...)
	}
	check(s.placed == 1, "placed %d times", s.placed)
	check(s.confirmed <= 1 && s.paid <= 1 && s.rejected <= 1 && s.cancelled <= 1, "confirmed %d, paid %d, rejected %d, cancelled %d times", s.confirmed, s.paid, s.rejected, s.cancelled)
	check(s.paid+s.rejected+s.cancelled > 0, "has no end: it is neither paid nor rejected nor cancelled")
	check(s.confirmed == 0 || s.rejected == 0, "both confirmed and rejected")
	check(s.reserved+s.stockRejected <= 1, "Inventory answered %d times", s.reserved+s.stockRejected)
	check(s.authorized+s.declined <= 1, "Billing answered %d times", s.authorized+s.declined)
	check(s.captured <= 1 && s.invoices <= 1, "%d captures, %d invoices", s.captured, s.invoices)
	alive := s.paid == 1 && s.cancelled == 0
	if alive {
		check(s.committed == 1 && s.restocked == 0 && s.released == 0, "paid, and its stock is committed %d, released %d, restocked %d times", s.committed, s.released, s.restocked)
		check(s.captured == 1 && s.capturedAmount == s.amount, "paid %s, captured %s", s.amount, s.capturedAmount)
		check(s.invoices == 1 && s.invoicedAmount == s.amount, "paid %s, invoiced %s", s.amount, s.invoicedAmount)
		check(s.refundedAmount == s.returnedAmount && s.creditedAmount == s.returnedAmount, "goods for %s came back, %s were credited, %s refunded", s.returnedAmount, s.creditedAmount, s.refundedAmount)
		return
	}
	check(s.capturedAmount == s.refundedAmount, "it did not go through, and %s of %s were refunded", s.refundedAmount, s.capturedAmount)
	check(s.invoicedAmount == s.creditedAmount, "it did not go through, and %s of %s were credited", s.creditedAmount, s.invoicedAmount)
	if s.rejected == 1 {
		check(s.captured == 0 && s.invoices == 0 && s.committed == 0, "rejected, with %d captures, %d invoices, %d commitments", s.captured, s.invoices, s.committed)
		check(s.reserved == s.released, "rejected, and its stock is reserved %d, released %d times", s.reserved, s.released)
		check(s.authorized == s.voided, "rejected, and its payment is authorised %d, voided %d times", s.authorized, s.voided)
	}
	if s.cancelled == 1 {
		check(s.committed == s.restocked && s.reserved == s.restocked+s.released, "cancelled, and its stock is reserved %d, committed %d, restocked %d, released %d times", s.reserved, s.committed, s.restocked, s.released)
	}
}

func (b *books) checkInvoices(billed Books) {
	invoices, credits := b.numbers.check(b.report, "invoice"), b.credits.check(b.report, "credit note")
	for _, id := range slices.Sorted(maps.Keys(b.returns)) {
		back := b.returns[id]
		b.report.check(back.returned == 1 && back.credits == 1 && back.amount == back.credited, "return %s: recorded %d times for %s, credited %d times with %s", id, back.returned, back.amount, back.credits, back.credited)
	}
	var captured, invoiced, refunded, credited event.Money
	for _, s := range b.sales {
		captured += s.capturedAmount
		invoiced += s.invoicedAmount
		refunded += s.refundedAmount
		credited += s.creditedAmount
	}
	for _, back := range b.returns {
		credited += back.credited
	}
	b.report.check(billed.Captured == captured, "Billing's books say %s captured, its journal %s", billed.Captured, captured)
	b.report.check(billed.Billed == invoiced, "Billing's books say %s billed, its journal %s", billed.Billed, invoiced)
	b.report.check(billed.Refunded == refunded, "Billing's books say %s refunded, its journal %s", billed.Refunded, refunded)
	b.report.check(billed.CreditNotes == credited, "Billing's books say %s credited, its journal %s", billed.CreditNotes, credited)
	b.report.check(billed.Adjustments == b.summary.Adjustments, "Billing's books say %s adjusted, its journal %s", billed.Adjustments, b.summary.Adjustments)
	b.report.check(billed.Credits == credits, "Billing's books say %d credit notes, its journal %d", billed.Credits, credits)
	b.report.check(billed.Invoices == invoices, "Billing's books say %d invoices, its journal %d", billed.Invoices, invoices)
}

// checkSummary compares the read model with the fold of the journals.
func (b *books) checkSummary(got orderdb.Summary) {
	want := b.summary
	for _, c := range []struct {
		name      string
		got, want any
	}{
		{"placed", got.Placed, want.Placed}, {"confirmed", got.Confirmed, want.Confirmed}, {"paid", got.Paid, want.Paid}, {"rejected", got.Rejected, want.Rejected},
		{"cancelled", got.Cancelled, want.Cancelled}, {"gross", got.Gross, want.Gross}, {"returns", got.Returns, want.Returns},
		{"adjustments", got.Adjustments, want.Adjustments}, {"net", got.Net, want.Net},
	} {
		b.report.check(c.got == c.want, "sales report: %s is %v, the journals say %v", c.name, c.got, c.want)
	}
}

// checkFollowers checks that every consumer has seen all of its source. A relay's
// place is what the broker holds, which may be gone at any moment: its followers'
// places count, not the broker's.
func (b *books) checkFollowers(all []follow.Status) {
	for _, st := range all {
		head, known := b.heads[st.Source]
		if !known || st.Follower == "relay" {
			continue
		}
		b.report.check(st.Mark.Position == head.Position && st.Mark.Chain == head.Chain, "%s follows %s: stands at %d, the head is %d, or their chains differ", st.Follower, st.Source, st.Mark.Position, head.Position)
		b.report.check(st.Parked == 0, "%s follows %s: events of %d keys are parked", st.Follower, st.Source, st.Parked)
		b.report.check(st.State == follow.Running, "%s follows %s: it is %s: %s", st.Follower, st.Source, st.State, st.Error)
	}
}
