package testdb

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/freehold-go/freehold/internal/port"
)

// EnvEtcd names the variable with the URL of an etcd cluster on which tests may
// write under prefixes of their own, such as etcd://127.0.0.1:2379. Without it they
// start one.
const EnvEtcd = "FREEHOLD_TEST_ETCD_URL"

// TxnOps is how many operations the members that tests start take in a transaction.
const TxnOps = 4096

var etcd struct {
	once sync.Once
	url  string
	err  error
	n    atomic.Int64
}

// Etcd returns a URL with a prefix that nobody else uses, on a cluster of one member
// that the test binary shares.
func Etcd(t testing.TB) string {
	t.Helper()
	etcd.once.Do(func() {
		if etcd.url = strings.TrimSuffix(os.Getenv(EnvEtcd), "/"); etcd.url != "" {
			return
		}
		var c *EtcdCluster
		if c, etcd.err = StartEtcd(1); etcd.err == nil {
			atEnd(c.Stop)
			etcd.url = c.URL()
			Inherit(EnvEtcd, etcd.url)
		}
	})
	if etcd.err != nil {
		missing(t, "etcd", etcd.err)
	}
	return fmt.Sprintf("%s/test-%d-%d?max-txn-ops=%d", etcd.url, os.Getpid(), etcd.n.Add(1), TxnOps)
}

// EtcdCluster is a cluster whose members are processes of the test.
type EtcdCluster struct {
	program, dir string
	flags        []string
	clients      []string // host:port
	peers        []string
	members      []*process
}

// process is a server that ends with this process, however that ends: the shell in
// front of it ends it when its standard input, a pipe of ours, is closed.
type process struct {
	*exec.Cmd
	alive interface{ Close() error }
}

func startProcess(log *os.File, program string, args ...string) (*process, error) {
	cmd := exec.Command("sh", append([]string{"-c", `"$@" & pid=$!; cat >/dev/null; kill -9 $pid; wait $pid 2>/dev/null`, "sh", program}, args...)...)
	cmd.Stdout, cmd.Stderr = log, log
	alive, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	return &process{cmd, alive}, cmd.Start()
}

// kill ends the server as kill -9 does.
func (p *process) kill() {
	_ = p.alive.Close()
	_ = p.Wait() // it was killed
}

// EtcdProgram builds the server and returns the program's path.
var EtcdProgram = sync.OnceValues(func() (string, error) {
	_, here, _, _ := runtime.Caller(0)
	dir, err := os.MkdirTemp("", "freehold-etcd-program-")
	if err != nil {
		return "", err
	}
	atEnd(func() { _ = os.RemoveAll(dir) })
	program := filepath.Join(dir, "etcd")
	cmd := exec.Command("go", "build", "-o", program, "go.etcd.io/etcd/server/v3")
	cmd.Dir = filepath.Join(filepath.Dir(here), "..", "..", "deploy", "etcd")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the etcd server: %w: %s", err, out)
	}
	return program, nil
})

// StartEtcd starts a cluster of n members with new directories. flags are those of
// etcd, beside the ones that tests need.
func StartEtcd(n int, flags ...string) (*EtcdCluster, error) {
	program, err := EtcdProgram()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "freehold-etcd-")
	if err != nil {
		return nil, err
	}
	c := &EtcdCluster{program: program, dir: dir, flags: flags, members: make([]*process, n)}
	for range n {
		client, err1 := port.Free()
		peer, err2 := port.Free()
		if err := errors.Join(err1, err2); err != nil {
			return nil, err
		}
		c.clients, c.peers = append(c.clients, "127.0.0.1:"+client), append(c.peers, "127.0.0.1:"+peer)
	}
	for i := range n {
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

// NewEtcd starts a cluster of one member for a test of its own.
func NewEtcd(t testing.TB) *EtcdCluster {
	t.Helper()
	c, err := StartEtcd(1)
	if err != nil {
		missing(t, "etcd", err)
	}
	t.Cleanup(c.Stop)
	return c
}

// URL is the cluster's, without a prefix.
func (c *EtcdCluster) URL() string { return "etcd://" + strings.Join(c.clients, ",") }

// Start starts a member with what is in its directory.
func (c *EtcdCluster) Start(i int) error {
	var all []string
	for j, peer := range c.peers {
		all = append(all, fmt.Sprintf("m%d=http://%s", j, peer))
	}
	log, err := os.OpenFile(filepath.Join(c.dir, fmt.Sprintf("log%d", i)), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	client, peer := "http://"+c.clients[i], "http://"+c.peers[i]
	args := []string{"--name", fmt.Sprintf("m%d", i), "--data-dir", c.Dir(i),
		"--listen-client-urls", client, "--advertise-client-urls", client, "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
		"--initial-cluster", strings.Join(all, ","), "--initial-cluster-state", "new", "--log-level", "warn",
		"--max-txn-ops", fmt.Sprint(TxnOps), "--auto-compaction-mode", "revision", "--auto-compaction-retention", "5000"}
	c.members[i], err = startProcess(log, c.program, append(args, c.flags...)...)
	return err
}

// Dir is a member's directory.
func (c *EtcdCluster) Dir(i int) string { return filepath.Join(c.dir, fmt.Sprintf("m%d", i)) }

// Ready waits until all members that run are well.
func (c *EtcdCluster) Ready() error {
	for i, m := range c.members {
		if m == nil {
			continue
		}
		for until := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
			if healthy(c.clients[i]) {
				break
			}
			if time.Now().After(until) {
				text, _ := os.ReadFile(filepath.Join(c.dir, fmt.Sprintf("log%d", i)))
				return fmt.Errorf("etcd member %d does not get well: %s", i, text)
			}
		}
	}
	return nil
}

func healthy(addr string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/health", nil)
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	_ = resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// Kill ends a member as kill -9 does.
func (c *EtcdCluster) Kill(i int) {
	if c.members[i] != nil {
		c.members[i].kill()
		c.members[i] = nil
	}
}

// Copy copies the directories of members that are killed.
func (c *EtcdCluster) Copy() error {
	var errs []error
	for i := range c.members {
		errs = append(errs, os.CopyFS(c.Dir(i)+".copy", os.DirFS(c.Dir(i))))
	}
	return errors.Join(errs...)
}

// Restore puts the copies in the place of the directories of members that are killed.
func (c *EtcdCluster) Restore() error {
	var errs []error
	for i := range c.members {
		errs = append(errs, os.RemoveAll(c.Dir(i)), os.CopyFS(c.Dir(i), os.DirFS(c.Dir(i)+".copy")))
	}
	return errors.Join(errs...)
}

// Stop ends all members and removes their directories.
func (c *EtcdCluster) Stop() {
	for i := range c.members {
		c.Kill(i)
	}
	_ = os.RemoveAll(c.dir)
}
