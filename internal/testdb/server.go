package testdb

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/freehold-go/freehold/internal/port"
)

// Server is a PostgreSQL server of one test, which may be stopped, copied and put back.
type Server struct {
	t             testing.TB
	attr          *syscall.SysProcAttr
	dir, data     string
	port, program string
	stop          func()
}

// NewPostgres makes a server of its own with one database.
func NewPostgres(t testing.TB) *Server {
	t.Helper()
	initdb, err := pgBin("initdb")
	if err != nil {
		missing(t, "postgres", err)
	}
	s := serverIn(t, "freehold-own-")
	s.do(initdb, "-D", s.data, "-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale", "C", "-N")
	return s
}

func serverIn(t testing.TB, name string) *Server {
	t.Helper()
	s := &Server{t: t}
	var err error
	if s.program, err = pgBin("postgres"); err != nil {
		missing(t, "postgres", err)
	}
	if s.dir, err = os.MkdirTemp("", name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Stop()
		_ = os.RemoveAll(s.dir)
	})
	if s.attr, err = unprivileged(s.dir); err != nil {
		t.Fatal(err)
	}
	if s.port, err = port.Free(); err != nil {
		t.Fatal(err)
	}
	s.data = filepath.Join(s.dir, "data")
	return s
}

// do runs a program as the server's user.
func (s *Server) do(program string, args ...string) {
	s.t.Helper()
	cmd := exec.Command(program, args...)
	cmd.SysProcAttr, cmd.Dir = s.attr, s.dir
	if out, err := cmd.CombinedOutput(); err != nil {
		s.t.Fatalf("%s %s: %v: %s", program, strings.Join(args, " "), err, out)
	}
}

// URL is that of its database.
func (s *Server) URL() string {
	return fmt.Sprintf("postgres://postgres@127.0.0.1:%s/postgres", s.port)
}

// Start starts the server, if it does not run.
func (s *Server) Start() {
	s.t.Helper()
	if s.stop != nil {
		return
	}
	// The shell ends the server when its standard input, a pipe of ours, is closed.
	cmd := exec.Command("sh", "-c", `"$@" & pid=$!; cat >/dev/null; kill -INT $pid; wait $pid`, "sh",
		s.program, "-D", s.data, "-p", s.port, "-k", s.dir, "-h", "127.0.0.1", "-c", "shared_buffers=16MB")
	cmd.SysProcAttr, cmd.Dir = s.attr, s.dir
	alive, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		s.t.Fatal(err)
	}
	s.stop = func() {
		_ = alive.Close()
		_ = cmd.Wait() // it was told to stop
	}
	awaitPostgres(s.t, s.URL())
}

// Stop stops the server, if it runs, and ends its connections.
func (s *Server) Stop() {
	if s.stop != nil {
		s.stop()
		s.stop = nil
	}
}

// Copy copies the files of a server that is stopped, and Restore puts them back.
func (s *Server) Copy() { s.do("cp", "-a", s.data, s.data+".copy") }

// Restore puts the copy in the place of the files of a server that is stopped.
func (s *Server) Restore() {
	s.do("rm", "-rf", s.data)
	s.do("cp", "-a", s.data+".copy", s.data)
}

// Standby makes and starts a server that follows this one, and does not wait for it.
func (s *Server) Standby() *Server {
	s.t.Helper()
	backup, err := pgBin("pg_basebackup")
	if err != nil {
		missing(s.t, "postgres", err)
	}
	b := serverIn(s.t, "freehold-standby-")
	b.do(backup, "-D", b.data, "-R", "-N", "-c", "fast", "-h", "127.0.0.1", "-p", s.port, "-U", "postgres")
	b.Start()
	return b
}

// Takes makes this server, a standby, a primary at the port of another one, which is
// stopped.
func (s *Server) Takes(from *Server) {
	s.t.Helper()
	s.Stop()
	from.Stop()
	s.port = from.port
	s.Start()
	promote, err := pgBin("pg_ctl")
	if err != nil {
		missing(s.t, "postgres", err)
	}
	s.do(promote, "promote", "-w", "-D", s.data)
}
