// Package embed is a NATS server with JetStream in this process.
//
// # Guarantees
//
// The server is disposable and keeps no record of anything: journals do. While it
// runs, its store directory may be deleted, damaged, or replaced by an older copy.
// The server notices, clears the store and starts anew; clients connect again,
// relays publish what is missing, and consumers lose nothing but time.
//
// # Ordering
//
// That of package nats.
//
// # Failure
//
// A directory that another server uses is refused by Start, and so is an empty
// name, for which NATS would take the system's temporary directory. A store that
// does not open is cleared. Only the directory "jetstream" within the given one is
// ever removed.
package embed

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// Options tune a server; the zero value is good.
type Options struct {
	// Addr is where to listen for clients of other processes, such as
	// "127.0.0.1:4222". Port 0 is any, the same for as long as the server is open.
	// Empty serves this process only.
	Addr string
	// MaxStore bounds what all streams together may take on disk, in bytes. 0 is 1 GiB.
	MaxStore int64
	// MaxPayload bounds a message, in bytes. 0 is 8 MiB.
	MaxPayload int32
	// Check is how often the store is looked at. 0 is 250 ms.
	Check time.Duration
	// Log is where the server's messages go. nil is slog.Default().
	Log *slog.Logger
}

// Server is a running server. It provides connections within the process (see
// nats.Options.Server) and stays valid when the server within starts anew. It is
// safe for concurrent use.
type Server struct {
	dir  string
	opts Options
	lock *os.File

	mu     sync.Mutex
	server *server.Server // nil while it starts anew
	store  *store
	starts int
	closed bool

	stop    chan struct{}
	stopped chan struct{}
}

var errDown = errors.New("embed: the server is starting anew")

// Start starts a server that keeps its streams below dir, which is made if it is
// missing.
func Start(dir string, o *Options) (*Server, error) {
	if dir == "" {
		return nil, errors.New("embed: no store directory: name one")
	}
	s := &Server{dir: filepath.Clean(dir), stop: make(chan struct{}), stopped: make(chan struct{})}
	if o != nil {
		s.opts = *o
	}
	if s.opts.MaxStore <= 0 {
		s.opts.MaxStore = 1 << 30
	}
	if s.opts.MaxPayload <= 0 {
		s.opts.MaxPayload = 8 << 20
	}
	if s.opts.Check <= 0 {
		s.opts.Check = 250 * time.Millisecond
	}
	if s.opts.Log == nil {
		s.opts.Log = slog.Default()
	}
	if err := s.takeLock(); err != nil {
		return nil, err
	}
	err := s.start()
	if err != nil {
		s.opts.Log.Warn("embed: the store does not open, it is cleared", "dir", s.dir, "error", err)
		err = errors.Join(s.clear(), s.start())
	}
	if err != nil {
		return nil, errors.Join(err, s.lock.Close())
	}
	go s.watch()
	return s, nil
}

