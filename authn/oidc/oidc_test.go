package oidc_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authn/oidc"
)

var ignoreTimes = cmpopts.IgnoreFields(oidc.Identity{}, "AuthTime")

func TestSignIn(t *testing.T) {
	t.Parallel()
	o := newOP(t)
	access := sha256.Sum256([]byte("access"))
	o.claims = map[string]any{"at_hash": base64.RawURLEncoding.EncodeToString(access[:16]), "acr": "2", "amr": []string{"pwd", "otp"}}
	login, err := o.signIn(newClient(t, nil), o.provider(), oidc.Options{Hint: "ada@example.com"})
	if err != nil {
		t.Fatal(err)
	}
	want := oidc.Identity{
		Issuer: o.URL, Subject: "ada", External: "ada", Email: "ada@example.com", EmailVerified: true, Name: "Ada",
		Groups: oidc.Groups{Stated: true, Names: []string{"engineers"}}, Sub: "ada", SessionID: "s1", ACR: "2", AMR: []string{"pwd", "otp"},
	}
	if diff := cmp.Diff(want, login.Identity, ignoreTimes); diff != "" {
		t.Errorf("the identity (-want +got):\n%s", diff)
	}
	if login.Received["email"] != "ada@example.com" || time.Since(login.Identity.AuthTime) > time.Minute {
		t.Errorf("received %v, signed in at %s", login.Received, login.Identity.AuthTime)
	}
	asked := map[string]string{}
	for name, values := range o.requested {
		asked[name] = values[0]
	}
	for _, name := range []string{"state", "nonce", "code_challenge"} {
		if len(asked[name]) != 43 { // 256 bits
			t.Errorf("%s is %q", name, asked[name])
		}
		delete(asked, name)
	}
	if diff := cmp.Diff(map[string]string{
		"response_type": "code", "client_id": clientID, "redirect_uri": "https://id.example.com/sso/c1/callback", "scope": "openid email profile",
		"code_challenge_method": "S256", "login_hint": "ada@example.com",
	}, asked); diff != "" {
		t.Errorf("the request (-want +got):\n%s", diff)
	}
}

func TestAlgorithms(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		algorithm jose.SignatureAlgorithm
		key       any
		public    any
	}{
		{jose.RS256, keyRSA, keyRSA.Public()},
		{jose.PS256, keyRSA, keyRSA.Public()},
		{jose.ES256, keyES256, keyES256.Public()},
		{jose.ES384, keyES384, keyES384.Public()},
		{jose.EdDSA, keyEdDSA, keyEdDSA.Public()},
	} {
		t.Run(string(test.algorithm), func(t *testing.T) {
			t.Parallel()
			o := newOP(t)
			o.algorithm, o.key = test.algorithm, test.key
			o.keys = []jose.JSONWebKey{{Key: stranger.Public(), KeyID: "one"}, {Key: test.public, KeyID: "one"}, {Key: keyES256.Public(), KeyID: "enc", Use: "enc"}}
			if _, err := o.signIn(newClient(t, nil), o.provider(), oidc.Options{}); err != nil {
				t.Error(err)
			}
			p := o.provider()
			for _, other := range []string{"RS256", "PS256", "ES256", "ES384", "EdDSA"} {
				if other != string(test.algorithm) {
					p.Algorithms = append(p.Algorithms, other)
				}
			}
			login, err := o.signIn(newClient(t, nil), p, oidc.Options{})
			checkRefused(t, login, err, oidc.BadToken)
		})
	}
}

