package cloudapi_test

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-cmp/cmp"
	"go.temporal.io/cloud-sdk/api/cloudservice/v1"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/sallyport-iam/sallyport/api/sallyport/admin/v1"
	"github.com/sallyport-iam/sallyport/test/issuertest"
)

// signing makes sure that there is a key that signs tokens.
func (w *world) signing(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.tokens.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	for range 200 {
		if keys, err := w.tokens.Keys(ctx); err == nil && len(keys) > 0 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("there is no key that signs tokens")
}

// ask posts a form to the token endpoint and gives its status and answer.
func (w *world) ask(t *testing.T, bearer string, form url.Values) (int, map[string]any) {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/oauth/token", strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if bearer != "" {
		r.Header.Set("Authorization", "Bearer "+bearer)
	}
	recorded := httptest.NewRecorder()
	w.tokens.Handler().ServeHTTP(recorded, r)
	var answer map[string]any
	if err := json.Unmarshal(recorded.Body.Bytes(), &answer); err != nil {
		t.Fatalf("%s: %v", recorded.Body, err)
	}
	return recorded.Code, answer
}

// exchange gives a token of another issuer for one of the service account.
func (a *tenant) exchange(t *testing.T, serviceAccount, subject, scope string) (int, map[string]any) {
	t.Helper()
	return a.w.ask(t, "", url.Values{"grant_type": {"urn:ietf:params:oauth:grant-type:token-exchange"}, "subject_token": {subject},
		"subject_token_type": {"urn:ietf:params:oauth:token-type:jwt"}, "account": {string(a.account)}, "service_account": {serviceAccount}, "scope": {scope}})
}

func (a *tenant) audience() string { return issuerURL + "/account/" + string(a.account) }

func ruleSpec(serviceAccount, issuer string) *adminv1.FederationRuleSpec {
	return &adminv1.FederationRuleSpec{ServiceAccountId: serviceAccount, Issuer: issuer, Description: "deployments",
		Conditions: []*adminv1.ClaimCondition{
			{Claim: "project_id", Equals: []*structpb.Value{structpb.NewStringValue("74"), structpb.NewNumberValue(74)}},
			{Claim: "protected", Equals: []*structpb.Value{structpb.NewBoolValue(true)}},
			{Claim: "ref", Prefixes: []string{"refs/heads/"}},
		},
		Algorithms: []string{"ES256"}, MaxTokenAge: durationpb.New(5 * time.Minute)}
}

