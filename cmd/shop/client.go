package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/inbox"
	"github.com/freehold-go/freehold/shop/event"
	"github.com/freehold-go/freehold/shop/web"
)

// client speaks to a running shop's public interfaces.
type client struct {
	urls      urls
	token     string
	http      *http.Client
	instances []*web.Instances // of each service
	local     []follow.Source  // journals of services that run in this process
	settled   freehold.Token   // where everything has settled; Order's read side is asked to be there
}

// newClient takes the URLs of the services, each with commas between those of
// several instances.
func newClient(u urls, token string) (*client, error) {
	c := &client{token: token}
	routes := routes{}
	for _, s := range []struct {
		name, urls string
		base       *string
	}{{"order", u.Order, &c.urls.Order}, {"inventory", u.Inventory, &c.urls.Inventory}, {"billing", u.Billing, &c.urls.Billing}} {
		if s.urls == "" {
			continue
		}
		instances, err := web.NewInstances(s.name, s.urls)
		if err != nil {
			return nil, err
		}
		*s.base = instances.URL()
		routes[instances.Host()] = instances
		c.instances = append(c.instances, instances)
	}
	c.http = &http.Client{Timeout: time.Minute, Transport: routes}
	return c, nil
}

// balanced reports whether the Order service has several instances, to which requests
// go in turn.
func (c *client) balanced() bool { return len(c.instances) > 0 && len(c.instances[0].All()) > 1 }

// routes sends requests to the services' instances, by host.
type routes map[string]*web.Instances

func (r routes) RoundTrip(req *http.Request) (*http.Response, error) {
	if to := r[req.URL.Host]; to != nil {
		return to.RoundTrip(req)
	}
	return http.DefaultTransport.RoundTrip(req)
}

// sources are the journals of Order and Inventory, to watch them: read where they
// are if the services run in this process, and from their feeds otherwise.
func (c *client) sources() ([]follow.Source, error) {
	if c.local != nil {
		return c.local, nil
	}
	var all []follow.Source
	for _, j := range []struct {
		name  freehold.Source
		url   string
		types func() (*freehold.Catalog, error)
	}{{event.SourceOrder, c.urls.Order, event.OrderTypes}, {event.SourceInventory, c.urls.Inventory, event.InventoryTypes}} {
		types, err := j.types()
		if err != nil {
			return nil, err
		}
		source, err := inbox.Remote(j.name, feedOf(j.url), types, &inbox.Options{Token: c.token, Client: &http.Client{Transport: c.http.Transport}})
		if err != nil {
			return nil, err
		}
		all = append(all, source)
	}
	return all, nil
}

// dial finds the services of a running shop: from the data directory of one on
// this machine, or from the URL of its Order service.
func dial(ctx context.Context, data, orderURLs, tokenPath string) (*client, error) {
	if tokenPath == "" && data != "" {
		tokenPath = tokenFile(data)
	}
	token := os.Getenv("SHOP_TOKEN")
	if tokenPath != "" {
		raw, err := os.ReadFile(tokenPath)
		if err != nil {
			return nil, fmt.Errorf("operator's token: %w", err)
		}
		token = strings.TrimSpace(string(raw))
	}
	if orderURLs == "" {
		raw, err := os.ReadFile(urlsFile(data))
		if err != nil {
			return nil, fmt.Errorf("no shop runs on %s: %w", data, err)
		}
		var u urls
		if err := json.Unmarshal(raw, &u); err != nil {
			return nil, fmt.Errorf("%s: %w", urlsFile(data), err)
		}
		return newClient(u, token)
	}
	c, err := newClient(urls{Order: orderURLs}, token)
	if err != nil {
		return nil, err
	}
	var u urls
	if err := c.get(ctx, c.urls.Order+"/services", &u); err != nil {
		return nil, fmt.Errorf("%s does not answer like a shop's Order service: %w", orderURLs, err)
	}
	if strings.Contains(orderURLs, ",") {
		u.Order = orderURLs // an instance names itself only
	}
	return newClient(u, token)
}

// statusError is an answer that is not 2xx.
type statusError struct {
	status int
	text   string
	detail string // what the service says about it
}

func (e *statusError) Error() string { return e.text }

