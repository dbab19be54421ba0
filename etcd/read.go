package etcd

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/internal/overlay"
	"github.com/freehold-go/freehold/internal/record"
	"github.com/freehold-go/freehold/kv"
)

// get reads keys at a revision. The member that is asked answers if it has the
// revision; otherwise the leader is asked as well.
func (db *DB) get(ctx context.Context, at int64, key string, opts ...clientv3.OpOption) (*clientv3.GetResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	opts = append(opts, clientv3.WithRev(at))
	resp, err := db.client.Get(ctx, db.key(key), append(opts, clientv3.WithSerializable())...)
	if errors.Is(err, rpctypes.ErrFutureRev) {
		resp, err = db.client.Get(ctx, db.key(key), opts...)
	}
	return resp, err
}

// value reads a value at a head.
func (db *DB) value(ctx context.Context, at head, key string) (value []byte, found bool, err error) {
	if w, known := db.cache.get(at.modified, key); known {
		return slices.Clone(w.Value), !w.Deleted, nil
	}
	resp, err := db.get(ctx, at.at, key)
	if err != nil {
		return nil, false, db.wrap(err)
	}
	if len(resp.Kvs) > 0 {
		value, found = resp.Kvs[0].Value, true
	}
	db.cache.put(at.modified, key, overlay.Write{Value: slices.Clone(value), Deleted: !found})
	return value, found, nil
}

// scan reads up to limit items from lower up to upper.
func (db *DB) scan(ctx context.Context, at int64, lower, upper string, limit int) (items []kv.Item, more bool, err error) {
	resp, err := db.get(ctx, at, lower, clientv3.WithRange(db.key(upper)), clientv3.WithLimit(int64(limit)))
	if err != nil {
		return nil, false, db.wrap(err)
	}
	for _, pair := range resp.Kvs {
		items = append(items, kv.Item{Key: string(pair.Key[len(db.at.prefix):]), Value: pair.Value})
	}
	return items, resp.More && len(items) > 0, nil
}

// version reads a stream's version at the writer's base. A stream that is expected to
// be new is taken for new without asking: the commit has that as a condition.
func (db *DB) version(ctx context.Context, s freehold.StreamID) (freehold.Version, error) {
	if v, known := db.learned[s]; known {
		return v, nil
	}
	if db.guessing && len(db.guesses)+4 < db.at.ops {
		db.guesses[s] = true
		return 0, nil
	}
	_, upper := db.streamRange(s)
	resp, err := db.get(ctx, db.base.at, streamKey(s, 1), slices.Concat(newest, []clientv3.OpOption{clientv3.WithRange(upper)})...)
	if err != nil {
		return 0, db.wrap(err)
	}
	return db.versionOf(resp.Kvs)
}

// newest is the last key of a range.
var newest = []clientv3.OpOption{clientv3.WithSort(clientv3.SortByKey, clientv3.SortDescend), clientv3.WithLimit(1), clientv3.WithKeysOnly()}

// streamRange is where the entries of a stream are.
func (db *DB) streamRange(s freehold.StreamID) (lower, upper string) {
	return db.key(streamKey(s, 1)), db.key(kindStream + string(s) + "\x01")
}

// versionOf reads a stream's version from its newest entry.
func (db *DB) versionOf(kvs []*mvccpb.KeyValue) (freehold.Version, error) {
	if len(kvs) == 0 {
		return 0, nil
	}
	_, v, ok := streamOf(string(kvs[0].Key[len(db.at.prefix):]))
	if !ok {
		return 0, db.wrap(record.ErrDamaged)
	}
	return v, nil
}

// readStream reads up to limit events of a stream behind a version.
func (db *DB) readStream(ctx context.Context, at head, s freehold.StreamID, after freehold.Version, limit int) (rs []freehold.Recorded, err error) {
	lower, upper := streamKey(s, after+1), kindStream+string(s)+"\x01"
	for more := true; more && len(rs) < limit; {
		var entries []kv.Item
		if entries, more, err = db.scan(ctx, at.at, lower, upper, min(db.at.ops, 64)); err != nil {
			return nil, err
		}
		var wanted []places
		for _, entry := range entries {
			_, last, ok := streamOf(entry.Key)
			all := placesOf(entry.Value)
			n := freehold.Version(len(all))
			if !ok || n == 0 {
				return nil, db.wrap(record.ErrDamaged)
			}
			if all[0] <= at.first.Position {
				return nil, fmt.Errorf("etcd: stream %s of %s begins behind version %d, its older events were cut: %w", s, db.name, last, freehold.ErrGone)
			}
			skip := max(0, after-(last-n))
			if all = all[skip:]; len(all) > 0 {
				wanted = append(wanted, all)
			}
			lower = entry.Key + "\x00"
		}
		got, err := db.pick(ctx, at.at, wanted)
		if err != nil {
			return nil, err
		}
		rs = append(rs, got[:min(len(got), limit-len(rs))]...)
	}
	return rs, nil
}

