package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/journal"
)

// store reads the journal for package journal.
type store struct{ db *DB }

var _ journal.Store = store{}

func (s store) Source() freehold.Source { return s.db.name }

func (s store) Bounds(context.Context) (first, head freehold.Mark, err error) {
	head, _ = s.db.durable()
	return freehold.Mark{Source: head.Source, Epoch: head.Epoch}, head, nil
}

// query runs a read on a reader's connection, outside any transaction.
func (s store) query(ctx context.Context, fn func(d *direct) error) error {
	r, err := s.db.acquire(ctx)
	if err != nil {
		return err
	}
	err = r.do(fn)
	s.db.readers.release(r, err)
	if err != nil {
		return s.db.unread(err)
	}
	return nil
}

// unread is the error of a read.
func (db *DB) unread(err error) error {
	select {
	case <-db.queue.Done():
		err = freehold.ErrClosed
	default:
	}
	return fmt.Errorf("sqlite: %s: %w", db.path, hint(err))
}

func (s store) Read(ctx context.Context, after freehold.Position, limit int) ([]freehold.Recorded, error) {
	head, _ := s.db.durable()
	if after >= head.Position {
		return nil, nil
	}
	n := min(int64(limit), int64(head.Position-after))
	rd := reading{db: s.db, epoch: head.Epoch, events: make([]freehold.Recorded, 0, n)}
	err := s.query(ctx, func(d *direct) error {
		return d.query(`SELECT `+eventColumns+` FROM freehold_event WHERE position > ? ORDER BY position LIMIT ?`, rd.row, int64(after), n)
	})
	return rd.events, err
}

func (s store) ReadStream(ctx context.Context, id freehold.StreamID, after freehold.Version, limit int) (rs []freehold.Recorded, err error) {
	before, _ := s.db.seen()
	err = s.query(ctx, func(d *direct) error {
		number, found, err := s.db.streams.numberIn(d, id, before)
		if err != nil || !found {
			return err
		}
		rs, err = s.db.readStream(d, number, after, limit)
		return err
	})
	return rs, err
}

func (s store) Streams(ctx context.Context, after freehold.StreamID, limit int) (all []journal.StreamInfo, err error) {
	err = s.query(ctx, func(d *direct) error {
		all, err = s.db.streams.list(d, after, limit)
		return err
	})
	return all, err
}

func (s store) Wait(ctx context.Context, after freehold.Position) error {
	for {
		head, news := s.db.durable()
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

func (s store) Incarnations(ctx context.Context) (all []journal.Incarnation, err error) {
	head, _ := s.db.durable()
	err = s.query(ctx, func(d *direct) error {
		all = nil
		return d.query(`SELECT id, position, chain, time FROM freehold_incarnation ORDER BY number`, func(row []driver.Value) error {
			id, err1 := value[string](row[0])
			position, err2 := value[int64](row[1])
			chain, err3 := value[[]byte](row[2])
			micros, err4 := value[int64](row[3])
			in := journal.Incarnation{
				ID: id, Time: time.UnixMicro(micros).UTC(),
				Start: freehold.Mark{Source: s.db.name, Epoch: head.Epoch, Position: freehold.Position(position)},
			}
			copy(in.Start.Chain[:], chain)
			all = append(all, in)
			return errors.Join(err1, err2, err3, err4)
		})
	})
	return all, err
}
