package postgres_test

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/internal/testdb"
	"github.com/freehold-go/freehold/journal/journaltest"
	"github.com/freehold-go/freehold/postgres"
)

// wantRefusal checks that an opening fails with one line that holds the words.
func wantRefusal(t *testing.T, url string, name freehold.Source, words string) {
	t.Helper()
	db, err := postgres.Open(t.Context(), url, name, journaltest.Types(t), &postgres.Options{Migrations: tables, Log: slog.New(slog.DiscardHandler)})
	if err == nil {
		t.Errorf("opened, want a refusal with %q", words)
		_ = db.Close()
		return
	}
	if !strings.Contains(err.Error(), words) || strings.Contains(err.Error(), "secret") {
		t.Errorf("refused with %q, want %q and no password", err, words)
	}
}

func TestAnotherServicesDatabaseIsRefused(t *testing.T) {
	t.Parallel()
	url := testdb.Postgres(t)
	_ = open(t, url)
	wantRefusal(t, url, "other", `the journal of "test", not of "other"`)
}

// TestAProgramRunsOnItsSchemaAndTheNext lets an owner migrate first and replace programs
// one by one, and no program guess at tables it does not know.
func TestAProgramRunsOnItsSchemaAndTheNext(t *testing.T) {
	t.Parallel()
	at := testdb.Postgres(t)
	_ = open(t, at)
	conn := connect(t, at)
	for version, words := range map[int]string{0: "has schema 0, this program runs on 1 and 2: apply the newer of postgres.Migrations", 1: "", 2: "", 3: "has schema 3, this program runs on 1 and 2: update the program"} {
		if _, err := conn.Exec(t.Context(), `UPDATE freehold.journal SET version = $1`, version); err != nil {
			t.Fatal(err)
		}
		_, err := postgres.Check(t.Context(), at, "test")
		if words != "" {
			wantRefusal(t, at, "test", words)
		} else if err != nil {
			t.Errorf("schema %d: %v", version, err)
		} else if err := open(t, at).Close(); err != nil {
			t.Errorf("schema %d: %v", version, err)
		}
		if words != "" && (err == nil || !strings.Contains(err.Error(), words)) {
			t.Errorf("checked schema %d: %v, want %q", version, err, words)
		}
	}
}

