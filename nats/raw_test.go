package nats_test

import (
	"bytes"
	"fmt"
	"net"
	"testing"

	"pgregory.net/rapid"

	"github.com/freehold-go/freehold/nats"
)

type piped struct{ net.Conn }

func (p piped) InProcessConn() (net.Conn, error) { return p.Conn, nil }

// TestHeadersStayInFrontOfTheData: whatever a server says, in whatever pieces it
// comes and is read, only the control lines of messages with headers change, and no
// byte of a message does, not even if it looks like a control line.
func TestHeadersStayInFrontOfTheData(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var said, want bytes.Buffer
		for range rapid.IntRange(0, 20).Draw(t, "messages") {
			payload := rapid.OneOf(rapid.SliceOfN(rapid.Byte(), 0, 300),
				rapid.Just([]byte("x\r\nHMSG a 1 2 3\r\n")), rapid.Just([]byte("HMSG a 1 12 12\r\n"))).Draw(t, "payload")
			reply := rapid.SampledFrom([]string{"", " _INBOX.x", " $JS.ACK.s.c.1.2.3.4.5"}).Draw(t, "reply")
			switch rapid.IntRange(0, 4).Draw(t, "kind") {
			case 0:
				line := rapid.SampledFrom([]string{"PING\r\n", "PONG\r\n", "+OK\r\n", "-ERR 'no'\r\n", "INFO {\"headers\":true}\r\n"}).Draw(t, "line")
				said.WriteString(line)
				want.WriteString(line)
			case 1:
				text := fmt.Sprintf("MSG a.b 7%s %d\r\n%s\r\n", reply, len(payload), payload)
				said.WriteString(text)
				want.WriteString(text)
			default:
				headers := rapid.SampledFrom([]string{"NATS/1.0\r\nce-id:1\r\n\r\n", "NATS/1.0 100 Idle Heartbeat\r\n\r\n"}).Draw(t, "headers")
				size := len(headers) + len(payload)
				fmt.Fprintf(&said, "HMSG a.b 7%s %d %d\r\n%s%s\r\n", reply, len(headers), size, headers, payload)
				fmt.Fprintf(&want, "MSG a.b 7%s %d\r\n%s%s\r\n", reply, size, headers, payload)
			}
		}
		ours, theirs := net.Pipe()
		defer ours.Close()
		pieces := rapid.SliceOfN(rapid.IntRange(1, 200), 1, 10).Draw(t, "pieces")
		reads := rapid.SliceOfN(rapid.IntRange(1, 200), 1, 10).Draw(t, "reads")
		go func() {
			defer theirs.Close()
			rest := said.Bytes()
			for i := 0; len(rest) > 0; i++ {
				n, err := theirs.Write(rest[:min(len(rest), pieces[i%len(pieces)])])
				if err != nil {
					return // the reader has failed
				}
				rest = rest[n:]
			}
		}()
		conn, err := nats.Raw(piped{ours}).InProcessConn()
		if err != nil {
			t.Fatal(err)
		}
		var got bytes.Buffer
		for i := 0; ; i++ {
			p := make([]byte, reads[i%len(reads)])
			n, err := conn.Read(p)
			got.Write(p[:n])
			if err != nil {
				break // the end
			}
			if n == 0 {
				t.Fatal("read nothing")
			}
		}
		if !bytes.Equal(got.Bytes(), want.Bytes()) {
			t.Errorf("read %q, want %q", got.Bytes(), want.Bytes())
		}
	})
}
