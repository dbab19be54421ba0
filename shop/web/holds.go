package web

import (
	"context"
	"fmt"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/journal"
)

// Holds checks that a service's own journal has what a token asks of it.
func Holds(ctx context.Context, own *journal.Journal, tok freehold.Token) error {
	for _, want := range tok.Of(own.Name()) {
		_, head, err := own.Bounds(ctx)
		if err == nil && want.Position > head.Position {
			_, head, err = own.Fresh(ctx) // another instance may have written it
		}
		switch {
		case err != nil:
			return err
		case want.Epoch != head.Epoch: // good up to where it ended
			if _, err := own.Translate(ctx, freehold.NewToken(want)); err != nil {
				return err
			}
		case want.Position > head.Position:
			return fmt.Errorf("%s is at %d, the token asks for %d: %w", own.Name(), head.Position, want.Position, freehold.ErrBehind)
		}
	}
	return nil
}
