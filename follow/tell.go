package follow

import "github.com/freehold-go/freehold"

// tell lets a source know which of its events are applied for good, if it wants to
// know: a journal that is cut keeps what its followers still need. Marks in memory are
// not told, for nobody goes on from them.
func (f *Follower) tell(fd *feed, place freehold.Mark) {
	sink, ok := f.sink.(interface {
		stored(at freehold.Mark) freehold.Mark
	})
	if !ok {
		return
	}
	if s, ok := fd.source.(interface {
		Applied(follower string, at freehold.Mark)
	}); ok {
		s.Applied(f.name, sink.stored(place))
	}
}
