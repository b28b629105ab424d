package oidc

import (
	"errors"
	"fmt"
	"strings"

	"github.com/sallyport-iam/sallyport"
)

// Reason says in a word why a sign-in or a logout was refused: for the audit log
// and for metrics.
type Reason string

// The reasons.
const (
	BadCallback     Reason = "callback"    // what came back is not an answer to an authorization request
	WrongState      Reason = "state"       // it answers another request than the one that this browser made
	Expired         Reason = "expired"     // the sign-in took too long
	Changed         Reason = "changed"     // the connection was changed meanwhile
	ProviderRefused Reason = "provider"    // the provider said no; Refusal.Code is its word for why
	BadExchange     Reason = "exchange"    // the code could not be exchanged, or not for what was asked
	BadToken        Reason = "token"       // the token has not the form that it must have
	BadSignature    Reason = "signature"   // no key of the provider made the signature
	WrongIssuer     Reason = "issuer"      // another issuer speaks
	WrongAudience   Reason = "audience"    // the token is for somebody else
	WrongTimes      Reason = "times"       // the token has expired, or is of the past or the future
	WrongNonce      Reason = "nonce"       // the token belongs to another sign-in
	NotFresh        Reason = "not_fresh"   // the person did not sign in anew, or the provider does not say so
	WrongSubject    Reason = "subject"     // nobody is named, or two answers name two people
	NotAllowed      Reason = "not_allowed" // of a tenant or domain that the connection does not take
	Replayed        Reason = "replayed"    // a logout token that came before
	Unreachable     Reason = "unreachable" // the provider does not answer, or not with what it must publish
)

// Refusal is why a sign-in or a logout was refused, in words for those who may know
// the connection: its audit log and the page that tests it. It holds no secrets, and
// of what the provider or the browser sent only short, quoted pieces. It is the
// cause of an error whose own message is for strangers.
type Refusal struct {
	Reason Reason
	Detail string
	Code   string // with ProviderRefused and BadExchange: the provider's error code; may be empty
}

func (r *Refusal) Error() string { return string(r.Reason) + ": " + r.Detail }

const (
	stranger = "the sign-in could not be completed; begin again, and if that does not help ask an administrator, who finds the reason in the audit log"
	absent   = "the identity provider cannot be reached or does not answer as it should; try again, and if that does not help ask an administrator, who finds the reason in the audit log"
)

// refuse makes the error of a refusal: Unavailable if the provider is Unreachable,
// Unauthenticated otherwise.
func refuse(reason Reason, format string, args ...any) error {
	return refused(&Refusal{Reason: reason, Detail: fmt.Sprintf(format, args...)})
}

func refused(r *Refusal) error {
	if r.Reason == Unreachable {
		return &sallyport.Error{Kind: sallyport.Unavailable, Msg: absent, Err: r}
	}
	return &sallyport.Error{Kind: sallyport.Unauthenticated, Msg: stranger, Err: r}
}

// unreachable makes a refusal of an error of the fetch client, whose message is for
// whoever gave the address.
func unreachable(err error) error {
	var known *sallyport.Error
	if errors.As(err, &known) {
		return refuse(Unreachable, "%s", known.Msg)
	}
	return err
}

// show quotes a value that somebody else sent, cut short.
func show(v any) string {
	const most = 120
	text, ok := v.(string)
	if !ok {
		if v == nil {
			return "nothing"
		}
		text = fmt.Sprint(v)
	}
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "…"
	}
	return fmt.Sprintf("%q", text)
}
