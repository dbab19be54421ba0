package postgres_test

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/freehold-go/freehold/internal/testdb"
	"github.com/freehold-go/freehold/postgres"
)

// TestNoStatementReadsTheWholeJournal: what passes and reading ask for is found by
// indexes, whatever the server believes of the tables: that they are empty, or that few
// transactions made all events, or that what a transaction made lies scattered.
func TestNoStatementReadsTheWholeJournal(t *testing.T) {
	t.Parallel()
	const few, many = 400, 100_000
	for _, h := range []struct {
		name, xid string
		planned   int // how many events there are when plans are made
	}{
		{"planned while it is empty", `g`, 0},
		{"planned while it is short", `g`, few},
		{"of few transactions", `3 + g / 20000`, many},
		{"of scattered transactions", `3 + g % 600`, many},
		{"of one transaction each", `g`, many},
	} {
		t.Run(h.name, func(t *testing.T) {
			t.Parallel()
			url := testdb.Postgres(t)
			if err := postgres.Migrate(t.Context(), url, "test", &postgres.Options{Migrations: tables}, postgres.Roles{}); err != nil {
				t.Fatal(err)
			}
			conn := connect(t, url)
			exec := func(statement string) {
				t.Helper()
				if _, err := conn.Exec(t.Context(), statement); err != nil {
					t.Fatalf("%s: %v", statement, err)
				}
			}
			exec(postgres.PlanByIndex())
			exec(`INSERT INTO freehold.incarnation VALUES (1, 'one', 0, '', 0)`)
			fill := func(from, to int) {
				exec(fmt.Sprintf(`INSERT INTO freehold.event (seq, xid, stream, version, type, schema, time, id, internal, payload, nonce)
					SELECT g, (%s)::text::xid8, 'order-' || g / 4, g %% 4 + 1, 'test.happened', 1, 0, g || '-1', false, '{"n":1}', '' FROM generate_series(%d, %d) g`, h.xid, from, to))
				exec(fmt.Sprintf(`INSERT INTO freehold.stamp SELECT g, g, 1, true, '', '' FROM generate_series(%d, %d) g`, from, to))
				exec(fmt.Sprintf(`INSERT INTO freehold.stream SELECT DISTINCT 'order-' || g / 4, 4 FROM generate_series(%d, %d) g ON CONFLICT DO NOTHING`, from, to))
			}
			fill(1, h.planned)
			exec(`VACUUM ANALYZE freehold.event, freehold.stamp, freehold.stream`)
			// All of it was visible in the last pass.
			exec(`INSERT INTO freehold.tick (pass, base, position, chain) VALUES (1, '2000000:2000000:', 0, '')`)
			for i, s := range postgres.Statements() {
				exec(fmt.Sprintf(`PREPARE s%d AS %s`, i, s.Text))
				blocks(t, conn, i, s)
			}
			if h.planned < many {
				fill(h.planned+1, many)
			}
			for i, s := range postgres.Statements() {
				// The table has some 2,000 blocks.
				if n := blocks(t, conn, i, s); n > 120 {
					t.Errorf("%s: %d blocks read", s.Name, n)
				}
			}
		})
	}
}

// blocks runs a prepared statement, and returns how many blocks of tables and indexes it
// looked into.
func blocks(t *testing.T, conn *pgx.Conn, number int, s postgres.Statement) int {
	t.Helper()
	args := s.Args
	if args != "" {
		args = "(" + args + ")"
	}
	var text []byte
	if err := conn.QueryRow(t.Context(), fmt.Sprintf(`EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) EXECUTE s%d%s`, number, args)).Scan(&text); err != nil {
		t.Fatalf("%s: %v", s.Name, err)
	}
	var plans []struct {
		Plan struct {
			Hit  int `json:"Shared Hit Blocks"`
			Read int `json:"Shared Read Blocks"`
		}
	}
	if err := json.Unmarshal(text, &plans); err != nil {
		t.Fatal(err)
	}
	return plans[0].Plan.Hit + plans[0].Plan.Read
}
