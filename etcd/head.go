package etcd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/freehold-go/freehold"
)

// stale is for how long a snapshot is taken for the head without being asked for:
// members forget old revisions.
const stale = time.Second

// readHead asks the members for the head.
func (db *DB) readHead(ctx context.Context) (head, error) {
	resp, err := db.client.Get(ctx, db.key(kindHead))
	if err != nil {
		return head{}, err
	}
	if len(resp.Kvs) == 0 {
		return head{}, fmt.Errorf("the journal has no head: the prefix was deleted while it was in use: restore the cluster from a snapshot")
	}
	h, err := db.decodeHead(resp.Kvs[0].Value)
	h.modified, h.at = resp.Kvs[0].ModRevision, resp.Header.Revision
	return h, err
}

// putHead writes a head, and the format of the journal if it is another one than before.
func (db *DB) putHead(was, h head) []clientv3.Op {
	ops := []clientv3.Op{clientv3.OpPut(db.key(kindHead), encodeHead(h))}
	if h.format != was.format {
		raw, err := json.Marshal(meta{h.format, db.name, db.epoch})
		if err != nil {
			panic(err) // texts and a number
		}
		ops = append(ops, clientv3.OpPut(db.key(kindJournal), string(raw)))
	}
	return ops
}

// publish makes a head known to readers, unless they know a newer one.
func (db *DB) publish(h head) {
	db.mu.Lock()
	defer db.mu.Unlock()
	if db.closed || db.latched != nil || h.modified < db.durable.modified {
		return
	}
	db.checked = time.Now()
	h.at = max(h.at, db.durable.at) // a watch tells of a head when it was written
	moved := h.mark != db.durable.mark
	db.durable = h
	if moved {
		close(db.news)
		db.news = make(chan struct{})
	}
}

// known returns the head as readers know it, and what is closed when it moves.
func (db *DB) known() (h head, news <-chan struct{}, checked time.Time, err error) {
	db.mu.Lock()
	defer db.mu.Unlock()
	if db.closed {
		return h, nil, checked, fmt.Errorf("etcd: %s: %w", db.name, freehold.ErrClosed)
	}
	if db.latched != nil {
		return h, nil, checked, db.latched
	}
	return db.durable, db.news, db.checked, nil
}

// fresh returns the head, asking for it if that is long ago.
func (db *DB) fresh(ctx context.Context) (head, error) {
	h, _, checked, err := db.known()
	if err != nil || time.Since(checked) < stale {
		return h, err
	}
	return db.refresh(ctx)
}

// refresh asks for the head.
func (db *DB) refresh(ctx context.Context) (head, error) {
	was, _, _, err := db.known()
	if err != nil {
		return was, err
	}
	asking, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	h, err := db.readHead(asking)
	if err != nil {
		if ctx.Err() != nil {
			return h, ctx.Err()
		}
		return h, db.wrap(err)
	}
	if err := db.compare(was, h); err != nil {
		return h, err
	}
	db.publish(h)
	return h, nil
}

// compare holds a head that members have just told against one that was known before
// they were asked. If the cluster stands before that, it was restored from a snapshot:
// nothing more is read or written by this process, which has to start anew, so that
// others are asked what they have seen before anything is. It records the fork if it
// knows where the histories part.
func (db *DB) compare(was, now head) error {
	if now.at >= was.at && (now.mark.Position > was.mark.Position || now.mark.Position == was.mark.Position && now.mark.Chain == was.mark.Chain) {
		return nil
	}
	db.back.Do(func() {
		if err := db.wentBack(was, now); err != nil {
			db.opts.Log.Warn("that the database went back in time is not recorded by this process", "journal", db.name, "error", err)
		}
		db.mu.Lock()
		defer db.mu.Unlock()
		db.latched = fmt.Errorf("%w: etcd: %s at %s was restored to an older state: it stood at %d, now at %d: start the process anew, and see freehold forks",
			freehold.ErrLatched, db.name, db.at.shown, was.mark.Position, now.mark.Position)
		db.opts.Log.Error("database latched", "journal", db.name, "error", db.latched)
		close(db.news)
		db.news = make(chan struct{})
	})
	db.mu.Lock()
	defer db.mu.Unlock()
	return db.latched
}

// watch learns of other processes' commits. Beneath it the head is asked for now
// and then, for a watch on a cluster that went back hears nothing. It watches from where
// the head was last seen: others than this journal's processes may write to the cluster,
// so that members have long forgotten when an idle journal's head was written.
func (db *DB) watch(ctx context.Context) {
	defer close(db.watched)
	ticker := time.NewTicker(stale)
	defer ticker.Stop()
	tick := 0
	for ctx.Err() == nil {
		h, _, _, err := db.known()
		if err != nil {
			return
		}
		watching, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
		changes := db.client.Watch(watching, db.key(kindHead), clientv3.WithRev(h.at+1))
		for open := true; open; {
			select {
			case resp, ok := <-changes:
				if open = ok && resp.Err() == nil; !open {
					if errors.Is(resp.Err(), rpctypes.ErrCompacted) {
						_, _ = db.refresh(ctx) // else the next watch ends in the same way
					}
					break
				}
				if n := len(resp.Events); n > 0 && resp.Events[n-1].Type == clientv3.EventTypePut {
					last := resp.Events[n-1].Kv
					if h, err := db.decodeHead(last.Value); err == nil {
						h.modified, h.at = last.ModRevision, last.ModRevision
						db.publish(h)
					}
				}
			case <-ticker.C:
				if tick++; tick%10 == 0 || db.Size().near() { // also while commits tell the head
					if err := db.measure(ctx); err != nil && ctx.Err() == nil {
						db.opts.Log.Debug("etcd: sizes not known", "journal", db.name, "error", err)
					}
				}
				if _, _, checked, err := db.known(); err != nil || time.Since(checked) < stale {
					continue
				}
				_, err := db.refresh(ctx)
				open = err == nil
			case <-ctx.Done():
				open = false
			}
		}
		cancel()
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// wait returns when the head is beyond a position.
func (db *DB) wait(ctx context.Context, after freehold.Position) error {
	for {
		h, news, _, err := db.known()
		if err != nil || h.mark.Position > after {
			return err
		}
		select {
		case <-news:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// errMoved says that the head is another one than the writer had computed from.
var errMoved = errors.New("etcd: another process has committed")