// takeLock locks a file beside the directory, so that the lock outlives the
// directory.
func (s *Server) takeLock() error {
	if err := os.MkdirAll(filepath.Dir(s.dir), 0o700); err != nil {
		return fmt.Errorf("embed: %w", err)
	}
	lock, err := os.OpenFile(s.dir+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("embed: %w", err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return errors.Join(fmt.Errorf("embed: %s is used by another server: stop it, or give another directory", s.dir), lock.Close())
	}
	s.lock = lock
	return nil
}

func (s *Server) storeDir() string { return filepath.Join(s.dir, "jetstream") }

// clear removes the store, and nothing else.
func (s *Server) clear() error {
	if err := os.RemoveAll(s.storeDir()); err != nil {
		return fmt.Errorf("embed: clear the store: %w", err)
	}
	return nil
}

// start starts the server within.
func (s *Server) start() error {
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return fmt.Errorf("embed: %w", err)
	}
	o, err := s.serverOptions()
	if err != nil {
		return err
	}
	srv, err := server.NewServer(o)
	if err != nil {
		return fmt.Errorf("embed: %w", err)
	}
	srv.SetLoggerV2(logger{s.opts.Log}, false, false, false)
	srv.Start()
	if !srv.ReadyForConnections(10 * time.Second) {
		end(srv)
		return fmt.Errorf("embed: the server does not start: is %s in use?", s.opts.Addr)
	}
	config := srv.JetStreamConfig()
	if !srv.JetStreamEnabled() || config == nil || filepath.Clean(config.StoreDir) != s.storeDir() {
		end(srv)
		return fmt.Errorf("embed: JetStream does not run in %s", s.storeDir())
	}
	kept, err := mark(s.storeDir())
	if err != nil {
		end(srv)
		return err
	}
	if a := srv.Addr(); s.starts == 0 && s.opts.Addr != "" && a != nil {
		s.opts.Addr = a.String() // clients find the next server where they found the first
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.server, s.store = srv, kept
	s.starts++
	return nil
}

func (s *Server) serverOptions() (*server.Options, error) {
	o := &server.Options{
		ServerName: "freehold", JetStream: true, StoreDir: s.dir, JetStreamMaxStore: s.opts.MaxStore, JetStreamMaxMemory: 64 << 20,
		MaxPayload: s.opts.MaxPayload, NoSigs: true, DontListen: s.opts.Addr == "",
	}
	if s.opts.Addr == "" {
		return o, nil
	}
	host, port, err := net.SplitHostPort(s.opts.Addr)
	if err == nil {
		o.Host = host
		o.Port, err = strconv.Atoi(port)
	}
	if err != nil {
		return nil, fmt.Errorf("embed: address %q: want host:port: %w", s.opts.Addr, err)
	}
	if o.Port == 0 {
		o.Port = server.RANDOM_PORT
	}
	return o, nil
}

func end(srv *server.Server) {
	srv.Shutdown()
	srv.WaitForShutdown()
}

func (s *Server) current() *server.Server {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.server
}

// InProcessConn connects to the server that runs now.
func (s *Server) InProcessConn() (net.Conn, error) {
	srv := s.current()
	if srv == nil {
		return nil, errDown
	}
	return srv.InProcessConn()
}

// URL is where clients of other processes connect. It is empty without Options.Addr,
// and while the server starts anew.
func (s *Server) URL() string {
	srv := s.current()
	if srv == nil || s.opts.Addr == "" {
		return ""
	}
	return srv.ClientURL()
}

// Starts says how often the server within was started.
func (s *Server) Starts() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.starts
}

// Audit says where the server really keeps its streams and when it syncs them.
func (s *Server) Audit() []string {
	srv := s.current()
	if srv == nil {
		return []string{"broker: starting anew"}
	}
	c := srv.JetStreamConfig()
	if c == nil {
		return []string{"broker: JetStream does not run"}
	}
	return []string{fmt.Sprintf("broker: store %s, at most %d bytes, synced every %v (always: %v): disposable, journals are the record", c.StoreDir, c.MaxStore, c.SyncInterval, c.SyncAlways)}
}

// Close stops the server. Its store stays.
func (s *Server) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.mu.Unlock()
	close(s.stop)
	<-s.stopped
	if srv := s.current(); srv != nil {
		end(srv)
	}
	return s.lock.Close()
}

// mark puts a file into the store by which it can be recognised.
func mark(dir string) (*store, error) {
	path := filepath.Join(dir, "freehold.running")
	if err := os.WriteFile(path, []byte("A server is using this directory. Its contents can be deleted at any time.\n"), 0o600); err != nil {
		return nil, fmt.Errorf("embed: %w", err)
	}
	k := &store{dir: dir, path: path}
	var err error
	if k.info, err = os.Stat(dir); err == nil {
		k.file, err = os.Stat(path)
	}
	if err != nil {
		return nil, fmt.Errorf("embed: %w", err)
	}
	return k, nil
}

// store recognises the directory in which the server was started.
type store struct {
	dir, path  string
	info, file fs.FileInfo
}

// there reports whether the directory is still the one, and not written to by
// somebody else.
func (k *store) there() bool {
	info, err := os.Stat(k.dir)
	if err != nil || !os.SameFile(info, k.info) {
		return false
	}
	file, err := os.Stat(k.path)
	return err == nil && os.SameFile(file, k.file) && file.ModTime().Equal(k.file.ModTime())
}
