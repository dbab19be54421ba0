package inbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/freehold-go/freehold"
)

// get requests a path of the feed and turns refusals into errors. The source may wait
// for news for so long before it answers. A process that was stopped takes requests and
// says nothing, for ever, while another instance of the service answers: one that says
// nothing for Options.Within is given up, with an error of its own, for neither the
// caller nor its deadline has ended.
func (s *Source) get(ctx context.Context, suffix string, wait time.Duration) (*http.Response, error) {
	asking, cancel := context.WithCancelCause(ctx)
	req, err := http.NewRequestWithContext(asking, http.MethodGet, s.url+suffix, nil)
	if err != nil {
		cancel(nil)
		return nil, fmt.Errorf("inbox: feed of %s: %w", s.name, err)
	}
	if s.opts.Token != "" {
		req.Header.Set("Authorization", "Bearer "+s.opts.Token)
	}
	s.mu.Lock()
	within := s.opts.Within + s.slow
	s.mu.Unlock()
	silence := &silentError{s.name, within + wait}
	body := &patientBody{within: within, timer: time.AfterFunc(silence.after, func() { cancel(silence) }), asking: asking, cancel: cancel}
	resp, err := s.opts.Client.Do(req)
	s.mu.Lock()
	if s.slow = 0; err != nil && context.Cause(asking) == error(silence) {
		s.slow = min(2*within, 6*s.opts.Within) - s.opts.Within
	}
	s.mu.Unlock()
	if err != nil {
		err = body.cause(err)
		body.end()
		return nil, fmt.Errorf("inbox: feed of %s: %w", s.name, err)
	}
	body.ReadCloser, resp.Body = resp.Body, body
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	var told struct{ Detail string }
	raw, _ := io.ReadAll(io.LimitReader(resp.Body, 4096)) // what there is of an explanation
	if json.Unmarshal(raw, &told) != nil {
		told.Detail = strings.TrimSpace(string(raw))
	}
	err = fmt.Errorf("inbox: feed of %s: %s: %s", s.name, resp.Status, told.Detail)
	switch resp.StatusCode {
	case http.StatusNotFound:
		return nil, fmt.Errorf("%w: %w", err, errNotThere)
	case http.StatusConflict:
		return nil, fmt.Errorf("%w: %w", err, freehold.ErrDiverged)
	case http.StatusGone:
		return nil, fmt.Errorf("%w: %w", err, freehold.ErrGone)
	case http.StatusUnauthorized, http.StatusForbidden:
		return nil, fmt.Errorf("%w: check the token", err)
	}
	return nil, err
}

// silentError says that a source was asked and says nothing.
type silentError struct {
	name  freehold.Source
	after time.Duration
}

func (e *silentError) Error() string {
	return fmt.Sprintf("%s has not answered for %s and is asked again: if it goes on, look for the instance that hangs, and start it anew", e.name, e.after)
}

// Timeout tells transports that it was the time that ended, not who asked.
func (*silentError) Timeout() bool { return true }

// patientBody is what a source answers: each part of it gives it time for the next one.
type patientBody struct {
	io.ReadCloser
	within time.Duration
	timer  *time.Timer
	asking context.Context
	cancel context.CancelCauseFunc
}

func (b *patientBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if n > 0 {
		b.timer.Reset(b.within)
	}
	return n, b.cause(err)
}

func (b *patientBody) Close() error {
	defer b.end()
	return b.ReadCloser.Close()
}

func (b *patientBody) end() {
	b.timer.Stop()
	b.cancel(nil)
}

// cause is the silence that led to an error, if one did.
func (b *patientBody) cause(err error) error {
	if silence, ok := errors.AsType[*silentError](context.Cause(b.asking)); ok && err != nil && !errors.Is(err, io.EOF) {
		return silence
	}
	return err
}
