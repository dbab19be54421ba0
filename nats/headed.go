package nats

import (
	"bytes"
	"fmt"
	"net"
	"strconv"

	"github.com/nats-io/nats.go"
)

// headedServer is a server in this process whose connections publish messages that
// have their headers in front of their data already, as rawServer's connections
// deliver them: the client would make a map of them first, and text of the map. The
// subject says how long they are, behind headed.
type headedServer struct{ nats.InProcessConnProvider }

// headed stands in the subject of a message with headers in front of its data, before
// their length. No source or type of an event has it in its name.
const headed = '\x01'

// InProcessConn connects to the server.
func (s headedServer) InProcessConn() (net.Conn, error) {
	c, err := s.InProcessConnProvider.InProcessConn()
	if err != nil {
		return nil, err
	}
	return &headedConn{Conn: c}, nil
}

// headedConn turns what the client publishes with such a subject (PUB) into messages
// with headers (HPUB), by their control lines alone. It has one writer.
type headedConn struct {
	net.Conn
	line   []byte // the beginning of a control line
	follow int    // bytes of the message behind the last one
	out    []byte
}

// Write writes all of p, except a control line that has not ended.
func (c *headedConn) Write(p []byte) (int, error) {
	n := len(p)
	c.out = c.out[:0]
	for len(p) > 0 {
		if k := min(c.follow, len(p)); k > 0 {
			c.out, p, c.follow = append(c.out, p[:k]...), p[k:], c.follow-k
			continue
		}
		end := bytes.IndexByte(p, '\n') + 1
		if end == 0 {
			c.line = append(c.line, p...)
			break
		}
		line := p[:end]
		if len(c.line) > 0 {
			c.line = append(c.line, line...)
			line = c.line
		}
		p = p[end:]
		var err error
		if c.out, c.follow, err = publication(c.out, line); err != nil {
			return 0, err
		}
		c.line = c.line[:0]
	}
	if len(c.out) == 0 {
		return n, nil
	}
	if _, err := c.Conn.Write(c.out); err != nil {
		return 0, err
	}
	return n, nil
}

// publication appends a control line, and says how many bytes follow it.
func publication(out, line []byte) (_ []byte, follow int, err error) {
	headers := bytes.HasPrefix(line, []byte("HPUB "))
	if !headers && !bytes.HasPrefix(line, []byte("PUB ")) {
		return append(out, line...), 0, nil
	}
	last := bytes.LastIndexByte(line, ' ')
	size, err := strconv.Atoi(string(bytes.TrimSpace(line[last+1:])))
	if err != nil || size < 0 {
		return nil, 0, fmt.Errorf("nats: the client says %q", line)
	}
	size += len("\r\n")
	mark := bytes.LastIndexByte(line, headed)
	if headers || mark < 0 {
		return append(out, line...), size, nil
	}
	// PUB subject headed length [reply] bytes-in-all
	length := mark + 1 + bytes.IndexByte(line[mark+1:], ' ')
	out = append(append(out, 'H'), line[:mark]...)
	out = append(out, line[length:last]...)
	out = append(append(out, ' '), line[mark+1:length]...)
	return append(out, line[last:]...), size, nil
}
