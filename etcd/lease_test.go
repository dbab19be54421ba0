package etcd_test

import (
	"log/slog"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/freehold-go/freehold/etcd"
	"github.com/freehold-go/freehold/internal/testdb"
	"github.com/freehold-go/freehold/journal/journaltest"
)

func open(t testing.TB, url string) *etcd.DB {
	t.Helper()
	db, err := etcd.Open(t.Context(), url, "test", journaltest.Types(t), &etcd.Options{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}

func TestOneInstanceLeadsAtATime(t *testing.T) {
	t.Parallel()
	url := testdb.Etcd(t)
	rest, _, _ := strings.Cut(strings.TrimPrefix(url, "etcd://"), "?")
	host, prefix, _ := strings.Cut(rest, "/")
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{host}})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	testdb.Lease(t, open(t, url), open(t, url), func() {
		resp, err := client.Get(t.Context(), prefix+"/l")
		if err == nil && len(resp.Kvs) == 1 {
			_, err = client.Revoke(t.Context(), clientv3.LeaseID(resp.Kvs[0].Lease))
		}
		if err != nil || len(resp.Kvs) != 1 {
			t.Errorf("%d leases, %v", len(resp.Kvs), err)
		}
	})
}
