package orderd

// CloseDatabase takes the service's own database away.
func (s *Server) CloseDatabase() error { return s.db.Close() }
