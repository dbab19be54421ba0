package transport

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/freehold-go/freehold"
)

// PlaceholderType is the CloudEvents type under which an internal event travels.
const PlaceholderType = "freehold.placeholder"

// Attribute names of CloudEvents, and of the extension attributes that carry an
// event's place. As headers of a binary-mode message they have the prefix.
const (
	headerPrefix = "ce-"

	attrSpec          = "specversion"
	attrID            = "id"
	attrSource        = "source"
	attrType          = "type"
	attrSubject       = "subject" // stream
	attrTime          = "time"
	attrSequence      = "sequence" // position
	attrEpoch         = "epoch"
	attrIncarnation   = "incarnation"
	attrChain         = "chain"
	attrDigest        = "digest"
	attrNonce         = "nonce"
	attrStreamVersion = "streamversion"
	attrSchemaVersion = "schemaversion"
	attrLast          = "lastoftx"
	attrCorrelation   = "correlationid"
	attrCausation     = "causationid"
	attrTenant        = "tenant"
	attrActor         = "actor"
	attrTraceParent   = "traceparent"
)

// timeLayout keeps the microseconds that the digest covers.
const timeLayout = "2006-01-02T15:04:05.000000Z"

// span is an attribute whose value is a part of a buffer.
type span struct {
	name       string
	start, end int
}

// Headers calls set with every attribute of an event as a header of a binary-mode
// message, in a fixed order. Internal events give only what keeps positions and the
// chain whole.
func Headers(r *freehold.Recorded, set func(name, value string)) {
	var space [1024]byte
	var spans [24]span
	b, all := appendAttributes(space[:0], spans[:0], r)
	text := string(b)
	for _, s := range all {
		set(s.name, headerValue(text[s.start:s.end]))
	}
}

// appendAttributes appends the values of an event's attributes to b and their
// places to all.
func appendAttributes(b []byte, all []span, r *freehold.Recorded) ([]byte, []span) {
	begin := 0
	done := func(name string) {
		all = append(all, span{name, begin, len(b)})
		begin = len(b)
	}
	begin = len(b)
	b = append(b, "1.0"...)
	done(headerPrefix + attrSpec)
	if r.Internal {
		b = strconv.AppendInt(append(append(b, r.At.Epoch...), '-'), int64(r.At.Position), 10)
		done(headerPrefix + attrID)
		b = append(b, PlaceholderType...)
		done(headerPrefix + attrType)
	} else {
		b = append(b, r.ID...)
		done(headerPrefix + attrID)
		b = append(b, r.Type.Name...)
		done(headerPrefix + attrType)
		b = append(b, r.Stream...)
		done(headerPrefix + attrSubject)
		b = appendTime(b, r.Time)
		done(headerPrefix + attrTime)
		b = strconv.AppendInt(b, int64(r.Type.Version), 10)
		done(headerPrefix + attrSchemaVersion)
		b = strconv.AppendInt(b, int64(r.Version), 10)
		done(headerPrefix + attrStreamVersion)
		b = hex.AppendEncode(b, r.Nonce)
		done(headerPrefix + attrNonce)
	}
	b = append(b, r.At.Source...)
	done(headerPrefix + attrSource)
	b = strconv.AppendInt(b, int64(r.At.Position), 10)
	done(headerPrefix + attrSequence)
	b = append(b, r.At.Epoch...)
	done(headerPrefix + attrEpoch)
	b = append(b, r.Incarnation...)
	done(headerPrefix + attrIncarnation)
	b = hex.AppendEncode(b, r.Digest[:])
	done(headerPrefix + attrDigest)
	b = hex.AppendEncode(b, r.At.Chain[:])
	done(headerPrefix + attrChain)
	if r.Last {
		b = append(b, "true"...)
		done(headerPrefix + attrLast)
	}
	if r.Internal {
		return b, all
	}
	for _, m := range [...]struct{ name, value string }{
		{headerPrefix + attrCorrelation, r.Meta.Correlation}, {headerPrefix + attrCausation, r.Meta.Causation}, {headerPrefix + attrTenant, r.Meta.Tenant},
		{headerPrefix + attrActor, r.Meta.Actor}, {headerPrefix + attrTraceParent, r.Meta.TraceParent},
	} {
		if m.value != "" {
			b = append(b, m.value...)
			done(m.name)
		}
	}
	return b, all
}

// appendTime appends t as timeLayout does, without parsing the layout.
func appendTime(b []byte, t time.Time) []byte {
	t = t.UTC()
	year, month, day := t.Date()
	if year < 0 || year > 9999 {
		return t.AppendFormat(b, timeLayout)
	}
	hour, minute, second := t.Clock()
	b = digits(b, year, 4)
	b = digits(append(b, '-'), int(month), 2)
	b = digits(append(b, '-'), day, 2)
	b = digits(append(b, 'T'), hour, 2)
	b = digits(append(b, ':'), minute, 2)
	b = digits(append(b, ':'), second, 2)
	b = digits(append(b, '.'), t.Nanosecond()/1000, 6)
	return append(b, 'Z')
}

func digits(b []byte, n, width int) []byte {
	b = append(b, "000000"[:width]...)
	for i := len(b) - 1; n > 0; i-- {
		b[i] = byte('0' + n%10)
		n /= 10
	}
	return b
}

