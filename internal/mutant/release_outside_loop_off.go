//go:build !mutant_release_outside_loop

package mutant

// ReleaseOutsideLoop releases a parked key from the caller's goroutine instead of the follower's loop.
const ReleaseOutsideLoop = false
