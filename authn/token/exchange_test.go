package token_test

import (
	"crypto"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/golang-jwt/jwt/v5"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authn/token"
)

// Tokens as the issuers that people use make them: what they look like, and a rule
// for them.
func TestShapes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.Tenant(t)
	for name, test := range map[string]struct {
		algorithm  string
		upload     bool   // the key set, instead of discovery
		issuer     string // of an uploaded one
		claims     map[string]any
		header     []any
		conditions []token.Condition
	}{
		"GitHub Actions": {algorithm: "RS256", header: []any{"x5t", "fingerprint"}, claims: map[string]any{
			"sub": "repo:octo-org/octo-repo:ref:refs/heads/main", "repository": "octo-org/octo-repo", "repository_id": "74", "repository_owner": "octo-org",
			"repository_owner_id": "65", "ref": "refs/heads/main", "ref_type": "branch", "environment": "prod", "runner_environment": "github-hosted",
			"job_workflow_ref": "octo-org/octo-automation/.github/workflows/oidc.yml@refs/heads/main", "run_attempt": "2"},
			conditions: []token.Condition{{Claim: "repository_id", Equals: []any{"74"}}, {Claim: "ref", Equals: []any{"refs/heads/main"}},
				{Claim: "job_workflow_ref", Prefixes: []string{"octo-org/octo-automation/"}}}},
		"GitLab": {algorithm: "RS256", claims: map[string]any{
			"sub": "project_path:my-group/my-project:ref_type:branch:ref:main", "project_id": "20", "project_path": "my-group/my-project", "namespace_id": "72",
			"ref_protected": "true", "user_login": "me", "pipeline_id": "574", "groups_direct": []any{"mygroup/mysubgroup", "myothergroup"}},
			conditions: []token.Condition{{Claim: "project_id", Equals: []any{"20"}}, {Claim: "ref_protected", Equals: []any{"true"}}, {Claim: "groups_direct", Equals: []any{"myothergroup"}}}},
		"Kubernetes, discovery": {algorithm: "RS256", claims: kubernetes,
			conditions: []token.Condition{{Claim: "sub", Equals: []any{"system:serviceaccount:my-namespace:my-serviceaccount"}},
				{Claim: "kubernetes.io.serviceaccount.uid", Equals: []any{"14ee3fa4-a7e2-420f-9f9a-dbc4507c3798"}}}},
		"Kubernetes, uploaded": {algorithm: "ES256", upload: true, issuer: "https://kubernetes.default.svc.cluster.local", claims: kubernetes,
			conditions: []token.Condition{{Claim: "kubernetes.io.namespace", Equals: []any{"my-namespace"}},
				{Claim: "kubernetes.io.serviceaccount.uid", Equals: []any{"14ee3fa4-a7e2-420f-9f9a-dbc4507c3798"}}}},
		"Google": {algorithm: "RS256", claims: map[string]any{
			"sub": "112010400000000710080", "azp": "112010400000000710080", "email": "robot@project.iam.gserviceaccount.com", "email_verified": true,
			"google": map[string]any{"compute_engine": map[string]any{"project_id": "my-project", "project_number": 739419398126, "zone": "us-central1-a"}}},
			conditions: []token.Condition{{Claim: "sub", Equals: []any{"112010400000000710080"}}, {Claim: "email_verified", Equals: []any{true}},
				{Claim: "google.compute_engine.project_number", Equals: []any{json.Number("739419398126")}}}},
		"AWS": {algorithm: "ES384", claims: map[string]any{
			"sub": "arn:aws:iam::123456789012:role/DataProcessingRole",
			"https://sts.amazonaws.com/": map[string]any{"aws_account": "123456789012", "org_id": "o-abc1234567", "source_region": "us-east-1",
				"principal_tags": map[string]any{"environment": "production"}}},
			conditions: []token.Condition{{Claim: "sub", Equals: []any{"arn:aws:iam::123456789012:role/DataProcessingRole"}},
				{Claim: "https://sts.amazonaws.com/.org_id", Equals: []any{"o-abc1234567"}}}},
		"SPIFFE": {algorithm: "ES256", claims: map[string]any{"sub": "spiffe://example.org/ns/prod/sa/worker", "nbf": nil},
			conditions: []token.Condition{{Claim: "sub", Prefixes: []string{"spiffe://example.org/ns/prod/"}}}},
	} {
		p := newIdP(t)
		key := p.key(t, "kid-"+test.algorithm, test.algorithm)
		p.key(t, "another", test.algorithm)
		params := token.RuleParams{ServiceAccount: reader(t, a).ID, Conditions: test.conditions, Enabled: true, MaxAge: time.Hour}
		if test.upload {
			p.issuer, params.JWKS = test.issuer, p.jwks()
			p.Close()
		}
		params.Issuer = p.issuer
		rule, _, err := w.issuer.CreateRule(t.Context(), a.Owner, op("CreateFederationRule"), params)
		check(t, err)
		sa := sallyport.Principal{Kind: sallyport.ServiceAccount, ID: rule.ServiceAccount}
		claims := w.good(p, a, test.claims)
		claims["aud"] = []string{w.issuer.AccountAudience(a.ID)}
		raw := sign(t, key, test.algorithm, "kid-"+test.algorithm, claims, test.header...)
		got := w.exchange(t, a, sa, raw, "scope", "read", "expires_in", "300")
		if got.status != http.StatusOK || got.IssuedType != "urn:ietf:params:oauth:token-type:access_token" || got.ExpiresIn != 300 || got.Scope != "read" {
			t.Errorf("%s: got %+v", name, got)
			continue
		}
		caller, err := w.authenticate(t, got.Token)
		if err != nil || caller.Principal != sa || !caller.Limits.ReadOnly {
			t.Errorf("%s: got %+v, %v", name, caller, err)
		}
		w.tested(t, name, a.Owner, rule, raw)
		// Another repository, cluster, role: precisely refused, since it is a token for this account.
		for _, c := range test.conditions {
			if broken := without(claims, c.Claim); broken != nil {
				got := w.exchange(t, a, sa, sign(t, key, test.algorithm, "kid-"+test.algorithm, broken))
				if got.Error != "invalid_grant" || !strings.Contains(got.Description, c.Claim) || !strings.Contains(got.Description, rule.ID) {
					t.Errorf("%s without %s: got %+v", name, c.Claim, got)
				}
			}
		}
	}
}

