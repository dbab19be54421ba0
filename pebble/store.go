package pebble

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"slices"

	"github.com/cockroachdb/pebble/v2"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/journal"
)

// store reads the journal for package journal, up to the durable head.
type store struct{ db *DB }

var _ journal.Store = store{}

func (s store) Source() freehold.Source { return s.db.name }

func (s store) place() (head freehold.Mark, news chan struct{}) {
	s.db.mu.Lock()
	defer s.db.mu.Unlock()
	return s.db.head, s.db.news
}

func (s store) Bounds(context.Context) (first, head freehold.Mark, err error) {
	head, _ = s.place()
	return freehold.Mark{Source: s.db.name, Epoch: s.db.epoch}, head, nil
}

func (s store) open() error {
	select {
	case <-s.db.queue.Done():
		return freehold.ErrClosed
	default:
		return nil
	}
}

func (s store) Read(_ context.Context, after freehold.Position, limit int) ([]freehold.Recorded, error) {
	if err := s.open(); err != nil {
		return nil, err
	}
	head, _ := s.place()
	if after >= head.Position {
		return nil, nil
	}
	it, err := s.db.kv.NewIter(&pebble.IterOptions{LowerBound: numbered(keyEvent, int64(after)+1), UpperBound: numbered(keyEvent, int64(head.Position)+1)})
	if err != nil {
		return nil, s.db.wrap(err)
	}
	rs := make([]freehold.Recorded, 0, min(int64(limit), int64(head.Position-after)))
	for ok := it.First(); ok && len(rs) < limit; ok = it.Next() {
		r, err := s.db.decode(it.Key(), it.Value())
		if err != nil {
			return nil, errors.Join(s.db.wrap(err), it.Close())
		}
		rs = append(rs, r)
	}
	if err := errors.Join(it.Error(), it.Close()); err != nil {
		return nil, s.db.wrap(err)
	}
	return rs, nil
}

func (s store) ReadStream(_ context.Context, id freehold.StreamID, after freehold.Version, limit int) ([]freehold.Recorded, error) {
	if err := s.open(); err != nil {
		return nil, err
	}
	head, _ := s.place()
	return s.db.readStream(s.db.kv, id, after, head.Position, limit)
}

// readStream reads a stream's events up to a position.
func (db *DB) readStream(from pebble.Reader, id freehold.StreamID, after freehold.Version, last freehold.Position, limit int) ([]freehold.Recorded, error) {
	prefix := append(append([]byte{keyStream}, id...), 0)
	lower := binary.BigEndian.AppendUint64(slices.Clone(prefix), uint64(after)+1)
	upper := append(slices.Clone(prefix[:len(prefix)-1]), 1)
	it, err := from.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return nil, db.wrap(err)
	}
	var rs []freehold.Recorded
	for ok := it.First(); ok && (limit < 0 || len(rs) < limit); ok = it.Next() {
		key := append([]byte{keyEvent}, it.Value()...)
		value, found, err := get(from, key)
		var r freehold.Recorded
		if err == nil && !found {
			err = errRecord
		}
		if err == nil {
			r, err = db.decode(key, value)
		}
		if err != nil {
			return nil, errors.Join(db.wrap(err), it.Close())
		}
		if r.At.Position > last {
			break
		}
		rs = append(rs, r)
	}
	if err := errors.Join(it.Error(), it.Close()); err != nil {
		return nil, db.wrap(err)
	}
	return rs, nil
}

func (s store) Streams(_ context.Context, after freehold.StreamID, limit int) ([]journal.StreamInfo, error) {
	if err := s.open(); err != nil {
		return nil, err
	}
	it, err := s.db.kv.NewIter(&pebble.IterOptions{LowerBound: append(append([]byte{keyVersion}, after...), 0), UpperBound: []byte{keyVersion + 1}})
	if err != nil {
		return nil, s.db.wrap(err)
	}
	var all []journal.StreamInfo
	for ok := it.First(); ok && len(all) < limit; ok = it.Next() {
		all = append(all, journal.StreamInfo{Stream: freehold.StreamID(bytes.Clone(it.Key()[1:])), Version: freehold.Version(binary.BigEndian.Uint64(it.Value()))})
	}
	if err := errors.Join(it.Error(), it.Close()); err != nil {
		return nil, s.db.wrap(err)
	}
	return all, nil
}

func (s store) Wait(ctx context.Context, after freehold.Position) error {
	for {
		head, news := s.place()
		if head.Position > after {
			return nil
		}
		select {
		case <-news:
		case <-s.db.queue.Done():
			return freehold.ErrClosed
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s store) Incarnations(context.Context) ([]journal.Incarnation, error) {
	it, err := s.db.kv.NewIter(&pebble.IterOptions{LowerBound: []byte{keyIncarnation}, UpperBound: []byte{keyIncarnation + 1}})
	if err != nil {
		return nil, s.db.wrap(err)
	}
	var all []journal.Incarnation
	for ok := it.First(); ok; ok = it.Next() {
		var in journal.Incarnation
		if err := json.Unmarshal(it.Value(), &in); err != nil {
			return nil, errors.Join(s.db.wrap(err), it.Close())
		}
		all = append(all, in)
	}
	return all, errors.Join(it.Error(), it.Close())
}