func TestMapping(t *testing.T) {
	t.Parallel()
	many := make([]string, 1001)
	for n := range many {
		many[n] = fmt.Sprint("g", n)
	}
	base := oidc.Identity{
		Subject: "ada", External: "ada", Email: "ada@example.com", EmailVerified: true, Name: "Ada",
		Groups: oidc.Groups{Stated: true, Names: []string{"engineers"}}, Sub: "ada", SessionID: "s1",
	}
	for _, test := range []struct {
		name     string
		mapping  oidc.Mapping
		claims   map[string]any
		userinfo map[string]any
		discover map[string]any
		want     func(*oidc.Identity)
	}{
		{name: "as it is", want: func(*oidc.Identity) {}},
		{name: "azp and a list of audiences", claims: map[string]any{"aud": []string{"other", clientID}, "azp": clientID}, want: func(*oidc.Identity) {}},
		{name: "times off by a minute", claims: map[string]any{"iat": time.Now().Add(time.Minute).Unix(), "nbf": time.Now().Add(time.Minute).Unix()}, want: func(*oidc.Identity) {}},
		{
			name: "other claims", mapping: oidc.Mapping{Subject: "oid", External: "upn", Email: "mail", Name: "displayName", Groups: "https://example.com/roles"},
			claims: map[string]any{"oid": "o-1", "upn": "ada@corp.example", "mail": "ada@corp.example", "displayName": "A\u202e.\x00 L.", "https://example.com/roles": []string{"a", "b", "a"}},
			want: func(i *oidc.Identity) {
				i.Subject, i.External, i.Email, i.EmailVerified, i.Name, i.Groups.Names = "o-1", "ada@corp.example", "ada@corp.example", false, "A. L.", []string{"a", "b"}
			},
		},
		{name: "email_verified false", claims: map[string]any{"email_verified": false}, want: func(i *oidc.Identity) { i.EmailVerified = false }},
		{name: "email_verified missing", claims: map[string]any{"email_verified": nil}, want: func(i *oidc.Identity) { i.EmailVerified = false }},
		{name: "email_verified as a text", claims: map[string]any{"email_verified": "true"}, want: func(*oidc.Identity) {}},
		{name: "email_verified of the other source", claims: map[string]any{"email_verified": nil, "name": nil}, userinfo: map[string]any{"name": "Ada", "email": "eve@example.com", "email_verified": true},
			want: func(i *oidc.Identity) { i.EmailVerified = false }},
		{name: "email_verified of the token, for an e-mail of userinfo", claims: map[string]any{"email": nil}, userinfo: map[string]any{"email": "eve@example.com"},
			want: func(i *oidc.Identity) { i.Email, i.EmailVerified = "eve@example.com", false }},
		{name: "verified without an e-mail", claims: map[string]any{"email": "not one"}, want: func(i *oidc.Identity) { i.Email, i.EmailVerified = "", false }},
		{name: "two addresses", claims: map[string]any{"email": "ada@example.com,eve@example.com"}, want: func(i *oidc.Identity) { i.Email, i.EmailVerified = "", false }},
		{name: "an address with a line end", claims: map[string]any{"email": "ada@example.com\nBcc: x"}, want: func(i *oidc.Identity) { i.Email, i.EmailVerified = "", false }},
		{name: "from userinfo", claims: map[string]any{"email": nil, "email_verified": nil, "name": nil, "groups": nil},
			userinfo: map[string]any{"email": "ada@corp.example", "email_verified": true, "name": "A", "groups": []string{"x"}},
			want:     func(i *oidc.Identity) { i.Email, i.Name, i.Groups.Names = "ada@corp.example", "A", []string{"x"} }},
		{name: "no userinfo endpoint", claims: map[string]any{"email": nil}, userinfo: map[string]any{"email": "ada@corp.example"}, discover: map[string]any{"userinfo_endpoint": nil},
			want: func(i *oidc.Identity) { i.Email, i.EmailVerified = "", false }},
		{name: "no groups", claims: map[string]any{"groups": []string{}}, want: func(i *oidc.Identity) { i.Groups.Names = []string{} }},
		{name: "one group as a text", claims: map[string]any{"groups": "a"}, want: func(i *oidc.Identity) { i.Groups.Names = []string{"a"} }},
		{name: "groups missing", claims: map[string]any{"groups": nil}, want: func(i *oidc.Identity) { i.Groups = oidc.Groups{Why: `the provider sent no "groups"`} }},
		{name: "groups null", claims: map[string]any{"groups": json.RawMessage("null")}, want: func(i *oidc.Identity) { i.Groups = oidc.Groups{Why: `"groups" is not a list of texts`} }},
		{name: "groups of numbers", claims: map[string]any{"groups": []int{1}}, want: func(i *oidc.Identity) { i.Groups = oidc.Groups{Why: `"groups" is not a list of texts`} }},
		{name: "an empty group", claims: map[string]any{"groups": []string{""}}, want: func(i *oidc.Identity) {
			i.Groups = oidc.Groups{Why: `"groups" has something that is not the name of a group`}
		}},
		{name: "too many groups", claims: map[string]any{"groups": many}, want: func(i *oidc.Identity) {
			i.Groups = oidc.Groups{Why: "there are more groups than are taken from a token; use SCIM"}
		}},
		{name: "groups elsewhere", claims: map[string]any{"groups": nil, "_claim_names": map[string]string{"groups": "src1"}, "_claim_sources": map[string]any{"src1": map[string]string{"endpoint": "https://graph.example/x"}}},
			want: func(i *oidc.Identity) { i.Groups = oidc.Groups{Why: overflow} }},
		{name: "groups here and elsewhere", claims: map[string]any{"_claim_names": map[string]string{"groups": "src1"}, "_claim_sources": map[string]any{"src1": map[string]string{"endpoint": "https://graph.example/x"}}},
			want: func(i *oidc.Identity) { i.Groups = oidc.Groups{Why: overflow} }},
		{name: "hasgroups", claims: map[string]any{"groups": nil, "hasgroups": true}, want: func(i *oidc.Identity) { i.Groups = oidc.Groups{Why: overflow} }},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			o := newOP(t)
			o.claims, o.userinfo, o.discovery = test.claims, test.userinfo, test.discover
			p := o.provider()
			p.Claims = test.mapping
			login, err := o.signIn(newClient(t, nil), p, oidc.Options{})
			if err != nil {
				t.Fatal(err)
			}
			want := base
			want.Issuer = o.URL
			test.want(&want)
			if diff := cmp.Diff(want, login.Identity, ignoreTimes); diff != "" {
				t.Errorf("the identity (-want +got):\n%s", diff)
			}
		})
	}
}