// tested asks what the rules make of the token.
func (w *world) tested(t testing.TB, name string, caller sallyport.Caller, rule token.Rule, raw string) {
	t.Helper()
	result, err := w.issuer.TestRules(t.Context(), caller, rule.ServiceAccount, raw)
	check(t, err)
	if len(result.Rules) != 1 || !result.Rules[0].Matches || result.Problem != "" || len(result.Rules[0].Conditions) != len(rule.Conditions) {
		t.Errorf("%s: the test says %+v", name, result)
	}
	if !strings.Contains(string(result.Claims), `"jti":"(left out)"`) {
		t.Errorf("%s: the claims are %s", name, result.Claims)
	}
}

// without takes a claim of the first level away; nil for others.
func without(claims map[string]any, name string) map[string]any {
	if _, ok := claims[name]; !ok {
		return nil
	}
	rest := map[string]any{}
	for n, v := range claims {
		if n != name {
			rest[n] = v
		}
	}
	return rest
}

var kubernetes = map[string]any{
	"sub": "system:serviceaccount:my-namespace:my-serviceaccount", "jti": "ea28ed49-2e11-4280-9ec5-bc3d1d84661a",
	"kubernetes.io": map[string]any{
		"namespace": "my-namespace", "node": map[string]any{"name": "127.0.0.1", "uid": "58456cb0-dd00-45ed-b797-5578fdceaced"},
		"pod":            map[string]any{"name": "my-pod", "uid": "89b2c9f8-9d61-4d2e-8e6b-1f2b5e9a6a7f"},
		"serviceaccount": map[string]any{"name": "my-serviceaccount", "uid": "14ee3fa4-a7e2-420f-9f9a-dbc4507c3798"}}}

