package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/inbox"
	"github.com/freehold-go/freehold/shop/audit"
	"github.com/freehold-go/freehold/shop/event"
	"github.com/freehold-go/freehold/shop/inventory"
	"github.com/freehold-go/freehold/shop/orderdb"
)

// target is a shop that a command works on: one that runs, or one that the command
// runs itself on a data directory.
type target struct {
	Data      string `help:"Directory of a shop's databases. If no shop runs on it, it is opened for the command." default:"shop-data" type:"path" env:"SHOP_DATA"`
	URL       string `help:"URL of the Order service of a running shop; --data is not used then." placeholder:"URL"`
	TokenFile string `help:"File with the operator's token. Default: that of the data directory." type:"path"`
}

// with runs fn against the shop.
func (t target) with(ctx context.Context, cfg shopConfig, fn func(ctx context.Context, c *client) error) error {
	if t.Data == "" && t.URL == "" {
		return errors.New("give the --data directory of a shop, or the --url of a running one")
	}
	if t.URL != "" {
		c, err := dial(ctx, "", t.URL, t.TokenFile)
		if err != nil {
			return err
		}
		return fn(ctx, c)
	}
	cfg.Data = t.Data
	s, err := openShop(ctx, cfg)
	if errors.Is(err, errRunning) {
		c, dialErr := dial(ctx, t.Data, "", t.TokenFile)
		if dialErr != nil {
			return errors.Join(err, dialErr)
		}
		return fn(ctx, c)
	}
	if err != nil {
		return err
	}
	c, err := newClient(s.urls, s.token)
	if err != nil {
		return errors.Join(err, s.close())
	}
	c.local = []follow.Source{s.order.Journal(), s.inventory.Journal()}
	running, stop := context.WithCancel(ctx)
	stopped := make(chan error, 1)
	go func() { stopped <- s.run(running) }()
	working, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- fn(working, c) }()
	select {
	case err = <-done:
		cancel()
		stop()
		return errors.Join(err, <-stopped)
	case err := <-stopped:
		cancel()
		stop()
		<-done
		if ctx.Err() != nil {
			return errors.Join(errors.New("interrupted: run the same command again to go on"), err)
		}
		return fmt.Errorf("the shop ended: %w", err)
	}
}

// followers asks all instances of all services where their followers stand. Of a
// follower that several have, the one that runs is told.
func (c *client) followers(ctx context.Context) ([]follow.Status, error) {
	type key struct {
		service, follower string
		source            freehold.Source
	}
	best := map[key]follow.Status{}
	for _, service := range c.instances {
		answered := 0
		var failed error
		for _, u := range service.All() {
			var some []follow.Status
			ask := func() error { some = nil; return c.getFrom(ctx, u, "/operator/followers", &some) }
			if len(service.All()) == 1 {
				failed = patiently(ctx, ask)
			} else {
				failed = ask() // another one may answer
			}
			if failed != nil {
				continue
			}
			answered++
			for _, st := range some {
				k := key{service.URL(), st.Follower, st.Source}
				if was, seen := best[k]; !seen || was.State == follow.Standby || st.State == follow.Running {
					best[k] = st
				}
			}
		}
		if answered == 0 {
			return nil, failed
		}
	}
	return slices.Collect(maps.Values(best)), nil
}

