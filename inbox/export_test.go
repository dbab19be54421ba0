package inbox

import "time"

// Patience sets for how long Orphans listens to a broker that delivers none, and in all.
func (s *Source) Patience(quiet, all time.Duration) { s.quiet, s.patience = quiet, all }
