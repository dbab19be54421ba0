package billingd

import (
	"context"
	"errors"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/freehold-go/freehold"
	"github.com/freehold-go/freehold/follow"
	"github.com/freehold-go/freehold/shop/billingdb"
)

// problem turns an error of a read or a command into the answer that a client can
// act on.
func problem(err error) error {
	if err == nil {
		return nil
	}
	var status huma.StatusError
	switch {
	case errors.As(err, &status):
		return err
	case errors.Is(err, billingdb.ErrNotFound):
		return huma.Error404NotFound(err.Error())
	case errors.Is(err, billingdb.ErrOtherBody):
		return huma.Error409Conflict("the idempotency key was used with another body: use a new key for a new command",
			&huma.ErrorDetail{Location: "header.Idempotency-Key", Message: err.Error()})
	case errors.Is(err, freehold.ErrHistoryLost):
		return huma.Error409Conflict("history-lost: "+err.Error(), &huma.ErrorDetail{Location: "header.Consistency-Token", Message: "history-lost"})
	case errors.Is(err, follow.ErrParked):
		return huma.Error409Conflict(err.Error(), &huma.ErrorDetail{Location: "header.Consistency-Token", Message: "the event is parked"})
	case errors.Is(err, freehold.ErrBehind):
		return later("1", err)
	case errors.Is(err, freehold.ErrLatched), errors.Is(err, freehold.ErrClosed), errors.Is(err, freehold.ErrUnknown), errors.Is(err, freehold.ErrTooLong),
		errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return later("2", err)
	}
	return huma.Error500InternalServerError("internal error", err)
}

func later(seconds string, err error) error {
	return huma.ErrorWithHeaders(huma.Error503ServiceUnavailable(err.Error()), http.Header{"Retry-After": {seconds}})
}

// invalid is a 422 that names a field.
func invalid(location, message string, value any) error {
	return huma.Error422UnprocessableEntity("validation failed", &huma.ErrorDetail{Location: location, Message: message, Value: value})
}
