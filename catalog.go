package freehold

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Catalog knows the event types of one or more services: how each is decoded,
// which are internal, and how older versions become newer ones. It is immutable
// and safe for concurrent use.
type Catalog struct {
	defs    map[string]Def // by name, the newest version
	upcasts map[Type]func(json.RawMessage) (json.RawMessage, error)
}

// Def defines one event type or one upcast; see [JSON], [Internal] and [Upcast].
type Def struct {
	typ      Type
	internal bool
	encode   func(Event) ([]byte, error)
	decode   func([]byte) (Event, error)
	upcast   func(json.RawMessage) (json.RawMessage, error)
}

// JSON defines a public event that is stored as the JSON of its struct.
// Unknown fields are ignored when it is read.
func JSON[E Event]() Def {
	var zero E
	return Def{
		typ: zero.EventType(),
		encode: func(e Event) ([]byte, error) {
			if _, err := typed[E](e); err != nil {
				return nil, err
			}
			return json.Marshal(e)
		},
		decode: func(raw []byte) (Event, error) {
			var e E
			if err := json.Unmarshal(raw, &e); err != nil {
				return nil, err
			}
			return e, nil
		},
	}
}

// typed refuses what is decoded as something else than it was, such as a pointer to an
// event: an aggregate's state in memory would not evolve as the one that is read.
func typed[E Event](e Event) (E, error) {
	one, ok := e.(E)
	if !ok {
		return one, fmt.Errorf("%T, want %T: use one struct for one type", e, one)
	}
	return one, nil
}

// Internal defines an event that never leaves its service: other services see an
// empty placeholder in its position.
func Internal[E Event]() Def {
	d := JSON[E]()
	d.internal = true
	return d
}

// Codec writes and reads the events of one type; see [Coded].
type Codec[E Event] struct {
	Encode   func(E) ([]byte, error) // must give JSON
	Decode   func([]byte) (E, error) // must not keep or change its argument
	Internal bool                    // as with [Internal]
}

// Coded defines an event whose JSON is written and read by code of the caller's own,
// where that is faster than encoding/json.
func Coded[E Event](c Codec[E]) Def {
	var zero E
	return Def{
		typ: zero.EventType(), internal: c.Internal,
		encode: func(e Event) ([]byte, error) {
			one, err := typed[E](e)
			if err != nil {
				return nil, err
			}
			return c.Encode(one)
		},
		decode: func(raw []byte) (Event, error) { return c.Decode(raw) },
	}
}

// Upcast defines how the payload of version from becomes that of the version
// after it. It works on stored bytes when an event is read; nothing is rewritten.
func Upcast(from Type, up func(json.RawMessage) (json.RawMessage, error)) Def {
	return Def{typ: from, upcast: up}
}

// MaxTypeLen is the longest name of an event type, in bytes.
const MaxTypeLen = 255

// placeholder is the name under which internal events travel.
const placeholder = "freehold.placeholder"

// Validate reports whether a catalog takes the type: a version from 1, and a name that
// every broker and every database carries as it is, since a relay stops for good at an
// event that it cannot publish. It has 1 to [MaxTypeLen] bytes of UTF-8 without blanks,
// control characters, "*" and ">", is none that Freehold uses itself, and has no empty
// part between, before or behind dots.
func (t Type) Validate() error {
	bad := func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) || r == '*' || r == '>' }
	switch {
	case t.Name == "" || t.Version < 1:
		return fmt.Errorf("freehold: event type %q version %d: want a name and a version from 1", t.Name, t.Version)
	case len(t.Name) > MaxTypeLen:
		return fmt.Errorf("freehold: event type %.40q: a name of %d bytes, want at most %d", t.Name, len(t.Name), MaxTypeLen)
	case !utf8.ValidString(t.Name) || strings.ContainsFunc(t.Name, bad):
		return fmt.Errorf("freehold: event type %q: want a name of UTF-8 without blanks, control characters, * and >", t.Name)
	case slices.Contains(strings.Split(t.Name, "."), ""):
		return fmt.Errorf("freehold: event type %q: want something between, before and behind dots", t.Name)
	case t.Name == placeholder:
		return fmt.Errorf("freehold: event type %q: under this name internal events travel: take another one", t.Name)
	}
	return nil
}

