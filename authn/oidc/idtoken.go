package oidc

import (
	"context"
	"crypto/subtle"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
)

// idTokenTypes are what typ may be in an ID token, if it is there: not that of an
// access token or a logout token, which the provider signs with the same keys.
var idTokenTypes = []string{"jwt", "application/jwt", "id_token+jwt"}

// earlier is the time by the clock of a provider that is late.
func (c *Client) earlier() time.Time { return c.now().Add(-skew) }

// checkIDToken checks an ID token as OpenID Connect Core 1.0 §3.1.3.7 says, and
// gives its claims.
func (c *Client) checkIDToken(ctx context.Context, p Provider, m Metadata, kept pending, t tokens) (claims, error) {
	var token *oidc.IDToken
	got, err := c.verifyToken(ctx, p, m, t.id, idTokenTypes, func(v *oidc.IDTokenVerifier) (err error) {
		token, err = v.Verify(ctx, t.id)
		return err
	})
	if err != nil {
		return nil, err
	}
	if subtle.ConstantTimeCompare([]byte(kept.Nonce), []byte(got.text("nonce"))) != 1 || kept.Nonce == "" {
		return nil, refuse(WrongNonce, "the ID token's nonce is not that of this sign-in")
	}
	if sub := got.text("sub"); sub == "" || len(sub) > maxSubject || strings.ContainsFunc(sub, control) {
		return nil, refuse(WrongSubject, "the ID token has no sub, or one of more than %d bytes", maxSubject)
	}
	if issued, _ := got.time("iat"); issued.Before(kept.Begun.Add(-skew)) {
		return nil, refuse(WrongTimes, "the ID token was made at %s, before the sign-in began", issued.Format(time.RFC3339))
	}
	if got.has("at_hash") { // §3.1.3.8: the access token is the one that came with it
		if token.AccessTokenHash != got.text("at_hash") || token.VerifyAccessToken(t.access) != nil {
			return nil, refuse(BadToken, "the ID token's at_hash is not of the access token that came with it")
		}
	}
	return got, c.checkFresh(kept, got)
}

// checkFresh checks that the person signed in anew, where that was asked: a browser
// can take the question out of the request.
func (c *Client) checkFresh(kept pending, got claims) error {
	if kept.Fresh == 0 {
		return nil
	}
	at, ok := got.time("auth_time")
	switch now := c.now(); {
	case !ok:
		return refuse(NotFresh, "the provider does not say when the person signed in (auth_time), though it was asked to")
	case now.Sub(at) > kept.Fresh+skew:
		return refuse(NotFresh, "the person signed in at %s, longer ago than %s", at.Format(time.RFC3339), kept.Fresh)
	case at.Sub(now) > skew:
		return refuse(NotFresh, "the person signed in at %s, which is to come", at.Format(time.RFC3339))
	}
	return nil
}

// checkRegistered checks who made a token, for whom and when. Its signature is good.
func (c *Client) checkRegistered(p Provider, got claims, used key) error {
	if err := p.checkIssued(got, used); err != nil {
		return err
	}
	if err := checkAudience(p.ClientID, got); err != nil {
		return err
	}
	now := c.now()
	issued, isIssued := got.time("iat")
	expires, isExpires := got.time("exp")
	begins, isBegins := got.time("nbf")
	switch {
	case !isIssued || !isExpires || got.has("nbf") && !isBegins:
		return refuse(WrongTimes, "the token's iat, exp or nbf is missing or not a time")
	case now.Sub(expires) > skew:
		return refuse(WrongTimes, "the token expired at %s", expires.Format(time.RFC3339))
	case issued.Sub(now) > skew || begins.Sub(now) > skew:
		return refuse(WrongTimes, "the token is not valid yet; is the provider's clock right?")
	case expires.Before(issued):
		return refuse(WrongTimes, "the token expired before it was made")
	}
	return nil
}

// checkIssued checks who made a token.
func (p Provider) checkIssued(got claims, used key) error {
	if p.Kind == Microsoft {
		return p.checkTenant(got, used)
	}
	if iss := got.text("iss"); iss != p.Issuer { // Google's too: what go-oidc lets pass is of long ago
		return refuse(WrongIssuer, "the token is of the issuer %s, the connection's is %s", show(got["iss"]), show(p.Issuer))
	}
	return nil
}

// checkAudience checks whom a token is for: us, and if for others too, then on our
// asking.
func checkAudience(client string, got claims) error {
	audience, ok := got.texts("aud")
	azp, authorized := got["azp"]
	switch {
	case !ok || len(audience) > maxAudience || !slices.Contains(audience, client):
		return refuse(WrongAudience, "the token is for %s, not for the client id %s", show(got["aud"]), show(client))
	case authorized && azp != client:
		return refuse(WrongAudience, "the token was made for %s (azp), not for the client id %s", show(azp), show(client))
	case len(audience) > 1 && !authorized:
		return refuse(WrongAudience, "the token is for several, %s, and does not say who asked for it (azp)", show(got["aud"]))
	}
	return nil
}
