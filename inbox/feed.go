package inbox

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/journal"
	"github.com/freehold-go/freehold/outbox"
	"github.com/freehold-go/freehold/transport"
)

// answer is what the feed says.
type answer struct {
	events []freehold.Recorded
	first  freehold.Mark
	head   freehold.Mark
}

// ask reads the feed behind a mark. limit 0 asks for the head only. With wait it
// waits at the head for news.
func (s *Source) ask(ctx context.Context, after freehold.Mark, limit int, wait time.Duration) (*answer, error) {
	q := url.Values{"after": {strconv.FormatInt(int64(after.Position), 10)}, "limit": {strconv.Itoa(limit)}}
	if after.Position > 0 && after.Chain != (freehold.Hash{}) {
		q.Set("chain", after.Chain.String())
	}
	if wait > 0 {
		q.Set("wait", strconv.Itoa(int(wait/time.Second)))
	}
	var known freehold.Position
	if limit == 0 { // the head told is then the database's, not what an instance has heard of
		s.mu.Lock()
		known = s.head.Position
		s.mu.Unlock()
	}
	resp, err := s.get(ctx, "?"+q.Encode(), wait)
	if errors.Is(err, freehold.ErrDiverged) || errors.Is(err, freehold.ErrGone) {
		s.mu.Lock()
		s.doubt() // what the broker delivered may have led there, too
		s.mu.Unlock()
	}
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	a := &answer{}
	if err := s.readHead(resp.Header, a); err != nil {
		return nil, err
	}
	place := after
	lines := bufio.NewReaderSize(resp.Body, 64<<10)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil && (!errors.Is(err, io.EOF) || len(line) > 0) {
			return nil, fmt.Errorf("inbox: feed of %s: cut off: %w", s.name, err)
		}
		if err != nil {
			break
		}
		r, err := transport.ParseJSON(line)
		if err != nil {
			return nil, fmt.Errorf("inbox: feed of %s: %w", s.name, err)
		}
		if r.At.Source != s.name {
			return nil, fmt.Errorf("inbox: feed of %s serves %s: check its URL", s.name, r.At.Source)
		}
		if !follows(place, &r) {
			return nil, fmt.Errorf("inbox: feed of %s: position %d does not follow %s, or is not as it was written: run freehold verify at %s", s.name, r.At.Position, place, s.name)
		}
		place = r.At
		a.events = append(a.events, r)
	}
	s.types.Bind(a.events)
	s.learn(a.head, known)
	return a, nil
}

// follows is journal.Follows, if the chain value at the place is known. At position 0
// it is: 32 zero bytes.
func follows(place freehold.Mark, r *freehold.Recorded) bool {
	if place.Position > 0 && place.Chain == (freehold.Hash{}) {
		return r.At.Position == place.Position+1 && journal.Intact(r)
	}
	return journal.Follows(place, r)
}

func (s *Source) readHead(h http.Header, a *answer) error {
	first, err1 := strconv.ParseInt(h.Get(outbox.HeaderFirst), 10, 64)
	head, err2 := strconv.ParseInt(h.Get(outbox.HeaderHead), 10, 64)
	epoch := freehold.Epoch(h.Get(outbox.HeaderEpoch))
	a.first = freehold.Mark{Source: s.name, Epoch: epoch, Position: freehold.Position(first)}
	a.head = freehold.Mark{Source: s.name, Epoch: epoch, Position: freehold.Position(head)}
	err3 := a.head.Chain.UnmarshalText([]byte(h.Get(outbox.HeaderHeadChain)))
	if text := h.Get(outbox.HeaderFirstChain); text != "" { // older sources do not tell it
		err3 = errors.Join(err3, a.first.Chain.UnmarshalText([]byte(text)))
	}
	if err := errors.Join(err1, err2, err3); err != nil {
		return fmt.Errorf("inbox: %s does not answer like a feed: check the URL: %w", s.url, err)
	}
	return nil
}

// Incarnations lists the openings of the source's journal, oldest first.
func (s *Source) Incarnations(ctx context.Context) ([]journal.Incarnation, error) {
	resp, err := s.get(ctx, "/incarnations", 0)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var all []journal.Incarnation
	if err := json.NewDecoder(resp.Body).Decode(&all); err != nil {
		return nil, fmt.Errorf("inbox: incarnations of %s: %w", s.name, err)
	}
	return all, nil
}
