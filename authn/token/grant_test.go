package token_test

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-cmp/cmp"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/apikeys"
	"github.com/sallyport-iam/sallyport/authn/authntest"
	"github.com/sallyport-iam/sallyport/authn/token"
	"github.com/sallyport-iam/sallyport/certs"
	"github.com/sallyport-iam/sallyport/credential"
)

// verifiedElsewhere checks a token as another service would, by our key set alone.
func (w *world) verifiedElsewhere(t testing.TB, raw string) (header jose.Header, claims map[string]any) {
	t.Helper()
	w.Advance(2 * time.Second) // past the key set that may still be answered
	var set jose.JSONWebKeySet
	check(t, json.Unmarshal(w.get(t, "/.well-known/jwks.json"), &set))
	signed, err := jose.ParseSigned(raw, []jose.SignatureAlgorithm{jose.ES256})
	check(t, err)
	keys := set.Key(signed.Signatures[0].Header.KeyID)
	if len(keys) != 1 {
		t.Fatalf("the key set has %d keys of the token's id", len(keys))
	}
	payload, err := signed.Verify(keys[0])
	check(t, err)
	check(t, json.Unmarshal(payload, &claims))
	return signed.Signatures[0].Header, claims
}

func TestClientCredentials(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.Tenant(t)
	sa := reader(t, a)
	made := a.Key(t, sa, sallyport.Limits{})
	secret := made.Token.Reveal()
	basic := "Basic " + base64.StdEncoding.EncodeToString([]byte(url.QueryEscape(sa.ID)+":"+url.QueryEscape(secret)))
	for name, values := range map[string][]string{
		"in the body":        {"client_id", sa.ID, "client_secret", secret},
		"Basic":              {"header:Authorization", basic},
		"Basic, and the id":  {"header:Authorization", basic, "client_id", sa.ID},
		"Bearer":             {"header:Authorization", "Bearer " + secret},
		"Bearer, and the id": {"header:Authorization", "Bearer " + secret, "client_id", sa.ID},
	} {
		got := w.token(t, append([]string{"grant_type", "client_credentials"}, values...)...)
		if got.status != http.StatusOK || got.Type != "Bearer" || got.ExpiresIn != 600 || got.IssuedType != "" {
			t.Fatalf("%s: got %+v", name, got)
		}
		caller, err := w.authenticate(t, got.Token)
		check(t, err)
		header, claims := w.verifiedElsewhere(t, got.Token)
		want := sallyport.Caller{Account: a.ID, Principal: sa, Credential: sallyport.Credential{Kind: token.CredentialKind, ID: claims["jti"].(string)},
			From: netip.MustParseAddr("192.0.2.1")}
		if diff := cmp.Diff(want, caller, cmp.Comparer(func(x, y netip.Addr) bool { return x == y })); diff != "" {
			t.Errorf("%s: caller (-want +got):\n%s", name, diff)
		}
		if header.ExtraHeaders["typ"] != "at+jwt" {
			t.Errorf("the header is %+v", header)
		}
		for _, varies := range []string{"jti", "iat", "exp"} {
			delete(claims, varies)
		}
		if diff := cmp.Diff(map[string]any{"iss": issuerURL, "sub": sa.ID, "client_id": sa.ID, "aud": []any{platform}, "account": string(a.ID),
			"epoch": claims["epoch"], "key": made.Key.ID}, claims); diff != "" {
			t.Errorf("%s: claims (-want +got):\n%s", name, diff)
		}
	}
	if log := w.Log.String(); strings.Contains(log, secret) {
		t.Error("the API key is in the log")
	}
}

