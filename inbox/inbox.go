package inbox

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/journal"
	"github.com/freehold-go/freehold/transport"
)

// Options tune a remote source; the zero value pulls the feed.
type Options struct {
	// Subscriber delivers events through a broker. nil pulls the feed only.
	Subscriber transport.Subscriber
	// Token is sent to the feed as a bearer token.
	Token string
	// Client makes the requests. nil is a client of the source's own.
	Client *http.Client
	// Silence is for how long the broker may be quiet before the feed is asked. 0 is 3 s.
	Silence time.Duration
	// Within is for how long the feed may say nothing when it was asked, and has not been
	// asked to wait. Then it is asked again, and given twice the time, up to six times
	// Within, until it answers. 0 is 10 s.
	Within time.Duration
	// Consumer is the name of the service that reads. With it, the source is told now
	// and then up to where each follower has applied its events, so that it keeps what
	// they still need. Empty tells nothing.
	Consumer string
	// Tell is how often the source is told. 0 is a minute.
	Tell time.Duration
	// Window is how many events from the broker are held for readers. 0 is 1024.
	Window int
	// Log is where errors of the subscription go. nil is slog.Default().
	Log *slog.Logger
}

// Source is another service's journal. It implements follow.Source, is safe for
// concurrent use, and any number of followers may read it.
type Source struct {
	name  freehold.Source
	url   string
	types *freehold.Catalog
	opts  Options
	told  applied

	mu      sync.Mutex
	window  []freehold.Recorded // contiguous and chained, from the broker
	head    freehold.Mark       // the highest place heard of
	suspect bool                // something does not fit: the feed decides
	doubts  int                 // how often that was so: an answer settles those it was asked for
	heard   time.Time           // last sign of the source
	opening string              // the incarnation last heard of
	whole   freehold.Position   // where the window's last whole transaction ends
	moved   time.Time           // when whole last moved, or head went beyond it
	news    chan struct{}       // closed and replaced at any of these changes
	epochs  epochs              // of mu, too
	pause   time.Duration       // grows while the feed does not have what was told
	again   time.Time           // when it is next asked for that
	slow    time.Duration       // how much longer than Within it may be silent: it was, too long

	quiet, patience time.Duration // quietFor and patienceFor, in tests shorter
}

// Remote returns the journal of the service name, whose feed is at feedURL and
// whose events decode with types. Call Run if there is a Subscriber.
func Remote(name freehold.Source, feedURL string, types *freehold.Catalog, o *Options) (*Source, error) {
	if err := name.Validate(); err != nil {
		return nil, err
	}
	u, err := url.Parse(feedURL)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("inbox: feed URL of %s is %q: want http://host:port/feed", name, feedURL)
	}
	var opts Options
	if o != nil {
		opts = *o
	}
	if opts.Client == nil {
		opts.Client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16, IdleConnTimeout: time.Minute}}
	}
	if opts.Silence <= 0 {
		opts.Silence = 3 * time.Second
	}
	if opts.Within <= 0 {
		opts.Within = 10 * time.Second
	}
	if opts.Tell <= 0 {
		opts.Tell = time.Minute
	}
	if opts.Window <= 0 {
		opts.Window = 1024
	}
	if opts.Log == nil {
		opts.Log = slog.Default()
	}
	return &Source{name: name, url: feedURL, types: types, opts: opts, news: make(chan struct{}), told: newApplied(),
		quiet: quietFor, patience: patienceFor}, nil
}

var _ follow.Source = (*Source)(nil)

// Name is the source's name.
func (s *Source) Name() freehold.Source { return s.name }

// Types is the catalog with which events are decoded.
func (s *Source) Types() *freehold.Catalog { return s.types }

// Bounds asks the feed.
func (s *Source) Bounds(ctx context.Context) (first, head freehold.Mark, err error) {
	a, err := s.ask(ctx, freehold.Mark{}, 0, 0)
	if err != nil {
		return first, head, err
	}
	return a.first, a.head, nil
}

