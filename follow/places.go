package follow

import (
	"context"
	"slices"
	"strconv"
	"strings"

	"github.com/freehold-go/freehold"
)

// Places lists where the followers of a database stand in a source, by name. One that
// has lanes stands where all of them have applied everything: a lane's own mark says
// where its last event was, which may be long ago. Engines whose journal is cut call it.
func Places(ctx context.Context, k Keeper, s freehold.Source) ([]Place, error) {
	all, err := k.Marks(ctx)
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(p Place) bool { return p.Mark.Source != s })
	if w, ok := k.(interface {
		Warm(ctx context.Context, h Hints) error
	}); ok {
		h := Hints{Kept: map[string][]string{}}
		for _, p := range all {
			h.Kept[lanesSpace(p.Follower, s)] = []string{lanesKey}
		}
		if err := w.Warm(ctx, h); err != nil {
			return nil, err
		}
	}
	var places []Place
	for _, p := range all {
		lane, err := isLane(ctx, k, p)
		if err != nil {
			return nil, err
		}
		if lane {
			continue
		}
		if p.Mark, _, err = placeFrom(ctx, k, p.Follower, p.Mark); err != nil {
			return nil, err
		}
		places = append(places, p)
	}
	return places, nil
}

// isLane reports whether a mark is that of a lane of another follower, also if that one
// has no lanes any more. A follower of its own may have such a name.
func isLane(ctx context.Context, k Keeper, p Place) (bool, error) {
	i := strings.LastIndex(p.Follower, "/lane/")
	if i < 0 {
		return false, nil
	}
	of := p.Follower[:i]
	if n, err := strconv.Atoi(p.Follower[i+len("/lane/"):]); err != nil || laneName(of, n) != p.Follower {
		return false, nil
	}
	_, found, err := k.Get(ctx, lanesSpace(of, p.Mark.Source), lanesKey)
	return found, err
}
