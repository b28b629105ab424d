package oidc_test

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-iam/sallyport/authn/oidc"
)

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
