package main_test

import (
	"bufio"
	"bytes"
	"database/sql"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// shopBinary is the program, built once for all tests.
var shopBinary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "freehold-shop-")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "shop")
	out, err := exec.Command("go", "build", "-o", path, ".").CombinedOutput()
	if err != nil {
		err = errors.New(string(out))
	}
	return path, err
})

func TestMain(m *testing.M) {
	status := m.Run()
	if path, err := shopBinary(); err == nil {
		_ = os.RemoveAll(filepath.Dir(path)) // in the temporary directory
	}
	os.Exit(status)
}

func binary(t *testing.T) string {
	t.Helper()
	path, err := shopBinary()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

const columns = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n"

// TestMistakesAreToldInOneLine makes the mistakes that people make, one at a time:
// each is one line that says what to do, exit status 1 or 2, and nothing is left
// behind.
func TestMistakesAreToldInOneLine(t *testing.T) {
	t.Parallel()
	shop, dir := binary(t), t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := file("good.csv", columns+"536365,85123A,LANTERN,6,12/1/2010 8:26,2.55,17850,EIRE\n")
	data := filepath.Join(dir, "data")
	for _, c := range []struct {
		args   []string
		status int
		says   string
	}{
		{[]string{"--nonsense"}, 2, "unknown flag --nonsense (see shop --help)"},
		{[]string{"nonsense"}, 2, "see shop --help"},
		{[]string{"replay"}, 2, `expected "<file>"`},
		{[]string{"load", "--orders", "many"}, 2, "--orders"},
		{[]string{"load", "--orders", "99999999999999999999"}, 2, "--orders"},
		{[]string{"load", "--orders=-1"}, 1, "--orders -1: want a number from 0"},
		{[]string{"load", "--rate", "0"}, 1, "--rate 0: want max, or a number"},
		{[]string{"load", "--rate", "NaN"}, 1, "--rate NaN: want max, or a number"},
		{[]string{"load", "--rate", "fast"}, 1, "--rate fast: want max, or a number"},
		{[]string{"load", "--concurrency", "0"}, 1, "--concurrency 0: want a number from 1"},
		{[]string{"load", "--in-flight", "0"}, 1, "--in-flight 0: want a number from 1"},
		{[]string{"load", "--lines", "1001"}, 1, "--lines 1001: want a number from 1 to 1000"},
		{[]string{"load", "--decline", "101"}, 1, "--decline 101: want a number from 0 to 100"},
		{[]string{"load", "--duration", "0s"}, 1, "--duration 0s: want one above 0"},
		{[]string{"load", "--data", ""}, 1, "give the --data directory"},
		{[]string{"load", "--url", "http://127.0.0.1:1"}, 1, "does not answer like a shop's Order service"},
		{[]string{"verify"}, 1, "there is no whole shop in"},
		{[]string{"verify", "--data", good}, 1, "there is no whole shop in"},
		{[]string{"serve", "--data", good}, 1, "not a directory"},
		{[]string{"replay", filepath.Join(dir, "missing.csv")}, 1, "give the path of an Online Retail"},
		{[]string{"replay", dir}, 1, "is a directory: give the path"},
		{[]string{"replay", file("other.csv", "a,b,c\n1,2,3\n")}, 1, "want InvoiceNo,StockCode"},
		{[]string{"replay", file("empty.csv", "")}, 1, "is empty: want a header"},
		{[]string{"replay", file("damaged.csv.gz", "\x1f\x8b\x08junk")}, 1, "the file is damaged"},
		{[]string{"replay", good, "--rows=-1"}, 1, "--rows -1: want a number from 1"},
		{[]string{"replay", good, "--stock", "some"}, 1, "--stock"},
		{[]string{"replay", good, "--stock=-5"}, 1, "--stock"},
		{[]string{"replay", good, "--policy", "some"}, 2, "--policy must be one of"},
		{[]string{"replay", good, "--truth", filepath.Join(dir, "missing.json")}, 1, "or leave out --truth"},
		{[]string{"replay", good, "--truth", file("half.json", `{"a"`)}, 1, "or leave out --truth"},
		{[]string{"replay", good, "--truth", file("none.json", `{}`)}, 1, "has no figures"},
	} {
		t.Run(strings.ReplaceAll(strings.Join(c.args, " "), dir, ""), func(t *testing.T) {
			t.Parallel()
			cmd := exec.Command(shop, c.args...)
			cmd.Env = append(os.Environ(), "SHOP_DATA="+data)
			var stdout, stderr bytes.Buffer
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			status := exitCode(cmd.Run())
			said := stderr.String()
			if c.args[0] == "serve" {
				stdout.Reset() // it says what it opens
			}
			if status != c.status || strings.Count(said, "\n") != 1 || !strings.HasPrefix(said, "shop: ") || !strings.Contains(said, c.says) || stdout.Len() > 0 {
				t.Errorf("exit status %d, want %d\n%s%s", status, c.status, &stdout, said)
			}
			if _, err := os.Stat(data); err == nil {
				t.Errorf("the data directory was made")
			}
		})
	}
}

// serving starts a shop and returns when it is ready, with the URL of Order.
func serving(t *testing.T, dir string, args ...string) (*exec.Cmd, string, *bytes.Buffer) {
	t.Helper()
	cmd := exec.Command(binary(t), append([]string{"serve", "--data", dir, "--order-addr", freeAddr(t), "--inventory-addr", freeAddr(t), "--billing-addr", freeAddr(t)}, args...)...)
	stderr := &bytes.Buffer{}
	cmd.Stderr = stderr
	stdout, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { kill(cmd) })
	for lines := bufio.NewScanner(stdout); lines.Scan(); {
		if fields := strings.Fields(lines.Text()); len(fields) > 1 && strings.EqualFold(fields[0], "order") {
			go func() { _, _ = io.Copy(io.Discard, stdout) }()
			for _, f := range fields {
				if strings.HasPrefix(f, "http://") {
					return cmd, strings.TrimSuffix(f, "/docs"), stderr
				}
			}
		}
	}
	t.Fatalf("the shop does not serve: %v\n%s", cmd.Wait(), stderr)
	return nil, "", nil
}

