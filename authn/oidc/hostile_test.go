package oidc_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-cmp/cmp"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authn/oidc"
	"github.com/sallyport-iam/sallyport/internal/fetch"
)

// hostile providers: what each does, and why it is refused.
var hostile = []struct {
	name string
	does func(*op)
	want oidc.Reason
}{
	// The signature and the header.
	{"alg none", func(o *op) { o.idToken = func(s string) string { return reheader(s, `{"alg":"none"}`, "") } }, oidc.BadToken},
	{"alg none, with a signature", func(o *op) {
		o.idToken = func(s string) string { return reheader(s, `{"alg":"none","kid":"one"}`, "AAAA") }
	}, oidc.BadToken},
	{"alg nOnE", func(o *op) { o.idToken = func(s string) string { return reheader(s, `{"alg":"nOnE"}`, "AAAA") } }, oidc.BadToken},
	{"HS256 with the public key", func(o *op) { o.idToken = func(s string) string { return hmacOf(s, publicPEM(o)) } }, oidc.BadToken},
	{"HS256 with the client secret", func(o *op) { o.idToken = func(s string) string { return hmacOf(s, []byte("s3cret/+")) } }, oidc.BadToken},
	{"an algorithm that was not announced", func(o *op) { o.discovery = map[string]any{"id_token_signing_alg_values_supported": []string{"RS256"}} }, oidc.BadToken},
	{"jwk of a stranger in the header", func(o *op) {
		o.key = stranger
		o.header = map[string]any{"jwk": jose.JSONWebKey{Key: stranger.Public()}}
	}, oidc.BadToken},
	{"jku in the header", func(o *op) { o.header = map[string]any{"jku": o.URL + "/keys"} }, oidc.BadToken},
	{"x5u in the header", func(o *op) { o.header = map[string]any{"x5u": o.URL + "/keys"} }, oidc.BadToken},
	{"x5c in the header", func(o *op) { o.header = map[string]any{"x5c": []string{"AAAA"}} }, oidc.BadToken},
	{"crit in the header", func(o *op) { o.header = map[string]any{"crit": []string{"exp"}} }, oidc.BadToken},
	{"b64 in the header", func(o *op) { o.header = map[string]any{"b64": false, "crit": []string{"b64"}} }, oidc.BadToken},
	{"an access token", func(o *op) { o.header = map[string]any{"typ": "at+jwt"} }, oidc.BadToken},
	{"a logout token", func(o *op) { o.header = map[string]any{"typ": "logout+jwt"} }, oidc.BadToken},
	{"typ that is no text", func(o *op) { o.header = map[string]any{"typ": 7} }, oidc.BadToken},
	{"signed by a stranger", func(o *op) { o.key = stranger }, oidc.BadSignature},
	{"an unknown kid", func(o *op) { o.keyID = "two" }, oidc.BadSignature},
	{"a kid of 600 bytes", func(o *op) { o.keyID = strings.Repeat("k", 600) }, oidc.BadToken},
	{"kid that is a path", func(o *op) { o.keyID = "../../../etc/passwd" }, oidc.BadSignature},
	{"no kid, and two keys", func(o *op) {
		o.header = map[string]any{"kid": nil}
		o.keys = append(o.keys, jose.JSONWebKey{Key: stranger.Public(), KeyID: "two"})
	}, oidc.BadSignature},
	{"a changed payload", func(o *op) {
		o.idToken = func(s string) string {
			parts := strings.Split(s, ".")
			parts[1] = base64.RawURLEncoding.EncodeToString([]byte(strings.Replace(decoded(parts[1]), `"ada"`, `"eve"`, 1)))
			return strings.Join(parts, ".")
		}
	}, oidc.BadSignature},
	{"no signature", func(o *op) { o.idToken = func(s string) string { return s[:strings.LastIndexByte(s, '.')+1] } }, oidc.BadToken},
	{"a signature of zeros", func(o *op) {
		o.idToken = func(s string) string {
			return s[:strings.LastIndexByte(s, '.')+1] + base64.RawURLEncoding.EncodeToString(make([]byte, 64))
		}
	}, oidc.BadSignature},
	{"five parts", func(o *op) { o.idToken = func(s string) string { return s + ".e30.e30" } }, oidc.BadToken},
	{"a line end in it", func(o *op) { o.idToken = func(s string) string { return s[:9] + "\n" + s[9:] } }, oidc.BadToken},
	{"the JSON serialization", func(o *op) {
		o.idToken = func(s string) string {
			parts := strings.Split(s, ".")
			return fmt.Sprintf(`{"protected":%q,"payload":%q,"signature":%q}`, parts[0], parts[1], parts[2])
		}
	}, oidc.BadToken},
	{"a token of 1 MB", func(o *op) { o.claims = map[string]any{"pad": strings.Repeat("x", 1<<20)} }, oidc.Unreachable},
	{"a token of 100 KB", func(o *op) { o.claims = map[string]any{"pad": strings.Repeat("x", 100<<10)} }, oidc.BadToken},
	{"a nested payload", func(o *op) {
		o.claims = map[string]any{"deep": json.RawMessage(strings.Repeat("[", 5000) + strings.Repeat("]", 5000))}
	}, oidc.BadToken},
	{"a claim twice", func(o *op) { o.idToken = func(string) string { return o.signRawPayload(`{"sub":"ada","sub":"eve"}`) } }, oidc.BadToken},
	{"a payload that is a list", func(o *op) { o.idToken = func(string) string { return o.signRawPayload(`[]`) } }, oidc.BadToken},
	{"an empty payload", func(o *op) { o.idToken = func(string) string { return o.signRawPayload(`{}`) } }, oidc.WrongIssuer},
	{"a private key in the key set", func(o *op) { o.keys[0].Key = keyES256 }, oidc.Unreachable},
	{"a symmetric key in the key set", func(o *op) { o.keys = []jose.JSONWebKey{{Key: []byte("0123456789abcdef0123456789abcdef")}} }, oidc.Unreachable},
	{"a key for encryption", func(o *op) { o.keys[0].Use = "enc" }, oidc.Unreachable},
	{"a key for another algorithm", func(o *op) { o.keys[0].Algorithm = "ES384" }, oidc.Unreachable},

	// The issuer and whom the token is for.
	{"iss with a slash at the end", func(o *op) { o.claims = map[string]any{"iss": o.URL + "/"} }, oidc.WrongIssuer},
	{"iss of another tenant", func(o *op) { o.claims = map[string]any{"iss": o.URL + "/other"} }, oidc.WrongIssuer},
	{"iss in capitals", func(o *op) { o.claims = map[string]any{"iss": strings.ToUpper(o.URL)} }, oidc.WrongIssuer},
	{"no iss", func(o *op) { o.claims = map[string]any{"iss": nil} }, oidc.WrongIssuer},
	{"iss twice, in another case", func(o *op) { o.claims = map[string]any{"iss": "https://evil.example", "ISS": o.URL} }, oidc.WrongIssuer},
	{"aud of another client", func(o *op) { o.claims = map[string]any{"aud": "other"} }, oidc.WrongAudience},
	{"no aud", func(o *op) { o.claims = map[string]any{"aud": nil} }, oidc.WrongAudience},
	{"an empty list of aud", func(o *op) { o.claims = map[string]any{"aud": []string{}} }, oidc.WrongAudience},
	{"aud that begins with the client id", func(o *op) { o.claims = map[string]any{"aud": clientID + "2"} }, oidc.WrongAudience},
	{"a list of aud without azp", func(o *op) { o.claims = map[string]any{"aud": []string{clientID, "other"}} }, oidc.WrongAudience},
	{"a list of aud with another's azp", func(o *op) { o.claims = map[string]any{"aud": []string{clientID, "other"}, "azp": "other"} }, oidc.WrongAudience},
	{"azp of another client", func(o *op) { o.claims = map[string]any{"azp": "other"} }, oidc.WrongAudience},
	{"azp that is no text", func(o *op) { o.claims = map[string]any{"azp": []string{clientID}} }, oidc.WrongAudience},
	{"aud that is an object", func(o *op) { o.claims = map[string]any{"aud": map[string]any{clientID: true}} }, oidc.WrongAudience},
	{"thousands of aud", func(o *op) {
		o.claims = map[string]any{"aud": strings.Split(strings.Repeat("x,", 2000)+clientID, ","), "azp": clientID}
	}, oidc.WrongAudience},

	// Times.
	{"expired", func(o *op) { o.claims = map[string]any{"exp": time.Now().Add(-3 * time.Minute).Unix()} }, oidc.WrongTimes},
	{"no exp", func(o *op) { o.claims = map[string]any{"exp": nil} }, oidc.WrongTimes},
	{"exp that is a text", func(o *op) { o.claims = map[string]any{"exp": "9999999999"} }, oidc.WrongTimes},
	{"exp beyond all times", func(o *op) { o.claims = map[string]any{"exp": json.Number("1e300")} }, oidc.WrongTimes},
	{"a negative exp", func(o *op) { o.claims = map[string]any{"exp": -1} }, oidc.WrongTimes},
	{"no iat", func(o *op) { o.claims = map[string]any{"iat": nil} }, oidc.WrongTimes},
	{"iat in the future", func(o *op) { o.claims = map[string]any{"iat": time.Now().Add(3 * time.Minute).Unix()} }, oidc.WrongTimes},
	{"iat before the sign-in began", func(o *op) { o.claims = map[string]any{"iat": time.Now().Add(-3 * time.Minute).Unix()} }, oidc.WrongTimes},
	{"nbf in the future", func(o *op) { o.claims = map[string]any{"nbf": time.Now().Add(150 * time.Second).Unix()} }, oidc.WrongTimes},

	// What ties the token to this sign-in and to the access token.
	{"no nonce", func(o *op) { o.claims = map[string]any{"nonce": nil} }, oidc.WrongNonce},
	{"an empty nonce", func(o *op) { o.claims = map[string]any{"nonce": ""} }, oidc.WrongNonce},
	{"the nonce of another sign-in", func(o *op) { o.claims = map[string]any{"nonce": "other"} }, oidc.WrongNonce},
	{"a list of nonces", func(o *op) { o.claims = map[string]any{"nonce": []string{"a"}} }, oidc.BadToken},
	{"at_hash of another token", func(o *op) { o.claims = map[string]any{"at_hash": "AAAAAAAAAAAAAAAAAAAAAA"} }, oidc.BadToken},
	{"at_hash that is no text", func(o *op) { o.claims = map[string]any{"at_hash": 7} }, oidc.BadToken},
	{"no sub", func(o *op) { o.claims = map[string]any{"sub": nil} }, oidc.WrongSubject},
	{"an empty sub", func(o *op) { o.claims = map[string]any{"sub": ""} }, oidc.WrongSubject},
	{"a sub of 300 bytes", func(o *op) { o.claims = map[string]any{"sub": strings.Repeat("s", 300)} }, oidc.WrongSubject},
	{"a sub with a line end", func(o *op) { o.claims = map[string]any{"sub": "ada\nadmin"} }, oidc.WrongSubject},
	{"userinfo of somebody else", func(o *op) {
		o.claims = map[string]any{"email": nil}
		o.userinfo = map[string]any{"sub": "eve", "email": "eve@example.com"}
	}, oidc.WrongSubject},
	{"userinfo of nobody", func(o *op) {
		o.claims = map[string]any{"email": nil}
		o.userinfo = map[string]any{"sub": nil, "email": "eve@example.com"}
	}, oidc.WrongSubject},
	{"userinfo that is no JSON", func(o *op) {
		o.claims = map[string]any{"email": nil}
		o.info = func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "eyJhbGciOiJub25lIn0.e30.") }
	}, oidc.BadToken},
	{"userinfo of 10 MB", func(o *op) {
		o.claims = map[string]any{"email": nil}
		o.info = endless
	}, oidc.Unreachable},
	{"a distributed claim with no source", func(o *op) { o.claims = map[string]any{"_claim_names": map[string]string{"email": "src"}} }, oidc.BadToken},

	// The token endpoint.
	{"no id_token", func(o *op) { o.token = map[string]any{"id_token": nil} }, oidc.BadExchange},
	{"no access_token", func(o *op) { o.token = map[string]any{"access_token": nil} }, oidc.BadExchange},
	{"an access token with a header in it", func(o *op) { o.token = map[string]any{"access_token": "a\r\nX: y"} }, oidc.BadExchange},
	{"a token of another type", func(o *op) { o.token = map[string]any{"token_type": "DPoP"} }, oidc.BadExchange},
	{"a token answer of 10 MB", func(o *op) { o.exchange = endless }, oidc.Unreachable},
	{"a slow token answer", func(o *op) { o.exchange = slow }, oidc.Unreachable},
	{"a token endpoint that redirects", func(o *op) {
		o.exchange = func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
		}
	}, oidc.Unreachable},
	{"a token endpoint with HTML", func(o *op) { o.exchange = func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") } }, oidc.BadExchange},
	{"a token endpoint with 500", func(o *op) { o.exchange = func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(500) } }, oidc.Unreachable},
	{"an error with 200", func(o *op) { o.token = map[string]any{"error": "access_denied"} }, oidc.BadExchange},
	{"an answer whose keys are there twice", func(o *op) {
		o.exchange = func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, `{"access_token":"a","token_type":"Bearer","id_token":"a","id_token":"b"}`)
		}
	}, oidc.BadExchange},

	// What is published.
	{"discovery of another issuer", func(o *op) { o.discovery = map[string]any{"issuer": "https://login.example.com"} }, oidc.Unreachable},
	{"discovery with a slash at the end", func(o *op) { o.discovery = map[string]any{"issuer": o.URL + "/"} }, oidc.Unreachable},
	{"discovery without issuer", func(o *op) { o.discovery = map[string]any{"issuer": nil} }, oidc.Unreachable},
	{"discovery that redirects", func(o *op) {
		o.document = func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/other", http.StatusFound) }
	}, oidc.Unreachable},
	{"discovery of 10 MB", func(o *op) { o.document = endless }, oidc.Unreachable},
	{"slow discovery", func(o *op) { o.document = slow }, oidc.Unreachable},
	{"an authorization endpoint that is a script", func(o *op) { o.discovery = map[string]any{"authorization_endpoint": "javascript:alert(1)"} }, oidc.Unreachable},
	{"a token endpoint that is a file", func(o *op) { o.discovery = map[string]any{"token_endpoint": "file:///etc/passwd"} }, oidc.Unreachable},
	{"a token endpoint in a private network", func(o *op) { o.discovery = map[string]any{"token_endpoint": "https://10.0.0.1/token"} }, oidc.Unreachable},
	{"keys at the metadata service", func(o *op) { o.discovery = map[string]any{"jwks_uri": "http://169.254.169.254/latest"} }, oidc.Unreachable},
	{"keys in a private network, mapped", func(o *op) { o.discovery = map[string]any{"jwks_uri": "https://[::ffff:10.0.0.1]/keys"} }, oidc.Unreachable},
	{"keys behind a user", func(o *op) {
		o.discovery = map[string]any{"jwks_uri": strings.Replace(o.URL, "//", "//login.example.com@", 1) + "/keys"}
	}, oidc.Unreachable},
	{"only plain PKCE", func(o *op) { o.discovery = map[string]any{"code_challenge_methods_supported": []string{"plain"}} }, oidc.Unreachable},
	{"only HS256", func(o *op) {
		o.discovery = map[string]any{"id_token_signing_alg_values_supported": []string{"HS256", "none"}}
	}, oidc.Unreachable},
	{"a key set that redirects", func(o *op) {
		o.keySet = func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://169.254.169.254/", http.StatusFound)
		}
	}, oidc.Unreachable},
	{"a key set of 10 MB", func(o *op) { o.keySet = endless }, oidc.Unreachable},
	{"a slow key set", func(o *op) { o.keySet = slow }, oidc.Unreachable},
	{"thousands of keys", func(o *op) {
		o.keySet = func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, `{"keys":[`+strings.Repeat(`{"kty":"EC"},`, 5000)+`{}]}`)
		}
	}, oidc.Unreachable},
	{"an empty key set", func(o *op) { o.keySet = func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"keys":[]}`) } }, oidc.Unreachable},
	{"a key that is not on its curve", func(o *op) {
		o.keySet = func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, `{"keys":[{"kty":"EC","crv":"P-256","kid":"one","x":"AQ","y":"AQ"}]}`)
		}
	}, oidc.Unreachable},
	{"an RSA key of 1024 bits", func(o *op) {
		o.keySet = func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(w, `{"keys":[{"kty":"RSA","kid":"one","e":"AQAB","n":%q}]}`, base64.RawURLEncoding.EncodeToString(keyRSA.N.Bytes()[:128]))
		}
	}, oidc.Unreachable},
}

func TestHostileProviders(t *testing.T) {
	t.Parallel()
	for _, test := range hostile {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			o := newOP(t)
			test.does(o)
			started := time.Now()
			login, err := o.signIn(newClient(t, nil), o.provider(), oidc.Options{})
			if err == nil {
				t.Fatalf("got the identity %+v", login.Identity)
			}
			checkRefused(t, login, err, test.want)
			if took := time.Since(started); took > 8*time.Second {
				t.Errorf("took %s", took)
			}
		})
	}
}

// checkRefused checks that there is no identity, and that strangers learn nothing.
func checkRefused(t *testing.T, login oidc.Login, err error, want oidc.Reason) {
	t.Helper()
	if diff := cmp.Diff(oidc.Login{}, login); diff != "" {
		t.Errorf("there is an identity (-want +got):\n%s", diff)
	}
	if got := reasonOf(err); got != want {
		t.Errorf("refused for %q, want %q: %v", got, want, err)
	}
	var known *sallyport.Error
	if !errors.As(err, &known) {
		t.Fatalf("the error is not one that may be shown: %v", err)
	}
	kind := sallyport.Unauthenticated
	if want == oidc.Unreachable {
		kind = sallyport.Unavailable
	}
	if known.Kind != kind {
		t.Errorf("the kind is %q, want %q", known.Kind, kind)
	}
	for _, secret := range []string{"ada", "127.0.0.1", "example", "nonce", "s3cret"} {
		if strings.Contains(known.Msg, secret) {
			t.Errorf("strangers read %q in: %s", secret, known.Msg)
		}
	}
	if len(err.Error()) > 2000 || strings.Contains(err.Error(), "s3cret") {
		t.Errorf("the audit log gets too much: %s", err)
	}
}

func endless(w http.ResponseWriter, _ *http.Request) {
	chunk := []byte(strings.Repeat(" ", 64<<10))
	for range 160 {
		if _, err := w.Write(chunk); err != nil {
			return
		}
	}
}

// slow answers byte by byte, for longer than anybody waits.
func slow(w http.ResponseWriter, r *http.Request) {
	for range 100 {
		select {
		case <-r.Context().Done():
			return
		case <-time.After(50 * time.Millisecond):
		}
		fmt.Fprint(w, " ")
		w.(http.Flusher).Flush()
	}
}

func decoded(part string) string { return string(must(base64.RawURLEncoding.DecodeString(part))) }

func reheader(signed, header, signature string) string {
	parts := strings.Split(signed, ".")
	return base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + parts[1] + "." + signature
}

func publicPEM(*op) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: must(x509.MarshalPKIXPublicKey(keyES256.Public().(*ecdsa.PublicKey)))})
}

func hmacOf(signed string, secret []byte) string {
	first := reheader(signed, `{"alg":"HS256","kid":"one"}`, "")
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(strings.TrimSuffix(first, ".")))
	return first + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

func (o *op) signRawPayload(payload string) string {
	return signRaw(o.t, o.algorithm, o.key, map[string]any{"kid": o.keyID}, []byte(payload))
}

// Hostile browsers: what comes back, and why it is refused.
func TestHostileCallbacks(t *testing.T) {
	t.Parallel()
	o := newOP(t)
	o.discovery = map[string]any{"authorization_response_iss_parameter_supported": true}
	now := time.Now()
	client := newClient(t, func() time.Time { return now })
	p := o.provider()
	other := p
	other.RedirectURI = "https://id.example.com/sso/c2/callback"
	elsewhere := must(o.begin(client, p, oidc.Options{}))
	kept := must(o.begin(client, p, oidc.Options{}))
	good := func() url.Values { return url.Values{"state": {kept.State()}, "code": {theCode}, "iss": {o.URL}} }
	with := func(name string, values ...string) url.Values { v := good(); v[name] = values; return v }
	for _, test := range []struct {
		name  string
		query url.Values
		kept  oidc.Pending
		p     oidc.Provider
		later time.Duration
		want  oidc.Reason
	}{
		{name: "no state", query: with("state"), want: oidc.BadCallback},
		{name: "an empty state", query: with("state", ""), want: oidc.BadCallback},
		{name: "a long state", query: with("state", strings.Repeat("s", 2000)), want: oidc.BadCallback},
		{name: "two states", query: with("state", kept.State(), kept.State()), want: oidc.BadCallback},
		{name: "two codes", query: with("code", theCode, "other"), want: oidc.BadCallback},
		{name: "two issuers", query: with("iss", o.URL, "https://evil.example"), want: oidc.BadCallback},
		{name: "no code", query: with("code"), want: oidc.BadCallback},
		{name: "a code and an error", query: with("error", "access_denied"), want: oidc.BadCallback},
		{name: "a token beside the code", query: with("id_token", "e30.e30.e30"), want: oidc.BadCallback},
		{name: "a long code", query: with("code", strings.Repeat("c", 9000)), want: oidc.BadCallback},
		{name: "a callback of 20 KB", query: with("x", strings.Repeat("c", 20000)), want: oidc.BadCallback},
		{name: "another state", query: with("state", "other"), want: oidc.WrongState},
		{name: "the state of another browser", query: good(), kept: elsewhere, want: oidc.WrongState},
		{name: "nothing pending", query: good(), kept: oidc.Pending{}, want: oidc.WrongState},
		{name: "too late", query: good(), later: 16 * time.Minute, want: oidc.Expired},
		{name: "of another connection", query: good(), p: other, want: oidc.Changed},
		{name: "of another issuer", query: with("iss", "https://evil.example"), want: oidc.WrongIssuer},
		{name: "iss with a slash", query: with("iss", o.URL+"/"), want: oidc.WrongIssuer},
		{name: "iss stripped", query: with("iss"), want: oidc.WrongIssuer},
		{name: "an error of another issuer", query: url.Values{"state": {kept.State()}, "error": {"access_denied"}, "iss": {"https://evil.example"}}, want: oidc.WrongIssuer},
		{name: "an error", query: url.Values{"state": {kept.State()}, "error": {"access_denied"}, "error_description": {"no\x00\u202e!"}, "iss": {o.URL}}, want: oidc.ProviderRefused},
		{name: "another code", query: with("code", "stolen"), want: oidc.BadExchange},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.p.Kind == "" {
				test.p = p
			}
			if test.kept == (oidc.Pending{}) && test.name != "nothing pending" {
				test.kept = kept
			}
			now = time.Now().Add(test.later)
			back, err := oidc.ParseCallback(test.query.Encode())
			var login oidc.Login
			if err == nil {
				login, err = client.Finish(context.Background(), test.p, test.kept, back)
			}
			checkRefused(t, login, err, test.want)
		})
	}
	now = time.Now()
	back := must(oidc.ParseCallback(good().Encode()))
	if _, err := client.Finish(context.Background(), p, kept, back); err != nil {
		t.Errorf("the good callback: %v", err)
	}
}

// The challenge of one sign-in does not let another's code through: PKCE is checked
// by the provider, hence the verifier must be this sign-in's own.
func TestCodeOfAnotherSignIn(t *testing.T) {
	t.Parallel()
	o := newOP(t)
	client := newClient(t, nil)
	kept := must(o.begin(client, o.provider(), oidc.Options{}))
	must(o.begin(client, o.provider(), oidc.Options{})) // the provider's code is now of this one
	login, err := client.Finish(context.Background(), o.provider(), kept, oidc.Callback{State: kept.State(), Code: theCode})
	checkRefused(t, login, err, oidc.BadExchange)
	var refusal *oidc.Refusal
	if !errors.As(err, &refusal) || refusal.Code != "invalid_grant" || !strings.Contains(refusal.Detail, "the code REDACTED is none") {
		t.Errorf("the refusal is %+v", refusal)
	}
}

func TestUnknownKeyFlood(t *testing.T) {
	t.Parallel()
	o := newOP(t)
	var mu sync.Mutex
	now := time.Now()
	clock := func() time.Time { mu.Lock(); defer mu.Unlock(); return now }
	client := newClient(t, clock)
	if _, err := o.signIn(client, o.provider(), oidc.Options{}); err != nil {
		t.Fatal(err)
	}
	first := func(context.Context, string, string, time.Time) (bool, error) { return true, nil }
	flood := func() {
		var wait sync.WaitGroup
		for n := range 200 {
			token := o.sign(logoutClaims(o, nil), map[string]any{"kid": fmt.Sprint("unknown-", n), "typ": "logout+jwt"})
			wait.Go(func() {
				if _, err := client.Logout(context.Background(), o.provider(), token, first); reasonOf(err) != oidc.BadSignature {
					t.Errorf("got %v", err)
				}
			})
		}
		wait.Wait()
	}
	flood()
	if got := o.keyFetches.Load(); got != 1 {
		t.Errorf("the keys were fetched %d times within the interval, want 1", got)
	}
	mu.Lock()
	now = now.Add(31 * time.Second)
	mu.Unlock()
	flood()
	if got := o.keyFetches.Load(); got != 2 {
		t.Errorf("the keys were fetched %d times after the interval, want 2", got)
	}
	// A new key is found as soon as the interval allows.
	mu.Lock()
	now = now.Add(31 * time.Second)
	mu.Unlock()
	o.key, o.keyID = stranger, "two"
	o.keys = append(o.keys, jose.JSONWebKey{Key: stranger.Public(), KeyID: "two"})
	if _, err := o.signIn(client, o.provider(), oidc.Options{}); err != nil {
		t.Errorf("after the rotation: %v", err)
	}
}

// A provider that is away for a while does not stop sign-ins that need nothing new
// of it, and is not believed for ever.
func TestStaleDocuments(t *testing.T) {
	t.Parallel()
	o := newOP(t)
	now := time.Now()
	client := newClient(t, func() time.Time { return now })
	if _, err := client.Discover(context.Background(), o.provider()); err != nil {
		t.Fatal(err)
	}
	o.document = func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) }
	now = now.Add(30 * time.Minute)
	if _, err := client.Discover(context.Background(), o.provider()); err != nil {
		t.Errorf("after half an hour: %v", err)
	}
	now = now.Add(31 * time.Minute)
	if _, err := client.Discover(context.Background(), o.provider()); reasonOf(err) != oidc.Unreachable {
		t.Errorf("after an hour: %v", err)
	}
}

// What the operator did not list is not reached, by whatever name.
func TestPrivateNetworks(t *testing.T) {
	t.Parallel()
	o := newOP(t)
	client := must(oidc.New(oidc.Config{Fetch: fetch.New(fetch.Config{})}))
	for _, issuer := range []string{o.URL, strings.Replace(o.URL, "http:", "https:", 1), "https://localhost", "https://[::1]", "https://169.254.169.254", "https://192.168.1.1", "https://[::ffff:127.0.0.1]"} {
		p := o.provider()
		p.Issuer = issuer
		if _, err := client.Discover(context.Background(), p); reasonOf(err) != oidc.Unreachable {
			t.Errorf("%s: %v", issuer, err)
		}
	}
	if got := o.keyFetches.Load(); got != 0 {
		t.Errorf("the provider was asked %d times", got)
	}
}

// The endpoints of an issuer with TLS must have TLS.
func TestNoDowngrade(t *testing.T) {
	t.Parallel()
	plain := newOP(t)
	var secure *httptest.Server
	secure = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		json.NewEncoder(w).Encode(map[string]any{
			"issuer": secure.URL, "authorization_endpoint": secure.URL + "/authorize", "token_endpoint": plain.URL + "/token", "jwks_uri": secure.URL + "/keys",
		})
	}))
	t.Cleanup(secure.Close)
	roots := x509.NewCertPool()
	roots.AddCert(secure.Certificate())
	client := must(oidc.New(oidc.Config{Fetch: fetch.New(fetch.Config{Allowed: loopback, Roots: roots})}))
	p := plain.provider()
	p.Issuer = secure.URL
	_, err := client.Discover(context.Background(), p)
	if reasonOf(err) != oidc.Unreachable || !strings.Contains(err.Error(), "token_endpoint") {
		t.Errorf("got %v", err)
	}
}

func logoutClaims(o *op, over map[string]any) map[string]any {
	return merge(map[string]any{
		"iss": o.URL, "aud": clientID, "iat": time.Now().Unix(), "exp": time.Now().Add(2 * time.Minute).Unix(), "jti": "j1", "sub": "ada", "sid": "s1",
		"events": map[string]any{"http://schemas.openid.net/event/backchannel-logout": map[string]any{}},
	}, over)
}
