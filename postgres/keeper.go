package postgres

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/internal/mutant"
	"github.com/freehold-go/freehold/kv"
)

// keeper is what followers keep, in a transaction.
type keeper struct{ tx *transaction }

var _ follow.Keeper = keeper{}

func (k keeper) Mark(ctx context.Context, follower string, s freehold.Source) (freehold.Mark, error) {
	m := freehold.Mark{Source: s}
	var chain []byte
	err := k.tx.QueryRowContext(ctx, `SELECT epoch, position, chain FROM freehold.mark WHERE follower = $1 AND source = $2`, follower, string(s)).
		Scan(&m.Epoch, &m.Position, &chain)
	if errors.Is(err, sql.ErrNoRows) {
		return m, nil
	}
	copy(m.Chain[:], chain)
	return m, err
}

// Move waits for another transaction that moves the same mark, and then finds that
// the mark is not at from any more.
func (k keeper) Move(_ context.Context, follower string, from, to freehold.Mark) error {
	if mutant.DropMark {
		return nil
	}
	end, err := k.tx.begin()
	if err != nil {
		return err
	}
	defer end()
	if !k.tx.writer {
		return freehold.ErrReadOnlyTx
	}
	b := &pgx.Batch{}
	var moved *pgx.QueuedQuery
	if from.Position == 0 && from.Epoch == "" {
		moved = b.Queue(`INSERT INTO freehold.mark (follower, source, epoch, position, chain)
			VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING`,
			follower, string(to.Source), string(to.Epoch), int64(to.Position), to.Chain[:])
	} else {
		moved = b.Queue(`UPDATE freehold.mark SET epoch = $1, position = $2, chain = $3
			WHERE follower = $4 AND source = $5 AND epoch = $6 AND position = $7 AND chain = $8`,
			string(to.Epoch), int64(to.Position), to.Chain[:], follower, string(from.Source), string(from.Epoch), int64(from.Position), from.Chain[:])
	}
	var n int64
	moved.Exec(func(tag pgconn.CommandTag) error {
		n = tag.RowsAffected()
		return nil
	})
	if err := k.tx.send(b); err != nil {
		return fmt.Errorf("move mark of %s: %w", follower, err)
	}
	if n != 1 {
		return fmt.Errorf("%s at %s: %w", follower, from, freehold.ErrFenced)
	}
	return nil
}

func (k keeper) Marks(ctx context.Context) ([]follow.Place, error) {
	rows, err := k.tx.QueryContext(ctx, `SELECT follower, source, epoch, position, chain FROM freehold.mark ORDER BY follower COLLATE "C", source COLLATE "C"`)
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
	end, err := k.tx.begin()
	if err != nil {
		return nil, false, err
	}
	defer end()
	if v, known := k.tx.kept[keptKey{space, key}]; known {
		return slices.Clone(v.value), v.found, nil
	}
	if err := k.tx.open(); err != nil {
		return nil, false, err
	}
	err = k.tx.conn.QueryRowContext(k.tx.ctx, `SELECT value FROM freehold.keep WHERE space = $1 AND key = $2`, space, key).Scan(&value)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, false, nil
	}
	return value, err == nil, err
}

// Put and Delete are stored at the end of the transaction.
func (k keeper) Put(_ context.Context, space, key string, value []byte) error {
	return k.change(space, key, keptValue{value: append([]byte{}, value...), found: true, changed: true})
}

func (k keeper) Delete(_ context.Context, space, key string) error {
	return k.change(space, key, keptValue{changed: true})
}

func (k keeper) change(space, key string, v keptValue) error {
	end, err := k.tx.begin()
	if err != nil {
		return err
	}
	defer end()
	if !k.tx.writer {
		return freehold.ErrReadOnlyTx
	}
	if strings.ContainsRune(space+key, 0) || !utf8.ValidString(space+key) {
		return fmt.Errorf("postgres: key %q: want text without zero bytes", space+"/"+key)
	}
	k.tx.kept[keptKey{space, key}] = v
	return nil
}

// store stores what has changed so far, for a statement that looks at all of it.
func (k keeper) store() error {
	end, err := k.tx.begin()
	if err != nil {
		return err
	}
	defer end()
	b := &pgx.Batch{}
	queueKept(b, k.tx.kept)
	if b.Len() == 0 {
		return nil
	}
	for key, v := range k.tx.kept {
		v.changed = false
		k.tx.kept[key] = v
	}
	return k.tx.send(b)
}

func (k keeper) Scan(ctx context.Context, space, from string) iter.Seq2[kv.Item, error] {
	return follow.InPages(from, func(from string, limit int) ([]kv.Item, error) {
		if err := k.store(); err != nil {
			return nil, err
		}
		rows, err := k.tx.QueryContext(ctx, `SELECT key, value FROM freehold.keep WHERE space = $1 AND key >= $2 ORDER BY key LIMIT $3`, space, from, limit)
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
