package postgres_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/internal/testdb"
	"github.com/freehold-go/freehold/journal/journaltest"
	"github.com/freehold-go/freehold/postgres"
	"github.com/freehold-go/freehold/sqldb"
)

// attach makes the tables in a database, and attaches a pool of the team's own to it.
func attach(t testing.TB, url string) (*postgres.DB, *pgxpool.Pool) {
	t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	if err := postgres.Migrate(t.Context(), url, "test", &postgres.Options{Migrations: tables, Log: quiet}, postgres.Roles{}); err != nil {
		t.Fatal(err)
	}
	pool, err := pgxpool.New(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	db, err := postgres.Attach(t.Context(), pool, "test", journaltest.Types(t), &postgres.Options{Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db, pool
}

func happened(s freehold.StreamID, expect freehold.Expect, n ...int) freehold.Write {
	w := freehold.Write{Stream: s, Expect: expect}
	for _, n := range n {
		w.Events = append(w.Events, journaltest.Happened{N: n})
	}
	return w
}

// TestConformanceOfAnAttachedPool runs what depends on how connections are made, used
// and given back on pools that the engine has not made; the rest is the same code.
func TestConformanceOfAnAttachedPool(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: most of it is the same code over Open's pool")
	}
	t.Parallel()
	h := harness()
	h.Open = func(t testing.TB, s journaltest.Setup) journaltest.DB[sqldb.Tx] {
		t.Helper()
		quiet := slog.New(slog.DiscardHandler)
		if err := postgres.Migrate(t.Context(), at(t, s.Place), "test", &postgres.Options{Migrations: tables, Log: quiet}, postgres.Roles{}); err != nil {
			t.Fatal(err)
		}
		pool, err := pgxpool.New(t.Context(), at(t, s.Place)+"?pool_max_conns=8")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(pool.Close)
		db, err := postgres.Attach(t.Context(), pool, "test", s.Types, &postgres.Options{Cancel: s.Limit, Log: quiet})
		if err != nil {
			t.Fatal(err)
		}
		return db
	}
	journaltest.Run(t, h, "transaction", "commit", "history")
}

func TestAttachedPoolStaysTheTeams(t *testing.T) {
	t.Parallel()
	url := testdb.Postgres(t)
	db, pool := attach(t, url)
	if _, err := db.Append(t.Context(), happened("a-1", freehold.NoStream, 1)); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	var n int
	if err := pool.QueryRow(t.Context(), `SELECT count(*) FROM freehold.stamp`).Scan(&n); err != nil || n != 1 {
		t.Errorf("the pool of a closed database: %d events, %v, want 1", n, err)
	}
	if _, err := db.Append(t.Context(), happened("a-1", freehold.Any, 2)); !errors.Is(err, freehold.ErrClosed) {
		t.Errorf("append to a closed database: %v", err)
	}

	// The other way round, who closes the pool first gets errors, and an end.
	db, pool = attach(t, testdb.Postgres(t))
	pool.Close()
	if _, err := db.Append(t.Context(), happened("a-1", freehold.NoStream, 1)); err == nil {
		t.Error("appended through a closed pool")
	}
	closed := make(chan error, 1)
	go func() { closed <- db.Close() }()
	select {
	case err := <-closed:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Error("Close waits for a pool that is closed")
	}
}

func TestAttachRefusesWhatItWouldHaveToChange(t *testing.T) {
	t.Parallel()
	url := testdb.Postgres(t)
	for words, o := range map[string]struct {
		params string
		opts   *postgres.Options
	}{
		"make them with Migrate":        {},
		"Attach changes no tables":      {opts: &postgres.Options{Migrations: tables}},
		"at most 2 connections, want 3": {params: "?pool_max_conns=2"},
	} {
		pool, err := pgxpool.New(t.Context(), url+o.params)
		if err != nil {
			t.Fatal(err)
		}
		_, err = postgres.Attach(t.Context(), pool, "test", journaltest.Types(t), o.opts)
		if err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("attached with %v, want a refusal with %q", err, words)
		}
		pool.Close()
	}
	var there *string
	if err := connect(t, url).QueryRow(t.Context(), `SELECT to_regnamespace('freehold')::text`).Scan(&there); err != nil || there != nil {
		t.Errorf("a refused Attach has made schema %v, %v", there, err)
	}
}

// TestAttachedEngineConnectsAsThePoolDoes: passwords that change are set by a hook.
func TestAttachedEngineConnectsAsThePoolDoes(t *testing.T) {
	t.Parallel()
	url := testdb.Postgres(t)
	if err := postgres.Migrate(t.Context(), url, "test", nil, postgres.Roles{}); err != nil {
		t.Fatal(err)
	}
	config, err := pgxpool.ParseConfig(strings.Replace(url, "postgres@", "nobody-yet@", 1))
	if err != nil {
		t.Fatal(err)
	}
	config.BeforeConnect = func(_ context.Context, c *pgx.ConnConfig) error {
		c.User = "postgres"
		return nil
	}
	pool, err := pgxpool.NewWithConfig(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	db, err := postgres.Attach(t.Context(), pool, "test", journaltest.Types(t), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := db.Append(t.Context(), happened("a-1", freehold.NoStream, 1)); err != nil {
		t.Error(err)
	}
	if err := db.Close(); err != nil {
		t.Error(err)
	}
}
