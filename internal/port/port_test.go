package port_test

import (
	"net"
	"strconv"
	"testing"

	"github.com/freehold-go/freehold/internal/port"
)

// TestFree: a port is given once, its server can use it, and it is none that the system
// gives to connections.
func TestFree(t *testing.T) {
	t.Parallel()
	given := map[string]bool{}
	for range 200 {
		p, err := port.Free()
		if err != nil {
			t.Fatal(err)
		}
		if n, _ := strconv.Atoi(p); given[p] || n >= 32768 {
			t.Errorf("port %s: given before is %v", p, given[p])
		}
		given[p] = true
		l, err := net.Listen("tcp", "127.0.0.1:"+p)
		if err != nil {
			t.Error(err)
			continue
		}
		_ = l.Close()
	}
}
