package cloudapi

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/api/sallyport/admin/v1"
	"github.com/sallyport-iam/sallyport/authn/token"
)

// CreateFederationRule lets workloads of another issuer be a service account.
func (a *Admin) CreateFederationRule(ctx context.Context, r *adminv1.CreateFederationRuleRequest) (*adminv1.CreateFederationRuleResponse, error) {
	c := begin(ctx)
	params, err := ruleParams(r.GetSpec())
	if err != nil {
		return nil, err
	}
	op, err := operationOf(r)
	if err != nil {
		return nil, err
	}
	rule, done, err := a.tokens.CreateRule(ctx, c.caller, op, params)
	if err != nil {
		return nil, err
	}
	return &adminv1.CreateFederationRuleResponse{FederationRule: a.rule(rule), AsyncOperationId: done.OperationID}, nil
}

// UpdateFederationRule changes what a rule lets in.
func (a *Admin) UpdateFederationRule(ctx context.Context, r *adminv1.UpdateFederationRuleRequest) (*adminv1.UpdateFederationRuleResponse, error) {
	c := begin(ctx)
	if err := checkID("rule_id", r.GetRuleId()); err != nil {
		return nil, err
	}
	params, err := ruleParams(r.GetSpec())
	if err != nil {
		return nil, err
	}
	seen, err := revision(r.GetResourceVersion())
	if err != nil {
		return nil, err
	}
	op, err := operationOf(r)
	if err != nil {
		return nil, err
	}
	rule, done, err := a.tokens.UpdateRule(ctx, c.caller, op, r.GetRuleId(), seen, params)
	if err != nil {
		return nil, err
	}
	return &adminv1.UpdateFederationRuleResponse{FederationRule: a.rule(rule), AsyncOperationId: done.OperationID}, nil
}

// DeleteFederationRule ends a rule.
func (a *Admin) DeleteFederationRule(ctx context.Context, r *adminv1.DeleteFederationRuleRequest) (*adminv1.DeleteFederationRuleResponse, error) {
	c := begin(ctx)
	if err := checkID("rule_id", r.GetRuleId()); err != nil {
		return nil, err
	}
	seen, err := revision(r.GetResourceVersion())
	if err != nil {
		return nil, err
	}
	op, err := operationOf(r)
	if err != nil {
		return nil, err
	}
	done, err := a.tokens.DeleteRule(ctx, c.caller, op, r.GetRuleId(), seen)
	return answer(&adminv1.DeleteFederationRuleResponse{AsyncOperationId: done.OperationID}, err)
}

// GetFederationRule reads a rule.
func (a *Admin) GetFederationRule(ctx context.Context, r *adminv1.GetFederationRuleRequest) (*adminv1.GetFederationRuleResponse, error) {
	rule, err := read(ctx, begin(ctx), "rule_id", r.GetRuleId(), a.tokens.Rule)
	if err != nil {
		return nil, err
	}
	return &adminv1.GetFederationRuleResponse{FederationRule: a.rule(rule)}, nil
}

// ListFederationRules lists the rules that the caller may read.
func (a *Admin) ListFederationRules(ctx context.Context, r *adminv1.ListFederationRulesRequest) (*adminv1.ListFederationRulesResponse, error) {
	c := begin(ctx)
	if r.GetServiceAccountId() != "" {
		if err := checkID("service_account_id", r.GetServiceAccountId()); err != nil {
			return nil, err
		}
	}
	rules, next, err := pageThatFits(pageOf(r), func(p sallyport.Page) ([]*adminv1.FederationRule, string, error) {
		rules, next, err := a.tokens.ListRules(ctx, c.caller, r.GetServiceAccountId(), p)
		return each(rules, a.rule), next, err
	})
	if err != nil {
		return nil, err
	}
	return &adminv1.ListFederationRulesResponse{FederationRules: rules, NextPageToken: next}, nil
}

// TestFederation tells what the rules of a service account make of a token.
func (a *Admin) TestFederation(ctx context.Context, r *adminv1.TestFederationRequest) (*adminv1.TestFederationResponse, error) {
	c := begin(ctx)
	if err := checkID("service_account_id", r.GetServiceAccountId()); err != nil {
		return nil, err
	}
	if r.GetToken() == "" || len(r.GetToken()) > maxExternalToken {
		return nil, sallyport.InvalidField("token", "is required: a token of the other issuer, of at most %d bytes", maxExternalToken)
	}
	result, err := a.tokens.TestRules(ctx, c.caller, r.GetServiceAccountId(), r.GetToken())
	if err != nil {
		return nil, err
	}
	wire := &adminv1.TestFederationResponse{Problem: result.Problem, Claims: strings.ToValidUTF8(string(result.Claims), "\ufffd"), Audience: result.Audience}
	for _, t := range result.Rules {
		if t.Matches && !wire.GetAccepted() {
			wire.Accepted, wire.RuleId = true, t.Rule.ID
		}
		wire.Rules = append(wire.Rules, &adminv1.FederationRuleTest{Rule: a.rule(t.Rule), Matches: t.Matches, Problems: t.Problems,
			Conditions: each(t.Conditions, func(n token.ConditionTest) *adminv1.ClaimConditionTest {
				return &adminv1.ClaimConditionTest{Condition: conditionWire(n.Condition), Matches: n.Matches,
					Received: strings.ToValidUTF8(n.Received, "\ufffd"), Problem: n.Problem}
			})})
	}
	return wire, nil
}

