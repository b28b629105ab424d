package serve

import (
	"context"
	"errors"
	"log/slog"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"

	"github.com/sallyport-iam/sallyport"
)

// domain of google.rpc.ErrorInfo.
const domain = "sallyport"

// toStatus turns what a handler returned into what the client gets. Only
// sallyport.Errors and statuses that the handler made itself (Unimplemented)
// keep their words; everything else is "internal error" and is logged here,
// the only place where errors of requests are logged.
func (s *Server) toStatus(ctx context.Context, method string, err error) error {
	if err == nil {
		return nil
	}
	if _, ok := err.(interface{ GRPCStatus() *status.Status }); ok { // not errors.As: a wrapped one is somebody else's
		return err
	}
	id := RequestID(ctx)
	known, ok := answers[sallyport.KindOf(err)]
	switch {
	case ok:
	case errors.Is(err, context.Canceled):
		known = answer{codes.Canceled, "CANCELLED"}
	case errors.Is(err, context.DeadlineExceeded):
		known = answer{codes.DeadlineExceeded, "DEADLINE_EXCEEDED"}
	default:
		known = answer{codes.Internal, "INTERNAL"}
	}
	var e *sallyport.Error
	if known.code == codes.Internal || errors.As(err, &e) && e.Err != nil {
		s.log.LogAttrs(ctx, levelOf(known.code), "request failed", slog.String("method", method),
			slog.String("request_id", id), slog.Any("error", err))
	}
	return statusOf(known, Message(err, id), e, id)
}

func levelOf(code codes.Code) slog.Level {
	if code == codes.Internal {
		return slog.LevelError
	}
	return slog.LevelWarn
}

func statusOf(a answer, text string, e *sallyport.Error, requestID string) error {
	st := status.New(a.code, text)
	details := []protoadapt.MessageV1{&errdetails.ErrorInfo{
		Reason: a.reason, Domain: domain, Metadata: map[string]string{"request_id": requestID},
	}}
	if e != nil && e.Kind == sallyport.Invalid && e.Field != "" {
		details = append(details, &errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{
			{Field: e.Field, Description: e.Msg},
		}})
	}
	if detailed, err := st.WithDetails(details...); err == nil {
		st = detailed
	}
	return st.Err()
}
