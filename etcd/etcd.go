package etcd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/internal/overlay"
	"github.com/freehold-go/freehold/internal/writer"
	"github.com/freehold-go/freehold/journal"
	"github.com/freehold-go/freehold/kv"
)

// Options tune a database; the zero value is good.
type Options struct {
	// Relaxed opens a database on members that do not sync what they have agreed on.
	Relaxed bool
	// Warn and Cancel bound how long a closure may hold the writer: 0 is 100 ms
	// and 5 s.
	Warn, Cancel time.Duration
	// Retain cuts the journal: events that are older, and that no registered follower
	// or consumer still needs, are removed; see [DB.Cut]. A consumer that has not told its
	// place yet holds back nothing: it must have been started, once, before the events it
	// needs are so old. 0 keeps all events, as a
	// service must whose state is its events; others give a week or so. A retain
	// parameter in the URL has precedence.
	Retain time.Duration
	// Log is where warnings go. nil is slog.Default().
	Log *slog.Logger

	patience time.Duration     // 0 is 10 s
	told     time.Duration     // how often a consumer that moves on is written down at most; 0 is 20 s
	dial     []grpc.DialOption // for tests
}

// DB is an open database. It is safe for concurrent use.
type DB struct {
	name   freehold.Source
	epoch  freehold.Epoch
	types  *freehold.Catalog
	opts   Options
	at     address
	client *clientv3.Client
	audit  []string

	queue   *writer.Queue[*job]
	journal *journal.Journal
	cache   cache
	stop    context.CancelFunc
	watched chan struct{} // closed when the watcher has gone
	cutter  cutter

	// Of the writer.
	tail      *journal.Tail
	base      head   // that the next commit is computed from
	self      string // the writer's own key
	selfAt    int64  // its revision
	uncertain string // the commit of which nobody knows what became of it
	guessing  bool   // the stream that the tail asks for may be taken for new
	guesses   map[freehold.StreamID]bool
	learned   map[freehold.StreamID]freehold.Version // at the base, where a guess was wrong

	mu      sync.Mutex
	durable head
	checked time.Time     // when durable was last known to be the head
	news    chan struct{} // closed and replaced when durable changes
	closed  bool
	latched error     // the cluster went back in time
	back    sync.Once // of finding that out
	size    Size

	failCommits atomic.Int64
}

// Open opens the database at a URL (etcd://host:2379,host:2379/prefix), whose journal
// has the given name and event types. Under a prefix that is empty it begins a new
// journal. It refuses members that do not answer, do not sync, or hold the journal
// of another service there.
func Open(ctx context.Context, url string, name freehold.Source, types *freehold.Catalog, o *Options) (*DB, error) {
	if err := name.Validate(); err != nil {
		return nil, err
	}
	at, err := parse(url)
	if err != nil {
		return nil, fmt.Errorf("etcd: URL of %s: %w", name, err)
	}
	db := &DB{name: name, types: types, at: at, news: make(chan struct{}), watched: make(chan struct{})}
	if o != nil {
		db.opts = *o
	}
	if db.opts.Log == nil {
		db.opts.Log = slog.Default()
	}
	if at.retain != nil {
		db.opts.Retain = *at.retain
	}
	if db.opts.told <= 0 {
		db.opts.told = 20 * time.Second
	}
	at.config.DialOptions = db.opts.dial
	if db.client, err = clientv3.New(at.config); err != nil {
		return nil, db.wrap(fmt.Errorf("connect: %w", err))
	}
	opening, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := db.open(opening); err != nil {
		return nil, errors.Join(db.wrap(err), db.client.Close())
	}
	db.queue = writer.New[*job](writer.Options{Warn: db.opts.Warn, Cancel: db.opts.Cancel, Log: db.opts.Log})
	db.journal = journal.New(store{db}, types)
	watching, stop := context.WithCancel(context.Background())
	db.stop = stop
	go db.watch(watching)
	go db.loop()
	db.cutter.running.Go(func() { db.cutNowAndThen(watching) })
	return db, nil
}

// open finds or begins the journal and records this opening.
func (db *DB) open(ctx context.Context) error {
	if err := db.measure(ctx); err != nil {
		return err
	}
	m := meta{plain, db.name, freehold.Epoch(journal.NewEpoch())}
	raw, err := json.Marshal(m)
	if err != nil {
		return err
	}
	empty := encodeHead(head{})
	resp, err := db.client.Txn(ctx).If(clientv3.Compare(clientv3.CreateRevision(db.key(kindJournal)), "=", 0)).
		Then(clientv3.OpPut(db.key(kindJournal), string(raw)), clientv3.OpPut(db.key(kindHead), empty)).
		Else(clientv3.OpGet(db.key(kindJournal))).Commit()
	if err != nil {
		return err
	}
	if !resp.Succeeded {
		m = meta{}
		if err := json.Unmarshal(resp.Responses[0].GetResponseRange().Kvs[0].Value, &m); err != nil {
			return fmt.Errorf("the prefix holds something else than a journal (%w): give another one", err)
		}
	}
	if err := m.suits(db.name); err != nil {
		return err
	}
	db.epoch = m.Epoch
	h, err := db.readHead(ctx)
	if err != nil {
		return err
	}
	if h, err = db.begin(ctx, h); err != nil {
		return err
	}
	db.rebase(h)
	return db.auditSettings(ctx)
}

