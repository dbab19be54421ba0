package inbox_test

import (
	"context"
	"testing"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/memory"
	"github.com/freehold-go/freehold/transport"
)

// beating is a broker that has lost its events and goes on carrying heartbeats.
type beating struct{ s *sender }

func (b beating) Subscribe(ctx context.Context, _ freehold.Source, _ freehold.Mark, h transport.Handler) error {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		b.s.mu.Lock()
		j := b.s.db.Journal()
		b.s.mu.Unlock()
		_, head, err := j.Bounds(ctx)
		if err != nil {
			return err
		}
		all, err := j.Incarnations(ctx)
		if err != nil {
			return err
		}
		h.Head(transport.Head{Mark: head, Incarnation: all[len(all)-1].ID})
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// A source put back to an older state that keeps beating is never silent: its
// heartbeats themselves must lead its consumers to the feed, also when several
// followers, in front and behind, share what is known of the source.
func TestSourceRestoredIsRecognisedByItsHeartbeats(t *testing.T) {
	t.Parallel()
	for name, more := range map[string]int{"and silent": 0, "and written on": 1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			disk := memory.NewDisk()
			s := newSender(t, disk)
			s.place(t, 1, 2)
			backup := disk.Clone()
			tok := s.place(t, 3, 4, 5)
			src := remote(t, s, beating{s})
			var followers []*follow.Follower
			for range 4 {
				f := receiver(t, own(t), src)
				wait(t, f, tok)
				followers = append(followers, f)
			}
			s.use(t, backup)
			for n := range more {
				s.place(t, 100+n)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			for i, f := range followers {
				for f.Status(ctx)[0].State != follow.Diverged {
					if ctx.Err() != nil {
						t.Fatalf("follower %d has not recognised it: %+v", i, f.Status(t.Context()))
					}
					time.Sleep(time.Millisecond)
				}
			}
		})
	}
}