// places are the positions of a commit's events in a stream.
type places []freehold.Position

func placesOf(value []byte) places {
	all := make(places, len(value)/8)
	for i := range all {
		all[i] = freehold.Position(number(string(value[8*i : 8*i+8])))
	}
	return all
}

// pick reads the events at places of some commits, with one request.
func (db *DB) pick(ctx context.Context, at int64, wanted []places) (rs []freehold.Recorded, err error) {
	if len(wanted) == 0 {
		return nil, nil
	}
	ops := make([]clientv3.Op, len(wanted))
	for i, of := range wanted {
		ops[i] = clientv3.OpGet(db.key(numbered(kindEvents, int64(of[0]))), clientv3.WithRange(db.key(overlay.Behind(kindEvents))),
			clientv3.WithLimit(1), clientv3.WithRev(at))
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	resp, err := db.client.Txn(ctx).Then(ops...).Commit()
	if err != nil {
		return nil, db.wrap(err)
	}
	for i, of := range wanted {
		kvs := resp.Responses[i].GetResponseRange().GetKvs()
		if len(kvs) == 0 {
			return nil, db.wrap(record.ErrDamaged)
		}
		all, err := db.decodeEvents(nil, freehold.Position(number(string(kvs[0].Key[len(db.at.prefix)+1:]))), kvs[0].Value)
		if err != nil {
			return nil, db.wrap(err)
		}
		for _, p := range of {
			k := int(p - all[0].At.Position)
			if k < 0 || k >= len(all) {
				return nil, db.wrap(record.ErrDamaged)
			}
			rs = append(rs, all[k])
		}
	}
	return rs, nil
}

// warm reads values at a head that are not known yet, with as few requests as the
// members admit.
func (db *DB) warm(ctx context.Context, at head, keys iter.Seq[string]) (read map[string]overlay.Write, err error) {
	read = map[string]overlay.Write{}
	var unknown []string
	for key := range keys {
		if _, known := db.cache.get(at.modified, key); !known {
			unknown = append(unknown, key)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for some := range slices.Chunk(unknown, min(db.at.ops, 128)) {
		ops := make([]clientv3.Op, len(some))
		for i, key := range some {
			ops[i] = clientv3.OpGet(db.key(key), clientv3.WithRev(at.at))
		}
		resp, err := db.client.Txn(ctx).Then(ops...).Commit()
		if err != nil {
			return nil, db.wrap(err)
		}
		for i, key := range some {
			w := overlay.Write{Deleted: true}
			if kvs := resp.Responses[i].GetResponseRange().GetKvs(); len(kvs) > 0 {
				w = overlay.Write{Value: kvs[0].Value}
			}
			read[key] = w
			db.cache.put(at.modified, key, w)
		}
	}
	return read, nil
}

// cacheSize is how many values each of two generations holds.
const cacheSize = 32 << 10

// cache holds values as they are at the head: what this process has read or
// written, for as long as no other process has committed. It is safe for concurrent
// use.
type cache struct {
	mu         sync.Mutex
	modified   int64 // the revision of the head that it belongs to
	young, old map[string]overlay.Write
}

func (c *cache) get(modified int64, key string) (w overlay.Write, known bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if modified != c.modified {
		return w, false
	}
	if w, known = c.young[key]; !known {
		if w, known = c.old[key]; known {
			c.set(key, w)
		}
	}
	return w, known
}

func (c *cache) put(modified int64, key string, w overlay.Write) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if modified == c.modified {
		c.set(key, w)
	}
}

func (c *cache) set(key string, w overlay.Write) {
	if c.young == nil || len(c.young) >= cacheSize {
		c.young, c.old = map[string]overlay.Write{}, c.young
	}
	c.young[key] = w
}

// commit makes the cache that of the head behind this process's own commit.
func (c *cache) commit(modified int64, writes map[string]overlay.Write) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.modified = modified
	for key, w := range writes {
		c.set(key, w)
	}
}

// reset empties the cache: another process has committed.
func (c *cache) reset(modified int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.modified, c.young, c.old = modified, nil, nil
}
