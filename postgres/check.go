package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/freehold-go/freehold"
)

// Check connects to the database at a URL, changes nothing, and says in words what
// Open would find: settings, rights, and whose journal is there.
func Check(ctx context.Context, url string, name freehold.Source) ([]string, error) {
	config, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("postgres: URL of %s: want postgres://user:password@host:port/database: %w", name, err)
	}
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("postgres: %s: connect: %w", name, err)
	}
	defer conn.Close(ctx)
	db := &DB{name: name}
	if err := db.auditSettings(ctx, conn); err != nil {
		return db.audit, err
	}
	if err := db.auditRole(ctx, conn); err != nil {
		return db.audit, fmt.Errorf("postgres: %s: %w", name, err)
	}
	var source freehold.Source
	var version int
	var mayCreate bool
	err = conn.QueryRow(ctx, `SELECT has_database_privilege(current_database(), 'CREATE')`).Scan(&mayCreate)
	if err != nil {
		return db.audit, fmt.Errorf("postgres: %s: %w", name, err)
	}
	var there bool
	if err := conn.QueryRow(ctx, `SELECT to_regclass('freehold.journal') IS NOT NULL`).Scan(&there); err != nil {
		return db.audit, fmt.Errorf("postgres: %s: %w", name, err)
	}
	if !there {
		if !mayCreate {
			return db.audit, fmt.Errorf("postgres: %s: the database has no journal yet, and the role may not make one: GRANT CREATE ON DATABASE, or let its owner start first", name)
		}
		return append(db.audit, "no journal yet: the first start makes it"), nil
	}
	err = conn.QueryRow(ctx, `SELECT source, version FROM freehold.journal`).Scan(&source, &version)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return db.audit, fmt.Errorf("postgres: %s: schema freehold has no journal: restore the database", name)
	case err != nil:
		return db.audit, fmt.Errorf("postgres: %s: %w", name, err)
	}
	return append(db.audit, fmt.Sprintf("journal of %s, schema %d", source, version)), db.mine(source, version)
}

// mine refuses the journal of another service, and a schema of which this program is not
// sure.
func (db *DB) mine(source freehold.Source, version int) error {
	if source != db.name {
		return fmt.Errorf("the database holds the journal of %q, not of %q: give another database", source, db.name)
	}
	switch {
	case version > schemaVersion+1:
		return fmt.Errorf("the database has schema %d, this program runs on %d and %d: update the program", version, schemaVersion, schemaVersion+1)
	case version < schemaVersion:
		return fmt.Errorf("the database has schema %d, this program runs on %d and %d: apply the newer of postgres.Migrations as the owner first", version, schemaVersion, schemaVersion+1)
	}
	return nil
}
