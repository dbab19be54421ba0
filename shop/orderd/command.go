package orderd

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/freehold-go/freehold/shop/event"
	"github.com/freehold-go/freehold/shop/order"
	"github.com/freehold-go/freehold/shop/web"
)

// orderIn places an order.
type orderIn struct {
	web.TradeIn
	Policy          string `json:"policy,omitempty" enum:"all-or-nothing,partial" default:"all-or-nothing" doc:"what happens if some lines are not in stock"`
	DeadlineSeconds int    `json:"deadline_seconds,omitempty" minimum:"1" maximum:"604800" default:"30" doc:"how long to wait for stock and payment"`
	Simulate        string `json:"simulate,omitempty" enum:"decline,timeout,late,capture-decline" doc:"what the simulated payment provider shall do"`
}

// returnIn takes goods back whose order is not known here.
type returnIn struct{ web.TradeIn }

// goodsIn takes goods of an order back.
type goodsIn struct {
	At    *time.Time `json:"at,omitempty" doc:"of the business; default now"`
	Lines []unitsIn  `json:"lines,omitempty" maxItems:"5000" doc:"what comes back; default everything that is left"`
}

type unitsIn struct {
	SKU      string `json:"sku" minLength:"1" maxLength:"64" example:"85123A"`
	Quantity int64  `json:"quantity" example:"1"`
}

// schema checks bodies of a type. Only a body that is wrong is compared with it:
// to name the field.
type schema struct {
	registry huma.Registry
	ref      *huma.Schema
}

func schemaOf[V any](api huma.API) schema {
	registry := api.OpenAPI().Components.Schemas
	t := reflect.TypeFor[V]()
	return schema{registry, registry.Schema(t, true, t.Name())}
}

// decode reads one JSON value strictly. where is its place in the request.
func decode[V any](s schema, raw []byte, where string, into *V) error {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	err := d.Decode(into)
	if err == nil {
		if _, err = d.Token(); errors.Is(err, io.EOF) {
			return nil
		}
		return malformed(where, errors.New("something follows the value"))
	}
	var value any
	if err := json.Unmarshal(raw, &value); err != nil {
		return malformed(where, err)
	}
	var found huma.ValidateResult
	path := huma.NewPathBuffer(nil, 0)
	path.Push(where)
	huma.Validate(s.registry, s.ref, path, huma.ModeWriteToServer, value, &found)
	if len(found.Errors) == 0 {
		return web.Invalid(where, err.Error(), nil)
	}
	return huma.Error422UnprocessableEntity("validation failed", found.Errors...)
}

func malformed(where string, err error) error {
	return huma.Error400BadRequest("the body is not JSON", &huma.ErrorDetail{Location: where, Message: err.Error()})
}

// placement checks a command and gives its event. where is the command's place in
// the request.
func (in *orderIn) placement(where string, now time.Time) (e event.OrderPlaced, err error) {
	trade, lines, err := tradeOf(&in.TradeIn, where, now)
	if err != nil {
		return e, err
	}
	total, err := order.Check(trade, lines)
	if err != nil {
		return e, named(where, err)
	}
	deadline := order.DefaultDeadline
	switch {
	case in.Policy != "" && in.Policy != event.AllOrNothing && in.Policy != event.Partial:
		return e, web.Invalid(where+".policy", "want "+event.AllOrNothing+" or "+event.Partial, in.Policy)
	case in.Simulate != "" && !slices.Contains(simulations, in.Simulate):
		return e, web.Invalid(where+".simulate", fmt.Sprintf("want one of %v", simulations), in.Simulate)
	case in.DeadlineSeconds < 0 || in.DeadlineSeconds > int(order.MaxDeadline/time.Second):
		return e, web.Invalid(where+".deadline_seconds", fmt.Sprintf("want 1 to %d", int(order.MaxDeadline/time.Second)), in.DeadlineSeconds)
	case in.DeadlineSeconds > 0:
		deadline = time.Duration(in.DeadlineSeconds) * time.Second
	}
	e = event.OrderPlaced{Order: web.ID("order", in.Key), Trade: trade, Policy: in.Policy, Deadline: now.Add(deadline), Simulate: in.Simulate,
		Body: in.digest(), Lines: lines, Total: total}
	if e.Policy == "" {
		e.Policy = event.AllOrNothing
	}
	return e, nil
}

