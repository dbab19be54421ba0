package billingd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"time"

	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/host"
	"github.com/freehold-go/freehold/inbox"
	"github.com/freehold-go/freehold/intent"
	"github.com/freehold-go/freehold/internal/fault"
	"github.com/freehold-go/freehold/outbox"
	"github.com/freehold-go/freehold/shop/billing"
	"github.com/freehold-go/freehold/shop/billingdb"
	"github.com/freehold-go/freehold/shop/database"
	"github.com/freehold-go/freehold/shop/event"
	"github.com/freehold-go/freehold/shop/web"
	"github.com/freehold-go/freehold/sqldb"
	"github.com/freehold-go/freehold/transport"
)

// Config says where the service keeps its data and how it reaches others.
type Config struct {
	// Addr is where to listen. Empty is a free port on loopback.
	Addr string
	// Listener is used instead of Addr, and closed with the server once New has
	// succeeded.
	Listener net.Listener
	// Data is the directory of the database if it has no URL; it is made if it is
	// missing.
	Data string
	// DB is the URL of the database; see package database. Empty is a file in Data.
	DB string
	// Token guards the operator's endpoints, and is sent to the other services' feeds.
	Token string
	// Order is the base URL of the Order service, or several with commas, of its
	// instances.
	Order string
	// Publisher and Subscriber are the broker's two ends. nil is pull mode.
	Publisher  transport.Publisher
	Subscriber transport.Subscriber
	// Provider is the payment gateway. nil is the simulated one, tuned by Simulated.
	Provider  billing.Provider
	Simulated *billing.SimulatedOptions
	// Calls is how many calls to the provider run at the same time. 0 is 64.
	Calls int
	// CallTimeout is how long to wait for the provider's answer; behind it the outcome
	// is unknown and is asked for. 0 is 10 s.
	CallTimeout time.Duration
	// HoldFor is how long the provider keeps an authorisation. 0 is 7 days.
	HoldFor time.Duration
	// Wait is how long a read waits for its token. 0 is 5 s.
	Wait time.Duration
	// Relaxed commits without waiting for the disk. For tests.
	Relaxed bool
	// Log is where the service writes. nil is slog.Default().
	Log *slog.Logger
}

// Server is the Billing service, ready to run.
type Server struct {
	db       database.DB[sqldb.Tx]
	store    *billingdb.Store
	orders   *follow.Follower
	provider billing.Provider
	timeout  time.Duration
	wait     time.Duration
	host     *host.Host
}

// New opens the database, binds the address and wires the service. Call Run, or
// Close if it is not to run.
func New(ctx context.Context, cfg Config) (_ *Server, err error) {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	s := &Server{store: billingdb.NewStore(cfg.HoldFor), provider: cfg.Provider, timeout: cfg.CallTimeout, wait: cfg.Wait}
	if s.provider == nil {
		s.provider = billing.NewSimulated(cfg.Simulated)
	}
	if s.timeout <= 0 {
		s.timeout = 10 * time.Second
	}
	if s.wait <= 0 {
		s.wait = defaultWait
	}
	types, err := event.BillingTypes()
	if err != nil {
		return nil, err
	}
	if cfg.Data == "" && cfg.DB == "" {
		return nil, errors.New("billing: no data directory, and no URL of a database: give one of them")
	}
	if cfg.DB == "" {
		cfg.DB = "sqlite:" + filepath.Join(cfg.Data, "billing.db")
	}
	s.db, err = database.OpenSQL(ctx, cfg.DB, event.SourceBilling, types, database.Options{
		Migrations: billingdb.Schema, Relaxed: cfg.Relaxed, Warn: time.Second, Log: cfg.Log,
	})
	if err != nil {
		return nil, fmt.Errorf("billing: %w", err)
	}
	if err := s.wire(cfg); err != nil {
		if s.host != nil {
			_ = s.host.Close() // err says what went wrong
		} else {
			_ = s.db.Close()
		}
		return nil, fmt.Errorf("billing: %w", err)
	}
	return s, nil
}

// wire connects the parts, from top to bottom: listener, what is followed, calls to
// the provider, deadlines, broker, HTTP.
func (s *Server) wire(cfg Config) (err error) {
	s.host, err = host.New("billing", s.db.Journal(), &host.Options{Addr: cfg.Addr, Listener: cfg.Listener, Token: cfg.Token, Consumers: web.Consumers(cfg.Order), Lease: database.Lease(s.db), Audit: []string{database.Line(cfg.DB, s.db)}, Log: cfg.Log})
	if err != nil {
		return err
	}
	s.host.Own(s.db)

	orders, err := web.Remote(event.SourceOrder, cfg.Order, event.OrderTypes, &inbox.Options{Consumer: "billing", Subscriber: cfg.Subscriber, Token: cfg.Token, Log: cfg.Log})
	if err != nil {
		return err
	}
	s.orders, err = follow.New("payments", s.db, []follow.Source{orders}, &follow.Options{Log: cfg.Log, Warm: billingdb.Hints}, s.store.Routes()...)
	if err != nil {
		return err
	}
	calls, err := intent.New("provider", s.db, s.db.Journal(), &intent.Options{Pool: cfg.Calls, Log: cfg.Log, Warm: billingdb.Hints}, s.call, s.store.Answered)
	if err != nil {
		return err
	}
	s.host.GoSingle("orders", orders)
	if cfg.Publisher != nil {
		s.host.GoSingle("relay", outbox.New(s.db.Journal(), cfg.Publisher, &outbox.Options{Log: cfg.Log}))
	}
	s.host.GoSingle("payments", s.orders)
	s.host.GoSingle("provider", calls)
	s.host.GoSingle("expiry", &expiry{db: s.db, store: s.store, log: cfg.Log})

	mux := http.NewServeMux()
	s.register(mux)
	s.host.Handle("/", mux)
	return nil
}

// call makes one call to the provider, outside any transaction.
func (s *Server) call(ctx context.Context, _ string, e event.CallRequested, attempt int) (billing.Outcome, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	fault.Point("billing.call.before")
	o, err := billing.Perform(ctx, s.provider, e, attempt+1)
	fault.Point("billing.call.after")
	return o, err
}

// Run serves until ctx ends, and closes everything.
func (s *Server) Run(ctx context.Context) error { return s.host.Run(ctx) }

// Close releases a server that is not run.
func (s *Server) Close() error { return s.host.Close() }

// Addr is the address that the server listens on.
func (s *Server) Addr() string { return s.host.Addr() }

// URL is the server's base URL.
func (s *Server) URL() string { return s.host.URL() }

// Audit says which durability the database has.
func (s *Server) Audit() []string { return s.host.Audit() }

// Handler is what the server serves.
func (s *Server) Handler() http.Handler { return s.host.Handler() }
