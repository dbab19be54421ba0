package billingd

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/host"
	"github.com/freehold-go/freehold/inbox"
	"github.com/freehold-go/freehold/intent"
	"github.com/freehold-go/freehold/internal/fault"
	"github.com/freehold-go/freehold/outbox"
	"github.com/freehold-go/freehold/shop/billing"
	"github.com/freehold-go/freehold/shop/billingdb"
	"github.com/freehold-go/freehold/shop/event"
	"github.com/freehold-go/freehold/sqldb"
	"github.com/freehold-go/freehold/sqlite"
	"github.com/freehold-go/freehold/transport"
)

// Config says where the service keeps its data and how it reaches others.
type Config struct {
	// Addr is where to listen. Empty is a free port on loopback.
	Addr string
	// Listener is used instead of Addr, and closed with the server once New has
	// succeeded.
	Listener net.Listener
	// Data is the directory of the database; it is made if it is missing.
	Data string
	// Token guards the operator's endpoints, and is sent to the other services' feeds.
	Token string
	// OrderFeed is the URL of the Order service's feed.
	OrderFeed string
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
	db       *sqlite.DB
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
	if err := os.MkdirAll(cfg.Data, 0o700); err != nil {
		return nil, fmt.Errorf("billing: data directory: %w", err)
	}
	s.db, err = sqlite.Open(ctx, filepath.Join(cfg.Data, "billing.db"), event.SourceBilling, types, &sqlite.Options{
		Migrations: billingdb.Schema(billingdb.SQLite), Relaxed: cfg.Relaxed, Warn: time.Second, Log: cfg.Log,
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
	s.host, err = host.New("billing", s.db.Journal(), &host.Options{Addr: cfg.Addr, Listener: cfg.Listener, Token: cfg.Token, Audit: []string{"billing.db: " + strings.Join(s.db.Audit(), ", ")}, Log: cfg.Log})
	if err != nil {
		return err
	}
	s.host.Own(s.db)

	orderTypes, err := event.OrderTypes()
	if err != nil {
		return err
	}
	orders, err := inbox.Remote(event.SourceOrder, cfg.OrderFeed, orderTypes, &inbox.Options{Subscriber: cfg.Subscriber, Token: cfg.Token, Log: cfg.Log})
	if err != nil {
		return err
	}
	s.orders, err = follow.New("payments", s.db, []follow.Source{orders}, &follow.Options{Log: cfg.Log}, s.store.Routes()...)
	if err != nil {
		return err
	}
	calls, err := intent.New("provider", s.db, s.db.Journal(), &intent.Options{Pool: cfg.Calls, Log: cfg.Log}, s.call, s.record)
	if err != nil {
		return err
	}
	s.host.Go("orders", orders)
	if cfg.Publisher != nil {
		s.host.Go("relay", outbox.New(s.db.Journal(), cfg.Publisher, &outbox.Options{Log: cfg.Log}))
	}
	s.host.Go("payments", s.orders)
	s.host.Go("provider", calls)
	s.host.Go("expiry", &expiry{db: s.db, store: s.store, log: cfg.Log})

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

// record stores what the provider answered.
func (s *Server) record(ctx context.Context, tx sqldb.Tx, e event.CallRequested, _ freehold.Recorded, o billing.Outcome) error {
	return s.store.Answered(ctx, tx, e, o)
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
