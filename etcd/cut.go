package etcd

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/internal/fault"
	"github.com/freehold-go/freehold/internal/overlay"
	"github.com/freehold-go/freehold/journal"
	"github.com/freehold-go/freehold/kv"
)

// A journal is cut in two steps. A commit like any other moves the place before the
// first event, which stands in the head: it holds only if no mark that it has looked
// at has changed, and from then on nobody reads below it. What stands below is swept
// away behind that, first the entries of streams, then the events that tell which
// they are; whoever dies on the way leaves the rest to the next one who cuts.

// cutEvery is how often a database with Options.Retain looks for events to cut.
const cutEvery = time.Minute

// cutSome is how many commits are cut in one go at most.
const cutSome = 1024

// cutPage is how many commits are read at once.
const cutPage = 32

// cutter is what a database knows about its cutting.
type cutter struct {
	running sync.WaitGroup
	turn    sync.Mutex             // one cut at a time
	whole   atomic.Pointer[string] // why nothing may be cut
	warned  string                 // the follower that was complained about last
	told    told
}

// KeepWhole says that the service's state is its events, and why: the journal is never
// cut by this process, whatever Options.Retain. Package aggregate calls it.
func (db *DB) KeepWhole(why string) { db.cutter.whole.Store(&why) }

// Cut removes the events that are older than Options.Retain and that stand at or below
// the marks of all followers of this journal, own ones and registered consumers, up to
// the end of a commit. It returns the place at which the journal begins now, from
// which its chain goes on. One small key per stream stays, which holds its version.
//
// A consumer in another service counts from the moment on at which it has told its place
// for the first time; one that has never been started does not. Who needs events that are
// gone is told which these are, and gets none behind them before follow.Follower.Skip.
//
// Whoever reads below that place gets freehold.ErrGone; so does who reads a stream from
// below its first event: Cut is for services whose state is not their events, and
// refuses to work where [DB.KeepWhole] was called or Options.Retain is 0. A database
// with Options.Retain calls it each minute. Members give the room back when they
// compact, see --auto-compaction-retention of etcd.
func (db *DB) Cut(ctx context.Context) (freehold.Mark, error) {
	return db.cut(ctx, db.opts.Retain)
}

// cut is Cut with another age.
func (db *DB) cut(ctx context.Context, retain time.Duration) (freehold.Mark, error) {
	db.cutter.turn.Lock()
	defer db.cutter.turn.Unlock()
	for {
		h, err := db.refresh(ctx)
		if err != nil {
			return h.first, err
		}
		if why := db.cutter.whole.Load(); why != nil {
			return h.first, fmt.Errorf("etcd: %s cannot be cut: %s: open it without retain", db.name, *why)
		}
		if retain <= 0 {
			return h.first, fmt.Errorf("etcd: %s keeps all events: open it with Options.Retain, or retain=168h in its URL", db.name)
		}
		if err := db.sweep(ctx, h); err != nil { // what another one has left
			return h.first, err
		}
		to, err := db.cuttable(ctx, h, retain)
		if err != nil || to == h.first {
			return h.first, err
		}
		fault.Point("etcd.cut.before")
		if err := db.moveFirst(ctx, to); err != nil {
			return h.first, err
		}
		fault.Point("etcd.cut.moved")
	}
}

// cuttable returns the last end of a commit, of the next few ones, that may be the
// journal's first place; where it begins now, if nothing may be cut.
func (db *DB) cuttable(ctx context.Context, h head, retain time.Duration) (to freehold.Mark, err error) {
	to = h.first
	var needs *follow.Place
	err = db.View(ctx, func(ctx context.Context, tx kv.Tx) error {
		needs, err = db.lowest(ctx, tx)
		return err
	})
	young := journal.Now().Add(-retain)
	for n := 0; n < cutSome && err == nil; n += cutPage {
		page, _, err := db.scan(ctx, h.at, numbered(kindEvents, int64(to.Position)+1), overlay.Behind(kindEvents), cutPage)
		if err != nil || len(page) == 0 {
			return to, err
		}
		for _, item := range page {
			rs, err := db.decodeEvents(nil, freehold.Position(number(item.Key[1:])), item.Value)
			if err != nil {
				return to, db.wrap(err)
			}
			if slices.ContainsFunc(rs, func(r freehold.Recorded) bool { return r.Time.After(young) }) {
				db.complain(nil)
				return to, nil
			}
			last := rs[len(rs)-1].At
			if needs != nil && needs.Mark.Position < last.Position {
				db.complain(needs)
				return to, nil
			}
			to = last
		}
	}
	return to, err
}

