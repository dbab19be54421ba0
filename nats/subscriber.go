package nats

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/transport"
)

type subscriber struct{ bus *Bus }

// Errors that end a subscription, to be begun again.
var (
	errMissed    = errors.New("a message was missed")
	errSilent    = errors.New("the server is silent")
	errConnected = errors.New("connected to a server anew")
)

const (
	idle      = time.Second // how often the server says that there is nothing
	silence   = 3 * time.Second
	lookFirst = 5 * time.Millisecond   // for a stream that is not there yet,
	lookAgain = 250 * time.Millisecond // and after several such looks
	inFlight  = 1 << 16                // messages between the connection and the handler
	atOnce    = 256                    // events given to the handler together
)

// Subscribe delivers the source's events behind a mark and its heads. While the
// source has no stream it delivers heads only.
func (s subscriber) Subscribe(ctx context.Context, source freehold.Source, after freehold.Mark, h transport.Handler) error {
	status := s.bus.subs.StatusChanged(nats.CONNECTED)
	defer s.bus.subs.RemoveStatusListener(status)
	heads := make(chan *nats.Msg, 16)
	headSub, err := s.bus.subs.ChanSubscribe(headSubject(source), heads)
	if err != nil {
		return fmt.Errorf("nats: heads of %s: %w", source, err)
	}
	defer drop(headSub)
	look := lookFirst
	for {
		err := s.consume(ctx, source, after, h, heads, status)
		if errors.Is(err, jetstream.ErrStreamNotFound) {
			err = s.wait(ctx, look, h, heads, status)
			look = min(2*look, lookAgain)
		}
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			return fmt.Errorf("nats: subscription to %s: %w", source, err)
		}
	}
}