// refused runs a command that must fail with one line.
func refused(t *testing.T, says string, args ...string) {
	t.Helper()
	out, err := exec.Command(binary(t), args...).CombinedOutput()
	said := string(out)
	if _, rest, found := strings.Cut(said, "\n"); found && strings.HasPrefix(said, "shop: opening ") {
		said = rest
	}
	if code := exitCode(err); code != 1 || strings.Count(said, "\n") != 1 || !strings.Contains(said, says) {
		t.Errorf("shop %v: exit status %d, want 1 and a line with %q\n%s", args, code, says, out)
	}
}

// TestASecondShopIsRefusedAndTheFirstGoesOn also looks at what a shop that runs
// shows to strangers, and at how it stops.
func TestASecondShopIsRefusedAndTheFirstGoesOn(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cmd, url, stderr := serving(t, dir)
	refused(t, "another", "serve", "--data", dir, "--order-addr", "127.0.0.1:0", "--inventory-addr", "127.0.0.1:0", "--billing-addr", "127.0.0.1:0")
	refused(t, "cannot listen on", "serve", "--data", t.TempDir(), "--order-addr", strings.TrimPrefix(url, "http://"), "--inventory-addr", "127.0.0.1:0", "--billing-addr", "127.0.0.1:0")
	damaged := t.TempDir() // a service that does not open closes those that were open already
	if err := os.Mkdir(filepath.Join(damaged, "billing.db"), 0o700); err != nil {
		t.Fatal(err)
	}
	refused(t, "billing.db is a directory", "serve", "--data", damaged, "--order-addr", "127.0.0.1:0", "--inventory-addr", "127.0.0.1:0", "--billing-addr", "127.0.0.1:0")
	info, err := os.Stat(filepath.Join(dir, "operator.token"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the operator's token: %v, %v, want mode 0600", info, err)
	}
	status := func(path, token string) int {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if token != "" {
			req.Header.Set("Authorization", "Bearer "+token)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		return resp.StatusCode
	}
	token, err := os.ReadFile(filepath.Join(dir, "operator.token"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/feed", "/operator/followers", "/operator/parked", "/operator/audit", "/operator/streams"} {
		for token, want := range map[string]int{"": 401, "wrong": 401, strings.TrimSpace(string(token)): 200} {
			if got := status(path, token); got != want {
				t.Errorf("GET %s with the token %.5q: status %d, want %d", path, token, got, want)
			}
		}
	}
	if got := status("/healthz", ""); got != 200 {
		t.Errorf("GET /healthz: status %d beside a second shop", got)
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("Ctrl-C: %v", err)
	}
	for line := range strings.Lines(stderr.String()) {
		if !strings.HasPrefix(line, "shop: ") {
			t.Errorf("a shop that stops in good order says %s", line)
		}
	}
}

// TestInterruptedLoadLeavesAWholeShop: Ctrl-C, then kill -9, in the middle of a
// load, and the audit finds nothing.
func TestInterruptedLoadLeavesAWholeShop(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGKILL} {
		cmd := exec.Command(binary(t), "load", "--data", dir, "--duration", "60s", "--concurrency", "4")
		stderr, err := cmd.StderrPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(stderr)
		for lines.Scan() && !strings.Contains(lines.Text(), "completed") {
		}
		if err := cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		rest, _ := io.ReadAll(stderr)
		begun := time.Now()
		err = cmd.Wait()
		if strings.Contains(string(rest), "goroutine ") || sig != syscall.SIGKILL && exitCode(err) > 1 {
			t.Errorf("%v: %v\n%s", sig, err, rest)
		}
		if took := time.Since(begun); took > 20*time.Second {
			t.Errorf("%v: it took %v to end", sig, took)
		}
	}
	out, err := exec.Command(binary(t), "verify", "--data", dir, "--json").Output()
	var report struct {
		Violations []string
		Checks     int
	}
	if err := errors.Join(err, json.Unmarshal(out, &report)); err != nil || report.Checks == 0 || len(report.Violations) > 0 {
		t.Errorf("verify: %v\n%s", err, out)
	}
}

// TestDamageIsFound truncates each database, and turns bits over in it: a shop that
// starts on it says so, or the audit does.
func TestDamageIsFound(t *testing.T) {
	t.Parallel()
	whole := t.TempDir()
	if out, err := exec.Command(binary(t), "load", "--data", whole, "--orders", "200").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if out, err := exec.Command(binary(t), "verify", "--data", whole).CombinedOutput(); err != nil { // opened again: the logs become tables
		t.Fatalf("%v\n%s", err, out)
	}
	flip := func(t *testing.T, path string, raw []byte) []byte {
		stored := []byte(`"`)
		if strings.HasSuffix(path, ".db") { // an event in the middle of the journal
			db, err := sql.Open("sqlite", "file:"+path+"?mode=ro")
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			if err := db.QueryRowContext(t.Context(), `SELECT CAST(payload AS BLOB) FROM freehold_event WHERE length(payload) > 50 ORDER BY position LIMIT 1 OFFSET 200`).Scan(&stored); err != nil {
				t.Fatal(err)
			}
		}
		for i := 0; ; i++ { // wherever it stands: pages keep what was there before
			at := bytes.Index(raw[i:], stored)
			if at < 0 {
				return raw
			}
			if i += at; i+len(stored)/2 < len(raw) {
				raw[i+len(stored)/2] ^= 1
			}
		}
	}
	half := func(_ *testing.T, _ string, raw []byte) []byte { return raw[:len(raw)/2] }
	for _, pattern := range []string{"order.db", "billing.db", "inventory.pebble/*.sst", "inventory.pebble/*.log"} {
		for name, damage := range map[string]func(*testing.T, string, []byte) []byte{"cut in half": half, "bits": flip} {
			if strings.HasSuffix(pattern, ".log") && name == "cut in half" {
				continue // a log that ends early is what a power cut leaves; its head file tells
			}
			t.Run(pattern+" "+name, func(t *testing.T) {
				t.Parallel()
				dir := filepath.Join(t.TempDir(), "shop")
				if err := os.CopyFS(dir, os.DirFS(whole)); err != nil {
					t.Fatal(err)
				}
				files, err := filepath.Glob(filepath.Join(dir, pattern))
				if err != nil {
					t.Fatal(err)
				}
				var largest string
				var size int64
				for _, f := range files {
					if info, err := os.Stat(f); err == nil && info.Size() > size {
						largest, size = f, info.Size()
					}
				}
				if size < 1000 {
					t.Skipf("nothing is stored in %s", pattern)
				}
				raw, err := os.ReadFile(largest)
				if err == nil {
					err = os.WriteFile(largest, damage(t, largest, raw), 0o600)
				}
				if err != nil {
					t.Fatal(err)
				}
				out, err := exec.Command(binary(t), "verify", "--data", dir).CombinedOutput()
				if exitCode(err) != 1 || strings.Contains(string(out), "goroutine ") {
					t.Errorf("exit status %d of an audit of what is damaged\n%.2000s", exitCode(err), out)
				}
				if name == "cut in half" && !strings.Contains(string(out), "restore it from a backup") {
					t.Errorf("it does not say what to do: %.2000s", out)
				}
			})
		}
	}
}

// TestAFullDiskLosesNothing fills a small disk: the services say so and stop taking
// orders, and with room again everything that was answered is there.
func TestAFullDiskLosesNothing(t *testing.T) {
	t.Parallel()
	disk := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", disk).CombinedOutput(); err != nil {
		t.Skipf("SKIP: no small disk can be mounted here: %v: %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", disk).CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	})
	dir := filepath.Join(disk, "shop")
	out, err := exec.Command(binary(t), "load", "--data", dir, "--duration", "60s", "--log", "error").CombinedOutput()
	if exitCode(err) != 1 || !strings.Contains(string(out), "full") || strings.Contains(string(out), "goroutine ") {
		t.Fatalf("exit status %d on a full disk\n%.3000s", exitCode(err), out)
	}
	if out, err := exec.Command("mount", "-o", "remount,size=200m", disk).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if out, err := exec.Command(binary(t), "verify", "--data", dir).CombinedOutput(); err != nil {
		t.Errorf("%v\n%.3000s", err, out)
	}
}
