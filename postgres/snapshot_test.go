package postgres

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

func TestOthersThatHaveEndedAreNoticed(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		base, now string
		known     []uint64
		want      bool
	}{
		{"10:10:", "10:10:", nil, false},
		{"10:10:", "10:11:10", nil, false},        // one has begun
		{"10:10:", "11:11:", nil, true},           // and ended
		{"10:10:", "11:11:", []uint64{10}, false}, // it is known
		{"10:11:10", "11:11:", nil, true},         // one that was open has ended
		{"10:11:10", "11:11:", []uint64{10}, false},
		{"10:11:10", "10:12:10,11", nil, false},
		{"10:13:10,12", "12:14:12,13", []uint64{10}, false},
		{"10:13:10,12", "12:15:12,13", []uint64{10}, true},         // 14
		{"10:13:10,12", "13:14:13", []uint64{10}, true},            // 12
		{"10:10:", fmt.Sprintf("10:%d:", 11+mostEnded), nil, true}, // too many to look at
		{"10:10:", "9:9:", nil, true},                              // a database that was restored
		{"10:10:", "10:10", nil, true}, {"", "10:10:", nil, true},  // not understood
		{"10:12:11,10", "10:12:11,10", nil, true},                        // not in order
		{"10:10:x", "10:10:", nil, true}, {"10:10:", "10:a:", nil, true}, // not numbers
	} {
		if got := othersEnded(test.base, test.now, test.known...); got != test.want {
			t.Errorf("from %q to %q, knowing %d: %v, want %v", test.base, test.now, test.known, got, test.want)
		}
	}
}

// TestOneCommitWaitsForTheTurn: the first that finds it taken waits for it, the second does
// not, and nobody waits for longer than it is willing to.
func TestOneCommitWaitsForTheTurn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		turn := newTurn()
		if !turn.tryTake(0) || turn.tryTake(0) {
			t.Fatal("a turn that is free is one commit's")
		}
		begun := time.Now()
		if turn.tryTake(time.Second) || time.Since(begun) != time.Second {
			t.Errorf("it waited for %s", time.Since(begun))
		}
		got := make(chan bool)
		go func() { got <- turn.tryTake(time.Second) }()
		synctest.Wait()
		begun = time.Now()
		if turn.tryTake(time.Second) || time.Since(begun) != 0 {
			t.Errorf("a second one waited for %s", time.Since(begun))
		}
		turn.give()
		if !<-got {
			t.Error("the one that waited has not got the turn")
		}
		turn.give()
		turn.take()
	})
}
