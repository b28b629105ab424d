package oidc

import (
	"context"
	"slices"
)

// CheckIDToken is the part of Finish that comes after the exchange, without userinfo.
func (c *Client) CheckIDToken(ctx context.Context, p Provider, kept Pending, raw, access string) (Login, error) {
	d, err := c.documents.get(ctx, p)
	if err != nil {
		return Login{}, err
	}
	token, err := c.checkIDToken(ctx, p, d.Metadata, kept.kept, tokens{id: raw, access: access})
	if err != nil {
		return Login{}, err
	}
	return p.login(token, nil)
}

// ParsePublished reads what a provider publishes.
func ParsePublished(document, keys []byte, issuer string) (Metadata, error) {
	m, err := parseMetadata(document, issuer)
	if err == nil {
		_, err = parseKeySet(keys)
	}
	return m, err
}

// Supported reports whether tokens may be signed with the algorithm.
func Supported(algorithm string) bool { return slices.Contains(algorithms, algorithm) }

// Open checks the form and the signature of a JWS with a key set.
func Open(keys []byte, raw string) ([]byte, error) {
	set, err := parseKeySet(keys)
	if err != nil {
		return nil, err
	}
	h, err := parseHeader(raw, algorithms, idTokenTypes)
	if err != nil {
		return nil, err
	}
	payload, _, err := signedBy(set.suitable(h.keyID, h.algorithm), raw, h.algorithm)
	return payload, err
}
