package journaltest

import (
	"context"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/freehold-go/freehold"
)

// lanes stops a follower in lanes while they are at work, again and again, with another
// number of lanes each time, and lets instances with different numbers run at once.
func (s suite[T]) lanes(t *testing.T, db DB[T]) {
	const streams, rounds = 6, 8
	stream := func(n int) freehold.StreamID { return freehold.Stream("a", strconv.Itoa(n)) }
	next := 0
	more := func(each int) {
		for range each {
			var ws []freehold.Write
			for n := range streams {
				ws = append(ws, write(stream(n), freehold.Any, happened(next)))
			}
			mustAppend(t, db, ws...)
			next++
		}
	}
	check := func(what string) {
		t.Helper()
		want := ""
		for n := range next {
			want += strconv.Itoa(n) + ";"
		}
		for n := range streams {
			if got := s.applied(t, db, string(stream(n))); got != want {
				t.Errorf("%s: %s is %q, want %q", what, stream(n), got, want)
			}
		}
	}
	for round, lanes := range []int{4, 4, 2, 1, 3, 4, 1, 2}[:rounds] {
		more(3)
		ctx, cancel := context.WithCancel(t.Context())
		var calls atomic.Int64
		opts := quietly()
		opts.Lanes, opts.Batch = lanes, 12
		f := follower(t, db, db.Journal(), opts, func(inner context.Context, tx T, e Happened, r freehold.Recorded) error {
			if err := s.apply(inner, tx, e, r); err != nil {
				return err
			}
			if calls.Add(1) == int64(2+2*round) { // one lane fails, others may not
				cancel()
				return errNo
			}
			return nil
		})
		if err := f.Run(ctx); err != nil {
			t.Errorf("round %d: %v", round, err)
		}
		cancel()
		if round%3 == 2 {
			opts := quietly()
			opts.Lanes, opts.Batch = 1+(lanes+1)%4, 12
			f := follower(t, db, db.Journal(), opts, s.apply)
			stop := running(t, f)
			if err := s.caughtUp(t, db, f); err != nil {
				t.Errorf("round %d: %v", round, err)
			}
			stop()
			check("goes on in " + strconv.Itoa(opts.Lanes) + " lanes")
		}
	}
	var all sync.WaitGroup
	for _, lanes := range []int{1, 2, 4} {
		opts := quietly()
		opts.Lanes, opts.Batch = lanes, 12
		f := follower(t, db, db.Journal(), opts, s.apply)
		stop := running(t, f)
		defer stop()
		all.Go(func() {
			if err := s.caughtUp(t, db, f); err != nil {
				t.Errorf("three instances: %v", err)
			}
		})
	}
	more(10)
	all.Wait()
	opts := quietly()
	opts.Lanes = 4
	f := follower(t, db, db.Journal(), opts, s.apply)
	stop := running(t, f)
	defer stop()
	if err := s.caughtUp(t, db, f); err != nil {
		t.Errorf("at the end: %v", err)
	}
	check("instances with 1, 2 and 4 lanes")
}
