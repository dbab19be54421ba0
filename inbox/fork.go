package inbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/journal"
	"github.com/freehold-go/freehold/transport"
)

// errNotThere says that a source does not serve a path: it is of an older version.
var errNotThere = errors.New("inbox: not found")

// Forks lists the forks of the source's journal, oldest first.
func (s *Source) Forks(ctx context.Context) (journal.Forks, error) {
	resp, err := s.get(ctx, "/forks", 0)
	if errors.Is(err, errNotThere) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	var all journal.Forks
	if err := json.NewDecoder(resp.Body).Decode(&all); err != nil {
		return nil, fmt.Errorf("inbox: forks of %s: %w", s.name, err)
	}
	return all, nil
}

// epochs is which epochs of a source have ended, as far as the feed has told: what a
// broker still holds of them is not news.
type epochs struct {
	ended   map[freehold.Epoch]bool
	strange map[freehold.Epoch]bool // heard of since the feed was last asked
}

// foreign reports whether something is of another epoch than the head. The first of
// each epoch is a reason to ask the feed.
func (s *Source) foreign(e freehold.Epoch) bool {
	if s.head.Epoch == "" || e == s.head.Epoch {
		return false
	}
	if !s.epochs.ended[e] {
		if s.epochs.strange == nil {
			s.epochs.strange = map[freehold.Epoch]bool{}
		}
		s.epochs.strange[e] = true
		s.doubt()
	}
	return true
}

// turned takes the epoch that the feed told. What was delivered of another one is
// dropped: it may not be in the present history.
func (s *Source) turned(present freehold.Epoch) {
	if s.epochs.ended == nil {
		s.epochs.ended = map[freehold.Epoch]bool{}
	}
	if s.head.Epoch != present && s.head.Epoch != "" {
		s.epochs.ended[s.head.Epoch] = true
		s.window, s.whole = nil, 0
	}
	for e := range s.epochs.strange {
		s.epochs.ended[e] = true
	}
	clear(s.epochs.strange)
	delete(s.epochs.ended, present)
}

// A broker is listened to for orphans until it has delivered nothing of an ended epoch
// for quietFor, and for patienceFor at most.
const (
	quietFor    = time.Second
	patienceFor = 10 * time.Second
)

// errNoOrphans says why a list of orphans is not whole.
var errNoOrphans = errors.New("inbox: the broker no longer holds all of them")

// Orphans reads from the broker the events behind base up to a mark, which the source
// itself does not have any more. The chain proves that they are those that led to the
// mark. With an error the list is that of the last ones, as far as they are held.
func (s *Source) Orphans(ctx context.Context, base, upto freehold.Mark) ([]freehold.Recorded, error) {
	if s.opts.Subscriber == nil {
		return nil, errors.New("inbox: there is no broker that could still hold them")
	}
	ctx, cancel := context.WithTimeout(ctx, s.patience)
	defer cancel()
	s.mu.Lock()
	present := s.head.Epoch
	s.mu.Unlock()
	recorded := upto.Epoch != present // or the orphans may be of the present epoch
	held := map[freehold.Position][]freehold.Recorded{}
	quiet := time.AfterFunc(s.quiet, cancel)
	defer quiet.Stop()
	err := s.opts.Subscriber.Subscribe(ctx, s.name, freehold.Mark{Source: s.name}, transport.Handler{
		Head: func(transport.Head) {},
		Events: func(_ context.Context, events []freehold.Recorded) error {
			for i := range events {
				r := &events[i]
				if !recorded || r.At.Epoch != present {
					quiet.Reset(s.quiet) // a source that goes on writes of the present without end
				}
				if !journal.Intact(r) {
					continue
				}
				if p := r.At.Position; p > base.Position && p <= upto.Position {
					held[p] = append(held[p], *r)
				}
				if r.At.Position == upto.Position && r.At.Chain == upto.Chain {
					cancel()
				}
			}
			return nil
		},
	})
	if err != nil {
		return nil, err
	}
	var orphans []freehold.Recorded
	chain := upto.Chain
	for p := upto.Position; p > base.Position; p-- {
		i := slices.IndexFunc(held[p], func(r freehold.Recorded) bool { return r.At.Chain == chain })
		if i < 0 {
			err = errNoOrphans
			break
		}
		r := held[p][i]
		orphans = append(orphans, r)
		chain = base.Chain
		if p-1 == base.Position {
			if r.At.Chain != journal.Chain(chain, p, r.Digest) {
				err = fmt.Errorf("inbox: position %d of %s does not follow the base at %d", p, s.name, base.Position)
			}
			break
		}
		before := slices.IndexFunc(held[p-1], func(b freehold.Recorded) bool { return r.At.Chain == journal.Chain(b.At.Chain, p, r.Digest) })
		if before < 0 {
			err = errNoOrphans
			break
		}
		chain = held[p-1][before].At.Chain
	}
	slices.Reverse(orphans)
	s.types.Bind(orphans)
	return orphans, err
}
