package freehold_test

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"path"
	"strings"
	"testing"
)

const module = "github.com/freehold-go/freehold"

// layers is the import rule: a package may import those of lower layers, and, where
// the layer says so, those of its own. Internal packages may be imported by all.
// Do not change it to make a build pass.
var layers = []struct {
	packages []string
	within   bool // packages of the layer may import each other
}{
	{packages: []string{""}},
	{packages: []string{"sqldb", "kv", "journal", "transport", "cache"}},
	{packages: []string{"follow"}},
	{packages: []string{"outbox", "inbox", "aggregate", "projection", "saga", "intent"}, within: true},
	{packages: []string{"sqlite", "postgres", "pebble", "etcd", "memory", "redis", "nats", "nats/embed", "host"}},
	{packages: []string{"shop/event"}},
	{packages: []string{"shop/order", "shop/inventory", "shop/billing"}},
	{packages: []string{"shop/orderdb", "shop/inventorydb", "shop/billingdb", "shop/retail"}},
	{packages: []string{"shop/web", "shop/database"}},
	{packages: []string{"shop/orderd", "shop/inventoryd", "shop/billingd"}},
	{packages: []string{"shop/audit"}},
	{packages: []string{"cmd/shop", "cmd/freehold"}},
}

// domains may import nothing of the project but these.
var domains = map[string][]string{
	"shop/event":     {""},
	"shop/order":     {"", "aggregate", "saga", "shop/event"},
	"shop/inventory": {"", "aggregate", "saga", "shop/event"},
	"shop/billing":   {"", "aggregate", "saga", "shop/event", "internal/mutant"},
}

type listed struct {
	ImportPath string
	Name       string
	Imports    []string
}

func packages(t *testing.T) []listed {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Name,Imports", "./...").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var all []listed
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

func short(importPath string) (string, bool) {
	if importPath == module {
		return "", true
	}
	return strings.CutPrefix(importPath, module+"/")
}

func TestImportRule(t *testing.T) {
	t.Parallel()
	layer := map[string]int{}
	for i, l := range layers {
		for _, p := range l.packages {
			layer[p] = i
		}
	}
	for _, p := range packages(t) {
		name, _ := short(p.ImportPath)
		if name == "examples" || strings.HasPrefix(name, "examples/") || strings.HasPrefix(name, "bench") {
			continue
		}
		internal := strings.HasPrefix(name, "internal/")
		testing := strings.HasSuffix(path.Base(name), "test")
		from, known := layer[name]
		if !known && !internal && !testing {
			t.Errorf("%s is in no layer: add it where it belongs", p.ImportPath)
			continue
		}
		for _, imported := range p.Imports {
			to, ours := short(imported)
			switch {
			case !ours:
				if name == "" && strings.Contains(imported, ".") {
					t.Errorf("the root package imports %s: it may import the standard library only", imported)
				}
			case strings.HasSuffix(path.Base(to), "test") && !testing:
				t.Errorf("%s imports %s: test packages are for tests only", p.ImportPath, imported)
			case internal || testing || strings.HasPrefix(to, "internal/"):
			case layer[to] > from, layer[to] == from && !layers[from].within:
				t.Errorf("%s imports %s: the import rule does not allow it", p.ImportPath, imported)
			}
			if allowed, domain := domains[name]; domain && ours && !contains(allowed, to) {
				t.Errorf("the domain package %s imports %s", p.ImportPath, imported)
			}
		}
	}
}

func contains(all []string, s string) bool {
	for _, a := range all {
		if a == s {
			return true
		}
	}
	return false
}

// TestServicesDoNotShareStorage checks that no service's packages reach another's.
func TestServicesDoNotShareStorage(t *testing.T) {
	t.Parallel()
	services := []string{"order", "inventory", "billing"}
	of := func(name string) string {
		for _, s := range services {
			for _, suffix := range []string{"", "db", "d"} {
				if name == "shop/"+s+suffix {
					return s
				}
			}
		}
		return ""
	}
	for _, p := range packages(t) {
		name, _ := short(p.ImportPath)
		mine := of(name)
		for _, imported := range p.Imports {
			if to, ours := short(imported); ours && mine != "" && of(to) != "" && of(to) != mine {
				t.Errorf("%s imports %s, another service's", p.ImportPath, imported)
			}
		}
	}
}
