// Package embed is a NATS server with JetStream in this process.
//
// # Guarantees
//
// None: the server is disposable. Its store directory may be deleted or replaced by
// an older copy while it runs; the server is then started anew, and relays publish
// what is missing.
//
// # Ordering
//
// That of package nats.
//
// # Failure
//
// A store directory that another server has locked is refused by Start.
package embed

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// Options tune a server.
type Options struct {
	// Addr is where to listen for clients of other processes, such as
	// "127.0.0.1:4222". Empty serves this process only.
	Addr string
	// Log is where the server's restarts go. nil is slog.Default().
	Log *slog.Logger
}

// Server is a running server. It is a natsgo.InProcessConnProvider that stays valid
// across restarts of the server within. It is safe for concurrent use.
type Server struct {
	dir  string
	opts Options
	lock *os.File

	mu     sync.Mutex
	server *server.Server
	store  os.FileInfo // of the directory that the server uses
	closed bool
	done   chan struct{}
}

// Start starts a server that keeps its streams in dir.
func Start(dir string, o *Options) (*Server, error) {
	if dir == "" {
		return nil, errors.New("embed: no store directory: the default would be the temporary one")
	}
	s := &Server{dir: dir, done: make(chan struct{})}
	if o != nil {
		s.opts = *o
	}
	if s.opts.Log == nil {
		s.opts.Log = slog.Default()
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return nil, fmt.Errorf("embed: %w", err)
	}
	var err error
	if s.lock, err = os.OpenFile(dir+".lock", os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return nil, fmt.Errorf("embed: %w", err)
	}
	if err := syscall.Flock(int(s.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		s.lock.Close()
		return nil, fmt.Errorf("embed: %s is used by another server: stop it first", dir)
	}
	if err := s.start(); err != nil {
		s.lock.Close()
		return nil, err
	}
	go s.watch()
	return s, nil
}

// start starts the server within. The caller holds s.mu, or is alone.
func (s *Server) start() error {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return fmt.Errorf("embed: %w", err)
	}
	o := &server.Options{ServerName: "freehold", JetStream: true, StoreDir: s.dir, NoSigs: true, NoLog: true, DontListen: s.opts.Addr == ""}
	if s.opts.Addr != "" {
		host, port, err := net.SplitHostPort(s.opts.Addr)
		if err == nil {
			o.Host = host
			_, err = fmt.Sscanf(port, "%d", &o.Port)
		}
		if err != nil {
			return fmt.Errorf("embed: address %s: %w", s.opts.Addr, err)
		}
	}
	srv, err := server.NewServer(o)
	if err != nil {
		return fmt.Errorf("embed: %w", err)
	}
	srv.Start()
	if !srv.ReadyForConnections(10 * time.Second) {
		srv.Shutdown()
		return fmt.Errorf("embed: server does not start: is %s in use?", s.opts.Addr)
	}
	config := srv.JetStreamConfig()
	if config == nil || filepath.Dir(config.StoreDir) != filepath.Clean(s.dir) && filepath.Clean(config.StoreDir) != filepath.Clean(s.dir) {
		srv.Shutdown()
		return fmt.Errorf("embed: JetStream does not run in %s", s.dir)
	}
	if s.store, err = os.Stat(config.StoreDir); err != nil {
		srv.Shutdown()
		return fmt.Errorf("embed: %w", err)
	}
	s.server = srv
	return nil
}

// watch starts the server anew when its store has gone or JetStream has given up.
func (s *Server) watch() {
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-s.done:
			return
		}
		s.mu.Lock()
		if !s.closed && !s.healthy() {
			s.opts.Log.Warn("store directory has gone or JetStream has stopped: the server starts anew", "dir", s.dir)
			s.server.Shutdown()
			s.server.WaitForShutdown()
			if err := s.start(); err != nil {
				s.opts.Log.Error("server does not start, consumers use the feeds", "error", err)
			}
		}
		s.mu.Unlock()
	}
}

func (s *Server) healthy() bool {
	if !s.server.Running() || !s.server.JetStreamEnabled() {
		return false
	}
	now, err := os.Stat(s.server.JetStreamConfig().StoreDir)
	return err == nil && os.SameFile(now, s.store)
}

// InProcessConn connects to the server that runs now.
func (s *Server) InProcessConn() (net.Conn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.server.InProcessConn()
}

// Audit says which durability the server has.
func (s *Server) Audit() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.server.JetStreamConfig()
	if c == nil {
		return []string{"JetStream does not run"}
	}
	return []string{"store " + c.StoreDir, fmt.Sprintf("sync every %v, always %v: disposable", c.SyncInterval, c.SyncAlways)}
}

// Close stops the server.
func (s *Server) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	close(s.done)
	s.server.Shutdown()
	s.server.WaitForShutdown()
	return s.lock.Close()
}
