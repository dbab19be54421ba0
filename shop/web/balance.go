package web

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/inbox"
)

// Instances is a service that answers at one or several base URLs. It is an
// http.RoundTripper for requests to [Instances.URL].
type Instances struct {
	all  []*url.URL
	http http.RoundTripper

	mu     sync.Mutex
	next   int
	silent map[*url.URL]time.Time // instances that have not answered in time, and until when they come last
}

// The time that an instance has to take a connection, or to answer before it is taken for
// silent if a deadline passes; and for how long one that is silent comes last.
const (
	dialWithin = 3 * time.Second
	silentFor  = time.Minute
)

// NewInstances takes base URLs with commas between them, such as
// "http://127.0.0.1:8080,http://127.0.0.1:9080".
func NewInstances(service, urls string) (*Instances, error) {
	dialer := &net.Dialer{Timeout: dialWithin}
	s := &Instances{
		http:   &http.Transport{DialContext: dialer.DialContext, ForceAttemptHTTP2: true, MaxIdleConnsPerHost: 256, IdleConnTimeout: time.Minute},
		silent: map[*url.URL]time.Time{},
	}
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

// RoundTrip sends a request to the next instance. Where that fails, the request goes to
// the one after it, which may do a command twice, so commands carry keys. An instance
// that lets a request's time run out ends that request; the next ones go to the others,
// but for one a minute that tries whether it answers again. A request to another host is
// sent there.
func (s *Instances) RoundTrip(req *http.Request) (*http.Response, error) {
	if err := req.Context().Err(); err != nil {
		return nil, err // no instance has had a chance
	}
	if len(s.all) == 1 || req.URL.Host != s.all[0].Host || req.Context().Value(directKey{}) != nil {
		return s.http.RoundTrip(req)
	}
	var errs []error
	for i, to := range s.turn() {
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
		begun := time.Now()
		resp, err := s.http.RoundTrip(again)
		if err == nil {
			s.answers(to)
			return resp, nil
		}
		if hangs(err, context.Cause(req.Context()), time.Since(begun)) {
			s.isSilent(to)
		}
		errs = append(errs, err)
		if req.Context().Err() != nil {
			break
		}
	}
	return nil, errors.Join(errs...)
}

// turn is the order in which a request is offered to the instances.
func (s *Instances) turn() []*url.URL {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next++
	now := time.Now()
	var all, last []*url.URL
	for i := range s.all {
		to := s.all[(s.next+i)%len(s.all)]
		switch until, silent := s.silent[to]; {
		case !silent:
			all = append(all, to)
		case i == 0 && !now.Before(until):
			s.silent[to] = now.Add(silentFor) // this request tries it, and no other one
			all = append(all, to)
		default:
			last = append(last, to)
		}
	}
	return append(all, last...)
}

func (s *Instances) isSilent(to *url.URL) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.silent[to] = time.Now().Add(silentFor)
}

func (s *Instances) answers(to *url.URL) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.silent, to)
}

// hangs reports whether an instance let time run out that it had: whoever waits may have
// had little left, or given up for another reason. cause is why the request ended.
func hangs(err, cause error, waited time.Duration) bool {
	switch {
	case cause == nil:
		return ranOut(err)
	case errors.Is(cause, context.DeadlineExceeded):
		return waited >= dialWithin
	}
	return ranOut(cause)
}

// ranOut reports whether an error says that time has run out.
func ranOut(err error) bool {
	var timed interface{ Timeout() bool }
	return errors.As(err, &timed) && timed.Timeout()
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
