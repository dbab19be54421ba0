//go:build mutant_skip_in_flight

package mutant

// SkipInFlight looks for due events behind the last snapshot only, not among what was in flight in it.
const SkipInFlight = true