// wait passes a while in which only heads are delivered.
func (s subscriber) wait(ctx context.Context, a time.Duration, h transport.Handler, heads chan *nats.Msg, status chan nats.Status) error {
	look := time.NewTimer(a)
	defer look.Stop()
	for {
		select {
		case m := <-heads:
			announced(h, m)
		case <-look.C:
			return nil
		case <-status:
			return errConnected
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// drop unsubscribes; if the connection has gone, there is nothing to do.
func drop(sub *nats.Subscription) { _ = sub.Unsubscribe() }

func announced(h transport.Handler, m *nats.Msg) {
	var head transport.Head
	if json.Unmarshal(m.Data, &head) == nil { // anyone may write there; the feed decides
		h.Head(head)
	}
}

// consume reads the stream through a consumer that the server pushes to, and that
// it forgets when nobody listens.
func (s subscriber) consume(ctx context.Context, source freehold.Source, after freehold.Mark, h transport.Handler, heads chan *nats.Msg, status chan nats.Status) error {
	messages := make(chan *nats.Msg, inFlight)
	sub, err := s.bus.subs.ChanSubscribe(s.bus.subs.NewInbox(), messages)
	if err != nil {
		return err
	}
	defer drop(sub)
	if err := s.begin(ctx, source, after, sub.Subject); err != nil {
		return err
	}
	c := &consumption{bus: s.bus, events: make([]freehold.Recorded, 0, atOnce)}
	quiet := time.NewTimer(silence)
	defer quiet.Stop()
	for {
		select {
		case m := <-messages:
			if err := c.takeAll(ctx, m, messages, h); err != nil {
				return err
			}
			quiet.Reset(silence)
		case m := <-heads:
			announced(h, m)
		case <-quiet.C:
			return errSilent
		case <-status:
			return errConnected
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// begin makes the consumer.
func (s subscriber) begin(ctx context.Context, source freehold.Source, after freehold.Mark, deliver string) error {
	stream, err := s.bus.stream(ctx, source)
	if err != nil {
		return err
	}
	start, err := startBehind(ctx, stream, source, after)
	if err != nil {
		return err
	}
	flush, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if err := s.bus.subs.FlushWithContext(flush); err != nil { // the server knows who listens
		return err
	}
	config := jetstream.ConsumerConfig{
		Name:           deliver[strings.LastIndexByte(deliver, '.')+1:], // so that it is one, however often the server is asked
		DeliverSubject: deliver, DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: start,
		AckPolicy: jetstream.AckNonePolicy, MaxDeliver: 1, ReplayPolicy: jetstream.ReplayInstantPolicy,
		FlowControl: true, IdleHeartbeat: idle, InactiveThreshold: 5 * time.Second, MemoryStorage: true, Replicas: 1,
	}
	_, err = ask(ctx, func(ctx context.Context) (jetstream.PushConsumer, error) {
		return s.bus.js.CreatePushConsumer(ctx, streamName(source), config)
	})
	return err
}

// startBehind finds the sequence of the first message that ends behind a mark. Positions
// grow with sequences: by one, or by as many events as share a message or were left out.
func startBehind(ctx context.Context, stream jetstream.Stream, source freehold.Source, after freehold.Mark) (uint64, error) {
	state := stream.CachedInfo().State
	low, high := max(state.FirstSeq, 1), state.LastSeq+1 // the answer is from low to high
	if after.Position == 0 || state.Msgs == 0 {
		return low, nil
	}
	for try := state.LastSeq; low < high; try = low + (high-low)/2 {
		r, ok, err := holds(ctx, stream, source, try)
		switch {
		case err != nil:
			return 0, err
		case !ok || r.At.Position <= after.Position:
			low = try + 1
			continue
		}
		high = try
		// If each event has a message of its own, it stands exactly here.
		back := uint64(r.At.Position - after.Position - 1)
		if back == 0 {
			return try, nil
		}
		if back < try && try-back >= low {
			r, ok, err := holds(ctx, stream, source, try-back)
			switch {
			case err != nil:
				return 0, err
			case ok && r.At.Position == after.Position+1:
				return try - back, nil
			case ok && r.At.Position <= after.Position:
				low = try - back + 1
			}
		}
	}
	return low, nil
}

// consumption is what one consumer has delivered.
type consumption struct {
	bus       *Bus
	delivered uint64 // the consumer's own count
	events    []freehold.Recorded
}

// takeAll takes a message and those that wait behind it, and hands them on.
func (c *consumption) takeAll(ctx context.Context, m *nats.Msg, messages chan *nats.Msg, h transport.Handler) error {
	for {
		if err := c.take(ctx, m, h); err != nil {
			return errors.Join(c.deliver(ctx, h), err)
		}
		select {
		case m = <-messages:
		default:
			return c.deliver(ctx, h)
		}
	}
}

// take adds a message to the events to deliver, or answers the server's.
func (c *consumption) take(ctx context.Context, m *nats.Msg, h transport.Handler) error {
	if len(m.Data) == 0 && m.Header["Status"] != nil {
		return c.control(ctx, m, h)
	}
	n, err := deliveryCount(m.Reply)
	if err != nil {
		return err
	}
	if n != c.delivered+1 {
		return errMissed
	}
	c.delivered = n
	// What is not an event of ours is left out: anyone may write to a subject, and gaps go
	// to the feed.
	if isPage(m.Header) {
		c.events, _ = transport.AppendPage(c.events, m.Data)
	} else if r, err := event(m.Header, m.Data); err == nil {
		c.events = append(c.events, r)
	}
	if len(c.events) >= atOnce {
		return c.deliver(ctx, h)
	}
	return nil
}

// control answers flow control, so that the server sends more when everything
// before has been handled, and notices what was missed at the end.
func (c *consumption) control(ctx context.Context, m *nats.Msg, h transport.Handler) error {
	if status := m.Header.Get("Status"); status != "100" {
		return fmt.Errorf("%s %s", status, m.Header.Get("Description"))
	}
	answer := m.Reply
	if stalled := m.Header.Get("Nats-Consumer-Stalled"); stalled != "" {
		answer = stalled
	}
	if answer != "" {
		if err := c.deliver(ctx, h); err != nil {
			return err
		}
		return c.bus.subs.Publish(answer, nil)
	}
	if last := m.Header.Get("Nats-Last-Consumer"); last != "" && last != strconv.FormatUint(c.delivered, 10) {
		return errMissed
	}
	return nil
}

func (c *consumption) deliver(ctx context.Context, h transport.Handler) error {
	if len(c.events) == 0 {
		return nil
	}
	err := h.Events(ctx, c.events)
	c.events = c.events[:0]
	return err
}

// deliveryCount reads the consumer's count out of a message's reply subject:
// $JS.ACK.stream.consumer.deliveries.stream-seq.consumer-seq.time.pending, or the same
// with domain and account before the stream and a random token at the end.
func deliveryCount(reply string) (uint64, error) {
	field := 6
	if strings.Count(reply, ".") > 8 {
		field = 8
	}
	rest := reply
	for range field {
		_, after, ok := strings.Cut(rest, ".")
		if !ok {
			return 0, fmt.Errorf("a message of no consumer: %q", reply)
		}
		rest = after
	}
	text, _, _ := strings.Cut(rest, ".")
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("a message of no consumer: %q", reply)
	}
	return n, nil
}
