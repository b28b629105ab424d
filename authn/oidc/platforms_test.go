package oidc_test

import (
	"context"
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-cmp/cmp"

	"github.com/sallyport-iam/sallyport/authn/oidc"
)

const (
	tenantA  = "11111111-2222-3333-4444-555555555555"
	tenantB  = "99999999-2222-3333-4444-555555555555"
	personal = "9188040d-6c67-4c5b-b112-36a304b66dad"
	object   = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"
)

// microsoft makes the op one of many tenants: its documents are below the path of
// the issuer, and its keys say whose tokens they sign.
func microsoft(t *testing.T, issuer, keyIssuer string) (*op, oidc.Provider) {
	o := newOP(t)
	o.claims = map[string]any{"iss": o.URL + "/" + tenantA + "/v2.0", "tid": tenantA, "oid": object, "sub": "pairwise", "email": "ada@example.com", "email_verified": true, "groups": nil}
	o.discovery = map[string]any{"issuer": o.URL + "/{tenantid}/v2.0"}
	if issuer == tenantA {
		o.discovery = map[string]any{"issuer": o.URL + "/" + tenantA + "/v2.0"}
	}
	o.keySet = func(w http.ResponseWriter, _ *http.Request) {
		var set map[string][]map[string]any
		json.Unmarshal(must(json.Marshal(jose.JSONWebKeySet{Keys: o.keys})), &set)
		if keyIssuer != "" {
			set["keys"][0]["issuer"] = o.URL + keyIssuer
		}
		json.NewEncoder(w).Encode(set)
	}
	mux := o.server.Config.Handler.(*http.ServeMux)
	mux.HandleFunc("/"+issuer+"/v2.0/.well-known/openid-configuration", o.serveDocument)
	p := o.provider()
	p.Kind, p.Issuer = oidc.Microsoft, o.URL+"/"+issuer+"/v2.0"
	return o, p
}

func TestMicrosoft(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name      string
		issuer    string // organizations if empty
		keyIssuer string
		tenants   []string
		claims    func(o *op, c map[string]any)
		want      oidc.Reason
		verified  bool
		tenant    string
	}{
		{name: "of a tenant"},
		{name: "of a tenant that is allowed", tenants: []string{tenantB, tenantA}},
		{name: "of a tenant that is not", tenants: []string{tenantB}, want: oidc.NotAllowed},
		{name: "an address of a proved domain", claims: func(_ *op, c map[string]any) { c["xms_edov"] = true }, verified: true},
		{name: "the same, as a number", claims: func(_ *op, c map[string]any) { c["xms_edov"] = 1 }, verified: true},
		{name: "an address of nobody's domain", claims: func(_ *op, c map[string]any) { c["xms_edov"] = false }},
		{name: "another tenant in tid", claims: func(_ *op, c map[string]any) { c["tid"] = tenantB }, want: oidc.WrongIssuer},
		{name: "another tenant in iss", claims: func(o *op, c map[string]any) { c["iss"] = o.URL + "/" + tenantB + "/v2.0" }, want: oidc.WrongIssuer},
		{name: "the template itself", claims: func(o *op, c map[string]any) { c["iss"], c["tid"] = o.URL+"/{tenantid}/v2.0", "{tenantid}" }, want: oidc.WrongIssuer},
		{name: "no tid", claims: func(_ *op, c map[string]any) { c["tid"] = nil }, want: oidc.WrongIssuer},
		{name: "tid that is a path", claims: func(o *op, c map[string]any) { c["iss"], c["tid"] = o.URL+"/x/../"+tenantA+"/v2.0", "x/../"+tenantA }, want: oidc.WrongIssuer},
		{name: "another host", claims: func(_ *op, c map[string]any) { c["iss"] = "https://evil.example/" + tenantA + "/v2.0" }, want: oidc.WrongIssuer},
		{name: "no oid", claims: func(_ *op, c map[string]any) { c["oid"] = nil }, want: oidc.WrongSubject},
		{name: "oid that is no id", claims: func(_ *op, c map[string]any) { c["oid"] = "ada/" + object }, want: oidc.WrongSubject},
		{name: "a key for every tenant", keyIssuer: "/{tenantid}/v2.0"},
		{name: "a key of the tenant", keyIssuer: "/" + tenantA + "/v2.0"},
		{name: "a key of another tenant", keyIssuer: "/" + tenantB + "/v2.0", want: oidc.WrongIssuer},
		{name: "the connection of one tenant", issuer: tenantA},
		{name: "another tenant at the connection of one", issuer: tenantA, claims: func(o *op, c map[string]any) {
			c["iss"], c["tid"] = o.URL+"/"+tenantB+"/v2.0", tenantB
		}, want: oidc.WrongIssuer},
		{name: "a personal account among organizations", claims: func(o *op, c map[string]any) {
			c["iss"], c["tid"] = o.URL+"/"+personal+"/v2.0", personal
		}, want: oidc.WrongIssuer},
		{name: "a personal account where all may come", issuer: "common", tenant: personal, claims: func(o *op, c map[string]any) {
			c["iss"], c["tid"] = o.URL+"/"+personal+"/v2.0", personal
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			if test.issuer == "" {
				test.issuer = "organizations"
			}
			if test.tenant == "" {
				test.tenant = tenantA
			}
			o, p := microsoft(t, test.issuer, test.keyIssuer)
			p.Tenants = test.tenants
			if test.claims != nil {
				test.claims(o, o.claims)
			}
			login, err := o.signIn(newClient(t, nil), p, oidc.Options{})
			if test.want != "" {
				checkRefused(t, login, err, test.want)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			want := oidc.Identity{
				Issuer: o.URL + "/" + test.tenant + "/v2.0", Subject: test.tenant + "/" + object, External: object, Email: "ada@example.com", EmailVerified: test.verified,
				Name: "Ada", Groups: oidc.Groups{Why: `the provider sent no "groups"`}, Tenant: test.tenant, Sub: "pairwise", SessionID: "s1",
			}
			if diff := cmp.Diff(want, login.Identity, ignoreTimes); diff != "" {
				t.Errorf("the identity (-want +got):\n%s", diff)
			}
		})
	}
}

