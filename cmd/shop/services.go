package main

import (
	"context"
	"fmt"
	"os"
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
	Data      string `help:"Directory of the service's databases." required:"" type:"path"`
	TokenFile string `help:"File with the operator's token, the same for all services. Made if it is missing. Default: operator.token in the data directory." type:"path"`
	NATS      string `name:"nats" help:"URL of a NATS server with JetStream, or several with commas, that carries the events. Without it, and while it is down, services pull each other's feeds." placeholder:"URL" env:"SHOP_NATS"`
}

// connect connects to the broker. Without one it returns nil: pull mode.
func (s service) connect(ctx context.Context) (*nats.Bus, error) {
	if s.NATS == "" {
		return nil, nil
	}
	return nats.Connect(ctx, s.NATS, nil)
}

// ends are the broker's two ends for a service, nil in pull mode.
func ends(bus *nats.Bus, own freehold.Source) (transport.Publisher, transport.Subscriber) {
	if bus == nil {
		return nil, nil
	}
	return bus.Publisher(own), bus.Subscriber()
}

func (s service) token() (string, error) {
	path := s.TokenFile
	if path == "" {
		path = tokenFile(s.Data)
	}
	if err := os.MkdirAll(s.Data, 0o700); err != nil {
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

// announce runs a service that New has made, or tells why it was not made, and
// closes the connection to the broker.
func announce[S runnable](ctx context.Context, name string, bus *nats.Bus, s S, err error) error {
	if bus != nil {
		defer bus.Close()
	}
	if err != nil {
		return err
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
	Addr      string `help:"Where to listen." default:"127.0.0.1:8080"`
	Inventory string `help:"Base URL of the Inventory service." default:"http://127.0.0.1:8081"`
	Billing   string `help:"Base URL of the Billing service." default:"http://127.0.0.1:8082"`
}

func (c *orderCmd) Run(ctx context.Context) error {
	token, err := c.token()
	if err != nil {
		return err
	}
	bus, err := c.connect(ctx)
	if err != nil {
		return err
	}
	publisher, subscriber := ends(bus, event.SourceOrder)
	s, err := orderd.New(ctx, orderd.Config{Addr: c.Addr, Data: c.Data, Token: token, InventoryFeed: feedOf(c.Inventory), BillingFeed: feedOf(c.Billing),
		Publisher: publisher, Subscriber: subscriber})
	return announce(ctx, "order", bus, s, err)
}

type inventoryCmd struct {
	service
	Addr    string `help:"Where to listen." default:"127.0.0.1:8081"`
	Order   string `help:"Base URL of the Order service." default:"http://127.0.0.1:8080"`
	Opening *int64 `help:"Opening stock of products that an order names and nobody has defined."`
}

func (c *inventoryCmd) Run(ctx context.Context) error {
	token, err := c.token()
	if err != nil {
		return err
	}
	bus, err := c.connect(ctx)
	if err != nil {
		return err
	}
	publisher, subscriber := ends(bus, event.SourceInventory)
	s, err := inventoryd.New(ctx, inventoryd.Config{Addr: c.Addr, Data: c.Data, Token: token, OrderFeed: feedOf(c.Order), Opening: c.Opening,
		Publisher: publisher, Subscriber: subscriber})
	return announce(ctx, "inventory", bus, s, err)
}

type billingCmd struct {
	service
	Addr  string `help:"Where to listen." default:"127.0.0.1:8082"`
	Order string `help:"Base URL of the Order service." default:"http://127.0.0.1:8080"`
}

func (c *billingCmd) Run(ctx context.Context) error {
	token, err := c.token()
	if err != nil {
		return err
	}
	bus, err := c.connect(ctx)
	if err != nil {
		return err
	}
	publisher, subscriber := ends(bus, event.SourceBilling)
	s, err := billingd.New(ctx, billingd.Config{Addr: c.Addr, Data: c.Data, Token: token, OrderFeed: feedOf(c.Order),
		Publisher: publisher, Subscriber: subscriber})
	return announce(ctx, "billing", bus, s, err)
}
