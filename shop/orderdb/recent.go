package orderdb

import "github.com/freehold-go/freehold"

// recent remembers orders as the last batches have stored them, so that the next one
// need not read and decode them again. It is believed by a batch that begins directly
// behind the last one: the follower's mark, which moves in the same transaction, then
// stands where it stood when all of this was stored. A batch of one event may be a parked
// one that is retried, which moves no mark: nothing is remembered of it. One goroutine
// uses it.
type recent struct {
	at         freehold.Mark        // the last event taken in
	young, old map[string]OrderView // two generations bound the memory
}

// recentOrders is how many orders each generation holds.
const recentOrders = 2 << 10

// begin forgets everything unless r, the first event of a batch, is the next one: an
// earlier batch may have been rolled back, or another instance have gone on.
func (m *recent) begin(r *freehold.Recorded) {
	if r.At.Position != m.at.Position+1 || r.At.Epoch != m.at.Epoch {
		*m = recent{}
	}
}

func (m *recent) get(id string) (o OrderView, ok bool) {
	if o, ok = m.young[id]; !ok {
		o, ok = m.old[id]
	}
	return o, ok
}

// put takes in what a batch of events has stored.
func (m *recent) put(rs []freehold.Recorded, stored map[string]*touched) {
	if len(rs) == 1 {
		*m = recent{}
		return
	}
	m.at = rs[len(rs)-1].At
	for id, o := range stored {
		if m.young == nil || len(m.young) >= recentOrders {
			m.young, m.old = make(map[string]OrderView, recentOrders), m.young
		}
		m.young[id] = o.OrderView
	}
}