// TestMigrationsAreWhatOpenApplies runs the files as whoever applies migrations would,
// and starts the service, which may make no tables.
func TestMigrationsAreWhatOpenApplies(t *testing.T) {
	t.Parallel()
	at := testdb.Postgres(t)
	conn := connect(t, at)
	names, err := fs.Glob(postgres.Migrations, "*.sql")
	if err != nil || len(names) == 0 {
		t.Fatalf("%v, %v", names, err)
	}
	for _, name := range names {
		text, err := fs.ReadFile(postgres.Migrations, name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Exec(t.Context(), string(text)); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	pool, err := pgxpool.New(t.Context(), at)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	db, err := postgres.Attach(t.Context(), pool, "test", journaltest.Types(t), &postgres.Options{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Append(t.Context(), happened("a-1", freehold.NoStream, 1)); err != nil {
		t.Error(err)
	}
}

// TestReaderRoleCanOnlyRead lets a report read, and nothing else.
func TestReaderRoleCanOnlyRead(t *testing.T) {
	t.Parallel()
	owner := testdb.Postgres(t)
	conn := connect(t, owner)
	role := "reader_" + owner[strings.LastIndex(owner, "/")+1:]
	if _, err := conn.Exec(t.Context(), `CREATE ROLE `+role+` LOGIN`); err != nil {
		t.Fatal(err)
	}
	if err := postgres.Migrate(t.Context(), owner, "test", &postgres.Options{Migrations: tables}, postgres.Roles{Reader: role}); err != nil {
		t.Fatal(err)
	}
	db := open(t, owner)
	if _, err := db.Append(t.Context(), happened("a-1", freehold.NoStream, 1)); err != nil {
		t.Fatal(err)
	}
	reader := strings.Replace(owner, "postgres@", role+"@", 1)
	as := connect(t, reader)
	var events, rows int
	if err := as.QueryRow(t.Context(), `SELECT count(*), (SELECT count(*) FROM state) FROM freehold.stamp JOIN freehold.event USING (seq)`).Scan(&events, &rows); err != nil || events != 1 {
		t.Errorf("the reader sees %d events, %v, want 1", events, err)
	}
	for _, statement := range []string{`INSERT INTO freehold.stream VALUES ('x', 1)`, `UPDATE freehold.mark SET position = 1`, `DELETE FROM state`,
		`INSERT INTO state VALUES ('a', 'b')`, `SELECT nextval('freehold.event_seq_seq')`, `TRUNCATE freehold.tick`, `CREATE TABLE freehold.mine (a int)`} {
		if _, err := as.Exec(t.Context(), statement); err == nil || !strings.Contains(err.Error(), "denied") {
			t.Errorf("%s: %v, want permission denied", statement, err)
		}
	}
	wantRefusal(t, reader, "test", "role "+role+" may not add to the journal")
}

func TestServersThatAreAwayOrRefuseAreNamedWithoutThePassword(t *testing.T) {
	t.Parallel()
	at := testdb.Postgres(t)
	wantRefusal(t, "postgres://me:secret@127.0.0.1:1/none", "test", "connection refused")
	wantRefusal(t, strings.Replace(at, "postgres@", "nobody:secret@", 1), "test", `role "nobody" does not exist`)
	wantRefusal(t, at[:strings.LastIndex(at, "/")]+"/nowhere", "test", `database "nowhere" does not exist`)
	wantRefusal(t, "postgres://me:secret@host:port/x", "test", "want postgres://user:password@host:port/database")
}

func TestStandbyIsRefused(t *testing.T) {
	t.Parallel()
	primary := testdb.NewPostgres(t)
	primary.Start()
	wantRefusal(t, primary.Standby().URL(), "test", "give the URL of the primary")
}

func TestProxyThatPoolsTransactionsIsRefused(t *testing.T) {
	t.Parallel()
	wantRefusal(t, testdb.Bouncer(t, testdb.Postgres(t), "transaction"), "test", "pools transactions")
	db, err := postgres.Open(t.Context(), testdb.Bouncer(t, testdb.Postgres(t), "session"), "test", journaltest.Types(t), &postgres.Options{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatalf("a proxy that pools sessions: %v", err)
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
}

func TestSettingsThatLoseCommitsAreRefused(t *testing.T) {
	t.Parallel()
	at := testdb.Postgres(t)
	u, err := url.Parse(at)
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	q.Set("synchronous_commit", "off")
	u.RawQuery = q.Encode()
	wantRefusal(t, u.String(), "test", "synchronous_commit is off")
	db, err := postgres.Open(t.Context(), u.String(), "test", journaltest.Types(t), &postgres.Options{Relaxed: true, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(db.Audit(), "; "); !strings.Contains(got, "relaxed") {
		t.Errorf("audit %q does not say that it is relaxed", got)
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
}

// TestServiceRoleCanOnlyAdd runs a service under a role of its own.
func TestServiceRoleCanOnlyAdd(t *testing.T) {
	t.Parallel()
	owner := testdb.Postgres(t)
	conn := connect(t, owner)
	var database string
	if err := conn.QueryRow(t.Context(), `SELECT current_database()`).Scan(&database); err != nil {
		t.Fatal(err)
	}
	role := database + "_service"
	if _, err := conn.Exec(t.Context(), fmt.Sprintf(`CREATE ROLE %s LOGIN`, role)); err != nil {
		t.Fatal(err)
	}
	service := strings.Replace(owner, "postgres@", role+"@", 1)
	wantRefusal(t, service, "test", "migrate as the owner first")
	options := &postgres.Options{Migrations: tables, Log: slog.New(slog.DiscardHandler)}
	for range 2 { // again is as well
		if err := postgres.Migrate(t.Context(), owner, "test", options, postgres.Roles{Service: role}); err != nil {
			t.Fatal(err)
		}
	}
	db := open(t, service)
	if got := strings.Join(db.Audit(), "; "); !strings.Contains(got, "can only add to the journal") {
		t.Errorf("audit %q does not say what the role can do", got)
	}
	for i := range 20 {
		if _, err := db.Append(t.Context(), freehold.Write{Stream: "a-1", Expect: freehold.Any, Events: []freehold.Event{journaltest.Happened{N: i}}}); err != nil {
			t.Fatal(err)
		}
	}
	as := connect(t, service)
	for _, statement := range []string{
		`UPDATE freehold.event SET payload = ''`, `DELETE FROM freehold.event`, `TRUNCATE freehold.event`, `UPDATE freehold.stamp SET position = 1`,
		`DELETE FROM freehold.incarnation`, `UPDATE freehold.tick SET position = 1`, `CREATE TABLE public.mine (a int)`, `DROP TABLE freehold.event`,
	} {
		if _, err := as.Exec(context.WithoutCancel(t.Context()), statement); err == nil || !strings.Contains(err.Error(), "denied") && !strings.Contains(err.Error(), "owner") {
			t.Errorf("%s: %v, want permission denied", statement, err)
		}
	}
}
