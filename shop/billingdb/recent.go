package billingdb

import (
	"slices"
	"sync"

	"github.com/freehold-go/freehold/shop/billing"
)

// recent remembers payments as they were last written, to save reading them back
// for the next fact. What it holds may belong to a transaction that was rolled
// back, so it is believed only by an update that finds the remembered revision,
// which no two changes share; every other conclusion is drawn from the database.
type recent struct {
	mu         sync.Mutex
	young, old map[string]remembered // two generations bound the memory
	doubts     map[string]bool       // orders whose payments must be read the next time
}

type remembered struct {
	payment  billing.Payment
	revision int64
}

// recentPayments is how many payments each generation holds.
const recentPayments = 8 << 10

// get returns a copy of what is remembered of an order, or that it is doubted.
func (r *recent) get(order string) (p billing.Payment, revision int64, ok, doubted bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.doubts[order] {
		return p, 0, false, true
	}
	m, ok := r.young[order]
	if !ok {
		m, ok = r.old[order]
	}
	m.payment.Refunds = slices.Clone(m.payment.Refunds)
	return m.payment, m.revision, ok, false
}

// doubt has payments read the next time, because the database holds others.
func (r *recent) doubt(all []*held) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.doubts == nil {
		r.doubts = map[string]bool{}
	}
	for _, h := range all {
		r.doubts[h.p.Order] = true
	}
}

func (r *recent) put(p *billing.Payment, revision int64) {
	m := remembered{*p, revision}
	m.payment.Refunds = slices.Clone(p.Refunds)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.young == nil || len(r.young) >= recentPayments {
		r.young, r.old = make(map[string]remembered, recentPayments), r.young
	}
	r.young[p.Order] = m
	delete(r.doubts, p.Order)
}
