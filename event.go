package freehold

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Event is something that happened: a plain struct whose type is known.
// EventType is called on the zero value too, so it must not depend on fields.
type Event interface{ EventType() Type }

// Type is an event's name, such as "order.placed", and the version of its
// schema, from 1. A struct decodes exactly one version; older ones are upcast.
type Type struct {
	Name    string
	Version int
}

// T is short for Type{name, version}.
func T(name string, version int) Type { return Type{Name: name, Version: version} }

// String gives "order.placed.v2".
func (t Type) String() string { return fmt.Sprintf("%s.v%d", t.Name, t.Version) }

// Meta says where an event comes from. All fields are optional and are stored
// with the event and covered by its digest.
type Meta struct {
	Correlation string `json:"correlation,omitempty"` // the business conversation, set by the first command
	Causation   string `json:"causation,omitempty"`   // ID of the event that led to this one
	Tenant      string `json:"tenant,omitempty"`
	Actor       string `json:"actor,omitempty"`       // who asked
	TraceParent string `json:"traceparent,omitempty"` // W3C trace context
}

type metaKey struct{}

// WithMeta returns a context whose appends carry m.
func WithMeta(ctx context.Context, m Meta) context.Context {
	return context.WithValue(ctx, metaKey{}, m)
}

// MetaOf returns the metadata that appends under ctx carry.
func MetaOf(ctx context.Context) Meta {
	m, _ := ctx.Value(metaKey{}).(Meta)
	return m
}

// NonceSize is the length of the random bytes that make the digest of an internal event
// unguessable. It is fixed: the digest does not tell where they end.
const NonceSize = 16

// Recorded is an event as a journal holds it. It is a value; Raw and Nonce must
// not be changed.
type Recorded struct {
	ID          string // unique in the journal: the id of the writing transaction, "-", and a number
	At          Mark   // where it stands: source, epoch, position, and chain value up to and with it
	Incarnation string // the opening of the journal that wrote it
	Stream      StreamID
	Version     Version
	Type        Type
	Time        time.Time // of the transaction, in microseconds, UTC
	Meta        Meta
	Internal    bool   // never leaves the service except as a placeholder
	Last        bool   // the last event of its transaction: readers stop only behind one
	Raw         []byte // payload as stored; nil for a placeholder
	Nonce       []byte // NonceSize random bytes; nil for a placeholder
	Digest      Hash   // over header, nonce and payload; see docs/wire.md

	types *Catalog
}

// Placeholder reports whether r stands for an internal event of another service:
// it keeps positions and the chain whole and carries nothing else.
func (r Recorded) Placeholder() bool { return r.Internal && r.Raw == nil }

// Caused is the metadata of what r leads to: the same conversation, caused by r.
func (r Recorded) Caused() Meta {
	m := r.Meta
	if m.Correlation == "" {
		m.Correlation = r.ID
	}
	m.Causation = r.ID
	return m
}

// Decode returns the event, upcast to the newest version that the catalog of the
// journal or remote source it was read from knows. A type unknown there is
// [ErrUnknownType]; a placeholder is [ErrPlaceholder].
func (r Recorded) Decode() (Event, error) {
	if r.Placeholder() {
		return nil, fmt.Errorf("%s at %s:%d: %w", r.Type, r.At.Source, r.At.Position, ErrPlaceholder)
	}
	if r.types == nil {
		return nil, errors.New("freehold: event has no catalog: read it through a journal or a remote source")
	}
	e, err := r.types.Decode(r.Type, r.Raw)
	if err != nil {
		return nil, fmt.Errorf("%s at %s:%d: %w", r.Type, r.At.Source, r.At.Position, err)
	}
	return e, nil
}
