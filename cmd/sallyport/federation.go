package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/api/sallyport/admin/v1"
)

type federationCommands struct {
	Create federationCreate `cmd:"" help:"Let workloads that have tokens of another issuer be a service account. The rule's id goes to stdout."`
	Update federationUpdate `cmd:"" help:"Change a rule. Access tokens that it gave end when it lets in something else."`
	List   federationList   `cmd:"" help:"List the rules that you may see."`
	Show   federationShow   `cmd:"" help:"Show a rule, and the audience that the tokens must have."`
	Delete federationDelete `cmd:"" help:"End a rule and the access tokens that it gave, and show where that is in force."`
	Test   federationTest   `cmd:"" help:"Say what the rules of a service account make of a token, and why. Exit status 0: accepted, 2: not."`
}

// ruleFlags are what a rule is made of.
type ruleFlags struct {
	Issuer      string   `help:"Who issues the tokens: their iss exactly, or github, gitlab or google." placeholder:"URL"`
	JWKS        string   `name:"jwks" help:"File with the issuer's public keys (a JSON Web Key Set), where the service cannot fetch them." xor:"keys" placeholder:"FILE"`
	Discovery   bool     `help:"The issuer's keys are fetched (OpenID Connect Discovery), as they are without --jwks: for a rule that had them uploaded." xor:"keys"`
	Claim       []string `help:"A claim that the tokens must have, with a string. Repeat for other claims (all must be met) and for other values of one (any)." sep:"none" placeholder:"NAME=TEXT"`
	ClaimPrefix []string `help:"A claim that begins with a text." sep:"none" placeholder:"NAME=TEXT"`
	ClaimJSON   []string `name:"claim-json" help:"A claim with a value that is no string: a number, true or false." sep:"none" placeholder:"NAME=VALUE"`
	Algorithm   []string `help:"That the tokens may be signed with: RS256, ES256, ES384. Empty: all three." placeholder:"NAME"`
	MaxTokenAge span     `help:"How long after its issue a token is taken. Empty: until it expires." placeholder:"10m"`
	Description string   `help:"What the rule is for."`
}

// apply changes a rule's spec to what the flags say. Claims that are given replace all there were.
func (f ruleFlags) apply(spec *adminv1.FederationRuleSpec) error {
	if f.Issuer != "" {
		spec.Issuer = issuerOf(f.Issuer)
	}
	if f.JWKS != "" {
		keys, err := os.ReadFile(f.JWKS)
		if err != nil {
			return fmt.Errorf("reading the issuer's keys: %w", err)
		}
		if len(bytes.TrimSpace(keys)) == 0 {
			return fmt.Errorf("%s is empty; it should hold the issuer's keys (a JSON Web Key Set)", f.JWKS)
		}
		spec.Jwks = new(string(keys))
	}
	if f.Discovery {
		spec.Jwks, spec.Discovery = nil, true
	}
	conditions, err := f.conditions()
	if err != nil {
		return err
	}
	if len(conditions) > 0 {
		spec.Conditions = conditions
	}
	if len(f.Algorithm) > 0 {
		spec.Algorithms = f.Algorithm
	}
	if f.MaxTokenAge > 0 {
		spec.MaxTokenAge = durationpb.New(time.Duration(f.MaxTokenAge))
	}
	if f.Description != "" {
		spec.Description = f.Description
	}
	return nil
}

// issuerOf knows the issuers that there is only one of.
func issuerOf(name string) string {
	known := map[string]string{"github": "https://token.actions.githubusercontent.com", "gitlab": "https://gitlab.com", "google": "https://accounts.google.com"}
	if url := known[name]; url != "" {
		return url
	}
	return name
}

type federationCreate struct {
	ruleFlags
	ServiceAccount string `help:"Whose access tokens the workloads get (sa_…)." required:"" placeholder:"ID"`
	Disabled       bool   `help:"Make the rule without letting anybody in yet."`
}

// Run makes the rule.
func (c *federationCreate) Run(ctx context.Context, s *session) error {
	client, err := s.connect()
	if err != nil {
		return err
	}
	defer client.close()
	if c.Issuer == "" {
		return errors.New("say whose tokens are taken: --issuer URL, which is the iss of the tokens")
	}
	spec := &adminv1.FederationRuleSpec{ServiceAccountId: c.ServiceAccount, Disabled: c.Disabled}
	if err := c.apply(spec); err != nil {
		return err
	}
	made, err := client.admin.CreateFederationRule(ctx, &adminv1.CreateFederationRuleRequest{Spec: spec, AsyncOperationId: sallyport.NewID(sallyport.OperationPrefix)})
	if err != nil {
		return err
	}
	return s.show(made, func() error {
		if _, err := fmt.Fprintln(s.stdout, made.GetFederationRule().GetId()); err != nil {
			return err
		}
		s.note("tokens must have the audience %s and no other", made.GetFederationRule().GetAudience())
		s.warn(made.GetFederationRule())
		return nil
	})
}

// warn tells what is risky about a rule.
func (s *session) warn(r *adminv1.FederationRule) {
	for _, warning := range r.GetWarnings() {
		s.note("warning: %s", warning)
	}
}

type federationUpdate struct {
	versioned
	ruleFlags
	Rule    string `arg:"" help:"The rule's id."`
	Enable  bool   `help:"Let workloads in by it." xor:"enabled"`
	Disable bool   `help:"Let nobody in by it, and end the access tokens that it gave." xor:"enabled"`
}