func TestRefusedRequests(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.Tenant(t), w.Tenant(t)
	sa, other := reader(t, a), reader(t, a)
	key := a.Key(t, sa, sallyport.Limits{}).Token.Reveal()
	wrong := key[:len(key)-1] + "x"
	if wrong == key {
		wrong = key[:len(key)-1] + "y"
	}
	userKey := a.Key(t, a.Owner.Principal, sallyport.Limits{}).Token.Reveal()
	b.Namespace(t, "theirs")
	credentials := []string{"grant_type", "client_credentials", "client_id", sa.ID, "client_secret", key}
	with := func(values ...string) []string { return append(append([]string{}, credentials...), values...) }
	exchange := func(values ...string) []string {
		return append([]string{"grant_type", exchangeGrant, "subject_token_type", "urn:ietf:params:oauth:token-type:jwt"}, values...)
	}
	for name, test := range map[string]struct {
		values []string
		status int
		want   string
	}{
		"no grant":                        {[]string{"client_id", sa.ID}, 400, "invalid_request"},
		"another grant":                   {[]string{"grant_type", "password"}, 400, "unsupported_grant_type"},
		"no secret":                       {[]string{"grant_type", "client_credentials", "client_id", sa.ID}, 401, "invalid_client"},
		"a wrong secret":                  {[]string{"grant_type", "client_credentials", "client_id", sa.ID, "client_secret", wrong}, 401, "invalid_client"},
		"another's id":                    {[]string{"grant_type", "client_credentials", "client_id", other.ID, "client_secret", key}, 401, "invalid_client"},
		"a user's key":                    {[]string{"grant_type", "client_credentials", "client_secret", userKey}, 400, "unauthorized_client"},
		"twice the grant":                 {with("grant_type", "client_credentials"), 400, "invalid_request"},
		"two ways":                        {with("header:Authorization", "Bearer "+key), 400, "invalid_request"},
		"Digest":                          {[]string{"grant_type", "client_credentials", "header:Authorization", "Digest x"}, 401, "invalid_client"},
		"JSON":                            {with("header:Content-Type", "application/json"), 400, "invalid_request"},
		"too large":                       {with("x", strings.Repeat("x", 70<<10)), 413, "invalid_request"},
		"another audience":                {with("audience", "https://elsewhere.example.com"), 400, "invalid_target"},
		"a resource":                      {with("resource", platform), 400, "invalid_target"},
		"too short":                       {with("expires_in", "59"), 400, "invalid_request"},
		"too long":                        {with("expires_in", "3601"), 400, "invalid_request"},
		"not a number":                    {with("expires_in", "1e3"), 400, "invalid_request"},
		"an unknown scope":                {with("scope", "write"), 400, "invalid_scope"},
		"an unknown namespace":            {with("scope", "namespace:nothing"), 400, "invalid_scope"},
		"another account's namespace":     {with("scope", "namespace:theirs"), 400, "invalid_scope"},
		"the same, by its full name":      {with("scope", "namespace:theirs."+string(b.ID)), 400, "invalid_scope"},
		"an empty namespace":              {with("scope", "namespace:"), 400, "invalid_scope"},
		"an exchange without a token":     {exchange("account", string(a.ID), "service_account", sa.ID), 400, "invalid_request"},
		"an exchange without an account":  {exchange("subject_token", "a.b.c", "service_account", sa.ID), 400, "invalid_request"},
		"an exchange for a user":          {exchange("subject_token", "a.b.c", "account", string(a.ID), "service_account", a.Owner.Principal.ID), 400, "invalid_request"},
		"an exchange of what is no token": {exchange("subject_token", "a.b.c", "account", string(a.ID), "service_account", sa.ID), 400, "invalid_request"},
	} {
		got := w.token(t, test.values...)
		if got.status != test.status || got.Error != test.want || got.Description == "" || got.Token != "" {
			t.Errorf("%s: got %d %s (%s), want %d %s", name, got.status, got.Error, got.Description, test.status, test.want)
		}
		if (got.status == 401) != (got.header.Get("WWW-Authenticate") != "") {
			t.Errorf("%s: WWW-Authenticate is %q", name, got.header.Get("WWW-Authenticate"))
		}
		if strings.Contains(got.Description, key) {
			t.Errorf("%s: the key is in the answer", name)
		}
	}
	if log := w.Log.String(); strings.Contains(log, key) || strings.Contains(log, "ERROR") {
		t.Errorf("the log has a secret or a fault:\n%s", log)
	}
}

