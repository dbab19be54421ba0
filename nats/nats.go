// Package nats carries events over NATS: one JetStream stream for each source, and
// the sources' heads on core NATS.
//
// # Guarantees
//
// The server takes an event only behind its predecessor, by message id (epoch and
// position), so two relays cannot interleave and a duplicate is noticed. Nothing
// else is promised and nothing else is needed: streams are bounded and disposable.
//
// # Ordering
//
// A stream holds its source's events by position.
//
// # Failure
//
// Connections are made again for ever. A stream that is missing is made again; the
// relay then publishes a window of the journal, and consumers get what is older
// from the feed.
package nats

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/transport"
)

// Options tune a connection; the zero value is good.
type Options struct {
	// Server is a server in this process, instead of a URL.
	Server natsgo.InProcessConnProvider
	// MaxBytes bounds each stream on the server's disk. 0 is 256 MiB.
	MaxBytes int64
	// Replicas is how many servers of a cluster hold each stream. 0 is 1.
	Replicas int
	// Log is where lost connections go. nil is slog.Default().
	Log *slog.Logger
}

// Bus is a connection to NATS. It is safe for concurrent use.
type Bus struct {
	conn *natsgo.Conn
	js   jetstream.JetStream
	opts Options
}

// Connect connects to a server, or to a cluster by several URLs with commas.
func Connect(_ context.Context, url string, o *Options) (*Bus, error) {
	b := &Bus{}
	if o != nil {
		b.opts = *o
	}
	if b.opts.MaxBytes <= 0 {
		b.opts.MaxBytes = 256 << 20
	}
	if b.opts.Replicas <= 0 {
		b.opts.Replicas = 1
	}
	if b.opts.Log == nil {
		b.opts.Log = slog.Default()
	}
	options := []natsgo.Option{
		natsgo.Name("freehold"), natsgo.MaxReconnects(-1), natsgo.ReconnectWait(100 * time.Millisecond), natsgo.RetryOnFailedConnect(true),
		natsgo.ErrorHandler(func(_ *natsgo.Conn, _ *natsgo.Subscription, err error) { b.opts.Log.Debug("nats", "error", err) }),
	}
	if b.opts.Server != nil {
		options = append(options, natsgo.InProcessServer(b.opts.Server))
	}
	var err error
	if b.conn, err = natsgo.Connect(url, options...); err != nil {
		return nil, fmt.Errorf("nats: connect to %s: %w", url, err)
	}
	b.js, err = jetstream.New(b.conn, jetstream.WithPublishAsyncMaxPending(1024), jetstream.WithPublishAsyncTimeout(5*time.Second))
	if err != nil {
		b.conn.Close()
		return nil, fmt.Errorf("nats: %w", err)
	}
	return b, nil
}

// Close ends the connection.
func (b *Bus) Close() error {
	b.conn.Close()
	return nil
}

func streamName(s freehold.Source) string {
	return "FREEHOLD_" + strings.ToUpper(strings.NewReplacer("/", "-", ".", "-").Replace(string(s)))
}

// prefix is what the subjects of a source begin with: "<source>.<type>".
func prefix(s freehold.Source) string {
	return strings.NewReplacer("/", "-", ".", "-").Replace(string(s))
}

func headSubject(s freehold.Source) string { return "_freehold.head." + prefix(s) }

// stream returns a source's stream, making it if it is missing. It asks first: the
// server syncs its files each time that a stream is made or updated.
func (b *Bus) stream(ctx context.Context, s freehold.Source) (jetstream.Stream, error) {
	stream, err := b.js.Stream(ctx, streamName(s))
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		stream, err = b.js.CreateStream(ctx, jetstream.StreamConfig{
			Name: streamName(s), Subjects: []string{prefix(s) + ".>"}, Storage: jetstream.FileStorage, Retention: jetstream.LimitsPolicy,
			Discard: jetstream.DiscardOld, MaxBytes: b.opts.MaxBytes, Replicas: b.opts.Replicas, AllowDirect: true,
		})
	}
	if err != nil {
		return nil, fmt.Errorf("nats: stream of %s: %w", s, err)
	}
	return stream, nil
}

// Publisher returns the publishing end for a source.
func (b *Bus) Publisher(s freehold.Source) transport.Publisher { return &publisher{bus: b, source: s} }

type publisher struct {
	bus    *Bus
	source freehold.Source
	// flowing says that the last Publish went through: the stream is there and not
	// empty.
	flowing bool
}

const callTimeout = 5 * time.Second

// Last reads the last message of the source's stream.
func (p *publisher) Last(ctx context.Context, s freehold.Source) (transport.Head, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	stream, err := p.bus.stream(ctx, s)
	if err != nil {
		return transport.Head{}, err
	}
	info, err := stream.Info(ctx)
	if err != nil {
		return transport.Head{}, fmt.Errorf("nats: %w", err)
	}
	if info.State.Msgs == 0 {
		return transport.Head{Mark: freehold.Mark{Source: s}}, nil
	}
	msg, err := stream.GetMsg(ctx, info.State.LastSeq)
	if err != nil {
		return transport.Head{}, fmt.Errorf("nats: last message of %s: %w", s, err)
	}
	r, err := decode(msg.Header, msg.Data)
	if err != nil {
		return transport.Head{}, err
	}
	return transport.Head{Mark: r.At, Incarnation: r.Incarnation}, nil
}

func messageID(e freehold.Epoch, p freehold.Position) string {
	return string(e) + ":" + strconv.FormatInt(int64(p), 10)
}

