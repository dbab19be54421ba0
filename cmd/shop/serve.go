package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"golang.org/x/sync/errgroup"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/host"
	"github.com/freehold-go/freehold/nats"
	"github.com/freehold-go/freehold/nats/embed"
	"github.com/freehold-go/freehold/shop/billingd"
	"github.com/freehold-go/freehold/shop/event"
	"github.com/freehold-go/freehold/shop/inventoryd"
	"github.com/freehold-go/freehold/shop/orderd"
	"github.com/freehold-go/freehold/transport"
)

// serveCmd runs the whole shop.
type serveCmd struct {
	Data          string `help:"Directory of the databases." default:"shop-data" type:"path" env:"SHOP_DATA"`
	OrderAddr     string `help:"Where Order listens." default:"127.0.0.1:8080"`
	InventoryAddr string `help:"Where Inventory listens." default:"127.0.0.1:8081"`
	BillingAddr   string `help:"Where Billing listens." default:"127.0.0.1:8082"`
	databases
	NATS    string `name:"nats" help:"URL of a NATS server with JetStream, or several with commas. Default: one in this process." placeholder:"URL" env:"SHOP_NATS"`
	Pull    bool   `help:"Do without the broker: services pull each other's feeds."`
	Opening *int64 `help:"Opening stock of products that an order names and nobody has defined. Without it such orders are rejected."`
}

func (c *serveCmd) Run(ctx context.Context) error {
	fmt.Printf("shop: opening %s\n", c.Data)
	s, err := openShop(ctx, shopConfig{Data: c.Data, Order: c.OrderAddr, Inventory: c.InventoryAddr, Billing: c.BillingAddr, Opening: c.Opening, Pull: c.Pull, databases: c.databases, NATS: c.NATS})
	if err != nil {
		return err
	}
	for _, line := range s.durability() {
		fmt.Println("  " + line)
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.run(ctx) })
	group.Go(func() error {
		err := seed(ctx, s, func(why string) {
			fmt.Fprintf(os.Stderr, "shop: waits until Inventory takes its catalogue (operator's token in %s): %s\n", tokenFile(c.Data), why)
		})
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("seed the catalogue: %w", err)
		}
		fmt.Printf("  Order      %s   (interface: /docs, /openapi.json)\n  Inventory  %s\n  Billing    %s\n  operator's token in %s\nshop: ready; Ctrl-C stops it\n",
			s.urls.Order, s.urls.Inventory, s.urls.Billing, tokenFile(c.Data))
		return nil
	})
	if err := group.Wait(); err != nil {
		return err
	}
	fmt.Println("shop: stopped")
	return nil
}

// urls says where the services of a shop are.
type urls struct {
	Order     string `json:"order"`
	Inventory string `json:"inventory"`
	Billing   string `json:"billing"`
}

// shopConfig is what it takes to run the three services in one process. Empty
// addresses are free ports.
type shopConfig struct {
	Data                      string
	Order, Inventory, Billing string
	databases                 databases
	NATS                      string // URL of a broker; the embedded one if empty
	Opening                   *int64
	Pull                      bool // no broker
}

// shop is the three services in one process.
type shop struct {
	urls      urls
	token     string
	lock      *os.File
	data      string
	broker    *embed.Server
	bus       *nats.Bus
	order     *orderd.Server
	inventory *inventoryd.Server
	billing   *billingd.Server
}

// durability says what the databases and the broker found when they read their
// settings back.
func (s *shop) durability() []string {
	lines := slices.Concat(s.order.Audit(), s.inventory.Audit(), s.billing.Audit())
	if s.broker != nil {
		lines = append(lines, s.broker.Audit()...)
	}
	return lines
}

func tokenFile(data string) string { return filepath.Join(data, "operator.token") }
func urlsFile(data string) string  { return filepath.Join(data, "shop.json") }

// errRunning is returned when another process has the data directory.
var errRunning = errors.New("is open in another shop: stop it first, or give another --data")

// lockData makes the data directory and holds it for this process.
func lockData(data string) (*os.File, error) {
	if err := os.MkdirAll(data, 0o700); err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(data, "shop.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("data directory: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("%s %w", data, errRunning)
	}
	return f, nil
}

