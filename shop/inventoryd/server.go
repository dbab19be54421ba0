// Package inventoryd is the Inventory service: products, stock and reservations
// over HTTP, and the follower that answers orders.
package inventoryd

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
	"github.com/freehold-go/freehold/cache"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/host"
	"github.com/freehold-go/freehold/inbox"
	"github.com/freehold-go/freehold/outbox"
	"github.com/freehold-go/freehold/pebble"
	"github.com/freehold-go/freehold/shop/event"
	"github.com/freehold-go/freehold/shop/inventorydb"
	"github.com/freehold-go/freehold/shop/web"
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
	// Opening is the stock with which an unknown product begins when an order names
	// it. nil refuses unknown products.
	Opening *int64
	// Wait is how long a read waits for its token. 0 is 5 s.
	Wait time.Duration
	// Relaxed commits without waiting for the disk. For tests.
	Relaxed bool
	// Log is where the service writes. nil is slog.Default().
	Log *slog.Logger
}

// Server is the Inventory service, ready to run.
type Server struct {
	*host.Host
	db     *pebble.DB
	store  *inventorydb.Store
	orders *follow.Follower
	wait   time.Duration

	products *cache.Cache[string, found]
}

// New opens the database, binds the address and wires the service. Call Run, or
// Close if it is not to run.
func New(ctx context.Context, cfg Config) (*Server, error) {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	s := &Server{store: &inventorydb.Store{Opening: -1}, wait: cfg.Wait}
	if cfg.Opening != nil {
		s.store.Opening = *cfg.Opening
	}
	if s.wait <= 0 {
		s.wait = 5 * time.Second
	}
	types, err := event.InventoryTypes()
	if err != nil {
		return nil, err
	}
	orderTypes, err := event.OrderTypes()
	if err != nil {
		return nil, err
	}
	orders, err := inbox.Remote(event.SourceOrder, cfg.OrderFeed, orderTypes, &inbox.Options{Subscriber: cfg.Subscriber, Token: cfg.Token, Log: cfg.Log})
	if err != nil {
		return nil, fmt.Errorf("inventory: %w", err)
	}
	if err := os.MkdirAll(cfg.Data, 0o700); err != nil {
		return nil, fmt.Errorf("inventory: data directory: %w", err)
	}
	if s.db, err = pebble.Open(ctx, filepath.Join(cfg.Data, "inventory.pebble"), event.SourceInventory, types, &pebble.Options{Relaxed: cfg.Relaxed, Warn: time.Second, Log: cfg.Log}); err != nil {
		return nil, fmt.Errorf("inventory: %w", err)
	}
	s.Host, err = host.New("inventory", s.db.Journal(), &host.Options{Addr: cfg.Addr, Listener: cfg.Listener, Token: cfg.Token, Audit: []string{"inventory.pebble: " + strings.Join(s.db.Audit(), ", ")}, Log: cfg.Log})
	if err != nil {
		_ = s.db.Close() // err says what went wrong
		return nil, err
	}
	s.Own(s.db)
	// Who comes first decides who gets the last item: one transaction at a time.
	s.orders, err = follow.New("reservations", s.db, []follow.Source{orders}, &follow.Options{Log: cfg.Log}, s.store.Routes()...)
	if err != nil {
		_ = s.Close()
		return nil, fmt.Errorf("inventory: %w", err)
	}
	s.Go("orders", orders)
	if cfg.Publisher != nil {
		s.Go("relay", outbox.New(s.db.Journal(), cfg.Publisher, &outbox.Options{Log: cfg.Log}))
	}
	s.Go("reservations", s.orders)
	s.products = s.productCache()
	s.watchProducts()
	mux := http.NewServeMux()
	s.api(mux)
	s.Handle("/", web.Handler(mux))
	return s, nil
}

// await returns when the database has what the token asks for.
func (s *Server) await(ctx context.Context, tok freehold.Token) error {
	ctx, cancel := context.WithTimeout(ctx, s.wait)
	defer cancel()
	if err := s.orders.WaitFor(ctx, tok); err != nil {
		return err
	}
	own := s.db.Journal()
	for _, want := range tok.Of(own.Name()) {
		_, head, err := own.Bounds(ctx)
		switch {
		case err != nil:
			return err
		case want.Epoch != head.Epoch:
			return fmt.Errorf("%s is at epoch %s: %w", own.Name(), head.Epoch, freehold.ErrHistoryLost)
		case want.Position > head.Position:
			return fmt.Errorf("%s is at %d, the token asks for %d: %w", own.Name(), head.Position, want.Position, freehold.ErrBehind)
		}
	}
	return nil
}
