package token

import (
	"context"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/credential"
)

// Narrow gives what both the limits and the token allow.
func Narrow(l sallyport.Limits, t credential.Token) sallyport.Limits { return narrow(l, t) }

// ParseExternal reads the form of another issuer's token.
func ParseExternal(raw string) error {
	_, err := parseExternal(raw)
	return err
}

// CheckJWS reports whether a signature is taken with the keys of the set.
func CheckJWS(jws string, jwks []byte) bool {
	set, err := parseKeySet(jwks, maxFetchedKeys)
	if err != nil {
		return false
	}
	e, err := parseSigned(jws)
	if err != nil {
		return false
	}
	signed, err := e.signedBy(context.Background(), make(chan struct{}, 1), set.suitable(e.keyID, e.algorithm))
	return err == nil && signed
}

// KeepKeys does once what Run does by and by.
func (i *Issuer) KeepKeys(ctx context.Context, reconfigured bool) error {
	return i.keepKeys(ctx, reconfigured)
}

// KeySet gives a key set as it is kept.
func KeySet(data []byte) ([]byte, error) {
	set, err := parseUploaded(data)
	if err != nil {
		return nil, err
	}
	return set.encode()
}
