package orderd

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/shop/order"
	"github.com/freehold-go/freehold/shop/orderdb"
	"github.com/freehold-go/freehold/shop/web"
)

// command reads and checks a body. key is the one from the header; where is the
// body's place in the request.
type command func(raw []byte, key, where string, now time.Time) (orderdb.Command, done, error)

// place is the command that places an order.
func place(s schema) command {
	return func(raw []byte, key, where string, now time.Time) (orderdb.Command, done, error) {
		var in orderIn
		err := decode(s, raw, where, &in)
		if err == nil {
			in.Key, err = web.Key(key, in.Key)
		}
		if err != nil {
			return orderdb.Command{}, done{}, err
		}
		e, err := in.placement(where, now)
		return orderdb.Placing(e), done{ID: e.Order, Status: order.Placed}, err
	}
}

// takeBack is the command that records a return whose order is not known.
func takeBack(s schema) command {
	return func(raw []byte, key, where string, now time.Time) (orderdb.Command, done, error) {
		var in returnIn
		err := decode(s, raw, where, &in)
		if err == nil {
			in.Key, err = web.Key(key, in.Key)
		}
		if err != nil {
			return orderdb.Command{}, done{}, err
		}
		e, err := in.comeback(where, now)
		return orderdb.TakingBack(e), done{ID: e.Return, Status: order.Returned}, err
	}
}

// now is the time of a command.
func now() time.Time { return time.Now().UTC().Truncate(time.Microsecond) }

// one does a single command.
func (s *Server) one(ctx context.Context, in *CommandIn, read command) (*commandOut, error) {
	c, answer, err := read(in.RawBody, in.Key, "body", now())
	if err != nil {
		return nil, problem(err)
	}
	outcomes, tok, err := orderdb.Begin(ctx, s.db, []orderdb.Command{c})
	if err = errors.Join(err, outcomes[0].Err); err != nil {
		return nil, problem(err)
	}
	out := &commandOut{Status: http.StatusCreated, Token: tok.String(), Body: answer}
	if answer.Status == order.Placed {
		out.Location = "/orders/" + answer.ID
	}
	if !outcomes[0].Repeated {
		return out, nil
	}
	out.Status, out.Body.Repeated = http.StatusOK, true
	if answer.Status == order.Placed { // say how far it has come
		o, _, err := s.orders.Load(ctx, answer.ID)
		if err != nil {
			return nil, problem(err)
		}
		out.Body.Status = o.Status
	}
	return out, nil
}

// A batch holds at most maxBatch commands. It is done in transactions of at most
// so many bytes of commands, so that no other command waits for long.
const (
	maxBatch    = 1000
	maxTogether = 128 << 10
)

// many does the commands of a batch in their order. A command that is refused
// does not keep the others from being done.
func (s *Server) many(ctx context.Context, in *batchIn, read command) (*batchOut, error) {
	bodies, err := split(in.RawBody)
	if err != nil {
		return nil, problem(err)
	}
	out := &batchOut{Status: http.StatusCreated, Body: make([]done, len(bodies))}
	var tok freehold.Token
	var commands []orderdb.Command
	var places []int // of the commands in the batch
	size := 0
	flush := func() error {
		if len(commands) == 0 {
			return nil
		}
		outcomes, did, err := orderdb.Begin(ctx, s.db, commands)
		if err != nil {
			return err
		}
		tok = tok.Merge(did)
		for k, o := range outcomes {
			answer := &out.Body[places[k]]
			if answer.Repeated = o.Repeated; o.Err != nil {
				out.refuse(places[k], o.Err)
			}
		}
		commands, places, size = nil, nil, 0
		return nil
	}
	at := now()
	for i, raw := range bodies {
		c, answer, err := read(raw, "", fmt.Sprintf("body[%d]", i), at)
		if err != nil {
			out.refuse(i, err)
			continue
		}
		out.Body[i] = answer
		commands, places, size = append(commands, c), append(places, i), size+len(raw)
		if size >= maxTogether {
			if err := flush(); err != nil {
				return nil, problem(err)
			}
		}
	}
	if err := flush(); err != nil {
		return nil, problem(err)
	}
	out.Token = tok.String()
	return out, nil
}

