package saga

import (
	"context"
	"encoding/json"
	"errors"
	"time"
)

// Two instances of a service may run a process at the same time: one that was stopped, or
// has lost its connection, commits the transaction it is in although another one has taken
// over. The other is fenced, or finds its mark moved already, and nobody has told it of
// the deadlines that were set there. So what is stored is read again behind the start,
// behind each fence, and now and then: a deadline of the former one that fires, and sets
// others, moves no mark.

const (
	// settleTime is enough for a follower that was fenced to read its mark again, and for
	// the deadlines of a step that was committed to be in memory.
	settleTime = time.Second
	// rescanTime is between two readings if nothing asks for one.
	rescanTime = time.Minute
)

// lookForMissed has deadlines fire that other instances have set.
func (p *Process[T, S]) lookForMissed(ctx context.Context) {
	var took time.Duration
	for ctx.Err() == nil {
		sleep(ctx, max(settleTime, p.opts.Pause, 10*took)) // with many instances, not all the time
		began := time.Now()
		missing, err := p.missing(ctx)
		if err == nil && len(missing) > 0 {
			err = p.loadMissed(ctx, missing)
			began = began.Add(settleTime) // for so long it did nothing
		}
		took = time.Since(began)
		pause := max(rescanTime, 100*took)
		if err != nil && ctx.Err() == nil {
			pause = 10 * settleTime
			p.log.Warn("deadlines that another instance has set are not read, tried again", "saga", p.name, "in", pause, "error", err)
		}
		select {
		case <-time.After(pause):
		case <-p.timers.fenced:
		case <-ctx.Done():
		}
	}
}

// missing are the deadlines that are stored and not in memory. What cannot be read fails
// where it is used.
func (p *Process[T, S]) missing(ctx context.Context) (all []*timer, err error) {
	err = p.db.View(ctx, func(ctx context.Context, tx T) error {
		all = nil
		for item, err := range p.db.Keeper(tx).Scan(ctx, p.liveSpace(), "") {
			if err := errors.Join(err, ctx.Err()); err != nil {
				return err
			}
			var inst struct {
				Deadlines map[string]int64 `json:"deadlines"`
			}
			if json.Unmarshal(item.Value, &inst) != nil {
				continue
			}
			for name, at := range inst.Deadlines {
				if key := (timerKey{item.Key, name, at}); !p.timers.knows(key) {
					all = append(all, &timer{timerKey: key})
				}
			}
		}
		return nil
	})
	return all, err
}

// loadMissed adds those of the deadlines that still stand, and are not known, when the
// steps of this process that were under way have been told of.
func (p *Process[T, S]) loadMissed(ctx context.Context, missing []*timer) error {
	sleep(ctx, settleTime)
	standing, err := p.standing(ctx, missing)
	if err != nil {
		return err
	}
	n := 0
	for _, t := range standing {
		if p.timers.load(t.timerKey) {
			n++
		}
	}
	if n > 0 {
		p.log.Info("deadlines found that another instance has set", "saga", p.name, "deadlines", n)
	}
	return nil
}
