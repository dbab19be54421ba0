package cache

import "github.com/freehold-go/freehold"

// source is what a cache knows of one journal. Cache.mu guards it.
type source[K comparable] struct {
	seen  freehold.Mark           // the newest event applied
	floor freehold.Position       // fills that are older cannot be judged
	last  map[K]freehold.Position // of the last invalidation of a key
	order []invalidation[K]       // those of last, oldest first, with others that are no longer the last
}

type invalidation[K comparable] struct {
	key K
	at  freehold.Position
}

// newSource begins at a place: nothing is known of what was before it.
func newSource[K comparable](at freehold.Mark) *source[K] {
	return &source[K]{seen: at, floor: at.Position, last: map[K]freehold.Position{}}
}

// allows reports whether a fill that was read at a place surely misses nothing.
func (s *source[K]) allows(key K, at freehold.Mark) bool {
	return at.Epoch == s.seen.Epoch && at.Position >= s.floor && at.Position >= s.last[key]
}

// invalidated notes an invalidation. If there are too many, the oldest are forgotten,
// and the floor rises to them.
func (s *source[K]) invalidated(key K, at freehold.Position, limit int) {
	s.last[key] = at
	s.order = append(s.order, invalidation[K]{key, at})
	for len(s.order) > limit {
		oldest := s.order[0]
		s.order = s.order[1:]
		if s.last[oldest.key] == oldest.at {
			delete(s.last, oldest.key)
			s.floor = max(s.floor, oldest.at)
		}
	}
}
