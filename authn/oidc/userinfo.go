package oidc

import (
	"context"
	"net/http"
)

// userInfo asks the userinfo endpoint (OpenID Connect Core 1.0 §5.3) for what the ID
// token does not say: nil where that is not needed, or there is none. Google and
// Microsoft say all in the token.
func (c *Client) userInfo(ctx context.Context, p Provider, m Metadata, token claims, access string) (claims, error) {
	if p.Kind != OpenID || m.UserInfo == "" || p.complete(token) {
		return nil, nil
	}
	response, err := c.get(ctx, m.UserInfo, access, "application/json")
	if err != nil {
		return nil, err
	}
	more, err := decodeJSON(response)
	if err != nil {
		return nil, refuse(BadToken, "the userinfo endpoint's answer: %v; signed answers are not supported", err)
	}
	// §5.3.2: or an access token of somebody else would bring his e-mail along.
	if more.text("sub") != token.text("sub") {
		return nil, refuse(WrongSubject, "the userinfo endpoint speaks of %s, the ID token of %s", show(more["sub"]), show(token["sub"]))
	}
	return more, nil
}

// complete reports whether the ID token has all that is looked for.
func (p Provider) complete(token claims) bool {
	m := p.Claims.names()
	return token.has(m.Email) && token.has(m.Name) && token.has(m.Groups) && token.has(m.External)
}

// get asks an endpoint of the provider with the access token.
func (c *Client) get(ctx context.Context, address, access, accept string) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, refuse(Unreachable, "%s is not a URL", show(address))
	}
	r.Header.Set("Accept", accept)
	r.Header.Set("Authorization", "Bearer "+access)
	response, err := c.fetch.Do(r)
	if err != nil {
		return nil, unreachable(err)
	}
	if response.Status != http.StatusOK {
		return nil, refuse(Unreachable, "%s answers with the status %d", show(address), response.Status)
	}
	return response.Body, nil
}