// A rule from its making to its end, with the workload that it lets in.
func TestFederationRule(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.signing(t)
	a := w.tenant(t)
	ctx := t.Context()
	account := a.serviceAccount(t, read)
	other := issuertest.New(t, jose.ES256)
	request := &adminv1.CreateFederationRuleRequest{Spec: ruleSpec(account, other.URL), AsyncOperationId: "create"}
	made := must[*adminv1.CreateFederationRuleResponse](t)(a.admin.CreateFederationRule(ctx, request))
	rule := made.GetFederationRule()
	if diff := cmp.Diff(request.GetSpec(), rule.GetSpec(), protocmp.Transform()); diff != "" {
		t.Errorf("the spec came back otherwise (-sent +got):\n%s", diff)
	}
	if rule.GetAudience() != a.audience() || rule.GetVersion() != 1 || rule.GetCreatedBy() != a.owner || rule.GetCreatedTime() == nil || made.GetAsyncOperationId() != "create" {
		t.Errorf("rule = %v", rule)
	}
	if again := must[*adminv1.CreateFederationRuleResponse](t)(a.admin.CreateFederationRule(ctx, request)); !proto.Equal(again, made) {
		t.Errorf("repetition = %v, want the same rule", again)
	}
	claims := map[string]any{"aud": a.audience(), "project_id": 74, "protected": true, "ref": "refs/heads/main"}
	subject := other.Token(t, claims)
	test := must[*adminv1.TestFederationResponse](t)(a.admin.TestFederation(ctx, &adminv1.TestFederationRequest{ServiceAccountId: account, Token: subject}))
	if !test.GetAccepted() || test.GetRuleId() != rule.GetId() || len(test.GetRules()) != 1 || len(test.GetRules()[0].GetConditions()) != 3 || !strings.Contains(test.GetClaims(), `"refs/heads/main"`) {
		t.Errorf("test = %v, want it accepted", test)
	}
	status, answer := a.exchange(t, account, subject, "")
	if status != http.StatusOK {
		t.Fatalf("exchange: %d %v", status, answer)
	}
	workload := w.as(t, a.account, account, answer["access_token"].(string))
	who := must[*cloudservice.GetCurrentIdentityResponse](t)(workload.cloud.GetCurrentIdentity(ctx, &cloudservice.GetCurrentIdentityRequest{}))
	if who.GetServiceAccount().GetId() != account || who.GetPrincipalApiKey() != nil {
		t.Errorf("identity = %v, want the service account and no key", who)
	}
	if list := must[*adminv1.ListFederationRulesResponse](t)(workload.admin.ListFederationRules(ctx, &adminv1.ListFederationRulesRequest{ServiceAccountId: account})); len(list.GetFederationRules()) != 1 {
		t.Errorf("the service account sees %v, want its rule", list)
	}
	_, err := workload.admin.CreateFederationRule(ctx, &adminv1.CreateFederationRuleRequest{Spec: ruleSpec(account, other.URL)})
	wantCode(t, "a rule made by its own service account", err, codes.PermissionDenied, "")

	a.refusedWorkloads(t, account, other, claims)

	spec := proto.Clone(rule.GetSpec()).(*adminv1.FederationRuleSpec)
	spec.Conditions[2].Prefixes = []string{"refs/tags/"}
	_, err = a.admin.UpdateFederationRule(ctx, &adminv1.UpdateFederationRuleRequest{RuleId: rule.GetId(), Spec: spec, ResourceVersion: "1"})
	wantCode(t, "a stale update", err, codes.FailedPrecondition, "")
	updated := must[*adminv1.UpdateFederationRuleResponse](t)(a.admin.UpdateFederationRule(ctx, &adminv1.UpdateFederationRuleRequest{RuleId: rule.GetId(), Spec: spec, ResourceVersion: rule.GetResourceVersion()})).GetFederationRule()
	if updated.GetVersion() != 2 || updated.GetLastModifiedTime() == nil {
		t.Errorf("updated = %v, want another version", updated)
	}
	_, err = workload.cloud.GetCurrentIdentity(ctx, &cloudservice.GetCurrentIdentityRequest{})
	wantCode(t, "a token of the rule as it was", err, codes.Unauthenticated, "get a new token")
	if got := must[*adminv1.GetFederationRuleResponse](t)(a.admin.GetFederationRule(ctx, &adminv1.GetFederationRuleRequest{RuleId: rule.GetId()})).GetFederationRule(); got.GetVersion() != 2 {
		t.Errorf("got %v", got)
	}
	must[*adminv1.DeleteFederationRuleResponse](t)(a.admin.DeleteFederationRule(ctx, &adminv1.DeleteFederationRuleRequest{RuleId: rule.GetId(), ResourceVersion: updated.GetResourceVersion(), AsyncOperationId: "delete"}))
	_, err = a.admin.GetFederationRule(ctx, &adminv1.GetFederationRuleRequest{RuleId: rule.GetId()})
	wantCode(t, "a deleted rule", err, codes.NotFound, "")
	if receipt := must[*adminv1.GetReceiptResponse](t)(a.admin.GetReceipt(ctx, &adminv1.GetReceiptRequest{AsyncOperationId: "delete"})); receipt.GetHead().GetRevision() == 0 {
		t.Errorf("receipt = %v", receipt)
	}
}

