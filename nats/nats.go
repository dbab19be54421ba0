// Package nats carries events over NATS: one JetStream stream for each source, an
// event in each message, or a page of them, and the sources' heads on core NATS. It is
// the client; package embed is a server in the same process.
//
// # Guarantees
//
// The server takes a message only directly behind the one before it: each names
// the stream's expected last sequence, and epoch and position of its predecessor.
// So two relays cannot interleave, and neither a purge nor a stream that was made
// again confuses a relay. Nothing else is promised and nothing else is needed:
// streams are bounded, and disposable.
//
// # Ordering
//
// A stream holds its source's events by position. A subscription notices a message
// that it missed and ends, to be begun again.
//
// # Failure
//
// Connections are made again for ever; while there is none, calls fail at once and
// nothing is kept for later. A stream that is missing is made again by the
// publisher; the relay then publishes a window of the journal, and consumers get
// what is older from the source's feed.
package nats

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/transport"
)

// Options tune a connection; the zero value is good.
type Options struct {
	// Server is a server in this process, instead of a URL.
	Server nats.InProcessConnProvider
	// MaxBytes bounds each stream on the server's disk. Older events go; consumers
	// that need them ask the feed. 0 is 16 MiB.
	MaxBytes int64
	// Replicas is how many servers of a cluster hold each stream. 0 is 1.
	Replicas int
	// Pages lets events that wait together share a message, a page of the feed under the
	// subject source.events, which takes much less of the servers' time and of the
	// services'. Without, each has a message of its own, in CloudEvents' binary mode, under
	// source.type: for readers that are not Freehold's, and want some types only.
	// Subscribers read both; all instances of a service publish the same way.
	Pages bool
	// Service is the source of the service that connects. Its answers come to subjects of
	// its own, so that a server can keep services apart; see PermissionsOf. Empty is any.
	Service freehold.Source
	// Client adds options of the NATS client, such as credentials or TLS.
	Client []nats.Option
	// Log is where the connection's errors go. nil is slog.Default().
	Log *slog.Logger
}

// Bus is a connection to NATS: in fact two, so that no acknowledgement waits behind
// what is delivered to subscribers. It is safe for concurrent use.
type Bus struct {
	conn *nats.Conn // of publishers, and for questions
	subs *nats.Conn // of subscribers
	js   jetstream.JetStream
	opts Options
}

// callTimeout bounds every question to the server, answerTimeout each time that it is
// asked.
const (
	callTimeout   = 5 * time.Second
	answerTimeout = time.Second
)

// ask puts a question that may be put twice. Answers are lost on their way through a
// cluster that does not know yet where they go to, or whose leader has just gone.
func ask[T any](ctx context.Context, question func(context.Context) (T, error)) (answer T, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	for {
		one, cancel := context.WithTimeout(ctx, answerTimeout)
		answer, err = question(one)
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
			return answer, err
		}
	}
}

// read takes options from the end of a URL.
func (o *Options) read(query string) error {
	values, err := url.ParseQuery(query)
	if err != nil {
		return fmt.Errorf("nats: the part behind the question mark: %w", err)
	}
	for name, value := range values {
		switch name {
		case "replicas":
			if o.Replicas, err = strconv.Atoi(value[0]); err != nil || !slices.Contains([]int{1, 3, 5}, o.Replicas) {
				return fmt.Errorf("nats: replicas=%s: want 1, 3 or 5", value[0])
			}
		case "pages":
			if o.Pages, err = strconv.ParseBool(value[0]); err != nil {
				return fmt.Errorf("nats: pages=%s: want true or false", value[0])
			}
		case "ca":
			o.Client = append(o.Client, nats.RootCAs(value[0]))
		case "cert":
			o.Client = append(o.Client, nats.ClientCert(value[0], values.Get("key")))
		case "key": // with cert
		case "creds":
			o.Client = append(o.Client, nats.UserCredentials(value[0]))
		default:
			return fmt.Errorf("nats: %s: behind the question mark may stand replicas, pages, ca, cert, key and creds", name)
		}
	}
	return nil
}

