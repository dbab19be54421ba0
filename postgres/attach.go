package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/internal/mutant"
)

// Attach is Open for a program that has a pool already: schema freehold stands beside
// its tables. It makes and changes no tables: let Migrate, or whoever applies
// migrations, make those of schema freehold first. Closures, readers and calls of
// Append use the pool's connections; the sequencer and the lease have one each of
// their own, made as the pool makes its. Close leaves the pool open; close the
// database first.
//
// A pool needs three connections at least, and a session for each: a proxy that pools
// transactions is refused.
func Attach(ctx context.Context, pool *pgxpool.Pool, name freehold.Source, types *freehold.Catalog, o *Options) (*DB, error) {
	if err := name.Validate(); err != nil {
		return nil, err
	}
	opts := o.complete()
	if opts.Migrations != nil {
		return nil, fmt.Errorf("postgres: %s: Attach changes no tables: apply Options.Migrations with Migrate, or with what applies yours", name)
	}
	if n := pool.Config().MaxConns; n < leastConns {
		return nil, fmt.Errorf("postgres: %s: the pool has at most %d connections, want %d or more: set pool_max_conns or Config.MaxConns", name, n, leastConns)
	}
	return start(ctx, &DB{name: name, types: types, opts: opts, pool: pool, attached: true})
}

var errNoTables = errors.New("the database has no tables of schema freehold: make them with Migrate, as the owner")

// dial opens a connection beside the pool's, as the pool opens its own. What the
// pool's owner does with notifications is not for this one: hear gets them. (Without
// it pgx would keep each of them for ever.)
func (db *DB) dial(ctx context.Context, config *pgx.ConnConfig, hear pgconn.NotificationHandler) (*pgx.Conn, error) {
	config = config.Copy()
	config.OnNotification = hear
	if before := db.pool.Config().BeforeConnect; before != nil {
		if err := before(ctx, config); err != nil {
			return nil, err
		}
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	if err == nil && hear != nil { // it is the sequencer's
		db.seqPID.Store(conn.PgConn().PID())
	}
	return conn, err
}

// queueBegin begins a transaction. Connections of a pool of Open plan by index anyway.
func (db *DB) queueBegin(b *pgx.Batch) {
	b.Queue(`BEGIN ISOLATION LEVEL READ COMMITTED`)
	if db.attached {
		b.Queue(planByIndex(nil, true))
	}
	if mutant.DrawBeforeLock {
		b.Queue(`SELECT set_config('freehold.drawn', (SELECT array_agg(nextval('freehold.event_seq_seq')) FROM generate_series(1, 1024))::text, true)`)
	}
}