// refusedWorkloads: what is not as the rule says is refused, and the test says why.
func (a *tenant) refusedWorkloads(t *testing.T, account string, other *issuertest.Issuer, claims map[string]any) {
	t.Helper()
	foreign := issuertest.New(t, jose.ES256)
	with := func(name string, value any) map[string]any {
		changed := map[string]any{"iss": other.URL}
		for k, v := range claims {
			changed[k] = v
		}
		changed[name] = value
		return changed
	}
	for _, tt := range []struct {
		name, token, because string
	}{
		{"a claim of another type", other.Token(t, with("protected", "true")), "is not true"},
		{"another branch", other.Token(t, with("ref", "refs/pull/1")), "refs/pull/1"},
		{"another account's audience", other.Token(t, with("aud", issuerURL+"/account/other")), "audience"},
		{"two audiences", other.Token(t, with("aud", []string{a.audience(), "x"})), "audience"},
		{"an old token", other.Token(t, with("iat", time.Now().Add(-8*time.Minute).Unix())), "longer ago"},
		{"another's signature", foreign.Token(t, with("iss", other.URL)), "sign"},
		{"no token", "eyJ.a.b", ""},
	} {
		if status, answer := a.exchange(t, account, tt.token, ""); status != http.StatusBadRequest || answer["access_token"] != nil {
			t.Errorf("%s: %d %v, want a refusal", tt.name, status, answer)
		}
		test := must[*adminv1.TestFederationResponse](t)(a.admin.TestFederation(t.Context(), &adminv1.TestFederationRequest{ServiceAccountId: account, Token: tt.token}))
		if test.GetAccepted() || test.GetRuleId() != "" || !strings.Contains(test.String(), tt.because) {
			t.Errorf("%s: %v, want it refused because of %q", tt.name, test, tt.because)
		}
	}
}

// An API key's token is the service account, with the key's limits and its own, and
// ends with the key. Explain knows it too.
func TestTokenOfKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.signing(t)
	a := w.tenant(t)
	ctx := t.Context()
	orders := a.namespace(t, "orders")
	account := a.serviceAccount(t, admin)
	id, key := a.keyOf(t, account)
	status, answer := w.ask(t, key, url.Values{"grant_type": {"client_credentials"}, "scope": {"read namespace:orders"}})
	if status != http.StatusOK || answer["scope"] != "read namespace:"+orders {
		t.Fatalf("%d %v", status, answer)
	}
	token := answer["access_token"].(string)
	narrow := w.as(t, a.account, account, token)
	if who := must[*cloudservice.GetCurrentIdentityResponse](t)(narrow.cloud.GetCurrentIdentity(ctx, &cloudservice.GetCurrentIdentityRequest{})); who.GetServiceAccount().GetId() != account {
		t.Errorf("identity = %v", who)
	}
	_, err := narrow.cloud.CreateApiKey(ctx, &cloudservice.CreateApiKeyRequest{Spec: keySpec(account)})
	wantCode(t, "a key made with a token that may only read", err, codes.PermissionDenied, "")
	explain := func(namespace, method string) *adminv1.ExplainResponse {
		return must[*adminv1.ExplainResponse](t)(a.admin.Explain(ctx, &adminv1.ExplainRequest{Token: token, Namespace: namespace,
			Method: "/temporal.api.workflowservice.v1.WorkflowService/" + method}))
	}
	if d := explain(orders, "ListWorkflowExecutions"); !d.GetAllowed() || d.GetPrincipalId() != account {
		t.Errorf("explain = %v, want it allowed", d)
	}
	if d := explain(orders, "StartWorkflowExecution"); d.GetAllowed() {
		t.Errorf("explain = %v, want it denied: the token may only read", d)
	}
	if d := explain(a.namespace(t, "payments"), "ListWorkflowExecutions"); d.GetAllowed() {
		t.Errorf("explain = %v, want it denied: the token is for another namespace", d)
	}
	seen := must[*cloudservice.GetApiKeyResponse](t)(a.cloud.GetApiKey(ctx, &cloudservice.GetApiKeyRequest{KeyId: id})).GetApiKey()
	if _, err := a.cloud.DeleteApiKey(ctx, &cloudservice.DeleteApiKeyRequest{KeyId: id, ResourceVersion: seen.GetResourceVersion()}); err != nil {
		t.Fatal(err)
	}
	_, err = narrow.cloud.GetCurrentIdentity(ctx, &cloudservice.GetCurrentIdentityRequest{})
	wantCode(t, "the token of a deleted key", err, codes.Unauthenticated, "deleted")
	if d := explain(orders, "ListWorkflowExecutions"); d.GetAllowed() || d.GetPrincipalId() != "" {
		t.Errorf("explain = %v, want nobody proved", d)
	}
}

