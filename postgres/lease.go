package postgres

import (
	"context"
	"fmt"
	"time"
)

// leaseLock is the key of the lock of the instance that runs what only one runs.
const leaseLock = setupLock + 2

// The lease's connection is asked whether it is still there at each leaseBeat, and
// PostgreSQL ends it, and the lease with it, when it has not been asked for leaseIdle:
// the instance may have been stopped. Others ask for the lease at each leaseBeat.
//
// The instance that gives positions has the newest events in memory, where the others
// read them from the database, and hears of commits first. So while another instance
// does, an instance asks for the lease at each leaseSecond beat only.
const (
	leaseBeat   = 500 * time.Millisecond
	leaseIdle   = 5 * time.Second
	leaseSecond = 4
)

// leaseQuery takes the lease, if it is free, unless another instance gives positions and
// it is not this one's turn.
const leaseQuery = `SELECT CASE WHEN $4 OR NOT EXISTS (SELECT FROM pg_locks
		WHERE locktype = 'advisory' AND objsubid = 1 AND granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
			AND (classid::bigint << 32) + objid::bigint = $2 AND pid <> $3)
	THEN pg_try_advisory_lock($1) ELSE false END`

// Hold waits until this instance holds the database's lease, a session's advisory
// lock, runs fn, and gives the lease up. It calls waits each time that it has asked and
// is to ask again. The context of fn ends with ctx and when the lease may be lost. It
// returns nil when ctx has ended.
func (db *DB) Hold(ctx context.Context, waits func(), fn func(ctx context.Context)) error {
	leave, err := db.enter()
	if err != nil {
		return err
	}
	defer leave()
	config := db.pool.Config().ConnConfig.Copy()
	config.RuntimeParams["application_name"] = "freehold lease " + string(db.name)
	config.RuntimeParams["idle_session_timeout"] = fmt.Sprint(leaseIdle.Milliseconds())
	conn, err := db.dial(ctx, config, nil) // hears nothing
	if err != nil {
		return db.unreached(ctx, err)
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = conn.Close(closing) // releases the lock
	}()
	beat := time.NewTicker(leaseBeat)
	defer beat.Stop()
	for n := 1; ; n++ {
		var held bool
		err := conn.QueryRow(ctx, leaseQuery, int64(leaseLock), sequencerLock+db.opts.hooks.lock, int32(db.seqPID.Load()), n%leaseSecond == 0).Scan(&held)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return db.unreached(ctx, err)
		}
		if held {
			break
		}
		waits()
		select {
		case <-beat.C:
		case <-ctx.Done():
			return nil
		}
	}
	holding, lost := context.WithCancel(ctx)
	defer lost()
	done := make(chan struct{})
	go func() {
		defer close(done)
		fn(holding)
	}()
	for {
		select {
		case <-beat.C:
			asking, cancel := context.WithTimeout(context.Background(), leaseIdle/2)
			err := conn.Ping(asking)
			cancel()
			if err != nil {
				lost()
				<-done
				return fmt.Errorf("postgres: %s: lease lost: %w", db.name, err)
			}
		case <-done:
			return nil
		}
	}
}
