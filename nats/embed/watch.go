package embed

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

var (
	errReplaced = errors.New("the store directory was deleted, replaced, or overwritten")
	errDisabled = errors.New("JetStream has stopped")
)

// watch starts the server anew when its store is no longer what it was.
func (s *Server) watch() {
	defer close(s.stopped)
	tick := time.NewTicker(s.opts.Check)
	defer tick.Stop()
	missing := map[string]bool{}
	for {
		select {
		case <-tick.C:
		case <-s.stop:
			return
		}
		s.mu.Lock()
		srv, kept := s.server, s.store
		s.mu.Unlock()
		var err error
		if srv != nil {
			if err = healthy(srv, kept, missing); err == nil {
				continue
			}
		}
		clear(missing)
		if err := s.anew(srv, err); err != nil {
			s.opts.Log.Error("embed: the server does not start, consumers use the feeds meanwhile", "error", err)
		}
	}
}

// healthy looks at the store. A stream whose directory is missing twice in a row
// was not just deleted by a client; missing remembers the first time.
func healthy(srv *server.Server, kept *store, missing map[string]bool) error {
	if !kept.there() {
		return errReplaced
	}
	if !srv.Running() || !srv.JetStreamEnabled() {
		return errDisabled
	}
	info, err := srv.Jsz(&server.JSzOptions{Accounts: true, Streams: true})
	if err != nil {
		return fmt.Errorf("%w: %w", errDisabled, err)
	}
	gone := map[string]bool{}
	for _, account := range info.AccountDetails {
		for _, stream := range account.Streams {
			dir := filepath.Join(kept.dir, account.Name, "streams", stream.Name, "msgs")
			if _, err := os.Stat(dir); err == nil {
				continue
			}
			if missing[dir] {
				return fmt.Errorf("%s: %w", dir, errReplaced)
			}
			gone[dir] = true
		}
	}
	clear(missing)
	for dir := range gone {
		missing[dir] = true
	}
	return nil
}

// anew ends the server, clears what is a mixture of two histories by now, and
// starts it again.
func (s *Server) anew(srv *server.Server, cause error) error {
	if srv != nil {
		s.opts.Log.Warn("embed: the server starts anew with an empty store", "dir", s.dir, "error", cause)
		s.mu.Lock()
		s.server = nil
		s.mu.Unlock()
		end(srv)
	}
	if err := s.clear(); err != nil {
		return err
	}
	return s.start()
}

// logger writes the server's messages where ours go.
type logger struct{ log *slog.Logger }

func (l logger) Noticef(format string, v ...any) {
	l.log.Debug("nats-server: " + fmt.Sprintf(format, v...))
}
func (l logger) Warnf(format string, v ...any) {
	l.log.Warn("nats-server: " + fmt.Sprintf(format, v...))
}
func (l logger) Fatalf(format string, v ...any) {
	l.log.Error("nats-server: " + fmt.Sprintf(format, v...))
}
func (l logger) Errorf(format string, v ...any) {
	l.log.Error("nats-server: " + fmt.Sprintf(format, v...))
}
func (l logger) Debugf(string, ...any) {}
func (l logger) Tracef(string, ...any) {}
