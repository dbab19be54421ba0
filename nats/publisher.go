package nats

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/transport"
)

// Headers that JetStream acts upon.
const (
	headerMsgID       = "Nats-Msg-Id"
	headerExpectedID  = "Nats-Expected-Last-Msg-Id"
	headerExpectedSeq = "Nats-Expected-Last-Sequence"
	headerContentType = "content-type"
)

// Codes of JetStream's refusals of a message that does not follow.
const (
	codeWrongLastID  = 10070
	codeWrongLastSeq = 10071
)

// maxHeaders is what a message's headers may take; JetStream's limit is 64 KiB.
const maxHeaders = 32 << 10

// maxPage is how large a page is at most, unless it is of one event.
const maxPage = 64 << 10

// pageSubject is what the subject of pages ends with.
const pageSubject = "events"

var errNotConnected = errors.New("no connection to the server")

// publisher publishes one source. Since each message names its predecessor, the
// server takes none behind one that it has refused or never got, and if each event has one
// the acknowledgement of a batch's last message speaks for the batch. Of a replicated
// stream it names the place only: see docs/adr/0013.
type publisher struct {
	bus    *Bus
	source freehold.Source

	made  bool          // the stream has the options of this connection
	young bool          // it was made by this publisher, which has not published since
	known bool          // the fields below are what the server said last
	seq   uint64        // the stream's last sequence
	id    string        // message id of what is there, "" if it has none or must not be asked for
	named bool          // predecessors are named by their ids, too
	tail  freehold.Mark // the place of what is there

	reply  *nats.Subscription
	inbox  string
	asked  uint64
	header nats.Header // of the message being made
	slots  map[string][]string
	page   []byte // its data, if it is a page
}

func newPublisher(b *Bus, s freehold.Source) *publisher {
	return &publisher{bus: b, source: s, header: nats.Header{}, slots: map[string][]string{}}
}

// Last reads the last message of the source's stream.
func (p *publisher) Last(ctx context.Context, s freehold.Source) (transport.Head, error) {
	p.known = false
	if s != p.source {
		return transport.Head{}, fmt.Errorf("nats: this is the publisher of %s, not of %s", p.source, s)
	}
	stream, err := p.stream(ctx)
	if err != nil {
		return transport.Head{}, err
	}
	state := stream.CachedInfo().State
	head := transport.Head{Mark: freehold.Mark{Source: s}}
	p.id, p.named = "", stream.CachedInfo().Config.Replicas == 1
	if state.Msgs > 0 {
		r, ok, err := last(ctx, stream, s)
		if err != nil {
			return transport.Head{}, err
		}
		if ok {
			head = transport.Head{Mark: r.At, Incarnation: r.Incarnation}
			p.id = p.predecessor(r.At)
		}
	}
	p.tail, p.seq, p.known = head.Mark, state.LastSeq, true
	return head, nil
}

// last reads the last event of a stream that has messages. Any replica may answer, and one
// that is behind says that there is no such message: only its leader's word is taken for that.
func last(ctx context.Context, stream jetstream.Stream, s freehold.Source) (freehold.Recorded, bool, error) {
	info := stream.CachedInfo()
	r, ok, err := holds(ctx, stream, s, info.State.LastSeq)
	if err != nil || ok || !info.Config.AllowDirect {
		return r, ok, err
	}
	info.Config.AllowDirect = false // this handle now asks the leader
	return holds(ctx, stream, s, info.State.LastSeq)
}

// stream returns the source's stream as it is now. It is made, or given the options
// of this connection, the first time and when it is missing.
func (p *publisher) stream(ctx context.Context) (jetstream.Stream, error) {
	if p.made {
		stream, err := p.bus.stream(ctx, p.source)
		if !errors.Is(err, jetstream.ErrStreamNotFound) {
			return stream, err
		}
	}
	stream, err := p.bus.makeStream(ctx, p.source)
	p.made, p.young = err == nil, true
	return stream, err
}

func messageID(at freehold.Mark) string {
	return string(at.Epoch) + ":" + strconv.FormatInt(int64(at.Position), 10)
}

// predecessor is what the message behind an event says of it besides its place.
func (p *publisher) predecessor(at freehold.Mark) string {
	if !p.named {
		return ""
	}
	return messageID(at)
}

// Publish sends the events and waits until the server has all of them.
func (p *publisher) Publish(ctx context.Context, after freehold.Mark, events []freehold.Recorded) (held freehold.Mark, err error) {
	if !p.known || p.tail != after {
		p.known = false
		return held, fmt.Errorf("nats: %s is not known to end at %d: %w", p.source, after.Position, transport.ErrMoved)
	}
	p.known = false // until the server has taken all
	if err := p.listen(); err != nil {
		return held, err
	}
	begun := time.Now()
	err = p.send(ctx, events)
	for pause := 5 * time.Millisecond; p.young && errors.Is(err, nats.ErrNoResponders) && time.Since(begun) < callTimeout && ctx.Err() == nil; pause *= 2 {
		time.Sleep(pause) // not every server of a cluster knows yet where the stream is
		err = p.send(ctx, events)
	}
	if err != nil {
		return held, err
	}
	p.known, p.young = true, false
	return p.tail, nil
}

