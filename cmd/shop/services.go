package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/freehold-go/freehold/host"
	"github.com/freehold-go/freehold/shop/billingd"
	"github.com/freehold-go/freehold/shop/inventoryd"
	"github.com/freehold-go/freehold/shop/orderd"
)

// service is what the commands for one service have in common.
type service struct {
	Data      string `help:"Directory of the service's databases." required:"" type:"path"`
	TokenFile string `help:"File with the operator's token, the same for all services. Made if it is missing. Default: operator.token in the data directory." type:"path"`
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

func announce(ctx context.Context, name string, s runnable) error {
	for _, line := range s.Audit() {
		fmt.Println("  " + line)
	}
	fmt.Printf("%s: ready on %s; Ctrl-C stops it\n", name, s.URL())
	err := s.Run(ctx)
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
	s, err := orderd.New(ctx, orderd.Config{Addr: c.Addr, Data: c.Data, Token: token, InventoryFeed: feedOf(c.Inventory), BillingFeed: feedOf(c.Billing)})
	if err != nil {
		return err
	}
	return announce(ctx, "order", s)
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
	s, err := inventoryd.New(ctx, inventoryd.Config{Addr: c.Addr, Data: c.Data, Token: token, OrderFeed: feedOf(c.Order), Opening: c.Opening})
	if err != nil {
		return err
	}
	return announce(ctx, "inventory", s)
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
	s, err := billingd.New(ctx, billingd.Config{Addr: c.Addr, Data: c.Data, Token: token, OrderFeed: feedOf(c.Order)})
	if err != nil {
		return err
	}
	return announce(ctx, "billing", s)
}
