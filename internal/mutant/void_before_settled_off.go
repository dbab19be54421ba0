//go:build !mutant_void_before_settled

package mutant

// VoidBeforeSettled voids a payment while its authorisation is still in flight.
const VoidBeforeSettled = false
