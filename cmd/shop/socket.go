package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// socket is one client's own connection to a service. It speaks plain HTTP/1.1, one
// request at a time, without the goroutines and copies with which net/http's client
// shares connections: on a machine that also runs the shop, whoever measures it
// should not take its time. One goroutine uses it.
type socket struct {
	host, path string
	head       string // of each request, up to the length of its body
	conn       net.Conn
	in         *bufio.Reader
	out        []byte
	release    func() bool // of conn from the context it was made with
}

// requestTimeout is how long an answer may take.
const requestTimeout = time.Minute

// newSocket returns a connection that posts JSON to an address. It reports false if
// that takes more than plain HTTP.
func newSocket(address, token string) (*socket, bool) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "http" || u.Port() == "" {
		return nil, false
	}
	s := &socket{host: u.Host, path: u.RequestURI()}
	s.head = "POST " + s.path + " HTTP/1.1\r\nHost: " + u.Host + "\r\nContent-Type: application/json\r\n"
	if token != "" {
		s.head += "Authorization: Bearer " + token + "\r\n"
	}
	s.head += "Content-Length: "
	return s, true
}

// post sends a body and returns the answer's, or a *statusError. After an error the
// next call connects anew.
func (s *socket) post(ctx context.Context, body []byte) (answer []byte, err error) {
	if s.conn == nil {
		var d net.Dialer
		if s.conn, err = d.DialContext(ctx, "tcp", s.host); err != nil {
			return nil, err
		}
		s.in = bufio.NewReader(s.conn)
		conn := s.conn
		s.release = context.AfterFunc(ctx, func() { _ = conn.Close() }) // ends the request under way
	}
	status, answer, err := s.exchange(body)
	if err != nil {
		s.close()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, fmt.Errorf("POST %s: %w", s.path, err)
	}
	if status/100 != 2 {
		return nil, &statusError{status: status, text: fmt.Sprintf("POST %s: %d: %.500s", s.path, status, answer)}
	}
	return answer, nil
}

func (s *socket) exchange(body []byte) (status int, answer []byte, err error) {
	if err := s.conn.SetDeadline(time.Now().Add(requestTimeout)); err != nil {
		return 0, nil, err
	}
	s.out = append(strconv.AppendInt(append(s.out[:0], s.head...), int64(len(body)), 10), "\r\n\r\n"...)
	s.out = append(s.out, body...)
	if _, err := s.conn.Write(s.out); err != nil {
		return 0, nil, err
	}
	resp, err := http.ReadResponse(s.in, nil)
	if err != nil {
		return 0, nil, err
	}
	answer, err = io.ReadAll(resp.Body)
	_ = resp.Body.Close() // has been read
	if resp.Close {
		s.close()
	}
	return resp.StatusCode, answer, err
}

// close ends the connection, if there is one.
func (s *socket) close() {
	if s.conn != nil {
		s.release()
		_ = s.conn.Close() // everything that was asked has been answered, or failed
		s.conn = nil
	}
}