// refuse answers one command of a batch with what is wrong with it.
func (o *batchOut) refuse(i int, err error) {
	model := new(huma.ErrorModel)
	if !errors.As(problem(err), &model) {
		model = &huma.ErrorModel{Status: http.StatusInternalServerError, Title: http.StatusText(http.StatusInternalServerError), Detail: err.Error()}
	}
	o.Status, o.Body[i] = http.StatusMultiStatus, done{ID: o.Body[i].ID, Error: model}
}

// split gives the bodies of a batch: the elements of a JSON array, or lines. A line
// that is no JSON is its own command's fault, an array that is none everybody's.
func split(raw []byte) ([][]byte, error) {
	var bodies [][]byte
	raw = bytes.TrimSpace(raw)
	if len(raw) > 0 && raw[0] == '[' {
		var elements []json.RawMessage
		d := json.NewDecoder(bytes.NewReader(raw))
		if err := d.Decode(&elements); err != nil {
			return nil, malformed("body", err)
		}
		if _, err := d.Token(); !errors.Is(err, io.EOF) {
			return nil, malformed("body", errors.New("something follows the array"))
		}
		bodies = make([][]byte, len(elements))
		for i := range elements {
			bodies[i] = elements[i]
		}
	} else {
		for line := range bytes.Lines(raw) {
			if line = bytes.TrimSpace(line); len(line) > 0 {
				bodies = append(bodies, line)
			}
		}
	}
	if len(bodies) == 0 || len(bodies) > maxBatch {
		return nil, web.Invalid("body", fmt.Sprintf("want 1 to %d commands", maxBatch), len(bodies))
	}
	return bodies, nil
}

// decide changes an order that exists.
func (s *Server) decide(ctx context.Context, id string, d order.Decision) (*commandOut, error) {
	o, tok, err := s.orders.Do(ctx, id, d)
	if err != nil {
		return nil, problem(err)
	}
	return &commandOut{Status: http.StatusOK, Location: "/orders/" + id, Token: tok.String(), Body: done{ID: id, Status: o.Status}}, nil
}

// comeBack takes goods of an order back.
func (s *Server) comeBack(ctx context.Context, id string, in *CommandIn, body schema) (*commandOut, error) {
	var goods goodsIn
	if len(bytes.TrimSpace(in.RawBody)) > 0 {
		if err := decode(body, in.RawBody, "body", &goods); err != nil {
			return nil, problem(err)
		}
	}
	key := in.Key
	if key == "" {
		key = web.NewKey()
	}
	at := now()
	if err := web.Time("body.at", goods.At); err != nil {
		return nil, problem(err)
	}
	if goods.At != nil {
		at = goods.At.UTC()
	}
	d := newDigest("return-order")
	d.time(goods.At)
	units := make([]order.Units, len(goods.Lines))
	for i, l := range goods.Lines {
		units[i] = order.Units{SKU: l.SKU, Quantity: l.Quantity}
		d.text(l.SKU)
		d.number(l.Quantity)
	}
	back := web.ID("return/"+id, key)
	repeated := false
	o, tok, err := s.orders.Do(ctx, id, func(o order.Order) ([]freehold.Event, error) {
		_, repeated = o.Returns[back]
		return order.Return(back, d.sum(), units, at)(o)
	})
	if err != nil {
		return nil, problem(err)
	}
	out := &commandOut{Status: http.StatusCreated, Location: "/orders/" + id, Token: tok.String(), Body: done{ID: back, Status: o.Status, Repeated: repeated}}
	if repeated {
		out.Status = http.StatusOK
	}
	return out, nil
}