// TestDiscoveryInsteadOfKeys: a rule's uploaded keys are not given up by leaving
// them out.
func TestDiscoveryInsteadOfKeys(t *testing.T) {
	t.Parallel()
	a := newWorld(t).tenant(t)
	keys := issuertest.New(t, jose.ES256).JWKS(t)
	spec := ruleSpec(a.serviceAccount(t, read), "https://issuer.example.com")
	spec.Jwks = new(string(keys))
	made, err := a.admin.CreateFederationRule(t.Context(), &adminv1.CreateFederationRuleRequest{Spec: spec})
	if err != nil {
		t.Fatal(err)
	}
	rule := made.GetFederationRule()
	if rule.GetSpec().Jwks == nil {
		t.Errorf("created: %v, want its keys", rule.GetSpec())
	}
	update := func(change func(*adminv1.FederationRuleSpec)) error {
		spec := proto.CloneOf(rule.GetSpec())
		change(spec)
		done, err := a.admin.UpdateFederationRule(t.Context(), &adminv1.UpdateFederationRuleRequest{RuleId: rule.GetId(), Spec: spec, ResourceVersion: rule.GetResourceVersion()})
		if err == nil {
			rule = done.GetFederationRule()
		}
		return err
	}
	for name, jwks := range map[string]*string{"left out": nil, "empty": new("")} {
		if err := update(func(s *adminv1.FederationRuleSpec) { s.Jwks = jwks }); status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), "spec.jwks") {
			t.Errorf("keys that are %s: %v, want InvalidArgument for spec.jwks", name, err)
		}
	}
	if err := update(func(s *adminv1.FederationRuleSpec) { s.Jwks, s.Discovery = nil, true }); err != nil || rule.GetSpec().Jwks != nil {
		t.Errorf("discovery: %v, %v", rule.GetSpec(), err)
	}
	if err := update(func(s *adminv1.FederationRuleSpec) { s.Description = "as it was read" }); err != nil || rule.GetSpec().Jwks != nil {
		t.Errorf("with discovery as it was read: %v, %v", rule.GetSpec(), err)
	}
	if err := update(func(s *adminv1.FederationRuleSpec) { s.Jwks = new(string(keys)) }); err != nil || rule.GetSpec().Jwks == nil {
		t.Errorf("keys again: %v, %v", rule.GetSpec(), err)
	}
}