// lowest returns the follower of this journal that stands furthest back, own or in
// another service, of those that are not retired.
func (db *DB) lowest(ctx context.Context, tx kv.Tx) (lowest *follow.Place, err error) {
	k := db.Keeper(tx)
	all, err := follow.Places(ctx, k, db.name)
	if err != nil {
		return nil, err
	}
	gone, err := retired(ctx, k)
	if err != nil {
		return nil, err
	}
	for i, p := range all {
		if !gone(p) && (lowest == nil || p.Mark.Position < lowest.Mark.Position) {
			lowest = &all[i]
		}
	}
	return lowest, nil
}

// complain says once who keeps old events from being cut, and how to end that.
func (db *DB) complain(needs *follow.Place) {
	if needs == nil {
		db.cutter.warned = ""
		return
	}
	name, foreign := strings.CutPrefix(needs.Follower, consumerPrefix)
	if needs.Follower != db.cutter.warned {
		forget := "DELETE /feed/consumers?name=" + url.QueryEscape(name)
		if !foreign {
			forget += "&retired=true"
		}
		db.opts.Log.Warn("old events are not cut, for a follower has not applied them: start it, or forget it if it is gone for good",
			"journal", db.name, "follower", name, "at", needs.Mark.Position, "forget", forget)
	}
	db.cutter.warned = needs.Follower
}

// moveFirst commits where the journal begins, unless a mark stands below by now.
func (db *DB) moveFirst(ctx context.Context, to freehold.Mark) error {
	j := &job{frees: true}
	_, err := db.queue.Do(ctx, j, func(ctx context.Context) error {
		needs, err := db.lowest(ctx, j.tx)
		if err == nil && needs != nil && needs.Mark.Position < to.Position {
			err = fmt.Errorf("etcd: %s: %s came to stand at %d while events up to %d were about to be cut: %w", db.name, strings.TrimPrefix(needs.Follower, consumerPrefix), needs.Mark.Position, to.Position, freehold.ErrFenced)
		}
		if err == nil {
			j.first = to
		}
		return err
	})
	return err
}

// sweep removes what stands at or below the journal's first place. Doing it twice, or
// by two at once, does nothing more.
func (db *DB) sweep(ctx context.Context, h head) error {
	for h.first.Position > 0 {
		page, _, err := db.scan(ctx, h.at, kindEvents, numbered(kindEvents, int64(h.first.Position)+1), cutPage)
		if err != nil || len(page) == 0 {
			return err
		}
		// The entry of a stream's last event that was cut stays: it tells the version.
		last := map[freehold.StreamID]freehold.Version{}
		for _, item := range page {
			rs, err := db.decodeEvents(nil, freehold.Position(number(item.Key[1:])), item.Value)
			if err != nil {
				return db.wrap(err)
			}
			for _, r := range rs {
				last[r.Stream] = r.Version
			}
		}
		var entries []clientv3.Op
		for s, v := range last {
			if v > 1 {
				entries = append(entries, clientv3.OpDelete(db.key(streamKey(s, 1)), clientv3.WithRange(db.key(streamKey(s, v)))))
			}
		}
		for some := range slices.Chunk(entries, min(db.at.ops, 128)) {
			if _, err := db.remove(ctx, h, some...); err != nil {
				return err
			}
		}
		fault.Point("etcd.cut.streams")
		events := clientv3.OpDelete(db.key(page[0].Key), clientv3.WithRange(db.key(page[len(page)-1].Key+"\x00")))
		if h.at, err = db.remove(ctx, h, events); err != nil {
			return err
		}
		fault.Point("etcd.cut.events")
	}
	return nil
}

// remove deletes keys below the first place of a head, and returns the revision at
// which they are gone. It does nothing if the cluster was restored to a state before
// that head.
func (db *DB) remove(ctx context.Context, h head, ops ...clientv3.Op) (at int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	resp, err := db.client.Txn(ctx).If(clientv3.Compare(clientv3.ModRevision(db.key(kindHead)), ">", h.modified-1)).Then(ops...).Commit()
	if err == nil && !resp.Succeeded {
		err = errMoved
	}
	if err != nil {
		return h.at, db.wrap(err)
	}
	return resp.Header.Revision, nil
}

// cutNowAndThen cuts until ctx ends.
func (db *DB) cutNowAndThen(ctx context.Context) {
	if db.opts.Retain <= 0 {
		return
	}
	ticker := time.NewTicker(cutEvery)
	defer ticker.Stop()
	was := freehold.Position(0)
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		first, err := db.Cut(ctx)
		switch {
		case ctx.Err() != nil || errors.Is(err, freehold.ErrClosed):
			return
		case db.cutter.whole.Load() != nil:
			db.opts.Log.Error("retain has no effect", "journal", db.name, "error", err)
			return
		case err != nil:
			db.opts.Log.Warn("old events not cut, again in a minute", "journal", db.name, "error", err)
		case first.Position != was:
			db.opts.Log.Info("old events are cut", "journal", db.name, "first", first.Position)
			was = first.Position
		}
	}
}