// begin records a new incarnation, behind which it is the head's.
func (db *DB) begin(ctx context.Context, h head) (head, error) {
	for {
		last, err := db.client.Get(ctx, db.key(kindIncarnation), clientv3.WithRange(db.key(overlay.Behind(kindIncarnation))),
			clientv3.WithSort(clientv3.SortByKey, clientv3.SortDescend), clientv3.WithLimit(1), clientv3.WithKeysOnly())
		if err != nil {
			return h, err
		}
		next := int64(0)
		if len(last.Kvs) > 0 {
			next = number(string(last.Kvs[0].Key[len(db.at.prefix)+1:])) + 1
		}
		in := journal.Incarnation{ID: journal.NewEpoch(), Start: h.mark, Time: journal.Now()}
		raw, err := json.Marshal(in)
		if err != nil {
			return h, err
		}
		begun := h
		begun.incarnation, begun.format = in.ID, db.formatOf(h)
		self := kindWriter + in.ID
		key := db.key(numbered(kindIncarnation, next))
		resp, err := db.client.Txn(ctx).If(
			clientv3.Compare(clientv3.ModRevision(db.key(kindHead)), "=", h.modified),
			clientv3.Compare(clientv3.CreateRevision(key), "=", 0),
		).Then(append(db.putHead(h, begun),
			clientv3.OpPut(key, string(raw)),
			clientv3.OpPut(db.key(self), ""),
		)...).Commit()
		if err != nil {
			return h, err
		}
		if resp.Succeeded {
			begun.modified, begun.at = resp.Header.Revision, resp.Header.Revision
			db.self, db.selfAt = self, begun.at
			return begun, nil
		}
		if h, err = db.readHead(ctx); err != nil {
			return h, err
		}
	}
}

// key is a key behind the database's prefix.
func (db *DB) key(k string) string { return db.at.prefix + k }

// Journal is the database's log.
func (db *DB) Journal() *journal.Journal { return db.journal }

// Audit says in words which durability the members give, as far as they tell.
func (db *DB) Audit() []string { return db.audit }

// Events yields a stream's committed events behind a version, oldest first.
func (db *DB) Events(ctx context.Context, s freehold.StreamID, after freehold.Version) iter.Seq2[freehold.Recorded, error] {
	return db.journal.Stream(ctx, s, after)
}

// Keeper returns what followers keep, as part of tx.
func (db *DB) Keeper(tx kv.Tx) follow.Keeper { return overlay.Keeper(tx.(*overlay.Tx)) }

var _ follow.DB[kv.Tx] = (*DB)(nil)

// Close finishes what is queued and ends the connection. Later calls return
// freehold.ErrClosed, except that closing again is nil.
func (db *DB) Close() error {
	db.queue.Close()
	<-db.queue.Done()
	db.mu.Lock()
	again := db.closed
	db.closed = true
	if !again {
		close(db.news)
		db.news = make(chan struct{})
	}
	db.mu.Unlock()
	if again {
		return nil
	}
	db.stop()
	<-db.watched
	db.cutter.running.Wait()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	if db.uncertain == "" {
		_, _ = db.client.Delete(ctx, db.key(db.self)) // a few bytes that nobody reads any more
	}
	db.journal.Forget()
	return db.client.Close()
}

// Update runs fn in a transaction; see freehold.DB.
func (db *DB) Update(ctx context.Context, fn func(ctx context.Context, tx kv.Tx) error) (freehold.Token, error) {
	j := &job{}
	return db.queue.Do(ctx, j, func(ctx context.Context) error { return fn(ctx, j.tx) })
}

// Append writes to one or more streams atomically; see freehold.DB.
func (db *DB) Append(ctx context.Context, writes ...freehold.Write) (freehold.Token, error) {
	return db.Update(ctx, func(ctx context.Context, tx kv.Tx) error {
		for _, w := range writes {
			if _, err := tx.Append(ctx, w.Stream, w.Expect, w.Events...); err != nil {
				return err
			}
		}
		return nil
	})
}

// View runs fn on a snapshot; see freehold.DB.
func (db *DB) View(ctx context.Context, fn func(ctx context.Context, tx kv.Tx) error) error {
	h, err := db.fresh(ctx)
	if err != nil {
		return err
	}
	b := &base{db: db, ctx: context.WithoutCancel(ctx), at: h}
	tx := overlay.New("etcd", b, journal.Now(), false, nil)
	defer tx.End()
	return fn(ctx, tx)
}

func (db *DB) wrap(err error) error {
	if err == nil {
		return nil
	}
	err = fmt.Errorf("etcd: %s at %s: %w", db.name, db.at.shown, hint(err))
	if away(err) {
		err = fmt.Errorf("%w: %w", freehold.ErrUnavailable, err)
	}
	return err
}