// Read returns events behind the mark: those that the broker has delivered if they
// continue it, or else the feed's. What the broker is about to deliver is not asked
// for: then it returns none, and Wait waits for it.
func (s *Source) Read(ctx context.Context, after freehold.Mark, limit int) ([]freehold.Recorded, error) {
	s.mu.Lock()
	suspect, doubts := s.suspect, s.doubts
	if suspect {
		s.window, s.whole = nil, 0 // it may be of a history that is gone
	} else {
		rs := s.buffered(after, limit)
		if len(rs) > 0 || s.expects(after) > 0 || s.head.Position == after.Position && s.head.Chain == after.Chain {
			s.mu.Unlock()
			return rs, nil
		}
	}
	s.mu.Unlock()
	a, err := s.ask(ctx, after, limit, 0)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if suspect {
		s.suspect = s.doubts != doubts
	}
	if len(a.events) > 0 || s.head.Position <= after.Position {
		s.pause, s.again = 0, time.Time{}
	} else if now := time.Now(); !now.Before(s.again) { // not each of several followers
		// An instance of the source that is behind, or a head that somebody made up.
		s.pause = min(max(2*s.pause, firstPause), s.opts.Silence)
		s.again = now.Add(s.pause)
	}
	return a.events, nil
}

// firstPause is how long Wait waits when the feed did not have what it should.
const firstPause = 5 * time.Millisecond

// delivery is how long the broker may take to deliver what the source is known to
// have, before the feed is asked for it.
const delivery = 250 * time.Millisecond

// expects returns for how long the broker is still given to deliver what stands
// behind the mark: 0 if the mark is not where the window ends.
func (s *Source) expects(after freehold.Mark) time.Duration {
	if s.whole == 0 || s.whole != after.Position || s.head.Position <= after.Position {
		return 0
	}
	return max(0, delivery-time.Since(s.moved))
}

// below reports whether the mark is not in the history that ends at the head: one
// reader's question may have ended the suspicion that another one must act on.
func (s *Source) below(after freehold.Mark) bool {
	return s.head.Position < after.Position ||
		s.head.Position == after.Position && s.head.Chain != after.Chain && after.Chain != (freehold.Hash{})
}

// buffered returns events of the window that continue the mark, up to a
// transaction boundary.
func (s *Source) buffered(after freehold.Mark, limit int) []freehold.Recorded {
	if len(s.window) == 0 {
		return nil
	}
	i := int(after.Position + 1 - s.window[0].At.Position)
	if i < 0 || i >= len(s.window) {
		return nil
	}
	if r := &s.window[i]; r.At.Chain != journal.Chain(after.Chain, r.At.Position, r.Digest) {
		return nil
	}
	end := min(i+max(limit, 1), len(s.window))
	for end < len(s.window) && !s.window[end-1].Last {
		end++
	}
	for end > i && !s.window[end-1].Last {
		end--
	}
	return append([]freehold.Recorded(nil), s.window[i:end]...)
}