// Narrowing only ever narrows: by the key's limits, and by the scope.
func TestNarrowing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.Tenant(t)
	one, two := a.Namespace(t, "one"), a.Namespace(t, "two")
	sa := reader(t, a)
	prefix := []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	ids := func(list ...sallyport.NamespaceID) []sallyport.NamespaceID { return list }
	for name, test := range map[string]struct {
		key   sallyport.Limits
		scope string
		given string
		want  sallyport.Limits
	}{
		"nothing":                 {},
		"read":                    {scope: "read", given: "read", want: sallyport.Limits{ReadOnly: true}},
		"the key is read-only":    {key: sallyport.Limits{ReadOnly: true}, want: sallyport.Limits{ReadOnly: true}},
		"one namespace":           {scope: "namespace:one", given: "namespace:one." + string(a.ID), want: sallyport.Limits{Namespaces: ids(one.ID)}},
		"by its full name, twice": {scope: "namespace:one." + string(a.ID) + " read  namespace:one", given: "read namespace:one." + string(a.ID), want: sallyport.Limits{ReadOnly: true, Namespaces: ids(one.ID)}},
		"of a narrowed key":       {key: sallyport.Limits{Namespaces: ids(one.ID), Sources: prefix}, scope: "namespace:one", given: "namespace:one." + string(a.ID), want: sallyport.Limits{Namespaces: ids(one.ID), Sources: prefix}},
		"as narrow as the key":    {key: sallyport.Limits{Namespaces: ids(two.ID)}, want: sallyport.Limits{Namespaces: ids(two.ID)}},
	} {
		got := w.credentialsFrom(t, a.Key(t, sa, test.key), "192.0.2.9", "scope", test.scope)
		if got.status != http.StatusOK || got.Scope != test.given {
			t.Errorf("%s: got %+v, want the scope %q", name, got, test.given)
			continue
		}
		caller, err := w.authenticate(t, got.Token)
		check(t, err)
		if diff := cmp.Diff(test.want, caller.Limits, cmp.Comparer(func(x, y netip.Prefix) bool { return x == y })); diff != "" {
			t.Errorf("%s: limits (-want +got):\n%s", name, diff)
		}
	}
	narrowed := a.Key(t, sa, sallyport.Limits{Namespaces: ids(one.ID), Sources: prefix})
	if got := w.credentialsFrom(t, narrowed, "192.0.2.9", "scope", "namespace:two"); got.Error != "invalid_scope" {
		t.Errorf("beyond the key: got %+v", got)
	}
	if got := w.credentialsFrom(t, narrowed, "198.51.100.1"); got.Error != "invalid_client" {
		t.Errorf("from elsewhere: got %+v", got)
	}
	got := w.credentialsFrom(t, narrowed, "192.0.2.9")
	_, err := w.issuer.Authenticate(t.Context(), w.Journal.Pool(), got.Token, nil, netip.MustParseAddr("198.51.100.1"))
	if err == nil {
		t.Error("the token is good where its key is not")
	}
}

func (w *world) credentialsFrom(t testing.TB, made apikeys.Made, from string, values ...string) answer {
	t.Helper()
	form := url.Values{"grant_type": {"client_credentials"}, "client_secret": {made.Token.Reveal()}}
	for n := 0; n < len(values); n += 2 {
		form.Set(values[n], values[n+1])
	}
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/oauth/token", strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	r.RemoteAddr = from + ":1234"
	return send(t, w.handler, r)
}

