// Package web is what the HTTP interfaces of the three services have in common:
// commands, tokens, and answers to what goes wrong.
package web

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"reflect"
	"strings"
	"time"
	"unicode"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"github.com/google/uuid"
	swagger "github.com/swaggest/swgui/v5emb"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/shop/event"
)

// Sizes of requests. A batch is sent as a JSON array or as lines of JSON.
const (
	MaxBody      = 2 << 20
	MaxBatchBody = 16 << 20
)

// NewAPI describes a service's interface on mux, with /openapi.json and, from the
// program itself, pages to read and try it under /docs/, to which / leads.
func NewAPI(mux *http.ServeMux, title, description string) huma.API {
	config := huma.DefaultConfig("Freehold shop: "+title, "1.0.0")
	config.Info.Description = description
	config.Formats = maps.Clone(config.Formats) // those of the library are shared by all APIs
	config.Formats["application/x-ndjson"] = huma.Format{Marshal: huma.DefaultJSONFormat.Marshal, Unmarshal: unmarshalLines}
	config.DocsPath = "" // it would fetch scripts from the network
	mux.Handle("GET /docs/", swagger.New(config.Info.Title, "/openapi.json", "/docs/"))
	mux.Handle("GET /{$}", http.RedirectHandler("/docs/", http.StatusFound))
	config.RejectUnknownQueryParameters = true
	config.CreateHooks = nil // no $schema in answers
	config.Components.Schemas.RegisterTypeAlias(reflect.TypeFor[event.Money](), reflect.TypeFor[string]())
	return humago.New(mux, config)
}

// unmarshalLines reads lines of JSON as if they were an array.
func unmarshalLines(data []byte, v any) error {
	array := []byte{'['}
	for line := range bytes.Lines(data) {
		if line = bytes.TrimSpace(line); len(line) == 0 {
			continue
		}
		if len(array) > 1 {
			array = append(array, ',')
		}
		array = append(array, line...)
	}
	return json.Unmarshal(append(array, ']'), v)
}

// Token is what every read accepts.
type Token struct {
	Token string `header:"Consistency-Token" doc:"wait until this has been seen; from the answer to a command"`
}

// Parse reads the token.
func (t Token) Parse() (freehold.Token, error) {
	tok, err := freehold.ParseToken(t.Token)
	if err != nil {
		return tok, Invalid("header.Consistency-Token", err.Error(), t.Token)
	}
	return tok, nil
}

// Answer is the answer to a command.
type Answer[V any] struct {
	Token string `header:"Consistency-Token"`
	Body  V
}

// Body is the answer to a read.
type Body[V any] struct{ Body V }

// LineIn is a line of a command.
type LineIn struct {
	SKU         string     `json:"sku" minLength:"1" maxLength:"64" example:"85123A"`
	Description string     `json:"description,omitempty" maxLength:"200"`
	Quantity    int64      `json:"quantity" example:"6"`
	Price       string     `json:"price" maxLength:"24" example:"2.550" doc:"decimal text with at most three places"`
	Stocked     *bool      `json:"stocked,omitempty" doc:"false for services and fees, which only bill; default true"`
	At          *time.Time `json:"at,omitempty" doc:"when it was sold, if not at the time of the whole"`
}

// TradeIn is what commands have in common.
type TradeIn struct {
	Key       string     `json:"key,omitempty" maxLength:"128" doc:"idempotency key, where the header does not carry it"`
	Reference string     `json:"reference,omitempty" maxLength:"64" doc:"your own number"`
	Customer  string     `json:"customer,omitempty" maxLength:"64" doc:"empty for a guest"`
	Country   string     `json:"country,omitempty" maxLength:"64"`
	Currency  string     `json:"currency,omitempty" enum:"GBP,EUR,USD" default:"GBP"`
	At        *time.Time `json:"at,omitempty" doc:"of the business; default now"`
	Lines     []LineIn   `json:"lines" minItems:"1" maxItems:"5000" doc:"together they come to at most 1000000000.000, each counted without its sign"`
}

// Plain refuses text with control characters; where is its place in the request.
func Plain(where, text string) error {
	if strings.ContainsFunc(text, unicode.IsControl) {
		return Invalid(where, "want no control characters", text)
	}
	return nil
}

// Time refuses a time that events and reports cannot hold; where is its place in the
// request. nil is one that was not given.
func Time(where string, t *time.Time) error {
	if t == nil {
		return nil
	}
	if err := event.CheckYear(*t); err != nil {
		return Invalid(where, err.Error(), t)
	}
	return nil
}

