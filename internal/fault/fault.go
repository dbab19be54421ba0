// Package fault gives names to the points at which a process may die, so that a
// test can kill it exactly there. In production a point costs one load.
package fault

import (
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
)

// Env is the variable that arms a point: "name" kills the process with SIGKILL
// when the point is first passed, "name:n" when it is passed for the nth time.
const Env = "FREEHOLD_FAULT"

type armed struct {
	name string
	left atomic.Int64
}

var point = load(os.Getenv(Env))

func load(s string) *armed {
	if s == "" {
		return nil
	}
	name, count, found := strings.Cut(s, ":")
	a := &armed{name: name}
	n := int64(1)
	if found {
		if v, err := strconv.ParseInt(count, 10, 64); err == nil {
			n = v
		}
	}
	a.left.Store(n)
	return a
}

// Point ends the process with SIGKILL if it is armed under this name.
func Point(name string) {
	if point == nil || point.name != name || point.left.Add(-1) != 0 {
		return
	}
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}
