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
const (
	leaseBeat = 500 * time.Millisecond
	leaseIdle = 5 * time.Second
)

// Hold waits until this instance holds the database's lease, a session's advisory
// lock, runs fn, and gives the lease up. The context of fn ends with ctx and when the
// lease may be lost. It returns nil when ctx has ended.
func (db *DB) Hold(ctx context.Context, fn func(ctx context.Context)) error {
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
	for {
		var held bool
		if err := conn.QueryRow(ctx, `SELECT pg_try_advisory_lock($1)`, int64(leaseLock)).Scan(&held); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return db.unreached(ctx, err)
		}
		if held {
			break
		}
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