func TestGoogle(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name     string
		domains  []string
		claims   map[string]any
		verified bool
		want     oidc.Reason
	}{
		{"a Gmail address", nil, map[string]any{"email": "Ada@Gmail.com"}, true, ""},
		{"a Gmail address that is not verified", nil, map[string]any{"email": "ada@gmail.com", "email_verified": false}, false, ""},
		{"a Workspace address", nil, map[string]any{"hd": "example.com"}, true, ""},
		{"an address elsewhere", nil, nil, false, ""},
		{"an address that ends in gmail.com", nil, map[string]any{"email": "ada@notgmail.com"}, false, ""},
		{"an allowed domain", []string{"example.com"}, map[string]any{"hd": "example.com"}, true, ""},
		{"another domain", []string{"example.com"}, map[string]any{"hd": "example.org"}, false, oidc.NotAllowed},
		{"an address of the domain, without hd", []string{"example.com"}, nil, false, oidc.NotAllowed},
		{"the issuer without https", nil, map[string]any{"iss": "accounts.google.com"}, false, oidc.WrongIssuer},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			o := newOP(t)
			o.claims = merge(map[string]any{"groups": nil}, test.claims)
			p := o.provider()
			p.Kind, p.Domains = oidc.Google, test.domains
			login, err := o.signIn(newClient(t, nil), p, oidc.Options{})
			if test.want != "" {
				checkRefused(t, login, err, test.want)
				return
			}
			if err != nil || login.Identity.EmailVerified != test.verified || login.Identity.Subject != "ada" {
				t.Errorf("got %+v, %v", login.Identity, err)
			}
			if len(test.domains) == 1 && o.requested.Get("hd") != test.domains[0] {
				t.Errorf("asked for hd %q", o.requested.Get("hd"))
			}
		})
	}
	o := newOP(t)
	p := o.provider()
	p.Kind = oidc.Google
	if _, err := o.begin(newClient(t, nil), p, oidc.Options{Fresh: time.Minute}); err == nil {
		t.Error("Google was asked to make the person sign in anew, which it does not confirm")
	}
}