// Nothing but a good token of the trusted issuer for this account gets in, nobody
// learns why, and it is in the audit log.
func TestHostileTokens(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.Tenant(t), w.Tenant(t)
	p := newIdP(t)
	rs, es := p.key(t, "rsa", "RS256"), p.key(t, "ec", "ES256")
	other := newIdP(t)
	foreign := other.key(t, "ec", "ES256")
	sa, elsewhere := reader(t, a), reader(t, a)
	w.rule(t, a, sa, p)
	now := w.Now()
	public := jose.JSONWebKey{Key: es.Public(), KeyID: "ec"}
	publicText, err := public.MarshalJSON()
	check(t, err)
	good := sign(t, es, "ES256", "ec", w.good(p, a, nil))
	parts := strings.Split(good, ".")
	encode := func(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }
	es256 := func(more map[string]any, header ...any) string {
		return sign(t, es, "ES256", "ec", w.good(p, a, more), header...)
	}
	raw := func(payload string) string { // signed by the issuer, of whatever bytes
		text := encode(`{"alg":"ES256","kid":"ec"}`) + "." + encode(payload)
		return text + "." + encode(string(signES256(t, es, text)))
	}
	const unread, generic, precise = "invalid_request", "invalid_grant", "invalid_grant: told why"
	for name, test := range map[string]struct {
		raw  string
		want string
	}{
		"none":                         {encode(`{"alg":"none","kid":"ec"}`) + "." + parts[1] + ".", unread},
		"none, with a signature":       {encode(`{"alg":"none","kid":"ec"}`) + "." + parts[1] + "." + parts[2], unread},
		"nOnE":                         {encode(`{"alg":"nOnE"}`) + "." + parts[1] + "." + parts[2], unread},
		"HS256 with the public key":    {sign(t, publicText, "HS256", "ec", w.good(p, a, nil)), unread},
		"PS256":                        {sign(t, rs, "PS256", "rsa", w.good(p, a, nil)), unread},
		"its own key in jwk":           {sign(t, foreign, "ES256", "ec", w.good(p, a, nil), "jwk", map[string]any{"kty": "EC"}), generic},
		"its own key at jku":           {sign(t, foreign, "ES256", "ec", w.good(p, a, nil), "jku", other.URL+"/keys"), generic},
		"its own certificate at x5u":   {sign(t, foreign, "ES256", "ec", w.good(p, a, nil), "x5u", other.URL), generic},
		"crit":                         {es256(nil, "crit", []string{"exp"}), unread},
		"b64":                          {es256(nil, "b64", false), unread},
		"the typ of a logout token":    {es256(nil, "typ", "logout+jwt"), unread},
		"a typ that is no text":        {es256(nil, "typ", 1), unread},
		"a key id that is no text":     {es256(nil, "kid", 7), unread},
		"a key id as a path":           {sign(t, foreign, "ES256", "../../ec", w.good(p, a, nil)), generic},
		"another key":                  {sign(t, foreign, "ES256", "ec", w.good(p, a, nil)), generic},
		"the algorithm of another key": {sign(t, es, "ES256", "rsa", w.good(p, a, nil)), generic},
		"mutilated":                    {good[:len(good)-4] + "AAAA", generic},
		"a signature of zeros":         {parts[0] + "." + parts[1] + "." + encode(strings.Repeat("\x00", 64)), generic},
		"another payload":              {parts[0] + "." + encode(`{"iss":"`+p.issuer+`","sub":"workload"}`) + "." + parts[2], generic},
		"another issuer":               {sign(t, foreign, "ES256", "ec", w.good(other, a, nil)), generic},
		"another issuer's name":        {sign(t, foreign, "ES256", "ec", w.good(p, a, nil)), generic},
		"iss with a slash":             {es256(map[string]any{"iss": p.issuer + "/"}), generic},
		"iss as a list":                {es256(map[string]any{"iss": []string{p.issuer}}), unread},
		"no iss":                       {es256(map[string]any{"iss": nil}), unread},
		"the audience of another":      {es256(map[string]any{"aud": w.issuer.AccountAudience(b.ID)}), generic},
		"two audiences":                {es256(map[string]any{"aud": []string{w.issuer.AccountAudience(a.ID), "https://elsewhere.example.com"}}), generic},
		"the same audience twice":      {es256(map[string]any{"aud": []string{w.issuer.AccountAudience(a.ID), w.issuer.AccountAudience(a.ID)}}), generic},
		"the platform's audience":      {es256(map[string]any{"aud": platform}), generic},
		"the issuer's audience":        {es256(map[string]any{"aud": issuerURL}), generic},
		"no audience":                  {es256(map[string]any{"aud": nil}), generic},
		"an audience in another case":  {es256(map[string]any{"aud": strings.ToUpper(w.issuer.AccountAudience(a.ID))}), generic},
		"expired":                      {es256(map[string]any{"exp": now.Add(-2 * time.Minute).Unix()}), precise},
		"no exp":                       {es256(map[string]any{"exp": nil}), precise},
		"exp as a text":                {es256(map[string]any{"exp": "9999999999"}), precise},
		"an exp beyond numbers":        {raw(strings.Replace(claimsText(t, w.good(p, a, map[string]any{"exp": nil})), "{", `{"exp":1e999,`, 1)), precise},
		"nbf tomorrow":                 {es256(map[string]any{"nbf": now.Add(24 * time.Hour).Unix()}), precise},
		"iat tomorrow":                 {es256(map[string]any{"iat": now.Add(24 * time.Hour).Unix()}), precise},
		"no iat":                       {es256(map[string]any{"iat": nil}), precise},
		"another subject":              {es256(map[string]any{"sub": "workload2"}), precise},
		"no subject":                   {es256(map[string]any{"sub": nil}), precise},
		"a subject that is a number":   {es256(map[string]any{"sub": 1}), precise},
		"a subject within an object":   {es256(map[string]any{"sub": map[string]any{"sub": "workload"}}), precise},
		"a list of lists":              {es256(map[string]any{"sub": []any{[]any{"workload"}}}), precise},
		"claims twice":                 {raw(strings.Replace(claimsText(t, w.good(p, a, nil)), "{", `{"sub":"x",`, 1)), unread},
		"too long":                     {es256(map[string]any{"x": strings.Repeat("x", 16<<10)}), unread},
		"nested":                       {raw(`{"x":` + strings.Repeat("[", 3000) + strings.Repeat("]", 3000) + `}`), unread},
		"too many values":              {raw(`{"x":[` + strings.Repeat("0,", 5000) + `0]}`), unread},
		"a payload that is a list":     {raw(`[]`), unread},
		"no payload":                   {parts[0] + ".." + parts[2], unread},
		"four parts":                   {good + ".x", unread},
		"a JWE":                        {good + ".x.y", unread},
		"padded":                       {parts[0] + "=." + parts[1] + "." + parts[2], unread},
		"with a line's end":            {good[:20] + "\n" + good[20:], unread},
	} {
		w.Advance(time.Second) // of the limits' clock nothing: they have their own
		got := w.exchange(t, a, sa, test.raw)
		told := got.Description
		state := got.Error
		if state == "invalid_grant" && strings.Contains(told, "wif_") {
			state = precise
		}
		if got.status != http.StatusBadRequest || state != test.want || got.Token != "" {
			t.Errorf("%s: got %d %s (%s), want %s", name, got.status, state, told, test.want)
		}
	}
	// What else is wrong, is as wrong as any of these to strangers.
	want := w.exchange(t, a, sa, sign(t, foreign, "ES256", "ec", w.good(other, a, nil)))
	for name, got := range map[string]answer{
		"a service account without rules": w.exchange(t, a, elsewhere, good),
		"no such service account":         w.exchange(t, a, sallyport.Principal{ID: "sa_nothingaaaaaaaaa"}, good),
		"another account":                 w.exchange(t, b, sa, good),
	} {
		if got.status != want.status || got.Error != want.Error || got.Description != want.Description {
			t.Errorf("%s: got %+v, want %+v", name, got, want)
		}
	}
	if got := w.exchange(t, a, sa, good); got.status != http.StatusOK {
		t.Errorf("the good one: got %+v", got)
	}
	w.denied(t, a.ID, 20)
	if log := w.Log.String(); strings.Contains(log, parts[2]) || strings.Contains(log, "ERROR") {
		t.Errorf("the log has a token or a fault:\n%s", log)
	}
}