// send sends the events behind the last sequence: a message each, in one go, of which the
// acknowledgement of the last is waited for; or pages, each behind the acknowledgement
// of the one before it. Publishers cut their pages otherwise, and behind another one's the
// next would leave out what stood in the page that was refused.
func (p *publisher) send(ctx context.Context, events []freehold.Recorded) error {
	limit, pages := int(p.bus.conn.MaxPayload())-maxHeaders, p.bus.opts.Pages
	for !pages && len(events) > 0 && size(&events[len(events)-1]) > limit {
		events = events[:len(events)-1]
	}
	seq, id, tail := p.seq, p.id, p.tail
	for len(events) > 0 {
		var r *freehold.Recorded // the message's last; what is too large readers get from the feed
		n := 1
		if pages {
			r, n = p.fill(events, limit)
		} else if size(&events[0]) <= limit {
			r = &events[0]
		}
		events = events[n:]
		if r == nil {
			continue
		}
		msg := p.message(r, seq, id)
		wait := pages || len(events) == 0
		if wait {
			p.asked++
			msg.Reply = p.inbox + strconv.FormatUint(p.asked, 10)
		}
		if err := p.bus.conn.PublishMsg(msg); err != nil {
			return fmt.Errorf("nats: publish %s: %w", r.At, err)
		}
		seq, id, tail = seq+1, p.predecessor(r.At), r.At
		if wait {
			if err := p.acknowledged(ctx, seq); err != nil {
				return fmt.Errorf("nats: publish %s: %w", r.At, err)
			}
		}
	}
	p.seq, p.id, p.tail = seq, id, tail
	return nil
}

// fill makes a page of the first n events, without those whose line is longer than limit.
// It ends with last, which is nil if the page is empty.
func (p *publisher) fill(events []freehold.Recorded, limit int) (last *freehold.Recorded, n int) {
	p.page = p.page[:0]
	for ; n < len(events); n++ {
		if !events[n].Internal && len(events[n].Raw) > limit {
			continue // its line is longer still
		}
		end := len(p.page)
		p.page = append(transport.AppendJSON(p.page, &events[n]), '\n')
		switch {
		case len(p.page)-end > limit:
			p.page = p.page[:end]
		case last != nil && len(p.page) > min(limit, maxPage):
			p.page = p.page[:end]
			return last, n
		default:
			last = &events[n]
		}
	}
	return last, n
}

// size is what an event takes as a message of its own, without the headers that every
// event has, which are far below maxHeaders.
func size(r *freehold.Recorded) int {
	if r.Internal {
		return 0
	}
	m := &r.Meta
	meta := 3 * (len(m.Correlation) + len(m.Causation) + len(m.Tenant) + len(m.Actor) + len(m.TraceParent))
	if meta > maxHeaders-4096 {
		return 1 << 30
	}
	return len(r.Raw) + meta
}

// message makes the message of an event, or of the page that ends with it. It is valid
// until the next call.
func (p *publisher) message(r *freehold.Recorded, seq uint64, id string) *nats.Msg {
	clear(p.header)
	p.set(headerMsgID, messageID(r.At))
	p.set(headerExpectedSeq, strconv.FormatUint(seq, 10))
	if id != "" {
		p.set(headerExpectedID, id)
	}
	msg := &nats.Msg{Subject: streamName(p.source) + ".", Header: p.header}
	switch {
	case p.bus.opts.Pages:
		msg.Subject += pageSubject
		msg.Data = p.page
		p.set(headerContentType, transport.PageType)
		return msg
	case r.Internal:
		msg.Subject += transport.PlaceholderType
	default:
		msg.Subject += r.Type.Name
		msg.Data = r.Raw
		p.set(headerContentType, "application/json")
	}
	transport.Headers(r, p.set)
	return msg
}

// set sets a header without making a slice each time.
func (p *publisher) set(name, value string) {
	slot := p.slots[name]
	if slot == nil {
		slot = make([]string, 1)
		p.slots[name] = slot
	}
	slot[0] = value
	p.header[name] = slot
}

// listen subscribes to where acknowledgements come.
func (p *publisher) listen() error {
	if p.reply != nil && p.reply.IsValid() {
		return nil
	}
	inbox := p.bus.conn.NewInbox() + "."
	sub, err := p.bus.conn.SubscribeSync(inbox + "*")
	if err != nil {
		return fmt.Errorf("nats: publish %s: %w", p.source, err)
	}
	p.reply, p.inbox = sub, inbox
	return nil
}

// acknowledged waits for the answer to the last message.
func (p *publisher) acknowledged(ctx context.Context, seq uint64) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	want := p.inbox + strconv.FormatUint(p.asked, 10)
	for {
		msg, err := p.reply.NextMsgWithContext(ctx)
		if err != nil {
			return fmt.Errorf("no acknowledgement: %w", err)
		}
		if msg.Subject != want {
			continue // of a batch that was given up
		}
		if len(msg.Data) == 0 {
			return fmt.Errorf("no stream %s on the server", streamName(p.source))
		}
		var ack struct {
			Sequence  uint64              `json:"seq"`
			Duplicate bool                `json:"duplicate"`
			Error     *jetstream.APIError `json:"error"`
		}
		if err := json.Unmarshal(msg.Data, &ack); err != nil {
			return fmt.Errorf("acknowledgement: %w", err)
		}
		switch {
		case ack.Error != nil && (ack.Error.ErrorCode == codeWrongLastID || ack.Error.ErrorCode == codeWrongLastSeq):
			return fmt.Errorf("%w: %w", transport.ErrMoved, ack.Error)
		case ack.Error != nil:
			return ack.Error
		case ack.Duplicate:
			return fmt.Errorf("was there already: %w", transport.ErrMoved)
		case ack.Sequence != seq:
			return fmt.Errorf("stands at %d, not at %d: %w", ack.Sequence, seq, transport.ErrMoved)
		}
		return nil
	}
}

// Announce sends the head on core NATS.
func (p *publisher) Announce(_ context.Context, h transport.Head) error {
	raw, err := json.Marshal(h)
	if err != nil {
		return err
	}
	if !p.bus.conn.IsConnected() {
		return fmt.Errorf("nats: announce %s: %w", p.source, errNotConnected)
	}
	return p.bus.conn.Publish(headSubject(p.source), raw)
}
