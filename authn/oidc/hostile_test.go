package oidc_test

import (
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
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-cmp/cmp"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authn/oidc"
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
	{"PS256 with another salt", func(o *op) {
		o.algorithm, o.key, o.saltLength = jose.PS256, keyRSA, 20
		o.keys = []jose.JSONWebKey{{Key: keyRSA.Public(), KeyID: "one"}}
	}, oidc.BadSignature},
	{"a key that is for encryption only", func(o *op) {
		o.keySet = func(w http.ResponseWriter, _ *http.Request) {
			key := strings.TrimSuffix(string(must(o.keys[0].MarshalJSON())), "}") + `,"key_ops":["encrypt"]}`
			fmt.Fprintf(w, `{"keys":[%s]}`, strings.Replace(key, `"use":"sig",`, "", 1))
		}
	}, oidc.Unreachable},
	{"a private key in the key set", func(o *op) { o.keys = append(o.keys, jose.JSONWebKey{Key: keyES384, KeyID: "two"}) }, oidc.Unreachable},
	{"a symmetric key in the key set", func(o *op) {
		o.keys = append(o.keys, jose.JSONWebKey{Key: []byte("0123456789abcdef0123456789abcdef"), KeyID: "two"})
	}, oidc.Unreachable},
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

func logoutClaims(o *op, over map[string]any) map[string]any {
	return merge(map[string]any{
		"iss": o.URL, "aud": clientID, "iat": time.Now().Unix(), "exp": time.Now().Add(2 * time.Minute).Unix(), "jti": "j1", "sub": "ada", "sid": "s1",
		"events": map[string]any{"http://schemas.openid.net/event/backchannel-logout": map[string]any{}},
	}, over)
}
