package etcd

import (
	"context"
	"time"

	"github.com/freehold-go/freehold"

	"google.golang.org/grpc"
)

// FailCommits makes the next n commits fail before they are sent.
func (db *DB) FailCommits(n int) { db.failCommits.Store(int64(n)) }

// Waiting is how many callers wait for the writer.
func (db *DB) Waiting() int { return db.queue.Waiting() }

// CutNow cuts what is older, once.
func (db *DB) CutNow(ctx context.Context, retain time.Duration) (freehold.Mark, error) {
	return db.cut(ctx, retain)
}

// Telling returns options for a database that writes down soon where consumers are.
func (o Options) Telling() *Options {
	o.told = time.Millisecond
	return &o
}

// Through returns options for a database whose calls go through an interceptor, and
// which looks for lost outcomes for so long.
func (o Options) Through(call grpc.UnaryClientInterceptor, patience time.Duration) *Options {
	o.dial, o.patience = []grpc.DialOption{grpc.WithChainUnaryInterceptor(call)}, patience
	return &o
}

// Streaming returns options for a database whose streams go through an interceptor, too.
func (o Options) Streaming(open grpc.StreamClientInterceptor) *Options {
	o.dial = append(o.dial, grpc.WithChainStreamInterceptor(open))
	return &o
}
