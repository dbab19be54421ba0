package transport

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/freehold-go/freehold"
)

// AppendJSON appends an event as one line of structured-mode JSON, without a
// line end. Extension attributes are strings; the payload is in "data" exactly as
// stored, or in "data_base64" if it is not one line of JSON without blanks around it.
func AppendJSON(b []byte, r *freehold.Recorded) []byte {
	var space [1024]byte
	var spans [24]span
	values, all := appendAttributes(space[:0], spans[:0], r)
	b = append(b, '{')
	for i, s := range all {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(append(append(b, '"'), s.name[len(headerPrefix):]...), `":`...)
		b = appendString(b, values[s.start:s.end])
	}
	switch {
	case r.Internal:
	case oneLine(r.Raw):
		b = append(b, `,"datacontenttype":"application/json","data":`...)
		b = append(b, r.Raw...)
	default:
		b = append(b, `,"data_base64":"`...)
		b = base64.StdEncoding.AppendEncode(b, r.Raw)
		b = append(b, '"')
	}
	return append(b, '}')
}

// oneLine reports whether a payload may stand in a line as it is: JSON without blanks around
// it, which readers take for blanks between fields.
func oneLine(b []byte) bool {
	return len(b) > 0 && b[0] > ' ' && b[len(b)-1] > ' ' && bytes.IndexByte(b, '\n') < 0 && json.Valid(b)
}

func appendString(b, s []byte) []byte {
	for _, c := range s {
		if c < ' ' || c == '"' || c == '\\' || c >= 0x7f || c == '<' || c == '>' || c == '&' {
			quoted, err := json.Marshal(string(s))
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
// the same event. It keeps nothing of line.
func ParseJSON(line []byte) (freehold.Recorded, error) {
	var d Decoder
	if data, ok := split(string(line), &d); ok {
		return d.Event(data)
	}
	d = Decoder{}
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
	for name, raw := range fields {
		if name == "data" || name == "data_base64" {
			continue
		}
		var s string
		if json.Unmarshal(raw, &s) != nil {
			s = string(raw) // a number or a boolean
		}
		d.Set(name, s)
	}
	return d.Event(payload)
}

// split gives d the attributes of a line that has the form AppendJSON gives it:
// strings without escapes, and the data, which it returns, last. It reports
// false for any other line, which may well be valid.
func split(line string, d *Decoder) (data []byte, ok bool) {
	line = strings.TrimSuffix(line, "\n")
	if len(line) < 2 || line[0] != '{' || line[len(line)-1] != '}' {
		return nil, false
	}
	rest := line[1 : len(line)-1]
	for {
		name, after, ok := quoted(rest)
		if !ok || len(after) == 0 || after[0] != ':' {
			return nil, false
		}
		rest = after[1:]
		if name == "data" {
			data = []byte(rest)
			return data, whole(data)
		}
		value, after, ok := quoted(rest)
		if !ok || name == "data_base64" {
			return nil, false
		}
		d.Set(name, value)
		if len(after) == 0 {
			return nil, true
		}
		if after[0] != ',' {
			return nil, false
		}
		rest = after[1:]
	}
}

// quoted returns the text of a string without escapes, and what follows it.
func quoted(s string) (text, after string, ok bool) {
	if len(s) == 0 || s[0] != '"' {
		return "", "", false
	}
	end := strings.IndexByte(s[1:], '"')
	if end < 0 {
		return "", "", false
	}
	text = s[1 : 1+end]
	return text, s[end+2:], strings.IndexByte(text, '\\') < 0
}

// whole reports whether b is one object or array and nothing behind it, so that no
// attribute follows the data. Anything else is left to encoding/json. That the
// bytes are the right ones is what the digest is for.
func whole(b []byte) bool {
	if len(b) == 0 || b[0] != '{' && b[0] != '[' {
		return false
	}
	depth := 0
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth == 0 {
				return i == len(b)-1
			}
		case '"':
			for i++; i < len(b) && b[i] != '"'; i++ {
				if b[i] == '\\' {
					i++
				}
			}
		}
	}
	return false
}
