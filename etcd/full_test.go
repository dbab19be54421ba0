package etcd_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/etcd"
	"github.com/freehold-go/freehold/internal/testdb"
	"github.com/freehold-go/freehold/journal/journaltest"
	"github.com/freehold-go/freehold/kv"
)

// nearlyFull makes members say that 96 % of their quota is in use. A commit that finds held
// says so and waits until it is closed.
type nearlyFull struct {
	held    atomic.Pointer[chan struct{}]
	holding atomic.Bool
}

func (n *nearlyFull) call(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	if txn, ok := req.(*etcdserverpb.TxnRequest); ok && len(txn.Success) > 1 {
		if held := n.held.Load(); held != nil {
			n.holding.Store(true)
			<-*held
		}
	}
	err := invoke(ctx, method, req, reply, cc, opts...)
	if status, ok := reply.(*etcdserverpb.StatusResponse); ok && err == nil {
		status.DbSizeQuota = 1 << 40
		status.DbSizeInUse = status.DbSizeQuota / 100 * 96
	}
	return err
}

// TestWhatFreesRoomIsDoneWithoutRoom does all that the advice of a journal near its quota
// asks for: the consumer that holds back the cut is started again or forgotten, an own
// follower is retired, and old events are cut. Nothing else is written.
func TestWhatFreesRoomIsDoneWithoutRoom(t *testing.T) {
	t.Parallel()
	ctx := patient(t)
	url := testdb.Etcd(t)
	before := open(t, url)
	said(t, before, 0, 10)
	all, err := before.Journal().Read(ctx, freehold.Mark{Source: "test"}, 10)
	if err != nil || len(all) != 10 {
		t.Fatal(len(all), err)
	}
	_, err = before.Update(ctx, func(ctx context.Context, tx kv.Tx) error {
		return before.Keeper(tx).Move(ctx, "old view", freehold.Mark{Source: "test"}, all[1].At)
	})
	for i, consumer := range []string{"other/f", "other/gone", "other/gone too"} {
		if err == nil {
			err = before.Journal().Register(ctx, consumer, all[3+i].At)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	full := &nearlyFull{}
	o := etcd.Options{Log: quiet}.Through(full.call, 0).Telling()
	db, err := etcd.Open(ctx, url, "test", journaltest.Types(t), o)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	refused := func(when string) {
		t.Helper()
		if _, err := db.Update(ctx, add(100)); !errors.Is(err, freehold.ErrUnavailable) || !strings.Contains(err.Error(), "is written before") {
			t.Errorf("%s: an update without room: %v, want ErrUnavailable and what to do", when, err)
		}
	}
	cut := func(when string, want freehold.Position) {
		t.Helper()
		if first, err := db.CutNow(ctx, time.Nanosecond); err != nil || first.Position != want {
			t.Errorf("%s: cut at %d, %v, want %d", when, first.Position, err, want)
		}
	}
	refused("at first")
	cut("an own follower holds it back", 2)
	if err := db.Journal().Retire(ctx, "old view"); err != nil {
		t.Errorf("retire: %v", err)
	}
	cut("it is retired", 4)
	if err := db.Journal().Register(ctx, "other/f", all[8].At); err != nil {
		t.Errorf("a consumer that was started again tells its place: %v", err)
	}
	cut("one consumer has gone on", 5)
	if err := db.Journal().Unregister(ctx, "other/gone"); err != nil {
		t.Errorf("forget a consumer: %v", err)
	}
	cut("another one is forgotten", 6)

	// The same in one line with updates, behind a commit that takes its time.
	held := make(chan struct{})
	full.held.Store(&held)
	registered := make(chan error, 1)
	go func() { registered <- db.Journal().Register(ctx, "other/new", all[9].At) }()
	eventually(ctx, t, "a new consumer tells its place", func() (bool, any) {
		select {
		case err := <-registered:
			t.Fatalf("a new consumer tells its place: %v", err)
		default:
		}
		return full.holding.Load(), nil
	})
	var line sync.WaitGroup
	for range 3 {
		line.Go(func() { refused("beside what frees room") })
	}
	line.Go(func() {
		if err := db.Journal().Unregister(ctx, "other/gone too"); err != nil {
			t.Errorf("forget a consumer beside updates: %v", err)
		}
	})
	eventually(ctx, t, "they stand in line", func() (bool, any) { return db.Waiting() == 4, db.Waiting() })
	full.held.Store(nil)
	close(held)
	line.Wait()
	if err := <-registered; err != nil {
		t.Errorf("a new consumer tells its place: %v", err)
	}
	cut("the last one that was gone is forgotten", 9)
	refused("at last")
	if _, head, err := db.Journal().Fresh(ctx); err != nil || head != all[9].At {
		t.Errorf("the head is %v, %v, want %v", head, err, all[9].At)
	}
}
