package follow

import (
	"context"
	"sync"

	"github.com/freehold-go/freehold"
)

// Sink is where a follower's effects and its mark are. There are three kinds:
// the database ([New]), memory ([Observe]), and others such as a broker ([Into]).
type Sink interface {
	// Mark returns the place behind which to go on in a source. It is asked at the
	// start and after every error.
	Mark(ctx context.Context, s freehold.Source) (freehold.Mark, error)
	// Apply takes the events that stand directly behind from. After an error the
	// follower pauses, asks Mark again and continues there.
	Apply(ctx context.Context, from freehold.Mark, events []freehold.Recorded) error
}

// Into returns a follower with a sink of the caller's own.
func Into(name string, sources []Source, sink Sink, opts *Options) *Follower {
	return newFollower(name, sources, sink, opts)
}

// Observe returns a follower whose mark is in memory: it begins at each source's
// head when it starts, and is for what holds no state across restarts, such as
// caches and live pages. fn gets events of one source at a time, in order,
// placeholders included; the first thing that it gets is a placeholder at the head
// where it begins, without a digest. If a source has cut events that it has not read yet,
// it begins again in this way.
func Observe(name string, sources []Source, fn func(ctx context.Context, rs []freehold.Recorded) error) *Follower {
	return newFollower(name, sources, &memorySink{sources: sources, fn: fn, marks: map[freehold.Source]freehold.Mark{}}, nil)
}

type memorySink struct {
	sources []Source
	fn      func(context.Context, []freehold.Recorded) error
	mu      sync.Mutex
	marks   map[freehold.Source]freehold.Mark
}

func (m *memorySink) Mark(ctx context.Context, name freehold.Source) (freehold.Mark, error) {
	m.mu.Lock()
	mark, ok := m.marks[name]
	m.mu.Unlock()
	if ok {
		return mark, nil
	}
	for _, s := range m.sources {
		if s.Name() == name {
			_, head, err := s.Bounds(ctx)
			if err != nil {
				return mark, err
			}
			if err := m.fn(ctx, []freehold.Recorded{{At: head, Internal: true, Last: true}}); err != nil {
				return head, err
			}
			m.set(head)
			return head, nil
		}
	}
	return freehold.Mark{Source: name}, nil
}

func (m *memorySink) Apply(ctx context.Context, _ freehold.Mark, events []freehold.Recorded) error {
	if err := m.fn(ctx, events); err != nil {
		return err
	}
	m.set(events[len(events)-1].At)
	return nil
}

// beginAgain has the follower begin at the head once more.
func (m *memorySink) beginAgain(s freehold.Source) {
	m.mu.Lock()
	delete(m.marks, s)
	m.mu.Unlock()
}

func (m *memorySink) set(at freehold.Mark) {
	m.mu.Lock()
	m.marks[at.Source] = at
	m.mu.Unlock()
}
