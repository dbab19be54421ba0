package nats_test

import (
	"context"
	"path/filepath"
	"testing"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/nats"
)

// lagging is a stream whose direct questions are answered by a replica that has nothing yet.
type lagging struct {
	jetstream.Stream
	direct int
}

func (l *lagging) GetMsg(ctx context.Context, seq uint64, opts ...jetstream.GetMsgOpt) (*jetstream.RawStreamMsg, error) {
	if l.CachedInfo().Config.AllowDirect {
		l.direct++
		return nil, jetstream.ErrMsgNotFound
	}
	return l.Stream.GetMsg(ctx, seq, opts...)
}

// TestAReplicaThatIsBehindDoesNotMakeTheBrokerEmpty: the relay would publish again what the
// broker has, and the guard of forks would be told that nobody has seen anything.
func TestAReplicaThatIsBehindDoesNotMakeTheBrokerEmpty(t *testing.T) {
	t.Parallel()
	srv, bus := start(t, filepath.Join(t.TempDir(), "js"))
	conn, err := natsgo.Connect("", natsgo.InProcessServer(srv))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	db := open(t, "order")
	if _, err := db.Append(t.Context(), freehold.Write{Stream: "order-1", Events: []freehold.Event{Placed{1}, Placed{2}}}); err != nil {
		t.Fatal(err)
	}
	events, err := db.Journal().Read(t.Context(), freehold.Mark{Source: "order"}, 10)
	if err != nil {
		t.Fatal(err)
	}
	p := bus.Publisher("order")
	none, err := p.Last(t.Context(), "order")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Publish(t.Context(), none.Mark, events); err != nil {
		t.Fatal(err)
	}
	for range 2 { // the second time somebody has taken the message away: that is definite
		stream, err := js.Stream(t.Context(), "order")
		if err != nil {
			t.Fatal(err)
		}
		state := stream.CachedInfo().State
		_, err = stream.GetMsg(t.Context(), state.LastSeq)
		there := err == nil
		behind := &lagging{Stream: stream}
		r, ok, err := nats.LastOf(t.Context(), behind, "order")
		if err != nil || ok != there || ok && r.At != events[1].At || behind.direct == 0 {
			t.Errorf("message %d of %d, there %v: event at %d, held %v, %v, asked directly %d times", state.LastSeq, state.Msgs, there, r.At.Position, ok, err, behind.direct)
		}
		if err := stream.DeleteMsg(t.Context(), state.LastSeq); err != nil && there {
			t.Fatal(err)
		}
	}
}
