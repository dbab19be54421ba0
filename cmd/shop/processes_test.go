package main_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// TestThreeProcessesLoseNothing runs each service as a process of its own, kills
// each with -9 while an order is under way, takes the broker away with all that it
// holds, and audits.
func TestThreeProcessesLoseNothing(t *testing.T) {
	t.Parallel()
	shop := binary(t)
	t.Run("pull", func(t *testing.T) {
		t.Parallel()
		s := newProcesses(t, shop, false)
		s.order("before any fault")
		s.killEach()
		s.verify()
	})
	t.Run("nats", func(t *testing.T) {
		t.Parallel()
		s := newProcesses(t, shop, true)
		s.order("while there is no broker yet")
		broker := s.startBroker()
		s.subscribed()
		s.order("over the broker")
		s.killEach()
		s.subscribed()
		kill(broker)
		if err := os.RemoveAll(s.brokerDir()); err != nil {
			t.Fatal(err)
		}
		s.order("without the broker")
		s.startBroker()
		s.subscribed()
		s.order("over an empty broker")
		s.verify()
	})
}

// TestBadBrokerIsSaidAtStart keeps a mistyped URL from becoming a service that
// works, and never speaks to its broker.
func TestBadBrokerIsSaidAtStart(t *testing.T) {
	t.Parallel()
	shop := binary(t)
	out, err := exec.Command(shop, "billing", "--data", t.TempDir(), "--addr", "127.0.0.1:0", "--nats", "http://127.0.0.1:4222").CombinedOutput()
	if code := exitCode(err); code != 1 || strings.Count(string(out), "\n") != 1 || !strings.Contains(string(out), "want nats://host:port") {
		t.Fatalf("exit status %d\n%s", code, out)
	}
}

func exitCode(err error) int {
	if exit, ok := err.(*exec.ExitError); ok {
		return exit.ExitCode()
	}
	return 0
}

// processes are a shop of three processes and perhaps a broker.
type processes struct {
	*testing.T
	shop, dir string
	addr      map[string]string
	token     string
	nats      bool
	running   map[string]*exec.Cmd
}

var services = []string{"order", "inventory", "billing"}

func newProcesses(t *testing.T, shop string, overNATS bool) *processes {
	s := &processes{T: t, shop: shop, dir: t.TempDir(), nats: overNATS, running: map[string]*exec.Cmd{}, addr: map[string]string{}}
	for _, name := range append(services, "broker") {
		s.addr[name] = freeAddr(t)
	}
	for _, name := range services {
		s.startService(name)
	}
	raw, err := os.ReadFile(s.tokenFile())
	if err != nil {
		t.Fatal(err)
	}
	s.token = strings.TrimSpace(string(raw))
	s.post("inventory", "/products/batch", "", `[{"sku": "NAIL", "description": "Steel nail", "price": "0.125", "received": 1000000}]`)
	return s
}

// freeAddr is an address below those that connections take, so that nobody has it
// when a service that was killed comes back.
func freeAddr(t *testing.T) string {
	for {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 12_000+rand.N(18_000)))
		if err != nil {
			continue
		}
		defer l.Close()
		return l.Addr().String()
	}
}

func (s *processes) tokenFile() string { return filepath.Join(s.dir, "token") }
func (s *processes) brokerDir() string { return filepath.Join(s.dir, "broker") }

func (s *processes) startService(name string) {
	s.Helper()
	args := []string{name, "--data", filepath.Join(s.dir, name), "--addr", s.addr[name], "--token-file", s.tokenFile()}
	for _, other := range services {
		if other == name || name != "order" && other != "order" {
			continue
		}
		args = append(args, "--"+other, "http://"+s.addr[other])
	}
	if s.nats {
		args = append(args, "--nats", "nats://"+s.addr["broker"])
	}
	s.running[name] = s.start(args...)
}

func (s *processes) startBroker() *exec.Cmd {
	s.Helper()
	return s.start("broker", "--data", s.brokerDir(), "--addr", s.addr["broker"])
}

