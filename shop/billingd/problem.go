package billingd

import (
	"errors"

	"github.com/danielgtaylor/huma/v2"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/shop/billing"
	"github.com/freehold-go/freehold/shop/billingdb"
	"github.com/freehold-go/freehold/shop/web"
)

// problem turns an error of a read or a command into the answer that a client can
// act on.
func problem(err error) error {
	switch {
	case errors.Is(err, billingdb.ErrNotFound):
		return huma.Error404NotFound(err.Error())
	case errors.Is(err, billingdb.ErrOtherBody):
		return huma.Error409Conflict(web.ErrOtherBody.Error(), &huma.ErrorDetail{Location: "header.Idempotency-Key", Message: err.Error()})
	case errors.Is(err, freehold.ErrHistoryLost):
		return huma.Error409Conflict("history-lost: "+err.Error(), &huma.ErrorDetail{Location: "header.Consistency-Token", Message: "history-lost"})
	case errors.Is(err, follow.ErrParked):
		return huma.Error409Conflict(err.Error(), &huma.ErrorDetail{Location: "header.Consistency-Token", Message: "the event is parked"})
	}
	return web.Problem(err)
}

// field names the field of a command that is wrong; where is the command's place in
// the body.
func field(where string, err error) error {
	if wrong := new(billing.FieldError); errors.As(err, &wrong) {
		return web.Invalid(where+"."+wrong.Field, wrong.Want, nil)
	}
	return err
}
