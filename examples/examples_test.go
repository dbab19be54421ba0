// Package examples_test runs the examples and compares what they print.
package examples_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/freehold-go/freehold/internal/testdb"
)

// links is what each example may link of the heavy modules.
var links = map[string][]string{
	"eventsourcing": {"SQLite"},
	"exactlyonce":   {"NATS"},
	"outbox":        {"SQLite"},
	"join":          {"PostgreSQL"},
	"postgres":      {"PostgreSQL"},
	"saga":          nil,
}

// heavy are packages whose code a program should carry only if it uses them.
var heavy = map[string]string{
	"NATS":       "github.com/nats-io/",
	"Pebble":     "github.com/cockroachdb/pebble",
	"SQLite":     "modernc.org/sqlite",
	"PostgreSQL": "github.com/jackc/pgx/",
	"etcd":       "go.etcd.io/",
	"Redis":      "github.com/redis/",
}

func TestMain(m *testing.M) { os.Exit(testdb.Main(m)) }

func TestExamplesPrintWhatTheyShould(t *testing.T) {
	t.Parallel()
	bin := t.TempDir()
	if out, err := exec.Command("go", "build", "-o", bin, "./...").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	for name := range links {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			want, err := os.ReadFile(filepath.Join(name, "output.txt"))
			if err != nil {
				t.Fatal(err)
			}
			var stdout, stderr bytes.Buffer
			run := exec.CommandContext(t.Context(), filepath.Join(bin, name))
			run.Dir, run.Stdout, run.Stderr = t.TempDir(), &stdout, &stderr
			run.Env = append(os.Environ(), "TMPDIR="+run.Dir)
			if name == "postgres" || name == "join" {
				run.Env = append(run.Env, "DATABASE_URL="+testdb.Postgres(t))
			}
			if err := run.Run(); err != nil {
				t.Errorf("%v\n%s", err, stderr.String())
			}
			if diff := cmp.Diff(string(want), stdout.String()); diff != "" {
				t.Errorf("output (-want +got):\n%s", diff)
			}
			if left, err := os.ReadDir(run.Dir); err != nil || len(left) > 0 {
				t.Errorf("left behind: %v %v", left, err)
			}
		})
	}
}

func TestExamplesAreShort(t *testing.T) {
	t.Parallel()
	dirs, err := filepath.Glob("*/")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range dirs {
		name := filepath.Clean(dir)
		if _, known := links[name]; !known {
			t.Errorf("%s is not tested: add it to links", name)
		}
		files, err := filepath.Glob(filepath.Join(name, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		lines := 0
		for _, f := range files {
			text, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			lines += bytes.Count(text, []byte("\n"))
		}
		if lines >= 80 {
			t.Errorf("%s has %d lines: an example has less than 80, comments included", name, lines)
		}
	}
}

// TestExamplesLinkOnlyWhatTheyUse: the engines and the broker are packages of their
// own, so that a program carries those that it imports and no others.
func TestExamplesLinkOnlyWhatTheyUse(t *testing.T) {
	t.Parallel()
	for name, allowed := range links {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", "./"+name).Output()
			if err != nil {
				t.Fatalf("go list: %v", err)
			}
			deps := strings.Fields(string(out))
			for what, prefix := range heavy {
				linked := slices.ContainsFunc(deps, func(p string) bool { return strings.HasPrefix(p, prefix) })
				if linked != slices.Contains(allowed, what) {
					t.Errorf("links %s: %v, want %v", what, linked, !linked)
				}
			}
		})
	}
}
