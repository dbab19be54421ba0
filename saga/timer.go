package saga

import (
	"container/heap"
	"context"
	"encoding/json"
	"strings"
	"sync"
	"time"
)

// timers is the deadlines of live processes in memory, soonest first. An entry may
// be out of date; the stored instance decides.
type timers struct {
	mu      sync.Mutex
	heap    timerHeap
	changed chan struct{} // has room for one signal
}

type timer struct {
	at       int64 // microseconds
	id, name string
}

func newTimers() *timers { return &timers{changed: make(chan struct{}, 1)} }

func (t *timers) add(id, name string, at int64) {
	t.mu.Lock()
	soonest := len(t.heap) == 0 || at < t.heap[0].at
	heap.Push(&t.heap, timer{at, id, name})
	t.mu.Unlock()
	if soonest {
		select {
		case t.changed <- struct{}{}:
		default:
		}
	}
}

// due takes what is due, and says when the next one is.
func (t *timers) due(now int64, limit int) (due []timer, next time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for len(t.heap) > 0 && t.heap[0].at <= now && len(due) < limit {
		due = append(due, heap.Pop(&t.heap).(timer))
	}
	if len(t.heap) == 0 {
		return due, time.Hour
	}
	return due, max(0, time.Duration(t.heap[0].at-now)*time.Microsecond)
}

type timerHeap []timer

func (h timerHeap) Len() int           { return len(h) }
func (h timerHeap) Less(i, j int) bool { return h[i].at < h[j].at }
func (h timerHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *timerHeap) Push(x any)        { *h = append(*h, x.(timer)) }
func (h *timerHeap) Pop() any {
	old := *h
	last := old[len(old)-1]
	*h = old[:len(old)-1]
	return last
}

// loadTimers reads the deadlines of all live processes, and drops stashed events
// that nobody came for.
func (p *Process[T, S]) loadTimers(ctx context.Context) error {
	var expired []string
	err := p.db.View(ctx, func(ctx context.Context, tx T) error {
		k := p.db.Keeper(tx)
		for item, err := range k.Scan(ctx, p.live(), "") {
			if err != nil {
				return err
			}
			var inst instance
			if err := json.Unmarshal(item.Value, &inst); err != nil {
				return err
			}
			for name, at := range inst.Deadlines {
				p.timers.add(item.Key, name, at)
			}
		}
		for item, err := range k.Scan(ctx, p.stashed(), "") {
			if err != nil {
				return err
			}
			var w waiting
			if err := json.Unmarshal(item.Value, &w); err != nil {
				return err
			}
			if w.Until.Before(tx.Now()) {
				expired = append(expired, item.Key)
			}
		}
		return nil
	})
	if err != nil || len(expired) == 0 {
		return err
	}
	p.log.Warn("stashed events dropped: their processes never began", "saga", p.name, "events", len(expired), "first", strings.ReplaceAll(expired[0], "\x1f", " "))
	_, err = p.db.Update(ctx, func(ctx context.Context, tx T) error {
		for _, key := range expired {
			if err := p.db.Keeper(tx).Delete(ctx, p.stashed(), key); err != nil {
				return err
			}
		}
		return nil
	})
	return err
}

// fireTimers calls the time-out handler for deadlines that pass.
func (p *Process[T, S]) fireTimers(ctx context.Context) {
	pause := 10 * time.Millisecond
	for {
		due, next := p.timers.due(time.Now().UnixMicro(), 1000)
		if len(due) > 0 {
			failed := p.fire(ctx, due)
			for _, t := range failed {
				p.timers.add(t.id, t.name, t.at)
			}
			if len(failed) == 0 {
				pause = 10 * time.Millisecond
				continue
			}
			next = pause
			pause = min(2*pause, 5*time.Second)
		}
		wait := time.NewTimer(next)
		select {
		case <-wait.C:
		case <-p.timers.changed:
			wait.Stop()
		case <-ctx.Done():
			wait.Stop()
			return
		}
	}
}

// fire handles deadlines that are due and still set, each in a transaction of its
// own, and returns those that failed.
func (p *Process[T, S]) fire(ctx context.Context, due []timer) (failed []timer) {
	var standing []timer
	err := p.db.View(ctx, func(ctx context.Context, tx T) error {
		standing = nil
		for _, t := range due {
			inst, found, err := p.load(ctx, p.db.Keeper(tx), t.id)
			if err != nil {
				return err
			}
			if found && inst.Deadlines[t.name] == t.at {
				standing = append(standing, t)
			}
		}
		return nil
	})
	if err != nil {
		p.log.Warn("deadlines wait", "saga", p.name, "error", err)
		return due
	}
	for _, t := range standing {
		_, err := p.db.Update(ctx, func(ctx context.Context, tx T) error {
			k := p.db.Keeper(tx)
			if err := tx.Lock(ctx, "saga/"+p.name+"/"+t.id); err != nil {
				return err
			}
			inst, found, err := p.load(ctx, k, t.id)
			if err != nil || !found || inst.Deadlines[t.name] != t.at {
				return err
			}
			delete(inst.Deadlines, t.name)
			return p.step(ctx, tx, k, t.id, inst, func(ctx context.Context, s *Step[S]) error {
				if p.timeout == nil {
					return nil
				}
				return p.timeout(ctx, tx, s, Timeout{t.name, time.UnixMicro(t.at).UTC()})
			})
		})
		if err != nil {
			p.log.Warn("deadline failed", "saga", p.name, "id", t.id, "deadline", t.name, "error", err)
			failed = append(failed, t)
		}
	}
	return failed
}
