package etcd

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/journal"
)

// callTimeout is for how long the answer to a commit is waited for; patience, for
// how long its outcome is looked for behind that.
const (
	callTimeout = 5 * time.Second
	patience    = 10 * time.Second
)

// errCommit is the error of commits that fail on purpose, in tests.
var errCommit = errors.New("etcd: the commit fails on purpose")

// definite reports whether an error says that a commit was not done. That there is no
// space does not: a member that reaches its quota with a commit does it and says so.
func definite(err error) bool {
	if errors.Is(err, rpctypes.ErrNoSpace) {
		return false
	}
	var e rpctypes.EtcdError
	if errors.As(err, &e) {
		switch e.Code() {
		case codes.InvalidArgument, codes.PermissionDenied, codes.Unauthenticated, codes.ResourceExhausted, codes.FailedPrecondition, codes.OutOfRange:
			return true
		}
	}
	return false
}

// outcome finds out what became of a commit that has failed without one: nil if it
// was done, errMoved if it was not and the closures should run again.
func (db *DB) outcome(id string, failure error) error {
	if errors.Is(failure, rpctypes.ErrNoSpace) { // an answer: it is not under way any more
		switch done, err := db.own(id); {
		case err == nil && done:
			return nil
		case err == nil:
			return db.wrap(failure)
		}
	}
	done, err := db.settle(id)
	switch {
	case err != nil:
		db.uncertain = id
		return fmt.Errorf("etcd: %s: %w (%w)", db.name, freehold.ErrUnknown, failure)
	case !done:
		return errMoved // fenced: it will never be done
	}
	db.opts.Log.Warn("a commit was done, its answer was lost", "journal", db.name, "error", failure)
	return nil
}

// own reports whether the last commit under the writer's own key is the one.
func (db *DB) own(id string) (bool, error) {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	resp, err := db.client.Get(ctx, db.key(db.self))
	if err != nil || len(resp.Kvs) == 0 || string(resp.Kvs[0].Value) != id {
		return false, err
	}
	db.selfAt = resp.Kvs[0].ModRevision
	return true, nil
}

// settle finds out whether a commit of this process was done. If it was not, it
// never will be: the writer's own key, which the commit compares, is written anew.
func (db *DB) settle(id string) (done bool, err error) {
	until := time.Now().Add(patience)
	if db.opts.patience > 0 {
		until = time.Now().Add(db.opts.patience)
	}
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
		resp, err := db.client.Txn(ctx).If(clientv3.Compare(clientv3.Value(db.key(db.self)), "=", id)).
			Then(clientv3.OpGet(db.key(db.self))).
			Else(clientv3.OpPut(db.key(db.self), "fence "+journal.NewID())).Commit()
		cancel()
		switch {
		case err == nil && resp.Succeeded:
			db.selfAt = resp.Responses[0].GetResponseRange().Kvs[0].ModRevision
			return true, nil
		case err == nil:
			db.selfAt = resp.Header.Revision
			return false, nil
		case errors.Is(err, rpctypes.ErrNoSpace): // nothing can be fenced, but what was done is seen
			if done, err := db.own(id); err == nil && done {
				return true, nil
			}
		}
		if time.Now().After(until) {
			return false, err
		}
		time.Sleep(pause)
	}
}

// reload makes the members' head the one that the next commit is computed from.
func (db *DB) reload() error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	seen, _, _, err := db.known() // by readers: others may have written since this process did
	if err != nil {
		return err
	}
	h, err := db.readHead(ctx)
	if err != nil {
		return db.wrap(err)
	}
	own, err := db.client.Get(ctx, db.key(db.self))
	if err != nil {
		return db.wrap(err)
	}
	// Others may have written since a restore, up to where this process was and beyond,
	// but nobody else writes its own key.
	if len(own.Kvs) == 0 || own.Kvs[0].ModRevision < db.selfAt {
		h.at = 0
	}
	for _, was := range []head{db.base, seen} {
		if err := db.compare(was, h); err != nil {
			return err
		}
	}
	db.selfAt = own.Kvs[0].ModRevision
	db.rebase(h)
	return nil
}

// away reports whether an error says that members do not answer, or will not work just
// now.
func away(err error) bool {
	if errors.Is(err, context.DeadlineExceeded) {
		return true
	}
	var e rpctypes.EtcdError
	if errors.As(err, &e) {
		return e.Code() == codes.Unavailable || e.Code() == codes.DeadlineExceeded || e.Code() == codes.ResourceExhausted
	}
	code := status.Code(err)
	return code == codes.Unavailable || code == codes.DeadlineExceeded
}

// hint says what to do about an error of the members.
func hint(err error) error {
	text := err.Error()
	for _, h := range []struct{ contains, say string }{
		{"database space exceeded", "the members' quota is used up: compact and defragment them, raise --quota-backend-bytes, and disarm the alarm with etcdctl"},
		{"too many operations", "say in the URL how many operations the members take in a transaction: max-txn-ops=N, as they were started with"},
		{"invalid user name or password", "check user and password in the URL"},
		{"authentication failed", "check user and password in the URL"},
		{"permission denied", "give the user readwrite on the prefix"},
		{"user name is empty", "the members want a user: give user and password in the URL"},
		{"context deadline exceeded", "no member answers, or a majority of them is away: check the hosts"},
		{"no leader", "a majority of the members is away: start them"},
	} {
		if strings.Contains(text, h.contains) {
			return &hinted{err, h.say}
		}
	}
	return err
}

// hinted is an error with what to do about it.
type hinted struct {
	error
	say string
}

func (h *hinted) Error() string { return h.error.Error() + ": " + h.say }
func (h *hinted) Unwrap() error { return h.error }
