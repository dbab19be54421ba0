package orderd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/aggregate"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/host"
	"github.com/freehold-go/freehold/inbox"
	"github.com/freehold-go/freehold/kv"
	"github.com/freehold-go/freehold/outbox"
	"github.com/freehold-go/freehold/pebble"
	"github.com/freehold-go/freehold/projection"
	"github.com/freehold-go/freehold/saga"
	"github.com/freehold-go/freehold/shop/event"
	"github.com/freehold-go/freehold/shop/order"
	"github.com/freehold-go/freehold/shop/orderdb"
	"github.com/freehold-go/freehold/shop/web"
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
	// Data is the directory of the databases; it is made if it is missing.
	Data string
	// Token guards the operator's endpoints, and is sent to the other services' feeds.
	Token string
	// InventoryFeed and BillingFeed are the URLs of the other services' feeds.
	InventoryFeed, BillingFeed string
	// Publisher and Subscriber are the broker's two ends. nil is pull mode.
	Publisher  transport.Publisher
	Subscriber transport.Subscriber
	// Wait is how long a read waits for its token. 0 is 5 s.
	Wait time.Duration
	// Relaxed commits without waiting for the disk. For tests.
	Relaxed bool
	// Log is where the service writes. nil is slog.Default().
	Log *slog.Logger
}

// Server is the Order service, ready to run.
type Server struct {
	*host.Host
	db       *sqlite.DB
	orders   *aggregate.Repo[order.Order]
	checkout *saga.Process[sqldb.Tx, order.Checkout]
	views    *projection.Projection[kv.Tx]
	sales    *projection.Projection[kv.Tx]
	waits    waits
	services map[string]string
	wait     time.Duration
}

// New opens the databases, binds the address and wires the service. Call Run, or
// Close if it is not to run.
func New(ctx context.Context, cfg Config) (_ *Server, err error) {
	if cfg.Log == nil {
		cfg.Log = slog.Default()
	}
	if cfg.Wait <= 0 {
		cfg.Wait = 5 * time.Second
	}
	s := &Server{wait: cfg.Wait, services: map[string]string{"inventory": base(cfg.InventoryFeed), "billing": base(cfg.BillingFeed)}}
	var opened []io.Closer
	defer func() {
		if err != nil {
			for _, c := range slices.Backward(opened) {
				err = errors.Join(err, c.Close())
			}
			err = fmt.Errorf("order: %w", err)
		}
	}()
	if err := os.MkdirAll(cfg.Data, 0o700); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	types, err := event.OrderTypes()
	if err != nil {
		return nil, err
	}
	s.db, err = sqlite.Open(ctx, filepath.Join(cfg.Data, "order.db"), event.SourceOrder, types, &sqlite.Options{Relaxed: cfg.Relaxed, Log: cfg.Log})
	if err != nil {
		return nil, err
	}
	opened = append(opened, s.db)
	views, err := openViews(ctx, cfg)
	if err != nil {
		return nil, err
	}
	opened = append(opened, views)
	s.Host, err = host.New("order", s.db.Journal(), &host.Options{Addr: cfg.Addr, Listener: cfg.Listener, Token: cfg.Token, Audit: []string{"order.db: " + strings.Join(s.db.Audit(), ", "), "order-views.pebble: " + strings.Join(views.Audit(), ", ")}, Log: cfg.Log})
	if err != nil {
		return nil, err
	}
	s.Own(s.db, views)
	opened = []io.Closer{s.Host} // which closes them
	s.services["order"] = s.URL()
	if err := s.wire(cfg, views); err != nil {
		return nil, err
	}
	return s, nil
}

// openViews opens the database of the read models. It has a journal like all, to
// which nothing is ever written.
func openViews(ctx context.Context, cfg Config) (*pebble.DB, error) {
	none, err := freehold.NewCatalog()
	if err != nil {
		return nil, err
	}
	return pebble.Open(ctx, filepath.Join(cfg.Data, "order-views.pebble"), "order.views", none, &pebble.Options{Disposable: true, Relaxed: cfg.Relaxed, Log: cfg.Log})
}

// wire connects the parts: what is followed, the checkout, the read models, HTTP.
func (s *Server) wire(cfg Config, views *pebble.DB) (err error) {
	own := s.db.Journal()
	inventory, err := remote(event.SourceInventory, cfg.InventoryFeed, event.InventoryTypes, cfg)
	if err != nil {
		return err
	}
	billing, err := remote(event.SourceBilling, cfg.BillingFeed, event.BillingTypes, cfg)
	if err != nil {
		return err
	}
	all := []follow.Source{own, inventory, billing}
	options := follow.Options{Log: cfg.Log}
	s.orders = aggregate.New[order.Order]("order", s.db, nil)
	s.checkout, err = saga.New("checkout", 1, s.db, all, &saga.Options{Options: options}, order.Routes[sqldb.Tx](s.orders)...)
	if err != nil {
		return err
	}
	projected := &projection.Options{Options: options, Wait: cfg.Wait}
	s.views, err = projection.New("orders", 1, views, []follow.Source{own}, projected, func(ns string) []follow.Route[kv.Tx] {
		orders := orderdb.NewOrders(ns)
		orders.Touched = s.waits.touched
		return orders.Routes()
	})
	if err != nil {
		return err
	}
	s.sales, err = projection.New("sales", 1, views, all, projected, func(ns string) []follow.Route[kv.Tx] { return orderdb.NewSales(ns).Routes() })
	if err != nil {
		return err
	}
	s.Go("inventory", inventory)
	s.Go("billing", billing)
	if cfg.Publisher != nil {
		s.Go("relay", outbox.New(s.db.Journal(), cfg.Publisher, &outbox.Options{Log: cfg.Log}))
	}
	s.Go("checkout", s.checkout)
	s.Go("orders", s.views)
	s.Go("sales", s.sales)
	mux := http.NewServeMux()
	s.api(mux)
	s.Handle("/", web.Handler(mux))
	return nil
}

func base(feed string) string { return strings.TrimSuffix(feed, "/feed") }

func remote(name freehold.Source, feed string, types func() (*freehold.Catalog, error), cfg Config) (*inbox.Source, error) {
	c, err := types()
	if err != nil {
		return nil, err
	}
	return inbox.Remote(name, feed, c, &inbox.Options{Subscriber: cfg.Subscriber, Token: cfg.Token, Log: cfg.Log})
}
