package aggregate

import (
	"context"
	"encoding/json"
	"hash/crc32"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
)

// Snapshots keeps states by stream. It may forget any of them at any time: losing
// one costs time only.
type Snapshots interface {
	Load(ctx context.Context, s freehold.StreamID) (snap Snapshot, found bool, err error)
	Save(ctx context.Context, s freehold.StreamID, snap Snapshot) error
}

// Snapshot is a state as JSON, with the place of the last event that it includes.
type Snapshot struct {
	Version freehold.Version `json:"version"`
	At      freehold.Mark    `json:"at"`
	State   json.RawMessage  `json:"state"`
}

// Keep returns snapshots that are kept in a database beside its followers' values,
// one for each stream. schema is the version of the state's form: raise it when
// the state's fields or Evolve change, and older snapshots are ignored and
// replaced.
func Keep[T freehold.Tx](db follow.DB[T], schema int) Snapshots { return keeping[T]{db, schema} }

type keeping[T freehold.Tx] struct {
	db     follow.DB[T]
	schema int
}

const snapshotSpace = "snapshot"

// document is the stored form of a snapshot.
type document struct {
	Schema int `json:"schema"`
	Snapshot
	Sum uint32 `json:"sum"` // CRC-32 of the state
}

func (k keeping[T]) Load(ctx context.Context, s freehold.StreamID) (snap Snapshot, found bool, err error) {
	err = k.db.View(ctx, func(ctx context.Context, tx T) error {
		raw, ok, err := k.db.Keeper(tx).Get(ctx, snapshotSpace, string(s))
		if err != nil || !ok {
			return err
		}
		var d document
		if json.Unmarshal(raw, &d) != nil || d.Schema != k.schema || d.Sum != crc32.ChecksumIEEE(d.State) {
			return nil
		}
		snap, found = d.Snapshot, true
		return nil
	})
	return snap, found, err
}

func (k keeping[T]) Save(ctx context.Context, s freehold.StreamID, snap Snapshot) error {
	raw, err := json.Marshal(document{k.schema, snap, crc32.ChecksumIEEE(snap.State)})
	if err != nil {
		return err
	}
	_, err = k.db.Update(ctx, func(ctx context.Context, tx T) error { return k.db.Keeper(tx).Put(ctx, snapshotSpace, string(s), raw) })
	return err
}

// fromSnapshot returns the saved state of a stream, or that of no events if there
// is none that fits the stream's history.
func (r *Repo[S]) fromSnapshot(ctx context.Context, stream freehold.StreamID, events reader) (k known[S]) {
	snap, found, err := r.opts.Snapshots.Load(ctx, stream)
	if err != nil || !found || snap.Version <= 0 {
		return known[S]{}
	}
	at, err := place(ctx, events, stream, snap.Version)
	if err != nil || at.Position != snap.At.Position || at.Chain != snap.At.Chain {
		return known[S]{}
	}
	if json.Unmarshal(snap.State, &k.state) != nil {
		return known[S]{}
	}
	k.version, k.saved, k.token, k.placed = snap.Version, snap.Version, freehold.NewToken(at), true
	return k
}

// snapshot saves a committed state if one is due. An error is no more than a
// snapshot that is not there.
func (r *Repo[S]) snapshot(ctx context.Context, stream freehold.StreamID, k known[S]) {
	if r.opts.Snapshots == nil || k.version-k.saved < freehold.Version(r.opts.SnapshotEvery) {
		return
	}
	raw, err := json.Marshal(k.state)
	if err != nil {
		return
	}
	at, err := place(ctx, r.store.Events, stream, k.version)
	if err != nil || at.Position == 0 {
		return
	}
	if r.opts.Snapshots.Save(ctx, stream, Snapshot{k.version, at, raw}) == nil {
		k.saved = k.version
		r.states.put(stream, k)
	}
}

// place returns where a version of a stream stands; the zero mark if it is not
// there.
func place(ctx context.Context, events reader, stream freehold.StreamID, v freehold.Version) (freehold.Mark, error) {
	for rec, err := range events(ctx, stream, v-1) {
		if err != nil {
			return freehold.Mark{}, err
		}
		if rec.Version == v {
			return rec.At, nil
		}
		break
	}
	return freehold.Mark{}, nil
}