func claimsText(t testing.TB, claims map[string]any) string {
	t.Helper()
	text, err := json.Marshal(claims)
	check(t, err)
	return string(text)
}

// signES256 signs a text as RFC 7518 §3.4 has it.
func signES256(t testing.TB, key crypto.Signer, text string) []byte {
	t.Helper()
	signature, err := jwt.SigningMethodES256.Sign(text, key)
	check(t, err)
	return signature
}

// denied fails the test unless refusals of exchanges were recorded.
func (w *world) denied(t testing.TB, account sallyport.AccountID, least int64) {
	t.Helper()
	w.flushJournal(t)
	list, err := w.Journal.Denials(t.Context(), account, w.Now().Add(-time.Hour), 1000)
	check(t, err)
	var n int64
	for _, d := range list {
		if d.Type == "ExchangeToken" {
			n += d.Count
		}
	}
	if n < least {
		t.Errorf("%d refusals are recorded, want at least %d: %+v", n, least, list)
	}
}

// What a rule expects is for those who may read it: who comes with a token of the
// issuer, as everybody can of some, learns which claim is not good, and no more.
func TestRefusalsTellNoValues(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.Tenant(t)
	for issuer, private := range map[string]bool{github: false, "https://gitlab.com": false, "https://issuer.example.com": true} {
		p := newIdP(t)
		key, sa := p.key(t, "1", "ES256"), reader(t, a)
		p.issuer = issuer
		claims := map[string]string{github: "repository_id", "https://gitlab.com": "project_id"}
		claim := claims[issuer]
		if private {
			claim = "sub"
		}
		rule, _, err := w.issuer.CreateRule(t.Context(), a.Owner, op("x"), token.RuleParams{ServiceAccount: sa.ID, Issuer: issuer, JWKS: p.jwks(), MaxAge: time.Hour,
			Conditions: []token.Condition{equals(claim, "7461"), begins("ref", "refs/heads/secret/")}, Enabled: true})
		check(t, err)
		got := w.exchange(t, a, sa, sign(t, key, "ES256", "1", w.good(p, a, map[string]any{claim: "another", "ref": "refs/heads/main"})))
		if got.Error != "invalid_grant" || !strings.Contains(got.Description, claim) || !strings.Contains(got.Description, "ref") ||
			strings.Contains(got.Description, "7461") || strings.Contains(got.Description, "secret") || strings.Contains(got.Description, rule.ID) != private {
			t.Errorf("%s: got %q", issuer, got.Description)
		}
		w.flushJournal(t)
		denials, err := w.Journal.Denials(t.Context(), a.ID, w.Now().Add(-time.Hour), 1000)
		check(t, err)
		if !strings.Contains(fmt.Sprint(denials), rule.ID) || !strings.Contains(fmt.Sprint(denials), "7461") {
			t.Errorf("%s: the audit log has %+v", issuer, denials)
		}
		got = w.exchange(t, a, sa, sign(t, key, "ES256", "1", w.good(p, a, map[string]any{claim: "7461", "ref": "refs/heads/secret/x"})))
		if got.status != http.StatusOK {
			t.Errorf("%s, the good one: got %+v", issuer, got)
		}
	}
}

