package nats

import (
	"context"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/freehold-go/freehold"
)

// LastOf reads the last event of a stream as a publisher does.
func LastOf(ctx context.Context, stream jetstream.Stream, s freehold.Source) (freehold.Recorded, bool, error) {
	return last(ctx, stream, s)
}