// start returns when the process says that it is ready.
func (s *processes) start(args ...string) *exec.Cmd {
	s.Helper()
	cmd := exec.Command(s.shop, append(args, "--log", "error")...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		s.Fatal(err)
	}
	s.Cleanup(func() { kill(cmd) })
	lines := bufio.NewScanner(stdout)
	for lines.Scan() {
		if strings.Contains(lines.Text(), "ready on") {
			go func() { _, _ = io.Copy(io.Discard, stdout) }()
			return cmd
		}
	}
	s.Fatalf("shop %v: %v\n%s", args, cmd.Wait(), &stderr)
	return nil
}

// kill is kill -9.
func kill(cmd *exec.Cmd) {
	_ = cmd.Process.Kill() // it may have ended
	_ = cmd.Wait()
}

// killEach kills each service when it has an order to work on.
func (s *processes) killEach() {
	s.Helper()
	for _, name := range services {
		id := s.place("killed: " + name)
		kill(s.running[name])
		s.startService(name)
		s.paid(id)
	}
}

func (s *processes) order(key string) {
	s.Helper()
	s.paid(s.place(key))
}

func (s *processes) place(key string) string {
	s.Helper()
	raw := s.post("order", "/orders", key, `{"customer": "17850", "country": "EIRE", "lines": [{"sku": "NAIL", "quantity": 8, "price": "0.125"}]}`)
	var placed struct{ ID string }
	if err := json.Unmarshal(raw, &placed); err != nil || placed.ID == "" {
		s.Fatalf("place: %v: %s", err, raw)
	}
	return placed.ID
}

func (s *processes) paid(id string) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), time.Minute)
	defer cancel()
	for {
		var order struct{ Status string }
		raw, err := s.do(ctx, http.MethodGet, "order", "/orders/"+id+"?until=paid", "", "")
		if err == nil {
			err = json.Unmarshal(raw, &order)
		}
		if order.Status == "paid" {
			return
		}
		if ctx.Err() != nil || order.Status == "rejected" || order.Status == "cancelled" {
			s.Fatalf("order %s is not paid: %v: %s", id, err, raw)
		}
	}
}

func (s *processes) post(service, path, key, body string) []byte {
	s.Helper()
	raw, err := s.do(s.Context(), http.MethodPost, service, path, key, body)
	if err != nil {
		s.Fatal(err)
	}
	return raw
}

func (s *processes) do(ctx context.Context, method, service, path, key, body string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://"+s.addr[service]+path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("Authorization", "Bearer "+s.token)
	req.Header.Set("Content-Type", "application/json")
	if key != "" {
		req.Header.Set("Idempotency-Key", key)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode/100 != 2 {
		err = fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, raw)
	}
	return raw, err
}

// subscribed returns when every stream is on the broker, holds what was published,
// and is read by all who should.
func (s *processes) subscribed() {
	s.Helper()
	conn, err := nats.Connect("nats://" + s.addr["broker"])
	if err != nil {
		s.Fatal(err)
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		s.Fatal(err)
	}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	late := time.After(30 * time.Second)
	for {
		all := true
		seen := ""
		for source, readers := range map[string]int{"order": 2, "inventory": 1, "billing": 1} {
			stream, err := js.Stream(s.Context(), source)
			if err != nil {
				all, seen = false, seen+fmt.Sprintf(" %s: %v;", source, err)
				continue
			}
			state := stream.CachedInfo().State
			all = all && state.Consumers >= readers && state.Msgs > 0
			seen += fmt.Sprintf(" %s: %d messages, %d readers;", source, state.Msgs, state.Consumers)
		}
		if all {
			return
		}
		select {
		case <-tick.C:
		case <-late:
			s.Fatal("the broker holds", seen)
		}
	}
}

// verify audits, and stops the services in good order.
func (s *processes) verify() {
	s.Helper()
	out, err := exec.Command(s.shop, "verify", "--url", "http://"+s.addr["order"], "--token-file", s.tokenFile()).CombinedOutput()
	if err != nil || !strings.Contains(string(out), " 0 violations") {
		s.Fatalf("%v\n%s", err, out)
	}
	for _, name := range services {
		cmd := s.running[name]
		if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
			s.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			s.Errorf("%s did not stop in good order: %v", name, err)
		}
	}
}