// openShop opens the databases and binds the addresses of all three services.
func openShop(ctx context.Context, cfg shopConfig) (_ *shop, err error) {
	s := &shop{data: cfg.Data}
	if s.lock, err = lockData(cfg.Data); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if s.token, err = host.Token(tokenFile(cfg.Data)); err != nil {
		return nil, err
	}
	// Services are told each other's addresses, so all are bound before the first one
	// is opened; and a port that is in use is said before there is a database.
	var at [3]net.Listener
	for i, service := range []struct{ name, addr string }{{"order", cfg.Order}, {"inventory", cfg.Inventory}, {"billing", cfg.Billing}} {
		if at[i], err = host.Listen(service.name, service.addr); err != nil {
			return nil, err
		}
		defer func() {
			if err != nil {
				_ = at[i].Close() // the service that has it may have closed it
			}
		}()
	}
	var publish func(freehold.Source) transport.Publisher
	var subscriber transport.Subscriber
	if publish = func(freehold.Source) transport.Publisher { return nil }; !cfg.Pull && cfg.NATS != pull {
		at := &nats.Options{}
		if cfg.NATS == "" {
			if s.broker, err = embed.Start(filepath.Join(cfg.Data, "jetstream"), nil); err != nil {
				return nil, err
			}
			at.Server, at.Pages = s.broker, true // no one reads there but the shop
		}
		if s.bus, err = nats.Connect(ctx, cfg.NATS, at); err != nil {
			return nil, err
		}
		publish, subscriber = s.bus.Publisher, s.bus.Subscriber()
	}
	url := func(i int) string { return "http://" + at[i].Addr().String() }
	log := slog.Default()
	s.order, err = orderd.New(ctx, orderd.Config{Listener: at[0], Data: cfg.Data, DB: cfg.databases.OrderDB, Views: cfg.databases.OrderViews, Token: s.token, Inventory: url(1), Billing: url(2),
		Publisher: publish(event.SourceOrder), Subscriber: subscriber, Log: log})
	if err != nil {
		return nil, err
	}
	s.inventory, err = inventoryd.New(ctx, inventoryd.Config{Listener: at[1], Data: cfg.Data, DB: cfg.databases.InventoryDB, Token: s.token, Order: url(0), Opening: cfg.Opening,
		Publisher: publish(event.SourceInventory), Subscriber: subscriber, Log: log})
	if err != nil {
		return nil, err
	}
	s.billing, err = billingd.New(ctx, billingd.Config{Listener: at[2], Data: cfg.Data, DB: cfg.databases.BillingDB, Token: s.token, Order: url(0),
		Publisher: publish(event.SourceBilling), Subscriber: subscriber, Log: log})
	if err != nil {
		return nil, err
	}
	s.urls = urls{s.order.URL(), s.inventory.URL(), s.billing.URL()}
	raw, err := json.Marshal(s.urls)
	if err != nil {
		return nil, err
	}
	return s, os.WriteFile(urlsFile(cfg.Data), append(raw, '\n'), 0o600)
}

// run serves until ctx ends. One service that cannot go on ends the others.
func (s *shop) run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.order.Run(ctx) })
	group.Go(func() error { return s.inventory.Run(ctx) })
	group.Go(func() error { return s.billing.Run(ctx) })
	err := group.Wait()
	s.order, s.inventory, s.billing = nil, nil, nil
	return errors.Join(err, s.close())
}

// close releases a shop that is not run.
func (s *shop) close() error {
	var errs []error
	if s.order != nil {
		errs = append(errs, s.order.Close())
	}
	if s.inventory != nil {
		errs = append(errs, s.inventory.Close())
	}
	if s.billing != nil {
		errs = append(errs, s.billing.Close())
	}
	if s.bus != nil {
		errs = append(errs, s.bus.Close())
	}
	if s.broker != nil {
		errs = append(errs, s.broker.Close())
	}
	if err := os.Remove(urlsFile(s.data)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		errs = append(errs, err)
	}
	return errors.Join(append(errs, s.lock.Close())...)
}