// maxExternalToken is what the token endpoint takes too.
const maxExternalToken = 16 << 10

// maxConditions and maxValues bound what is decoded; the domain may allow fewer.
const (
	maxConditions = 100
	maxValues     = 1000
)

// ruleParams reads a rule's spec. What is risky or useless is the domain's to say.
func ruleParams(spec *adminv1.FederationRuleSpec) (token.RuleParams, error) {
	if spec == nil {
		return token.RuleParams{}, specMissing()
	}
	if err := checkID("spec.service_account_id", spec.GetServiceAccountId()); err != nil {
		return token.RuleParams{}, err
	}
	age := spec.GetMaxTokenAge()
	if age != nil && (age.CheckValid() != nil || age.AsDuration() <= 0) {
		return token.RuleParams{}, sallyport.InvalidField("spec.max_token_age", "must be a positive duration")
	}
	params := token.RuleParams{ServiceAccount: spec.GetServiceAccountId(), Description: spec.GetDescription(), Issuer: spec.GetIssuer(),
		Algorithms: spec.GetAlgorithms(), MaxAge: age.AsDuration(), Enabled: !spec.GetDisabled(), Discovery: spec.GetDiscovery()}
	if spec.Jwks != nil {
		params.JWKS = []byte(spec.GetJwks())
	}
	if len(spec.GetConditions()) > maxConditions {
		return params, sallyport.InvalidField("spec.conditions", "are too many")
	}
	for i, wire := range spec.GetConditions() {
		field := fmt.Sprintf("spec.conditions[%d]", i)
		condition := token.Condition{Claim: wire.GetClaim(), Prefixes: wire.GetPrefixes()}
		if len(wire.GetEquals())+len(wire.GetPrefixes()) > maxValues {
			return params, sallyport.InvalidField(field, "has too many values")
		}
		for j, v := range wire.GetEquals() {
			value, ok := claimValue(v)
			if !ok {
				return params, sallyport.InvalidField(fmt.Sprintf("%s.equals[%d]", field, j), "must be a string, true, false, or a whole number of at most 2^53")
			}
			condition.Equals = append(condition.Equals, value)
		}
		params.Conditions = append(params.Conditions, condition)
	}
	return params, nil
}

// maxNumber is the greatest number up to which all whole ones can be told apart on the wire.
const maxNumber = 1 << 53

// claimValue reads a value that a claim can be compared with.
func claimValue(v *structpb.Value) (value any, ok bool) {
	switch k := v.GetKind().(type) {
	case *structpb.Value_StringValue:
		return k.StringValue, true
	case *structpb.Value_BoolValue:
		return k.BoolValue, true
	case *structpb.Value_NumberValue:
		n := k.NumberValue
		if n != math.Trunc(n) || math.Abs(n) > maxNumber {
			return nil, false
		}
		return json.Number(strconv.FormatInt(int64(n), 10)), true
	}
	return nil, false
}

func conditionWire(c token.Condition) *adminv1.ClaimCondition {
	return &adminv1.ClaimCondition{Claim: c.Claim, Prefixes: c.Prefixes, Equals: each(c.Equals, func(v any) *structpb.Value {
		switch v := v.(type) {
		case string:
			return structpb.NewStringValue(v)
		case bool:
			return structpb.NewBoolValue(v)
		case json.Number:
			n, _ := v.Float64() // claimValue has checked it
			return structpb.NewNumberValue(n)
		}
		return structpb.NewNullValue()
	})}
}

func (a *Admin) rule(r token.Rule) *adminv1.FederationRule {
	wire := &adminv1.FederationRule{Id: r.ID, ResourceVersion: version(r.Revision), Version: r.Version, Warnings: r.Warnings,
		Audience: a.tokens.AccountAudience(r.Account), CreatedBy: r.CreatedBy,
		CreatedTime: timestamp(r.Created), LastModifiedTime: timestamp(r.Modified), LastUsedTime: timestamp(r.LastUsed),
		Spec: &adminv1.FederationRuleSpec{ServiceAccountId: r.ServiceAccount, Description: r.Description, Issuer: r.Issuer,
			Conditions: each(r.Conditions, conditionWire), Algorithms: r.Algorithms, Disabled: !r.Enabled}}
	if r.JWKS != nil {
		wire.Spec.Jwks = new(string(r.JWKS))
	}
	if r.MaxAge > 0 {
		wire.Spec.MaxTokenAge = durationpb.New(r.MaxAge)
	}
	return wire
}