// A rule that changes while its issuer is asked lets nothing in any more; and no rule
// takes tokens that are older than it says.
func TestRuleChanges(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, p := w.Tenant(t), newIdP(t)
	key, sa := p.key(t, "1", "ES256"), reader(t, a)
	rule := w.rule(t, a, sa, p)
	params := rule.RuleParams
	params.MaxAge = 5 * time.Minute
	p.set(func(rw http.ResponseWriter, _ *http.Request) {
		_, _, err := w.issuer.UpdateRule(t.Context(), a.Owner, op("x"), rule.ID, 0, params)
		if err != nil {
			t.Error(err)
		}
		_, _ = rw.Write(p.jwks())
	})
	raw := sign(t, key, "ES256", "1", w.good(p, a, map[string]any{"exp": w.Now().Add(time.Hour).Unix()}))
	if got := w.exchange(t, a, sa, raw); got.Error != "invalid_grant" {
		t.Errorf("by the rule that was: got %+v", got)
	}
	if got := w.exchange(t, a, sa, raw); got.status != http.StatusOK {
		t.Errorf("by the rule that is: got %+v", got)
	}
	w.Advance(6*time.Minute + 10*time.Second)
	if got := w.exchange(t, a, sa, raw); got.Error != "invalid_grant" || !strings.Contains(got.Description, "longer ago") {
		t.Errorf("an old one: got %+v", got)
	}
}
