// Package database opens the database that a URL names: the same service runs on
// one file or on servers, by configuration alone.
//
//	sqlite:PATH                                 relational, one process
//	postgres://user:password@host:port/name     relational, any number of instances
//	pebble:PATH                                 key-value, one process
//	etcd://host:2379,host:2379/prefix           key-value, any number of instances
//	redis://user:password@host:port/prefix      read models and shared caches only
//
// # Guarantees
//
// Those of the engine: see its package. A URL's password is in no error and no
// audit line.
//
// # Ordering
//
// That of the engine's journal.
//
// # Failure
//
// A URL that names no engine, or one that cannot hold what the service keeps, is
// refused with a line that says what to give instead.
package database

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/etcd"
	"github.com/freehold-go/freehold/host"
	"github.com/freehold-go/freehold/kv"
	"github.com/freehold-go/freehold/pebble"
	"github.com/freehold-go/freehold/postgres"
	"github.com/freehold-go/freehold/saga"
	"github.com/freehold-go/freehold/sqldb"
	"github.com/freehold-go/freehold/sqlite"
)

// DB is what the services need of a database of either kind.
type DB[T freehold.Tx] interface {
	saga.DB[T]
	Events(ctx context.Context, s freehold.StreamID, after freehold.Version) iter.Seq2[freehold.Recorded, error]
	// Audit says in words which durability the settings give.
	Audit() []string
	io.Closer
}

// The engines' names in URLs.
const (
	SQLite   = "sqlite"
	Postgres = "postgres"
	Pebble   = "pebble"
	Etcd     = "etcd"
	Redis    = "redis"
)

// Options tune what is opened; the zero value is good.
type Options struct {
	// Migrations returns the service's tables for an engine. nil is none.
	Migrations func(engine string) fs.FS
	// Relaxed commits without waiting for the disk. For tests.
	Relaxed bool
	// Warn is how long a transaction may take before a warning. 0 is 100 ms.
	Warn time.Duration
	// Log is where warnings go. nil is slog.Default().
	Log *slog.Logger
}

func (o Options) migrations(engine string) fs.FS {
	if o.Migrations == nil {
		return nil
	}
	return o.Migrations(engine)
}

// OpenSQL opens a relational database, whose journal has the given name and types.
func OpenSQL(ctx context.Context, at string, name freehold.Source, types *freehold.Catalog, o Options) (DB[sqldb.Tx], error) {
	switch engine, path := split(at); engine {
	case SQLite:
		if err := parent(path); err != nil {
			return nil, err
		}
		return opened[sqldb.Tx](sqlite.Open(ctx, path, name, types, &sqlite.Options{Migrations: o.migrations(SQLite), Relaxed: o.Relaxed, Warn: o.Warn, Log: o.Log}))
	case Postgres:
		return opened[sqldb.Tx](postgres.Open(ctx, at, name, types, &postgres.Options{Migrations: o.migrations(Postgres), Relaxed: o.Relaxed, Warn: o.Warn, Log: o.Log}))
	default:
		return nil, fmt.Errorf("database of %s: %s: want sqlite:PATH or postgres://user:password@host:port/name", name, Redacted(at))
	}
}

// OpenKV opens a key-value database, whose journal has the given name and types.
func OpenKV(ctx context.Context, at string, name freehold.Source, types *freehold.Catalog, o Options) (DB[kv.Tx], error) {
	switch engine, path := split(at); engine {
	case Pebble:
		if err := parent(path); err != nil {
			return nil, err
		}
		return opened[kv.Tx](pebble.Open(ctx, path, name, types, &pebble.Options{Relaxed: o.Relaxed, Warn: o.Warn, Log: o.Log}))
	case Etcd:
		return opened[kv.Tx](etcd.Open(ctx, at, name, types, &etcd.Options{Relaxed: o.Relaxed, Warn: o.Warn, Log: o.Log}))
	case Redis:
		return nil, fmt.Errorf("database of %s: %s: Redis keeps only what can be built again: want pebble:PATH or etcd://host:2379/prefix", name, Redacted(at))
	default:
		return nil, fmt.Errorf("database of %s: %s: want pebble:PATH or etcd://host:2379/prefix", name, Redacted(at))
	}
}

// opened makes a nil of the engine's type a nil of the interface.
func opened[T freehold.Tx, E DB[T]](db E, err error) (DB[T], error) {
	if err != nil {
		return nil, err
	}
	return db, nil
}

// split returns the engine that a URL names, and what is behind it.
func split(at string) (engine, path string) {
	engine, path, _ = strings.Cut(at, ":")
	switch engine {
	case "postgresql":
		engine = Postgres
	case "rediss":
		engine = Redis
	}
	return engine, strings.TrimPrefix(path, "//")
}

func parent(path string) error {
	if path == "" {
		return fmt.Errorf("a database URL without a path: want sqlite:PATH or pebble:PATH")
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	return nil
}

// Lease is what lets one of a service's instances lead, if the engine can be used by
// several; nil otherwise.
func Lease[T freehold.Tx](db DB[T]) host.Lease {
	lease, _ := db.(host.Lease)
	return lease
}

// Gauges shows the room that a database uses, where it is bounded.
func Gauges(h *host.Host, db any) {
	if db, ok := db.(*etcd.DB); ok {
		h.Gauge("freehold_etcd_used_bytes", "Room that the members' databases use, the largest of them.", func() float64 { return float64(db.Size().Used) })
		h.Gauge("freehold_etcd_quota_bytes", "Room that the members' databases may use; writing stops at 95 %.", func() float64 { return float64(db.Size().Quota) })
	}
}

// Line is an audit line for the database at a URL.
func Line(at string, db interface{ Audit() []string }) string {
	name := Redacted(at)
	if engine, path := split(at); engine == SQLite || engine == Pebble {
		name = filepath.Base(path)
	}
	return name + ": " + strings.Join(db.Audit(), ", ")
}