// NewCatalog builds a catalog. It refuses a type that is not valid, a name defined
// twice, and an upcast that does not lead to a defined version.
func NewCatalog(defs ...Def) (*Catalog, error) {
	c := &Catalog{defs: map[string]Def{}, upcasts: map[Type]func(json.RawMessage) (json.RawMessage, error){}}
	for _, d := range defs {
		if err := d.typ.Validate(); err != nil {
			return nil, err
		}
		switch {
		case d.upcast != nil:
			if c.upcasts[d.typ] != nil {
				return nil, fmt.Errorf("freehold: upcast from %s defined twice", d.typ)
			}
			c.upcasts[d.typ] = d.upcast
		default:
			if old, ok := c.defs[d.typ.Name]; ok {
				return nil, fmt.Errorf("freehold: event type %s defined twice (also as %s): define the newest version and upcast to it", d.typ, old.typ)
			}
			c.defs[d.typ.Name] = d
		}
	}
	for from := range c.upcasts {
		newest, ok := c.defs[from.Name]
		if !ok || newest.typ.Version <= from.Version {
			return nil, fmt.Errorf("freehold: upcast from %s leads to no defined version", from)
		}
		for v := from.Version; v < newest.typ.Version; v++ {
			if c.upcasts[T(from.Name, v)] == nil {
				return nil, fmt.Errorf("freehold: no upcast from %s", T(from.Name, v))
			}
		}
	}
	return c, nil
}

// Merge returns a catalog that knows the types of both. The same type in both is
// refused unless it has the same version.
func (c *Catalog) Merge(other *Catalog) (*Catalog, error) {
	m := &Catalog{defs: maps.Clone(c.defs), upcasts: maps.Clone(c.upcasts)}
	for name, d := range other.defs {
		if old, ok := m.defs[name]; ok && old.typ != d.typ {
			return nil, fmt.Errorf("freehold: event type %s and %s in one catalog", old.typ, d.typ)
		}
		m.defs[name] = d
	}
	maps.Copy(m.upcasts, other.upcasts)
	return m, nil
}

// Types lists the newest version of every type, sorted by name.
func (c *Catalog) Types() []Type {
	types := make([]Type, 0, len(c.defs))
	for _, name := range slices.Sorted(maps.Keys(c.defs)) {
		types = append(types, c.defs[name].typ)
	}
	return types
}

// Knows reports whether t is the newest version of a type defined here.
func (c *Catalog) Knows(t Type) bool {
	d, ok := c.defs[t.Name]
	return ok && d.typ == t
}

// Internal reports whether events named name stay inside the service.
func (c *Catalog) Internal(name string) bool { return c.defs[name].internal }

// Encode returns the payload under which e is stored. An event whose type or
// version the catalog does not define is [ErrUnknownType].
func (c *Catalog) Encode(e Event) (raw []byte, internal bool, err error) {
	if e == nil {
		return nil, false, errors.New("freehold: an event that is nil")
	}
	t := e.EventType()
	d, ok := c.defs[t.Name]
	if !ok || d.typ != t {
		return nil, false, fmt.Errorf("%s: %w: add it to the catalog given to Open", t, ErrUnknownType)
	}
	raw, err = d.encode(e)
	if err == nil && len(raw) == 0 {
		err = errors.New("its codec gives nothing, want JSON") // and an internal event without payload is a placeholder
	}
	if err != nil {
		return nil, false, fmt.Errorf("encode %s: %w", t, err)
	}
	return raw, d.internal, nil
}

// Decode returns the event of a stored payload, upcast to the newest version.
func (c *Catalog) Decode(t Type, raw []byte) (Event, error) {
	d, ok := c.defs[t.Name]
	if !ok {
		return nil, ErrUnknownType
	}
	if t.Version > d.typ.Version {
		return nil, fmt.Errorf("%w: newest known is %s: update this service first", ErrUnknownType, d.typ)
	}
	for ; t.Version < d.typ.Version; t.Version++ {
		up := c.upcasts[t]
		if up == nil {
			return nil, fmt.Errorf("%w: no upcast from %s", ErrUnknownType, t)
		}
		var err error
		if raw, err = up(raw); err != nil {
			return nil, fmt.Errorf("upcast from %s: %w", t, err)
		}
	}
	e, err := d.decode(raw)
	if err != nil {
		return nil, fmt.Errorf("decode: %w", err)
	}
	return e, nil
}

// Bind makes the events decode with c. Journals and remote sources call it on
// what they read.
func (c *Catalog) Bind(rs []Recorded) {
	for i := range rs {
		rs[i].types = c
	}
}
