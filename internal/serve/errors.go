package serve

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"

	"github.com/sallyport-iam/sallyport"
)

// answer is what an error of a kind becomes at the edges.
type answer struct {
	code   codes.Code // and by it the HTTP status, which the transcoder chooses
	reason string     // of google.rpc.ErrorInfo
}

// answers is the one table from kinds of errors to protocols.
var answers = map[sallyport.Kind]answer{
	sallyport.Invalid:          {codes.InvalidArgument, "INVALID"},
	sallyport.Unauthenticated:  {codes.Unauthenticated, "UNAUTHENTICATED"},
	sallyport.PermissionDenied: {codes.PermissionDenied, "PERMISSION_DENIED"},
	sallyport.NotFound:         {codes.NotFound, "NOT_FOUND"},
	sallyport.AlreadyExists:    {codes.AlreadyExists, "ALREADY_EXISTS"},
	sallyport.Conflict:         {codes.FailedPrecondition, "CONFLICT"},
	sallyport.Exhausted:        {codes.ResourceExhausted, "EXHAUSTED"},
	sallyport.Unavailable:      {codes.Unavailable, "UNAVAILABLE"},
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
