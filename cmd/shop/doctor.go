package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/nats"
	"github.com/freehold-go/freehold/shop/database"
	"github.com/freehold-go/freehold/shop/event"
	"github.com/freehold-go/freehold/shop/web"
)

// effective are all settings, as a command would have them.
type effective struct {
	Data           string `help:"Directory of databases that have no URL." type:"path" env:"SHOP_DATA"`
	TokenFile      string `help:"File with the operator's token." type:"path" placeholder:"FILE"`
	NATS           string `name:"nats" help:"URL of NATS servers, or pull:." placeholder:"URL" env:"SHOP_NATS"`
	Opening        string `help:"Opening stock of products that nobody has defined." placeholder:"N"`
	OrderDB        string `name:"order-db" help:"URL of Order's database." placeholder:"URL" env:"SHOP_ORDER_DB"`
	OrderViews     string `help:"URL of Order's read models." placeholder:"URL" env:"SHOP_ORDER_VIEWS"`
	OrderNATS      string `name:"order-nats" help:"URL of NATS servers with Order's user." placeholder:"URL"`
	InventoryNATS  string `name:"inventory-nats" help:"URL of NATS servers with Inventory's user." placeholder:"URL"`
	BillingNATS    string `name:"billing-nats" help:"URL of NATS servers with Billing's user." placeholder:"URL"`
	OrderAddr      string `help:"Where Order listens." default:"127.0.0.1:8080"`
	OrderURL       string `name:"order-url" help:"Base URLs of Order's instances." placeholder:"URL"`
	InventoryDB    string `name:"inventory-db" help:"URL of Inventory's database." placeholder:"URL" env:"SHOP_INVENTORY_DB"`
	InventoryCache string `help:"URL of a cache that Inventory's instances share." placeholder:"URL" env:"SHOP_INVENTORY_CACHE"`
	InventoryAddr  string `help:"Where Inventory listens." default:"127.0.0.1:8081"`
	InventoryURL   string `name:"inventory-url" help:"Base URLs of Inventory's instances." placeholder:"URL"`
	BillingDB      string `name:"billing-db" help:"URL of Billing's database." placeholder:"URL" env:"SHOP_BILLING_DB"`
	BillingAddr    string `help:"Where Billing listens." default:"127.0.0.1:8082"`
	BillingURL     string `name:"billing-url" help:"Base URLs of Billing's instances." placeholder:"URL"`
	JSON           bool   `help:"Print JSON."`
}

// values are the settings by their names in a configuration file.
func (e effective) values() map[string]string {
	return map[string]string{
		"data": e.Data, "token-file": e.TokenFile, "nats": e.NATS, "opening": e.Opening,
		"order.db": e.OrderDB, "order.views": e.OrderViews, "order.nats": e.OrderNATS, "inventory.nats": e.InventoryNATS, "billing.nats": e.BillingNATS, "order.addr": e.OrderAddr, "order.url": e.OrderURL,
		"inventory.db": e.InventoryDB, "inventory.cache": e.InventoryCache, "inventory.addr": e.InventoryAddr, "inventory.url": e.InventoryURL,
		"billing.db": e.BillingDB, "billing.addr": e.BillingAddr, "billing.url": e.BillingURL,
	}
}

// configCmd prints the effective settings.
type configCmd struct{ effective }

func (c *configCmd) Run() error {
	values := c.values()
	if c.JSON {
		for name, value := range values {
			values[name] = database.Shown(value)
		}
		raw, err := json.Marshal(values)
		if err == nil {
			fmt.Println(string(raw))
		}
		return err
	}
	group := ""
	for _, k := range known {
		name, value := k.name, database.Shown(values[k.name])
		if service, rest, ok := strings.Cut(name, "."); ok {
			if service != group {
				group = service
				fmt.Println(group + ":")
			}
			name = "  " + rest
		}
		if value == "" {
			fmt.Printf("# %s: %s\n", name, k.help)
			continue
		}
		fmt.Printf("%s: %s\n", name, value)
	}
	return nil
}

// doctorCmd checks every connection and setting.
type doctorCmd struct{ effective }