// Publish sends the events in a pipeline and waits for all acknowledgements. The
// first message after an empty stream is checked by sequence, every other by the
// id of its predecessor.
func (p *publisher) Publish(ctx context.Context, after freehold.Mark, events []freehold.Recorded) error {
	ctx, cancel := context.WithTimeout(ctx, 2*callTimeout)
	defer cancel()
	var empty *jetstream.StreamState
	if !p.flowing {
		stream, err := p.bus.js.Stream(ctx, streamName(p.source))
		if err != nil {
			return fmt.Errorf("nats: stream of %s: %w", p.source, err)
		}
		if state := stream.CachedInfo().State; state.Msgs == 0 {
			empty = &state
		}
	}
	p.flowing = false
	acks := make([]jetstream.PubAckFuture, 0, len(events))
	for i := range events {
		r := &events[i]
		msg := encode(p.source, r)
		opts := []jetstream.PublishOpt{jetstream.WithMsgID(messageID(r.At.Epoch, r.At.Position))}
		if i > 0 || empty == nil {
			opts = append(opts, jetstream.WithExpectLastMsgID(messageID(r.At.Epoch, r.At.Position-1)))
		} else {
			opts = append(opts, jetstream.WithExpectLastSequence(empty.LastSeq))
		}
		ack, err := p.bus.js.PublishMsgAsync(msg, opts...)
		if err != nil {
			return fmt.Errorf("nats: publish %s: %w", r.At, err)
		}
		acks = append(acks, ack)
	}
	var first error
	for i, ack := range acks { // all of them: the pipeline must be empty afterwards
		select {
		case a := <-ack.Ok():
			if a.Duplicate && first == nil {
				first = fmt.Errorf("nats: %s was there already: %w", events[i].At, transport.ErrMoved)
			}
		case err := <-ack.Err():
			if first == nil {
				first = fmt.Errorf("nats: publish %s: %w", events[i].At, moved(err))
			}
		case <-ctx.Done():
			if first == nil {
				first = fmt.Errorf("nats: publish %s: %w", events[i].At, ctx.Err())
			}
		}
	}
	p.flowing = first == nil
	return first
}

// moved recognises the server's refusal of a wrong predecessor.
func moved(err error) error {
	var api *jetstream.APIError
	if errors.As(err, &api) && (api.ErrorCode == jetstream.JSErrCodeStreamWrongLastSequence || api.ErrorCode == wrongLastMsgID) {
		return fmt.Errorf("%w: %w", transport.ErrMoved, err)
	}
	return err
}

// wrongLastMsgID is the server's code for an unexpected last message id.
const wrongLastMsgID = 10070

// Announce sends the head on core NATS.
func (p *publisher) Announce(_ context.Context, h transport.Head) error {
	raw, err := json.Marshal(h)
	if err != nil {
		return err
	}
	return p.bus.conn.Publish(headSubject(p.source), raw)
}

func encode(s freehold.Source, r *freehold.Recorded) *natsgo.Msg {
	header := make(natsgo.Header, 24)
	typ := transport.PlaceholderType
	values := make([]string, 0, 24) // one allocation for all
	transport.Attributes(r, func(name, value string) {
		values = append(values, transport.HeaderValue(value))
		header["ce-"+name] = values[len(values)-1 : len(values) : len(values)]
	})
	msg := &natsgo.Msg{Header: header}
	if !r.Internal {
		typ, msg.Data = r.Type.Name, r.Raw
		header["content-type"] = []string{"application/json"}
	}
	msg.Subject = prefix(s) + "." + typ
	return msg
}

func decode(header natsgo.Header, data []byte) (freehold.Recorded, error) {
	return transport.FromAttributes(func(name string) string {
		if v := header["ce-"+name]; len(v) > 0 {
			return transport.FromHeaderValue(v[0])
		}
		return ""
	}, data)
}

// Subscriber returns the receiving end.
func (b *Bus) Subscriber() transport.Subscriber { return subscriber{b} }

type subscriber struct{ bus *Bus }

// Subscribe delivers what is published from now on; what was before is the feed's.
// The server keeps no place for it.
func (s subscriber) Subscribe(ctx context.Context, source freehold.Source, _ freehold.Mark, h transport.Handler) error {
	heads, err := s.bus.conn.Subscribe(headSubject(source), func(m *natsgo.Msg) {
		var head transport.Head
		if json.Unmarshal(m.Data, &head) == nil {
			h.Head(head)
		}
	})
	if err != nil {
		return fmt.Errorf("nats: heads of %s: %w", source, err)
	}
	defer func() { _ = heads.Unsubscribe() }() // the connection may be gone
	callCtx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if _, err := s.bus.stream(callCtx, source); err != nil {
		return err
	}
	consumer, err := s.bus.js.OrderedConsumer(callCtx, streamName(source), jetstream.OrderedConsumerConfig{DeliverPolicy: jetstream.DeliverNewPolicy})
	if err != nil {
		return fmt.Errorf("nats: consumer of %s: %w", source, err)
	}
	failed := make(chan error, 1)
	fail := func(err error) {
		select {
		case failed <- err:
		default:
		}
	}
	consuming, err := consumer.Consume(func(m jetstream.Msg) {
		r, err := decode(m.Headers(), m.Data())
		if err == nil {
			err = h.Events(ctx, []freehold.Recorded{r})
		}
		if err != nil {
			fail(err)
		}
	}, jetstream.ConsumeErrHandler(func(_ jetstream.ConsumeContext, err error) { fail(err) }), jetstream.PullMaxMessages(1000))
	if err != nil {
		return fmt.Errorf("nats: consumer of %s: %w", source, err)
	}
	defer consuming.Stop()
	select {
	case err := <-failed:
		return fmt.Errorf("nats: subscription to %s: %w", source, err)
	case <-ctx.Done():
		return nil
	}
}
