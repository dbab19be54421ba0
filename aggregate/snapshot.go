package aggregate

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
)

// Keep returns snapshots that are kept in a database beside its followers' values.
// schema is the version of the state's form: snapshots of another one are ignored.
func Keep[T freehold.Tx](db follow.DB[T], schema int) Snapshots {
	return keeping[T]{db, fmt.Sprintf("snapshot/%d", schema)}
}

type keeping[T freehold.Tx] struct {
	db    follow.DB[T]
	space string
}

type snapshot struct {
	Version freehold.Version `json:"version"`
	State   json.RawMessage  `json:"state"`
}

func (k keeping[T]) Load(ctx context.Context, s freehold.StreamID) (v freehold.Version, state []byte, found bool, err error) {
	err = k.db.View(ctx, func(ctx context.Context, tx T) error {
		raw, ok, err := k.db.Keeper(tx).Get(ctx, k.space, string(s))
		if err != nil || !ok {
			return err
		}
		var snap snapshot
		if err := json.Unmarshal(raw, &snap); err != nil {
			return nil // a damaged snapshot is no snapshot
		}
		v, state, found = snap.Version, snap.State, true
		return nil
	})
	return v, state, found, err
}

func (k keeping[T]) Save(ctx context.Context, s freehold.StreamID, v freehold.Version, state []byte) error {
	raw, err := json.Marshal(snapshot{v, state})
	if err != nil {
		return err
	}
	_, err = k.db.Update(ctx, func(ctx context.Context, tx T) error { return k.db.Keeper(tx).Put(ctx, k.space, string(s), raw) })
	return err
}
