package follow

import (
	"context"
	"fmt"

	"github.com/freehold-go/freehold"
)

// Skip lets a follower whose source has cut events that it has not applied begin behind
// these: its mark is moved to where the source begins now. What it would have done with
// them is not done, which is put on record; tokens of them are satisfied. It works only
// while the source is stopped for that reason, and returns the new mark.
func (f *Follower) Skip(ctx context.Context, s freehold.Source) (freehold.Mark, error) {
	return f.decide(ctx, s, Skipped)
}

// Cut reports whether it is what the source has cut.
func (l *Lost) Cut() bool { return l.Base.Position > l.Mark.Position }

// cut finds where the source begins, above a place.
func (fd *feed) cut(ctx context.Context, place freehold.Mark) (first freehold.Mark, err error) {
	first, _, err = Fresh(ctx, fd.source)
	switch {
	case err != nil:
		return place, err
	case first.Position <= place.Position:
		return place, fmt.Errorf("follow: %s begins behind %d, and there are effects up to %d: nothing to skip", first.Source, first.Position, place.Position)
	case first.Chain == freehold.Hash{}:
		return place, fmt.Errorf("follow: %s does not tell its hash at %d, where it begins: upgrade it", first.Source, first.Position)
	}
	return first, nil
}