const overflow = "there are too many groups for the token; have the provider send only those assigned to this application, or use SCIM"

func TestFresh(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		at   any
		want oidc.Reason
	}{
		{"just now", time.Now().Unix(), ""},
		{"within the time", time.Now().Add(-4 * time.Minute).Unix(), ""},
		{"long ago", time.Now().Add(-8 * time.Minute).Unix(), oidc.NotFresh},
		{"not said", nil, oidc.NotFresh},
		{"as a text", fmt.Sprint(time.Now().Unix()), oidc.NotFresh},
		{"to come", time.Now().Add(time.Hour).Unix(), oidc.NotFresh},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			o := newOP(t)
			o.claims = map[string]any{"auth_time": test.at}
			login, err := o.signIn(newClient(t, nil), o.provider(), oidc.Options{Fresh: 5 * time.Minute})
			if o.requested.Get("prompt") != "login" || o.requested.Get("max_age") != "300" {
				t.Errorf("asked for prompt %q, max_age %q", o.requested.Get("prompt"), o.requested.Get("max_age"))
			}
			if test.want != "" {
				checkRefused(t, login, err, test.want)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
}

func TestClientAuthentication(t *testing.T) {
	t.Parallel()
	sign := func(method oidc.Method, key *oidc.Key, discovery map[string]any) *op {
		o := newOP(t)
		o.discovery = discovery
		p := o.provider()
		p.Method, p.Key = method, key
		if method == oidc.NoMethod || key != nil {
			p.Secret = ""
		}
		if _, err := o.signIn(newClient(t, nil), p, oidc.Options{}); err != nil {
			t.Errorf("%s: %v", method, err)
		}
		if got := o.form.Get("redirect_uri"); got != p.RedirectURI {
			t.Errorf("%s: the redirect URI is %q", method, got)
		}
		return o
	}
	for _, o := range []*op{sign(oidc.SecretBasic, nil, nil), sign("", nil, nil)} {
		if o.basic != [2]string{clientID, "s3cret%2F%2B"} || o.form.Has("client_secret") || o.form.Has("client_id") {
			t.Errorf("basic: %v %v", o.basic, o.form)
		}
	}
	onlyPost := map[string]any{"token_endpoint_auth_methods_supported": []string{"client_secret_post"}}
	for _, o := range []*op{sign(oidc.SecretPost, nil, nil), sign("", nil, onlyPost)} {
		if o.basic != [2]string{} || o.form.Get("client_secret") != "s3cret/+" || o.form.Get("client_id") != clientID {
			t.Errorf("post: %v %v", o.basic, o.form)
		}
	}
	if o := sign(oidc.NoMethod, nil, nil); o.basic != [2]string{} || o.form.Has("client_secret") || o.form.Get("client_id") != clientID {
		t.Errorf("none: %v %v", o.basic, o.form)
	}
	for _, key := range []*oidc.Key{{ID: "k1", Private: keyES256}, {ID: "k1", Private: keyRSA}} {
		o := sign("", key, nil)
		parsed, err := jwt.ParseSigned(o.form.Get("client_assertion"), []jose.SignatureAlgorithm{jose.ES256, jose.RS256})
		if err != nil {
			t.Fatal(err)
		}
		var claims jwt.Claims
		if err := parsed.Claims(key.Private.Public(), &claims); err != nil {
			t.Error(err)
		}
		if err := claims.Validate(jwt.Expected{Issuer: clientID, Subject: clientID, AnyAudience: jwt.Audience{o.URL}, Time: time.Now()}); err != nil || claims.ID == "" {
			t.Errorf("the assertion %+v: %v", claims, err)
		}
		if parsed.Headers[0].KeyID != "k1" || o.form.Has("client_secret") {
			t.Errorf("the assertion's header is %+v", parsed.Headers[0])
		}
	}
}

func TestLogout(t *testing.T) {
	t.Parallel()
	event := "http://schemas.openid.net/event/backchannel-logout"
	for _, test := range []struct {
		name   string
		claims map[string]any
		header map[string]any
		replay bool
		want   oidc.Reason
		logout oidc.Logout
	}{
		{name: "a session", logout: oidc.Logout{Sub: "ada", SessionID: "s1"}},
		{name: "typed", header: map[string]any{"typ": "logout+jwt"}, logout: oidc.Logout{Sub: "ada", SessionID: "s1"}},
		{name: "untyped", header: map[string]any{"typ": nil}, logout: oidc.Logout{Sub: "ada", SessionID: "s1"}},
		{name: "a person", claims: map[string]any{"sid": nil}, logout: oidc.Logout{Sub: "ada"}},
		{name: "only a session", claims: map[string]any{"sub": nil}, logout: oidc.Logout{SessionID: "s1"}},
		{name: "nobody", claims: map[string]any{"sub": nil, "sid": nil}, want: oidc.BadToken},
		{name: "an empty sid", claims: map[string]any{"sid": ""}, want: oidc.WrongSubject},
		{name: "a long sub", claims: map[string]any{"sub": strings.Repeat("x", 300)}, want: oidc.WrongSubject},
		{name: "a nonce", claims: map[string]any{"nonce": "n"}, want: oidc.BadToken},
		{name: "a nonce that is null", claims: map[string]any{"nonce": json.RawMessage("null")}, want: oidc.BadToken},
		{name: "an ID token", claims: map[string]any{"events": nil, "nonce": "n"}, want: oidc.BadToken},
		{name: "no events", claims: map[string]any{"events": nil}, want: oidc.BadToken},
		{name: "another event", claims: map[string]any{"events": map[string]any{"http://schemas.openid.net/event/other": map[string]any{}}}, want: oidc.BadToken},
		{name: "an event that is no object", claims: map[string]any{"events": map[string]any{event: "x"}}, want: oidc.BadToken},
		{name: "events in capitals", claims: map[string]any{"events": nil, "EVENTS": map[string]any{event: map[string]any{}}}, want: oidc.BadToken},
		{name: "no jti", claims: map[string]any{"jti": nil}, want: oidc.BadToken},
		{name: "a jti of 1 KB", claims: map[string]any{"jti": strings.Repeat("j", 1024)}, want: oidc.BadToken},
		{name: "another audience", claims: map[string]any{"aud": "other"}, want: oidc.WrongAudience},
		{name: "another issuer", claims: map[string]any{"iss": "https://evil.example"}, want: oidc.WrongIssuer},
		{name: "expired", claims: map[string]any{"exp": time.Now().Add(-3 * time.Minute).Unix()}, want: oidc.WrongTimes},
		{name: "no exp", claims: map[string]any{"exp": nil}, want: oidc.WrongTimes},
		{name: "good for a year", claims: map[string]any{"exp": time.Now().Add(365 * 24 * time.Hour).Unix()}, want: oidc.WrongTimes},
		{name: "made in the future", claims: map[string]any{"iat": time.Now().Add(time.Hour).Unix()}, want: oidc.WrongTimes},
		{name: "an access token", header: map[string]any{"typ": "at+jwt"}, want: oidc.BadToken},
		{name: "replayed", replay: true, want: oidc.Replayed},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			o := newOP(t)
			asked := 0
			first := func(_ context.Context, issuer, id string, until time.Time) (bool, error) {
				asked++
				if issuer != o.URL || id != "j1" || until.Before(time.Now().Add(2*time.Minute)) {
					t.Errorf("asked for %s %s until %s", issuer, id, until)
				}
				return !test.replay, nil
			}
			got, err := newClient(t, nil).Logout(context.Background(), o.provider(), o.sign(logoutClaims(o, test.claims), test.header), first)
			if reasonOf(err) != test.want || test.want == "" && err != nil {
				t.Fatalf("got %v, want %q", err, test.want)
			}
			if wantAsked := test.want == "" || test.replay; wantAsked != (asked == 1) {
				t.Errorf("the ids' table was asked %d times", asked)
			}
			if test.want == "" {
				test.logout.Issuer = o.URL
			}
			if diff := cmp.Diff(test.logout, got, cmpopts.IgnoreFields(oidc.Logout{}, "Issued")); diff != "" {
				t.Errorf("the logout (-want +got):\n%s", diff)
			}
		})
	}
	o := newOP(t)
	broken := errors.New("no database")
	_, err := newClient(t, nil).Logout(context.Background(), o.provider(), o.sign(logoutClaims(o, nil), nil), func(context.Context, string, string, time.Time) (bool, error) { return false, broken })
	if !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	// An ID token of a sign-in does not log anybody out, and a logout token signs nobody in.
	o.idToken = func(string) string { return o.sign(logoutClaims(o, nil), nil) }
	login, err := o.signIn(newClient(t, nil), o.provider(), oidc.Options{})
	checkRefused(t, login, err, oidc.WrongNonce)
}

