package orderd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/aggregate"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/host"
	"github.com/freehold-go/freehold/inbox"
	"github.com/freehold-go/freehold/kv"
	"github.com/freehold-go/freehold/outbox"
	"github.com/freehold-go/freehold/projection"
	"github.com/freehold-go/freehold/saga"
	"github.com/freehold-go/freehold/shop/database"
	"github.com/freehold-go/freehold/shop/event"
	"github.com/freehold-go/freehold/shop/order"
	"github.com/freehold-go/freehold/shop/orderdb"
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
	// Data is the directory of the databases that have no URL; it is made if it is
	// missing.
	Data string
	// DB and Views are the URLs of the orders' database and of the read models'; see
	// package database. Empty is a file in Data.
	DB, Views string
	// Token guards the operator's endpoints, and is sent to the other services' feeds.
	Token string
	// Inventory and Billing are the base URLs of the other services, with commas
	// between those of several instances.
	Inventory, Billing string
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
	db       database.DB[sqldb.Tx]
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
	s := &Server{wait: cfg.Wait, services: map[string]string{"inventory": cfg.Inventory, "billing": cfg.Billing}}
	var opened []io.Closer
	defer func() {
		if err != nil {
			for _, c := range slices.Backward(opened) {
				err = errors.Join(err, c.Close())
			}
			err = fmt.Errorf("order: %w", err)
		}
	}()
	if cfg.Data == "" && (cfg.DB == "" || cfg.Views == "") {
		return nil, errors.New("no data directory, and no URL of a database: give one of them")
	}
	if cfg.DB == "" {
		cfg.DB = "sqlite:" + filepath.Join(cfg.Data, "order.db")
	}
	if cfg.Views == "" {
		cfg.Views = "pebble:" + filepath.Join(cfg.Data, "order-views.pebble")
	}
	types, err := event.OrderTypes()
	if err != nil {
		return nil, err
	}
	s.db, err = database.OpenSQL(ctx, cfg.DB, event.SourceOrder, types, database.Options{Relaxed: cfg.Relaxed, Log: cfg.Log})
	if err != nil {
		return nil, err
	}
	opened = append(opened, s.db)
	views, err := database.OpenViews(ctx, cfg.Views, "order.views", database.Options{Relaxed: cfg.Relaxed, Log: cfg.Log})
	if err != nil {
		return nil, err
	}
	opened = append(opened, views)
	s.Host, err = host.New("order", s.db.Journal(), &host.Options{Addr: cfg.Addr, Listener: cfg.Listener, Token: cfg.Token, Consumers: web.Consumers(cfg.Inventory, cfg.Billing), Lease: database.Lease(s.db), Audit: []string{database.Line(cfg.DB, s.db), database.Line(cfg.Views, views)}, Log: cfg.Log})
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

// wire connects the parts: what is followed, the checkout, the read models, HTTP.
func (s *Server) wire(cfg Config, views database.Views) (err error) {
	own := s.db.Journal()
	remote := &inbox.Options{Consumer: "order", Subscriber: cfg.Subscriber, Token: cfg.Token, Log: cfg.Log}
	inventory, err := web.Remote(event.SourceInventory, cfg.Inventory, event.InventoryTypes, remote)
	if err != nil {
		return err
	}
	billing, err := web.Remote(event.SourceBilling, cfg.Billing, event.BillingTypes, remote)
	if err != nil {
		return err
	}
	all := []follow.Source{own, inventory, billing}
	options := follow.Options{Log: cfg.Log}
	s.orders = aggregate.New[order.Order]("order", s.db, nil)
	s.checkout, err = saga.New("checkout", 1, s.db, all, &saga.Options{Options: options, Stream: func(id string) freehold.StreamID { return freehold.Stream("order", id) }}, order.Routes[sqldb.Tx](s.orders)...)
	if err != nil {
		return err
	}
	projected := &projection.Options{Options: options, Wait: cfg.Wait}
	orders, err := views.Of("orders")
	if err != nil {
		return err
	}
	s.views, err = projection.New("orders", 1, orders, []follow.Source{own}, projected, func(ns string) []follow.Route[kv.Tx] {
		orders := orderdb.NewOrders(ns)
		orders.Touched = s.waits.touched
		return orders.Routes()
	})
	if err != nil {
		return err
	}
	sales, err := views.Of("sales")
	if err != nil {
		return err
	}
	s.sales, err = projection.New("sales", 1, sales, all, projected, func(ns string) []follow.Route[kv.Tx] { return orderdb.NewSales(ns).Routes() })
	if err != nil {
		return err
	}
	s.GoSingle("inventory", inventory)
	s.GoSingle("billing", billing)
	if cfg.Publisher != nil {
		s.GoSingle("relay", outbox.New(s.db.Journal(), cfg.Publisher, &outbox.Options{Log: cfg.Log}))
	}
	s.GoSingle("checkout", s.checkout)
	s.GoSingle("orders", s.views)
	s.GoSingle("sales", s.sales)
	mux := http.NewServeMux()
	s.api(mux)
	s.Handle("/", web.Handler(mux))
	return nil
}
