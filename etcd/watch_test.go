package etcd_test

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/etcd"
	"github.com/freehold-go/freehold/journal/journaltest"
)

// watches counts the watches that are begun, the events that they tell, and how often the
// head is asked for.
type watches struct{ begun, told, asked atomic.Int64 }

func (w *watches) call(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	err := invoke(ctx, method, req, reply, cc, opts...)
	if get, ok := req.(*etcdserverpb.RangeRequest); ok && err == nil && strings.HasSuffix(string(get.Key), "/h") {
		w.asked.Add(1)
	}
	return err
}

func (w *watches) open(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, begin grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	s, err := begin(ctx, desc, cc, method, opts...)
	return counting{s, w}, err
}

type counting struct {
	grpc.ClientStream
	*watches
}

func (c counting) SendMsg(m any) error {
	if req, ok := m.(*etcdserverpb.WatchRequest); ok && req.GetCreateRequest() != nil {
		c.begun.Add(1)
	}
	return c.ClientStream.SendMsg(m)
}

func (c counting) RecvMsg(m any) error {
	err := c.ClientStream.RecvMsg(m)
	if resp, ok := m.(*etcdserverpb.WatchResponse); ok && err == nil {
		c.told.Add(int64(len(resp.Events)))
	}
	return err
}

// TestAnIdleJournalIsWatchedBesideBusyNeighbours lets others write to the cluster, and
// members forget everything since the journal's last commit. A connection that breaks then
// must not leave it with watches that end at once.
func TestAnIdleJournalIsWatchedBesideBusyNeighbours(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	t.Parallel()
	ctx := patient(t)
	c := start(t, 1)
	url := c.prefixed()
	client, _ := raw(t, url)
	var w watches
	db, err := etcd.Open(ctx, url, "test", journaltest.Types(t), etcd.Options{Log: quiet}.Through(w.call, 0).Streaming(w.open))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	said(t, db, 0, 1)
	var last int64
	for n := range 10 {
		resp, err := client.Put(ctx, "neighbour/"+strconv.Itoa(n), "")
		if err != nil {
			t.Fatal(err)
		}
		last = resp.Header.Revision
	}
	if _, err := client.Compact(ctx, last, clientv3.WithCompactPhysical()); err != nil {
		t.Fatal(err)
	}
	c.Kill(0)
	if err := errors.Join(c.Start(0), c.Ready()); err != nil {
		t.Fatal(err)
	}
	begun, asked := w.begun.Load(), w.asked.Load()
	const few = 6
	eventually(ctx, t, "the head is not asked for", func() (bool, any) {
		return w.asked.Load() > asked+3 || w.begun.Load() > begun+few, w.asked.Load()
	})
	if n := w.begun.Load() - begun; n > few {
		t.Errorf("%d watches were begun while the head was asked for %d times, and nobody wrote", n, w.asked.Load()-asked)
	}
	told := w.told.Load()
	other := open(t, url)
	if _, err := other.Append(ctx, freehold.Write{Stream: "a-1", Expect: freehold.NoStream, Events: []freehold.Event{journaltest.Happened{N: 1}}}); err != nil {
		t.Fatal(err)
	}
	eventually(ctx, t, "the watch does not tell of others' commits", func() (bool, any) { return w.told.Load() >= told+2, w.told.Load() - told })
}
