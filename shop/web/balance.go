package web

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/inbox"
)

// Instances is a service that answers at one or several base URLs. It is an
// http.RoundTripper for requests to [Instances.URL].
type Instances struct {
	all  []*url.URL
	next atomic.Uint32
	http http.RoundTripper
}

// NewInstances takes base URLs with commas between them, such as
// "http://127.0.0.1:8080,http://127.0.0.1:9080".
func NewInstances(service, urls string) (*Instances, error) {
	s := &Instances{http: &http.Transport{MaxIdleConnsPerHost: 256, IdleConnTimeout: time.Minute}}
	for text := range strings.SplitSeq(urls, ",") {
		u, err := url.Parse(strings.TrimSuffix(strings.TrimSpace(text), "/"))
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return nil, fmt.Errorf("URL of %s is %q: want http://host:port, or several with commas", service, text)
		}
		s.all = append(s.all, u)
	}
	return s, nil
}

// URL is the first base URL, which stands for all.
func (s *Instances) URL() string { return s.all[0].String() }

// All are the base URLs.
func (s *Instances) All() []string {
	var all []string
	for _, u := range s.all {
		all = append(all, u.String())
	}
	return all
}

// Host is the host and port of URL.
func (s *Instances) Host() string { return s.all[0].Host }

// Client returns a client whose requests to URL go to all instances in turn.
func (s *Instances) Client(timeout time.Duration) *http.Client {
	return &http.Client{Transport: s, Timeout: timeout}
}

type directKey struct{}

// Direct returns a context for requests that go to the instance that they name.
func Direct(ctx context.Context) context.Context { return context.WithValue(ctx, directKey{}, true) }

// RoundTrip sends a request to the next instance. An instance that does not answer
// is left out: the request goes to the one after it. That may do a command twice,
// so commands carry keys. A request to another host is sent there.
func (s *Instances) RoundTrip(req *http.Request) (*http.Response, error) {
	if len(s.all) == 1 || req.URL.Host != s.all[0].Host || req.Context().Value(directKey{}) != nil {
		return s.http.RoundTrip(req)
	}
	var errs []error
	first := int(s.next.Add(1))
	for i := range s.all {
		to := s.all[(first+i)%len(s.all)]
		again := req.Clone(req.Context())
		again.URL.Scheme, again.URL.Host, again.Host = to.Scheme, to.Host, to.Host
		if i > 0 && req.Body != nil {
			if req.GetBody == nil {
				break
			}
			body, err := req.GetBody()
			if err != nil {
				return nil, err
			}
			again.Body = body
		}
		resp, err := s.http.RoundTrip(again)
		if err == nil {
			return resp, nil
		}
		errs = append(errs, err)
		if req.Context().Err() != nil {
			break
		}
	}
	return nil, errors.Join(errs...)
}

// Remote is the journal of another service, read from the feed of any of its
// instances; see [inbox.Remote].
func Remote(name freehold.Source, urls string, types func() (*freehold.Catalog, error), o *inbox.Options) (*inbox.Source, error) {
	c, err := types()
	if err != nil {
		return nil, err
	}
	instances, err := NewInstances(string(name), urls)
	if err != nil {
		return nil, err
	}
	opts := *o
	opts.Client = instances.Client(0)
	return inbox.Remote(name, instances.URL()+"/feed", c, &opts)
}
