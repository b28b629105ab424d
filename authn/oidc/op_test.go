package oidc_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/sallyport-iam/sallyport/authn/oidc"
	"github.com/sallyport-iam/sallyport/internal/fetch"
)

const (
	clientID = "sallyport"
	theCode  = "c0de" // the only one that the op takes
)

// loopback is what the operator of a test lists.
var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}

var (
	keyES256 = must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	keyES384 = must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))
	keyRSA   = must(rsa.GenerateKey(rand.Reader, 2048))
	keyEdDSA = ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	stranger = must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// op is a provider that does what a test tells it to. Without being told anything it
// is a good one. Its fields are set before the sign-in begins.
type op struct {
	t      testing.TB
	server *httptest.Server
	URL    string

	algorithm  jose.SignatureAlgorithm
	key        any               // that it signs with
	keyID      string            // kid in the header; "": none
	saltLength int               // of PS256; zero: as it must be
	keys       []jose.JSONWebKey // that it publishes
	discovery  map[string]any    // over what its document says; nil values leave out
	header     map[string]any    // over the header of its ID token
	claims     map[string]any    // over those of its ID token; nil values leave out
	userinfo   map[string]any
	token      map[string]any // over the answer of its token endpoint
	idToken    func(signed string) string

	document http.HandlerFunc // instead of its discovery document
	keySet   http.HandlerFunc // instead of its key set
	exchange http.HandlerFunc // instead of its token endpoint
	info     http.HandlerFunc // instead of its userinfo endpoint

	keyFetches atomic.Int64
	requested  url.Values // of the last authorization request
	form       url.Values // of the last request for tokens
	basic      [2]string
}

func newOP(t testing.TB) *op {
	o := &op{t: t, algorithm: jose.ES256, key: keyES256, keyID: "one", userinfo: map[string]any{}}
	o.keys = []jose.JSONWebKey{{Key: keyES256.Public(), KeyID: "one", Use: "sig", Algorithm: "ES256"}}
	mux := http.NewServeMux()
	serve := func(pattern string, own *http.HandlerFunc, usual http.HandlerFunc) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if *own != nil {
				(*own)(w, r)
				return
			}
			usual(w, r)
		})
	}
	serve("/.well-known/openid-configuration", &o.document, o.serveDocument)
	serve("/keys", &o.keySet, func(w http.ResponseWriter, _ *http.Request) {
		o.keyFetches.Add(1)
		json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: o.keys})
	})
	serve("/token", &o.exchange, o.serveToken)
	serve("/userinfo", &o.info, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer access" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		json.NewEncoder(w).Encode(merge(map[string]any{"sub": "ada"}, o.userinfo))
	})
	o.server = httptest.NewServer(mux)
	t.Cleanup(o.server.Close)
	o.URL = o.server.URL
	return o
}

func merge(base, over map[string]any) map[string]any {
	all := maps.Clone(base)
	for name, value := range over {
		if value == nil {
			delete(all, name)
			continue
		}
		all[name] = value
	}
	return all
}

func (o *op) serveDocument(w http.ResponseWriter, _ *http.Request) {
	json.NewEncoder(w).Encode(merge(map[string]any{
		"issuer": o.URL, "authorization_endpoint": o.URL + "/authorize", "token_endpoint": o.URL + "/token", "jwks_uri": o.URL + "/keys",
		"userinfo_endpoint": o.URL + "/userinfo", "id_token_signing_alg_values_supported": []string{"RS256", "PS256", "ES256", "ES384", "EdDSA", "HS256", "none"},
		"code_challenge_methods_supported": []string{"plain", "S256"}, "backchannel_logout_supported": true, "backchannel_logout_session_supported": true,
	}, o.discovery))
}

func (o *op) serveToken(w http.ResponseWriter, r *http.Request) {
	r.ParseForm()
	o.form = r.PostForm
	o.basic[0], o.basic[1], _ = r.BasicAuth()
	challenge := sha256.Sum256([]byte(r.PostForm.Get("code_verifier")))
	if r.PostForm.Get("code") != theCode || base64.RawURLEncoding.EncodeToString(challenge[:]) != o.requested.Get("code_challenge") {
		w.WriteHeader(http.StatusBadRequest)
		json.NewEncoder(w).Encode(map[string]string{"error": "invalid_grant", "error_description": "the code " + r.PostForm.Get("code") + " is none"})
		return
	}
	now := time.Now()
	signed := o.sign(merge(map[string]any{
		"iss": o.URL, "sub": "ada", "aud": clientID, "iat": now.Unix(), "exp": now.Add(5 * time.Minute).Unix(), "nonce": o.requested.Get("nonce"),
		"email": "ada@example.com", "email_verified": true, "name": "Ada", "groups": []string{"engineers"}, "sid": "s1", "auth_time": now.Unix(),
	}, o.claims), nil)
	if o.idToken != nil {
		signed = o.idToken(signed)
	}
	json.NewEncoder(w).Encode(merge(map[string]any{"access_token": "access", "token_type": "Bearer", "expires_in": 300, "id_token": signed}, o.token))
}