// Limits that have nothing in common leave nothing, which is not everything.
func TestNothingInCommon(t *testing.T) {
	got := token.Narrow(sallyport.Limits{Namespaces: []sallyport.NamespaceID{"ns_1", "ns_2"}}, credential.Token{Namespaces: []sallyport.NamespaceID{"ns_2", "ns_3"}})
	if diff := cmp.Diff(sallyport.Limits{Namespaces: []sallyport.NamespaceID{"ns_2"}}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	got = token.Narrow(sallyport.Limits{Namespaces: []sallyport.NamespaceID{"ns_1"}}, credential.Token{Namespaces: []sallyport.NamespaceID{"ns_3"}})
	if got.Namespaces == nil || len(got.Namespaces) != 0 {
		t.Errorf("got %#v", got)
	}
}

// Nobody comes again with another's token, nor with one that was never seen.
func TestReauthenticateOthers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.Tenant(t), w.Tenant(t)
	caller, err := w.authenticate(t, w.credentials(t, a.Key(t, reader(t, a), sallyport.Limits{})).Token)
	check(t, err)
	for name, change := range map[string]func(*sallyport.Caller){
		"another account":         func(c *sallyport.Caller) { c.Account = b.ID },
		"another service account": func(c *sallyport.Caller) { c.Principal = reader(t, a) },
	} {
		forged := caller
		change(&forged)
		_, err := w.issuer.Reauthenticate(t.Context(), w.Journal.Pool(), forged)
		wantKind(t, name, err, sallyport.Unauthenticated, "another's")
	}
	caller.Credential.ID = "tok_unseen"
	_, err = w.issuer.Reauthenticate(t.Context(), w.Journal.Pool(), caller)
	wantKind(t, "unseen", err, sallyport.Unavailable, "try again")
}

// A token dies with all that it hangs on, at once.
func TestEndsOfTokens(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := newIdP(t)
	idpKey := p.key(t, "1", "ES256")
	type subject struct {
		a    *authntest.Tenant
		sa   sallyport.Principal
		made apikeys.Made
		rule token.Rule
	}
	for name, test := range map[string]struct {
		byRule bool
		end    func(s subject) error
		says   string
	}{
		"the key is deleted": {false, func(s subject) error {
			_, err := s.a.Keys.Delete(t.Context(), s.a.Owner, op("x"), s.made.Key.ID, 0)
			return err
		}, "deleted"},
		"the key is disabled": {false, func(s subject) error {
			_, _, err := s.a.Keys.Update(t.Context(), s.a.Owner, op("x"), s.made.Key.ID, 0, apikeys.UpdateParams{DisplayName: "x", Disabled: true})
			return err
		}, "disabled"},
		"the key is replaced": {false, func(s subject) error {
			_, _, err := s.a.Keys.Rotate(t.Context(), s.a.Owner, op("x"), s.made.Key.ID, apikeys.RotateParams{})
			return err
		}, "replaced"},
		"the service account is deleted": {false, func(s subject) error {
			_, err := s.a.Directory.DeleteServiceAccount(t.Context(), s.a.Owner, op("x"), s.sa.ID, 0)
			return err
		}, "gone"},
		"the same, by a rule": {true, func(s subject) error {
			_, err := s.a.Directory.DeleteServiceAccount(t.Context(), s.a.Owner, op("x"), s.sa.ID, 0)
			return err
		}, "gone"},
		"the account is suspended": {true, func(s subject) error {
			_, _, err := s.a.Directory.SetAccountStatus(t.Context(), s.a.Operator, op("x"), "suspended")
			return err
		}, "suspended"},
		"the rule is deleted": {true, func(s subject) error {
			_, err := w.issuer.DeleteRule(t.Context(), s.a.Owner, op("x"), s.rule.ID, 0)
			return err
		}, "rule"},
		"the rule is disabled": {true, func(s subject) error {
			p := s.rule.RuleParams
			p.Enabled = false
			_, _, err := w.issuer.UpdateRule(t.Context(), s.a.Owner, op("x"), s.rule.ID, 0, p)
			return err
		}, "rule"},
		"the rule is changed": {true, func(s subject) error {
			p := s.rule.RuleParams
			p.Conditions = []token.Condition{{Claim: "sub", Equals: []any{"another"}}}
			_, _, err := w.issuer.UpdateRule(t.Context(), s.a.Owner, op("x"), s.rule.ID, 0, p)
			return err
		}, "rule"},
		"all its credentials are ended": {true, func(s subject) error {
			_, err := w.Journal.Pool().Exec(t.Context(), `update service_accounts set credential_epoch = credential_epoch + 1 where id = $1`, s.sa.ID)
			return err
		}, "all credentials"},
		"time": {false, func(subject) error { w.Advance(10 * time.Minute); return nil }, "expired"},
	} {
		s := subject{a: w.Tenant(t)}
		s.sa = reader(t, s.a)
		s.made = s.a.Key(t, s.sa, sallyport.Limits{})
		s.rule = w.rule(t, s.a, s.sa, p)
		got := w.credentials(t, s.made)
		if test.byRule {
			got = w.exchange(t, s.a, s.sa, sign(t, idpKey, "ES256", "1", w.good(p, s.a, nil)))
		}
		if got.status != http.StatusOK {
			t.Fatalf("%s: got %+v", name, got)
		}
		caller, err := w.authenticate(t, got.Token)
		check(t, err)
		if again, err := w.issuer.Reauthenticate(t.Context(), w.Journal.Pool(), caller); err != nil || again.Credential != caller.Credential {
			t.Errorf("%s: again: %+v, %v", name, again, err)
		}
		check(t, test.end(s))
		_, err = w.authenticate(t, got.Token)
		wantKind(t, name, err, sallyport.Unauthenticated, test.says)
		_, err = w.issuer.Reauthenticate(t.Context(), w.Journal.Pool(), caller)
		wantKind(t, name+", again", err, sallyport.Unauthenticated, test.says)
		if got := w.post(t, w.handler, "/oauth/introspect", "token", got.Token, "header:Authorization", "Bearer "+s.a.Key(t, s.a.Owner.Principal, sallyport.Limits{}).Token.Reveal()); got.status != 200 && name != "the account is suspended" {
			t.Errorf("%s: introspection: %+v", name, got)
		}
	}
}

