package audit

import (
	"maps"
	"slices"

	"github.com/freehold-go/freehold/shop/event"
	"github.com/freehold-go/freehold/shop/inventory"
)

func (b *books) product(sku string) *inventory.Stock {
	if b.moved[sku] == nil {
		b.moved[sku] = &inventory.Stock{}
	}
	return b.moved[sku]
}

// shipped counts goods that were committed to customers, and stayed with them.
func (b *books) shipped(lines []event.Line) {
	for _, l := range lines {
		if l.Stocked {
			b.product(l.SKU).Shipped += l.Quantity
		}
	}
}

// returned counts goods that customers sent back.
func (b *books) returned(lines []event.Line) {
	for _, l := range lines {
		if l.Stocked {
			b.product(l.SKU).Returned += l.Quantity
		}
	}
}

// left counts goods that left, or were found, without an order.
func (b *books) left(lines []event.Line) {
	for _, l := range lines {
		if l.Stocked {
			b.product(l.SKU).Left += l.Quantity
		}
	}
}

// checkStock compares every product with what the journals say of it.
func (b *books) checkStock(stock map[string]inventory.Stock) {
	for sku := range stock {
		b.product(sku)
	}
	for _, sku := range slices.Sorted(maps.Keys(b.moved)) {
		s, want := stock[sku], b.moved[sku]
		b.report.check(s.Balanced(), "stock of %s does not add up: %+v", sku, s)
		b.report.check(s.Reserved == 0, "%d of %s are reserved although every order has ended", s.Reserved, sku)
		b.report.check(s.Free >= 0 || s.Left > 0, "%s is oversold by %d", sku, -s.Free)
		b.report.check(s.Shipped == want.Shipped, "%d of %s are with customers, the journals say %d", s.Shipped, sku, want.Shipped)
		b.report.check(s.Returned == want.Returned, "%d of %s came back, the journals say %d", s.Returned, sku, want.Returned)
		b.report.check(s.Left == want.Left, "%d of %s left without an order, the journals say %d", s.Left, sku, want.Left)
	}
}