// Run changes the rule.
func (c *federationUpdate) Run(ctx context.Context, s *session) error {
	client, err := s.connect()
	if err != nil {
		return err
	}
	defer client.close()
	seen, err := client.admin.GetFederationRule(ctx, &adminv1.GetFederationRuleRequest{RuleId: c.Rule})
	if err != nil {
		return err
	}
	spec := seen.GetFederationRule().GetSpec()
	if err := c.apply(spec); err != nil {
		return err
	}
	if c.Enable || c.Disable {
		spec.Disabled = c.Disable
	}
	done, err := client.admin.UpdateFederationRule(ctx, &adminv1.UpdateFederationRuleRequest{RuleId: c.Rule, Spec: spec,
		ResourceVersion: c.or(seen.GetFederationRule().GetResourceVersion()), AsyncOperationId: sallyport.NewID(sallyport.OperationPrefix)})
	if err != nil {
		return err
	}
	return s.show(done, func() error {
		s.warn(done.GetFederationRule())
		_, err := fmt.Fprintf(s.stdout, "rule %s updated (operation %s)\n", c.Rule, done.GetAsyncOperationId())
		return err
	})
}

type federationList struct {
	ServiceAccount string `help:"Only this service account's (sa_…)." placeholder:"ID"`
}

// Run lists all pages.
func (c *federationList) Run(ctx context.Context, s *session) error {
	client, err := s.connect()
	if err != nil {
		return err
	}
	defer client.close()
	request, all := &adminv1.ListFederationRulesRequest{ServiceAccountId: c.ServiceAccount}, &adminv1.ListFederationRulesResponse{}
	for {
		page, err := client.admin.ListFederationRules(ctx, request)
		if err != nil {
			return err
		}
		all.FederationRules = append(all.FederationRules, page.GetFederationRules()...)
		if request.PageToken = page.GetNextPageToken(); request.PageToken == "" {
			break
		}
	}
	return s.show(all, func() error {
		var rows [][]string
		for _, r := range all.GetFederationRules() {
			rows = append(rows, []string{r.GetId(), r.GetSpec().GetServiceAccountId(), r.GetSpec().GetIssuer(), conditionsText(r.GetSpec().GetConditions()), ruleState(r), ruleUse(r)})
		}
		return s.table("no rules", []string{"ID", "SERVICE ACCOUNT", "ISSUER", "CONDITIONS", "STATE", "LAST USED"}, rows)
	})
}

func ruleState(r *adminv1.FederationRule) string {
	if r.GetSpec().GetDisabled() {
		return "disabled"
	}
	return "enabled"
}

func ruleUse(r *adminv1.FederationRule) string {
	if r.GetLastUsedTime() == nil {
		return "never"
	}
	return moment(r.GetLastUsedTime())
}

type federationShow struct {
	Rule string `arg:"" help:"The rule's id."`
}

// Run shows the rule.
func (c *federationShow) Run(ctx context.Context, s *session) error {
	client, err := s.connect()
	if err != nil {
		return err
	}
	defer client.close()
	found, err := client.admin.GetFederationRule(ctx, &adminv1.GetFederationRuleRequest{RuleId: c.Rule})
	if err != nil {
		return err
	}
	return s.show(found, func() error {
		r := found.GetFederationRule()
		keys, age := "by discovery", "until they expire"
		if r.GetSpec().GetJwks() != "" {
			keys = "uploaded"
		}
		if r.GetSpec().GetMaxTokenAge() != nil {
			age = "for " + r.GetSpec().GetMaxTokenAge().AsDuration().String() + " after their issue"
		}
		fields := [][2]string{{"rule", r.GetId()}, {"description", r.GetSpec().GetDescription()}, {"service account", r.GetSpec().GetServiceAccountId()},
			{"state", ruleState(r)}, {"issuer", r.GetSpec().GetIssuer()}, {"issuer's keys", keys}, {"audience", r.GetAudience()}}
		for _, condition := range r.GetSpec().GetConditions() {
			fields = append(fields, [2]string{"condition", conditionText(condition)})
		}
		for _, algorithm := range r.GetSpec().GetAlgorithms() {
			fields = append(fields, [2]string{"algorithm", algorithm})
		}
		fields = append(fields, [2]string{"tokens are taken", age}, [2]string{"created", moment(r.GetCreatedTime()) + " by " + r.GetCreatedBy()},
			[2]string{"modified", moment(r.GetLastModifiedTime())}, [2]string{"last used", ruleUse(r)})
		for _, warning := range r.GetWarnings() {
			fields = append(fields, [2]string{"warning", warning})
		}
		return s.fields(fields...)
	})
}

type federationDelete struct {
	versioned
	Rule string `arg:"" help:"The rule's id."`
	Wait span   `help:"How long to wait for authorizers to enforce it." default:"5s" placeholder:"5s"`
}

// Run ends the rule and waits for the proof.
func (c *federationDelete) Run(ctx context.Context, s *session) error {
	client, err := s.connect()
	if err != nil {
		return err
	}
	defer client.close()
	seen, err := client.admin.GetFederationRule(ctx, &adminv1.GetFederationRuleRequest{RuleId: c.Rule})
	if err != nil {
		return err
	}
	id := sallyport.NewID(sallyport.OperationPrefix)
	if _, err := client.admin.DeleteFederationRule(ctx, &adminv1.DeleteFederationRuleRequest{RuleId: c.Rule,
		ResourceVersion: c.or(seen.GetFederationRule().GetResourceVersion()), AsyncOperationId: id}); err != nil {
		return err
	}
	receipt, err := client.receipt(ctx, id, time.Duration(c.Wait))
	if err != nil {
		return fmt.Errorf("rule %s is deleted (operation %s), but not where that is in force: %w", c.Rule, id, err)
	}
	if err := s.show(receipt, func() error {
		_, err := fmt.Fprintf(s.stdout, "rule %s deleted: %s\n", c.Rule, oneLine(summary(receipt)))
		return err
	}); err != nil {
		return err
	}
	return proved(receipt)
}
