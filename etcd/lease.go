package etcd

import (
	"context"
	"errors"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// kindLease is the key of the instance that runs what only one runs, for as long as it
// keeps its etcd lease alive.
const kindLease = "l"

// leaseSeconds is how long a lease outlives an instance that was killed or stopped.
const leaseSeconds = 5

// Hold waits until this instance holds the database's lease, runs fn, and gives the
// lease up. It calls waits each time that it has asked and another instance holds it.
// The context of fn ends with ctx and when the lease may be lost. It returns nil when
// ctx has ended.
func (db *DB) Hold(ctx context.Context, waits func(), fn func(ctx context.Context)) error {
	if _, _, _, err := db.known(); err != nil {
		return err
	}
	grant, err := db.client.Grant(ctx, leaseSeconds)
	if err != nil {
		return ended(ctx, db.wrap(err))
	}
	defer func() {
		revoking, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		_, _ = db.client.Revoke(revoking, grant.ID) // it would end by itself
	}()
	alive, err := db.client.KeepAlive(ctx, grant.ID)
	if err != nil {
		return ended(ctx, db.wrap(err))
	}
	key := db.key(kindLease)
	for {
		resp, err := db.client.Txn(ctx).If(clientv3.Compare(clientv3.CreateRevision(key), "=", 0)).
			Then(clientv3.OpPut(key, db.self, clientv3.WithLease(grant.ID))).
			Else(clientv3.OpGet(key)).Commit()
		if err != nil {
			return ended(ctx, db.wrap(err))
		}
		if resp.Succeeded {
			break
		}
		waits()
		if err := db.awaitRelease(ctx, key, resp.Header.Revision, alive); err != nil {
			return ended(ctx, db.wrap(err))
		}
	}
	holding, lost := context.WithCancel(ctx)
	defer lost()
	done := make(chan struct{})
	go func() {
		defer close(done)
		fn(holding)
	}()
	renewed := time.NewTimer(leaseSeconds * time.Second)
	defer renewed.Stop()
	for {
		select {
		case _, ok := <-alive:
			if ok {
				renewed.Reset(leaseSeconds * time.Second)
				continue
			}
			alive = nil // ctx has ended, or the lease has
			lost()
		case <-renewed.C:
			lost()
		case <-done:
			if ctx.Err() == nil && holding.Err() != nil {
				return db.wrap(errLease)
			}
			return nil
		}
	}
}

// errLease says that the lease could not be kept alive.
var errLease = errors.New("lease lost: the members did not answer in time")

// awaitRelease waits until the lease's key is gone.
func (db *DB) awaitRelease(ctx context.Context, key string, revision int64, alive <-chan *clientv3.LeaseKeepAliveResponse) error {
	watching, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	changes := db.client.Watch(watching, key, clientv3.WithRev(revision+1))
	for {
		select {
		case resp, ok := <-changes:
			if !ok || resp.Err() != nil {
				return errors.Join(resp.Err(), ctx.Err())
			}
			for _, e := range resp.Events {
				if e.Type == clientv3.EventTypeDelete {
					return nil
				}
			}
		case _, ok := <-alive:
			if !ok {
				return errLease
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// ended is nil if ctx has ended, else err.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}
