package token

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz"
)

// TestRules says what each rule of a service account would make of a token of
// another issuer now, and why; nothing is given out. Who may read the rules may.
// A token that is none is not an error but a TestResult's Problem.
func (i *Issuer) TestRules(ctx context.Context, caller sallyport.Caller, serviceAccount, raw string) (TestResult, error) {
	if i.url == "" {
		return TestResult{}, errNoTokens
	}
	if _, err := i.permittedOn(ctx, i.pool, caller, authz.FederationRuleTest, serviceAccount); err != nil {
		return TestResult{}, err
	}
	if !i.limits.serviceAccount(caller.Account, serviceAccount) {
		return TestResult{}, sallyport.Exhausted.Errorf("too many tokens are tested for this service account; try again in a moment")
	}
	result := TestResult{Audience: i.AccountAudience(caller.Account)}
	e, err := parseExternal(raw)
	if err != nil {
		result.Problem = err.Error()
		return result, nil
	}
	if result.Claims, err = json.Marshal(redact(e.claims)); err != nil {
		return TestResult{}, fmt.Errorf("showing a token's claims: %w", err)
	}
	rules, err := listRules(ctx, i.pool, caller.Account, serviceAccount, "", maxRules)
	if err != nil {
		return TestResult{}, err
	}
	for _, rule := range rules {
		t, err := i.try(ctx, rule, &e)
		if err != nil {
			return TestResult{}, err
		}
		result.Rules = append(result.Rules, t.RuleTest)
	}
	return result, nil
}

// TestResult says what each rule of a service account makes of a token.
type TestResult struct {
	// Problem is why it is no token at all, "" if it is one.
	Problem string
	// Claims are those of the token as it was given, a JSON object, with what
	// identifies this one token left out and long texts cut. Nothing says that they
	// are true but a rule without Problems.
	Claims   []byte
	Audience string // that the token must have
	Rules    []RuleTest
}

// RuleTest is what one rule makes of a token.
type RuleTest struct {
	Rule       Rule
	Matches    bool
	Problems   []string // apart from conditions; empty if none
	Conditions []ConditionTest
}

// ConditionTest is what one condition makes of a token's claim.
type ConditionTest struct {
	Condition Condition
	Matches   bool
	Received  string // the claim as JSON, cut; "" if it is not there
	Problem   string // "" if it matches
}
