package inbox

import (
	"context"
	"net/url"
	"strconv"
	"sync"
	"time"

	"github.com/freehold-go/freehold"
)

// applied is up to where this service's followers have applied the source's events,
// and what the source was told of it.
type applied struct {
	mu    sync.Mutex
	marks map[string]freehold.Mark
	told  map[string]freehold.Mark
	fresh chan struct{} // has one element if there is a follower the source does not know
}

func newApplied() applied {
	return applied{marks: map[string]freehold.Mark{}, told: map[string]freehold.Mark{}, fresh: make(chan struct{}, 1)}
}

// Applied says that a follower has applied everything up to a mark, durably. Followers
// call it by themselves; Run tells the source.
func (s *Source) Applied(follower string, at freehold.Mark) {
	if s.opts.Consumer == "" {
		return
	}
	s.told.mu.Lock()
	defer s.told.mu.Unlock()
	was, known := s.told.marks[follower]
	s.told.marks[follower] = at
	if !known || at.Position < was.Position {
		select {
		case s.told.fresh <- struct{}{}:
		default:
		}
	}
}

// tell tells the source until ctx ends: of a follower that begins at once, of the
// others now and then, of those that stand still nothing.
func (s *Source) tell(ctx context.Context) {
	if s.opts.Consumer == "" {
		return
	}
	ticker := time.NewTicker(s.opts.Tell)
	defer ticker.Stop()
	for {
		select {
		case <-s.told.fresh:
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		s.told.mu.Lock()
		due := map[string]freehold.Mark{}
		for follower, at := range s.told.marks {
			if told, known := s.told.told[follower]; !known || told != at {
				due[follower] = at
			}
		}
		s.told.mu.Unlock()
		for follower, at := range due {
			if err := s.register(ctx, follower, at); err != nil {
				// It is told again; a follower that has lost its place finds out by itself.
				s.opts.Log.Debug("place not told to the source", "source", s.name, "follower", follower, "error", err)
				continue
			}
			s.told.mu.Lock()
			s.told.told[follower] = at
			s.told.mu.Unlock()
		}
	}
}

func (s *Source) register(ctx context.Context, follower string, at freehold.Mark) error {
	q := url.Values{"after": {strconv.FormatInt(int64(at.Position), 10)}, "limit": {"0"}, "consumer": {s.opts.Consumer + "/" + follower}}
	if at.Position > 0 {
		q.Set("chain", at.Chain.String())
	}
	resp, err := s.get(ctx, "?"+q.Encode(), 0)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}
