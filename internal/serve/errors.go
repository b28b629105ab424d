package serve

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"google.golang.org/grpc/codes"

	"github.com/sallyport-iam/sallyport"
)

// answer is what an error of a kind becomes at the edges.
type answer struct {
	code   codes.Code
	status int    // HTTP
	reason string // of google.rpc.ErrorInfo
}

// answers is the one table from kinds of errors to protocols.
var answers = map[sallyport.Kind]answer{
	sallyport.Invalid:          {codes.InvalidArgument, http.StatusBadRequest, "INVALID"},
	sallyport.Unauthenticated:  {codes.Unauthenticated, http.StatusUnauthorized, "UNAUTHENTICATED"},
	sallyport.PermissionDenied: {codes.PermissionDenied, http.StatusForbidden, "PERMISSION_DENIED"},
	sallyport.NotFound:         {codes.NotFound, http.StatusNotFound, "NOT_FOUND"},
	sallyport.AlreadyExists:    {codes.AlreadyExists, http.StatusConflict, "ALREADY_EXISTS"},
	sallyport.Conflict:         {codes.FailedPrecondition, http.StatusPreconditionFailed, "CONFLICT"},
	sallyport.Exhausted:        {codes.ResourceExhausted, http.StatusTooManyRequests, "EXHAUSTED"},
	sallyport.Unavailable:      {codes.Unavailable, http.StatusServiceUnavailable, "UNAVAILABLE"},
}

// HTTPStatus is the status of an error; 500 for what is not a sallyport.Error.
func HTTPStatus(err error) int {
	if a, ok := answers[sallyport.KindOf(err)]; ok {
		return a.status
	}
	return http.StatusInternalServerError
}

// Message is the text of an error that may be shown to whoever made the
// request: a sallyport.Error's own words, never its cause.
func Message(err error, requestID string) string {
	var e *sallyport.Error
	if errors.As(err, &e) {
		if e.Field != "" {
			return e.Field + ": " + e.Msg
		}
		return e.Msg
	}
	switch {
	case errors.Is(err, context.Canceled):
		return "the request was cancelled"
	case errors.Is(err, context.DeadlineExceeded):
		return "the request's time is over; try again with a longer deadline"
	}
	return fmt.Sprintf("internal error (request id %s)", requestID)
}
