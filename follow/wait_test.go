package follow_test

import (
	"context"
	"testing"
	"time"
)

// patient bounds what only a defect takes so long.
func patient(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// eventually polls a state that no token names.
func eventually(t *testing.T, ok func() bool) {
	t.Helper()
	ctx := patient(t)
	for !ok() {
		if ctx.Err() != nil {
			t.Fatal("did not happen in time")
		}
		time.Sleep(time.Millisecond)
	}
}
