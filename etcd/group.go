package etcd

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/internal/fault"
	"github.com/freehold-go/freehold/internal/overlay"
	"github.com/freehold-go/freehold/internal/writer"
	"github.com/freehold-go/freehold/journal"
)

// job is a caller's closure and the transaction that it was given last.
type job struct {
	tx    *overlay.Tx
	frees bool          // it writes little, and old events cannot be cut without it
	from  freehold.Mark // where the journal begins
	first freehold.Mark // where it is to begin from now on; the zero Mark leaves it
}

type jobs []*writer.Job[*job]

// maxGroup is how many callers' closures share a commit at most.
const maxGroup = 256

// maxBytes is how much a commit writes at most: members take 1.5 MiB.
const maxBytes = 1_400_000

// outcome is what a caller is told when the group's commit is known.
type outcome struct {
	token freehold.Token
	err   error
	wrote bool
}

// group is what a run of closures has done, on one head.
type group struct {
	jobs     jobs
	outcomes []outcome
	writes   map[string]overlay.Write
	streams  map[freehold.StreamID]bool // that were appended to
	bytes    int
	id       string        // of the commit
	first    freehold.Mark // where the journal is to begin, if it is to be cut
	failed   error         // the first error of the members in a closure
}

// loop is the writer.
func (db *DB) loop() {
	defer db.queue.Exited()
	for {
		waiting := jobs(db.queue.Next(maxGroup))
		if waiting == nil {
			return
		}
		alone := 0 // so many of them run alone, for their group's commit has failed
		for lost := 0; len(waiting) > 0; {
			some := waiting
			if alone > 0 {
				some = waiting[:1]
			}
			n, err := db.commitSome(some)
			switch {
			case errors.Is(err, errMoved):
				if lost++; lost > 3 {
					time.Sleep(rand.N(time.Duration(min(lost, 50)) * time.Millisecond))
				}
				continue
			case errors.Is(err, errGuessed):
				continue
			case errors.Is(err, errVoid):
				alone = n
				continue
			case err != nil:
				n = len(some)
				for _, j := range some {
					j.Answer(freehold.Token{}, err)
				}
			}
			waiting, lost, alone = waiting[n:], 0, max(0, alone-n)
		}
	}
}

// errVoid says that the commit of several closures has failed, and with it what any
// of them has read of the others.
var errVoid = errors.New("etcd: a group's commit failed")

// commitSome runs closures and commits them together, as many as a commit can hold.
// It answers them and returns how many; or errMoved if they must run again on
// another head; or errVoid and how many must run again alone; or an error with which
// all of them failed before they began.
func (db *DB) commitSome(waiting jobs) (n int, err error) {
	if err := db.ready(); err != nil {
		return 0, err
	}
	if waiting, err = db.admit(waiting); err != nil {
		return 0, err
	}
	if known, _, _, err := db.known(); err == nil && known.modified > db.base.modified {
		// Another process has written. On a cluster that went back since to where this one
		// was, nothing else would say so.
		if err := db.reload(); err != nil {
			return 0, err
		}
	}
	save := db.tail.Save()
	db.guesses = map[freehold.StreamID]bool{}
	g := db.runGroup(waiting)
	if errors.Is(g.failed, rpctypes.ErrCompacted) {
		err = errMoved // members have forgotten the base's revision
	} else {
		err = db.commit(g, save)
	}
	if err == nil {
		db.learned = nil // the tail knows them
		for i, j := range g.jobs {
			j.Answer(g.outcomes[i].token, g.outcomes[i].err)
		}
		return len(g.jobs), nil
	}
	db.tail.Rollback(save)
	if len(db.guesses) > 0 { // the tail may remember what is not so
		db.tail = journal.NewTail(db.base.mark, db.base.incarnation, db.version)
	}
	if errors.Is(err, errMoved) {
		if err := db.reload(); err != nil {
			return 0, err
		}
		return 0, errMoved
	}
	if errors.Is(err, errGuessed) {
		return 0, err
	}
	if len(g.jobs) > 1 && (definite(err) || errors.Is(err, errCommit)) {
		return len(g.jobs), errVoid
	}
	for i, j := range g.jobs {
		o := g.outcomes[i]
		switch {
		case errors.Is(o.err, writer.ErrAborted), errors.Is(o.err, freehold.ErrTooLong), errors.Is(o.err, errFull):
		case errors.Is(err, freehold.ErrUnknown) && !o.wrote:
			o.err = fmt.Errorf("etcd: %s: %w (the outcome of a neighbour's commit is not known)", db.name, freehold.ErrUnavailable)
		default:
			o.err = err
		}
		j.Answer(freehold.Token{}, o.err)
	}
	return len(g.jobs), nil
}

