// Package inventoryd is the Inventory service: products, stock and reservations
// over HTTP, and the follower that answers orders.
package inventoryd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/cache"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/host"
	"github.com/freehold-go/freehold/inbox"
	"github.com/freehold-go/freehold/kv"
	"github.com/freehold-go/freehold/outbox"
	"github.com/freehold-go/freehold/redis"
	"github.com/freehold-go/freehold/shop/database"
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
	// Data is the directory of the database if it has no URL; it is made if it is
	// missing.
	Data string
	// DB is the URL of the database; see package database. Empty is a directory in
	// Data.
	DB string
	// Cache is the URL of a Redis server by which instances share what they have read
	// of products: redis://user:password@host:port/prefix. Empty is none.
	Cache string
	// Token guards the operator's endpoints, and is sent to the other services' feeds.
	Token string
	// Order is the base URL of the Order service, or several with commas, of its
	// instances.
	Order string
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
	db     database.DB[kv.Tx]
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
	orders, err := web.Remote(event.SourceOrder, cfg.Order, event.OrderTypes, &inbox.Options{Consumer: "inventory", Subscriber: cfg.Subscriber, Token: cfg.Token, Log: cfg.Log})
	if err != nil {
		return nil, fmt.Errorf("inventory: %w", err)
	}
	if cfg.Data == "" && cfg.DB == "" {
		return nil, errors.New("inventory: no data directory, and no URL of a database: give one of them")
	}
	if cfg.DB == "" {
		cfg.DB = "pebble:" + filepath.Join(cfg.Data, "inventory.pebble")
	}
	if s.db, err = database.OpenKV(ctx, cfg.DB, event.SourceInventory, types, database.Options{Relaxed: cfg.Relaxed, Warn: time.Second, Log: cfg.Log}); err != nil {
		return nil, fmt.Errorf("inventory: %w", err)
	}
	owned, audit := []io.Closer{s.db}, []string{database.Line(cfg.DB, s.db)}
	var second *redis.Cache
	if cfg.Cache != "" {
		if second, err = redis.OpenCache(cfg.Cache, sharedName, &redis.CacheOptions{Log: cfg.Log}); err != nil {
			_ = s.db.Close() // err says what went wrong
			return nil, fmt.Errorf("inventory: %w", err)
		}
		owned, audit = append(owned, second), append(audit, "shared cache "+database.Line(cfg.Cache, second))
	}
	s.Host, err = host.New("inventory", s.db.Journal(), &host.Options{Addr: cfg.Addr, Listener: cfg.Listener, Token: cfg.Token, Consumers: web.Consumers(cfg.Order), Lease: database.Lease(s.db), Audit: audit, Log: cfg.Log})
	if err != nil {
		for _, c := range owned {
			_ = c.Close() // err says what went wrong
		}
		return nil, err
	}
	s.Own(owned...)
	database.Gauges(s.Host, s.db)
	// Who comes first decides who gets the last item: one transaction at a time.
	s.orders, err = follow.New("reservations", s.db, []follow.Source{orders}, &follow.Options{Log: cfg.Log}, s.store.Routes()...)
	if err != nil {
		_ = s.Close()
		return nil, fmt.Errorf("inventory: %w", err)
	}
	s.GoSingle("orders", orders)
	if cfg.Publisher != nil {
		s.GoSingle("relay", outbox.New(s.db.Journal(), cfg.Publisher, &outbox.Options{Log: cfg.Log}))
	}
	s.GoSingle("reservations", s.orders)
	s.cacheProducts(second)
	mux := http.NewServeMux()
	s.api(mux)
	s.Handle("/", web.Handler(mux))
	s.HandleOperator("PUT /operator/opening", http.HandlerFunc(s.setOpening))
	return s, nil
}

// await returns when the database has what the token asks for.
func (s *Server) await(ctx context.Context, tok freehold.Token) error {
	ctx, cancel := context.WithTimeout(ctx, s.wait)
	defer cancel()
	if err := s.orders.WaitFor(ctx, tok); err != nil {
		return err
	}
	return web.Holds(ctx, s.db.Journal(), tok)
}

// setOpening stores the opening stock of products that nobody has defined: a number,
// negative for none.
func (s *Server) setOpening(w http.ResponseWriter, r *http.Request) {
	raw, err := io.ReadAll(io.LimitReader(r.Body, 100))
	quantity, parseErr := strconv.ParseInt(strings.TrimSpace(string(raw)), 10, 64)
	if err = errors.Join(err, parseErr); err != nil {
		http.Error(w, "want a number", http.StatusUnprocessableEntity)
		return
	}
	_, err = s.db.Update(r.Context(), func(ctx context.Context, tx kv.Tx) error { return inventorydb.SetOpening(ctx, tx, quantity) })
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
	}
}
