package nats_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"testing"

	"pgregory.net/rapid"

	"github.com/freehold-go/freehold/nats"
)

// TestHeadersInFrontOfTheDataBecomeHeaders: whatever a client says, in whatever
// pieces, only the control lines of messages whose subject tells of headers change,
// and no byte of a message does, not even if it looks like a control line.
func TestHeadersInFrontOfTheDataBecomeHeaders(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var said, want bytes.Buffer
		for range rapid.IntRange(0, 20).Draw(t, "messages") {
			payload := rapid.OneOf(rapid.SliceOfN(rapid.Byte(), 0, 300),
				rapid.Just([]byte("x\r\nPUB a\x0112 12\r\n")), rapid.Just([]byte("PUB a\x013 12\r\n"))).Draw(t, "payload")
			reply := rapid.SampledFrom([]string{"", "_INBOX.x ", "_INBOX.9.12 "}).Draw(t, "reply")
			const headers = "NATS/1.0\r\nce-id: 1\r\n\r\n"
			switch rapid.IntRange(0, 5).Draw(t, "kind") {
			case 0:
				line := rapid.SampledFrom([]string{"PING\r\n", "SUB a.* 7\r\n", "UNSUB 7\r\n", "CONNECT {\"headers\":true}\r\n"}).Draw(t, "line")
				said.WriteString(line)
				want.WriteString(line)
			case 1:
				text := fmt.Sprintf("PUB a.b %s%d\r\n%s\r\n", reply, len(payload), payload)
				said.WriteString(text)
				want.WriteString(text)
			case 2:
				text := fmt.Sprintf("HPUB a.b %s%d %d\r\n%s%s\r\n", reply, len(headers), len(headers)+len(payload), headers, payload)
				said.WriteString(text)
				want.WriteString(text)
			default:
				size := len(headers) + len(payload)
				fmt.Fprintf(&said, "PUB a.b\x01%d %s%d\r\n%s%s\r\n", len(headers), reply, size, headers, payload)
				fmt.Fprintf(&want, "HPUB a.b %s%d %d\r\n%s%s\r\n", reply, len(headers), size, headers, payload)
			}
		}
		ours, theirs := net.Pipe()
		got := make(chan []byte)
		go func() {
			all, _ := io.ReadAll(theirs) // up to the end, which is an error or not
			got <- all
		}()
		conn, err := nats.Headed(piped{ours}).InProcessConn()
		if err != nil {
			t.Fatal(err)
		}
		pieces := rapid.SliceOfN(rapid.IntRange(1, 200), 1, 10).Draw(t, "pieces")
		rest := said.Bytes()
		for i := 0; len(rest) > 0; i++ {
			n := min(len(rest), pieces[i%len(pieces)])
			if written, err := conn.Write(rest[:n]); err != nil || written != n {
				t.Fatalf("wrote %d of %d: %v", written, n, err)
			}
			rest = rest[n:]
		}
		conn.Close()
		if got := <-got; !bytes.Equal(got, want.Bytes()) {
			t.Errorf("the server gets %q, want %q", got, want.Bytes())
		}
	})
}
