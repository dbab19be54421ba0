package main_test

import (
	"os/exec"
	"testing"
	"time"

	"github.com/freehold-go/freehold/internal/testredis"
)

// TestAnAuditWaitsForReadModelsThatAreBuiltAgain empties the store of the read models while
// the shop is audited: what they say meanwhile is less than what the journals say.
func TestAnAuditWaitsForReadModelsThatAreBuiltAgain(t *testing.T) {
	t.Parallel()
	srv := testredis.NewServer(t)
	dir := t.TempDir()
	serving(t, dir, "--order-views", srv.URL()+"/shop")
	shop := func(args ...string) {
		t.Helper()
		if out, err := exec.CommandContext(t.Context(), binary(t), append(args, "--data", dir)...).CombinedOutput(); err != nil {
			t.Errorf("%v: %v\n%s", args, err, out)
		}
	}
	shop("load", "--orders", "300")
	for range 3 {
		audited, done := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(done)
			every := time.NewTicker(30 * time.Millisecond)
			defer every.Stop()
			for range 20 {
				select {
				case <-every.C:
					srv.Do("FLUSHALL")
				case <-audited:
					return
				}
			}
		}()
		shop("verify")
		close(audited)
		<-done
	}
}