func TestGitHub(t *testing.T) {
	t.Parallel()
	user := map[string]any{"id": 583231, "login": "ada", "name": "Ada", "email": "ceo@victim.example"}
	emails := []map[string]any{{"email": "old@example.com", "primary": false, "verified": true}, {"email": "ada@example.com", "primary": true, "verified": true}}
	for _, test := range []struct {
		name   string
		user   any
		emails any
		email  string
		want   oidc.Reason
	}{
		{"a verified primary address", user, emails, "ada@example.com", ""},
		{"a primary address that is not verified", user, []map[string]any{{"email": "ada@example.com", "primary": true, "verified": false}, {"email": "old@example.com", "primary": false, "verified": true}}, "", ""},
		{"verified as a text", user, []map[string]any{{"email": "ada@example.com", "primary": true, "verified": "true"}}, "", ""},
		{"an address that nobody reads", user, []map[string]any{{"email": "1+ada@users.noreply.github.com", "primary": true, "verified": true}}, "", ""},
		{"no addresses", user, []map[string]any{}, "", ""},
		{"addresses that are no list", user, map[string]any{"message": "x"}, "", oidc.BadToken},
		{"no id", map[string]any{"login": "ada"}, emails, "", oidc.WrongSubject},
		{"an id that is a text", map[string]any{"id": "583231", "login": "ada"}, emails, "", oidc.WrongSubject},
		{"an id that is zero", map[string]any{"id": 0}, emails, "", oidc.WrongSubject},
		{"an id with a fraction", map[string]any{"id": 1.5}, emails, "", oidc.WrongSubject},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			o, p := github(t, test.user, test.emails)
			login, err := o.signIn(newClient(t, nil), p, oidc.Options{Hint: "ada"})
			if test.want != "" {
				checkRefused(t, login, err, test.want)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			want := oidc.Identity{Issuer: o.URL, Subject: "583231", Email: test.email, EmailVerified: test.email != "", Name: "Ada", Groups: oidc.Groups{Why: "GitHub says nothing of groups"}}
			if diff := cmp.Diff(want, login.Identity); diff != "" {
				t.Errorf("the identity (-want +got):\n%s", diff)
			}
			if o.requested.Get("code_challenge_method") != "S256" || o.requested.Get("scope") != "read:user user:email" || o.requested.Get("login") != "ada" || o.form.Get("client_secret") == "" {
				t.Errorf("the requests were %v %v", o.requested, o.form)
			}
		})
	}
	o, p := github(t, user, emails)
	client := newClient(t, nil)
	for iss, want := range map[string]oidc.Reason{"": "", o.URL + "/login/oauth": "", o.URL: oidc.WrongIssuer, "https://evil.example": oidc.WrongIssuer} {
		kept := must(o.begin(client, p, oidc.Options{}))
		if _, err := client.Finish(context.Background(), p, kept, oidc.Callback{State: kept.State(), Code: theCode, Issuer: iss}); reasonOf(err) != want {
			t.Errorf("iss %q: got %v", iss, err)
		}
	}
	if _, err := client.Logout(context.Background(), p, "x", nil); reasonOf(err) != oidc.BadToken {
		t.Errorf("a logout token: %v", err)
	}
}

// github makes the op a GitHub Enterprise Server.
func github(t *testing.T, user, emails any) (*op, oidc.Provider) {
	o := newOP(t)
	mux := o.server.Config.Handler.(*http.ServeMux)
	mux.HandleFunc("POST /login/oauth/access_token", o.serveToken)
	for path, answer := range map[string]any{"GET /api/v3/user": user, "GET /api/v3/user/emails": emails} {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Authorization") != "Bearer access" {
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			json.NewEncoder(w).Encode(answer)
		})
	}
	o.token = map[string]any{"token_type": "bearer", "id_token": nil}
	p := o.provider()
	p.Kind = oidc.GitHub
	return o, p
}
