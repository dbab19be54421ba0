package event

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/freehold-go/freehold"
)

// codec writes the JSON that encoding/json writes, and reads it back, several times
// as fast: orders of many lines are read by everybody. Each type lists its fields
// once, in their order, for both directions. JSON in any other form (spaces,
// another order of fields, escapes) is left to encoding/json.
type codec struct {
	writing bool
	empty   bool // nothing stands before in this object
	odd     bool // this is not the usual form

	out []byte

	in string
	at int
}

// coded is a type that lists its fields.
type coded[E any] interface {
	*E
	fields(c *codec)
}

// public and internal define event types that list their fields.
func public[E freehold.Event, P coded[E]]() freehold.Def { return freehold.Coded(codecOf[E, P](false)) }
func internal[E freehold.Event, P coded[E]]() freehold.Def {
	return freehold.Coded(codecOf[E, P](true))
}

func codecOf[E freehold.Event, P coded[E]](internal bool) freehold.Codec[E] {
	return freehold.Codec[E]{Encode: encode[E, P], Decode: decode[E, P], Internal: internal}
}

func encode[E any, P coded[E]](e E) ([]byte, error) {
	buffer := buffers.Get().(*[]byte)
	c := codec{writing: true, out: (*buffer)[:0]}
	c.begin()
	P(&e).fields(&c)
	c.end()
	raw := bytes.Clone(c.out)
	*buffer = c.out
	buffers.Put(buffer)
	if c.odd {
		return json.Marshal(e)
	}
	return raw, nil
}

// buffers are what events are written into before their size is known.
var buffers = sync.Pool{New: func() any { return new([]byte) }}

func decode[E any, P coded[E]](raw []byte) (E, error) {
	var e E
	c := codec{in: string(raw)} // texts of the event are parts of it
	c.begin()
	P(&e).fields(&c)
	c.end()
	if !c.odd && c.at == len(c.in) {
		return e, nil
	}
	var slow E
	err := json.Unmarshal(raw, &slow)
	return slow, err
}

// begin and end stand around the fields of an object.
func (c *codec) begin() {
	c.token('{')
	c.empty = true
}

func (c *codec) end() {
	c.token('}')
	c.empty = false
}

// token writes or expects one byte.
func (c *codec) token(b byte) {
	switch {
	case c.writing:
		c.out = append(c.out, b)
	case c.at < len(c.in) && c.in[c.at] == b:
		c.at++
	default:
		c.odd = true
	}
}

// key writes a field's name, or reports whether it stands here. The name is given
// with its quotes and colon.
func (c *codec) key(name string) bool {
	if c.writing {
		if !c.empty {
			c.out = append(c.out, ',')
		}
		c.empty = false
		c.out = append(c.out, name...)
		return true
	}
	at := c.at
	if !c.empty {
		if at >= len(c.in) || c.in[at] != ',' {
			return false
		}
		at++
	}
	if !strings.HasPrefix(c.in[at:], name) {
		return false
	}
	c.at, c.empty = at+len(name), false
	return true
}

func (c *codec) text(name string, v *string) {
	if !c.key(name) {
		return
	}
	if c.writing {
		c.quote(*v)
		return
	}
	*v = c.unquote()
}

// maybeText is a text that is left out if it is empty.
func (c *codec) maybeText(name string, v *string) {
	if !c.writing || *v != "" {
		c.text(name, v)
	}
}

// quote writes a text. What encoding/json escapes it writes itself.
func (c *codec) quote(s string) {
	for i := range len(s) {
		if !plain[s[i]] {
			raw, err := json.Marshal(s)
			c.odd = c.odd || err != nil
			c.out = append(c.out, raw...)
			return
		}
	}
	c.out = append(append(append(c.out, '"'), s...), '"')
}

// plain is the bytes that encoding/json writes as they are.
var plain = func() (p [256]bool) {
	for b := ' '; b < utf8.RuneSelf; b++ {
		p[b] = !strings.ContainsRune(`"\<>&`, b)
	}
	return p
}()

func (c *codec) unquote() string {
	rest := c.in[c.at:]
	if len(rest) == 0 || rest[0] != '"' {
		c.odd = true
		return ""
	}
	end := strings.IndexByte(rest[1:], '"') + 1
	if end == 0 || strings.IndexByte(rest[1:end], '\\') >= 0 || !utf8.ValidString(rest[1:end]) {
		c.odd = true
		return ""
	}
	c.at += end + 1
	return rest[1:end]
}

