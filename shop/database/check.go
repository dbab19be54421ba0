package database

import (
	"context"
	"fmt"
	"os"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/etcd"
	"github.com/freehold-go/freehold/postgres"
	"github.com/freehold-go/freehold/redis"
)

// Check connects to what a URL names, changes nothing, and says in words what it finds;
// the error says what to change.
func Check(ctx context.Context, at string, name freehold.Source) ([]string, error) {
	switch engine, path := split(at); engine {
	case SQLite, Pebble:
		info, err := os.Stat(path)
		if os.IsNotExist(err) {
			return []string{"not there yet: the first start makes it"}, nil
		}
		if err == nil && info.IsDir() != (engine == Pebble) {
			err = fmt.Errorf("%s is not what %s makes: give another path", path, engine)
		}
		return []string{"there"}, err
	case Postgres:
		return postgres.Check(ctx, at, name)
	case Etcd:
		return etcd.Check(ctx, at, name)
	case Redis:
		c, err := redis.Open(ctx, at, nil)
		if err != nil {
			return nil, err
		}
		return c.Audit(), c.Close()
	default:
		return nil, fmt.Errorf("%s: want a URL of sqlite, postgres, pebble, etcd or redis", Redacted(at))
	}
}
