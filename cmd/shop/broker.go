package main

import (
	"context"
	"fmt"

	"github.com/freehold-go/freehold/nats/embed"
)

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
