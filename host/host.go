// Package host is one service process: its HTTP listener, its followers and
// relays, health, metrics, the operator's endpoints, and an orderly end.
//
// # Guarantees
//
// Everything that was started is stopped before the databases are closed, in
// reverse order. Requests, and then runners, have five seconds to end; Run says if one
// did not, and goes on. How long closing takes depends on what is closed. Operator
// endpoints answer only to the token.
//
// # Ordering
//
// At the end the listener closes first, requests under way are finished, then
// followers finish their batch, then what is owned is closed, the last first. At the
// start those who follow the journal are asked whether it went back in time, before
// anything is written.
//
// # Failure
//
// A runner that fails is started again with growing pauses and shows in /readyz
// meanwhile. So does a lease that cannot be asked for; an instance that waits for one
// which another holds is ready. A database that cannot go on ends Run with an error, so
// that the process is started anew.
package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/journal"
	"github.com/freehold-go/freehold/outbox"
)

// Runner is anything long-running: Run returns nil when ctx has ended and its work
// is in order.
type Runner interface {
	Run(ctx context.Context) error
}

// Options tune a host.
type Options struct {
	// Addr is where to listen, such as "127.0.0.1:8080". Empty is a free port on
	// loopback.
	Addr string
	// Listener is used instead of Addr, and closed with the host. A process that must
	// know its address before it opens anything gets one from [Listen].
	Listener net.Listener
	// Token guards the operator's endpoints. Empty closes them.
	Token string
	// Lease decides which of several instances of the service runs what GoSingle was
	// given. nil is for a service of one instance.
	Lease Lease
	// Consumers are the base URLs of the services that follow this one, each with commas
	// between those of several instances. They are asked with Token, before the first
	// command of each start, whether they have seen events that the journal does not have.
	Consumers []string
	// Audit says which durability the service's databases have, a line for each.
	Audit []string
	// Log is where the host writes. nil is slog.Default().
	Log *slog.Logger
}

// Host runs one service.
type Host struct {
	name     string
	journal  *journal.Journal
	opts     Options
	log      *slog.Logger
	listener net.Listener
	mux      *http.ServeMux
	metrics  *metrics
	guard    *guard
	owned    []io.Closer
	runners  []*running

	active   atomic.Int64  // requests under way
	leads    atomic.Bool   // this instance holds the lease
	stopping chan struct{} // closed when the host begins to stop

	mu     sync.Mutex
	failed map[string]error // runners that are down now
}

type running struct {
	name string
	Runner
	single bool // on one instance at a time
}

// follower is a runner that follows sources.
type follower interface {
	Name() string
	Status(ctx context.Context) []follow.Status
	Parked(ctx context.Context, limit int) ([]follow.Parked, error)
	Retry(ctx context.Context, s freehold.Source, key string) error
	Release(ctx context.Context, s freehold.Source, key string) error
	Adopt(ctx context.Context, s freehold.Source) (freehold.Mark, error)
}

// New binds the address and returns a host for the service that owns the journal.
func New(name string, j *journal.Journal, o *Options) (*Host, error) {
	h := &Host{name: name, journal: j, mux: http.NewServeMux(), failed: map[string]error{}, stopping: make(chan struct{})}
	if o != nil {
		h.opts = *o
	}
	if h.log = h.opts.Log; h.log == nil {
		h.log = slog.Default()
	}
	h.log = h.log.With("service", name)
	if h.listener = h.opts.Listener; h.listener == nil {
		var err error
		if h.listener, err = Listen(name, h.opts.Addr); err != nil {
			return nil, err
		}
	}
	h.metrics = newMetrics(h)
	h.guard = newGuard(h)
	h.mux.Handle("GET /healthz", http.HandlerFunc(h.healthz))
	h.mux.Handle("GET /readyz", http.HandlerFunc(h.readyz))
	h.mux.Handle("GET /metrics", h.metrics.handler())
	feed := h.guarded(h.guard.readers(h.untilStop(outbox.Feed(j))))
	h.mux.Handle("GET /feed", feed)
	h.mux.Handle("GET /feed/incarnations", feed)
	h.mux.Handle("GET /feed/forks", feed)
	h.mux.Handle("/feed/consumers", feed)
	h.operatorEndpoints()
	return h, nil
}

// Listen binds the address on which the service name shall listen. An empty one is
// a free port on loopback.
func Listen(name, addr string) (net.Listener, error) {
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("%s: cannot listen on %s: %w: stop what uses the port, or give another address", name, addr, err)
	}
	return l, nil
}

// Addr is the address that the host listens on.
func (h *Host) Addr() string { return h.listener.Addr().String() }

// URL is the service's base URL.
func (h *Host) URL() string { return "http://" + h.Addr() }

// Audit says which durability the service's databases have, a line for each.
func (h *Host) Audit() []string { return h.opts.Audit }

// Journal is the service's journal.
func (h *Host) Journal() *journal.Journal { return h.journal }

// Own closes what it is given when Run ends, the last first.
func (h *Host) Own(closers ...io.Closer) { h.owned = append(h.owned, closers...) }

// Go runs r while the host runs.
func (h *Host) Go(name string, r Runner) {
	h.guard.watch(r)
	h.runners = append(h.runners, &running{name: name, Runner: r})
}

