package main

import (
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/sallyport-iam/sallyport/api/sallyport/admin/v1"
	"github.com/sallyport-iam/sallyport/credential"
)

type federationTest struct {
	ServiceAccount string `help:"Whose rules (sa_…)." required:"" placeholder:"ID"`
	TokenFile      string `help:"File with a token of the other issuer; - for stdin." required:"" placeholder:"FILE"`
}

// Run asks, and shows each rule's answer.
func (c *federationTest) Run(ctx context.Context, s *session) error {
	client, err := s.connect()
	if err != nil {
		return err
	}
	defer client.close()
	token, err := s.secretFile("token", c.TokenFile)
	if err != nil {
		return err
	}
	result, err := client.admin.TestFederation(ctx, &adminv1.TestFederationRequest{ServiceAccountId: c.ServiceAccount, Token: token.Reveal()})
	if err != nil {
		return err
	}
	if err := s.show(result, func() error { return s.tested(result) }); err != nil {
		return err
	}
	if !result.GetAccepted() {
		return exitDenied
	}
	return nil
}

// secretFile reads a secret without what surrounds it; "-" is stdin.
func (s *session) secretFile(what, path string) (credential.Secret, error) {
	const most = 64 << 10
	text, err := func() ([]byte, error) {
		if path == "-" {
			return readSome(s.stdin, most)
		}
		file, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer file.Close()
		return readSome(file, most)
	}()
	if err != nil {
		return "", fmt.Errorf("reading the %s: %w", what, err)
	}
	secret := strings.TrimSpace(string(text))
	if secret == "" {
		return "", fmt.Errorf("%s is empty; it should hold a %s", path, what)
	}
	return credential.Secret(secret), nil
}

// tested prints what each rule makes of the token, and what the token says.
func (s *session) tested(r *adminv1.TestFederationResponse) error {
	answer := "not accepted"
	if r.GetAccepted() {
		answer = "accepted by rule " + r.GetRuleId()
	}
	if len(r.GetRules()) == 0 && r.GetProblem() == "" {
		answer += ": the service account has no rules"
	}
	if err := s.fields([2]string{"answer", answer}, [2]string{"problem", r.GetProblem()}, [2]string{"audience needed", r.GetAudience()}, [2]string{"claims", r.GetClaims()}); err != nil {
		return err
	}
	for _, rule := range r.GetRules() {
		word := "refuses it"
		if rule.GetMatches() {
			word = "takes it"
		}
		if _, err := fmt.Fprintf(s.stdout, "\nrule %s (%s) %s\n", rule.GetRule().GetId(), oneLine(rule.GetRule().GetSpec().GetIssuer()), word); err != nil {
			return err
		}
		var rows [][2]string
		for _, problem := range rule.GetProblems() {
			rows = append(rows, [2]string{"  no", problem})
		}
		for _, c := range rule.GetConditions() {
			if c.GetMatches() {
				rows = append(rows, [2]string{"  yes", conditionText(c.GetCondition())})
				continue
			}
			text := conditionText(c.GetCondition()) + ": " + c.GetProblem()
			if c.GetReceived() != "" {
				text += " (it is " + c.GetReceived() + ")"
			}
			rows = append(rows, [2]string{"  no", text})
		}
		if err := s.fields(rows...); err != nil {
			return err
		}
	}
	return nil
}
