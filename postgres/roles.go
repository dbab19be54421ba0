package postgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/freehold-go/freehold"
)

// Roles are what PostgreSQL roles other than the owner may do with a service's database.
// Empty names are left out.
type Roles struct {
	// Service runs the service. It may add to the journal and to insert-only tables and
	// can neither change nor delete what is there, nor make tables. Insert-only tables of
	// the service are those with a trigger whose function's name ends with insert_only.
	Service string
	// Reader may read everything, internal events included, and change nothing: for
	// reports and for people. A service cannot run as it.
	Reader string
}

// Migrate makes Freehold's tables and applies the service's migrations in the database
// at a URL, as its owner, and gives roles their rights. It may be run again, and while
// the service runs.
func Migrate(ctx context.Context, url string, name freehold.Source, o *Options, roles Roles) error {
	db := &DB{name: name}
	if o != nil {
		db.opts = *o
	}
	if db.opts.Log == nil {
		db.opts.Log = slog.Default()
	}
	pool, err := pgxpool.New(ctx, url)
	if err != nil {
		return fmt.Errorf("postgres: URL of %s: want postgres://owner:password@host:port/database: %w", name, err)
	}
	defer pool.Close()
	db.pool = pool
	if err := db.prepare(ctx); err != nil {
		return err
	}
	conn, err := pool.Acquire(ctx)
	if err != nil {
		return db.unreached(ctx, err)
	}
	defer conn.Release()
	return db.together(ctx, conn.Conn(), func(tx pgx.Tx) error { return grant(ctx, tx, roles) })
}

// grant gives roles their rights, and takes those that they should not have.
func grant(ctx context.Context, tx pgx.Tx, roles Roles) error {
	tables, err := tx.Query(ctx, `SELECT n.nspname, c.relname,
			n.nspname = 'freehold' AND c.relname NOT IN ('stream', 'mark', 'keep', 'journal')
			OR EXISTS (SELECT FROM pg_trigger t JOIN pg_proc p ON p.oid = t.tgfoid WHERE t.tgrelid = c.oid AND p.proname LIKE '%insert\_only')
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE n.nspname IN ('freehold', 'public') AND c.relkind IN ('r', 'p') AND pg_has_role(c.relowner, 'USAGE')`)
	if err != nil {
		return err
	}
	type table struct {
		Schema, Name string
		InsertOnly   bool
	}
	all, err := pgx.CollectRows(tables, pgx.RowToStructByPos[table])
	if err != nil {
		return err
	}
	var statements []string
	for _, role := range []string{roles.Service, roles.Reader} {
		if role == "" {
			continue
		}
		r := pgx.Identifier{role}.Sanitize()
		statements = append(statements, `GRANT USAGE ON SCHEMA freehold, public TO `+r)
		for _, t := range all {
			at := pgx.Identifier{t.Schema, t.Name}.Sanitize()
			statements = append(statements, `REVOKE ALL ON `+at+` FROM `+r, `GRANT SELECT ON `+at+` TO `+r)
			switch {
			case role != roles.Service || t.Schema == "freehold" && t.Name == "migration":
			case t.Schema == "freehold" && t.Name == "tick": // old passes go
				statements = append(statements, `GRANT INSERT, DELETE ON `+at+` TO `+r)
			case t.InsertOnly:
				statements = append(statements, `GRANT INSERT ON `+at+` TO `+r)
			default:
				statements = append(statements, `GRANT INSERT, UPDATE, DELETE ON `+at+` TO `+r)
			}
		}
		if role == roles.Service {
			statements = append(statements, `GRANT USAGE ON ALL SEQUENCES IN SCHEMA freehold, public TO `+r)
		}
	}
	for _, statement := range statements {
		if _, err := tx.Exec(ctx, statement); err != nil {
			return fmt.Errorf("%s: %w", statement, err)
		}
	}
	return nil
}

// auditRole says what the role could do to what was written.
func (db *DB) auditRole(ctx context.Context, conn *pgx.Conn) error {
	var role string
	var super, changes, creates, adds bool
	err := conn.QueryRow(ctx, `SELECT current_user, (SELECT rolsuper FROM pg_roles WHERE rolname = current_user),
		coalesce(has_table_privilege(to_regclass('freehold.event'), 'UPDATE, DELETE, TRUNCATE'), false), has_database_privilege(current_database(), 'CREATE'),
		coalesce(has_table_privilege(to_regclass('freehold.event'), 'INSERT'), true)`).
		Scan(&role, &super, &changes, &creates, &adds)
	switch {
	case err != nil:
		return err
	case !adds:
		return fmt.Errorf("role %s may not add to the journal: give the service's own role, whose rights Migrate sets", role)
	case super:
		db.audit = append(db.audit, "role "+role+" is a superuser: give the service a role of its own")
	case changes || creates:
		db.audit = append(db.audit, "role "+role+" owns the tables: a role of the service's own could only add to the journal (postgres.Migrate)")
	default:
		db.audit = append(db.audit, "role "+role+" can only add to the journal")
	}
	return nil
}

// denied says what to do when a role may not do what preparing a database needs.
func denied(err error) error {
	var pg *pgconn.PgError
	if errors.As(err, &pg) && pg.Code == "42501" {
		return fmt.Errorf("%w: the role may not make or change tables: migrate as the owner first (shop migrate)", err)
	}
	return err
}

// errPooled is the refusal of a proxy that gives each transaction another session.
var errPooled = errors.New("the address is that of a proxy that pools transactions: sessions change between statements, and locks with them: give the server's own address, or pool sessions")

// auditPooling refuses a proxy that gives the session of a connection to another one
// between two statements.
func (db *DB) auditPooling(ctx context.Context) error {
	first, err := db.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer first.Release()
	second, err := db.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer second.Release()
	pid := func(c *pgxpool.Conn) (pid int, err error) {
		err = c.QueryRow(ctx, `SELECT pg_backend_pid()`, pgx.QueryExecModeSimpleProtocol).Scan(&pid) // a prepared statement would be a session's
		return pid, err
	}
	before, err := pid(first)
	if err != nil {
		return err
	}
	// A transaction on the second connection keeps its session; the first one's must be
	// another, and must be the one it was.
	return pgx.BeginFunc(ctx, second, func(pgx.Tx) error {
		other, err := pid(second)
		if err != nil {
			return err
		}
		after, err := pid(first)
		if err == nil && (before != after || before == other) {
			err = errPooled
		}
		return err
	})
}
