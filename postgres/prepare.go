package postgres

import (
	"context"
	"crypto/sha256"
	"embed"
	"errors"
	"fmt"
	"io/fs"

	"github.com/jackc/pgx/v5"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/journal"
)

//go:embed migrations/*.sql
var migrations embed.FS

// Migrations are the tables of schema freehold as plain SQL, for those who review and
// apply migrations themselves: files that begin with the schema's version, each to be
// applied once, as the owner, in the order of their names. Open and Migrate apply them
// to an empty database. A program runs on the schema of its own version and on the
// next one, so that tables are migrated first and programs replaced one by one.
var Migrations, _ = fs.Sub(migrations, "migrations") // a directory that is embedded

// schemaVersion is that of the newest of Migrations.
const schemaVersion = 1

// oldest is the first version of PostgreSQL that the engine works with.
const oldest = 140000

// prepare checks the server, makes the tables that are missing, and checks that
// those that are there are this journal's.
func (db *DB) prepare(ctx context.Context) error {
	if err := db.auditPooling(ctx); err != nil {
		return fmt.Errorf("postgres: %s: connect: %w", db.name, err)
	}
	conn, err := db.pool.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("postgres: %s: connect: %w", db.name, err)
	}
	defer conn.Release()
	if err := db.auditSettings(ctx, conn.Conn()); err != nil {
		return err
	}
	err = db.together(ctx, conn.Conn(), func(tx pgx.Tx) error {
		if err := db.prepareSchema(ctx, tx); err != nil {
			return err
		}
		if db.opts.Migrations == nil {
			return nil
		}
		return db.migrate(ctx, tx)
	})
	if err != nil {
		return denied(err)
	}
	if err := db.auditRole(ctx, conn.Conn()); err != nil {
		return fmt.Errorf("postgres: %s: %w", db.name, err)
	}
	return nil
}

// setupLock is the key of the lock under which instances that start at the same
// time make tables one after the other; sequencerLock that of the sequencer.
const (
	setupLock     = 0x66726565686f6c64 // "freehold"
	sequencerLock = setupLock + 1
)

// together runs fn in a transaction while no other instance does.
func (db *DB) together(ctx context.Context, conn *pgx.Conn, fn func(tx pgx.Tx) error) error {
	err := pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock($1)`, int64(setupLock)); err != nil {
			return err
		}
		return fn(tx)
	})
	if err != nil {
		return fmt.Errorf("postgres: %s: %w", db.name, err)
	}
	return nil
}

// auditSettings reads the settings back that durability rests on.
func (db *DB) auditSettings(ctx context.Context, conn *pgx.Conn) error {
	var version int
	var standby bool
	var fsync, pages, commit string
	err := conn.QueryRow(ctx, `SELECT current_setting('server_version_num')::int, pg_is_in_recovery(),
		current_setting('fsync'), current_setting('full_page_writes'), current_setting('synchronous_commit')`).
		Scan(&version, &standby, &fsync, &pages, &commit)
	if err != nil {
		return fmt.Errorf("postgres: %s: read the settings back: %w", db.name, err)
	}
	if version < oldest {
		return fmt.Errorf("postgres: %s: the server has version %d.%d, want 14 or later: upgrade it", db.name, version/10000, version%10000)
	}
	if standby {
		return fmt.Errorf("postgres: %s: the server is a standby, which nobody can write to: give the URL of the primary", db.name)
	}
	db.audit = append(db.audit, fmt.Sprintf("server %d.%d", version/10000, version%10000), "fsync="+fsync, "full_page_writes="+pages, "synchronous_commit="+commit)
	for _, s := range []struct{ name, got string }{{"fsync", fsync}, {"full_page_writes", pages}, {"synchronous_commit", commit}} {
		if s.got != "off" {
			continue
		}
		if !db.opts.Relaxed {
			return fmt.Errorf("postgres: %s: %s is off: a crash of the server would lose or damage what was committed: set it to on, or say Options.Relaxed", db.name, s.name)
		}
		db.audit = append(db.audit, "relaxed: a crash of the server may lose the last transactions")
	}
	if fsync != "off" && pages != "off" && commit != "off" {
		db.audit = append(db.audit, "every commit is synced before it is answered")
	}
	return nil
}

// prepareSchema creates the journal's tables in a new database, or checks that they
// are those of this journal and this program.
func (db *DB) prepareSchema(ctx context.Context, tx pgx.Tx) error {
	var there bool
	if err := tx.QueryRow(ctx, `SELECT to_regclass('freehold.journal') IS NOT NULL`).Scan(&there); err != nil {
		return err
	}
	if !there && db.attached {
		return errNoTables
	}
	if !there {
		names, err := fs.Glob(Migrations, "*.sql") // sorted
		if err != nil {
			return err
		}
		for _, name := range names {
			text, err := fs.ReadFile(Migrations, name)
			if err == nil {
				_, err = tx.Exec(ctx, string(text))
			}
			if err != nil {
				return fmt.Errorf("make the tables of schema freehold: %s: %w", name, err)
			}
		}
	}
	var named bool
	if err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM freehold.journal)`).Scan(&named); err != nil {
		return err
	}
	if !named {
		_, err := tx.Exec(ctx, `INSERT INTO freehold.journal (source, epoch, cluster) VALUES ($1, $2, `+thisCluster+`)`,
			string(db.name), journal.NewEpoch())
		if err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `INSERT INTO freehold.tick (pass, base, position, chain) VALUES (0, pg_current_snapshot(), 0, $1)`, make([]byte, len(freehold.Hash{}))); err != nil {
			return err
		}
	}
	var source freehold.Source
	var epoch freehold.Epoch
	var version int
	if err := tx.QueryRow(ctx, `SELECT source, epoch, version FROM freehold.journal`).Scan(&source, &epoch, &version); err != nil {
		return err
	}
	db.head.epoch = epoch // nobody reads it yet
	return db.mine(source, version)
}

// migrate applies the service's migrations that have not been applied yet.
func (db *DB) migrate(ctx context.Context, tx pgx.Tx) error {
	names, err := fs.Glob(db.opts.Migrations, "*.sql") // sorted
	if err != nil {
		return err
	}
	for _, name := range names {
		text, err := fs.ReadFile(db.opts.Migrations, name)
		if err != nil {
			return err
		}
		digest := sha256.Sum256(text)
		var applied []byte
		err = tx.QueryRow(ctx, `SELECT digest FROM freehold.migration WHERE name = $1`, name).Scan(&applied)
		switch {
		case err == nil && string(applied) == string(digest[:]):
			continue
		case err == nil:
			return fmt.Errorf("migration %s was applied with another text: add a new migration instead of changing it", name)
		case !errors.Is(err, pgx.ErrNoRows):
			return err
		}
		if _, err := tx.Exec(ctx, string(text)); err != nil {
			return fmt.Errorf("migration %s: %w", name, err)
		}
		if _, err := tx.Exec(ctx, `INSERT INTO freehold.migration (name, digest, time) VALUES ($1, $2, $3)`,
			name, digest[:], journal.Now().UnixMicro()); err != nil {
			return err
		}
	}
	return nil
}

// thisCluster tells whose transaction ids these are: they mean nothing to another
// system, timeline or database.
const thisCluster = `(SELECT system_identifier::text FROM pg_control_system())
	|| '/' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8)
	|| '/' || (SELECT oid::text FROM pg_database WHERE datname = current_database())`
