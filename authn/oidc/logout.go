package oidc

import (
	"context"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
)

// logoutTypes are what typ may be in a logout token, if it is there.
var logoutTypes = []string{"jwt", "application/jwt", "logout+jwt", "application/logout+jwt"}

const (
	logoutEvent = "http://schemas.openid.net/event/backchannel-logout"
	// maxLogoutLife bounds how long a token's id must be remembered.
	maxLogoutLife = 24 * time.Hour
)

// Logout is what a provider ended: one sign-in, or with no SessionID all of a person.
type Logout struct {
	Issuer    string
	Sub       string // Identity.Sub; "": only the session is named
	SessionID string // Identity.SessionID; "": all of the person
	Issued    time.Time
}

// Logout checks a logout token (OpenID Connect Back-Channel Logout 1.0 §2.6) that
// came to the connection's address. first notes that the token with this id is used,
// in one atomic step, and reports whether it was not before; the note must be kept
// until the given time. An error is a refusal, or what first gave.
func (c *Client) Logout(ctx context.Context, p Provider, raw string, first func(ctx context.Context, issuer, id string, until time.Time) (bool, error)) (Logout, error) {
	if err := p.Check(); err != nil {
		return Logout{}, err
	}
	if p.Kind != OpenID {
		return Logout{}, refuse(BadToken, "a connection of the kind %s takes no logout tokens", p.Kind)
	}
	d, err := c.documents.get(ctx, p)
	if err != nil {
		return Logout{}, err
	}
	got, err := c.verifyToken(ctx, p, d.Metadata, raw, logoutTypes, func(v *oidc.IDTokenVerifier) error {
		_, err := v.VerifyLogout(ctx, raw)
		return err
	})
	if err != nil {
		return Logout{}, err
	}
	l := Logout{Issuer: p.Issuer, Sub: got.text("sub"), SessionID: got.text("sid")}
	l.Issued, _ = got.time("iat")
	expires, _ := got.time("exp")
	if err := checkLogout(got); err != nil {
		return Logout{}, err
	}
	if expires.Sub(c.now()) > maxLogoutLife {
		return Logout{}, refuse(WrongTimes, "the logout token is good for longer than %s", maxLogoutLife)
	}
	isFirst, err := first(ctx, p.Issuer, got.text("jti"), expires.Add(skew))
	switch {
	case err != nil:
		return Logout{}, err
	case !isFirst:
		return Logout{}, refuse(Replayed, "the logout token was used before")
	}
	return l, nil
}

// checkLogout checks what makes a token a logout token, and no ID token.
func checkLogout(got claims) error {
	events, _ := got["events"].(map[string]any)
	_, ends := events[logoutEvent].(map[string]any)
	_, nonce := got["nonce"]
	_, subbed := got["sub"]
	_, sessioned := got["sid"]
	sub, sid, id := got.text("sub"), got.text("sid"), got.text("jti")
	switch {
	case !ends:
		return refuse(BadToken, "the token does not say that it ends a session (events)")
	case nonce:
		return refuse(BadToken, "the token has a nonce, as an ID token has and a logout token must not")
	case id == "" || len(id) > maxText:
		return refuse(BadToken, "the logout token has no jti, or one of more than %d bytes", maxText)
	case sub == "" && sid == "", subbed && sub == "", sessioned && sid == "", len(sub) > maxSubject, len(sid) > maxText, strings.ContainsFunc(sub+sid+id, control):
		return refuse(WrongSubject, "the logout token names neither a person (sub) nor a session (sid), or in no good form")
	}
	return nil
}
