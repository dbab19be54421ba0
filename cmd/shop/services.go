package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/host"
	"github.com/freehold-go/freehold/nats"
	"github.com/freehold-go/freehold/shop/billingd"
	"github.com/freehold-go/freehold/shop/event"
	"github.com/freehold-go/freehold/shop/inventoryd"
	"github.com/freehold-go/freehold/shop/orderd"
	"github.com/freehold-go/freehold/transport"
)

// service is what the commands for one service have in common.
type service struct {
	Data      string `help:"Directory of the service's databases, if it has no --db, and of the token." type:"path"`
	TokenFile string `help:"File with the operator's token, the same for all services. Made if it is missing. Default: operator.token in the data directory." type:"path"`
	NATS      string `name:"nats" help:"URL of a NATS server with JetStream, or several with commas, that carries the events. Without it, and while it is down, services pull each other's feeds." placeholder:"URL" env:"SHOP_NATS"`
}

// connect connects to the broker. Without one it returns nil: pull mode.
func (s service) connect(ctx context.Context, own freehold.Source) (*nats.Bus, error) {
	if s.NATS == "" || s.NATS == pull {
		return nil, nil
	}
	return nats.Connect(ctx, s.NATS, &nats.Options{Service: own})
}

// pull is the URL of no broker.
const pull = "pull:"

// ends are the broker's two ends for a service, nil in pull mode.
func ends(bus *nats.Bus, own freehold.Source) (transport.Publisher, transport.Subscriber) {
	if bus == nil {
		return nil, nil
	}
	return bus.Publisher(own), bus.Subscriber()
}

// databases are the databases of a whole shop in one process.
type databases struct {
	OrderDB     string `help:"URL of Order's database; see shop order --help." placeholder:"URL" env:"SHOP_ORDER_DB"`
	OrderViews  string `help:"URL of Order's read models." placeholder:"URL" env:"SHOP_ORDER_VIEWS"`
	InventoryDB string `help:"URL of Inventory's database; see shop inventory --help." placeholder:"URL" env:"SHOP_INVENTORY_DB"`
	BillingDB   string `help:"URL of Billing's database; see shop billing --help." placeholder:"URL" env:"SHOP_BILLING_DB"`
}

func (s service) token() (string, error) {
	path := s.TokenFile
	if path == "" && s.Data == "" {
		return "", errors.New("give the --data directory of the service, or the --token-file and the URLs of its databases")
	}
	if path == "" {
		path = tokenFile(s.Data)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return "", fmt.Errorf("data directory: %w", err)
	}
	return host.Token(path)
}

func feedOf(url string) string { return strings.TrimSuffix(url, "/") + "/feed" }

type runnable interface {
	Run(context.Context) error
	URL() string
	Audit() []string
}

// garbage is how much more than what it uses a service of its own lets accumulate before
// it collects, in percent. It uses little, so that with Go's 100 it would collect several
// times a second.
const garbage = 300

// announce runs a service that New has made, or tells why it was not made, and
// closes the connection to the broker.
func announce[S runnable](ctx context.Context, name string, bus *nats.Bus, s S, err error) error {
	if bus != nil {
		defer bus.Close()
	}
	if err != nil {
		return err
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(garbage)
	}
	for _, line := range s.Audit() {
		fmt.Println("  " + line)
	}
	fmt.Printf("%s: ready on %s; Ctrl-C stops it\n", name, s.URL())
	err = s.Run(ctx)
	if err == nil {
		fmt.Printf("%s: stopped\n", name)
	}
	return err
}

type orderCmd struct {
	service
	DB        string `help:"URL of the orders' database: sqlite:PATH or postgres://user:password@host:port/name. Default: order.db in the data directory." placeholder:"URL" env:"SHOP_ORDER_DB"`
	Views     string `help:"URL of the read models' database: pebble:PATH or redis://user:password@host:port/prefix. Default: order-views.pebble in the data directory." placeholder:"URL" env:"SHOP_ORDER_VIEWS"`
	Addr      string `help:"Where to listen." default:"127.0.0.1:8080"`
	Inventory string `help:"Base URL of the Inventory service." default:"http://127.0.0.1:8081"`
	Billing   string `help:"Base URL of the Billing service." default:"http://127.0.0.1:8082"`
}

func (c *orderCmd) Run(ctx context.Context) error {
	token, err := c.token()
	if err != nil {
		return err
	}
	bus, err := c.connect(ctx, event.SourceOrder)
	if err != nil {
		return err
	}
	publisher, subscriber := ends(bus, event.SourceOrder)
	s, err := orderd.New(ctx, orderd.Config{Addr: c.Addr, Data: c.Data, DB: c.DB, Views: c.Views, Token: token, Inventory: c.Inventory, Billing: c.Billing,
		Publisher: publisher, Subscriber: subscriber})
	return announce(ctx, "order", bus, s, err)
}

type inventoryCmd struct {
	service
	DB      string `help:"URL of the database: pebble:PATH or etcd://host:2379/prefix. Default: inventory.pebble in the data directory." placeholder:"URL" env:"SHOP_INVENTORY_DB"`
	Cache   string `help:"URL of a Redis server by which instances share product reads: redis://user:password@host:port/prefix. Default: none." placeholder:"URL" env:"SHOP_INVENTORY_CACHE"`
	Addr    string `help:"Where to listen." default:"127.0.0.1:8081"`
	Order   string `help:"Base URL of the Order service." default:"http://127.0.0.1:8080"`
	Opening *int64 `help:"Opening stock of products that an order names and nobody has defined."`
}

func (c *inventoryCmd) Run(ctx context.Context) error {
	token, err := c.token()
	if err != nil {
		return err
	}
	bus, err := c.connect(ctx, event.SourceInventory)
	if err != nil {
		return err
	}
	publisher, subscriber := ends(bus, event.SourceInventory)
	s, err := inventoryd.New(ctx, inventoryd.Config{Addr: c.Addr, Data: c.Data, DB: c.DB, Cache: c.Cache, Token: token, Order: c.Order, Opening: c.Opening,
		Publisher: publisher, Subscriber: subscriber})
	return announce(ctx, "inventory", bus, s, err)
}

type billingCmd struct {
	service
	DB    string `help:"URL of the database: sqlite:PATH or postgres://user:password@host:port/name. Default: billing.db in the data directory." placeholder:"URL" env:"SHOP_BILLING_DB"`
	Addr  string `help:"Where to listen." default:"127.0.0.1:8082"`
	Order string `help:"Base URL of the Order service." default:"http://127.0.0.1:8080"`
}

func (c *billingCmd) Run(ctx context.Context) error {
	token, err := c.token()
	if err != nil {
		return err
	}
	bus, err := c.connect(ctx, event.SourceBilling)
	if err != nil {
		return err
	}
	publisher, subscriber := ends(bus, event.SourceBilling)
	s, err := billingd.New(ctx, billingd.Config{Addr: c.Addr, Data: c.Data, DB: c.DB, Token: token, Order: c.Order,
		Publisher: publisher, Subscriber: subscriber})
	return announce(ctx, "billing", bus, s, err)
}
