package transport

import "strings"

// headerValue is an attribute's value as a header of a binary-mode message has it:
// spaces, double quotes, percent signs, and everything that is not printable ASCII
// as "%" and two hexadecimal digits.
func headerValue(s string) string {
	for i := range len(s) {
		if !plain(s[i]) {
			return escape(s, i)
		}
	}
	return s
}

func plain(c byte) bool { return c > ' ' && c < 0x7f && c != '"' && c != '%' }

func escape(s string, from int) string {
	const hexadecimal = "0123456789ABCDEF"
	var b strings.Builder
	b.WriteString(s[:from])
	for i := from; i < len(s); i++ {
		if c := s[i]; plain(c) {
			b.WriteByte(c)
		} else {
			b.WriteByte('%')
			b.WriteByte(hexadecimal[c>>4])
			b.WriteByte(hexadecimal[c&0x0f])
		}
	}
	return b.String()
}

// fromHeaderValue is the reverse of headerValue. What is no escape stays as it is.
func fromHeaderValue(s string) string {
	at := strings.IndexByte(s, '%')
	if at < 0 {
		return s
	}
	b := append(make([]byte, 0, len(s)), s[:at]...)
	for i := at; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) && nibbles[s[i+1]]|nibbles[s[i+2]] <= 0x0f {
			b = append(b, nibbles[s[i+1]]<<4|nibbles[s[i+2]])
			i += 2
			continue
		}
		b = append(b, s[i])
	}
	return string(b)
}
