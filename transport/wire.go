package transport

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/freehold-go/freehold"
)

// PlaceholderType is the CloudEvents type under which an internal event travels.
const PlaceholderType = "freehold.placeholder"

// Attribute names of CloudEvents, and of the extension attributes that carry an
// event's place. In a binary-mode message each has the prefix "ce-".
const (
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

// Attributes calls set with every attribute of an event, in a fixed order.
// Internal events give only what keeps positions and the chain whole.
func Attributes(r *freehold.Recorded, set func(name, value string)) {
	set("specversion", "1.0")
	if r.Internal {
		set(attrID, string(r.At.Epoch)+"-"+strconv.FormatInt(int64(r.At.Position), 10))
		set(attrType, PlaceholderType)
	} else {
		set(attrID, r.ID)
		set(attrType, r.Type.Name)
		set(attrSubject, string(r.Stream))
		set(attrTime, string(r.Time.AppendFormat(nil, timeLayout)))
		set(attrSchemaVersion, strconv.Itoa(r.Type.Version))
		set(attrStreamVersion, strconv.FormatInt(int64(r.Version), 10))
		set(attrNonce, hex.EncodeToString(r.Nonce))
	}
	set(attrSource, string(r.At.Source))
	set(attrSequence, strconv.FormatInt(int64(r.At.Position), 10))
	set(attrEpoch, string(r.At.Epoch))
	set(attrIncarnation, r.Incarnation)
	set(attrDigest, r.Digest.String())
	set(attrChain, r.At.Chain.String())
	if r.Last {
		set(attrLast, "true")
	}
	if r.Internal {
		return
	}
	for _, m := range [...]struct{ name, value string }{
		{attrCorrelation, r.Meta.Correlation}, {attrCausation, r.Meta.Causation}, {attrTenant, r.Meta.Tenant},
		{attrActor, r.Meta.Actor}, {attrTraceParent, r.Meta.TraceParent},
	} {
		if m.value != "" {
			set(m.name, m.value)
		}
	}
}

// FromAttributes rebuilds an event from its attributes and payload.
func FromAttributes(get func(name string) string, payload []byte) (freehold.Recorded, error) {
	var r freehold.Recorded
	var errs []error
	number := func(name string) int64 {
		n, err := strconv.ParseInt(get(name), 10, 64)
		if err != nil {
			errs = append(errs, fmt.Errorf("attribute %s: %q is not a number", name, get(name)))
		}
		return n
	}
	hash := func(name string) (h freehold.Hash) {
		if err := h.UnmarshalText([]byte(get(name))); err != nil {
			errs = append(errs, fmt.Errorf("attribute %s: %w", name, err))
		}
		return h
	}
	r.At = freehold.Mark{Source: freehold.Source(get(attrSource)), Epoch: freehold.Epoch(get(attrEpoch)), Position: freehold.Position(number(attrSequence)), Chain: hash(attrChain)}
	r.Incarnation, r.Digest, r.Last = get(attrIncarnation), hash(attrDigest), get(attrLast) == "true"
	r.ID = get(attrID)
	if r.Type.Name = get(attrType); r.Type.Name == PlaceholderType {
		r.Internal = true
		return r, wrap(errs)
	}
	r.Type.Version = int(number(attrSchemaVersion))
	r.Stream, r.Version = freehold.StreamID(get(attrSubject)), freehold.Version(number(attrStreamVersion))
	var err error
	if r.Time, err = time.Parse(time.RFC3339Nano, get(attrTime)); err != nil {
		errs = append(errs, fmt.Errorf("attribute time: %w", err))
	}
	r.Time = r.Time.UTC()
	if r.Nonce, err = hex.DecodeString(get(attrNonce)); err != nil {
		errs = append(errs, fmt.Errorf("attribute nonce: %w", err))
	}
	r.Meta = freehold.Meta{Correlation: get(attrCorrelation), Causation: get(attrCausation), Tenant: get(attrTenant), Actor: get(attrActor), TraceParent: get(attrTraceParent)}
	if r.Raw = payload; r.Raw == nil {
		r.Raw = []byte{}
	}
	return r, wrap(errs)
}

func wrap(errs []error) error {
	if len(errs) == 0 {
		return nil
	}
	return fmt.Errorf("transport: not an event of Freehold's: %w", errors.Join(errs...))
}

// AppendJSON appends an event as one line of structured-mode JSON, without a
// line end. Extension attributes are strings; the payload is in "data" exactly as
// stored, or in "data_base64" if it is not JSON.
func AppendJSON(b []byte, r *freehold.Recorded) []byte {
	b = append(b, '{')
	Attributes(r, func(name, value string) {
		b = append(b, '"')
		b = append(b, name...)
		b = append(b, `":`...)
		b = appendString(b, value)
		b = append(b, ',')
	})
	switch {
	case r.Internal:
		b = b[:len(b)-1]
	case json.Valid(r.Raw) && bytes.IndexByte(r.Raw, 0x0a) < 0:
		b = append(b, `"datacontenttype":"application/json","data":`...)
		b = append(b, r.Raw...)
	default:
		b = append(b, `"data_base64":"`...)
		b = base64.StdEncoding.AppendEncode(b, r.Raw)
		b = append(b, '"')
	}
	return append(b, '}')
}

func appendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c == '"' || c == '\\' || c >= 0x7f || c == '<' || c == '>' || c == '&' {
			quoted, err := json.Marshal(s)
			if err != nil {
				quoted = []byte(`""`) // a string always has a JSON form
			}
			return append(b, quoted...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}

// ParseJSON reads what AppendJSON wrote, or any other structured-mode JSON form of
// the same event.
func ParseJSON(line []byte) (freehold.Recorded, error) {
	var pairs [24]pair
	if attributes, payload, ok := split(line, pairs[:0]); ok {
		return FromAttributes(func(name string) string {
			for i := range attributes {
				if string(attributes[i].name) == name {
					return string(attributes[i].value)
				}
			}
			return ""
		}, bytes.Clone(payload))
	}
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(line, &fields); err != nil {
		return freehold.Recorded{}, fmt.Errorf("transport: not a CloudEvent: %w", err)
	}
	payload := []byte(fields["data"])
	if encoded, ok := fields["data_base64"]; ok {
		if err := json.Unmarshal(encoded, &payload); err != nil {
			return freehold.Recorded{}, fmt.Errorf("transport: data_base64: %w", err)
		}
	}
	return FromAttributes(func(name string) string {
		var s string
		if raw := fields[name]; len(raw) > 0 && json.Unmarshal(raw, &s) != nil {
			return string(raw)
		}
		return s
	}, payload)
}

// pair is an attribute of a line, as it stands there.
type pair struct{ name, value []byte }

// split takes a line apart that has the form AppendJSON gives it: strings without
// escapes, and the data last. It reports false for any other, which may well be
// valid; the parts point into the line.
func split(line []byte, pairs []pair) (attributes []pair, data []byte, ok bool) {
	if n := len(line); n > 0 && line[n-1] == '\n' {
		line = line[:n-1]
	}
	if len(line) < 2 || line[0] != '{' || line[len(line)-1] != '}' {
		return nil, nil, false
	}
	rest := line[1 : len(line)-1]
	for {
		name, after, ok := quoted(rest)
		if !ok || len(after) == 0 || after[0] != ':' {
			return nil, nil, false
		}
		rest = after[1:]
		if string(name) == "data" {
			return pairs, rest, json.Valid(rest)
		}
		value, after, ok := quoted(rest)
		if !ok || string(name) == "data_base64" {
			return nil, nil, false
		}
		pairs = append(pairs, pair{name, value})
		if len(after) == 0 {
			return pairs, nil, true
		}
		if after[0] != ',' {
			return nil, nil, false
		}
		rest = after[1:]
	}
}

// quoted returns the text of a string without escapes, and what follows it.
func quoted(b []byte) (text, after []byte, ok bool) {
	if len(b) == 0 || b[0] != '"' {
		return nil, nil, false
	}
	end := bytes.IndexByte(b[1:], '"')
	if end < 0 {
		return nil, nil, false
	}
	text = b[1 : 1+end]
	return text, b[end+2:], bytes.IndexByte(text, '\\') < 0
}
