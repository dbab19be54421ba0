package testdb

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/freehold-go/freehold/internal/port"
)

// NATSProgram builds the server and returns the program's path.
var NATSProgram = sync.OnceValues(func() (string, error) {
	_, here, _, _ := runtime.Caller(0)
	dir, err := os.MkdirTemp("", "freehold-nats-program-")
	if err != nil {
		return "", err
	}
	atEnd(func() { _ = os.RemoveAll(dir) })
	program := filepath.Join(dir, "nats-server")
	cmd := exec.Command("go", "build", "-o", program, "github.com/nats-io/nats-server/v2")
	cmd.Dir = filepath.Join(filepath.Dir(here), "..", "..")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the NATS server: %w: %s", err, out)
	}
	return program, nil
})

// NATSCluster is a cluster whose servers are processes of the test.
type NATSCluster struct {
	program, dir string
	clients      []string // host:port
	monitors     []string
	servers      []*process
}

// StartNATS starts a cluster of n servers with JetStream and new directories. more is
// added to their configuration.
func StartNATS(n int, more string) (*NATSCluster, error) {
	program, err := NATSProgram()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "freehold-nats-")
	if err != nil {
		return nil, err
	}
	c := &NATSCluster{program: program, dir: dir, servers: make([]*process, n)}
	var routes []string
	var own []string
	for range n {
		client, err1 := port.Free()
		monitor, err2 := port.Free()
		route, err3 := port.Free()
		if err := errors.Join(err1, err2, err3); err != nil {
			return nil, err
		}
		c.clients, c.monitors = append(c.clients, "127.0.0.1:"+client), append(c.monitors, "127.0.0.1:"+monitor)
		own, routes = append(own, "127.0.0.1:"+route), append(routes, "nats://127.0.0.1:"+route)
	}
	for i := range n {
		config := fmt.Sprintf("server_name: n%d\nlisten: %q\nhttp: %q\nmax_payload: 8MB\njetstream { store_dir: %q, max_file_store: 4GB }\n", i, c.clients[i], c.monitors[i], c.Dir(i))
		if n > 1 {
			config += fmt.Sprintf("cluster { name: test, listen: %q, routes: [%s] }\n", own[i], strings.Join(routes, ", "))
		}
		if err := os.WriteFile(c.config(i), []byte(config+more), 0o600); err != nil {
			return nil, err
		}
		if err := c.Start(i); err != nil {
			c.Stop()
			return nil, err
		}
	}
	if err := c.Ready(); err != nil {
		c.Stop()
		return nil, err
	}
	return c, nil
}

func (c *NATSCluster) config(i int) string { return filepath.Join(c.dir, fmt.Sprintf("n%d.conf", i)) }

// Dir is a server's JetStream directory.
func (c *NATSCluster) Dir(i int) string { return filepath.Join(c.dir, fmt.Sprintf("n%d", i)) }

// URL is the cluster's, for a user, who may be empty.
func (c *NATSCluster) URL(user, password string) string {
	var all []string
	for _, at := range c.clients {
		if user != "" {
			at = user + ":" + password + "@" + at
		}
		all = append(all, "nats://"+at)
	}
	return strings.Join(all, ",")
}

// Start starts a server with what is in its directory.
func (c *NATSCluster) Start(i int) error {
	log, err := os.OpenFile(filepath.Join(c.dir, fmt.Sprintf("log%d", i)), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	c.servers[i], err = startProcess(log, c.program, "-c", c.config(i))
	return err
}

// Kill ends a server as kill -9 does.
func (c *NATSCluster) Kill(i int) {
	if c.servers[i] != nil {
		c.servers[i].kill()
		c.servers[i] = nil
	}
}

// Ready waits until all servers that run are well.
func (c *NATSCluster) Ready() error {
	for i, s := range c.servers {
		for until := time.Now().Add(60 * time.Second); s != nil; time.Sleep(20 * time.Millisecond) {
			resp, err := http.Get("http://" + c.monitors[i] + "/healthz")
			if err == nil {
				_ = resp.Body.Close()
				if resp.StatusCode == http.StatusOK {
					break
				}
			}
			if time.Now().After(until) {
				text, _ := os.ReadFile(filepath.Join(c.dir, fmt.Sprintf("log%d", i)))
				return fmt.Errorf("NATS server %d does not get well: %s", i, text)
			}
		}
	}
	return nil
}

// Stop ends all servers and removes their directories.
func (c *NATSCluster) Stop() {
	for i := range c.servers {
		c.Kill(i)
	}
	_ = os.RemoveAll(c.dir)
}
