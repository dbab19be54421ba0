package saga

import "github.com/freehold-go/freehold/follow"

// Routes are the handlers that the process gives to its follower.
func (p *Process[T, S]) Routes() []follow.Route[T] {
	var all []follow.Route[T]
	for _, d := range p.definitions {
		for _, h := range d.handlers {
			all = append(all, follow.OnType(h.typ, p.handle))
		}
	}
	return all
}

// Pending is how many deadlines are in memory.
func (p *Process[T, S]) Pending() int {
	p.timers.mu.Lock()
	defer p.timers.mu.Unlock()
	return len(p.timers.heap)
}