// A changed description of a rule is no change of what it lets in.
func TestDescriptionEndsNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, p := w.Tenant(t), newIdP(t)
	sa, key := reader(t, a), p.key(t, "1", "ES256")
	rule := w.rule(t, a, sa, p)
	got := w.exchange(t, a, sa, sign(t, key, "ES256", "1", w.good(p, a, nil)))
	params := rule.RuleParams
	params.Description = "the nightly job"
	after, _, err := w.issuer.UpdateRule(t.Context(), a.Owner, op("x"), rule.ID, rule.Revision, params)
	check(t, err)
	if after.Version != rule.Version {
		t.Errorf("the version is %d, was %d", after.Version, rule.Version)
	}
	_, err = w.authenticate(t, got.Token)
	check(t, err)
	_, _, err = w.issuer.UpdateRule(t.Context(), a.Owner, op("x"), rule.ID, rule.Revision, params)
	wantKind(t, "stale", err, sallyport.Conflict, "changed since")
	_, _, err = w.issuer.UpdateRule(t.Context(), a.Owner, op("x"), rule.ID, 0, params)
	wantKind(t, "no change", err, sallyport.Invalid, "nothing to change")
}

// No token outlives its API key.
func TestNeverBeyondTheKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.Tenant(t)
	sa := reader(t, a)
	made, _, err := w.Keys.Create(t.Context(), a.Owner, op("x"), apikeys.CreateParams{Owner: sa, DisplayName: "short", Expires: w.Now().Add(5 * time.Minute)})
	check(t, err)
	if got := w.credentials(t, made, "expires_in", "3600"); got.status != 200 || got.ExpiresIn > 300 || got.ExpiresIn < 290 {
		t.Errorf("got %+v; want about 300 seconds", got)
	}
	old := a.Key(t, sa, sallyport.Limits{})
	_, _, err = w.Keys.Rotate(t.Context(), a.Owner, op("x"), old.Key.ID, apikeys.RotateParams{Overlap: 2 * time.Minute})
	check(t, err)
	if got := w.credentials(t, old); got.status != 200 || got.ExpiresIn > 120 || got.ExpiresIn < 110 {
		t.Errorf("got %+v; want about 120 seconds", got)
	}
}