func TestBadFederationRules(t *testing.T) {
	t.Parallel()
	a := newWorld(t).tenant(t)
	ctx := t.Context()
	account := a.serviceAccount(t, read)
	long := strings.Repeat("x", 60_000)
	rule := func(change func(*adminv1.FederationRuleSpec)) func() error {
		return func() error {
			spec := ruleSpec(account, "https://issuer.example.com")
			change(spec)
			_, err := a.admin.CreateFederationRule(ctx, &adminv1.CreateFederationRuleRequest{Spec: spec})
			return err
		}
	}
	equals := func(v *structpb.Value) func() error {
		return rule(func(s *adminv1.FederationRuleSpec) { s.Conditions[0].Equals = []*structpb.Value{v} })
	}
	const conditions = "spec.conditions"
	checkBadInput(t, []badInput{
		{"no spec", func() error {
			_, err := a.admin.CreateFederationRule(ctx, &adminv1.CreateFederationRuleRequest{})
			return err
		}, "spec"},
		{"no service account", rule(func(s *adminv1.FederationRuleSpec) { s.ServiceAccountId = "" }), "spec.service_account_id"},
		{"a user", rule(func(s *adminv1.FederationRuleSpec) { s.ServiceAccountId = a.owner }), "spec.service_account_id"},
		{"no issuer", rule(func(s *adminv1.FederationRuleSpec) { s.Issuer = "" }), "spec.issuer"},
		{"an issuer that is no URL", rule(func(s *adminv1.FederationRuleSpec) { s.Issuer = "kubernetes/serviceaccount" }), "spec.issuer"},
		{"an issuer with a query", rule(func(s *adminv1.FederationRuleSpec) { s.Issuer = "https://issuer.example.com?a=b" }), "spec.issuer"},
		{"an oversized issuer", rule(func(s *adminv1.FederationRuleSpec) { s.Issuer = "https://" + long }), "spec.issuer"},
		{"keys that are none", rule(func(s *adminv1.FederationRuleSpec) { s.Jwks = new("nonsense") }), "spec.jwks"},
		{"an empty file as keys", rule(func(s *adminv1.FederationRuleSpec) { s.Jwks = new("") }), "spec.jwks"},
		{"blanks as keys", rule(func(s *adminv1.FederationRuleSpec) { s.Jwks = new(" \n") }), "spec.jwks"},
		{"keys and discovery", rule(func(s *adminv1.FederationRuleSpec) { s.Jwks, s.Discovery = new("{}"), true }), "spec.jwks"},
		{"no keys among the keys", rule(func(s *adminv1.FederationRuleSpec) { s.Jwks = new(`{"keys":[]}`) }), "spec.jwks"},
		{"a shared secret", rule(func(s *adminv1.FederationRuleSpec) { s.Jwks = new(`{"keys":[{"kty":"oct","k":"c2VjcmV0","kid":"a"}]}`) }), "spec.jwks"},
		{"no conditions", rule(func(s *adminv1.FederationRuleSpec) { s.Conditions = nil }), conditions},
		{"conditions that everybody meets", rule(func(s *adminv1.FederationRuleSpec) { s.Conditions = s.GetConditions()[1:2] }), conditions},
		{"too many conditions", rule(func(s *adminv1.FederationRuleSpec) {
			for range 300 {
				s.Conditions = append(s.Conditions, s.GetConditions()[0])
			}
		}), conditions},
		{"too many values", rule(func(s *adminv1.FederationRuleSpec) {
			for range 2000 {
				s.Conditions[0].Equals = append(s.Conditions[0].Equals, structpb.NewStringValue("x"))
			}
		}), conditions},
		{"a condition without a claim", rule(func(s *adminv1.FederationRuleSpec) { s.Conditions[0].Claim = "" }), conditions},
		{"a condition without values", rule(func(s *adminv1.FederationRuleSpec) { s.Conditions[0].Equals = nil }), conditions},
		{"an empty prefix", rule(func(s *adminv1.FederationRuleSpec) { s.Conditions[2].Prefixes = []string{""} }), conditions},
		{"null", equals(structpb.NewNullValue()), conditions + "[0].equals[0]"},
		{"half", equals(structpb.NewNumberValue(0.5)), conditions + "[0].equals[0]"},
		{"a number that is not exact", equals(structpb.NewNumberValue(1 << 60)), conditions + "[0].equals[0]"},
		{"a list", equals(structpb.NewListValue(&structpb.ListValue{})), conditions + "[0].equals[0]"},
		{"nothing", equals(&structpb.Value{}), conditions + "[0].equals[0]"},
		{"an algorithm with a shared secret", rule(func(s *adminv1.FederationRuleSpec) { s.Algorithms = []string{"HS256"} }), "spec.algorithms"},
		{"a negative age", rule(func(s *adminv1.FederationRuleSpec) { s.MaxTokenAge = durationpb.New(-time.Second) }), "spec.max_token_age"},
		{"an age beyond days", rule(func(s *adminv1.FederationRuleSpec) { s.MaxTokenAge = durationpb.New(1000 * time.Hour) }), "spec.max_token_age"},
		{"an age beyond time", rule(func(s *adminv1.FederationRuleSpec) { s.MaxTokenAge = &durationpb.Duration{Seconds: 1 << 62} }), "spec.max_token_age"},
		{"an oversized description", rule(func(s *adminv1.FederationRuleSpec) { s.Description = long }), "spec.description"},
		{"a malformed rule id", func() error {
			_, err := a.admin.GetFederationRule(ctx, &adminv1.GetFederationRuleRequest{RuleId: "../x"})
			return err
		}, "rule_id"},
		{"a deletion without a version", func() error {
			_, err := a.admin.DeleteFederationRule(ctx, &adminv1.DeleteFederationRuleRequest{RuleId: "wif_x"})
			return err
		}, "resource_version"},
		{"a forged page token", func() error {
			_, err := a.admin.ListFederationRules(ctx, &adminv1.ListFederationRulesRequest{PageToken: "dV8x"})
			return err
		}, "page_token"},
		{"a test without a token", func() error {
			_, err := a.admin.TestFederation(ctx, &adminv1.TestFederationRequest{ServiceAccountId: account})
			return err
		}, "token"},
		{"a test of an oversized token", func() error {
			_, err := a.admin.TestFederation(ctx, &adminv1.TestFederationRequest{ServiceAccountId: account, Token: "ey" + long})
			return err
		}, "token"},
	})
}
