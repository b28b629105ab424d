package sallyport

import (
	"errors"
	"fmt"
)

// Kind classifies an error. It is itself an error, so that
// errors.Is(err, sallyport.NotFound) holds for every error of that kind.
type Kind string

const (
	Invalid          Kind = "invalid"
	Unauthenticated  Kind = "unauthenticated"
	PermissionDenied Kind = "permission denied"
	NotFound         Kind = "not found"
	AlreadyExists    Kind = "already exists"
	// Conflict: the thing is not in the state that the request supposes, a stale
	// resource version for example (gRPC's FailedPrecondition).
	Conflict    Kind = "conflict"
	Exhausted   Kind = "exhausted"
	Unavailable Kind = "unavailable"
)

func (k Kind) Error() string { return string(k) }

// Error is an error that may be shown to the caller.
type Error struct {
	Kind  Kind
	Field string // of the request, as the client spells it; empty if none
	Msg   string // safe to show; says what to do next
	Err   error  // the cause, never shown; may be nil
}

func (e *Error) Error() string {
	msg := e.Msg
	if e.Field != "" {
		msg = e.Field + ": " + msg
	}
	if e.Err != nil {
		msg += ": " + e.Err.Error()
	}
	return msg
}

// Unwrap gives the cause; Is makes the Kind matchable.
func (e *Error) Unwrap() error { return e.Err }

// Is reports whether target is the error's Kind.
func (e *Error) Is(target error) bool {
	k, ok := target.(Kind)
	return ok && k == e.Kind
}

// Errorf makes an error of the kind with a message that is safe to show.
func (k Kind) Errorf(format string, args ...any) *Error {
	return &Error{Kind: k, Msg: fmt.Sprintf(format, args...)}
}

// InvalidField makes an Invalid error that names the request's field.
func InvalidField(field, format string, args ...any) *Error {
	return &Error{Kind: Invalid, Field: field, Msg: fmt.Sprintf(format, args...)}
}

// KindOf is the kind of the first *Error in err's chain, "" if there is none.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	var k Kind
	if errors.As(err, &k) {
		return k
	}
	return ""
}
