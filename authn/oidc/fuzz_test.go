package oidc_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/sallyport-iam/sallyport/authn/oidc"
)

// FuzzCallback: whatever a browser brings, there is an answer to look a state up
// for, or a refusal; and what is kept of it is fit to be kept.
func FuzzCallback(f *testing.F) {
	for _, seed := range []string{
		"", "state=s&code=c", "state=s&code=c&iss=https%3A%2F%2Flogin.example.com", "state=s&error=access_denied&error_description=no",
		"state=s&state=t&code=c", "code=c&state=%zz", "state=s&error=%00&error_description=%e2%80%ae", "state=s&code=c&id_token=x", ";;&&==",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, query string) {
		got, err := oidc.ParseCallback(query)
		if err != nil {
			if reasonOf(err) != oidc.BadCallback || got != (oidc.Callback{}) {
				t.Fatalf("got %+v, %v", got, err)
			}
			return
		}
		if got.State == "" || (got.Code == "") == (got.Error == "") {
			t.Errorf("the callback is half: %+v", got)
		}
		if len(got.State) > 512 || len(got.Code) > 8<<10 || len(got.Error) > 100 || len(got.Description) > 300 {
			t.Errorf("the callback is too large: %+v", got)
		}
		if strings.ContainsAny(got.Error+got.Description+got.Code+got.Issuer, "\x00\r\n\x7f") {
			t.Errorf("the callback has control characters: %+v", got)
		}
	})
}

// FuzzLogoutToken: whatever a stranger posts, and whatever a provider signs, nobody
// is logged out but whom a token in good form names.
func FuzzLogoutToken(f *testing.F) {
	o := newOP(f)
	client := newClient(f, nil)
	provider := o.provider()
	now := time.Now().Unix()
	claims := fmt.Sprintf(`{"iss":%q,"aud":%q,"iat":%d,"exp":%d,"jti":"j","sub":"ada","events":{"http://schemas.openid.net/event/backchannel-logout":{}}}`, o.URL, clientID, now, now+3600)
	for _, header := range []string{`{"alg":"ES256","kid":"one"}`, `{"alg":"ES256","kid":"one","typ":"logout+jwt"}`, `{"alg":"none"}`, `{"alg":"ES256","crit":["x"]}`, `[]`, `{"alg":["ES256"]}`} {
		f.Add(header, claims, "")
	}
	f.Add(`{"alg":"ES256","kid":"one"}`, `{"events":{"http://schemas.openid.net/event/backchannel-logout":[]},"_claim_names":{"a":""}}`, "")
	f.Add(`{}`, `{}`, "a.b.c")
	f.Add(`{}`, `{}`, `{"payload":"","signatures":[]}`)
	f.Fuzz(func(t *testing.T, header, claims, raw string) {
		used := 0
		first := func(context.Context, string, string, time.Time) (bool, error) { used++; return true, nil }
		if raw == "" { // signed by the provider, whatever it is
			text := base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + base64.RawURLEncoding.EncodeToString([]byte(claims))
			raw = signText(t, keyES256, text)
		}
		got, err := client.Logout(context.Background(), provider, raw, first)
		switch {
		case err != nil && (reasonOf(err) == "" || got != (oidc.Logout{}) || used != 0):
			t.Fatalf("got %+v, %v, used %d", got, err, used)
		case err == nil && (used != 1 || got.Issuer != o.URL || got.Sub == "" && got.SessionID == ""):
			t.Fatalf("got %+v, used %d", got, used)
		}
	})
}

// FuzzIDToken: whatever the provider signs, it is of its own issuer and for us, or
// refused.
func FuzzIDToken(f *testing.F) {
	o := newOP(f)
	client := newClient(f, nil)
	kept := must(o.begin(client, o.provider(), oidc.Options{}))
	now := time.Now().Unix()
	f.Add(`"sub":"ada","email":"ada@example.com","email_verified":true,"groups":["a"]`)
	f.Add(`"sub":"ada","groups":{"a":1},"_claim_names":{"groups":"s"},"_claim_sources":{"s":{"endpoint":"https://x"}}`)
	f.Add(`"sub":"ada","iss":"https://evil.example"`)
	f.Add(`"sub":1e999,"auth_time":-1,"amr":[[]],"hd":null`)
	f.Fuzz(func(t *testing.T, more string) {
		payload := fmt.Sprintf(`{"iss":%q,"aud":%q,"iat":%d,"exp":%d,"nonce":%q,%s}`, o.URL, clientID, now, now+3600, o.requested.Get("nonce"), more)
		signed := signRaw(t, o.algorithm, o.key, map[string]any{"kid": o.keyID}, []byte(payload))
		login, err := client.CheckIDToken(context.Background(), o.provider(), kept, signed, "access")
		if err != nil {
			if reasonOf(err) == "" || login.Identity.Subject != "" {
				t.Fatalf("got %+v, %v", login, err)
			}
			return
		}
		i := login.Identity
		if i.Issuer != o.URL || i.Subject == "" || i.EmailVerified && i.Email == "" || !i.Groups.Stated && i.Groups.Names != nil || i.Groups.Stated != (i.Groups.Why == "") {
			t.Errorf("the identity is %+v", i)
		}
	})
}

// FuzzPublished: whatever a provider publishes, there is no panic and no endpoint
// that a browser or this service must not go to.
func FuzzPublished(f *testing.F) {
	const issuer = "https://login.example.com"
	key := string(must(jose.JSONWebKey{Key: keyES256.Public(), KeyID: "one"}.MarshalJSON()))
	f.Add(`"authorization_endpoint":"https://x/a","token_endpoint":"https://x/t"`, `{"keys":[`+key+`]}`)
	f.Add(`"authorization_endpoint":"javascript:x","token_endpoint":7`, `{"keys":[{"kty":"RSA","n":"","e":"AQAB"},{"kty":"OKP","crv":"Ed25519","x":"AA"}]}`)
	f.Add(`"authorization_endpoint":"//x","token_endpoint":"https://x/t"`, `{"keys":{}}`)
	f.Fuzz(func(t *testing.T, document, keys string) {
		m, err := oidc.ParsePublished([]byte(`{"issuer":"`+issuer+`","jwks_uri":"`+issuer+`/keys",`+document+`}`), []byte(keys), issuer)
		if err != nil {
			return
		}
		for _, address := range []string{m.Authorization, m.Token, m.Keys} {
			if u := must(url.Parse(address)); u.Scheme != "https" || u.Host == "" || u.User != nil {
				t.Errorf("the endpoint is %q", address)
			}
		}
	})
}
