// Package orderd is the Order service: it takes orders over HTTP, runs their
// checkout, and answers queries from its read models.
package orderd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/aggregate"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/host"
	"github.com/freehold-go/freehold/inbox"
	"github.com/freehold-go/freehold/kv"
	"github.com/freehold-go/freehold/pebble"
	"github.com/freehold-go/freehold/projection"
	"github.com/freehold-go/freehold/saga"
	"github.com/freehold-go/freehold/shop/event"
	"github.com/freehold-go/freehold/shop/order"
	"github.com/freehold-go/freehold/shop/orderdb"
	"github.com/freehold-go/freehold/sqldb"
	"github.com/freehold-go/freehold/sqlite"
	"github.com/freehold-go/freehold/transport"
)

// Config says where the service keeps its data and how it reaches others.
type Config struct {
	// Addr is where to listen. Empty is a free port on loopback.
	Addr string
	// Data is the directory of the databases; it is made if it is missing.
	Data string
	// Token guards the operator's endpoints, and is sent to the other services' feeds.
	Token string
	// InventoryFeed and BillingFeed are the URLs of the other services' feeds.
	InventoryFeed, BillingFeed string
	// Subscriber is the broker's receiving end. nil is pull mode.
	Subscriber transport.Subscriber
	// Wait is how long a read waits for its token. 0 is 5 s.
	Wait time.Duration
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
	s := &Server{wait: cfg.Wait}
	var opened []io.Closer
	defer func() {
		if err != nil {
			for _, c := range opened {
				err = errors.Join(err, c.Close())
			}
			err = fmt.Errorf("order: %w", err)
		}
	}()
	types, err := event.OrderTypes()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.Data, 0o700); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	s.db, err = sqlite.Open(ctx, filepath.Join(cfg.Data, "order.db"), event.SourceOrder, types, &sqlite.Options{Log: cfg.Log})
	if err != nil {
		return nil, err
	}
	opened = append(opened, s.db)
	none, err := freehold.NewCatalog()
	if err != nil {
		return nil, err
	}
	views, err := pebble.Open(ctx, filepath.Join(cfg.Data, "order-views.pebble"), "order.views", none, &pebble.Options{Disposable: true, Log: cfg.Log})
	if err != nil {
		return nil, err
	}
	opened = append([]io.Closer{views}, opened...)
	inventory, err := remote(event.SourceInventory, cfg.InventoryFeed, event.InventoryTypes, cfg)
	if err != nil {
		return nil, err
	}
	billing, err := remote(event.SourceBilling, cfg.BillingFeed, event.BillingTypes, cfg)
	if err != nil {
		return nil, err
	}
	options := follow.Options{Log: cfg.Log}
	own := s.db.Journal()
	s.orders = aggregate.New[order.Order]("order", s.db, nil)
	s.checkout, err = saga.New("checkout", 1, s.db, []follow.Source{own, inventory, billing}, &saga.Options{Options: options}, order.Routes[sqldb.Tx](s.orders)...)
	if err != nil {
		return nil, err
	}
	projected := &projection.Options{Options: options, Wait: cfg.Wait}
	s.views, err = projection.New("orders", 1, views, []follow.Source{own}, projected, func(ns string) []follow.Route[kv.Tx] { return orderdb.NewOrders(ns).Routes() })
	if err != nil {
		return nil, err
	}
	s.sales, err = projection.New("sales", 1, views, []follow.Source{own, inventory, billing}, projected, func(ns string) []follow.Route[kv.Tx] { return orderdb.NewSales(ns).Routes() })
	if err != nil {
		return nil, err
	}
	s.Host, err = host.New("order", own, &host.Options{Addr: cfg.Addr, Token: cfg.Token, Audit: append(s.db.Audit(), views.Audit()...), Log: cfg.Log})
	if err != nil {
		return nil, err
	}
	s.Own(s.db, views)
	s.services = map[string]string{"order": s.URL(), "inventory": base(cfg.InventoryFeed), "billing": base(cfg.BillingFeed)}
	s.Go("inventory", inventory)
	s.Go("billing", billing)
	s.Go("checkout", s.checkout)
	s.Go("orders", s.views)
	s.Go("sales", s.sales)
	mux := http.NewServeMux()
	s.api(mux)
	s.Handle("/", mux)
	return s, nil
}

func base(feed string) string { return strings.TrimSuffix(feed, "/feed") }

func remote(name freehold.Source, feed string, types func() (*freehold.Catalog, error), cfg Config) (*inbox.Source, error) {
	c, err := types()
	if err != nil {
		return nil, err
	}
	return inbox.Remote(name, feed, c, &inbox.Options{Subscriber: cfg.Subscriber, Token: cfg.Token, Log: cfg.Log})
}

// view runs fn on a read model that has what the token asks for. What it asks of
// other services is waited for where their events change Order's journal, and then
// in the read model up to what they led to.
func (s *Server) view(ctx context.Context, p *projection.Projection[kv.Tx], tok freehold.Token, fn func(ctx context.Context, tx kv.Tx, ns string) error) error {
	own := s.db.Journal().Name()
	for _, source := range tok.Sources() {
		if source == own {
			continue
		}
		waitCtx, cancel := context.WithTimeout(ctx, s.wait)
		err := s.checkout.WaitFor(waitCtx, tok)
		cancel()
		if err != nil {
			return err
		}
		_, head, err := s.db.Journal().Bounds(ctx)
		if err != nil {
			return err
		}
		tok = tok.Merge(freehold.NewToken(head))
		break
	}
	return p.View(ctx, tok, fn)
}