// Connect connects to a server, or to a cluster by several URLs with commas, with
// options behind them: ?replicas=3 for streams that are on three servers, pages=true for
// events that share messages, ca, cert and key for TLS, creds for a credentials file. A
// server that is down is no error: the connection is made when it is there. An
// address that no server can have is one.
func Connect(ctx context.Context, urls string, o *Options) (*Bus, error) {
	b := &Bus{}
	if o != nil {
		b.opts = *o
	}
	if b.opts.MaxBytes <= 0 {
		b.opts.MaxBytes = 16 << 20
	}
	if b.opts.Replicas <= 0 {
		b.opts.Replicas = 1
	}
	if b.opts.Log == nil {
		b.opts.Log = slog.Default()
	}
	log := b.opts.Log
	options := []nats.Option{
		nats.Name("freehold"), nats.RetryOnFailedConnect(true), nats.MaxReconnects(-1), nats.ReconnectWait(50 * time.Millisecond),
		nats.ReconnectJitter(50*time.Millisecond, 50*time.Millisecond), nats.Timeout(callTimeout),
		nats.ReconnectBufSize(-1), // what cannot be sent now fails now
		nats.PingInterval(10 * time.Second),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
			if err != nil {
				log.Warn("nats: connection lost, trying again", "error", err)
			}
		}),
		nats.ReconnectHandler(func(c *nats.Conn) { log.Info("nats: connected again", "server", c.ConnectedUrlRedacted()) }),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { log.Debug("nats: subscription", "error", err) }),
	}
	if b.opts.Server != nil {
		options = append(options, nats.InProcessServer(b.opts.Server))
	}
	if b.opts.Service != "" {
		options = append(options, nats.CustomInboxPrefix(inboxPrefix(b.opts.Service)))
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	urls, query, _ := strings.Cut(urls, "?")
	if err := b.opts.read(query); err != nil {
		return nil, err
	}
	if b.opts.Server == nil {
		if err := checkURLs(urls); err != nil {
			return nil, err
		}
	}
	var err error
	options = append(options, b.opts.Client...)
	if b.conn, err = nats.Connect(urls, options...); err != nil {
		return nil, fmt.Errorf("nats: connect: %w", err)
	}
	if b.subs, err = nats.Connect(urls, options...); err != nil {
		b.conn.Close()
		return nil, fmt.Errorf("nats: connect: %w", err)
	}
	if b.js, err = jetstream.New(b.conn); err != nil {
		_ = b.Close() // there is nothing to lose
		return nil, fmt.Errorf("nats: %w", err)
	}
	return b, nil
}

// checkURLs refuses what no server can be reached by, which the client would try for
// ever. It does not repeat passwords.
func checkURLs(urls string) error {
	for one := range strings.SplitSeq(urls, ",") {
		one = strings.TrimSpace(one)
		if !strings.Contains(one, "://") {
			one = "nats://" + one
		}
		u, err := url.Parse(one)
		if err != nil {
			return fmt.Errorf("nats: a server's URL cannot be read: want nats://host:port, with special characters of a password as %%XX")
		}
		_, numeric := strconv.ParseUint(u.Port(), 10, 16)
		if !slices.Contains([]string{"nats", "tls", "ws", "wss"}, u.Scheme) || u.Hostname() == "" || u.Port() != "" && numeric != nil || u.Path != "" && u.Path != "/" {
			return fmt.Errorf("nats: a server's URL is %q: want nats://host:port", u.Redacted())
		}
	}
	return nil
}

// Connected reports whether both connections are up now.
func (b *Bus) Connected() bool { return b.conn.IsConnected() && b.subs.IsConnected() }

// Audit asks the server how it keeps a source's stream, in words.
func (b *Bus) Audit(ctx context.Context, s freehold.Source) ([]string, error) {
	stream, err := b.stream(ctx, s)
	if err != nil {
		return nil, fmt.Errorf("nats: stream of %s: %w", s, err)
	}
	c := stream.CachedInfo().Config
	return []string{fmt.Sprintf("stream %s: %s storage, %d replicas, at most %d bytes: disposable, the journal is the record", c.Name, c.Storage, c.Replicas, c.MaxBytes)}, nil
}

