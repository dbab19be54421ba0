package follow

import (
	"context"

	"github.com/freehold-go/freehold"
)

// A database that holds only what can be built again may be emptied, or go back to
// an older state, while its followers run. What they know in memory of their marks
// is not true then, and a follower that waits for its source would not find out.

// lost returns the channel that such a database closes when it has been found so; it
// is nil for others.
func (s *databaseSink[T]) lost() <-chan struct{} {
	if db, ok := s.db.(interface{ Lost() <-chan struct{} }); ok {
		return db.Lost()
	}
	return nil
}

// heed reads the marks again whenever the database has forgotten something, until ctx
// ends.
func (f *Follower) heed(ctx context.Context) {
	sink, ok := f.sink.(interface{ lost() <-chan struct{} })
	if !ok {
		return
	}
	for lost := sink.lost(); lost != nil; {
		select {
		case <-lost:
		case <-ctx.Done():
			return
		}
		lost = sink.lost() // before the marks are read, so that no loss is missed
		f.Reread()
	}
}

// Reread makes the follower read its marks again, because the database holds less
// than it did. Until it has, no token is satisfied. It reports whether the follower
// runs.
func (f *Follower) Reread() bool {
	all := true
	for _, fd := range f.feeds {
		all = fd.doubt() && all
	}
	return all
}

func (fd *feed) doubt() bool {
	fd.mu.Lock()
	defer fd.mu.Unlock()
	if fd.state == Stopped || fd.state == Failed {
		return false
	}
	fd.known, fd.reread = false, true
	if fd.wake != nil {
		fd.wake()
	}
	return true
}

// Holds reports whether the marks beside the effects, read in a transaction, are what
// a token asks for. If not, the database has forgotten something since the follower
// was there, and a read in the transaction would show too little.
func (f *Follower) Holds(ctx context.Context, k Keeper, tok freehold.Token) (bool, error) {
	for _, fd := range f.feeds {
		for _, want := range tok.Of(fd.source.Name()) {
			at, _, err := placeOf(ctx, k, f.name, fd.source.Name())
			if err != nil || at.Position < want.Position {
				return false, err
			}
		}
	}
	return true, nil
}
