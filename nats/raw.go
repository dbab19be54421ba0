package nats

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/freehold-go/freehold/transport"
)

// rawServer is a server in this process whose connections deliver each message with
// its headers where they are on the wire: in front of its data, unparsed. The client
// would make a map of them, and of an event's nineteen headers that map cost more
// than everything else a consumer did with it. Only connections that ask nothing are
// made through it, as answers may be nothing but headers.
type rawServer struct{ nats.InProcessConnProvider }

// InProcessConn connects to the server.
func (s rawServer) InProcessConn() (net.Conn, error) {
	c, err := s.InProcessConnProvider.InProcessConn()
	if err != nil {
		return nil, err
	}
	return &rawConn{Conn: c, in: bufio.NewReaderSize(c, 64<<10)}, nil
}

// rawConn turns what the server sends as messages with headers (HMSG) into messages
// without (MSG), by their control lines alone. It has one reader.
type rawConn struct {
	net.Conn
	in      *bufio.Reader
	line    []byte // of a control line, what has not been read; in's own bytes
	payload int    // bytes of the message that follows it
}

// Read reads what there is, and waits only if there is nothing.
func (c *rawConn) Read(p []byte) (n int, err error) {
	for n < len(p) {
		switch {
		case len(c.line) > 0:
			k := copy(p[n:], c.line)
			c.line, n = c.line[k:], n+k
		case n > 0 && c.in.Buffered() == 0:
			return n, nil
		case c.payload > 0:
			k, err := c.in.Read(p[n:min(len(p), n+c.payload)])
			c.payload, n = c.payload-k, n+k
			if err != nil {
				return n, err
			}
		default:
			if n > 0 {
				if there, _ := c.in.Peek(c.in.Buffered()); bytes.IndexByte(there, '\n') < 0 { // never fails
					return n, nil
				}
			}
			line, err := c.in.ReadSlice('\n')
			if err != nil {
				return n, err
			}
			if c.line, c.payload, err = control(line); err != nil {
				return n, err
			}
		}
	}
	return n, nil
}

// control makes a control line one that tells of no headers, and says how many bytes
// follow it. It changes the line.
func control(line []byte) (_ []byte, follow int, err error) {
	headers := bytes.HasPrefix(line, []byte("HMSG "))
	if !headers && !bytes.HasPrefix(line, []byte("MSG ")) {
		return line, 0, nil
	}
	last := bytes.LastIndexByte(line, ' ')
	size, err := strconv.Atoi(string(bytes.TrimSpace(line[last+1:])))
	if err != nil || size < 0 {
		return nil, 0, fmt.Errorf("nats: the server says %q", line)
	}
	if headers { // HMSG subject sid [reply] bytes-of-headers bytes-in-all
		before := bytes.LastIndexByte(line[:last], ' ')
		end := before + copy(line[before:], line[last:])
		line = line[len("H"):end]
	}
	return line, size + len("\r\n"), nil
}

const version = "NATS/1.0"

// isStatus reports whether data is that of a message that only says something of the
// subscription.
func isStatus(data []byte) bool {
	return len(data) > len(version) && data[len(version)] == ' ' && string(data[:len(version)]) == version
}

// rawHeaders gives d the headers that stand in front of a message's data, and returns
// the data.
func rawHeaders(message []byte, d *transport.Decoder) (data []byte, err error) {
	end := bytes.Index(message, []byte("\r\n\r\n"))
	if end < 0 || string(message[:min(len(version), end)]) != version {
		return nil, errors.New("nats: a message without headers")
	}
	_, lines, _ := strings.Cut(string(message[:end]), "\r\n")
	for line := range strings.SplitSeq(lines, "\r\n") {
		name, value, _ := strings.Cut(line, ":")
		d.Header(name, strings.TrimSpace(value))
	}
	return message[end+len("\r\n\r\n"):], nil
}
