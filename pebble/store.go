package pebble

import (
	"context"
	"encoding/json"
	"errors"
	"math"

	lib "github.com/cockroachdb/pebble/v2"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/internal/record"
	"github.com/freehold-go/freehold/journal"
)

// store reads the journal for package journal, from the durable state.
type store struct{ db *DB }

var _ journal.Store = store{}

func (s store) Source() freehold.Source { return s.db.name }

func (s store) Bounds(context.Context) (first, head freehold.Mark, err error) {
	head, _, err = s.db.durable()
	return freehold.Mark{Source: s.db.name, Epoch: head.Epoch}, head, err
}

func (s store) Read(_ context.Context, after freehold.Position, limit int) ([]freehold.Recorded, error) {
	v, err := s.db.acquire()
	if err != nil {
		return nil, err
	}
	defer s.db.release(v)
	if after >= v.head.Position {
		return nil, nil
	}
	limit = int(min(int64(limit), int64(v.head.Position-after)))
	it, err := v.snapshot.NewIter(&lib.IterOptions{LowerBound: numbered(kindEvent, int64(after)+1), UpperBound: numbered(kindEvent, int64(after)+1+int64(limit))})
	if err != nil {
		return nil, s.db.wrap(err)
	}
	rs := make([]freehold.Recorded, limit)
	n := 0
	for ok := it.First(); ok && n < limit && err == nil; ok = it.Next() {
		rs[n].At.Source, rs[n].At.Epoch = s.db.name, v.head.Epoch
		var value []byte
		if value, err = it.ValueAndErr(); err == nil {
			err = decodeEvent(it.Key(), value, &rs[n])
		}
		n++
	}
	if err := errors.Join(err, it.Error(), it.Close()); err != nil {
		return nil, s.db.wrap(err)
	}
	return rs[:n], nil
}

func (s store) ReadStream(_ context.Context, id freehold.StreamID, after freehold.Version, limit int) ([]freehold.Recorded, error) {
	v, err := s.db.acquire()
	if err != nil {
		return nil, err
	}
	defer s.db.release(v)
	return s.db.readStream(v.snapshot, id, after, limit)
}

// readStream reads up to limit events of a stream behind a version; a negative
// limit reads all.
func (db *DB) readStream(from lib.Reader, id freehold.StreamID, after freehold.Version, limit int) ([]freehold.Recorded, error) {
	if limit < 0 {
		limit = math.MaxInt
	}
	lower := appendStream(make([]byte, 0, len(id)+10), id, after+1)
	upper := append(lower[:len(lower)-9:len(lower)-9], 1)
	it, err := from.NewIter(&lib.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return nil, db.wrap(err)
	}
	var rs []freehold.Recorded
	key := make([]byte, 0, 9)
	for ok := it.First(); ok && len(rs) < limit && err == nil; ok = it.Next() {
		var position, value []byte
		if position, err = it.ValueAndErr(); err != nil {
			break
		}
		key = append(append(key[:0], kindEvent), position...)
		var found bool
		if value, found, err = getFrom(from, key); err == nil && !found {
			err = record.ErrDamaged
		}
		if err == nil {
			rs = append(rs, freehold.Recorded{At: freehold.Mark{Source: db.name, Epoch: db.epoch}})
			err = decodeEvent(key, value, &rs[len(rs)-1])
		}
	}
	if err := errors.Join(err, it.Error(), it.Close()); err != nil {
		return nil, db.wrap(err)
	}
	return rs, nil
}

// Streams seeks from each stream's last entry to the next stream.
func (s store) Streams(_ context.Context, after freehold.StreamID, limit int) ([]journal.StreamInfo, error) {
	v, err := s.db.acquire()
	if err != nil {
		return nil, err
	}
	defer s.db.release(v)
	it, err := v.snapshot.NewIter(&lib.IterOptions{LowerBound: []byte{kindStream}, UpperBound: []byte{kindStream + 1}})
	if err != nil {
		return nil, s.db.wrap(err)
	}
	var all []journal.StreamInfo
	var key []byte
	next := func(s freehold.StreamID) []byte {
		key = append(append(key[:0], kindStream), s...)
		return append(key, 1)
	}
	ok := it.First()
	if after != "" {
		ok = it.SeekGE(next(after))
	}
	for ok && len(all) < limit {
		id, _, good := streamOf(it.Key())
		if !good {
			err = record.ErrDamaged
			break
		}
		if !it.SeekLT(next(id)) {
			break
		}
		_, version, _ := streamOf(it.Key())
		all = append(all, journal.StreamInfo{Stream: id, Version: version})
		ok = it.Next()
	}
	if err := errors.Join(err, it.Error(), it.Close()); err != nil {
		return nil, s.db.wrap(err)
	}
	return all, nil
}

func (s store) Wait(ctx context.Context, after freehold.Position) error {
	for {
		head, news, err := s.db.durable()
		if err != nil {
			return err
		}
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
	v, err := s.db.acquire()
	if err != nil {
		return nil, err
	}
	defer s.db.release(v)
	it, err := v.snapshot.NewIter(&lib.IterOptions{LowerBound: []byte{kindIncarnation}, UpperBound: []byte{kindIncarnation + 1}})
	if err != nil {
		return nil, s.db.wrap(err)
	}
	var all []journal.Incarnation
	for ok := it.First(); ok && err == nil; ok = it.Next() {
		var in journal.Incarnation
		err = json.Unmarshal(it.Value(), &in)
		all = append(all, in)
	}
	if err := errors.Join(err, it.Error(), it.Close()); err != nil {
		return nil, s.db.wrap(err)
	}
	return all, nil
}

// getFrom returns a copy of a value.
func getFrom(r lib.Reader, key []byte) (value []byte, found bool, err error) {
	raw, closer, err := r.Get(key)
	if errors.Is(err, lib.ErrNotFound) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, err
	}
	value = append(make([]byte, 0, len(raw)), raw...)
	return value, true, closer.Close()
}
