package main_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/host"
	"github.com/freehold-go/freehold/inbox"
	"github.com/freehold-go/freehold/kv"
	"github.com/freehold-go/freehold/memory"
	"github.com/freehold-go/freehold/nats"
	"github.com/freehold-go/freehold/nats/embed"
	"github.com/freehold-go/freehold/outbox"
	"github.com/freehold-go/freehold/sqlite"
)

type placed struct {
	N int `json:"n"`
}

func (placed) EventType() freehold.Type { return freehold.T("order.placed", 1) }

// restored runs two services: orders, whose database was put back behind its second
// order, and billing, which has applied two more.
func restored(t *testing.T) (orders, billing operator) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	quiet := slog.New(slog.DiscardHandler)
	types, err := freehold.NewCatalog(freehold.JSON[placed]())
	must(err)
	at := t.TempDir()
	server, err := embed.Start(filepath.Join(at, "broker"), &embed.Options{Log: quiet})
	must(err)
	t.Cleanup(func() { server.Close() })
	bus, err := nats.Connect(t.Context(), "", &nats.Options{Server: server, Log: quiet})
	must(err)
	t.Cleanup(func() { bus.Close() })
	running := func(h *host.Host) (stop func()) {
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- h.Run(ctx) }()
		stop = sync.OnceFunc(func() {
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
		t.Cleanup(stop)
		return stop
	}

	listener, err := host.Listen("billing", "")
	must(err)
	billingURL, ordersAt := "http://"+listener.Addr().String(), ""
	path := filepath.Join(at, "orders.db")
	var db *sqlite.DB
	var relay *outbox.Relay
	start := func() (stop func()) {
		t.Helper()
		var err error
		db, err = sqlite.Open(t.Context(), path, "orders", types, &sqlite.Options{Log: quiet})
		must(err)
		h, err := host.New("orders", db.Journal(), &host.Options{Addr: ordersAt, Token: token, Consumers: []string{billingURL}, Log: quiet})
		must(err)
		ordersAt = h.Addr()
		h.Own(db)
		relay = outbox.New(db.Journal(), bus.Publisher("orders"), &outbox.Options{Log: quiet})
		h.Go("relay", relay)
		return running(h)
	}
	stop := start()
	own, err := memory.Open(t.Context(), "billing", types, &memory.Options{Log: quiet})
	must(err)
	source, err := inbox.Remote("orders", "http://"+ordersAt+"/feed", types, &inbox.Options{Subscriber: bus.Subscriber(), Token: token, Silence: 100 * time.Millisecond, Log: quiet})
	must(err)
	invoices, err := follow.New("invoices", own, []follow.Source{source}, &follow.Options{MaxPause: 50 * time.Millisecond, Log: quiet},
		follow.On(func(ctx context.Context, tx kv.Tx, e placed, _ freehold.Recorded) error {
			return tx.Put(ctx, strconv.Itoa(e.N), []byte("invoiced"))
		}))
	must(err)
	h, err := host.New("billing", own.Journal(), &host.Options{Listener: listener, Token: token, Log: quiet})
	must(err)
	h.Own(own)
	h.Go("orders", source)
	h.Go("invoices", invoices)
	running(h)

	place := func(numbers ...int) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		for _, n := range numbers {
			tok, err := db.Append(ctx, freehold.Write{Stream: freehold.Stream("order", strconv.Itoa(n)), Expect: freehold.NoStream, Events: []freehold.Event{placed{n}}})
			must(err)
			must(invoices.WaitFor(ctx, tok))
			must(relay.WaitFor(ctx, tok))
		}
	}
	place(1, 2)
	stop()
	backup, err := os.ReadFile(path)
	must(err)
	stop = start()
	place(3, 4)
	stop()
	must(os.WriteFile(path, backup, 0o600))
	start()
	return operatorOf(t, "http://"+ordersAt), operatorOf(t, billingURL)
}

// until runs the program until what it prints matches, and returns that.
func (o operator) until(status int, matches func(out string) bool, args ...string) string {
	o.t.Helper()
	for end := time.Now().Add(time.Minute); ; {
		got, stdout, stderr := o.try(args...)
		if got == status && matches(stdout) {
			return stdout
		}
		if time.Now().After(end) {
			o.t.Fatalf("freehold %v: exit status %d, want %d and another output than\n%s%s", args, got, status, stdout, stderr)
		}
	}
}