func (c *codec) money(name string, v *Money) {
	if !c.key(name) {
		return
	}
	if c.writing {
		c.out = append((*v).append(append(c.out, '"')), '"')
		return
	}
	m, err := ParseMoney(c.unquote())
	c.odd = c.odd || err != nil
	*v = m
}

func (c *codec) int64(name string, v *int64) {
	if !c.key(name) {
		return
	}
	if c.writing {
		c.out = strconv.AppendInt(c.out, *v, 10)
		return
	}
	*v = c.readInt()
}

func (c *codec) maybeInt64(name string, v *int64) {
	if !c.writing || *v != 0 {
		c.int64(name, v)
	}
}

func (c *codec) int(name string, v *int) {
	n := int64(*v)
	c.int64(name, &n)
	*v = int(n)
}

func (c *codec) maybeInt(name string, v *int) {
	if !c.writing || *v != 0 {
		c.int(name, v)
	}
}

// readInt reads a whole number of at most 18 digits.
func (c *codec) readInt() int64 {
	begin := c.at
	if begin < len(c.in) && c.in[begin] == '-' {
		begin++
	}
	end := begin
	var n int64
	for ; end < len(c.in) && c.in[end] >= '0' && c.in[end] <= '9'; end++ {
		if end-begin >= 18 {
			c.odd = true
			return 0
		}
		n = 10*n + int64(c.in[end]-'0')
	}
	if end == begin || c.in[begin] == '0' && end > begin+1 {
		c.odd = true
	}
	if begin > c.at {
		n = -n
	}
	c.at = end
	return n
}

// maybeTrue is a bool that is left out if it is false.
func (c *codec) maybeTrue(name string, v *bool) {
	if c.writing && !*v || !c.key(name) {
		return
	}
	if c.writing {
		c.out = append(c.out, "true"...)
		return
	}
	if *v = strings.HasPrefix(c.in[c.at:], "true"); *v {
		c.at += len("true")
	} else {
		c.odd = true
	}
}

func (c *codec) time(name string, v *time.Time) {
	if c.key(name) {
		c.timeValue(v)
	}
}

func (c *codec) timeValue(v *time.Time) {
	if c.writing {
		out, err := v.AppendText(append(c.out, '"'))
		c.odd = c.odd || err != nil
		c.out = append(out, '"')
		return
	}
	err := v.UnmarshalText([]byte(c.unquote()))
	c.odd = c.odd || err != nil
}

func (c *codec) maybeTime(name string, v **time.Time) {
	if c.writing && *v == nil || !c.key(name) {
		return
	}
	if !c.writing {
		*v = new(time.Time)
	}
	c.timeValue(*v)
}

// list writes or reads an array. size says how many elements there may be.
func list[V any](c *codec, name string, v *[]V, size func() int, element func(*V)) {
	if !c.key(name) {
		return
	}
	if c.writing && *v == nil {
		c.out = append(c.out, "null"...)
		return
	}
	if !c.writing && strings.HasPrefix(c.in[c.at:], "null") {
		c.at += len("null")
		return
	}
	c.token('[')
	if c.writing {
		for i := range *v {
			if i > 0 {
				c.out = append(c.out, ',')
			}
			element(&(*v)[i])
		}
	} else {
		*v = make([]V, 0, size())
		for !c.odd && c.at < len(c.in) && c.in[c.at] != ']' {
			if len(*v) > 0 {
				c.token(',')
			}
			*v = append(*v, *new(V))
			element(&(*v)[len(*v)-1])
		}
	}
	c.token(']')
}

func (c *codec) lines(name string, v *[]Line) {
	list(c, name, v, func() int { return strings.Count(c.in[c.at:], `{"sku":`) }, func(l *Line) {
		c.begin()
		l.fields(c)
		c.end()
	})
}

func (c *codec) maybeLines(name string, v *[]Line) {
	if !c.writing || len(*v) > 0 {
		c.lines(name, v)
	}
}

func (c *codec) maybeInts(name string, v *[]int) {
	if c.writing && len(*v) == 0 {
		return
	}
	list(c, name, v, func() int { return 4 }, func(n *int) {
		if c.writing {
			c.out = strconv.AppendInt(c.out, int64(*n), 10)
		} else {
			*n = int(c.readInt())
		}
	})
}
