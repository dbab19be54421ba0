package freehold_test

import (
	"os/exec"
	"strings"
	"testing"
)

// technologies are what a program should link only if it uses the package for it.
var technologies = map[string]string{
	"sqlite": "modernc.org/sqlite", "postgres": "github.com/jackc/pgx/", "pebble": "github.com/cockroachdb/pebble/",
	"etcd": "go.etcd.io/etcd/client/", "redis": "github.com/redis/rueidis", "nats": "github.com/nats-io/nats.go", "nats server": "github.com/nats-io/nats-server/",
	"etcd server": "go.etcd.io/etcd/server/", "test": "pgregory.net/rapid",
}

// TestEachPackageLinksItsOwnTechnologyOnly lists what programs link that use one engine.
func TestEachPackageLinksItsOwnTechnologyOnly(t *testing.T) {
	t.Parallel()
	for pkg, wants := range map[string][]string{
		".": nil, "./journal": nil, "./follow": nil, "./inbox": nil, "./outbox": nil, "./aggregate": nil, "./saga": nil, "./intent": nil,
		"./projection": nil, "./cache": nil, "./memory": nil, "./host": nil,
		"./sqlite": {"sqlite"}, "./postgres": {"postgres"}, "./pebble": {"pebble"}, "./etcd": {"etcd"}, "./redis": {"redis"}, "./nats": {"nats"},
		"./nats/embed": {"nats server"},
	} {
		t.Run(pkg, func(t *testing.T) {
			t.Parallel()
			out, err := exec.Command("go", "list", "-deps", pkg).Output()
			if err != nil {
				t.Fatal(err)
			}
			allowed := map[string]bool{}
			for _, name := range wants {
				allowed[name] = true
			}
			for name, path := range technologies {
				linked := false
				for dep := range strings.Lines(string(out)) {
					linked = linked || strings.HasPrefix(strings.TrimSpace(dep)+"/", strings.TrimSuffix(path, "/")+"/")
				}
				if linked != allowed[name] {
					t.Errorf("links %s: %v, want %v", name, linked, allowed[name])
				}
			}
		})
	}
}
