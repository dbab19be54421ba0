package postgres

import "time"

// turn is of who makes a pass. A commit that wants to carry one waits for the turn if it is
// the only one that waits: the pass under way ends soon, and the next one gives positions
// to all that was committed meanwhile. If it did not wait, its events would need a pass of
// the sequencer's, during which the next commit found the turn taken: once behind, every
// group of appends would be committed twice, so to speak. More than one need not wait.
type turn struct {
	free chan struct{} // holds one while nobody has the turn
	next chan struct{} // holds one while a commit waits
}

// turnPatience is for how long a commit waits for the turn at most.
const turnPatience = 10 * time.Millisecond

func newTurn() turn {
	t := turn{make(chan struct{}, 1), make(chan struct{}, 1)}
	t.free <- struct{}{}
	return t
}

func (t *turn) take() { <-t.free }
func (t *turn) give() { t.free <- struct{}{} }

// tryTake takes the turn if it is free, or will be within patience and nobody else waits
// for that.
func (t *turn) tryTake(patience time.Duration) bool {
	select {
	case <-t.free:
		return true
	default:
	}
	if patience == 0 {
		return false
	}
	select {
	case t.next <- struct{}{}:
		defer func() { <-t.next }()
	default:
		return false
	}
	limit := time.NewTimer(patience)
	defer limit.Stop()
	select {
	case <-t.free:
		return true
	case <-limit.C:
		return false
	}
}
