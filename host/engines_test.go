package host_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/freehold-go/freehold/etcd"
	"github.com/freehold-go/freehold/internal/testdb"
	"github.com/freehold-go/freehold/memory"
	"github.com/freehold-go/freehold/pebble"
	"github.com/freehold-go/freehold/postgres"
	"github.com/freehold-go/freehold/sqlite"
)

// engine is a database of order's that can be put back to an older state.
type engine struct {
	open    func() database
	copy    func() // while it is closed
	restore func() // while it is closed
	shared  bool   // several instances may have it open
}

// opened is a database that was opened, or the test fails.
func opened[DB database](t *testing.T, db DB, err error) database {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return db
}

func onMemory(t *testing.T) engine {
	disk, backup := memory.NewDisk(), memory.NewDisk()
	return engine{
		open: func() database {
			db, err := memory.Open(t.Context(), "order", catalog(t), &memory.Options{Disk: disk, Log: silent})
			return opened(t, db, err)
		},
		copy:    func() { backup = disk.Clone() },
		restore: func() { disk = backup.Clone() },
	}
}

func onSQLite(t *testing.T) engine {
	path := filepath.Join(t.TempDir(), "order.db")
	return engine{
		open: func() database {
			db, err := sqlite.Open(t.Context(), path, "order", catalog(t), &sqlite.Options{Log: silent})
			return opened(t, db, err)
		},
		copy:    func() { copyFile(t, path, path+".copy") },
		restore: func() { copyFile(t, path+".copy", path) },
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	raw, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, raw, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func onPebble(t *testing.T) engine {
	dir := filepath.Join(t.TempDir(), "order")
	put := func(from, to string) {
		if err := errors.Join(os.RemoveAll(to), os.CopyFS(to, os.DirFS(from))); err != nil {
			t.Fatal(err)
		}
	}
	return engine{
		open: func() database {
			db, err := pebble.Open(t.Context(), dir, "order", catalog(t), &pebble.Options{Log: silent})
			return opened(t, db, err)
		},
		copy:    func() { put(dir, dir+".copy") },
		restore: func() { put(dir+".copy", dir) },
	}
}

func onPostgres(t *testing.T) engine {
	server := testdb.NewPostgres(t)
	return engine{
		open: func() database {
			server.Start()
			db, err := postgres.Open(t.Context(), server.URL(), "order", catalog(t), &postgres.Options{Log: silent})
			return opened(t, db, err)
		},
		copy:    func() { server.Stop(); server.Copy() },
		restore: func() { server.Stop(); server.Restore() },
		shared:  true,
	}
}

func onEtcd(t *testing.T) engine {
	cluster := testdb.NewEtcd(t)
	stopped := func(do func() error) {
		cluster.Kill(0)
		if err := errors.Join(do(), cluster.Start(0), cluster.Ready()); err != nil {
			t.Fatal(err)
		}
	}
	return engine{
		open: func() database {
			db, err := etcd.Open(t.Context(), cluster.URL()+"/order", "order", catalog(t), &etcd.Options{Log: silent})
			return opened(t, db, err)
		},
		copy:    func() { stopped(cluster.Copy) },
		restore: func() { stopped(cluster.Restore) },
		shared:  true,
	}
}

var engines = map[string]func(t *testing.T) engine{
	"memory": onMemory, "SQLite": onSQLite, "Pebble": onPebble, "PostgreSQL": onPostgres, "etcd": onEtcd,
}
