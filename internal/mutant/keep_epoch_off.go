//go:build !mutant_keep_epoch

package mutant

// KeepEpoch records a fork and leaves the epoch as it was.
const KeepEpoch = false
