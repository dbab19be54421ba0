package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/postgres"
	"github.com/freehold-go/freehold/shop/billingdb"
	"github.com/freehold-go/freehold/shop/database"
	"github.com/freehold-go/freehold/shop/event"
)

// migrateCmd prepares a PostgreSQL database as its owner, so that the service can run
// under a role that can only do what it must.
type migrateCmd struct {
	Service string `arg:"" help:"The service whose database it is." enum:"order,billing"`
	DB      string `help:"URL of the database, with the owner's name and password." required:"" placeholder:"URL"`
	Role    string `help:"Role that the service runs under." placeholder:"NAME"`
	Reader  string `help:"Role that may read everything." placeholder:"NAME"`
}

func (m *migrateCmd) Run(ctx context.Context) error {
	if !strings.HasPrefix(m.DB, "postgres") {
		return fmt.Errorf("--db %s: only PostgreSQL has roles: other databases are prepared by the service itself", database.Redacted(m.DB))
	}
	name, options := freehold.Source(event.SourceOrder), &postgres.Options{}
	if m.Service == "billing" {
		name, options.Migrations = event.SourceBilling, billingdb.Schema(database.Postgres)
	}
	if err := postgres.Migrate(ctx, m.DB, name, options, postgres.Roles{Service: m.Role, Reader: m.Reader}); err != nil {
		return err
	}
	fmt.Printf("%s: tables are as this program wants them\n", m.Service)
	return nil
}
