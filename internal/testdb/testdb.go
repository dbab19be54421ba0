// Package testdb gives tests real database servers: those that a variable names, or
// servers that it starts in temporary directories on free loopback ports. A test
// binary that uses it calls [Main] from its TestMain.
//
// A server that is not installed skips the tests that need it, loudly, unless
// FREEHOLD_REQUIRE names it: then they fail.
package testdb

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
)

// EnvRequire names the variable with the servers that must be there, separated by
// commas.
const EnvRequire = "FREEHOLD_REQUIRE"

var stops struct {
	mu  sync.Mutex
	all []func()
}

// Main runs the tests, stops the servers that they have started, and returns the
// exit status.
func Main(m *testing.M) int {
	defer func() {
		stops.mu.Lock()
		defer stops.mu.Unlock()
		for _, stop := range slices.Backward(stops.all) {
			stop()
		}
	}()
	return m.Run()
}

// Inherit names a server in a variable, for the processes that tests start and kill:
// they could not stop one of their own, nor remove its directory.
func Inherit(name, url string) {
	if err := os.Setenv(name, url); err != nil {
		panic(err)
	}
}

func atEnd(stop func()) {
	stops.mu.Lock()
	defer stops.mu.Unlock()
	stops.all = append(stops.all, stop)
}

// missing skips a test, or fails it if its server is required.
func missing(t testing.TB, server string, err error) {
	t.Helper()
	if slices.Contains(strings.Split(os.Getenv(EnvRequire), ","), server) {
		t.Fatalf("%s is required and not there: %v", server, err)
	}
	fmt.Fprintf(os.Stderr, "SKIP %s: no %s: %v\n", t.Name(), server, err)
	t.Skipf("no %s: %v", server, err)
}
