package etcd_test

import (
	"context"
	"errors"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/etcd"
	"github.com/freehold-go/freehold/internal/testdb"
	"github.com/freehold-go/freehold/journal/journaltest"
	"github.com/freehold-go/freehold/kv"
)

// errLost is what a client gets when the connection breaks.
var errLost = status.Error(codes.Unavailable, "transport is closing")

// wire is what stands between the engine and the members. Its fields may be changed
// while it is used.
type wire struct {
	commit atomic.Pointer[grpc.UnaryClientInterceptor] // for commits that write events
	other  atomic.Pointer[grpc.UnaryClientInterceptor] // for all other requests
	seen   atomic.Int64                                // commits
}

func (w *wire) call(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	next := w.other.Load()
	if txn, ok := req.(*etcdserverpb.TxnRequest); ok && len(txn.Success) > 2 {
		w.seen.Add(1)
		next = w.commit.Load()
	}
	if next == nil {
		return invoke(ctx, method, req, reply, cc, opts...)
	}
	return (*next)(ctx, method, req, reply, cc, invoke, opts...)
}

// first lets an interceptor have the first call only.
func first(fn grpc.UnaryClientInterceptor) *grpc.UnaryClientInterceptor {
	var called atomic.Bool
	var once grpc.UnaryClientInterceptor = func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		if called.Swap(true) {
			return invoke(ctx, method, req, reply, cc, opts...)
		}
		return fn(ctx, method, req, reply, cc, invoke, opts...)
	}
	return &once
}

func through(t *testing.T, w *wire, patience time.Duration) *etcd.DB {
	t.Helper()
	db, err := etcd.Open(t.Context(), testdb.Etcd(t), "test", journaltest.Types(t), etcd.Options{Log: quiet}.Through(w.call, patience))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

// add is a closure that counts in the state what it appends to the journal.
func add(n int) func(context.Context, kv.Tx) error {
	return func(ctx context.Context, tx kv.Tx) error {
		if _, err := tx.Add(ctx, "count", 1, 0); err != nil {
			return err
		}
		_, err := tx.Append(ctx, freehold.Stream("a", strconv.Itoa(n)), freehold.NoStream, journaltest.Happened{N: n})
		return err
	}
}

// wantEvents checks that the journal holds so many events, each once, and that the
// state agrees.
func wantEvents(t *testing.T, db *etcd.DB, want int) {
	t.Helper()
	head, err := db.Journal().Verify(t.Context(), freehold.Mark{}, nil)
	if err != nil {
		t.Error(err)
	}
	if int(head.Position) != want {
		t.Errorf("%d events, %d were acknowledged", head.Position, want)
	}
	err = db.View(t.Context(), func(ctx context.Context, tx kv.Tx) error {
		v, _, err := tx.Get(ctx, "count")
		if n, _ := strconv.Atoi(string(v)); n != want {
			t.Errorf("the count is %q, want %d", v, want)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// together runs n updates at the same time and returns their errors.
func together(t *testing.T, db *etcd.DB, from, n int) []error {
	t.Helper()
	errs := make([]error, n)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { _, errs[i] = db.Update(t.Context(), add(from+i)) })
	}
	all.Wait()
	return errs
}

// TestLostAnswersHaveOneEffect loses the answer to a commit in every way, and counts.
func TestLostAnswersHaveOneEffect(t *testing.T) {
	t.Parallel()
	type interceptor = grpc.UnaryClientInterceptor
	var done interceptor = func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		if err := invoke(ctx, method, req, reply, cc, opts...); err != nil {
			return err
		}
		return errLost
	}
	var dropped interceptor = func(context.Context, string, any, any, *grpc.ClientConn, grpc.UnaryInvoker, ...grpc.CallOption) error {
		return errLost
	}
	var full interceptor = func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		if err := invoke(ctx, method, req, reply, cc, opts...); err != nil {
			return err
		}
		return rpctypes.ErrGRPCNoSpace // a member that reaches its quota with a commit does it and says so
	}
	for name, c := range map[string]struct {
		commit interceptor
		reads  bool // the next read fails as well
	}{
		"the commit was done": {commit: done},
		"the commit was done and what is asked next is refused": {commit: done, reads: true},
		"the commit was not done":                               {commit: dropped},
		"the commit was the last that the quota admits":         {commit: full},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := &wire{}
			db := through(t, w, 0)
			acknowledged := 0
			for round := range 4 {
				w.commit.Store(first(c.commit))
				if c.reads {
					var refuse interceptor = func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
						if method == etcdserverpb.KV_Range_FullMethodName {
							return rpctypes.ErrGRPCPermissionDenied
						}
						return invoke(ctx, method, req, reply, cc, opts...)
					}
					w.other.Store(first(refuse))
				}
				for i, err := range together(t, db, 16*round, 16) {
					switch {
					case err == nil:
						acknowledged++
					case !c.reads:
						t.Errorf("update %d: %v", i, err)
					}
				}
				w.other.Store(nil)
			}
			wantEvents(t, db, acknowledged)
		})
	}
}

