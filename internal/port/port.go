// Package port finds ports for servers that tests start, kill and start again where
// they were.
package port

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"syscall"
)

// Ports are taken from below those that a system gives to connections: while a server
// is down, one of those would sooner or later be somebody's connection, and the server
// could not be started again. deploy/local takes its own from above.
const lowest, above = 10_000, 20_000

var claims = struct {
	mu    sync.Mutex
	given map[string]net.Listener // nil where there is no other loopback address
}{given: map[string]net.Listener{}}

// Free returns a port of 127.0.0.1 on which nobody listens. Until this process ends,
// nobody else gets it here: a listener on another loopback address says that it is
// taken. (Where there is no other, as on macOS, two processes may get the same one.)
func Free() (string, error) {
	claims.mu.Lock()
	defer claims.mu.Unlock()
	for range 1000 {
		port := strconv.Itoa(lowest + rand.IntN(above-lowest))
		if _, again := claims.given[port]; again {
			continue
		}
		claim, err := net.Listen("tcp", "127.0.0.2:"+port)
		if errors.Is(err, syscall.EADDRINUSE) {
			continue
		}
		l, err := net.Listen("tcp", "127.0.0.1:"+port)
		if err == nil {
			claims.given[port] = claim
			return port, l.Close()
		}
		if claim != nil {
			_ = claim.Close()
		}
	}
	return "", fmt.Errorf("no port of 127.0.0.1 from %d to %d is free", lowest, above)
}
