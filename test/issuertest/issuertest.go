// Package issuertest is another issuer, for tests: it makes workloads' tokens in
// the shape of any, and publishes its keys.
package issuertest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

// Issuer signs tokens with one key. URL serves its discovery document.
type Issuer struct {
	URL       string
	Type      jose.ContentType // typ of the tokens
	algorithm jose.SignatureAlgorithm
	key       jose.JSONWebKey
}

// New makes an issuer that signs with RS256, ES256 or ES384, and serves its
// documents on loopback until the test ends.
func New(t testing.TB, algorithm jose.SignatureAlgorithm) *Issuer {
	t.Helper()
	key, err := newKey(algorithm)
	if err != nil {
		t.Fatal(err)
	}
	i := &Issuer{Type: "JWT", algorithm: algorithm, key: jose.JSONWebKey{Key: key, KeyID: "key-1", Algorithm: string(algorithm), Use: "sig"}}
	keys := i.JWKS(t)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{"issuer": i.URL, "jwks_uri": i.URL + "/keys", "response_types_supported": []string{"id_token"},
			"subject_types_supported": []string{"public"}, "id_token_signing_alg_values_supported": []string{string(algorithm)}})
	})
	mux.HandleFunc("GET /keys", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(keys) })
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	i.URL = server.URL
	return i
}

func newKey(algorithm jose.SignatureAlgorithm) (crypto.Signer, error) {
	switch algorithm {
	case jose.ES256:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case jose.ES384:
		return ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	}
	return rsa.GenerateKey(rand.Reader, 2048)
}

// JWKS is the issuer's key set.
func (i *Issuer) JWKS(t testing.TB) []byte {
	t.Helper()
	text, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{i.key.Public()}})
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// Token signs the claims. Unless they say otherwise it is of this issuer, made now,
// and good for ten minutes.
func (i *Issuer) Token(t testing.TB, claims map[string]any) string {
	t.Helper()
	all := map[string]any{"iss": i.URL, "iat": time.Now().Unix(), "exp": time.Now().Add(10 * time.Minute).Unix()}
	maps.Copy(all, claims)
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: i.algorithm, Key: i.key}, (&jose.SignerOptions{}).WithType(i.Type))
	if err != nil {
		t.Fatal(err)
	}
	token, err := jwt.Signed(signer).Claims(all).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return token
}
