package web

import "net/http"

// Through sends requests by another transport. Call it before the first one.
func (s *Instances) Through(t http.RoundTripper) { s.http = t }
