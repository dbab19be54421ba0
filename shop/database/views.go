package database

import (
	"context"
	"fmt"
	"io"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/etcd"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/kv"
	"github.com/freehold-go/freehold/pebble"
	"github.com/freehold-go/freehold/redis"
)

// Views is a database of read models: all that it holds can be built again from
// journals.
type Views interface {
	// Of returns where the read model of a name is, with the marks of its follower.
	Of(name string) (follow.DB[kv.Tx], error)
	// Audit says in words what the settings give.
	Audit() []string
	io.Closer
}

// OpenViews opens a database of read models at pebble:PATH, redis://... or etcd://...; name is
// that of its journal, if it has one, to which nothing is ever written.
func OpenViews(ctx context.Context, at string, name freehold.Source, o Options) (Views, error) {
	none, err := freehold.NewCatalog()
	if err != nil {
		return nil, err
	}
	switch engine, path := split(at); engine {
	case Pebble:
		if err := parent(path); err != nil {
			return nil, err
		}
		db, err := pebble.Open(ctx, path, name, none, &pebble.Options{Disposable: true, Relaxed: o.Relaxed, Warn: o.Warn, Log: o.Log})
		return whole(db, err)
	case Redis:
		c, err := redis.Open(ctx, at, &redis.Options{Relaxed: o.Relaxed, Warn: o.Warn, Log: o.Log})
		if err != nil {
			return nil, err
		}
		return remote{c}, nil
	case Etcd:
		db, err := etcd.Open(ctx, at, name, none, &etcd.Options{Relaxed: o.Relaxed, Warn: o.Warn, Log: o.Log})
		return whole(db, err)
	default:
		return nil, fmt.Errorf("read models of %s: %s: want pebble:PATH or redis://user:password@host:port/prefix", name, Redacted(at))
	}
}

// single holds all read models in one database.
type single struct{ DB[kv.Tx] }

func (s single) Of(string) (follow.DB[kv.Tx], error) { return s.DB, nil }

func whole(db DB[kv.Tx], err error) (Views, error) {
	if err != nil {
		return nil, err
	}
	return single{db}, nil
}

// remote holds each read model in a store of its own.
type remote struct{ *redis.Client }

func (r remote) Of(name string) (follow.DB[kv.Tx], error) {
	s, err := r.Store(name)
	if err != nil {
		return nil, err
	}
	return s, nil
}
