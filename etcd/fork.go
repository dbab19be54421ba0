package etcd

import (
	"context"
	"encoding/json"
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/internal/overlay"
	"github.com/freehold-go/freehold/journal"
	"github.com/freehold-go/freehold/kv"
)

func (s store) Forks(ctx context.Context) (journal.Forks, error) { return follow.Forks(ctx, s.db) }

// PutFork begins the epoch with the head that the commit writes, so that every process
// learns it with the head.
func (s store) PutFork(ctx context.Context, f journal.Fork) error {
	return follow.PutFork(ctx, s.db, f, func(context.Context, kv.Tx) error {
		if s.db.tail.Head().Epoch != f.Ended[0] {
			return freehold.ErrFenced
		}
		s.db.tail.Turn(f.Epoch)
		return nil
	})
}

// wentBack records that the cluster went back to a head, so that other processes of the
// service, which may not know, ask who has seen what was lost, and tokens of it are
// refused. It does so only if this one remembers the way from that head to where it was:
// then the histories part there. If somebody has written on since, it cannot tell where.
// A process that was open when the snapshot was taken, and has not heard of what was
// lost, writes on under the opening that the head names, so that openings prove nothing;
// and a base above the place at which histories part would take what was lost for shared.
// The process that starts next asks others.
func (db *DB) wentBack(was, now head) error {
	if was.mark.Epoch != now.mark.Epoch || !db.journal.Leads(now.mark, was.mark) {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	space := overlay.Keep + follow.ForkSpace + "\x00"
	resp, err := db.client.Get(ctx, db.key(space), clientv3.WithRange(db.key(overlay.Behind(space))), clientv3.WithCountOnly())
	if err != nil {
		return err
	}
	number := int(resp.Count) + 1
	f := journal.Fork{
		Number: number, Epoch: journal.ForkEpoch(number), Ended: []freehold.Epoch{now.mark.Epoch}, Base: now.mark, Time: journal.Now(),
		Reason: fmt.Sprintf("a process of the service knew %s (%s), the cluster ends at %d", was.mark, was.mark.Chain, now.mark.Position),
	}
	f.Base.Epoch = f.Epoch
	raw, err := json.Marshal(f)
	if err != nil {
		return err
	}
	next, key := now, db.key(space+follow.ForkKey(number))
	next.mark.Epoch = f.Epoch
	next.format = db.formatOf(next)
	txn, err := db.client.Txn(ctx).If(
		clientv3.Compare(clientv3.ModRevision(db.key(kindHead)), "=", now.modified), // nobody has written, or was faster
		clientv3.Compare(clientv3.CreateRevision(key), "=", 0),
	).Then(append(db.putHead(now, next), clientv3.OpPut(key, string(raw)))...).Commit()
	if err == nil && txn.Succeeded {
		db.opts.Log.Error("the database went back in time: a fork is recorded", "journal", db.name, "epoch", f.Epoch, "base", f.Base.Position, "reason", f.Reason)
	}
	return err
}
