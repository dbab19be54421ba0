// Package testredis gives tests real Redis servers: the one that a variable names, or
// servers that it starts in temporary directories on free loopback ports.
//
// Where redis-server is not installed the tests that need it are skipped, loudly, or
// fail if FREEHOLD_REQUIRE names redis.
package testredis

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/freehold-go/freehold/internal/port"
)

// EnvURL names the variable with the URL of a server on which tests may write. Without
// it they start one.
const EnvURL = "FREEHOLD_TEST_REDIS_URL"

var prefixes atomic.Int64

// Start returns a URL whose prefix nobody else uses.
func Start(t testing.TB) string {
	t.Helper()
	prefix := fmt.Sprintf("/t%d.%d", os.Getpid(), prefixes.Add(1))
	if at := os.Getenv(EnvURL); at != "" {
		before, query, _ := strings.Cut(at, "?")
		return strings.TrimSuffix(before, "/") + prefix + "?" + query
	}
	return NewServer(t).URL() + prefix
}

// Server is a server of a test's own, which it may kill.
type Server struct {
	t    testing.TB
	path string
	dir  string
	args []string
	port string
	bus  string
	cmd  *exec.Cmd
	stop func()
}

// NewServer starts a server with settings of its own besides those of redis-server:
// "--appendonly", "yes". It ends with the test, or with this process, however that
// ends.
func NewServer(t testing.TB, args ...string) *Server {
	t.Helper()
	path, err := exec.LookPath("redis-server")
	if err != nil {
		if slices.Contains(strings.Split(os.Getenv("FREEHOLD_REQUIRE"), ","), "redis") {
			t.Fatalf("redis is required and not there: %v", err)
		}
		fmt.Fprintf(os.Stderr, "SKIP SKIP SKIP %s: redis-server is not installed\n", t.Name())
		t.Skip("SKIP SKIP SKIP: redis-server is not installed")
	}
	s := &Server{t: t, path: path, dir: t.TempDir(), args: args, port: freePort(t)}
	s.Restart()
	t.Cleanup(s.Kill)
	return s
}

// NewCluster starts a server that can be a node of a cluster.
func NewCluster(t testing.TB) *Server {
	t.Helper()
	bus := freePort(t)
	s := NewServer(t, "--cluster-enabled", "yes", "--cluster-port", bus)
	s.bus = bus
	return s
}

// BusPort is the port by which nodes of a cluster talk.
func (s *Server) BusPort() string { return s.bus }

func freePort(t testing.TB) string {
	t.Helper()
	free, err := port.Free()
	if err != nil {
		t.Fatal(err)
	}
	return free
}

// URL is where the server is.
func (s *Server) URL() string { return "redis://127.0.0.1:" + s.port }

// Port is the server's.
func (s *Server) Port() string { return s.port }

// Dir is where it keeps its files: dump.rdb, if it has been told to save.
func (s *Server) Dir() string { return s.dir }

// Restart starts the server where it was killed, with the files that it finds.
func (s *Server) Restart() {
	s.t.Helper()
	log := filepath.Join(s.dir, "log")
	args := append([]string{"-c", `"$@" & pid=$!; cat >/dev/null; kill -9 $pid; wait $pid`, "sh",
		s.path, "--port", s.port, "--bind", "127.0.0.1", "--dir", s.dir, "--save", "", "--logfile", log, "--enable-debug-command", "yes"}, s.args...)
	// The shell ends the server when its standard input, a pipe of ours, is closed.
	s.cmd = exec.Command("sh", args...)
	alive, err := s.cmd.StdinPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.stop = func() {
		_ = alive.Close()
		_ = s.cmd.Wait() // it was told to end at once
	}
	for until := time.Now().Add(time.Minute); s.Do("PING") != "+PONG"; time.Sleep(2 * time.Millisecond) {
		if time.Now().After(until) {
			text, _ := os.ReadFile(log)
			s.t.Fatalf("redis-server does not answer: %s", text)
		}
	}
}

// Kill ends the server with kill -9.
func (s *Server) Kill() {
	if s.stop != nil {
		s.stop()
		s.stop = nil
	}
}

// Do sends a command on a connection of its own and returns the first line of the
// answer, "" if there is none.
func (s *Server) Do(command ...string) string {
	line, _, _ := strings.Cut(s.ask(command), "\r\n")
	return line
}

// Says reports whether a command's answer contains a text.
func (s *Server) Says(text string, command ...string) bool {
	return strings.Contains(s.ask(command), text)
}

func (s *Server) ask(command []string) string {
	conn, err := net.DialTimeout("tcp", "127.0.0.1:"+s.port, time.Second)
	if err != nil {
		return ""
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second)) // a connection that is lost gives no answer
	text := fmt.Sprintf("*%d\r\n", len(command))
	for _, word := range command {
		text += fmt.Sprintf("$%d\r\n%s\r\n", len(word), word)
	}
	if _, err := conn.Write([]byte(text)); err != nil {
		return ""
	}
	answer := make([]byte, 1<<16)
	n, err := conn.Read(answer) // short answers come in one piece
	if err != nil {
		return ""
	}
	return string(answer[:n])
}
