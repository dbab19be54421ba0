//go:build mutant_deal_before_gap_check

package mutant

// DealBeforeGapCheck hands an event to its handler before checking that it is the next one.
const DealBeforeGapCheck = true
