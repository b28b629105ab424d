// Package credential says what a credential looks like and checks it: the form of
// an API key; the chain of a client certificate, and the CAs, filters and requests
// about it. It is pure: the domain makes credentials with it, and authorizers read
// them with it, without a database.
package credential

import (
	"fmt"
	"log/slog"
	"strings"
)

// Secret is a text that nobody but its owner may read. However it is printed,
// logged or marshalled, it comes out as REDACTED.
type Secret string

const redacted = "REDACTED"

// Reveal gives the text itself: for showing it once to its owner, or for
// sending it where it is needed.
func (s Secret) Reveal() string { return string(s) }

// String gives REDACTED.
func (Secret) String() string { return redacted }

// GoString gives REDACTED.
func (Secret) GoString() string { return redacted }

// Format prints REDACTED for every verb; %x and %d would otherwise reach the bytes.
func (Secret) Format(f fmt.State, _ rune) { fmt.Fprint(f, redacted) }

// LogValue gives REDACTED.
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText gives REDACTED.
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// MarshalJSON gives "REDACTED".
func (Secret) MarshalJSON() ([]byte, error) { return []byte(`"` + redacted + `"`), nil }

// Bearer takes the token out of the value of an Authorization header (RFC 6750
// §2.1). The scheme's case does not matter. ok is false for other schemes and
// for no token.
func Bearer(header string) (token string, ok bool) {
	const scheme = "bearer "
	if len(header) < len(scheme) || !strings.EqualFold(header[:len(scheme)], scheme) {
		return "", false
	}
	token = strings.Trim(header[len(scheme):], " ")
	return token, token != ""
}
