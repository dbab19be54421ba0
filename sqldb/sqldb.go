// Package sqldb is what storage code of relational services sees: a transaction
// with the methods of database/sql that hand-written and generated code use.
//
// # Guarantees
//
// Everything done through a [Tx] commits with the events appended through it
// (G1). The same storage code runs on every relational engine if it keeps to
// the common dialect: $1 parameters, upsert, RETURNING; money as integers.
//
// # Ordering
//
// On an engine with one writer each transaction sees all earlier ones. On
// PostgreSQL call Lock before a read that decides a write.
//
// # Failure
//
// An error returned from the closure rolls everything back. A failed statement
// makes the closure's transaction unusable on some engines: return its error.
package sqldb

import (
	"context"
	"database/sql"

	"github.com/freehold-go/freehold"
)

// Tx is a transaction of a relational engine. Statements must not begin, commit
// or roll back, nor set savepoints; all rows must be closed before the closure
// returns.
type Tx interface {
	freehold.Tx
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
	PrepareContext(ctx context.Context, query string) (*sql.Stmt, error)
}

// Sets reports whether statements of the transaction take slices as parameters, so that
// one of one text stores any number of rows, from unnest($1::text[], $2::bigint[]):
// PostgreSQL's do.
func Sets(tx Tx) bool {
	s, ok := tx.(interface{ Sets() bool })
	return ok && s.Sets()
}
