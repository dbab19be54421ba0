package follow

import (
	"context"
	"encoding/json"
	"strconv"

	"github.com/freehold-go/freehold"
)

// laneSink is the database as a lane has it: a move of the follower's mark moves the
// lane's instead.
func (s *databaseSink[T]) laneSink(l *laned, lane int, from, floor, last freehold.Mark) *databaseSink[T] {
	one := *s
	one.together = &together{} // lanes run side by side
	one.db = laneDB[T]{s.db, laneKeeper{follower: s.follower, lane: lane, n: l.n, from: from, floor: floor, last: last}}
	return &one
}

type laneDB[T freehold.Tx] struct {
	DB[T]
	of laneKeeper
}

func (d laneDB[T]) Keeper(tx T) Keeper {
	k := d.of
	k.Keeper = d.DB.Keeper(tx)
	return k
}

func (d laneDB[T]) Do(ctx context.Context, fn func(ctx context.Context, tx T) error) error {
	return Do(ctx, d.DB, fn)
}

type laneKeeper struct {
	Keeper
	follower    string
	lane, n     int
	from, floor freehold.Mark // the floor before the lane's part of the batch, and behind it
	last        freehold.Mark // where the part ends
}

// Move moves the lane's mark, looks whether there are as many lanes as it was dealt by,
// and stores the floor.
func (k laneKeeper) Move(ctx context.Context, follower string, from, to freehold.Mark) error {
	if err := k.Keeper.Move(ctx, laneName(k.follower, k.lane), from, to); err != nil {
		return err
	}
	if err := countsLanes(ctx, k.Keeper, k.follower, to.Source, k.n); err != nil {
		return err
	}
	floor := k.from
	if to == k.last {
		floor = k.floor
	}
	raw, err := json.Marshal(floor)
	if err != nil {
		return err
	}
	return k.Keeper.Put(ctx, lanesSpace(k.follower, to.Source), strconv.Itoa(k.lane), raw)
}
