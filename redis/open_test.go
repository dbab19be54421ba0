package redis_test

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/internal/testredis"
	"github.com/freehold-go/freehold/redis"
)

var quiet = slog.New(slog.DiscardHandler)

func TestServersThatWouldLoseKeysOneByOneAreRefused(t *testing.T) {
	t.Parallel()
	srv := testredis.NewServer(t, "--maxmemory", "64mb", "--maxmemory-policy", "allkeys-lru")
	_, err := redis.Open(t.Context(), srv.URL(), &redis.Options{Log: quiet})
	if err == nil || !strings.Contains(err.Error(), `maxmemory-policy "allkeys-lru"`) || !strings.Contains(err.Error(), "set noeviction") {
		t.Errorf("%v", err)
	}
	relaxed := open(t, srv.URL(), &redis.Options{Relaxed: true})
	if audit := strings.Join(relaxed.Audit(), ", "); !strings.Contains(audit, "relaxed: maxmemory-policy allkeys-lru") {
		t.Error(audit)
	}
	srv.Do("CONFIG", "SET", "maxmemory-policy", "noeviction")
	if audit := strings.Join(open(t, srv.URL(), nil).Audit(), ", "); !strings.Contains(audit, "noeviction at 64.00M") {
		t.Error(audit)
	}
}

func TestAuditSaysWhichGuaranteeTheSettingsGive(t *testing.T) {
	t.Parallel()
	for want, args := range map[string][]string{
		"appendonly no: a restart goes back to the last snapshot": nil,
		"appendonly yes, appendfsync always":                      {"--appendonly", "yes", "--appendfsync", "always"},
		"appendonly yes, appendfsync everysec":                    {"--appendonly", "yes"},
	} {
		audit := strings.Join(open(t, testredis.NewServer(t, args...).URL(), nil).Audit(), ", ")
		for _, want := range []string{want, "Redis ", "role primary", "noeviction, no maxmemory", "build again from the journal"} {
			if !strings.Contains(audit, want) {
				t.Errorf("want %q: %s", want, audit)
			}
		}
	}
}

func TestReplicasAreRefused(t *testing.T) {
	t.Parallel()
	primary := testredis.NewServer(t)
	replica := testredis.NewServer(t, "--replicaof", "127.0.0.1 "+primary.Port())
	_, err := redis.Open(t.Context(), replica.URL(), &redis.Options{Log: quiet})
	if err == nil || !strings.Contains(err.Error(), "is a replica") || !strings.Contains(err.Error(), "address of the primary") {
		t.Errorf("%v", err)
	}
	// A primary that is made a replica refuses writes, and says so.
	store := store(t, primary.URL(), nil)
	if err := put(t, store, "a", "1"); err != nil {
		t.Fatal(err)
	}
	primary.Do("REPLICAOF", "127.0.0.1", "1")
	if err := put(t, store, "a", "2"); !errors.Is(err, freehold.ErrUnavailable) || errors.Is(err, freehold.ErrUnknown) || !strings.Contains(err.Error(), "address of the primary") {
		t.Errorf("%v", err)
	}
}

func TestUsersNeedOnlyWhatIsUsed(t *testing.T) {
	t.Parallel()
	srv := testredis.NewServer(t)
	if said := srv.Do("ACL", "SETUSER", "shop", "on", ">s3cret", "~shop:*", "+@scripting", "+@hash", "+@sortedset", "+@string", "+@keyspace", "+@connection", "+info", "+time", "-@dangerous", "+info"); said != "+OK" {
		t.Fatal(said)
	}
	srv.Do("ACL", "SETUSER", "mute", "on", ">s3cret", "~*", "+@all", "-info", "-config")
	at := func(user string) string {
		return strings.Replace(srv.URL(), "redis://", "redis://"+user+"@", 1) + "/shop"
	}
	c := open(t, at("shop:s3cret"), nil)
	if audit := strings.Join(c.Audit(), ", "); !strings.Contains(audit, "CONFIG is not permitted") {
		t.Error(audit)
	}
	s, err := c.Store("views")
	if err != nil {
		t.Fatal(err)
	}
	if err := put(t, s, "a", "1"); err != nil {
		t.Error(err)
	}
	for user, want := range map[string]string{
		"mute:s3cret":   "permit +info, or open relaxed",
		"shop:Wr0ngPw":  "give user and password in the URL",
		"nobody:s3cret": "give user and password in the URL",
	} {
		_, err := redis.Open(t.Context(), at(user), &redis.Options{Log: quiet})
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "s3cret") || strings.Contains(err.Error(), "Wr0ngPw") {
			t.Errorf("%s: %v", user, err)
		}
	}
	if audit := strings.Join(open(t, at("mute:s3cret"), &redis.Options{Relaxed: true}).Audit(), ", "); !strings.Contains(audit, "settings not known") {
		t.Error(audit)
	}
	// Outside of its prefix the user may do nothing.
	c = open(t, strings.TrimSuffix(at("shop:s3cret"), "/shop")+"/other", nil)
	if s, err = c.Store("views"); err != nil {
		t.Fatal(err)
	}
	if err := put(t, s, "a", "1"); !errors.Is(err, freehold.ErrUnavailable) || !strings.Contains(err.Error(), "NOPERM") {
		t.Errorf("%v", err)
	}
}