// Event returns the parts of a command that events carry. where is its place in the
// request, and at the time of a command that names none.
func (t TradeIn) Event(where string, at time.Time) (event.Trade, []event.Line, error) {
	trade := event.Trade{Reference: t.Reference, Customer: t.Customer, Country: t.Country, Currency: t.Currency, At: at}
	if t.At != nil {
		trade.At = t.At.UTC()
	}
	if trade.Currency == "" {
		trade.Currency = "GBP"
	}
	err := errors.Join(Plain(where+".reference", t.Reference), Plain(where+".customer", t.Customer), Plain(where+".country", t.Country), Time(where+".at", t.At))
	if err != nil {
		return trade, nil, err
	}
	lines := make([]event.Line, len(t.Lines))
	for i, l := range t.Lines {
		line := fmt.Sprintf("%s.lines[%d]", where, i)
		if err := errors.Join(Plain(line+".sku", l.SKU), Plain(line+".description", l.Description), Time(line+".at", l.At)); err != nil {
			return trade, nil, err
		}
		price, err := event.ParseMoney(l.Price)
		if err != nil {
			return trade, nil, Invalid(line+".price", err.Error(), l.Price)
		}
		lines[i] = event.Line{SKU: l.SKU, Description: l.Description, Quantity: l.Quantity, Price: price, Stocked: l.Stocked == nil || *l.Stocked, At: l.At}
	}
	return trade, lines, nil
}

// namespace is that of ids made from keys.
var namespace = uuid.MustParse("5f0d2f3e-6a57-5d0b-9a6b-0f2f9a0c8d11")

// ID is the id that a client's key stands for: the same key is the same thing. The id
// of a key that is a UUID of version 7 begins with that key's time, so that things
// made at one time stand together in every index: orders under random ids dirty
// twice as many pages of each database.
func ID(client, key string) string {
	id := uuid.NewSHA1(namespace, []byte(client+"\x00"+key))
	if k, err := uuid.Parse(key); err == nil && k.Version() == 7 {
		copy(id[:6], k[:6])
		id[6] = id[6]&0x0f | 0x80 // version 8: made as its maker likes
	}
	return id.String()
}

// NewKey is a key for a command that came without one.
func NewKey() string { return uuid.Must(uuid.NewV7()).String() }

// Key returns the idempotency key of a command, from the header or the body.
func Key(header, body string) (string, error) {
	switch {
	case header == "" && body == "":
		return NewKey(), nil
	case header != "" && body != "" && header != body:
		return "", Invalid("header.Idempotency-Key", "is not the key in the body", header)
	case header != "":
		return header, nil
	}
	return body, nil
}

// Digest recognises another command under the same key.
func Digest(command any) (string, error) {
	raw, err := json.Marshal(command)
	if err != nil {
		return "", err
	}
	h := sha256.Sum256(raw)
	return hex.EncodeToString(h[:16]), nil
}

// ErrOtherBody is returned for a key that has been used for another command.
var ErrOtherBody = errors.New("the idempotency key was used with another body: use a new key for a new command")

// ErrNotFound is returned for what does not exist.
var ErrNotFound = errors.New("no such thing")

// Invalid is a 422 that names a field.
func Invalid(location, message string, value any) error {
	return huma.Error422UnprocessableEntity("validation failed", &huma.ErrorDetail{Location: location, Message: message, Value: value})
}

// Problem turns an error into the answer that a client can act on.
func Problem(err error) error {
	var status huma.StatusError
	switch {
	case err == nil || errors.As(err, &status):
		return err
	case errors.Is(err, ErrNotFound):
		return huma.Error404NotFound(err.Error())
	case errors.Is(err, ErrOtherBody), errors.Is(err, follow.ErrParked):
		return huma.Error409Conflict(err.Error())
	case errors.Is(err, freehold.ErrHistoryLost):
		return huma.Error409Conflict("history-lost: " + err.Error())
	case errors.Is(err, freehold.ErrBehind), errors.Is(err, freehold.ErrLatched), errors.Is(err, freehold.ErrClosed), errors.Is(err, freehold.ErrUnknown),
		errors.Is(err, freehold.ErrUnavailable), errors.Is(err, freehold.ErrTooLong), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return huma.ErrorWithHeaders(huma.Error503ServiceUnavailable(err.Error()), http.Header{"Retry-After": {"1"}})
	}
	return huma.Error500InternalServerError("internal error", err)
}