// A revoked certificate carries no token that is bound to it, and gets no new one.
func TestBoundToRevoked(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.CA(t)
	a := w.Tenant(t)
	sa := reader(t, a)
	c := w.config
	c.Certificate = w.Certs.CheckBound
	w.issuer = newIssuer(t, c)
	made := a.Key(t, sa, sallyport.Limits{})
	csr, _ := authntest.CSR(t)
	issued, _, err := w.Certs.Issue(t.Context(), a.Owner, op("IssueCertificate"), certs.IssueParams{ServiceAccount: sa.ID, CSR: csr})
	check(t, err)
	chain := authntest.Chain(t, issued.Chain)
	ask := func() answer {
		form := url.Values{"grant_type": {"client_credentials"}, "client_secret": {made.Token.Reveal()}}
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/oauth/token", strings.NewReader(form.Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.TLS = &tls.ConnectionState{PeerCertificates: chain}
		return send(t, w.issuer.MTLSHandler(), r)
	}
	come := func(raw string) error {
		_, err := w.issuer.Authenticate(t.Context(), w.Journal.Pool(), raw, chain, netip.MustParseAddr("192.0.2.1"))
		return err
	}
	got := ask()
	if got.status != http.StatusOK {
		t.Fatalf("got %+v", got)
	}
	check(t, come(got.Token))
	_, _, err = w.Certs.Revoke(t.Context(), a.Owner, op("RevokeCertificate"), certs.RevokeParams{CertificateID: issued.ID})
	check(t, err)
	wantKind(t, "revoked", come(got.Token), sallyport.Unauthenticated, "revoked")
	if got := ask(); got.Error != "invalid_client" || !strings.Contains(got.Description, "revoked") {
		t.Errorf("a new token: got %+v", got)
	}
}

func TestBoundToCertificate(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.Tenant(t)
	made := a.Key(t, reader(t, a), sallyport.Limits{})
	cert, other := &x509.Certificate{Raw: []byte("certificate")}, &x509.Certificate{Raw: []byte("other")}
	ask := func(state *tls.ConnectionState) answer {
		form := url.Values{"grant_type": {"client_credentials"}, "client_secret": {made.Token.Reveal()}}
		r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/oauth/token", strings.NewReader(form.Encode()))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.TLS = state
		return send(t, w.issuer.MTLSHandler(), r)
	}
	if got := ask(&tls.ConnectionState{}); got.Error != "invalid_request" {
		t.Errorf("without a certificate: got %+v", got)
	}
	got := ask(&tls.ConnectionState{PeerCertificates: []*x509.Certificate{cert}})
	_, claims := w.verifiedElsewhere(t, got.Token)
	sum := sha256.Sum256(cert.Raw)
	if diff := cmp.Diff(map[string]any{"x5t#S256": base64.RawURLEncoding.EncodeToString(sum[:])}, claims["cnf"]); diff != "" {
		t.Errorf("cnf (-want +got):\n%s", diff)
	}
	from := netip.MustParseAddr("192.0.2.1")
	for name, test := range map[string]struct {
		certs []*x509.Certificate
		says  string
	}{
		"with it":       {[]*x509.Certificate{cert}, ""},
		"without":       {nil, "bound to a client certificate"},
		"with another":  {[]*x509.Certificate{other}, "another client certificate"},
		"not as a leaf": {[]*x509.Certificate{other, cert}, "another client certificate"},
	} {
		_, err := w.issuer.Authenticate(t.Context(), w.Journal.Pool(), got.Token, test.certs, from)
		if test.says == "" {
			check(t, err)
			continue
		}
		wantKind(t, name, err, sallyport.Unauthenticated, test.says)
	}
}
