package host

import "time"

// AskWithin changes how long a round of questions may take. Call it before Run.
func (h *Host) AskWithin(d time.Duration) { h.guard.within = d }

// Proved has fn called between the proof of a fork and its record. Call it before Run.
func (h *Host) Proved(fn func()) { h.guard.proved = fn }