func TestCheck(t *testing.T) {
	t.Parallel()
	weak := must(rsa.GenerateKey(rand.Reader, 1024))
	good := oidc.Provider{Kind: oidc.OpenID, Issuer: "https://login.example.com/realms/a", ClientID: "c", Secret: "s", RedirectURI: "https://id.example.com/sso/c1/callback"}
	for _, test := range []struct {
		field string
		set   func(*oidc.Provider)
	}{
		{"", func(*oidc.Provider) {}},
		{"", func(p *oidc.Provider) { p.Algorithms = []string{"RS256"} }},
		{"kind", func(p *oidc.Provider) { p.Kind = "saml" }},
		{"issuer", func(p *oidc.Provider) { p.Issuer = "" }},
		{"issuer", func(p *oidc.Provider) { p.Issuer = "ftp://login.example.com" }},
		{"issuer", func(p *oidc.Provider) { p.Issuer = "https://login.example.com?x" }},
		{"issuer", func(p *oidc.Provider) { p.Issuer = "https://login.example.com#" }},
		{"issuer", func(p *oidc.Provider) { p.Issuer = "https://u:p@login.example.com" }},
		{"issuer", func(p *oidc.Provider) {
			p.Kind, p.Issuer = oidc.Microsoft, "https://login.microsoftonline.com/example.com/v2.0"
		}},
		{"issuer", func(p *oidc.Provider) { p.Kind, p.Issuer = oidc.Microsoft, "https://login.microsoftonline.com/common" }},
		{"issuer", func(p *oidc.Provider) { p.Kind, p.Issuer = oidc.GitHub, "https://github.com/" }},
		{"client_id", func(p *oidc.Provider) { p.ClientID = "" }},
		{"client_secret", func(p *oidc.Provider) { p.Secret, p.Method = "", oidc.SecretPost }},
		{"client_secret", func(p *oidc.Provider) { p.Kind, p.Issuer, p.Secret = oidc.GitHub, "https://github.com", "" }},
		{"method", func(p *oidc.Provider) { p.Method = oidc.PrivateKeyJWT }},
		{"method", func(p *oidc.Provider) { p.Method = oidc.NoMethod }},
		{"method", func(p *oidc.Provider) { p.Method = "client_secret_jwt" }},
		{"method", func(p *oidc.Provider) { p.Key = &oidc.Key{ID: "k", Private: weak} }},
		{"method", func(p *oidc.Provider) { p.Key = &oidc.Key{Private: keyES256} }},
		{"redirect_uri", func(p *oidc.Provider) { p.RedirectURI = "/callback" }},
		{"scopes", func(p *oidc.Provider) { p.Scopes = []string{"a b"} }},
		{"algorithms", func(p *oidc.Provider) { p.Algorithms = []string{"none"} }},
		{"algorithms", func(p *oidc.Provider) { p.Algorithms = []string{"HS256"} }},
		{"tenants", func(p *oidc.Provider) { p.Tenants = []string{tenantA} }},
		{"domains", func(p *oidc.Provider) { p.Domains = []string{"example.com"} }},
		{"claims", func(p *oidc.Provider) {
			p.Kind, p.Issuer, p.Claims.Subject = oidc.Google, "https://accounts.google.com", "id"
		}},
		{"claims.subject", func(p *oidc.Provider) { p.Claims.Subject = "email" }},
		{"claims.subject", func(p *oidc.Provider) { p.Claims.Subject = "UPN" }},
	} {
		p := good
		test.set(&p)
		err := p.Check()
		var known *sallyport.Error
		if test.field == "" && err != nil || test.field != "" && (!errors.As(err, &known) || known.Kind != sallyport.Invalid || known.Field != test.field) {
			t.Errorf("%+v: got %v, want a problem of %q", p, err, test.field)
		}
	}
}

