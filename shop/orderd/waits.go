package orderd

import (
	"sync"

	"github.com/freehold-go/freehold"
)

// waits are the reads that wait for an order to change. It is safe for concurrent
// use; the zero value is ready.
type waits struct {
	mu     sync.Mutex
	orders map[string]map[chan freehold.Mark]bool
}

// on returns a channel that says up to where the read model must be read to see
// the order's newest change; forget must be called.
func (w *waits) on(id string) (changed <-chan freehold.Mark, forget func()) {
	ch := make(chan freehold.Mark, 1)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.orders == nil {
		w.orders = map[string]map[chan freehold.Mark]bool{}
	}
	if w.orders[id] == nil {
		w.orders[id] = map[chan freehold.Mark]bool{}
	}
	w.orders[id][ch] = true
	return ch, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if delete(w.orders[id], ch); len(w.orders[id]) == 0 {
			delete(w.orders, id)
		}
	}
}

// touched wakes the reads of an order.
func (w *waits) touched(id string, at freehold.Mark) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for ch := range w.orders[id] {
		select {
		case <-ch: // the newer mark replaces one that was not taken
		default:
		}
		ch <- at
	}
}
