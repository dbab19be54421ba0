package billing

import (
	"context"
	"crypto/sha256"
	"sync"
	"time"
)

// What the simulated provider does with a payment, by the order's simulate field.
const (
	SimulateDecline        = "decline"         // refuses the authorisation
	SimulateTimeout        = "timeout"         // does not answer the first time; some operations have happened then, some not
	SimulateLate           = "late"            // answers late
	SimulateCaptureDecline = "capture-decline" // refuses the capture
)

// SimulatedOptions tune the simulated provider.
type SimulatedOptions struct {
	Latency time.Duration // of every operation; 0 is none
	Timeout time.Duration // until an operation that times out is given up; 0 is 50 ms
	Late    time.Duration // of a late answer; 0 is 1 s
}

// Simulated is a payment provider without money. What it answers is a function of
// the request, so that it gives the same answer under the same key after a
// restart without keeping anything; it remembers only operations that it has not
// answered.
type Simulated struct {
	opts SimulatedOptions

	mu         sync.Mutex
	unanswered map[string]operation
}

type operation struct {
	outcome  Outcome
	happened bool      // the request arrived, only the answer was lost
	ready    time.Time // when the provider is finished with it
}

// NewSimulated returns a simulated provider; nil options are the defaults.
func NewSimulated(opts *SimulatedOptions) *Simulated {
	s := &Simulated{unanswered: map[string]operation{}}
	if opts != nil {
		s.opts = *opts
	}
	if s.opts.Timeout <= 0 {
		s.opts.Timeout = 50 * time.Millisecond
	}
	if s.opts.Late <= 0 {
		s.opts.Late = time.Second
	}
	return s
}

// Authorize holds the amount, unless the request is to be declined.
func (s *Simulated) Authorize(ctx context.Context, r Request) (Outcome, error) {
	return s.operate(ctx, r, r.Simulate == SimulateDecline, "card declined")
}

// Capture charges the amount, unless the capture is to be declined.
func (s *Simulated) Capture(ctx context.Context, r Request) (Outcome, error) {
	return s.operate(ctx, r, r.Simulate == SimulateCaptureDecline, "capture declined")
}

// Void lets the hold go.
func (s *Simulated) Void(ctx context.Context, r Request) (Outcome, error) {
	return s.operate(ctx, r, false, "")
}

// Refund pays back.
func (s *Simulated) Refund(ctx context.Context, r Request) (Outcome, error) {
	return s.operate(ctx, r, false, "")
}

func (s *Simulated) operate(ctx context.Context, r Request, refuse bool, reason string) (Outcome, error) {
	o := Outcome{Approved: !refuse}
	if refuse {
		o.Reason = reason
	}
	wait := s.opts.Latency
	switch r.Simulate {
	case SimulateTimeout:
		if s.timesOut(r.Key, o) {
			pause(ctx, s.opts.Timeout)
			return Outcome{}, ErrUnknown
		}
	case SimulateLate:
		wait = s.opts.Late
		s.mu.Lock()
		if op, again := s.unanswered[r.Key]; again {
			wait = time.Until(op.ready)
		} else {
			s.unanswered[r.Key] = operation{outcome: o, happened: true, ready: time.Now().Add(wait)}
		}
		s.mu.Unlock()
	}
	if wait > 0 && !pause(ctx, wait) {
		return Outcome{}, ErrUnknown
	}
	if r.Simulate != "" {
		s.forget(r.Key)
	}
	return o, nil
}

// timesOut reports whether this is the first request under the key, and decides by
// the key whether it arrived.
func (s *Simulated) timesOut(key string, o Outcome) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, again := s.unanswered[key]; again {
		return false
	}
	s.unanswered[key] = operation{outcome: o, happened: sha256.Sum256([]byte(key))[0]&1 == 0}
	return true
}

// Query returns the outcome of an operation that was not answered.
func (s *Simulated) Query(_ context.Context, key string) (Outcome, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	op, ok := s.unanswered[key]
	switch {
	case !ok || !op.happened:
		return Outcome{}, ErrNoOperation
	case time.Now().Before(op.ready):
		return Outcome{}, ErrPending
	}
	delete(s.unanswered, key)
	return op.outcome, nil
}

func (s *Simulated) forget(key string) {
	s.mu.Lock()
	delete(s.unanswered, key)
	s.mu.Unlock()
}

// pause waits and reports whether the whole time has passed.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

var _ Provider = (*Simulated)(nil)
