package postgres

import (
	"runtime"
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
	// maxIdle is how often others are let run, in vain, before a group begins.
	maxIdle = 16
)

// appends is the queue of calls of Append.
type appends struct {
	calls   chan *appendCall
	turn    chan struct{} // holds one while no worker has the turn
	workers sync.WaitGroup

	callers atomic.Int64 // those that the last group had, and that waited when it was done
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
					db.appendTogether(group)
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
// about to call again: they are let run for as long as some come. No timer waits for them.
func (a *appends) more(first *appendCall) []*appendCall {
	group := a.take([]*appendCall{first})
	most := min(int(a.callers.Load()), appendBatch)
	for idle := 0; len(group) < most && idle < maxIdle; idle++ {
		n := len(group)
		runtime.Gosched()
		if group = a.take(group); len(group) > n {
			idle = -1
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