// Wait returns when there may be events behind the mark.
func (s *Source) Wait(ctx context.Context, after freehold.Mark) error {
	if s.opts.Subscriber == nil {
		s.mu.Lock()
		again := time.Until(s.again)
		s.mu.Unlock()
		if again > 0 { // the instance that was asked last is behind the one that told of more
			select {
			case <-time.After(again):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		_, err := s.ask(ctx, after, 0, 20*time.Second)
		return err
	}
	timer := time.NewTimer(s.opts.Silence)
	defer timer.Stop()
	for {
		s.mu.Lock()
		expected := max(s.expects(after), time.Until(s.again))
		more := s.head.Position > after.Position
		ready := s.suspect || s.below(after) || more && (expected <= 0 || len(s.buffered(after, 1)) > 0)
		news, quiet := s.news, time.Since(s.heard)
		s.mu.Unlock()
		if ready {
			return nil
		}
		if quiet >= s.opts.Silence {
			_, err := s.ask(ctx, after, 0, 0)
			return err
		}
		pause := s.opts.Silence - quiet
		if more && expected > 0 {
			pause = min(pause, expected)
		}
		timer.Reset(pause)
		select {
		case <-news:
		case <-timer.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Run keeps the subscription up until ctx ends, and tells the source who has applied
// what. Without a Subscriber or a Consumer it only waits.
func (s *Source) Run(ctx context.Context) error {
	var telling sync.WaitGroup
	telling.Go(func() { s.tell(ctx) })
	defer telling.Wait()
	if s.opts.Subscriber == nil {
		<-ctx.Done()
		return nil
	}
	pause := 50 * time.Millisecond
	for ctx.Err() == nil {
		a, err := s.ask(ctx, freehold.Mark{}, 0, 0)
		if err == nil {
			begun := time.Now()
			err = s.opts.Subscriber.Subscribe(ctx, s.name, a.head, transport.Handler{Events: s.take, Head: s.announced})
			if time.Since(begun) > 5*time.Second {
				pause = 50 * time.Millisecond
			}
		}
		if ctx.Err() != nil {
			break
		}
		s.opts.Log.Warn("subscription ended, the feed serves meanwhile", "source", s.name, "again_in", pause, "error", err)
		timer := time.NewTimer(pause/2 + rand.N(pause/2))
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
		pause = min(2*pause, 5*time.Second)
	}
	return nil
}

// take adds what the broker delivers to the window. An event that does not
// continue it begins a new window: readers behind it go to the feed.
func (s *Source) take(_ context.Context, events []freehold.Recorded) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range events {
		r := &events[i]
		if r.At.Source != s.name || !journal.Intact(r) {
			continue // not this source's, or damaged: the feed has the real one
		}
		if s.foreign(r.At.Epoch) {
			continue // of a history that has ended, or of one that the feed has not told yet
		}
		n := len(s.window)
		switch {
		case n > 0 && r.At.Position <= s.window[n-1].At.Position:
			if k := int(r.At.Position - s.window[0].At.Position); k < 0 || s.window[k].At.Chain != r.At.Chain {
				// Old news that cannot be compared, or another history: ask.
				if k >= 0 || r.Incarnation != s.window[n-1].Incarnation {
					s.doubt()
				}
			}
			continue
		case n > 0 && !continues(s.window[n-1].At, r):
			if r.At.Position == s.window[n-1].At.Position+1 {
				s.doubt()
			}
			s.window, s.whole = s.window[:0:0], 0
		}
		if len(s.window) == 0 && r.At.Position <= s.head.Position && r.Incarnation != s.opening {
			s.doubt() // nothing to compare it with
		}
		s.opening = r.Incarnation
		one := events[i : i+1]
		s.types.Bind(one)
		s.window = append(s.window, one[0])
		if r.Last {
			s.whole, s.moved = r.At.Position, time.Now()
		}
	}
	if over := len(s.window) - s.opts.Window; over > s.opts.Window/2 {
		s.window = slices.Delete(s.window, 0, over) // readers have copies
	}
	if n := len(s.window); n > 0 && s.window[n-1].At.Position > s.head.Position {
		s.head = s.window[n-1].At
	}
	s.signal()
	return nil
}

// continues is journal.Follows of an event that was found to be intact.
func continues(after freehold.Mark, r *freehold.Recorded) bool {
	return r.At.Position == after.Position+1 && r.At.Chain == journal.Chain(after.Chain, r.At.Position, r.Digest)
}

// announced takes a head that the source's relay announces.
func (s *Source) announced(h transport.Head) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h.Source != s.name {
		return
	}
	if s.foreign(h.Epoch) {
		s.doubt()
		s.signal()
		return
	}
	if h.Position < s.head.Position && (h.Epoch != s.head.Epoch || h.Incarnation != s.opening) ||
		h.Position == s.head.Position && h.Chain != s.head.Chain {
		s.doubt()
	}
	s.opening = h.Incarnation
	if h.Position > s.head.Position {
		if s.head.Position <= s.whole {
			s.moved = time.Now() // from now on something is missing
		}
		s.head = h.Mark
	}
	s.signal()
}

// learn takes the head that the feed told, which is final. One that is lower than what was
// known before the feed was asked is that of a source that went back.
func (s *Source) learn(head freehold.Mark, known freehold.Position) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.turned(head.Epoch)
	if head != s.head {
		if head.Position < known {
			s.doubt()
		}
		if head.Position <= s.head.Position && (s.suspect || head.Position == s.head.Position) {
			s.window, s.whole = nil, 0 // it does not lead there
		}
		if head.Position >= s.head.Position || s.suspect || head.Epoch != s.head.Epoch {
			s.head = head
		}
	}
	s.signal()
}

// doubt has the feed asked before anything else is read: what was delivered, or told,
// may be of another history.
func (s *Source) doubt() {
	s.suspect = true
	s.doubts++
}

func (s *Source) signal() {
	s.heard = time.Now()
	close(s.news)
	s.news = make(chan struct{})
}