// plain puts names in the place of what is different in each run.
func plain(out string) string {
	for _, r := range []struct{ expr, name string }{
		{`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ`, "TIME"},
		{`http://127\.0\.0\.1:\d+`, "URL"},
		{`[0-9a-f]{64}`, "CHAIN"},
		{`[0-9a-f]{16}\.1`, "NEW"},
		{`epoch [0-9a-f]{16}`, "epoch OLD"},
		{`orders:[0-9a-f]{16}`, "orders:OLD"},
		{`[0-9a-f-]{20,}`, "ID"},
		{`\d orphans`, "N orphans"},
		{`(relay|URL invoices) stands at .*`, "REASON"},
		{` +`, " "},
	} {
		out = regexp.MustCompile(r.expr).ReplaceAllString(out, r.name)
	}
	return out
}

func prints(t *testing.T, got, want string) {
	t.Helper()
	if got = plain(got); got != want {
		t.Errorf("it prints\n%s\nwant\n%s", got, want)
	}
}

func whatever(string) bool { return true }

// refused reports whether commands are refused because of billing, which has answered.
func refused(out string) bool {
	return strings.Contains(out, "commands are refused") && strings.Contains(out, "  ahead") && !strings.Contains(out, "no answer")
}

// stopped reports whether a follower is stopped and all that was lost is listed.
func stopped(out string) bool {
	return strings.Contains(out, "is stopped") && strings.Contains(out, "order-3") && strings.Contains(out, "order-4")
}

// An operator looks at both services, makes mistakes, and has billing keep what it did:
// then orders takes commands by itself.
func TestForksKept(t *testing.T) {
	t.Parallel()
	orders, billing := restored(t)
	prints(t, orders.until(1, refused, "forks"), "orders is at epoch NEW\nfork 1 TIME behind 2 epoch NEW open REASON\n"+
		"commands are refused:\n ahead URL invoices at 4\n")
	prints(t, billing.until(1, stopped, "forks"), "billing is at epoch OLD\ninvoices is stopped: it has applied orders:3 to 4, which orders has lost\n"+
		" 3 order.placed order-3 ID\n 4 order.placed order-4 ID\n")
	var told host.Forks
	if err := json.Unmarshal([]byte(orders.run(1, "forks", "--json")), &told); err != nil || told.Source != "orders" || len(told.Forks) != 1 || told.Stopped == nil {
		t.Errorf("forks %+v: %v", told, err)
	}

	says(t, billing.run(1, "keep"), "name the follower and the source")
	says(t, billing.run(1, "keep", "invoices"), "name the follower and the source")
	says(t, billing.run(1, "adopt", "invoices"), "name the follower and the source")
	says(t, billing.run(1, "keep", "nobody", "orders"), "404", `no follower "nobody"`)
	says(t, billing.run(1, "keep", "invoices", "elsewhere"), "409", "elsewhere")
	says(t, orders.run(1, "keep", "relay", "orders"), "409", "relay has no effects of its own", "nothing to keep")
	says(t, billing.run(1, "adopt"), "409", "nothing to adopt")
	says(t, billing.run(2, "keep", "invoices", "orders", "more"), "unexpected argument more")
	says(t, billing.run(2, "forks", "--nonsense"), "unknown flag --nonsense")

	prints(t, billing.run(0, "keep", "invoices", "orders"), "invoices goes on behind orders:2; its effects of what was lost stand, and are on record\n")
	prints(t, billing.until(0, whatever, "forks"), "billing is at epoch OLD\nTIME keep invoices orders:3 to 4 N orphans on record\n")
	says(t, billing.run(1, "keep", "invoices", "orders"), "409", "nothing to keep")
	prints(t, orders.until(0, whatever, "forks"), "orders is at epoch NEW\nfork 1 TIME behind 2 epoch NEW settled TIME REASON\n")
}

// The operator of orders does not wait for billing, which decides later.
func TestForksAdopted(t *testing.T) {
	t.Parallel()
	orders, billing := restored(t)
	orders.until(1, refused, "forks")
	prints(t, orders.run(0, "adopt"), "commands are taken again behind orders:2\n")
	prints(t, orders.until(0, whatever, "forks"), "orders is at epoch NEW\nfork 1 TIME behind 2 epoch NEW settled TIME REASON\n")
	says(t, orders.run(1, "adopt"), "409", "nothing to adopt")
	billing.until(1, stopped, "forks")
	var at freehold.Mark
	if err := json.Unmarshal([]byte(billing.run(0, "adopt", "invoices", "orders", "--json")), &at); err != nil || at.Source != "orders" || at.Position != 2 {
		t.Errorf("billing goes on behind %s: %v", at, err)
	}
	prints(t, billing.until(0, whatever, "forks"), "billing is at epoch OLD\nTIME adopt invoices orders:3 to 4 N orphans on record\n")
}
