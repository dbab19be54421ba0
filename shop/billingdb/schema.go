package billingdb

import (
	"embed"
	"io/fs"
	"slices"
	"strings"
)

//go:embed schema/*.sql
var files embed.FS

// Schema is Billing's tables for an engine, sqlite or postgres, whose triggers look
// different: .sql files to be applied once each, in the order of their names. A file
// name with an engine before .sql is for that engine only, the others are for all.
func Schema(engine string) fs.FS {
	all, err := fs.Sub(files, "schema")
	if err != nil {
		panic(err) // the directory is embedded above
	}
	return schema{all, engine}
}

type schema struct {
	all    fs.FS
	engine string
}

func (s schema) foreign(name string) bool {
	parts := strings.Split(name, ".")
	return len(parts) == 3 && parts[1] != s.engine
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