// ready finds out what became of a commit whose outcome was unknown, and refuses to
// go on where the cluster went back in time.
func (db *DB) ready() error {
	if _, _, _, err := db.known(); err != nil && errors.Is(err, freehold.ErrLatched) {
		return err
	}
	if db.uncertain != "" {
		if _, err := db.settle(db.uncertain); err != nil {
			return fmt.Errorf("etcd: %s at %s: the outcome of an earlier commit is still not known: %w: %w", db.name, db.at.shown, freehold.ErrUnavailable, hint(err))
		}
		db.uncertain = ""
		return db.reload()
	}
	return nil
}

// runGroup runs closures one after the other, each on what those before it have
// written.
func (db *DB) runGroup(waiting jobs) *group {
	g := &group{writes: map[string]overlay.Write{}, streams: map[freehold.StreamID]bool{}, id: journal.NewID()}
	for i, j := range waiting {
		save := db.tail.Save()
		tx, err := db.runClosure(j, g)
		if err == nil {
			err = db.add(g, tx, save)
			if errors.Is(err, errFull) && i > 0 {
				db.tail.Rollback(save)
				return g // it runs again in the next group
			}
		}
		out := outcome{err: err}
		if err != nil {
			db.tail.Rollback(save)
		} else {
			out.token, out.wrote = freehold.NewToken(db.tail.Head()), len(tx.Writes()) > 0 || len(db.tail.Pending(save)) > 0
			if j.Work.first.Position > 0 {
				g.first, out.wrote = j.Work.first, true
			}
		}
		g.jobs, g.outcomes = append(g.jobs, j), append(g.outcomes, out)
	}
	return g
}

// runClosure gives a closure its turn. One that was told an error of the members has
// failed, also if it says that it has not.
func (db *DB) runClosure(j *writer.Job[*job], g *group) (*overlay.Tx, error) {
	ctx, cancel := context.WithCancel(context.Background())
	b := &base{db: db, ctx: ctx, at: db.base, writer: true, id: journal.NewID(), now: journal.Now()}
	b.at.mark = db.tail.Head()
	tx := overlay.New("etcd", b, b.now, true, g.writes)
	j.Work.tx, j.Work.from, j.Work.first = tx, db.base.first, freehold.Mark{}
	if g.first.Position > 0 {
		j.Work.from = g.first // a neighbour cuts
	}
	err := j.Run(func() {
		cancel()
		tx.End()
	})
	if b.failed != nil && !errors.Is(err, freehold.ErrTooLong) {
		g.failed = b.failed
		if err == nil {
			err = b.failed
		}
	}
	if err == nil {
		db.tail.Seal()
	}
	return tx, err
}

// errFull says that a commit would be larger than members take.
var errFull = errors.New("transaction writes more than a commit of etcd can hold")

// add adds what a closure has written to the group, if there is room.
func (db *DB) add(g *group, tx *overlay.Tx, save journal.Save) error {
	keys, bytes := len(g.writes)+len(tx.Writes()), g.bytes
	for key, w := range tx.Writes() {
		bytes += len(db.at.prefix) + len(key) + len(w.Value)
	}
	events := db.tail.Pending(save)
	streams := map[freehold.StreamID]bool{}
	for i := range events {
		r := &events[i]
		if !g.streams[r.Stream] {
			streams[r.Stream] = true
		}
		bytes += 400 + len(r.Raw) + 2*len(r.Stream)
	}
	ops := keys + len(g.streams) + len(streams) + 3 // events, head, the writer's own key
	if db.base.format < format {
		ops++ // which may be raised
	}
	if ops > db.at.ops {
		return fmt.Errorf("etcd: %s: %w: %d keys, members take %d: start them with a larger --max-txn-ops and say max-txn-ops in the URL, or write less at once", db.name, errFull, ops, db.at.ops)
	}
	if bytes > maxBytes {
		return fmt.Errorf("etcd: %s: %w: %d bytes, at most %d: write less at once", db.name, errFull, bytes, maxBytes)
	}
	g.bytes = bytes
	for key, w := range tx.Writes() {
		g.writes[key] = w
	}
	for s := range streams {
		g.streams[s] = true
	}
	return nil
}

// errGuessed says that a stream that was taken for new has events. Nothing was
// written, and how many events it has is known now.
var errGuessed = errors.New("etcd: a stream is not new")