// TestCommitUnderWayNeverHappensBehindItsFence lets a commit arrive when its closures
// have run again and were committed under another id.
func TestCommitUnderWayNeverHappensBehindItsFence(t *testing.T) {
	t.Parallel()
	w := &wire{}
	db := through(t, w, 0)
	var arrived sync.WaitGroup
	late := make(chan struct{})
	w.commit.Store(first(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		arrived.Go(func() {
			<-late
			resp := &etcdserverpb.TxnResponse{}
			if err := invoke(context.WithoutCancel(ctx), method, req, resp, cc); err != nil || resp.Succeeded {
				t.Errorf("the commit under way: done is %v, %v, want a condition that does not hold", resp.Succeeded, err)
			}
		})
		return errLost
	}))
	for _, err := range together(t, db, 0, 8) {
		if err != nil {
			t.Error(err)
		}
	}
	close(late)
	arrived.Wait()
	wantEvents(t, db, 8)
}

// TestUnknownOutcomeIsSaidAndLookedForBeforeTheNextCommit cuts the members off behind
// a commit for longer than its outcome is looked for.
func TestUnknownOutcomeIsSaidAndLookedForBeforeTheNextCommit(t *testing.T) {
	t.Parallel()
	for _, done := range []bool{true, false} {
		t.Run("done is "+strconv.FormatBool(done), func(t *testing.T) {
			t.Parallel()
			w := &wire{}
			db := through(t, w, 50*time.Millisecond)
			if _, err := db.Update(t.Context(), add(0)); err != nil {
				t.Fatal(err)
			}
			var cut grpc.UnaryClientInterceptor = func(context.Context, string, any, any, *grpc.ClientConn, grpc.UnaryInvoker, ...grpc.CallOption) error {
				return errLost
			}
			w.commit.Store(first(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
				w.other.Store(&cut)
				if done {
					if err := invoke(ctx, method, req, reply, cc, opts...); err != nil {
						t.Error(err)
					}
				}
				return errLost
			}))
			// All of them share a commit: they queue behind a closure that holds the writer.
			// Those whose work may be done are told that it is unknown; whoever only read,
			// that it was not told.
			const writing, reading = 8, 4
			var all sync.WaitGroup
			var unknown, refused atomic.Int64
			_, err := db.Update(t.Context(), func(context.Context, kv.Tx) error {
				for i := range writing + reading {
					all.Go(func() {
						_, err := db.Update(t.Context(), func(ctx context.Context, tx kv.Tx) error {
							if i%3 == 0 {
								_, err := tx.Append(ctx, "a-0", freehold.At(7))
								return err
							}
							return add(100+i)(ctx, tx)
						})
						switch {
						case errors.As(err, new(*freehold.Conflict)):
							t.Errorf("told of a conflict while nobody knows what is committed: %v", err)
						case errors.Is(err, freehold.ErrUnknown) && i%3 != 0:
							unknown.Add(1)
						case errors.Is(err, freehold.ErrUnavailable) && i%3 == 0:
							refused.Add(1)
						default:
							t.Errorf("update %d: %v", i, err)
						}
					})
				}
				for db.Waiting() < writing+reading {
					runtime.Gosched()
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
			all.Wait()
			if unknown.Load() != writing || refused.Load() != reading {
				t.Errorf("%d were told that the outcome is unknown, %d that they cannot be told, want %d and %d", unknown.Load(), refused.Load(), writing, reading)
			}
			// Nor is anybody told anything who comes before the outcome is known.
			for i, late := range []func(context.Context, kv.Tx) error{add(200), func(ctx context.Context, tx kv.Tx) error {
				_, err := tx.Append(ctx, "a-0", freehold.At(7))
				return err
			}} {
				if _, err := db.Update(t.Context(), late); !errors.Is(err, freehold.ErrUnavailable) {
					t.Errorf("update %d behind the unknown one: %v, want ErrUnavailable", i, err)
				}
			}
			w.other.Store(nil)
			if _, err := db.Update(t.Context(), add(1)); err != nil {
				t.Errorf("when the members are back: %v", err)
			}
			want := 2
			if done {
				want += writing
			}
			wantEvents(t, db, want)
		})
	}
}

// TestErrorsOfTheMembersCannotBeSwallowed: a closure that goes on without what it
// could not read is not committed.
func TestErrorsOfTheMembersCannotBeSwallowed(t *testing.T) {
	t.Parallel()
	w := &wire{}
	db := through(t, w, 0)
	var refuse grpc.UnaryClientInterceptor = func(_ context.Context, _ string, _, _ any, _ *grpc.ClientConn, _ grpc.UnaryInvoker, _ ...grpc.CallOption) error {
		return rpctypes.ErrGRPCPermissionDenied
	}
	_, err := db.Update(t.Context(), func(ctx context.Context, tx kv.Tx) error {
		w.other.Store(first(refuse))
		_, _, _ = tx.Get(ctx, "never read before")
		return tx.Put(ctx, "k", []byte("v"))
	})
	if err == nil {
		t.Error("committed on what was not read")
	}
	err = db.View(t.Context(), func(ctx context.Context, tx kv.Tx) error {
		if _, found, err := tx.Get(ctx, "k"); found || err != nil {
			t.Errorf("k is there: %v, %v", found, err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
