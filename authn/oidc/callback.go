package oidc

import (
	"context"
	"crypto/subtle"
	"net/url"
	"strings"
)

const (
	maxQuery = 16 << 10 // bytes of a callback
	maxCode  = 8 << 10
)

// Callback is what the provider sent the browser back with: anybody may have made it.
type Callback struct {
	State       string
	Code        string // "" if there is an Error
	Issuer      string // iss (RFC 9207); "" if the provider does not name itself
	Error       string // the provider's error code (RFC 6749 §4.1.2.1)
	Description string // in the provider's words, cut short
}

// ParseCallback reads the query of a request to a redirect URI. An error is a
// refusal; there is then no state to look up.
func ParseCallback(query string) (Callback, error) {
	if len(query) > maxQuery {
		return Callback{}, refuse(BadCallback, "the callback is longer than %d bytes", maxQuery)
	}
	values, err := url.ParseQuery(query)
	if err != nil {
		return Callback{}, refuse(BadCallback, "the callback is not form-encoded")
	}
	for _, name := range []string{"state", "code", "iss", "error", "error_description"} {
		if len(values[name]) > 1 { // RFC 6749 §3.1: two readers would take two of them
			return Callback{}, refuse(BadCallback, "the callback has %s more than once", name)
		}
	}
	for _, name := range []string{"id_token", "access_token", "response"} { // what was not asked for is not read
		if values.Has(name) {
			return Callback{}, refuse(BadCallback, "the callback has %s, though only a code was asked for", name)
		}
	}
	b := Callback{
		State: values.Get("state"), Code: values.Get("code"), Issuer: values.Get("iss"),
		Error: errorCode(values.Get("error")), Description: clean(values.Get("error_description"), 300),
	}
	switch {
	case b.State == "" || len(b.State) > maxText:
		return Callback{}, refuse(BadCallback, "the callback has no state of a sign-in")
	case (b.Code == "") == (b.Error == ""):
		return Callback{}, refuse(BadCallback, "the callback must have either a code or an error")
	case len(b.Code) > maxCode || len(b.Issuer) > maxURL || strings.ContainsFunc(b.Code+b.Issuer, control):
		return Callback{}, refuse(BadCallback, "the callback's code or iss is not one")
	}
	return b, nil
}

// errorCode gives the code if it has the form of one (RFC 6749 §4.1.2.1), cut short.
func errorCode(code string) string {
	if code == "" || len(code) <= 100 && !strings.ContainsFunc(code, func(r rune) bool { return r < 0x20 || r > 0x7e || r == '"' || r == '\\' }) {
		return code
	}
	return "invalid_error_code"
}

// clean makes a text of somebody else fit to be shown: no control characters, and at
// most so many bytes.
func clean(text string, most int) string {
	text = strings.Map(func(r rune) rune {
		if control(r) || r >= 0x80 && r < 0xa0 || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 { // and no turning of the writing's direction
			return -1
		}
		return r
	}, strings.ToValidUTF8(text, ""))
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "")
	}
	return strings.TrimSpace(text)
}

// Login is a person who signed in at a provider.
type Login struct {
	Identity Identity
	// Received are the claims that were sent and checked, those of the ID token before
	// those of the userinfo endpoint: for the page that tests a connection, and nothing
	// to decide by.
	Received map[string]any
}

// Finish makes of what came back who signed in. The caller has found the Pending by
// the state and the browser's cookie, and has given it up. An error is a refusal.
func (c *Client) Finish(ctx context.Context, p Provider, kept Pending, b Callback) (Login, error) {
	if err := p.Check(); err != nil {
		return Login{}, err
	}
	if err := c.checkCallback(ctx, p, kept.kept, b); err != nil {
		return Login{}, err
	}
	if p.Kind == GitHub {
		return c.finishGitHub(ctx, p, kept.kept, b.Code)
	}
	d, err := c.documents.get(ctx, p)
	if err != nil {
		return Login{}, err
	}
	tokens, err := c.exchange(ctx, p, d.Metadata, kept.kept, b.Code)
	if err != nil {
		return Login{}, err
	}
	token, err := c.checkIDToken(ctx, p, d.Metadata, kept.kept, tokens)
	if err != nil {
		return Login{}, err
	}
	more, err := c.userInfo(ctx, p, d.Metadata, token, tokens.access)
	if err != nil {
		return Login{}, err
	}
	return p.login(token, more)
}

// checkCallback checks that the answer is to what this browser asked, of the
// provider that it was asked of, and in time.
func (c *Client) checkCallback(ctx context.Context, p Provider, kept pending, b Callback) error {
	now := c.now()
	switch {
	case kept.State == "" || subtle.ConstantTimeCompare([]byte(kept.State), []byte(b.State)) != 1: // RFC 6749 §10.12
		return refuse(WrongState, "the callback's state is not that of this browser's sign-in")
	case now.Sub(kept.Begun) > MaxPending || kept.Begun.Sub(now) > skew:
		return refuse(Expired, "the sign-in began at %s, longer ago than %s", kept.Begun.Format("15:04:05"), MaxPending)
	case kept.Kind != p.Kind || kept.Issuer != p.Issuer || kept.ClientID != p.ClientID || kept.RedirectURI != p.RedirectURI:
		return refuse(Changed, "the connection's issuer, client id or redirect URI changed since the sign-in began")
	}
	m, err := c.Discover(ctx, p)
	if err != nil {
		return err
	}
	if err := p.checkIss(m, b.Issuer); err != nil {
		return err
	}
	if b.Error != "" {
		return refused(&Refusal{Reason: ProviderRefused, Detail: "the provider answered " + show(b.Error) + " " + show(b.Description), Code: b.Error})
	}
	return nil
}

// checkIss stops mix-up: an answer of one provider that is taken for another's
// (RFC 9207 §2.4).
func (p Provider) checkIss(m Metadata, iss string) error {
	switch {
	case iss == "" && m.IssParameter:
		return refuse(WrongIssuer, "the callback does not name its issuer, though the provider announces that it always does")
	case iss == "" || iss == m.Issuer || p.Kind == Microsoft && microsoftIssued(p.Issuer, iss) != "":
		return nil
	}
	return refuse(WrongIssuer, "the callback is of the issuer %s, the sign-in began at %s", show(iss), show(m.Issuer))
}