// Handle serves a pattern of net/http. Requests that may change something, which are
// all but GET, HEAD and OPTIONS, are refused while a fork of the journal is open.
func (h *Host) Handle(pattern string, handler http.Handler) {
	h.mux.Handle(pattern, h.metrics.timed(h.guard.commands(handler)))
}

// Gauge shows a number on /metrics, read when it is asked for. The name is new and
// follows the conventions of Prometheus.
func (h *Host) Gauge(name, help string, read func() float64) { h.metrics.gauge(name, help, read) }

// Handler is what the host serves.
func (h *Host) Handler() http.Handler { return h.mux }

// Close releases what a host holds that is never run.
func (h *Host) Close() error {
	var errs []error
	if err := h.listener.Close(); err != nil && !errors.Is(err, net.ErrClosed) { // who has given it may have closed it
		errs = append(errs, err)
	}
	for _, c := range slices.Backward(h.owned) {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// stopWithin bounds each part of an orderly end.
const stopWithin = 5 * time.Second

// Run serves until ctx ends or the service cannot go on, and stops everything.
func (h *Host) Run(ctx context.Context) error {
	run, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stop(nil)
	server := &http.Server{Handler: h.counted(h.mux), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, ErrorLog: slog.NewLogLogger(h.log.Handler(), slog.LevelWarn)}
	requests, endRequests := context.WithCancel(run)
	server.BaseContext = func(net.Listener) context.Context { return requests }
	served := make(chan error, 1)
	h.guard.arm()
	go func() { served <- server.Serve(h.listener) }()
	var all sync.WaitGroup
	all.Go(func() { h.guard.run(run) })
	all.Go(func() {
		// A database that can no longer be used says so to those who wait for news.
		if err := h.journal.Wait(run, freehold.Mark{Position: math.MaxInt64}); errors.Is(err, freehold.ErrLatched) {
			stop(err)
		}
	})
	for _, r := range h.runners {
		if !r.single {
			all.Go(func() { h.keep(run, r, stop) })
		}
	}
	all.Go(func() { h.lead(run, stop) })
	select {
	case <-ctx.Done():
	case <-run.Done():
	case err := <-served:
		stop(fmt.Errorf("listener: %w", err))
	}
	var errs []error
	if cause := context.Cause(run); cause != nil && !errors.Is(cause, context.Canceled) {
		errs = append(errs, cause)
	}
	stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopWithin)
	defer cancel()
	close(h.stopping)
	h.log.Debug("stopping")
	// Shutdown also waits for connections that have never sent a request; what
	// counts is the requests.
	go func() { _ = server.Shutdown(stopCtx) }()
	for h.active.Load() > 0 && stopCtx.Err() == nil {
		time.Sleep(time.Millisecond)
	}
	if n := h.active.Load(); n > 0 {
		errs = append(errs, fmt.Errorf("%d requests did not end in time", n))
	}
	if err := server.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		errs = append(errs, err)
	}
	endRequests()
	stop(nil)
	done := make(chan struct{})
	go func() { all.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(stopWithin):
		errs = append(errs, errors.New("followers did not end in time"))
	}
	for _, c := range slices.Backward(h.owned) {
		errs = append(errs, c.Close())
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("%s: %w", h.name, err)
	}
	return nil
}

// counted counts the requests under way.
func (h *Host) counted(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.active.Add(1)
		defer h.active.Add(-1)
		next.ServeHTTP(w, r)
	})
}

// untilStop ends long polls when the host begins to stop; other requests are
// finished.
func (h *Host) untilStop(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		ended := make(chan struct{})
		defer close(ended)
		go func() {
			select {
			case <-h.stopping:
				cancel()
			case <-ended:
			}
		}()
		next.ServeHTTP(w, r.WithContext(ctx))
	})
}

// keep runs r again and again until run ends. What failed is then no problem of this
// instance any more: another one may run it.
func (h *Host) keep(run context.Context, r *running, stop context.CancelCauseFunc) {
	select {
	case <-h.guard.first: // what followers write is written behind the questions, too
	case <-run.Done():
		return
	}
	defer h.setFailed(r.name, nil)
	pause := 100 * time.Millisecond
	for {
		begun := time.Now()
		err := r.Run(run)
		if run.Err() != nil {
			return
		}
		if errors.Is(err, freehold.ErrLatched) || errors.Is(err, freehold.ErrClosed) {
			stop(fmt.Errorf("%s: %w", r.name, err))
			return
		}
		if err == nil {
			err = errors.New("ended by itself")
		}
		if time.Since(begun) > time.Minute {
			pause = 100 * time.Millisecond
		}
		h.log.Error("runner failed, starts again", "runner", r.name, "in", pause, "error", err)
		h.setFailed(r.name, err)
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-run.Done():
			timer.Stop()
			return
		}
		h.setFailed(r.name, nil)
		pause = min(2*pause, 10*time.Second)
	}
}

func (h *Host) setFailed(name string, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err == nil {
		delete(h.failed, name)
	} else {
		h.failed[name] = err
	}
}

func (h *Host) followers() []follower {
	var all []follower
	for _, r := range h.runners {
		if f, ok := r.Runner.(follower); ok {
			all = append(all, f)
		}
	}
	return all
}