func TestPendingIsSecret(t *testing.T) {
	t.Parallel()
	o := newOP(t)
	kept := must(o.begin(newClient(t, nil), o.provider(), oidc.Options{}))
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "pending", kept, "provider", o.provider())
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "pending", kept, "provider", o.provider())
	fmt.Fprintf(&log, "%v %+v %#v %s %x", kept, kept, kept, kept, kept)
	for _, secret := range []string{kept.State(), o.requested.Get("nonce"), "s3cret"} {
		if strings.Contains(log.String(), secret) {
			t.Errorf("%q is in %s", secret, log.String())
		}
	}
	if err := new(oidc.Pending).UnmarshalBinary([]byte(`{"state":"x"}`)); err == nil {
		t.Error("half a pending sign-in was read")
	}
}

func TestAuthorizationEndpointKeepsItsQuery(t *testing.T) {
	t.Parallel()
	o := newOP(t)
	o.discovery = map[string]any{"authorization_endpoint": o.URL + "/authorize?policy=b2c&state=fixed&code_challenge_method=plain"}
	kept := must(o.begin(newClient(t, nil), o.provider(), oidc.Options{SelectAccount: true}))
	want := url.Values{"policy": {"b2c"}, "state": {kept.State()}, "code_challenge_method": {"S256"}, "prompt": {"select_account"}}
	for name := range want {
		if diff := cmp.Diff(want[name], o.requested[name]); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}
