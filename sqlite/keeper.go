package sqlite

import (
	"bytes"
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"iter"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/kv"
)

// keeper is what followers keep, in a transaction.
type keeper struct{ tx *transaction }

var _ follow.Keeper = keeper{}

func (k keeper) Mark(ctx context.Context, follower string, s freehold.Source) (freehold.Mark, error) {
	m := freehold.Mark{Source: s}
	var chain []byte
	err := k.tx.QueryRowContext(ctx, `SELECT epoch, position, chain FROM freehold_mark WHERE follower = $1 AND source = $2`, follower, string(s)).
		Scan(&m.Epoch, &m.Position, &chain)
	if errors.Is(err, sql.ErrNoRows) {
		return m, nil
	}
	copy(m.Chain[:], chain)
	return m, err
}

func (k keeper) Move(ctx context.Context, follower string, from, to freehold.Mark) error {
	var result sql.Result
	var err error
	if from.Position == 0 && from.Epoch == "" {
		result, err = k.tx.ExecContext(ctx, `INSERT INTO freehold_mark (follower, source, epoch, position, chain)
			VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING`,
			follower, string(to.Source), string(to.Epoch), int64(to.Position), to.Chain[:])
	} else {
		result, err = k.tx.ExecContext(ctx, `UPDATE freehold_mark SET epoch = $1, position = $2, chain = $3
			WHERE follower = $4 AND source = $5 AND epoch = $6 AND position = $7 AND chain = $8`,
			string(to.Epoch), int64(to.Position), to.Chain[:], follower, string(from.Source), string(from.Epoch), int64(from.Position), from.Chain[:])
	}
	if err != nil {
		return fmt.Errorf("move mark of %s: %w", follower, err)
	}
	if n, err := result.RowsAffected(); err != nil || n != 1 {
		return errors.Join(fmt.Errorf("%s at %s: %w", follower, from, freehold.ErrFenced), err)
	}
	return nil
}

func (k keeper) Marks(ctx context.Context) ([]follow.Place, error) {
	rows, err := k.tx.QueryContext(ctx, `SELECT follower, source, epoch, position, chain FROM freehold_mark ORDER BY follower, source`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []follow.Place
	for rows.Next() {
		var p follow.Place
		var chain []byte
		if err := rows.Scan(&p.Follower, &p.Mark.Source, &p.Mark.Epoch, &p.Mark.Position, &chain); err != nil {
			return nil, err
		}
		copy(p.Mark.Chain[:], chain)
		all = append(all, p)
	}
	return all, rows.Err()
}

func (k keeper) Get(_ context.Context, space, key string) (value []byte, found bool, err error) {
	if !k.tx.writer {
		return k.stored(space, key)
	}
	end, err := k.tx.begin()
	if err != nil {
		return nil, false, err
	}
	id := keptKey{space, key}
	v, known := k.tx.db.kept.get(id)
	end()
	if known {
		return bytes.Clone(v.value), v.found, nil
	}
	if value, found, err = k.stored(space, key); err != nil {
		return nil, false, err
	}
	if end, err = k.tx.begin(); err != nil {
		return nil, false, err
	}
	defer end()
	k.tx.db.kept.learn(id, keptValue{value: bytes.Clone(value), found: found})
	return value, found, nil
}

// stored reads the table.
func (k keeper) stored(space, key string) (kept []byte, found bool, err error) {
	end, err := k.tx.begin()
	if err != nil {
		return nil, false, err
	}
	defer end()
	err = k.tx.session.do(func(d *direct) error {
		return d.query(`SELECT value FROM freehold_keep WHERE space = ? AND key = ?`, func(row []driver.Value) (err error) {
			kept, err = value[[]byte](row[0])
			found = true
			return err
		}, space, key)
	})
	return kept, found, k.tx.note(err)
}

func (k keeper) Put(_ context.Context, space, key string, value []byte) error {
	return k.change(space, key, value, true)
}

func (k keeper) Delete(_ context.Context, space, key string) error {
	return k.change(space, key, nil, false)
}

func (k keeper) change(space, key string, value []byte, found bool) error {
	end, err := k.tx.begin()
	if err != nil {
		return err
	}
	defer end()
	if !k.tx.writer {
		return freehold.ErrReadOnlyTx
	}
	k.tx.db.kept.put(keptKey{space, key}, value, found)
	return nil
}

func (k keeper) Scan(ctx context.Context, space, from string) iter.Seq2[kv.Item, error] {
	stored := k.scanStored(ctx, space, from)
	if !k.tx.writer {
		return stored
	}
	return func(yield func(kv.Item, error) bool) {
		end, err := k.tx.begin()
		if err != nil {
			yield(kv.Item{}, err)
			return
		}
		pending, found := k.tx.db.kept.of(space, from)
		end()
		over(pending, found, stored)(yield)
	}
}

// scanStored reads the table.
func (k keeper) scanStored(ctx context.Context, space, from string) iter.Seq2[kv.Item, error] {
	return follow.InPages(from, func(from string, limit int) ([]kv.Item, error) {
		rows, err := k.tx.QueryContext(ctx, `SELECT key, value FROM freehold_keep WHERE space = $1 AND key >= $2 ORDER BY key LIMIT $3`, space, from, limit)
		if err != nil {
			return nil, err
		}
		defer rows.Close()
		var items []kv.Item
		for rows.Next() {
			var item kv.Item
			if err := rows.Scan(&item.Key, &item.Value); err != nil {
				return nil, err
			}
			items = append(items, item)
		}
		return items, rows.Err()
	})
}
