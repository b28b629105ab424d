package oidc

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sallyport-iam/sallyport"
)

// Options are what a sign-in asks of the provider. The zero value asks nothing.
type Options struct {
	Hint          string        // the e-mail that the person gave; "": none
	SelectAccount bool          // the person chooses among the accounts of the browser
	Fresh         time.Duration // the person must sign in anew; it may be so long ago when Finish is called. Zero: not asked
}

// Pending is a sign-in between Begin and Finish. The caller keeps it, for MaxPending
// at most, where the browser that began can reach it and no other: in the database
// under a cookie's hash, or encrypted in the cookie. It holds secrets, and prints as
// REDACTED; MarshalBinary is how it is kept. Single use is the caller's to see to.
type Pending struct{ kept pending }

type pending struct {
	Kind        Kind          `json:"kind"`
	Issuer      string        `json:"issuer"`
	ClientID    string        `json:"client_id"`
	RedirectURI string        `json:"redirect_uri"`
	State       string        `json:"state"`
	Nonce       string        `json:"nonce"`
	Verifier    string        `json:"verifier"` // of PKCE
	Fresh       time.Duration `json:"fresh,omitempty"`
	Begun       time.Time     `json:"begun"`
}

// State is what the provider gives back: under its hash the caller finds the Pending
// again, together with the browser's cookie.
func (p Pending) State() string { return p.kept.State }

// Begun is when the sign-in began.
func (p Pending) Begun() time.Time { return p.kept.Begun }

// Format prints REDACTED for every verb.
func (Pending) Format(f fmt.State, _ rune) { io.WriteString(f, "REDACTED") } //nolint:errcheck // as fmt does it

// MarshalBinary gives the Pending to be kept where nobody reads it.
func (p Pending) MarshalBinary() ([]byte, error) { return json.Marshal(p.kept) }

// UnmarshalBinary reads what MarshalBinary gave.
func (p *Pending) UnmarshalBinary(data []byte) error {
	var kept pending
	if err := json.Unmarshal(data, &kept); err != nil || kept.State == "" || kept.Verifier == "" || kept.Begun.IsZero() {
		return errors.New("reading a pending sign-in: it is not one")
	}
	p.kept = kept
	return nil
}

// Begin gives the URL that the browser is sent to, and what must be kept until it
// comes back. An error is Invalid for settings or options that cannot work, else a
// refusal.
func (c *Client) Begin(ctx context.Context, p Provider, o Options) (string, Pending, error) {
	m, err := c.Discover(ctx, p)
	if err != nil {
		return "", Pending{}, err
	}
	if o.Fresh < 0 || o.Fresh > 0 && !p.Reauthenticates() {
		return "", Pending{}, sallyport.Invalid.Errorf("this identity provider does not say when a person signed in; confirm it is you in another way")
	}
	u, err := url.Parse(m.Authorization)
	if err != nil {
		return "", Pending{}, refuse(Unreachable, "the authorization endpoint of %s is not a URL", p.Issuer)
	}
	kept := pending{
		Kind: p.Kind, Issuer: p.Issuer, ClientID: p.ClientID, RedirectURI: p.RedirectURI,
		State: random(), Nonce: random(), Verifier: random(), Fresh: o.Fresh, Begun: c.now().UTC(),
	}
	challenge := sha256.Sum256([]byte(kept.Verifier)) // RFC 7636 §4.2
	query := u.Query()
	for name, value := range map[string]string{
		"response_type": "code", "client_id": p.ClientID, "redirect_uri": p.RedirectURI, "scope": p.scope(), "state": kept.State,
		"nonce": kept.Nonce, "code_challenge": base64.RawURLEncoding.EncodeToString(challenge[:]), "code_challenge_method": "S256",
	} {
		query.Set(name, value) // in place of whatever the endpoint has by that name
	}
	p.ask(query, o)
	u.RawQuery = query.Encode()
	return u.String(), Pending{kept}, nil
}

// ask adds the options to the request.
func (p Provider) ask(query url.Values, o Options) {
	hint := "login_hint"
	if p.Kind == GitHub {
		query.Del("nonce")
		hint = "login"
	}
	if o.Hint != "" && len(o.Hint) <= maxText {
		query.Set(hint, o.Hint)
	}
	switch {
	case o.Fresh > 0:
		query.Set("prompt", "login")
		query.Set("max_age", strconv.Itoa(int(o.Fresh/time.Second)))
	case o.SelectAccount:
		query.Set("prompt", "select_account")
	}
	if p.Kind == Google && len(p.Domains) == 1 {
		query.Set("hd", p.Domains[0]) // only spares the person a wrong choice: it is checked in the token
	}
}

func (p Provider) scope() string {
	if p.Kind == GitHub {
		return "read:user user:email"
	}
	scopes := p.Scopes
	if scopes == nil {
		scopes = []string{"email", "profile"}
	}
	scopes = slices.DeleteFunc(slices.Clone(scopes), func(s string) bool { return s == "openid" })
	return strings.Join(append([]string{"openid"}, scopes...), " ")
}

// random gives 256 bits in 43 characters.
func random() string {
	var b [32]byte
	rand.Read(b[:]) // never fails: it ends the program instead
	return base64.RawURLEncoding.EncodeToString(b[:])
}