func TestURLsAreCheckedAndNeverShowThePassword(t *testing.T) {
	t.Parallel()
	for at, want := range map[string]string{
		"":                                  "want redis://",
		"pebble:secret":                     "want redis://",
		"redis://user:secret@":              "want redis://",
		"redis://user:secret@h:port/x":      "want redis://",
		"redis://user:se cret@h\x00/x":      "want redis://",
		"redis://user:secret@h/x?db=secret": "redis://h:6379/x",
		"redis://user:secret@h/x?pw=1":      "only db is known",
		"redis://user:secret@h/{x}":         "prefix",
		"redis://user:secret@127.0.0.1:1/x": "redis://127.0.0.1:1/x cannot be reached",
	} {
		_, err := redis.Open(t.Context(), at, &redis.Options{Log: quiet})
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(strings.ReplaceAll(err.Error(), `db "secret"`, ""), "secret") || strings.Contains(err.Error(), "se cret") {
			t.Errorf("%q: %v", at, err)
		}
	}
}

func TestAFullServerRefusesWholeTransactions(t *testing.T) {
	t.Parallel()
	srv := testredis.NewServer(t)
	s := store(t, srv.URL(), nil)
	if err := put(t, s, "a", "1"); err != nil {
		t.Fatal(err)
	}
	srv.Do("CONFIG", "SET", "maxmemory", "1mb")
	if err := put(t, s, "a", "2"); !errors.Is(err, freehold.ErrUnavailable) || errors.Is(err, freehold.ErrUnknown) || !strings.Contains(err.Error(), "raise maxmemory") {
		t.Errorf("%v", err)
	}
	srv.Do("CONFIG", "SET", "maxmemory", "0")
	if got := get(t, s, "a"); got != "1" {
		t.Errorf("a is %q", got)
	}
	if err := put(t, s, "a", "3"); err != nil {
		t.Error(err)
	}
}

// TestAClusterHoldsEachStoreInOneSlot runs followers of several stores on two nodes.
func TestAClusterHoldsEachStoreInOneSlot(t *testing.T) {
	t.Parallel()
	var nodes []*testredis.Server
	for range 2 {
		nodes = append(nodes, testredis.NewCluster(t))
	}
	nodes[0].Do("CLUSTER", "ADDSLOTSRANGE", "0", "8000")
	nodes[1].Do("CLUSTER", "ADDSLOTSRANGE", "8001", "16383")
	nodes[0].Do("CLUSTER", "MEET", "127.0.0.1", nodes[1].Port(), nodes[1].BusPort())
	for until := time.Now().Add(30 * time.Second); !nodes[0].Says("cluster_state:ok", "CLUSTER", "INFO") || !nodes[1].Says("cluster_state:ok", "CLUSTER", "INFO"); {
		if time.Now().After(until) {
			t.Fatal("the cluster does not come up")
		}
	}
	if audit := strings.Join(open(t, nodes[0].URL(), nil).Audit(), ", "); !strings.Contains(audit, "cluster") {
		t.Error(audit)
	}
	source := newSource(t)
	m := newModel(t, nodes[0].URL()+"/shop", source, nil)
	m.want(m.add(40), 40)
	c := open(t, nodes[1].URL()+"/shop", nil)
	for i := range 8 { // in slots of both nodes
		s, err := c.Store(fmt.Sprint("store", i))
		if err != nil {
			t.Fatal(err)
		}
		if err := put(t, s, "a", fmt.Sprint(i)); err != nil {
			t.Error(err)
		}
		if got := get(t, s, "a"); got != fmt.Sprint(i) {
			t.Errorf("a is %q in store %d", got, i)
		}
	}
	for _, n := range nodes {
		if n.Do("DBSIZE") == ":0" {
			t.Error("a node holds nothing")
		}
		n.Do("FLUSHALL")
	}
	m.want(m.add(10), 50)
}
