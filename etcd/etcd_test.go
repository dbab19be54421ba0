package etcd_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/etcd"
	"github.com/freehold-go/freehold/internal/testdb"
	"github.com/freehold-go/freehold/journal"
	"github.com/freehold-go/freehold/journal/journaltest"
	"github.com/freehold-go/freehold/kv"
)

// TestMain lets random cases be fewer than rapid's hundred, for each waits for many
// commits of a real cluster; -rapid.checks has the last word.
func TestMain(m *testing.M) {
	if url := os.Getenv(childURL); url != "" {
		if err := child(url); err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		return
	}
	if url := os.Getenv(cutChild); url != "" {
		fmt.Println("error:", cutUntilKilled(url))
		os.Exit(1)
	}
	if err := flag.Set("rapid.checks", "20"); err != nil {
		panic(err)
	}
	os.Exit(testdb.Main(m))
}

// at returns the URL of the prefix that a directory stands for: also to another
// process, as which a test runs itself.
func at(t testing.TB, place string, fresh func(testing.TB) string) string {
	t.Helper()
	file := filepath.Join(place, "url")
	if raw, err := os.ReadFile(file); err == nil {
		return string(raw)
	}
	url := fresh(t)
	if err := os.WriteFile(file, []byte(url), 0o600); err != nil {
		t.Fatal(err)
	}
	return url
}

var quiet = slog.New(slog.DiscardHandler)

func harness() journaltest.Harness[kv.Tx] { return harnessAt(testdb.Etcd) }

// harnessAt opens databases at URLs of its own.
func harnessAt(url func(testing.TB) string) journaltest.Harness[kv.Tx] {
	return journaltest.Harness[kv.Tx]{
		Open: func(t testing.TB, s journaltest.Setup) journaltest.DB[kv.Tx] {
			t.Helper()
			db, err := etcd.Open(t.Context(), at(t, s.Place, url), "test", s.Types, &etcd.Options{Cancel: s.Limit, Log: quiet})
			if err != nil {
				t.Fatal(err)
			}
			return db
		},
		Put: func(ctx context.Context, tx kv.Tx, key, value string) error { return tx.Put(ctx, key, []byte(value)) },
		Get: func(ctx context.Context, tx kv.Tx, key string) (string, error) {
			value, _, err := tx.Get(ctx, key)
			return string(value), err
		},
		Alter:       func(t testing.TB, place string, p freehold.Position) { alter(t, at(t, place, url), p) },
		Shared:      true,
		MaxEvent:    1_200_000,
		Cut:         cutUpTo,
		FailCommits: func(db journaltest.DB[kv.Tx], n int) { db.(*etcd.DB).FailCommits(n) },
	}
}

func TestConformance(t *testing.T) {
	t.Parallel()
	journaltest.Run(t, harness())
}

// TestConformanceOfThreeMembers runs the same suite where commits need a majority and
// reads may ask a member that is behind.
func TestConformanceOfThreeMembers(t *testing.T) {
	if testing.Short() {
		t.Skip("-short")
	}
	const inherited = "FREEHOLD_ETCD_TEST_THREE"
	url := os.Getenv(inherited)
	if url == "" {
		url = start(t, 3).URL()
		testdb.Inherit(inherited, url) // by the processes that the suite kills
	}
	var n atomic.Int64
	journaltest.Run(t, harnessAt(func(testing.TB) string {
		return fmt.Sprintf("%s/t%d.%d?max-txn-ops=%d", url, os.Getpid(), n.Add(1), testdb.TxnOps)
	}))
}

// members is a cluster of a test's own.
type members struct {
	*testdb.EtcdCluster
	n atomic.Int64
}

func start(t testing.TB, n int, flags ...string) *members {
	t.Helper()
	c, err := testdb.StartEtcd(n, flags...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Stop)
	return &members{EtcdCluster: c}
}

// prefixed is the URL of a prefix that nobody else uses.
func (m *members) prefixed() string {
	return fmt.Sprintf("%s/t%d?max-txn-ops=%d", m.URL(), m.n.Add(1), testdb.TxnOps)
}

// raw connects to the members of a URL past the engine.
func raw(t testing.TB, url string) (client *clientv3.Client, prefix string) {
	t.Helper()
	rest, _, _ := strings.Cut(strings.TrimPrefix(url, "etcd://"), "?")
	hosts, prefix, _ := strings.Cut(rest, "/")
	client, err := clientv3.New(clientv3.Config{Endpoints: strings.Split(hosts, ","), Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client, prefix + "/"
}

// cutUpTo lets a consumer keep what stands behind a place, and cuts all that is older
// than now.
func cutUpTo(t testing.TB, db journaltest.DB[kv.Tx], at freehold.Mark) {
	t.Helper()
	err := db.Journal().Unregister(t.Context(), "test/kept") // a higher mark would be written down later
	if err == nil || errors.Is(err, journal.ErrNoConsumer) {
		err = db.Journal().Register(t.Context(), "test/kept", at)
	}
	if err == nil {
		_, err = db.(*etcd.DB).CutNow(t.Context(), time.Nanosecond)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// alter changes a byte of the payload at a position, which is the first of its commit.
func alter(t testing.TB, url string, p freehold.Position) {
	t.Helper()
	client, prefix := raw(t, url)
	from := string(binary.BigEndian.AppendUint64([]byte(prefix+"e"), uint64(p)))
	resp, err := client.Get(t.Context(), from, clientv3.WithRange(prefix+"f"), clientv3.WithLimit(1))
	if err != nil || len(resp.Kvs) != 1 {
		t.Fatalf("events at %d: %v, %v", p, resp, err)
	}
	value := resp.Kvs[0].Value
	i := bytes.Index(value, []byte("some text"))
	if i < 0 {
		t.Fatal("no text to alter")
	}
	value[i] ^= 1
	if _, err := client.Put(t.Context(), string(resp.Kvs[0].Key), string(value)); err != nil {
		t.Fatal(err)
	}
}
