package credential_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/go-cmp/cmp"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/credential"
)

const (
	tokenIssuer   = "https://id.example.com"
	tokenAudience = "https://cloud.example.com"
)

func tokenKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func checksWith(key *ecdsa.PrivateKey) func(string) (credential.TokenKey, bool) {
	return func(kid string) (credential.TokenKey, bool) {
		return credential.TokenKey{Public: &key.PublicKey, Issuer: tokenIssuer, Audiences: []string{tokenAudience, "second"}}, kid == "kid"
	}
}

var tokenTime = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

func someToken() credential.Token {
	sum := sha256.Sum256([]byte("certificate"))
	return credential.Token{ID: "tok_1", Account: "f45a2", Principal: sallyport.Principal{Kind: sallyport.ServiceAccount, ID: "sa_1"}, Epoch: 3,
		Rule: "wif_1", RuleVersion: 2, ReadOnly: true, Namespaces: []sallyport.NamespaceID{"ns_1", "ns_2"}, Audience: []string{tokenAudience},
		Issued: tokenTime, Expires: tokenTime.Add(10 * time.Minute), Certificate: sum[:], Scope: "read", Signer: "kid"}
}

func signed(t testing.TB, token credential.Token, key *ecdsa.PrivateKey) string {
	t.Helper()
	raw, err := credential.SignToken(token, tokenIssuer, "kid", key)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestToken(t *testing.T) {
	key := tokenKey(t)
	byKey := someToken()
	byKey.Rule, byKey.RuleVersion, byKey.Key = "", 0, "abcdefghijklmnop"
	byKey.ReadOnly, byKey.Namespaces, byKey.Certificate, byKey.Scope = false, nil, nil, ""
	for _, want := range []credential.Token{someToken(), byKey} {
		for range 20 { // signatures whose halves begin with zeros come along
			raw := signed(t, want, key)
			if !credential.IsToken(raw) {
				t.Errorf("%s is no token by its form", raw)
			}
			got, err := credential.VerifyToken(raw, checksWith(key), tokenTime.Add(9*time.Minute))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		}
	}
	for _, not := range []string{"", "sp_f45a2_x", "a.b.c", "ey.x", "eyJ.a.b.c"} {
		if credential.IsToken(not) {
			t.Errorf("%q is a token by its form", not)
		}
	}
}

// What the profile does not allow is not signed.
func TestSignTokenRefuses(t *testing.T) {
	key := tokenKey(t)
	for name, change := range map[string]func(*credential.Token){
		"no id":             func(t *credential.Token) { t.ID = "" },
		"no audience":       func(t *credential.Token) { t.Audience = nil },
		"two origins":       func(t *credential.Token) { t.Key = "abcdefghijklmnop" },
		"no origin":         func(t *credential.Token) { t.Rule, t.RuleVersion = "", 0 },
		"no version":        func(t *credential.Token) { t.RuleVersion = 0 },
		"a user":            func(t *credential.Token) { t.Principal.ID = "u_1" },
		"too long":          func(t *credential.Token) { t.Expires = t.Issued.Add(61 * time.Minute) },
		"no time":           func(t *credential.Token) { t.Expires = t.Issued },
		"no account":        func(t *credential.Token) { t.Account = "" },
		"a short cnf":       func(t *credential.Token) { t.Certificate = []byte{1} },
		"not a namespace":   func(t *credential.Token) { t.Namespaces = []sallyport.NamespaceID{"orders"} },
		"namespaces enough": func(t *credential.Token) { t.Namespaces = make([]sallyport.NamespaceID, 101) },
		"a long scope":      func(t *credential.Token) { t.Scope = strings.Repeat("x", 9000) },
	} {
		token := someToken()
		change(&token)
		if raw, err := credential.SignToken(token, tokenIssuer, "kid", key); err == nil {
			t.Errorf("%s: it was signed: %s", name, raw)
		}
	}
	wide, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := credential.SignToken(someToken(), tokenIssuer, "kid", wide); err == nil {
		t.Error("it was signed with a P-384 key")
	}
}

// forge signs whatever header and claims with the right key.
func forge(t testing.TB, key *ecdsa.PrivateKey, header, claims map[string]any) string {
	t.Helper()
	parts := make([]string, 2)
	for n, m := range []map[string]any{header, claims} {
		text, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		parts[n] = base64.RawURLEncoding.EncodeToString(text)
	}
	text := parts[0] + "." + parts[1]
	signature, err := jwt.SigningMethodES256.Sign(text, key)
	if err != nil {
		t.Fatal(err)
	}
	return text + "." + base64.RawURLEncoding.EncodeToString(signature)
}

func parts(t testing.TB, raw string) (header, claims map[string]any) {
	t.Helper()
	split := strings.Split(raw, ".")
	for n, to := range []*map[string]any{&header, &claims} {
		text, err := base64.RawURLEncoding.DecodeString(split[n])
		if err == nil {
			err = json.Unmarshal(text, to)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return header, claims
}

func TestHostileTokens(t *testing.T) {
	key, other := tokenKey(t), tokenKey(t)
	raw := signed(t, someToken(), key)
	spki, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	with := func(inHeader bool, name string, value any) string {
		header, claims := parts(t, raw)
		m := claims
		if inHeader {
			m = header
		}
		if m[name] = value; value == nil {
			delete(m, name)
		}
		return forge(t, key, header, claims)
	}
	split := strings.Split(raw, ".")
	none := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","typ":"at+jwt","kid":"kid"}`))
	_, claims := parts(t, raw)
	hs := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims(claims))
	hs.Header["typ"], hs.Header["kid"] = "at+jwt", "kid"
	hmac, err := hs.SignedString(spki)
	if err != nil {
		t.Fatal(err)
	}
	for name, hostile := range map[string]string{
		"none":                     none + "." + split[1] + ".",
		"none, with a signature":   none + "." + split[1] + "." + split[2],
		"HS256 by the public key":  hmac,
		"another key":              signed(t, someToken(), other),
		"mutilated":                raw[:len(raw)-6] + "AAAAAA",
		"cut":                      raw[:len(raw)-2],
		"zeros":                    split[0] + "." + split[1] + "." + base64.RawURLEncoding.EncodeToString(make([]byte, 64)),
		"a DER signature":          split[0] + "." + split[1] + "." + base64.RawURLEncoding.EncodeToString(append([]byte{0x30, 0x44}, make([]byte, 68)...)),
		"padded":                   raw + "==",
		"with lines":               raw[:9] + "\r\n" + raw[9:],
		"empty":                    "",
		"dots":                     "..",
		"four parts":               raw + ".x",
		"too long":                 with(false, "scope", strings.Repeat("x", 9<<10)),
		"nested":                   base64.RawURLEncoding.EncodeToString([]byte(strings.Repeat("[", 3000))) + "." + split[1] + "." + split[2],
		"typ JWT":                  with(true, "typ", "JWT"),
		"no typ":                   with(true, "typ", nil),
		"an unknown key id":        with(true, "kid", "another"),
		"no key id":                with(true, "kid", nil),
		"a key id of numbers":      with(true, "kid", 1),
		"a long key id":            with(true, "kid", strings.Repeat("k", 200)),
		"jwk":                      with(true, "jwk", map[string]any{"kty": "EC"}),
		"jku":                      with(true, "jku", "https://evil.example.com"),
		"x5u":                      with(true, "x5u", "https://evil.example.com"),
		"x5c":                      with(true, "x5c", []string{"AAAA"}),
		"crit":                     with(true, "crit", []string{"exp"}),
		"b64":                      with(true, "b64", false),
		"another issuer":           with(false, "iss", "https://evil.example.com"),
		"iss with a slash":         with(false, "iss", tokenIssuer+"/"),
		"no issuer":                with(false, "iss", nil),
		"another audience":         with(false, "aud", "https://evil.example.com"),
		"one audience too many":    with(false, "aud", []string{tokenAudience, "https://evil.example.com"}),
		"no audience":              with(false, "aud", nil),
		"an empty audience":        with(false, "aud", []string{}),
		"expired":                  with(false, "exp", tokenTime.Add(-time.Second).Unix()),
		"expiring now":             with(false, "exp", tokenTime.Add(time.Minute).Unix()),
		"no expiry":                with(false, "exp", nil),
		"an expiry far away":       with(false, "exp", tokenTime.Add(24*time.Hour).Unix()),
		"an expiry beyond numbers": with(false, "exp", 1e300),
		"an expiry as text":        with(false, "exp", "9999999999"),
		"issued tomorrow":          with(false, "iat", tokenTime.Add(24*time.Hour).Unix()),
		"no subject":               with(false, "sub", nil),
		"another client":           with(false, "client_id", "sa_2"),
		"a user":                   with(false, "sub", "u_1"),
		"no account":               with(false, "account", nil),
		"an account with a slash":  with(false, "account", "f45a2/x"),
		"no origin":                with(false, "rule", nil),
		"two origins":              with(false, "key", "abcdefghijklmnop"),
		"an unknown claim":         with(false, "only_on_tuesdays", true),
		"a namespace's name":       with(false, "namespaces", []string{"orders"}),
		"a cnf of another kind":    with(false, "cnf", map[string]any{"jkt": "x"}),
		"an empty cnf":             with(false, "cnf", map[string]any{}),
		"a list":                   forge(t, key, map[string]any{"alg": "ES256", "typ": "at+jwt", "kid": "kid"}, nil),
	} {
		got, err := credential.VerifyToken(hostile, checksWith(key), tokenTime.Add(time.Minute))
		if !errors.Is(err, sallyport.Unauthenticated) {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
		if err != nil && len(hostile) > 100 && strings.Contains(err.Error(), hostile[len(hostile)-20:]) {
			t.Errorf("%s: the token is in the error %v", name, err)
		}
	}
	if _, err := credential.VerifyToken(raw, checksWith(key), tokenTime.Add(time.Minute)); err != nil {
		t.Errorf("the good one: %v", err)
	}
	wide, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, k := range map[string]credential.TokenKey{
		"no key": {Issuer: tokenIssuer, Audiences: []string{tokenAudience}}, "another curve": {Public: &wide.PublicKey, Issuer: tokenIssuer, Audiences: []string{tokenAudience}},
		"no issuer": {Public: &key.PublicKey, Audiences: []string{tokenAudience}}, "no audiences": {Public: &key.PublicKey, Issuer: tokenIssuer},
	} {
		if _, err := credential.VerifyToken(raw, func(string) (credential.TokenKey, bool) { return k, true }, tokenTime.Add(time.Minute)); err == nil {
			t.Errorf("%s: it was taken", name)
		}
	}
}

func FuzzVerifyToken(f *testing.F) {
	key := tokenKey(f)
	raw := signed(f, someToken(), key)
	f.Add(raw)
	f.Add("eyJhbGciOiJub25lIn0.e30.")
	f.Add("eyJhbGciOiJFUzI1NiIsInR5cCI6ImF0K2p3dCIsImtpZCI6ImtpZCJ9.W10.AA")
	f.Fuzz(func(t *testing.T, input string) {
		got, err := credential.VerifyToken(input, checksWith(key), tokenTime)
		if err == nil && input != raw {
			t.Errorf("%q was taken: %+v", input, got)
		}
		if err != nil && !errors.Is(err, sallyport.Unauthenticated) {
			t.Errorf("got %v", err)
		}
	})
}

// BenchmarkToken: making a token beside the bare signature in it, and checking one.
func BenchmarkToken(b *testing.B) {
	key := tokenKey(b)
	token := someToken()
	raw := signed(b, token, key)
	digest := sha256.Sum256([]byte(raw))
	b.Run("bare signature", func(b *testing.B) {
		for b.Loop() {
			if _, err := ecdsa.SignASN1(rand.Reader, key, digest[:]); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("sign", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := credential.SignToken(token, tokenIssuer, "kid", key); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("verify", func(b *testing.B) {
		b.ReportAllocs()
		keys := checksWith(key)
		for b.Loop() {
			if _, err := credential.VerifyToken(raw, keys, tokenTime); err != nil {
				b.Fatal(err)
			}
		}
	})
}