func (c *client) do(req *http.Request, out any) error {
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	if req.Method == http.MethodGet && strings.HasPrefix(req.URL.String(), c.urls.Order+"/") {
		if at := c.settled.String(); at != "" {
			req.Header.Set("Consistency-Token", at)
		}
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 || resp.StatusCode == http.StatusMultiStatus { // 207: some of a batch was refused
		var problem struct{ Detail string }
		_ = json.Unmarshal(raw, &problem) // what there is of an explanation
		return &statusError{resp.StatusCode, fmt.Sprintf("%s %s: %s: %.500s", req.Method, req.URL.Path, resp.Status, raw), problem.Detail}
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(raw, out)
}

func (c *client) get(ctx context.Context, address string, out any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return err
	}
	return c.do(req, out)
}

// getFrom asks one instance.
func (c *client) getFrom(ctx context.Context, base, path string, out any) error {
	req, err := http.NewRequestWithContext(web.Direct(ctx), http.MethodGet, base+path, nil)
	if err != nil {
		return err
	}
	return c.do(req, out)
}

// setOpening tells a running shop the opening stock of products that nobody has
// defined.
func (c *client) setOpening(ctx context.Context, stock int64) error {
	return patiently(ctx, func() error {
		req, err := http.NewRequestWithContext(ctx, http.MethodPut, c.urls.Inventory+"/operator/opening", strings.NewReader(strconv.FormatInt(stock, 10)))
		if err != nil {
			return err
		}
		return c.do(req, nil)
	})
}

func (c *client) post(ctx context.Context, address string, body, out any) error {
	return c.postUnder(ctx, "", address, body, out)
}

// postUnder sends a command under an idempotency key, if it is not empty.
func (c *client) postUnder(ctx context.Context, key, address string, body, out any) error {
	raw, ready := body.(json.RawMessage)
	if !ready {
		var err error
		if raw, err = json.Marshal(body); err != nil {
			return err
		}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(raw))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	return c.do(req, out)
}

// patiently repeats a request whose answer is that it may succeed later. The
// commands it is used for carry keys, so nothing is doubled.
func patiently(ctx context.Context, fn func() error) error {
	pause := 20 * time.Millisecond
	for {
		err := fn()
		var status *statusError
		var last *lasting
		switch {
		case err == nil, errors.As(err, &last), errors.Is(err, freehold.ErrDiverged), errors.Is(err, freehold.ErrGone),
			errors.As(err, &status) && status.status != http.StatusServiceUnavailable && status.status != http.StatusTooManyRequests:
			return err
		}
		select {
		case <-time.After(pause):
			pause = min(2*pause, 2*time.Second)
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		}
	}
}

// patience is for how long an audit waits for a service that does not answer: it may be
// starting again.
const patience = time.Minute

// shortly repeats a request like patiently, until it has failed for as long as patience.
func shortly(ctx context.Context, fn func() error) error {
	var failing time.Time
	return patiently(ctx, func() error {
		begun := time.Now()
		err := fn()
		if failing.IsZero() || time.Since(begun) > patience {
			failing = time.Now() // it was answered for a while
		}
		if err != nil && time.Since(failing) > patience {
			return &lasting{err}
		}
		return err
	})
}

// lasting is an error that it is no use to wait for the end of.
type lasting struct{ error }

func (l *lasting) Unwrap() error { return l.error }

// patientSource is a journal whose service may be starting again.
type patientSource struct{ follow.Source }

func (s patientSource) Bounds(ctx context.Context) (first, head freehold.Mark, err error) {
	err = shortly(ctx, func() (err error) { first, head, err = s.Source.Bounds(ctx); return err })
	return first, head, err
}

func (s patientSource) Read(ctx context.Context, after freehold.Mark, limit int) (rs []freehold.Recorded, err error) {
	err = shortly(ctx, func() (err error) { rs, err = s.Source.Read(ctx, after, limit); return err })
	return rs, err
}

// pages reads all pages of a listing whose rows have keys.
func pages[R any](ctx context.Context, c *client, address string, key func(R) string, fn func(R) error) error {
	from := ""
	for {
		var page struct {
			Rows []R
			More bool
		}
		u, err := url.Parse(address)
		if err != nil {
			return err
		}
		q := u.Query()
		q.Set("limit", "5000")
		if from != "" {
			q.Set("from", from)
		}
		u.RawQuery = q.Encode()
		if err := patiently(ctx, func() error { page.Rows = nil; return c.get(ctx, u.String(), &page) }); err != nil {
			return err
		}
		for _, r := range page.Rows {
			if err := fn(r); err != nil {
				return err
			}
		}
		if !page.More {
			return nil
		}
		from = key(page.Rows[len(page.Rows)-1]) + "\x00"
	}
}