// Check says in words what the server lets this connection do.
func (b *Bus) Check(ctx context.Context) ([]string, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	for !b.conn.IsConnected() {
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("nats: no server answers (%v): start it, or check host, port, user and password", b.conn.LastError())
		case <-time.After(20 * time.Millisecond):
		}
	}
	says := []string{"server " + b.conn.ConnectedServerVersion()}
	if name := b.conn.ConnectedClusterName(); name != "" {
		says = append(says, fmt.Sprintf("cluster %s of %d servers", name, len(b.conn.Servers())))
	}
	info, err := b.js.AccountInfo(ctx)
	if err != nil {
		return says, fmt.Errorf("nats: JetStream: %w: start the server with JetStream, and permit the user $JS.API.>", err)
	}
	return append(says, fmt.Sprintf("JetStream: %d streams, %d bytes on disk", info.Streams, info.Store), fmt.Sprintf("replicas=%d", b.opts.Replicas), fmt.Sprintf("pages=%t", b.opts.Pages)), nil
}

// Close ends the connection. Publishers and subscriptions fail from then on.
func (b *Bus) Close() error {
	b.conn.Close()
	b.subs.Close()
	return nil
}

// Publisher returns the publishing end for a source.
func (b *Bus) Publisher(s freehold.Source) transport.Publisher { return newPublisher(b, s) }

// Subscriber returns the receiving end.
func (b *Bus) Subscriber() transport.Subscriber { return subscriber{b} }

// token is a source's name as one token of a subject, and as a stream's name: dots
// and slashes may stand in neither, and no source has a minus or a plus.
var token = strings.NewReplacer(".", "-", "/", "+")

func streamName(s freehold.Source) string  { return token.Replace(string(s)) }
func headSubject(s freehold.Source) string { return "_freehold.head." + streamName(s) }

// stream returns a source's stream as it is now.
func (b *Bus) stream(ctx context.Context, s freehold.Source) (jetstream.Stream, error) {
	return ask(ctx, func(ctx context.Context) (jetstream.Stream, error) { return b.js.Stream(ctx, streamName(s)) })
}

// makeStream returns a source's stream, making it if it is missing.
func (b *Bus) makeStream(ctx context.Context, s freehold.Source) (jetstream.Stream, error) {
	name := streamName(s)
	config := jetstream.StreamConfig{
		Name: name, Description: "events of " + string(s), Subjects: []string{name + ".>"},
		Storage: jetstream.FileStorage, Retention: jetstream.LimitsPolicy, Discard: jetstream.DiscardOld,
		MaxBytes: b.opts.MaxBytes, Replicas: b.opts.Replicas, AllowDirect: true,
		// The expected sequence and predecessor do what the duplicate window does, and
		// the window remembers ids of messages that are no longer there.
		Duplicates: 100 * time.Millisecond,
	}
	stream, err := ask(ctx, func(ctx context.Context) (jetstream.Stream, error) { return b.js.CreateOrUpdateStream(ctx, config) })
	if err != nil {
		return nil, fmt.Errorf("nats: stream of %s: %w", s, err)
	}
	return stream, nil
}

// holds reads the last event of the message at a sequence: false if there is none, or what
// is there is not of the source.
func holds(ctx context.Context, stream jetstream.Stream, s freehold.Source, seq uint64) (freehold.Recorded, bool, error) {
	msg, err := ask(ctx, func(ctx context.Context) (*jetstream.RawStreamMsg, error) { return stream.GetMsg(ctx, seq) })
	if errors.Is(err, jetstream.ErrMsgNotFound) {
		return freehold.Recorded{}, false, nil
	}
	if err != nil {
		return freehold.Recorded{}, false, fmt.Errorf("nats: message %d of %s: %w", seq, s, err)
	}
	var r freehold.Recorded
	if isPage(msg.Header) {
		r, err = transport.LastOfPage(msg.Data)
	} else {
		r, err = event(msg.Header, msg.Data)
	}
	return r, err == nil && r.At.Source == s, nil
}

func isPage(h nats.Header) bool { return h.Get(headerContentType) == transport.PageType }

// event reads a message of one event.
func event(h nats.Header, data []byte) (freehold.Recorded, error) {
	var d transport.Decoder
	for name, values := range h {
		if len(values) > 0 {
			d.Header(name, values[0])
		}
	}
	return d.Event(data)
}
