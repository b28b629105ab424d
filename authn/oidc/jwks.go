package oidc

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/go-jose/go-jose/v4"
)

const (
	maxKeys = 100
	minRSA  = 2048 // bits
	maxRSA  = 8192 // more would make each check of a signature slow
)

// key is a public key of a provider, and what it may check.
type key struct {
	id         string
	public     any
	algorithms []string
	issuer     string // Microsoft: whose tokens it signs, maybe with {tenantid}; "" if it does not say
}

// keySet are the keys of a provider that can be used.
type keySet []key

// parseKeySet reads a JSON Web Key Set. Keys that cannot be used are left out, of
// whatever kind; one with a private or a symmetric key in it is refused whole, since
// it was published by mistake and anyone can sign with it.
func parseKeySet(data []byte) (keySet, error) {
	object, err := decodeJSON(data)
	if err != nil {
		return nil, fmt.Errorf("is not a JSON Web Key Set: %w", err)
	}
	list, ok := object["keys"].([]any)
	if !ok {
		return nil, errors.New("is not a JSON Web Key Set: it has no list of keys")
	}
	if len(list) > maxKeys {
		return nil, fmt.Errorf("has more than %d keys", maxKeys)
	}
	var set keySet
	for _, entry := range list {
		fields, _ := entry.(map[string]any)
		if fields["d"] != nil || fields["k"] != nil {
			return nil, errors.New("has a private or secret key in it: the provider must replace it, and publish only the public one")
		}
		if k, ok := parseKey(fields); ok {
			set = append(set, k)
		}
	}
	if len(set) == 0 {
		return nil, errors.New("has no public key that an allowed algorithm can use")
	}
	return set, nil
}

func parseKey(fields claims) (key, bool) {
	for _, name := range []string{"x5c", "x5u", "x5t", "x5t#S256"} { // certificates count for nothing here
		delete(fields, name)
	}
	// RFC 7517 §4.3: what the key is for, where it says so.
	if operations, ok := fields.texts("key_ops"); fields.has("key_ops") && (!ok || !slices.Contains(operations, "verify")) {
		return key{}, false
	}
	text, err := json.Marshal(fields)
	if err != nil {
		return key{}, false
	}
	var parsed jose.JSONWebKey
	if parsed.UnmarshalJSON(text) != nil || !parsed.IsPublic() || !parsed.Valid() {
		return key{}, false
	}
	k := key{id: parsed.KeyID, public: parsed.Key, algorithms: algorithmsOf(parsed), issuer: fields.text("issuer")}
	return k, len(k.algorithms) > 0 && len(k.id) <= maxKeyID
}

// algorithmsOf are the algorithms that the key may check.
func algorithmsOf(k jose.JSONWebKey) []string {
	var fit []string
	switch public := k.Key.(type) {
	case *rsa.PublicKey:
		if bits := public.N.BitLen(); bits >= minRSA && bits <= maxRSA && public.E >= 3 && public.E%2 == 1 {
			fit = []string{"RS256", "PS256"}
		}
	case *ecdsa.PublicKey:
		switch public.Curve {
		case elliptic.P256():
			fit = []string{"ES256"}
		case elliptic.P384():
			fit = []string{"ES384"}
		}
	case ed25519.PublicKey:
		fit = []string{"EdDSA"}
	}
	switch {
	case k.Use != "" && k.Use != "sig":
		return nil
	case k.Algorithm == "" || k.Algorithm == "Ed25519" && slices.Contains(fit, "EdDSA"): // RFC 9864's name
		return fit
	case slices.Contains(fit, k.Algorithm):
		return []string{k.Algorithm}
	}
	return nil
}

// suitable are the keys that may have signed a token. A token that names no key may
// be of the only one there is for its algorithm.
func (s keySet) suitable(id, algorithm string) []key {
	var keys []key
	for _, k := range s {
		if slices.Contains(k.algorithms, algorithm) && (id == "" || k.id == id) {
			keys = append(keys, k)
		}
	}
	if id == "" && len(keys) > 1 {
		return nil
	}
	return keys
}
