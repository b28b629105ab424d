package oidc

import (
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/coreos/go-oidc/v3/oidc"
	"github.com/go-jose/go-jose/v4"
)

// header is what of a token's header matters.
type header struct{ algorithm, keyID string }

// parseHeader checks the form of a signed token (RFC 7515 §3.1) and its header,
// within bounds. The error says what is wrong and holds nothing of the token.
func parseHeader(raw string, allowed, types []string) (header, error) {
	if len(raw) > maxToken {
		return header{}, fmt.Errorf("it is longer than %d bytes", maxToken)
	}
	parts := strings.Split(raw, ".")
	if len(parts) != 3 || slices.Contains(parts, "") || len(parts[0]) > maxHeader {
		return header{}, errors.New("it is not a JWT of three parts")
	}
	// No line ends, which Go's base64 skips, and no JSON serialization, which go-jose reads too.
	if strings.ContainsFunc(raw, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_' && r != '.'
	}) {
		return header{}, errors.New("it is not base64url")
	}
	data, err := base64.RawURLEncoding.Strict().DecodeString(parts[0])
	if err != nil {
		return header{}, errors.New("its header is not base64url")
	}
	fields, err := decodeJSON(data)
	if err != nil {
		return header{}, fmt.Errorf("its header is malformed: %w", err)
	}
	// What asks for something that is not understood (RFC 7515 §4.1.11), or brings its
	// own key along (RFC 8725 §3.10).
	for _, name := range []string{"crit", "b64", "enc", "zip", "jku", "jwk", "x5u", "x5c"} {
		if _, there := fields[name]; there {
			return header{}, fmt.Errorf("its header has %s, which is not accepted", name)
		}
	}
	h := header{algorithm: fields.text("alg"), keyID: fields.text("kid")}
	_, typed := fields["typ"]
	_, named := fields["kid"]
	switch {
	case !slices.Contains(allowed, h.algorithm):
		return header{}, fmt.Errorf("it is signed with %s; the connection and its provider's discovery document allow %s", show(fields["alg"]), strings.Join(allowed, ", "))
	case len(h.keyID) > maxKeyID || named && h.keyID == "":
		return header{}, errors.New("its key id is not a text of at most 512 bytes")
	case typed && !slices.Contains(types, strings.ToLower(fields.text("typ"))): // RFC 8725 §3.11
		return header{}, fmt.Errorf("its typ, %s, is that of another kind of token", show(fields["typ"]))
	}
	return h, nil
}

// verification is the key set that go-oidc checks one token with. It keeps what it
// found out, since go-oidc makes a text of errors.
type verification struct {
	client   *Client
	provider Provider
	header   header

	used    key    // that made the signature
	claims  claims // of the payload that the signature is over; nil: there is none
	problem error
}

// VerifySignature gives the payload if a key of the provider signed it.
func (v *verification) VerifySignature(ctx context.Context, raw string) ([]byte, error) {
	payload, err := v.verify(ctx, raw)
	v.problem = err
	return payload, err
}

func (v *verification) verify(ctx context.Context, raw string) ([]byte, error) {
	keys, err := v.client.documents.keys(ctx, v.provider, v.header.keyID, v.header.algorithm)
	if err != nil {
		return nil, err
	}
	payload, used, err := signedBy(keys, raw, v.header.algorithm)
	if err != nil {
		return nil, err
	}
	claims, err := decodeJSON(payload)
	if err != nil {
		return nil, refuse(BadToken, "the token's payload is malformed: %v", err)
	}
	v.used, v.claims = used, claims
	return payload, nil
}

// signedBy gives what one of the keys, which are for the algorithm, signed.
func signedBy(keys []key, raw, algorithm string) ([]byte, key, error) {
	signed, err := jose.ParseSigned(raw, []jose.SignatureAlgorithm{jose.SignatureAlgorithm(algorithm)})
	if err != nil {
		return nil, key{}, refuse(BadToken, "the token is not a JWS")
	}
	for _, k := range keys {
		if payload, err := signed.Verify(k.public); err == nil && (algorithm != "PS256" || saltFits(k, raw)) {
			return payload, k, nil
		}
	}
	return nil, key{}, refuse(BadSignature, "the token's signature is not good")
}

// saltFits checks what go-jose leaves open: a PS256 signature has a salt as long as
// the hash (RFC 7518 §3.5).
func saltFits(k key, raw string) bool {
	dot := strings.LastIndexByte(raw, '.')
	signature, err := base64.RawURLEncoding.Strict().DecodeString(raw[dot+1:])
	public, ok := k.public.(*rsa.PublicKey)
	if err != nil || !ok {
		return false
	}
	digest := sha256.Sum256([]byte(raw[:dot]))
	return rsa.VerifyPSS(public, crypto.SHA256, digest[:], signature, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}) == nil
}

// verifyToken checks the form and the signature of a token, has go-oidc check it
// with the function, and checks its issuer, audience and times. Both must find it
// good.
func (c *Client) verifyToken(ctx context.Context, p Provider, m Metadata, raw string, types []string, check func(*oidc.IDTokenVerifier) error) (claims, error) {
	allowed := p.allowed(m)
	h, err := parseHeader(raw, allowed, types)
	if err != nil {
		return nil, refuse(BadToken, "the token is not accepted: %v", err)
	}
	v := &verification{client: c, provider: p, header: h}
	err = check(oidc.NewVerifier(p.Issuer, v, &oidc.Config{
		ClientID: p.ClientID, SupportedSigningAlgs: allowed, Now: c.earlier,
		SkipIssuerCheck: p.Kind == Microsoft, // one issuer a tenant: checkIssued sees to it
	}))
	if v.problem != nil {
		return nil, v.problem
	}
	if v.claims != nil {
		if err := c.checkRegistered(p, v.claims, v.used); err != nil {
			return nil, err
		}
	}
	if err != nil || v.claims == nil {
		return nil, refuse(BadToken, "the token is not accepted: %v", show(fmt.Sprint(err)))
	}
	return v.claims, nil
}
