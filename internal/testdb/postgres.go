package testdb

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/freehold-go/freehold/internal/port"
)

// EnvPostgres names the variable with the URL of a server on which tests may create
// databases. Without it they start one.
const EnvPostgres = "FREEHOLD_TEST_POSTGRES_URL"

var postgres struct {
	once sync.Once
	url  string
	err  error
	n    atomic.Int64
}

// Postgres returns the URL of a new, empty database.
func Postgres(t testing.TB) string {
	t.Helper()
	postgres.once.Do(func() {
		if postgres.url = os.Getenv(EnvPostgres); postgres.url != "" {
			return
		}
		if postgres.url, postgres.err = startPostgres(); postgres.err == nil {
			Inherit(EnvPostgres, postgres.url)
		}
	})
	if postgres.err != nil {
		missing(t, "postgres", postgres.err)
	}
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, postgres.url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	name := fmt.Sprintf("freehold_%d_%d", os.Getpid(), postgres.n.Add(1))
	if _, err := conn.Exec(ctx, "CREATE DATABASE "+name); err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(postgres.url)
	if err != nil {
		t.Fatal(err)
	}
	u.Path = "/" + name
	return u.String()
}

// pgBin finds a program of the server, which distributions keep off the PATH.
func pgBin(name string) (string, error) {
	if all, _ := filepath.Glob("/usr/lib/postgresql/*/bin/" + name); len(all) > 0 {
		return all[len(all)-1], nil
	}
	return exec.LookPath(name)
}

// startPostgres starts a server with a new directory. It ends with this process,
// however that ends.
func startPostgres() (string, error) {
	initdb, err := pgBin("initdb")
	if err != nil {
		return "", err
	}
	server, err := pgBin("postgres")
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp("", "freehold-postgres-")
	if err != nil {
		return "", err
	}
	attr, err := unprivileged(dir)
	if err != nil {
		return "", err
	}
	data := filepath.Join(dir, "data")
	run := exec.Command(initdb, "-D", data, "-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale", "C", "-N")
	run.SysProcAttr, run.Dir = attr, dir
	if out, err := run.CombinedOutput(); err != nil {
		return "", fmt.Errorf("initdb: %w: %s", err, out)
	}
	port, err := port.Free()
	if err != nil {
		return "", err
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return "", err
	}
	// The shell ends the server when its standard input, a pipe of ours, is closed.
	cmd := exec.Command("sh", "-c", `"$@" & pid=$!; cat >/dev/null; kill -QUIT $pid; wait $pid`, "sh",
		server, "-D", data, "-p", port, "-k", dir, "-h", "127.0.0.1", "-c", "max_connections=800", "-c", "shared_buffers=256MB", "-c", "max_prepared_transactions=64")
	cmd.SysProcAttr, cmd.Dir, cmd.Stdout, cmd.Stderr = attr, dir, log, log
	alive, err := cmd.StdinPipe()
	if err != nil {
		return "", err
	}
	if err := cmd.Start(); err != nil {
		return "", err
	}
	atEnd(func() {
		_ = alive.Close()
		_ = cmd.Wait() // it was told to stop at once
		_ = os.RemoveAll(dir)
	})
	at := "postgres://postgres@127.0.0.1:" + port + "/postgres"
	for until := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		conn, err := pgx.Connect(context.Background(), at)
		if err == nil {
			return at, conn.Close(context.Background())
		}
		if time.Now().After(until) {
			text, _ := os.ReadFile(log.Name())
			return "", fmt.Errorf("postgres does not answer: %w: %s", err, text)
		}
	}
}

// unprivileged gives the directory to a user that may run the server, which refuses
// root.
func unprivileged(dir string) (*syscall.SysProcAttr, error) {
	if os.Getuid() != 0 {
		return &syscall.SysProcAttr{}, nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, err1 := strconv.Atoi(u.Uid)
		gid, err2 := strconv.Atoi(u.Gid)
		if err := errors.Join(err1, err2, os.Chown(dir, uid, gid)); err != nil {
			return nil, err
		}
		return &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}, nil
	}
	return nil, errors.New("the server refuses root, and there is no user postgres or nobody")
}

// Bouncer returns the URL of a proxy in front of a database, which pools transactions or
// sessions.
func Bouncer(t testing.TB, at, mode string) string {
	t.Helper()
	program, err := exec.LookPath("pgbouncer")
	if err != nil {
		missing(t, "pgbouncer", err)
	}
	u, err := url.Parse(at)
	if err != nil {
		t.Fatal(err)
	}
	port, err1 := port.Free()
	dir, err2 := os.MkdirTemp("", "freehold-bouncer-")
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	attr, err := unprivileged(dir)
	if err != nil {
		t.Fatal(err)
	}
	name := strings.TrimPrefix(u.Path, "/")
	config := fmt.Sprintf("[databases]\n%s = host=%s port=%s user=postgres\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = %s\nunix_socket_dir =\nauth_type = any\npool_mode = %s\n"+
		"ignore_startup_parameters = extra_float_digits,idle_session_timeout\nlogfile = %s\n",
		name, u.Hostname(), u.Port(), port, mode, filepath.Join(dir, "log"))
	file := filepath.Join(dir, "bouncer.ini")
	if err := os.WriteFile(file, []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	serve(t, attr, dir, program, file)
	u.Host = "127.0.0.1:" + port
	awaitPostgres(t, u.String())
	return u.String()
}

// serve runs a server until the test ends, or this process.
func serve(t testing.TB, attr *syscall.SysProcAttr, dir, program string, args ...string) {
	t.Helper()
	cmd := exec.Command("sh", append([]string{"-c", `"$@" & pid=$!; cat >/dev/null; kill -9 $pid; wait $pid 2>/dev/null`, "sh", program}, args...)...)
	cmd.SysProcAttr, cmd.Dir = attr, dir
	alive, err := cmd.StdinPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = alive.Close()
		_ = cmd.Wait() // it was told to stop at once
		_ = os.RemoveAll(dir)
	})
}

func awaitPostgres(t testing.TB, at string) {
	t.Helper()
	for until := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		conn, err := pgx.Connect(context.Background(), at)
		if err == nil {
			_ = conn.Close(context.Background())
			return
		}
		if time.Now().After(until) {
			t.Fatalf("%s does not answer: %v", at, err)
		}
	}
}

// Restore dumps a database and restores it into another one, which is empty.
func Restore(t testing.TB, from, to string) {
	t.Helper()
	dump, err1 := pgBin("pg_dump")
	restore, err2 := pgBin("psql")
	if err := errors.Join(err1, err2); err != nil {
		missing(t, "postgres", err)
	}
	text, err := exec.Command(dump, from).Output()
	if err != nil {
		t.Fatalf("pg_dump: %v", err)
	}
	run := exec.Command(restore, "-v", "ON_ERROR_STOP=1", "-q", to)
	run.Stdin = bytes.NewReader(text)
	if out, err := run.CombinedOutput(); err != nil {
		t.Fatalf("psql: %v: %s", err, out)
	}
}
