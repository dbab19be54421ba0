package postgres

import (
	"sync"
	"sync/atomic"
	"time"
)

// Calls of Append that wait at the same time share a transaction: a worker takes what is
// queued, and the next one begins when it is done, so that groups are large, or has been
// at it for appendPatience: it may wait for a stream that another transaction makes, or
// for a slow disk. A call whose streams another transaction has locked goes
// alone, so that the others need not wait for that one, and if the shared
// transaction fails each call runs again alone.
const (
	appendWorkers  = 4
	appendPatience = 10 * time.Millisecond
	appendBatch    = 128
	// comeBack is the part of the time that a group takes for which the next one waits for
	// callers that may be about to call again, and mostComeBack how long at most.
	comeBack     = 16
	mostComeBack = 500 * time.Microsecond
)

// appends is the queue of calls of Append.
type appends struct {
	calls   chan *appendCall
	turn    chan struct{} // holds one while no worker has the turn
	workers sync.WaitGroup

	callers atomic.Int64 // those that the last group answered, and that waited then
	took    atomic.Int64 // the last group, in nanoseconds
}

func (a *appends) start(db *DB) {
	a.calls, a.turn = make(chan *appendCall, 1024), make(chan struct{}, 1)
	a.turn <- struct{}{}
	for range appendWorkers {
		a.workers.Go(func() {
			for open := true; open; {
				<-a.turn
				pass := sync.OnceFunc(func() { a.turn <- struct{}{} })
				var call *appendCall
				if call, open = <-a.calls; open {
					group := a.more(call)
					late := time.AfterFunc(appendPatience, pass)
					begun := time.Now()
					db.appendTogether(group)
					a.took.Store(int64(time.Since(begun)))
					late.Stop()
				}
				pass()
			}
		})
	}
}

// close ends the workers. No call may be under way.
func (a *appends) close() {
	close(a.calls)
	a.workers.Wait()
}

// more takes what is queued behind a call. Callers that the last group has answered may be
// about to call again, and each group costs as much as some dozen events do: they are waited
// for a little.
func (a *appends) more(first *appendCall) []*appendCall {
	group := a.take([]*appendCall{first})
	most := min(int(a.callers.Load()), appendBatch)
	if len(group) >= most {
		return group
	}
	limit := time.NewTimer(min(time.Duration(a.took.Load())/comeBack, mostComeBack))
	defer limit.Stop()
	for len(group) < most {
		select {
		case call, open := <-a.calls:
			if !open {
				return group
			}
			group = a.take(append(group, call))
		case <-limit.C:
			return group
		}
	}
	return group
}

// take adds what is queued to a group.
func (a *appends) take(group []*appendCall) []*appendCall {
	for len(group) < appendBatch {
		select {
		case call, open := <-a.calls:
			if !open {
				return group
			}
			group = append(group, call)
		default:
			return group
		}
	}
	return group
}
