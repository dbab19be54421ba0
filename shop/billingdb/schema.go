package billingdb

import (
	"embed"
	"io/fs"
	"slices"
	"strings"
)

//go:embed schema/*.sql
var files embed.FS

// Dialect names a database whose SQL differs in what triggers look like.
type Dialect string

const (
	// SQLite is the dialect of package sqlite.
	SQLite Dialect = "sqlite"
	// Postgres is the dialect of package postgres.
	Postgres Dialect = "postgres"
)

// Schema is Billing's tables for a dialect: .sql files to be applied once each, in
// the order of their names. A file name with a dialect before .sql is for that
// dialect only, the others are for all.
func Schema(d Dialect) fs.FS {
	all, err := fs.Sub(files, "schema")
	if err != nil {
		panic(err) // the directory is embedded above
	}
	return schema{all, d}
}

type schema struct {
	all     fs.FS
	dialect Dialect
}

func (s schema) foreign(name string) bool {
	parts := strings.Split(name, ".")
	return len(parts) == 3 && parts[1] != string(s.dialect)
}

func (s schema) Open(name string) (fs.File, error) {
	if s.foreign(name) {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	return s.all.Open(name)
}

func (s schema) ReadDir(name string) ([]fs.DirEntry, error) {
	entries, err := fs.ReadDir(s.all, name)
	return slices.DeleteFunc(entries, func(e fs.DirEntry) bool { return s.foreign(e.Name()) }), err
}
