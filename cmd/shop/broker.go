package main

import (
	"context"
	"fmt"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/nats"
	"github.com/freehold-go/freehold/nats/embed"
	"github.com/freehold-go/freehold/shop/event"
)

// usersCmd prints the users of a NATS server, for those who run their own.
type usersCmd struct {
	Order     string `help:"Order's password." required:""`
	Inventory string `help:"Inventory's password." required:""`
	Billing   string `help:"Billing's password." required:""`
}

func (u *usersCmd) Run() error {
	fmt.Println("authorization { users: [")
	for _, s := range []struct {
		own      freehold.Source
		password string
		reads    []freehold.Source
	}{
		{event.SourceOrder, u.Order, []freehold.Source{event.SourceInventory, event.SourceBilling}},
		{event.SourceInventory, u.Inventory, []freehold.Source{event.SourceOrder}},
		{event.SourceBilling, u.Billing, []freehold.Source{event.SourceOrder}},
	} {
		fmt.Printf("  { user: %q, password: %q, permissions: %s }\n", s.own, s.password, nats.PermissionsOf(s.own, s.reads...))
	}
	fmt.Println("] }")
	return nil
}

// brokerCmd runs a NATS server, for those who have none.
type brokerCmd struct {
	Data string `help:"Directory of the streams. It is disposable." required:"" type:"path"`
	Addr string `help:"Where to listen. The server asks nobody for a password: leave it on loopback." default:"127.0.0.1:4222"`
}

func (c *brokerCmd) Run(ctx context.Context) error {
	s, err := embed.Start(c.Data, &embed.Options{Addr: c.Addr})
	if err != nil {
		return err
	}
	for _, line := range s.Audit() {
		fmt.Println("  " + line)
	}
	fmt.Printf("broker: ready on %s; Ctrl-C stops it\n", s.URL())
	<-ctx.Done()
	if err := s.Close(); err != nil {
		return err
	}
	fmt.Println("broker: stopped")
	return nil
}
