package token_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authn/token"
)

func TestIntrospection(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.Tenant(t), w.Tenant(t)
	sa := reader(t, a)
	got := w.credentials(t, a.Key(t, sa, sallyport.Limits{}), "scope", "read")
	ask := func(by, raw string) map[string]any {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/oauth/introspect", strings.NewReader(url.Values{"token": {raw}}.Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Authorization", "Bearer "+by)
		recorder := httptest.NewRecorder()
		w.handler.ServeHTTP(recorder, r)
		var answer map[string]any
		check(t, json.Unmarshal(recorder.Body.Bytes(), &answer))
		return answer
	}
	own := a.Key(t, a.Owner.Principal, sallyport.Limits{}).Token.Reveal()
	answer := ask(own, got.Token)
	if answer["active"] != true || answer["sub"] != sa.ID || answer["scope"] != "read" || answer["account"] != string(a.ID) {
		t.Errorf("got %v", answer)
	}
	if answer := ask(got.Token, got.Token); answer["active"] != true {
		t.Errorf("by itself: got %v", answer)
	}
	inactive := map[string]any{"active": false}
	if diff := cmp.Diff(inactive, ask(b.Key(t, b.Owner.Principal, sallyport.Limits{}).Token.Reveal(), got.Token)); diff != "" {
		t.Errorf("by another account (-want +got):\n%s", diff)
	}
	for name, raw := range map[string]string{"mutilated": got.Token[:len(got.Token)-4], "garbage": "x", "huge": strings.Repeat("e", 20_000), "an API key": own} {
		if diff := cmp.Diff(inactive, ask(own, raw)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	if answer := ask("nobody", got.Token); answer["error"] != "invalid_client" {
		t.Errorf("by nobody: got %v", answer)
	}
	renamed := w.config
	renamed.Issuer = "https://new.example.com"
	w.issuer = newIssuer(t, renamed)
	w.handler = w.issuer.Handler()
	check(t, w.issuer.KeepKeys(t.Context(), true))
	if answer := ask(own, got.Token); answer["active"] != true || answer["iss"] != issuerURL {
		t.Errorf("after the issuer got another name: got %v, want the token's own iss", answer)
	}
}

func TestMetadata(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c := w.config
	c.MTLSURL = "https://mtls.test.example.com"
	w.handler = newIssuer(t, c).Handler()
	var documents [2]map[string]any
	check(t, json.Unmarshal(w.get(t, "/.well-known/openid-configuration"), &documents[0]))
	check(t, json.Unmarshal(w.get(t, "/.well-known/oauth-authorization-server"), &documents[1]))
	if diff := cmp.Diff(documents[0], documents[1]); diff != "" {
		t.Errorf("the documents differ:\n%s", diff)
	}
	if m := documents[0]; m["issuer"] != issuerURL || m["token_endpoint"] != issuerURL+"/oauth/token" || m["jwks_uri"] != issuerURL+"/.well-known/jwks.json" ||
		m["mtls_endpoint_aliases"].(map[string]any)["token_endpoint"] != c.MTLSURL+"/oauth/token" || m["tls_client_certificate_bound_access_tokens"] != true {
		t.Errorf("got %v", m)
	}
	if keys := string(w.get(t, "/.well-known/jwks.json")); strings.Contains(keys, `"d"`) || strings.Count(keys, `"kid"`) != 2 {
		t.Errorf("the key set is %s", keys)
	}
}

// A flood is turned away, and each source has its own share; what others do uses up
// nothing of a service account's.
func TestRateLimits(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.Tenant(t)
	made := a.Key(t, reader(t, a), sallyport.Limits{})
	turned := 0
	for range 300 {
		if got := w.token(t, "grant_type", "client_credentials", "client_id", made.Key.Owner.ID, "client_secret", "sp_x"); got.status == http.StatusTooManyRequests {
			turned++
		}
	}
	if turned < 50 {
		t.Errorf("%d of 300 requests were turned away", turned)
	}
	if got := w.credentialsFrom(t, made, "198.51.100.7"); got.status != http.StatusOK {
		t.Errorf("another source: got %+v", got)
	}
	limited := false
	for n := range 150 {
		got := w.credentialsFrom(t, made, netip.AddrFrom4([4]byte{198, 51, 100, byte(n)}).String())
		if got.status == http.StatusTooManyRequests {
			limited = got.header.Get("Retry-After") != ""
		}
	}
	if !limited {
		t.Error("150 tokens were given to one service account at once")
	}
}

// A service that gives out no tokens takes none.
func TestWithoutIssuer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.Tenant(t)
	made := a.Key(t, reader(t, a), sallyport.Limits{})
	got := w.credentials(t, made)
	c := w.config
	c.Issuer = ""
	off := newIssuer(t, c)
	check(t, off.KeepKeys(t.Context(), true))
	_, err := off.Authenticate(t.Context(), w.Journal.Pool(), got.Token, nil, netip.Addr{})
	wantKind(t, "a token", err, sallyport.Unauthenticated, "takes no tokens")
	_, _, err = off.RotateKey(t.Context(), operator)
	wantKind(t, "a rotation", err, sallyport.Conflict, "--issuer-url")
	if got := w.post(t, off.Handler(), "/oauth/token", "grant_type", "client_credentials", "client_secret", made.Token.Reveal()); got.Error != "unauthorized_client" {
		t.Errorf("got %+v", got)
	}
	for _, bad := range []token.Config{{Issuer: "https://x.example.com/"}, {Issuer: "x"}, {Issuer: "https://x.example.com"}} {
		c := w.config
		c.Issuer, c.Audiences = bad.Issuer, bad.Audiences
		if _, err := token.New(c); err == nil {
			t.Errorf("%s: it was made", bad.Issuer)
		}
	}
	if _, err := token.New(token.Config{}); err == nil || errors.Is(err, sallyport.Invalid) {
		t.Errorf("an empty Config: %v", err)
	}
}
