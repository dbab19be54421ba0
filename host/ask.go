package host

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
)

// askWithin is how long one round of questions may take.
const askWithin = 2 * time.Second

// Silent is a service that has not answered, and what to do about it.
type Silent struct {
	Service string `json:"service"` // as in Options.Consumers
	Reason  string `json:"reason"`  // what it does instead, and what to do
}

// seer is a follower that tells what it has seen of a source.
type seer interface {
	Seen(ctx context.Context, s freehold.Source) (follow.Seen, error)
}

// ask asks the service's own followers, the broker and the consumers where they stand
// in the journal. Consumers that do not answer in time are silent; a broker that does
// not is no reason to wait. whole is false while somebody has not answered since there
// was a reason to ask.
func (g *guard) ask(ctx context.Context) (all []Ahead, silent []Silent, whole bool) {
	ctx, cancel := context.WithTimeout(ctx, g.within)
	defer cancel()
	var mu sync.Mutex
	var asking sync.WaitGroup
	whole = true
	source := g.host.journal.Name()
	for _, r := range g.host.runners {
		s, ok := r.Runner.(seer)
		if f, selective := r.Runner.(interface{ Follows(s freehold.Source) bool }); !ok || selective && !f.Follows(source) {
			continue
		}
		asking.Go(func() {
			seen, err := s.Seen(ctx, source)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				whole = whole && g.answered[r.name]
				return
			}
			g.answered[r.name] = true
			all = append(all, Ahead{Seen: seen})
		})
	}
	for _, service := range g.host.opts.Consumers {
		asking.Go(func() {
			seen, err := g.marks(ctx, service)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				whole = whole && g.answered[service]
				silent = append(silent, g.silent(service, err))
				return
			}
			g.answered[service] = true
			delete(g.reasons, service)
			for _, s := range seen {
				all = append(all, Ahead{Service: service, Seen: s})
			}
		})
	}
	asking.Wait()
	slices.SortFunc(all, func(a, b Ahead) int {
		return cmp.Or(strings.Compare(a.Service, b.Service), strings.Compare(a.Follower, b.Follower))
	})
	slices.SortFunc(silent, func(a, b Silent) int { return strings.Compare(a.Service, b.Service) })
	return all, silent, whole
}

// silent says why a service has not answered. It is logged when it is news.
func (g *guard) silent(service string, err error) Silent {
	s := Silent{Service: service, Reason: "answers something else: check its URL"}
	if status, ok := errors.AsType[badStatus](err); ok {
		s.Reason = status.reason()
	} else if _, ok := errors.AsType[*url.Error](err); ok {
		s.Reason = "cannot be reached: start it"
	}
	if g.reasons[service] != s.Reason {
		g.reasons[service] = s.Reason
		g.host.log.Warn("a consumer cannot be asked what it has seen", "consumer", service, "reason", s.Reason, "error", err)
	}
	return s
}

// badStatus is the status with which a consumer refuses to answer.
type badStatus int

func (s badStatus) Error() string { return fmt.Sprintf("%d %s", int(s), http.StatusText(int(s))) }

func (s badStatus) reason() string {
	switch s {
	case http.StatusUnauthorized, http.StatusForbidden:
		return fmt.Sprintf("refuses the operator's token (%v): check the token, which both services must have", s)
	case http.StatusNotFound, http.StatusMethodNotAllowed:
		return fmt.Sprintf("does not know the question (%v): upgrade the consumer, or check its URL", s)
	}
	return fmt.Sprintf("answers %v: see its log", s)
}

// marks asks a consumer, by any of its instances. Of several errors it returns one that
// was answered, if there is one.
func (g *guard) marks(ctx context.Context, service string) ([]follow.Seen, error) {
	var failed error
	for instance := range strings.SplitSeq(service, ",") {
		seen, err := g.marksOf(ctx, strings.TrimSuffix(strings.TrimSpace(instance), "/"))
		if err == nil {
			return seen, nil
		}
		if _, answered := errors.AsType[badStatus](failed); !answered {
			failed = err
		}
	}
	return nil, failed
}

func (g *guard) marksOf(ctx context.Context, base string) ([]follow.Seen, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/operator/marks?"+url.Values{"source": {string(g.host.journal.Name())}}.Encode(), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+g.host.opts.Token)
	resp, err := g.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, badStatus(resp.StatusCode)
	}
	var seen []follow.Seen
	if err := json.NewDecoder(resp.Body).Decode(&seen); err != nil {
		return nil, fmt.Errorf("host: marks of %s: %w", base, err)
	}
	return seen, nil
}