// commit writes what a group has done, if the head is still the one it was computed
// from and the streams that were taken for new are. errMoved and errGuessed mean that
// nothing was written. A group that writes nothing is held against the head too, so
// that nobody is told what was not so.
func (db *DB) commit(g *group, save journal.Save) error {
	events := db.tail.Pending(save)
	next := db.base
	next.mark = db.tail.Head()
	if g.first.Position > next.first.Position {
		next.first = g.first
	}
	next.format = db.formatOf(next)
	conditions := []clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(db.key(kindHead)), "=", db.base.modified)}
	instead := []clientv3.Op{clientv3.OpGet(db.key(kindHead), clientv3.WithKeysOnly())}
	guesses := slices.Collect(maps.Keys(db.guesses))
	for _, s := range guesses {
		lower, upper := db.streamRange(s)
		conditions = append(conditions, clientv3.Compare(clientv3.CreateRevision(lower), "=", 0).WithRange(upper))
		instead = append(instead, clientv3.OpGet(lower, slices.Concat(newest, []clientv3.OpOption{clientv3.WithRange(upper)})...))
	}
	ops := instead[:1]
	writes := len(g.writes) > 0 || len(events) > 0 || g.first.Position > 0
	if writes {
		fault.Point("etcd.commit.before")
		if db.failCommits.Add(-1) >= 0 {
			return errCommit
		}
		conditions = append(conditions, clientv3.Compare(clientv3.ModRevision(db.key(db.self)), "=", db.selfAt))
		ops = db.ops(g, events, next)
	}
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	resp, err := db.client.Txn(ctx).If(conditions...).Then(ops...).Else(instead...).Commit()
	switch {
	case err == nil && resp.Succeeded:
		next.at = resp.Header.Revision
		if writes {
			next.modified, db.selfAt = next.at, next.at
		}
	case err == nil:
		return db.learn(guesses, resp)
	case !writes || definite(err):
		return db.wrap(err)
	default:
		if err := db.outcome(g.id, err); err != nil {
			return err
		}
		next.modified, next.at = db.selfAt, db.selfAt
	}
	if writes {
		fault.Point("etcd.commit.after")
		db.grow(g.bytes)
	}
	db.base = next
	db.cache.commit(next.modified, g.writes)
	db.journal.Remember(events)
	db.tail.Committed()
	db.publish(next)
	return nil
}

// learn looks into why a commit's conditions did not hold.
func (db *DB) learn(guesses []freehold.StreamID, resp *clientv3.TxnResponse) error {
	kvs := resp.Responses[0].GetResponseRange().GetKvs()
	if len(kvs) == 0 || kvs[0].ModRevision != db.base.modified {
		return errMoved
	}
	wrong := false
	for i, s := range guesses {
		v, err := db.versionOf(resp.Responses[1+i].GetResponseRange().GetKvs())
		if err != nil {
			return err
		}
		if v > 0 {
			if db.learned == nil {
				db.learned = map[freehold.StreamID]freehold.Version{}
			}
			db.learned[s], wrong = v, true
		}
	}
	if !wrong {
		return errMoved // the writer's own key was
	}
	return errGuessed
}

// ops is what a commit writes.
func (db *DB) ops(g *group, events []freehold.Recorded, next head) []clientv3.Op {
	ops := append(db.putHead(db.base, next), clientv3.OpPut(db.key(db.self), g.id))
	for key, w := range g.writes {
		if w.Deleted {
			ops = append(ops, clientv3.OpDelete(db.key(key)))
		} else {
			ops = append(ops, clientv3.OpPut(db.key(key), string(w.Value)))
		}
	}
	if len(events) == 0 {
		return ops
	}
	ops = append(ops, clientv3.OpPut(db.key(numbered(kindEvents, int64(events[len(events)-1].At.Position))), string(appendEvents(nil, events))))
	places := map[freehold.StreamID][]byte{}
	last := map[freehold.StreamID]freehold.Version{}
	for i := range events {
		r := &events[i]
		places[r.Stream] = binary.BigEndian.AppendUint64(places[r.Stream], uint64(r.At.Position))
		last[r.Stream] = r.Version
	}
	for s, at := range places {
		ops = append(ops, clientv3.OpPut(db.key(streamKey(s, last[s])), string(at)))
	}
	return ops
}

// rebase makes a head the one that the next commit is computed from.
func (db *DB) rebase(h head) {
	db.base, db.learned = h, nil
	db.tail = journal.NewTail(h.mark, h.incarnation, db.version)
	db.cache.reset(h.modified)
	db.publish(h)
}