// finding is what doctor has found of one setting.
type finding struct {
	Setting string   `json:"setting"`
	At      string   `json:"at"`
	Says    []string `json:"says,omitempty"`
	Problem string   `json:"problem,omitempty"`
}

func (d *doctorCmd) Run(ctx context.Context) error {
	var all []finding
	check := func(setting, at string, fn func(ctx context.Context) ([]string, error)) {
		if at == "" {
			return
		}
		ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
		defer cancel()
		f := finding{Setting: setting, At: database.Shown(at)}
		says, err := fn(ctx)
		if f.Says = says; err != nil {
			f.Problem = database.WithoutPasswords(err.Error())
		}
		all = append(all, f)
		if d.JSON {
			return
		}
		if err != nil {
			fmt.Printf("%-16s %s\n%16s PROBLEM: %s\n", setting, f.At, "", f.Problem)
			return
		}
		fmt.Printf("%-16s %s\n%16s ok: %s\n", setting, f.At, "", strings.Join(says, ", "))
	}
	in := func(at string, name freehold.Source) func(context.Context) ([]string, error) {
		return func(ctx context.Context) ([]string, error) { return database.Check(ctx, at, name) }
	}
	check("order.db", d.OrderDB, in(d.OrderDB, event.SourceOrder))
	check("order.views", d.OrderViews, in(d.OrderViews, "order.views"))
	check("inventory.db", d.InventoryDB, in(d.InventoryDB, event.SourceInventory))
	check("inventory.cache", d.InventoryCache, in(d.InventoryCache, "inventory.cache"))
	check("billing.db", d.BillingDB, in(d.BillingDB, event.SourceBilling))
	for _, n := range []struct {
		setting, at string
		own         freehold.Source
	}{{"nats", d.NATS, ""}, {"order.nats", d.OrderNATS, event.SourceOrder}, {"inventory.nats", d.InventoryNATS, event.SourceInventory}, {"billing.nats", d.BillingNATS, event.SourceBilling}} {
		if n.at == pull {
			continue
		}
		check(n.setting, n.at, func(ctx context.Context) ([]string, error) {
			bus, err := nats.Connect(ctx, n.at, &nats.Options{Service: n.own})
			if err != nil {
				return nil, err
			}
			defer bus.Close()
			return bus.Check(ctx)
		})
	}
	for setting, urls := range map[string]string{"order.url": d.OrderURL, "inventory.url": d.InventoryURL, "billing.url": d.BillingURL} {
		check(setting, urls, func(ctx context.Context) ([]string, error) { return ready(ctx, setting, urls) })
	}
	check("token-file", d.TokenFile, func(context.Context) ([]string, error) { return tokenMode(d.TokenFile) })
	problems := 0
	for _, f := range all {
		if f.Problem != "" {
			problems++
		}
	}
	if d.JSON {
		raw, err := json.Marshal(all)
		if err != nil {
			return err
		}
		fmt.Println(string(raw))
	} else if len(all) == 0 {
		fmt.Println("nothing is configured: everything is embedded, below the data directory")
	} else {
		fmt.Printf("%d checked, %d with a problem\n", len(all), problems)
	}
	if problems > 0 {
		return errFound
	}
	return nil
}

// ready asks all instances of a service whether they are.
func ready(ctx context.Context, service, urls string) (says []string, err error) {
	instances, err := web.NewInstances(service, urls)
	if err != nil {
		return nil, err
	}
	for _, base := range instances.All() {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/readyz", nil)
		if err != nil {
			return says, err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return says, fmt.Errorf("%s does not answer (%w): start it, or correct its URL", base, err)
		}
		_ = resp.Body.Close() // the status is the answer
		if resp.StatusCode != http.StatusOK {
			return says, fmt.Errorf("%s answers %s: see %s/readyz", base, resp.Status, base)
		}
		says = append(says, base+" is ready")
	}
	return says, nil
}

func tokenMode(path string) ([]string, error) {
	info, err := os.Stat(path)
	if os.IsNotExist(err) {
		return []string{"not there yet: the first start makes it"}, nil
	}
	if err != nil {
		return nil, err
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("others may read it (mode %o): chmod 600 %s", mode, path)
	}
	return []string{"there, for its owner only"}, nil
}