// Decoder rebuilds an event from its attributes, in any order. The zero value is
// ready.
type Decoder struct {
	r    freehold.Recorded
	seen uint32
	err  error
}

// Which attributes an event must have.
const (
	needID = 1 << iota
	needSource
	needType
	needSequence
	needEpoch
	needIncarnation
	needDigest
	needChain
	needSubject
	needTime
	needSchemaVersion
	needStreamVersion
	needNonce

	needAlways = needID | needSource | needType | needSequence | needEpoch | needIncarnation | needDigest | needChain
	needPublic = needAlways | needSubject | needTime | needSchemaVersion | needStreamVersion | needNonce
)

// Header takes a header of a binary-mode message. Unknown names are ignored.
func (d *Decoder) Header(name, value string) {
	if strings.HasPrefix(name, headerPrefix) {
		d.Set(name[len(headerPrefix):], fromHeaderValue(value))
	}
}

// Set takes an attribute. Unknown names are ignored.
func (d *Decoder) Set(name, value string) {
	switch name {
	case attrID:
		d.r.ID = value
		d.seen |= needID
	case attrSource:
		d.r.At.Source = freehold.Source(value)
		d.seen |= needSource
	case attrType:
		d.r.Type.Name = value
		d.seen |= needType
	case attrSubject:
		d.r.Stream = freehold.StreamID(value)
		d.seen |= needSubject
	case attrTime:
		t, err := time.Parse(time.RFC3339Nano, value)
		d.failed(name, err)
		d.r.Time = t.UTC()
		d.seen |= needTime
	case attrSequence:
		d.r.At.Position = freehold.Position(d.number(name, value))
		d.seen |= needSequence
	case attrEpoch:
		d.r.At.Epoch = freehold.Epoch(value)
		d.seen |= needEpoch
	case attrIncarnation:
		d.r.Incarnation = value
		d.seen |= needIncarnation
	case attrChain:
		d.failed(name, hexInto(d.r.At.Chain[:], value))
		d.seen |= needChain
	case attrDigest:
		d.failed(name, hexInto(d.r.Digest[:], value))
		d.seen |= needDigest
	case attrNonce:
		d.r.Nonce = make([]byte, freehold.NonceSize)
		d.failed(name, hexInto(d.r.Nonce, value))
		d.seen |= needNonce
	case attrSchemaVersion:
		d.r.Type.Version = int(d.number(name, value))
		d.seen |= needSchemaVersion
	case attrStreamVersion:
		d.r.Version = freehold.Version(d.number(name, value))
		d.seen |= needStreamVersion
	case attrLast:
		d.r.Last = value == "true"
	case attrCorrelation:
		d.r.Meta.Correlation = value
	case attrCausation:
		d.r.Meta.Causation = value
	case attrTenant:
		d.r.Meta.Tenant = value
	case attrActor:
		d.r.Meta.Actor = value
	case attrTraceParent:
		d.r.Meta.TraceParent = value
	}
}

// Event returns the event with its payload, which it keeps, and makes d ready for
// the next. The event is not bound to a catalog, and nothing has been verified.
func (d *Decoder) Event(payload []byte) (freehold.Recorded, error) {
	r, seen, err := d.r, d.seen, d.err
	*d = Decoder{}
	need := uint32(needPublic)
	if r.Type.Name == PlaceholderType {
		// Whatever else it says is not covered by anything.
		r = freehold.Recorded{ID: r.ID, At: r.At, Incarnation: r.Incarnation, Digest: r.Digest, Last: r.Last, Internal: true, Type: freehold.Type{Name: PlaceholderType}}
		need = needAlways
	} else if r.Raw = payload; r.Raw == nil {
		r.Raw = []byte{}
	}
	switch {
	case err != nil:
	case seen&need != need:
		err = errors.New("an attribute is missing")
	case r.At.Position < 1:
		err = fmt.Errorf("position %d", r.At.Position)
	}
	if err != nil {
		return freehold.Recorded{}, fmt.Errorf("transport: not an event of Freehold's: %w", err)
	}
	return r, nil
}

func (d *Decoder) failed(name string, err error) {
	if err != nil && d.err == nil {
		d.err = fmt.Errorf("attribute %s: %w", name, err)
	}
}

func (d *Decoder) number(name, value string) int64 {
	n, err := strconv.ParseInt(value, 10, 64)
	d.failed(name, err)
	return n
}

// hexInto decodes exactly len(dst) bytes.
func hexInto(dst []byte, s string) error {
	if len(s) != 2*len(dst) {
		return fmt.Errorf("%d digits, want %d", len(s), 2*len(dst))
	}
	var odd byte
	for i := range dst {
		high, low := nibbles[s[2*i]], nibbles[s[2*i+1]]
		odd |= high | low
		dst[i] = high<<4 | low
	}
	if odd > 0x0f {
		return fmt.Errorf("%.80q is not hexadecimal", s)
	}
	return nil
}

// nibbles are the values of hexadecimal digits; of any other byte, more than 15.
var nibbles = func() (all [256]byte) {
	for c := range all {
		all[c] = 0xff
	}
	for _, digits := range [...]string{"0123456789abcdef", "0123456789ABCDEF"} {
		for n := range len(digits) {
			all[digits[n]] = byte(n)
		}
	}
	return all
}()
