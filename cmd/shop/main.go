// Command shop is a complete e-commerce system of three services, Order, Inventory
// and Billing, each with a database of its own: all in one process, or one of
// them. It also loads, replays and audits a shop.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"runtime/pprof"
	"syscall"

	"github.com/alecthomas/kong"
)

type cli struct {
	Config  kong.ConfigFlag `help:"YAML file with settings; flags and environment variables have precedence. See shop config." placeholder:"FILE"`
	Profile string          `help:"Write a CPU profile to this file." type:"path" hidden:""`
	Log     string          `help:"What to log: debug, info, warn or error." default:"warn" enum:"debug,info,warn,error"`

	Serve     serveCmd     `cmd:"" default:"withargs" help:"Run the three services in one process (the default)."`
	Order     orderCmd     `cmd:"" help:"Run the Order service only."`
	Inventory inventoryCmd `cmd:"" help:"Run the Inventory service only."`
	Billing   billingCmd   `cmd:"" help:"Run the Billing service only."`
	Broker    brokerCmd    `cmd:"" help:"Run a NATS server for services in processes of their own."`
	Users     usersCmd     `cmd:"" name:"nats-users" help:"Print users for a NATS server of your own: each service publishes under its own source only."`
	Replay    replayCmd    `cmd:"" help:"Send an Online Retail file through the shop and compare its books."`
	Load      loadCmd      `cmd:"" help:"Place orders as fast as asked, and audit."`
	Settings  configCmd    `cmd:"" name:"config" help:"Print the effective settings."`
	Migrate   migrateCmd   `cmd:"" help:"Make a PostgreSQL database's tables as its owner, and give the service's role its rights."`
	Doctor    doctorCmd    `cmd:"" help:"Check every connection and setting, and say what to change."`
	Verify    verifyCmd    `cmd:"" help:"Audit a shop: exit status 1 names what does not hold."`
}

// errFound is returned when a command has done its work and found something wrong,
// which it has already told.
var errFound = errors.New("found")

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	var c cli
	parser, err := kong.New(&c, kong.Name("shop"), kong.Description("A shop of three services, each owning its database. Everything listens on loopback unless told otherwise."),
		kong.UsageOnError(), kong.Configuration(loadSettings), kong.ConfigureHelp(kong.HelpOptions{Compact: true}))
	if err != nil {
		fmt.Fprintln(os.Stderr, "shop:", err)
		return 2
	}
	command, err := parser.Parse(args)
	if err != nil {
		fmt.Fprintf(os.Stderr, "shop: %v (see shop --help)\n", err)
		return 2
	}
	var level slog.Level
	_ = level.UnmarshalText([]byte(c.Log)) // one of the enum
	slog.SetDefault(slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})))

	if os.Getenv("GOMAXPROCS") == "" {
		// Each database's commit blocks a thread until the disk has it; with as many
		// threads as cores the others wait for it. Measured: a third more checkouts.
		runtime.GOMAXPROCS(2 * runtime.NumCPU())
	}
	if c.Profile != "" {
		f, err := os.Create(c.Profile)
		if err == nil {
			err = pprof.StartCPUProfile(f)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "shop:", err)
			return 1
		}
		defer pprof.StopCPUProfile()
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	go func() {
		<-ctx.Done()
		stop() // a second signal ends the process at once
	}()
	command.BindTo(ctx, (*context.Context)(nil))
	switch err := command.Run(); {
	case err == nil:
		return 0
	case errors.Is(err, errFound):
		return 1
	default:
		fmt.Fprintln(os.Stderr, "shop:", err)
		return 1
	}
}
