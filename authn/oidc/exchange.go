package oidc

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/sallyport-iam/sallyport"
)

const (
	maxAccess     = 16 << 10 // bytes of an access token
	assertionLife = time.Minute
)

// tokens are what the provider gave for a code.
type tokens struct {
	id     string
	access string
}

// exchange gives the code back for tokens (RFC 6749 §4.1.3).
func (c *Client) exchange(ctx context.Context, p Provider, m Metadata, kept pending, code string) (tokens, error) {
	answer, err := c.redeem(ctx, p, m, kept, code)
	if err != nil {
		return tokens{}, err
	}
	t := tokens{id: answer.text("id_token"), access: answer.text("access_token")}
	switch {
	case !strings.EqualFold(answer.text("token_type"), "Bearer"):
		return tokens{}, refuse(BadExchange, "the token endpoint gave a token of the type %s; Bearer was expected", show(answer["token_type"]))
	case t.access == "" || len(t.access) > maxAccess || strings.ContainsFunc(t.access, func(r rune) bool { return r <= 0x20 || r > 0x7e }):
		return tokens{}, refuse(BadExchange, "the token endpoint gave no access token, or one that cannot be sent")
	case t.id == "" && p.Kind != GitHub:
		return tokens{}, refuse(BadExchange, "the token endpoint gave no ID token; is openid among the scopes that the provider allows?")
	}
	return t, nil
}

// redeem asks the token endpoint, and gives its answer if it is one of success.
func (c *Client) redeem(ctx context.Context, p Provider, m Metadata, kept pending, code string) (claims, error) {
	form := url.Values{
		"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {kept.RedirectURI}, "code_verifier": {kept.Verifier},
	}
	user, password, err := c.authenticate(p, m, form)
	if err != nil {
		return nil, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, m.Token, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, refuse(Unreachable, "the token endpoint of %s is not a URL", m.Issuer)
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if user != "" {
		r.SetBasicAuth(user, password)
	}
	response, err := c.fetch.Do(r)
	if err != nil {
		return nil, unreachable(err)
	}
	if response.Status >= 500 || response.Status == http.StatusTooManyRequests {
		return nil, refuse(Unreachable, "the token endpoint of %s answers with the status %d", m.Issuer, response.Status)
	}
	answer, err := decodeJSON(response.Body)
	if err != nil {
		return nil, refuse(BadExchange, "the token endpoint's answer, with the status %d: %v", response.Status, err)
	}
	// GitHub answers 200 with an error.
	if said := errorCode(answer.text("error")); said != "" || response.Status != http.StatusOK {
		description := clean(answer.text("error_description"), 300)
		for _, secret := range []string{code, kept.Verifier, p.Secret.Reveal()} { // should it repeat what it was sent
			if secret != "" {
				description = strings.ReplaceAll(description, secret, "REDACTED")
			}
		}
		return nil, refused(&Refusal{Reason: BadExchange, Code: said, Detail: "the token endpoint answered " + show(said) + " " + show(description)})
	}
	return answer, nil
}

// method chooses how we say who we are.
func (p Provider) method(m Metadata) Method {
	switch {
	case p.Method != "":
		return p.Method
	case p.Key != nil:
		return PrivateKeyJWT
	case p.Secret == "":
		return NoMethod
	case !slices.Contains(m.Methods, string(SecretBasic)) && slices.Contains(m.Methods, string(SecretPost)):
		return SecretPost
	}
	return SecretBasic
}

// authenticate adds to the form who we are, or gives it for the Authorization header.
func (c *Client) authenticate(p Provider, m Metadata, form url.Values) (user, password string, err error) {
	switch p.method(m) {
	case SecretBasic: // RFC 6749 §2.3.1: both are form-encoded first
		return url.QueryEscape(p.ClientID), url.QueryEscape(p.Secret.Reveal()), nil
	case SecretPost:
		form.Set("client_secret", p.Secret.Reveal())
	case PrivateKeyJWT:
		assertion, err := c.assertion(p, m)
		if err != nil {
			return "", "", err
		}
		form.Set("client_assertion_type", "urn:ietf:params:oauth:client-assertion-type:jwt-bearer")
		form.Set("client_assertion", assertion)
	case NoMethod:
	}
	form.Set("client_id", p.ClientID)
	return "", "", nil
}

// assertion signs who we are (RFC 7523 §3). It is for the issuer, so that nobody to
// whom a provider sends us can use it elsewhere; Microsoft takes only its endpoint.
func (c *Client) assertion(p Provider, m Metadata) (string, error) {
	audience := m.Issuer
	if p.Kind == Microsoft {
		audience = m.Token
	}
	if p.Key == nil {
		return "", errors.New("signing a client assertion: the connection has no key")
	}
	now := c.now()
	t := jwt.NewWithClaims(jwt.SigningMethodRS256, jwt.MapClaims{
		"iss": p.ClientID, "sub": p.ClientID, "aud": audience, "jti": random(), "iat": now.Unix(), "exp": now.Add(assertionLife).Unix(),
	})
	if _, ok := p.Key.Private.(*ecdsa.PrivateKey); ok {
		t.Method = jwt.SigningMethodES256
	}
	t.Header["alg"], t.Header["kid"] = t.Method.Alg(), p.Key.ID
	signed, err := t.SignedString(p.Key.Private)
	if err != nil {
		return "", &sallyport.Error{Kind: sallyport.Invalid, Field: "method", Msg: "the connection's key cannot sign", Err: err}
	}
	return signed, nil
}
