package nats_test

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	client "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/internal/testdb"
	"github.com/freehold-go/freehold/nats"
	"github.com/freehold-go/freehold/transport/transporttest"
)

func TestMain(m *testing.M) { os.Exit(testdb.Main(m)) }

// cluster starts three servers that end with the test.
func cluster(t testing.TB, more string) *testdb.NATSCluster {
	t.Helper()
	c, err := testdb.StartNATS(3, more)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Stop)
	return c
}

func attachTo(t testing.TB, url string, o *nats.Options) *nats.Bus {
	t.Helper()
	if o == nil {
		o = &nats.Options{}
	}
	o.Log = quiet
	bus, err := nats.Connect(t.Context(), url, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := bus.Close(); err != nil {
			t.Error(err)
		}
	})
	return bus
}

// TestClusterConformance runs the suite on three replicas. Each subtest has an account
// of its own, which is an empty broker.
func TestClusterConformance(t *testing.T) {
	t.Parallel()
	const accounts = 64
	var config strings.Builder
	config.WriteString("accounts {\n")
	for i := range accounts {
		fmt.Fprintf(&config, "A%d: { jetstream: enabled, users: [{user: u%d, password: p}] }\n", i, i)
	}
	config.WriteString("}\n")
	c := cluster(t, config.String())
	var next atomic.Int32
	users := sync.Map{} // of brokers
	harness := transporttest.Harness{
		Start: func(t testing.TB) transporttest.Broker {
			user := fmt.Sprintf("u%d", next.Add(1)-1)
			bus := attachTo(t, c.URL(user, "p")+"?replicas=3&pages="+strconv.FormatBool(strings.Contains(t.Name(), "/pages/")), nil)
			users.Store(bus, user)
			return bus
		},
		Forget: func(t testing.TB, b transporttest.Broker) {
			user, _ := users.Load(b)
			conn, err := client.Connect(c.URL(user.(string), "p"))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			js, err := jetstream.New(conn)
			if err != nil {
				t.Fatal(err)
			}
			names := js.StreamNames(t.Context())
			for name := range names.Name() {
				if err := js.DeleteStream(t.Context(), name); err != nil {
					t.Fatal(err)
				}
			}
			if err := names.Err(); err != nil {
				t.Fatal(err)
			}
		},
		MaxEvent: 8 << 20,
	}
	t.Run("a message each", func(t *testing.T) { transporttest.Run(t, harness) })
	t.Run("pages", func(t *testing.T) { transporttest.Run(t, harness) })
}

// TestClusterLosesServersWhileEventsFlow kills one server after the other, one with its
// directory, then two at once, then all and their directories.
func TestClusterLosesServersWhileEventsFlow(t *testing.T) {
	t.Parallel()
	for _, way := range []string{"pages=false", "pages=true"} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			clusterLosesServers(t, way)
		})
	}
}

func clusterLosesServers(t *testing.T, way string) {
	c := cluster(t, "")
	s := connect(t, attachTo(t, c.URL("", "")+"?replicas=3&"+way, nil))
	s.arrived(s.place(50))
	start := func(servers ...int) {
		t.Helper()
		for _, i := range servers {
			if err := c.Start(i); err != nil {
				t.Fatal(err)
			}
		}
	}
	for i := range 3 {
		c.Kill(i)
		s.arrived(s.place(50))
		if i == 1 {
			removeAll(t, c.Dir(i))
		}
		start(i)
		s.arrived(s.place(50))
		if err := c.Ready(); err != nil {
			t.Fatal(err)
		}
	}
	c.Kill(0)
	c.Kill(1)
	s.arrived(s.place(50)) // by the feed: there is no quorum
	start(0, 1)
	s.arrived(s.place(50))
	for i := range 3 {
		c.Kill(i)
		removeAll(t, c.Dir(i))
	}
	s.arrived(s.place(50))
	start(0, 1, 2)
	s.arrived(s.place(50))
	published(t, s.bus, s.sender)
}

// TestUsersAreKeptApart gives each service a user of its own.
func TestUsersAreKeptApart(t *testing.T) {
	t.Parallel()
	user := func(own freehold.Source, reads ...freehold.Source) string {
		return fmt.Sprintf("{user: %s, password: secret, permissions: %s}", own, nats.PermissionsOf(own, reads...))
	}
	c := cluster(t, "authorization { users: ["+user("order")+", "+user("billing", "order")+", "+user("inventory")+"] }\n")
	as := func(own freehold.Source) *nats.Bus {
		return attachTo(t, c.URL(string(own), "secret")+"?replicas=3", &nats.Options{Service: own})
	}
	s := connectApart(t, as("order"), as("billing"))
	s.arrived(s.place(200))
	published(t, s.bus, s.sender)

	conn, err := client.Connect(c.URL("inventory", "secret"), client.CustomInboxPrefix("_INBOX.inventory"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	refused := make(chan error, 10)
	conn.SetErrorHandler(func(_ *client.Conn, _ *client.Subscription, err error) { refused <- err })
	for _, try := range []func() error{
		func() error { return conn.Publish("order.placed", []byte("{}")) },
		func() error { return conn.Publish("_freehold.head.order", []byte("{}")) },
		func() error { return conn.Publish("$JS.API.STREAM.DELETE.order", nil) },
		func() error { return conn.Publish("$JS.API.STREAM.PURGE.order", nil) },
		func() error { return conn.Publish("$JS.API.CONSUMER.CREATE.order.x", []byte("{}")) },
		func() error { _, err := conn.SubscribeSync("order.>"); return err },
		func() error { _, err := conn.SubscribeSync("_INBOX.billing.>"); return err },
	} {
		if err := try(); err != nil {
			t.Fatal(err)
		}
		if err := conn.Flush(); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-refused:
			if !strings.Contains(strings.ToLower(err.Error()), "permissions violation") {
				t.Errorf("refused with %v", err)
			}
		case <-time.After(time.Minute):
			t.Error("Inventory's user may do what it should not")
		}
	}

	for name, url := range map[string]string{
		"a wrong password": c.URL("order", "wrong"),
		"no user":          c.URL("", ""),
	} {
		bus, err := nats.Connect(t.Context(), url, &nats.Options{Log: quiet})
		if err == nil {
			_, err = bus.Check(t.Context())
			_ = bus.Close()
		}
		if err == nil || !strings.Contains(err.Error(), "check host, port, user and password") || strings.Contains(err.Error(), "wrong@") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