// sign signs claims, with the op's header and the given one over it.
func (o *op) sign(claims, header map[string]any) string {
	o.t.Helper()
	payload := must(json.Marshal(claims))
	if o.saltLength != 0 {
		return signSalted(o.t, o.key.(*rsa.PrivateKey), o.saltLength, o.keyID, payload)
	}
	return signRaw(o.t, o.algorithm, o.key, merge(merge(map[string]any{"typ": "JWT", "kid": o.keyID}, o.header), header), payload)
}

// signSalted signs with PS256 and a salt of any length.
func signSalted(t testing.TB, key *rsa.PrivateKey, length int, keyID string, payload []byte) string {
	t.Helper()
	first := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"PS256","kid":"`+keyID+`"}`)) + "." + base64.RawURLEncoding.EncodeToString(payload)
	digest := sha256.Sum256([]byte(first))
	signature, err := rsa.SignPSS(rand.Reader, key, crypto.SHA256, digest[:], &rsa.PSSOptions{SaltLength: length})
	if err != nil {
		t.Fatal(err)
	}
	return first + "." + base64.RawURLEncoding.EncodeToString(signature)
}

// signText signs the first two parts of a JWS with ES256.
func signText(t testing.TB, key *ecdsa.PrivateKey, first string) string {
	t.Helper()
	digest := sha256.Sum256([]byte(first))
	r, s, err := ecdsa.Sign(rand.Reader, key, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	return first + "." + base64.RawURLEncoding.EncodeToString(append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...))
}

// signRaw makes a JWS with any header, as no library would.
func signRaw(t testing.TB, algorithm jose.SignatureAlgorithm, key any, header map[string]any, payload []byte) string {
	t.Helper()
	full := merge(map[string]any{"alg": string(algorithm)}, header)
	first := base64.RawURLEncoding.EncodeToString(must(json.Marshal(full))) + "." + base64.RawURLEncoding.EncodeToString(payload)
	digest256, digest384 := sha256.Sum256([]byte(first)), crypto.SHA384.New()
	digest384.Write([]byte(first))
	var signature []byte
	switch k := key.(type) {
	case *ecdsa.PrivateKey:
		digest := digest256[:]
		if k.Curve == elliptic.P384() {
			digest = digest384.Sum(nil)
		}
		size := k.Curve.Params().BitSize / 8
		r, s, err := ecdsa.Sign(rand.Reader, k, digest)
		if err != nil {
			t.Fatal(err)
		}
		signature = append(r.FillBytes(make([]byte, size)), s.FillBytes(make([]byte, size))...)
	case *rsa.PrivateKey:
		if algorithm == jose.PS256 {
			signature = must(rsa.SignPSS(rand.Reader, k, crypto.SHA256, digest256[:], &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash}))
		} else {
			signature = must(rsa.SignPKCS1v15(rand.Reader, k, crypto.SHA256, digest256[:]))
		}
	case ed25519.PrivateKey:
		signature = ed25519.Sign(k, []byte(first))
	}
	return first + "." + base64.RawURLEncoding.EncodeToString(signature)
}

// provider is the connection to the op.
func (o *op) provider() oidc.Provider {
	return oidc.Provider{Kind: oidc.OpenID, Issuer: o.URL, ClientID: clientID, Secret: "s3cret/+", RedirectURI: "https://id.example.com/sso/c1/callback"}
}

func newClient(t testing.TB, now func() time.Time) *oidc.Client {
	t.Helper()
	client, err := oidc.New(oidc.Config{Fetch: fetch.New(fetch.Config{Allowed: loopback, Timeout: 2 * time.Second}), Now: now})
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// begin begins a sign-in, and has the Pending kept and read again.
func (o *op) begin(client *oidc.Client, p oidc.Provider, options oidc.Options) (oidc.Pending, error) {
	o.t.Helper()
	address, begun, err := client.Begin(context.Background(), p, options)
	if err != nil {
		return oidc.Pending{}, err
	}
	o.requested = must(url.Parse(address)).Query()
	var kept oidc.Pending
	if err := kept.UnmarshalBinary(must(begun.MarshalBinary())); err != nil {
		o.t.Fatal(err)
	}
	return kept, nil
}

// signIn signs in once, with an honest browser.
func (o *op) signIn(client *oidc.Client, p oidc.Provider, options oidc.Options) (oidc.Login, error) {
	o.t.Helper()
	kept, err := o.begin(client, p, options)
	if err != nil {
		return oidc.Login{}, err
	}
	back, err := oidc.ParseCallback(url.Values{"state": {o.requested.Get("state")}, "code": {theCode}}.Encode())
	if err != nil {
		return oidc.Login{}, err
	}
	return client.Finish(context.Background(), p, kept, back)
}

// reasonOf is the reason of a refusal, "" for any other error.
func reasonOf(err error) oidc.Reason {
	var refusal *oidc.Refusal
	if errors.As(err, &refusal) {
		return refusal.Reason
	}
	return ""
}