var simulations = []string{"decline", "timeout", "late", "capture-decline"}

// comeback checks a command and gives its event.
func (in *returnIn) comeback(where string, now time.Time) (e event.OrderReturned, err error) {
	trade, lines, err := tradeOf(&in.TradeIn, where, now)
	if err != nil {
		return e, err
	}
	amount, err := order.Check(trade, lines)
	if err != nil {
		return e, named(where, err)
	}
	d := newDigest("return")
	d.trade(&in.TradeIn)
	return event.OrderReturned{Return: web.ID("return", in.Key), Trade: trade, Body: d.sum(), Lines: lines, Amount: amount}, nil
}

// tradeOf checks the key and gives what events carry.
func tradeOf(in *web.TradeIn, where string, now time.Time) (trade event.Trade, lines []event.Line, err error) {
	if in.Key == "" || len(in.Key) > 128 {
		return trade, nil, web.Invalid(where+".key", "want an idempotency key of 1 to 128 bytes", in.Key)
	}
	trade = event.Trade{Reference: in.Reference, Customer: in.Customer, Country: in.Country, Currency: in.Currency, At: now}
	if in.At != nil {
		trade.At = in.At.UTC()
	}
	if trade.Currency == "" {
		trade.Currency = "GBP"
	}
	lines = make([]event.Line, len(in.Lines))
	for i := range in.Lines {
		l := &in.Lines[i]
		price, err := event.ParseMoney(l.Price)
		if err != nil {
			return trade, nil, web.Invalid(fmt.Sprintf("%s.lines[%d].price", where, i), err.Error(), l.Price)
		}
		lines[i] = event.Line{SKU: l.SKU, Description: l.Description, Quantity: l.Quantity, Price: price, Stocked: l.Stocked == nil || *l.Stocked, At: l.At}
	}
	return trade, lines, nil
}

// named puts the field that is wrong into its place in the request.
func named(where string, err error) error {
	if field := new(order.FieldError); errors.As(err, &field) {
		return web.Invalid(where+"."+field.Field, field.Want, nil)
	}
	return err
}

// digest recognises another command under the same key: it covers what the client
// said, not what the service added.
func (in *orderIn) digest() string {
	d := newDigest("order")
	d.trade(&in.TradeIn)
	d.text(in.Policy)
	d.number(int64(in.DeadlineSeconds))
	d.text(in.Simulate)
	return d.sum()
}

// digest collects fields, each behind its length.
type digest struct{ b []byte }

func newDigest(kind string) *digest {
	d := &digest{make([]byte, 0, 1024)}
	d.text(kind)
	return d
}

func (d *digest) text(s string)  { d.b = append(binary.AppendUvarint(d.b, uint64(len(s))), s...) }
func (d *digest) number(n int64) { d.b = binary.AppendVarint(d.b, n) }

func (d *digest) time(t *time.Time) {
	if t == nil {
		d.text("")
		return
	}
	d.text(t.UTC().Format(time.RFC3339Nano))
}

func (d *digest) trade(in *web.TradeIn) {
	d.text(in.Reference)
	d.text(in.Customer)
	d.text(in.Country)
	d.text(in.Currency)
	d.time(in.At)
	d.number(int64(len(in.Lines)))
	for i := range in.Lines {
		l := &in.Lines[i]
		d.text(l.SKU)
		d.text(l.Description)
		d.number(l.Quantity)
		d.text(l.Price)
		if l.Stocked == nil || *l.Stocked {
			d.number(1)
		} else {
			d.number(0)
		}
		d.time(l.At)
	}
}

// sum is 32 hexadecimal digits.
func (d *digest) sum() string {
	h := sha256.Sum256(d.b)
	return hex.EncodeToString(h[:16])
}