// settle waits until every order has ended and every follower stands at its
// source's head, and that twice in a row. It returns where they stand. From then on Order's
// read side answers when it is there: a store that is emptied and built again says less.
func (c *client) settle(ctx context.Context, tell func(string)) (all []follow.Status, err error) {
	quiet := 0
	for quiet < 2 {
		var sum orderdb.Summary
		if err := patiently(ctx, func() error { return c.get(ctx, c.urls.Order+"/reports/summary", &sum) }); err != nil {
			return nil, err
		}
		if all, err = c.followers(ctx); err != nil {
			return nil, err
		}
		orders, events, rest := sum.Placed-sum.Paid-sum.Rejected-sum.Cancelled, int64(0), []string(nil)
		for _, st := range all {
			if st.State == follow.Diverged || st.State == follow.Failed {
				return nil, fmt.Errorf("%s does not follow %s any more: %s", st.Follower, st.Source, st.Error)
			}
			if st.State != follow.Running {
				rest = append(rest, fmt.Sprintf("%s of %s (%s)", st.Follower, st.Source, st.State)) // how far it is behind is not known yet
				continue
			}
			events += st.Lag
		}
		if orders <= 0 && events == 0 && len(rest) == 0 {
			quiet++
			continue
		}
		quiet = 0
		says := fmt.Sprintf("settling: %d orders are under way, followers are %d events behind", max(orders, 0), events)
		if len(rest) > 0 {
			says += fmt.Sprintf(", and %d do not run yet: %s", len(rest), strings.Join(rest[:min(len(rest), 3)], ", "))
		}
		tell(says)
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	var at []freehold.Mark
	for i := range all {
		if all[i].Mark.Position > 0 {
			at = append(at, all[i].Mark)
		}
	}
	c.settled = freehold.NewToken(at...)
	return all, nil
}

// audit collects the shop's books and journals, and checks them, when everything has
// settled.
func (c *client) audit(ctx context.Context, tell func(string)) (*audit.Report, error) {
	if _, err := c.settle(ctx, tell); err != nil {
		return nil, err
	}
	tell("auditing")
	s := audit.Shop{Stock: map[string]inventory.Stock{}, Verified: map[freehold.Source]error{}}
	long := *c
	long.http = &http.Client{Transport: c.http.Transport} // a journal may take minutes to read
	for _, j := range []struct {
		name  freehold.Source
		url   string
		types func() (*freehold.Catalog, error)
		into  *follow.Source
	}{
		{event.SourceOrder, c.urls.Order, event.OrderTypes, &s.Order},
		{event.SourceInventory, c.urls.Inventory, event.InventoryTypes, &s.Inventory},
		{event.SourceBilling, c.urls.Billing, event.BillingTypes, &s.Billing},
	} {
		types, err := j.types()
		if err != nil {
			return nil, err
		}
		var at freehold.Mark
		err = shortly(ctx, func() error { return long.get(ctx, j.url+"/operator/verify", &at) })
		if status := (*statusError)(nil); err != nil && !(errors.As(err, &status) && status.status == http.StatusInternalServerError) {
			return nil, err
		}
		s.Verified[j.name] = err
		source, err := inbox.Remote(j.name, j.url+"/feed", types, &inbox.Options{Token: c.token})
		if err != nil {
			return nil, err
		}
		*j.into = patientSource{source}
	}
	if err := shortly(ctx, func() error { return c.get(ctx, c.urls.Order+"/reports/summary", &s.Summary) }); err != nil {
		return nil, err
	}
	err := pages(ctx, c, c.urls.Inventory+"/stock", func(r stockRow) string { return r.SKU }, func(r stockRow) error {
		s.Stock[r.SKU] = r.Stock
		return nil
	})
	if err != nil {
		return nil, err
	}
	if err := shortly(ctx, func() (err error) { s.Billed, err = c.books(ctx); return err }); err != nil {
		return nil, err
	}
	if s.Followers, err = c.settle(ctx, tell); err != nil { // what was built again meanwhile stands at the head, too
		return nil, err
	}
	return audit.Run(ctx, s)
}

type stockRow struct {
	SKU string `json:"sku"`
	inventory.Stock
}

// books are Billing's totals, of all currencies.
func (c *client) books(ctx context.Context) (b audit.Books, err error) {
	var answer struct {
		Items []struct {
			Billed, Captured, Refunded, Adjustments, Net event.Money
			CreditNotes                                  event.Money `json:"credit_notes"`
			Invoices, Credits                            int64
		}
	}
	if err := c.get(ctx, c.urls.Billing+"/books", &answer); err != nil {
		return b, err
	}
	for _, i := range answer.Items {
		b.Billed += i.Billed
		b.Captured += i.Captured
		b.Refunded += i.Refunded
		b.CreditNotes += i.CreditNotes
		b.Adjustments += i.Adjustments
		b.Net += i.Net
		b.Invoices += i.Invoices
		b.Credits += i.Credits
	}
	return b, nil
}

// verifyCmd audits a shop.
type verifyCmd struct {
	target
	JSON bool `help:"Print one JSON object."`
}

func (v *verifyCmd) Run(ctx context.Context) error {
	if v.URL == "" && v.Data != "" {
		// An audit makes no shop, and no missing part of one.
		for _, part := range []string{"order.db", "inventory.pebble", "billing.db"} {
			if _, err := os.Stat(filepath.Join(v.Data, part)); err != nil {
				return fmt.Errorf("there is no whole shop in %s (%w): give its --data, or the --url of a running one", v.Data, err)
			}
		}
	}
	var report *audit.Report
	err := v.with(ctx, shopConfig{}, func(ctx context.Context, c *client) error {
		p := newProgress(-1)
		defer p.done()
		var err error
		report, err = c.audit(ctx, p.say)
		return err
	})
	if err != nil {
		return err
	}
	return tell(report, v.JSON)
}

// tell prints a report; violations are errFound.
func tell(r *audit.Report, asJSON bool) error {
	if asJSON {
		raw, err := json.Marshal(r)
		if err != nil {
			return err
		}
		fmt.Println(string(raw))
	} else {
		for _, v := range r.Violations {
			fmt.Println("violation:", v)
		}
		fmt.Printf("audit: %d checks, %d violations\n", r.Checks, len(r.Violations))
	}
	if len(r.Violations) > 0 {
		return errFound
	}
	return nil
}
