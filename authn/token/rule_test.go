package token_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/google/go-cmp/cmp"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authn/token"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/directory"
	"github.com/sallyport-iam/sallyport/journal"
)

const github = "https://token.actions.githubusercontent.com"

func equals(claim string, values ...any) token.Condition {
	return token.Condition{Claim: claim, Equals: values}
}

func begins(claim string, prefixes ...string) token.Condition {
	return token.Condition{Claim: claim, Prefixes: prefixes}
}

func TestRules(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.Tenant(t)
	sa := reader(t, a)
	params := token.RuleParams{ServiceAccount: sa.ID, Description: "nightly", Issuer: github, Enabled: true, MaxAge: 10 * time.Minute,
		Conditions: []token.Condition{equals("repository_id", "74"), equals("run", 1, 2.0, json.Number("9007199254740993"), true), begins("ref", "refs/tags/")},
		Algorithms: []string{"RS256", "RS256"}}
	rule, done, err := w.issuer.CreateRule(t.Context(), a.Owner, op("CreateFederationRule"), params)
	check(t, err)
	want := token.Rule{RuleParams: params, Account: a.ID, ID: done.Target, Version: 1, CreatedBy: a.Owner.Principal.ID, Created: done.At, Revision: done.Head.Revision}
	want.Algorithms = []string{"RS256"}
	want.Conditions = []token.Condition{equals("repository_id", "74"), equals("run", json.Number("1"), json.Number("2"), json.Number("9007199254740993"), true), begins("ref", "refs/tags/")}
	read, err := w.issuer.Rule(t.Context(), a.Owner, rule.ID)
	check(t, err)
	for what, got := range map[string]token.Rule{"made": rule, "read": read} {
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	wantObject := []object.Object{{Kind: object.KindFederationRule, ID: rule.ID, Data: object.Encode(object.FederationRule{ServiceAccount: sa.ID, Version: 1})}}
	if diff := cmp.Diff(wantObject, w.sameAsJournal(t, a.ID)); diff != "" {
		t.Errorf("objects (-want +got):\n%s", diff)
	}
	params.Enabled = false
	rule, done, err = w.issuer.UpdateRule(t.Context(), a.Owner, journal.Operation{ID: "once", Type: "UpdateFederationRule"}, rule.ID, rule.Revision, params)
	check(t, err)
	if rule.Version != 2 || rule.Modified != done.At || len(w.sameAsJournal(t, a.ID)) != 0 {
		t.Errorf("disabled: got %+v", rule)
	}
	again, repeated, err := w.issuer.UpdateRule(t.Context(), a.Owner, journal.Operation{ID: "once", Type: "UpdateFederationRule"}, rule.ID, 1, params)
	if err != nil || !repeated.Replayed || again.Version != 2 {
		t.Errorf("repeated: got %+v, %+v, %v", again, repeated, err)
	}
	params.ServiceAccount = reader(t, a).ID
	_, _, err = w.issuer.UpdateRule(t.Context(), a.Owner, op("x"), rule.ID, 0, params)
	wantKind(t, "another service account", err, sallyport.Invalid, "cannot be changed")
	_, err = w.issuer.DeleteRule(t.Context(), a.Owner, op("x"), rule.ID, 1)
	wantKind(t, "stale", err, sallyport.Conflict, "changed since")
	_, err = w.issuer.DeleteRule(t.Context(), a.Owner, op("x"), rule.ID, rule.Revision)
	check(t, err)
	_, err = w.issuer.Rule(t.Context(), a.Owner, rule.ID)
	wantKind(t, "deleted", err, sallyport.NotFound, "no such federation rule")
}

func TestLimitsOfRules(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, p := w.Tenant(t), newIdP(t)
	sa, other := reader(t, a), reader(t, a)
	for range 10 {
		w.rule(t, a, sa, p)
	}
	_, _, err := w.issuer.CreateRule(t.Context(), a.Owner, op("x"), token.RuleParams{ServiceAccount: sa.ID, Issuer: p.issuer, Conditions: []token.Condition{equals("sub", "x")}})
	wantKind(t, "the eleventh", err, sallyport.Conflict, "may have 10")
	w.rule(t, a, other, p)
	var all []string
	for page := (sallyport.Page{Size: 4}); ; {
		rules, next, err := w.issuer.ListRules(t.Context(), a.Owner, sa.ID, page)
		check(t, err)
		for _, r := range rules {
			all = append(all, r.ID)
		}
		if page.Token = next; next == "" {
			break
		}
	}
	if len(all) != 10 || !slices.IsSorted(all) {
		t.Errorf("got %v", all)
	}
	every, _, err := w.issuer.ListRules(t.Context(), a.Owner, "", sallyport.Page{})
	if err != nil || len(every) != 11 {
		t.Errorf("of all service accounts: got %d, %v", len(every), err)
	}
	// The end of a principal is the end of its rules.
	_, err = w.Journal.Commit(t.Context(), a.Operator, a.ID, op("x"), func(tx *journal.Tx) error { return w.issuer.RemoveOwned(t.Context(), tx, sa.ID) })
	check(t, err)
	if left := w.sameAsJournal(t, a.ID); len(left) != 1 {
		t.Errorf("left are %v", left)
	}
}

func TestBadRules(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.Tenant(t)
	sa := reader(t, a)
	private, err := jose.JSONWebKey{Key: newKey(t, "ES256"), KeyID: "1"}.MarshalJSON()
	check(t, err)
	rule := func(change func(*token.RuleParams)) token.RuleParams {
		p := token.RuleParams{ServiceAccount: sa.ID, Issuer: "https://issuer.example.com", Conditions: []token.Condition{equals("sub", "x")}, Enabled: true}
		change(&p)
		return p
	}
	conditions := func(issuer string, list ...token.Condition) token.RuleParams {
		return rule(func(p *token.RuleParams) { p.Issuer, p.Conditions = issuer, list })
	}
	many := make([]token.Condition, 21)
	values := make([]any, 101)
	for n := range values {
		values[n] = fmt.Sprint(n)
	}
	for n := range many {
		many[n] = equals("sub", "x")
	}
	keys := func(n int, algorithm string) []byte { // of one id if n is negative
		p := &idp{}
		for k := range max(n, -n) {
			p.key(t, fmt.Sprint(max(0, k*n)), algorithm)
		}
		return p.jwks()
	}
	const generic = "https://issuer.example.com"
	for name, test := range map[string]struct {
		params token.RuleParams
		field  string
		says   string
	}{
		"a user":                        {rule(func(p *token.RuleParams) { p.ServiceAccount = a.Owner.Principal.ID }), "spec.service_account_id", "service account"},
		"a long description":            {rule(func(p *token.RuleParams) { p.Description = strings.Repeat("x", 1025) }), "spec.description", "longer"},
		"a description with a bell":     {rule(func(p *token.RuleParams) { p.Description = "\a" }), "spec.description", "printed"},
		"no issuer":                     {rule(func(p *token.RuleParams) { p.Issuer = "" }), "spec.issuer", "missing"},
		"an issuer that is no URL":      {rule(func(p *token.RuleParams) { p.Issuer = "issuer" }), "spec.issuer", "JWKS"},
		"an issuer with a query":        {rule(func(p *token.RuleParams) { p.Issuer += "?a=b" }), "spec.issuer", "query"},
		"an issuer with a fragment":     {rule(func(p *token.RuleParams) { p.Issuer += "#a" }), "spec.issuer", "query"},
		"an issuer with a password":     {rule(func(p *token.RuleParams) { p.Issuer = "https://a:b@x.example.com" }), "spec.issuer", "https://"},
		"an issuer of another scheme":   {rule(func(p *token.RuleParams) { p.Issuer = "file:///etc/passwd" }), "spec.issuer", "https://"},
		"a key set that is none":        {rule(func(p *token.RuleParams) { p.JWKS = []byte("x") }), "spec.jwks", "not a JSON Web Key Set"},
		"a key set with private keys":   {rule(func(p *token.RuleParams) { p.JWKS = fmt.Appendf(nil, `{"keys":[%s]}`, private) }), "spec.jwks", "private"},
		"17 keys":                       {rule(func(p *token.RuleParams) { p.JWKS = keys(17, "ES256") }), "spec.jwks", "more than 16"},
		"two keys of one id":            {rule(func(p *token.RuleParams) { p.JWKS = keys(-2, "ES256") }), "spec.jwks", "more than once"},
		"a key that takes long":         {rule(func(p *token.RuleParams) { p.JWKS = rsaKeys(1, 8192, 65537) }), "spec.jwks", "2048 to 4096 bits"},
		"a key that is short":           {rule(func(p *token.RuleParams) { p.JWKS = rsaKeys(1, 1024, 65537) }), "spec.jwks", "2048 to 4096 bits"},
		"a small exponent":              {rule(func(p *token.RuleParams) { p.JWKS = rsaKeys(1, 2048, 3) }), "spec.jwks", "65537"},
		"a large exponent":              {rule(func(p *token.RuleParams) { p.JWKS = rsaKeys(1, 2048, 1<<31-1) }), "spec.jwks", "65537"},
		"a large key set":               {rule(func(p *token.RuleParams) { p.JWKS = make([]byte, 65<<10) }), "spec.jwks", "larger"},
		"HS256":                         {rule(func(p *token.RuleParams) { p.Algorithms = []string{"HS256"} }), "spec.algorithms", "RS256"},
		"no algorithm":                  {rule(func(p *token.RuleParams) { p.Algorithms = []string{} }), "spec.algorithms", "RS256"},
		"too short an age":              {rule(func(p *token.RuleParams) { p.MaxAge = time.Second }), "spec.max_token_age", "minute"},
		"no conditions":                 {conditions(generic), "spec.conditions", "every token"},
		"too many conditions":           {conditions(generic, many...), "spec.conditions", "more than 20"},
		"too many values":               {conditions(generic, equals("sub", values...)), "spec.conditions", "more than 100"},
		"no value":                      {conditions(generic, equals("sub")), "spec.conditions", "no value meets"},
		"an empty value":                {conditions(generic, equals("sub", "")), "spec.conditions", "text of 1"},
		"an empty prefix":               {conditions(generic, begins("sub", "")), "spec.conditions", "prefix"},
		"a fraction":                    {conditions(generic, equals("sub", 1.5)), "spec.conditions", "whole number"},
		"a number with an exponent":     {conditions(generic, equals("sub", json.Number("1e3"))), "spec.conditions", "whole number"},
		"null":                          {conditions(generic, equals("sub", nil)), "spec.conditions", "whole number"},
		"no claim":                      {conditions(generic, equals("", "x")), "spec.conditions", "name"},
		"nothing but the audience":      {conditions(generic, equals("aud", "x"), equals("iss", generic)), "spec.conditions", "such as sub"},
		"what all subjects begin with":  {conditions(generic, begins("sub", "system:service")), "spec.conditions", "every token"},
		"one of the prefixes is wide":   {conditions(generic, begins("sub", "system:serviceaccount:a:", "s")), "spec.conditions", "every token"},
		"the branch of anybody":         {conditions(github, equals("ref", "refs/heads/main")), "spec.conditions", "such as repository_id"},
		"the actor of anybody":          {conditions(github, equals("actor", "octocat")), "spec.conditions", "such as repository_id"},
		"all of GitHub":                 {conditions(github, begins("sub", "repo:")), "spec.conditions", "such as repository_id"},
		"ids that begin so":             {conditions(github, begins("repository_owner_id", "12")), "spec.conditions", "such as repository_id"},
		"all of an enterprise's":        {conditions(github+"/octo", equals("ref", "x")), "spec.conditions", "such as repository_id"},
		"a workflow that all may call":  {conditions(github, equals("job_workflow_ref", "octo-org/shared/.github/workflows/x.yml@refs/heads/main")), "spec.conditions", "such as repository_id"},
		"a workflow's file":             {conditions(github, begins("workflow_ref", "octo-org/octo-repo/")), "spec.conditions", "such as repository_id"},
		"a workflow, of another host":   {conditions("https://ghes.example.com/_services/token", equals("job_workflow_ref", "a/b/.github/workflows/x.yml@main")), "spec.conditions", "such as sub"},
		"a pipeline's file":             {conditions("https://gitlab.com", equals("ci_config_ref_uri", "gitlab.com/g/p//.gitlab-ci.yml@refs/heads/main")), "spec.conditions", "such as project_id"},
		"a pipeline's, of another host": {conditions("https://gitlab.example.com", begins("ci_config_ref_uri", "gitlab.example.com/g/")), "spec.conditions", "such as sub"},
		"an owner's name and more":      {conditions(github, begins("sub", "repo:octo-org")), "spec.conditions", "such as repository_id"},
		"a repository's name and more":  {conditions(github, begins("repository", "octo-org/octo-repo")), "spec.conditions", "such as repository_id"},
		"one prefix of two is open":     {conditions(github, begins("sub", "repo:octo-org/", "repo:octo")), "spec.conditions", "such as repository_id"},
		"an owner's field only":         {conditions(github, begins("sub", "repository_owner:")), "spec.conditions", "such as repository_id"},
		"an environment's name":         {conditions(github, equals("sub", "environment:prod")), "spec.conditions", "such as repository_id"},
		"an environment in sub":         {conditions(github, begins("sub", "environment:prod:")), "spec.conditions", "such as repository_id"},
		"a workflow in sub":             {conditions(github, begins("sub", "job_workflow_ref:octo-org/shared/")), "spec.conditions", "such as repository_id"},
		"a group's path and more":       {conditions("https://gitlab.com", begins("namespace_path", "my-group")), "spec.conditions", "such as project_id"},
		"a project's path and more":     {conditions("https://gitlab.com", begins("sub", "project_path:my-group/my")), "spec.conditions", "such as project_id"},
		"a subject of Google's, begun":  {conditions("https://accounts.google.com", begins("sub", "1120")), "spec.conditions", "such as sub"},
		"an e-mail of Google's, begun":  {conditions("https://accounts.google.com", begins("email", "robot@")), "spec.conditions", "such as sub"},
		"an organization, begun":        {conditions("https://app.terraform.io", begins("sub", "organization:my")), "spec.conditions", "such as terraform_workspace_id"},
		"all of GitLab":                 {conditions("https://gitlab.com", begins("sub", "project_path:")), "spec.conditions", "such as project_id"},
		"all verified of Google":        {conditions("https://accounts.google.com", equals("email_verified", true)), "spec.conditions", "such as sub"},
	} {
		_, _, err := w.issuer.CreateRule(t.Context(), a.Owner, op("x"), test.params)
		var invalid *sallyport.Error
		if !errors.As(err, &invalid) || invalid.Kind != sallyport.Invalid || invalid.Field != test.field || !strings.Contains(invalid.Msg, test.says) {
			t.Errorf("%s: got %v; want %s with %q", name, err, test.field, test.says)
		}
	}
	_, _, err = w.issuer.CreateRule(t.Context(), a.Owner, op("x"), rule(func(p *token.RuleParams) { p.ServiceAccount = "sa_nothing" }))
	wantKind(t, "no such service account", err, sallyport.NotFound, "service account")
	_, _, err = w.issuer.CreateRule(t.Context(), operator, op("x"), rule(func(*token.RuleParams) {}))
	wantKind(t, "authorizers", err, sallyport.Invalid, "API keys")
}

func TestWarnings(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.Tenant(t)
	for name, test := range map[string]struct {
		issuer     string
		conditions []token.Condition
		want       []string // words of each
	}{
		"ids":                       {github, []token.Condition{equals("repository_id", "1")}, nil},
		"an owner's id and a name":  {github, []token.Condition{equals("repository_owner_id", "1"), equals("repository", "o/r")}, nil},
		"a repository's name":       {github, []token.Condition{equals("repository", "o/r")}, []string{"repository_id"}},
		"an owner's name":           {github, []token.Condition{equals("repository_owner", "o")}, []string{"repository_owner_id"}},
		"the subject":               {github, []token.Condition{begins("sub", "repo:o/r:")}, []string{"repository_id"}},
		"a prefix without an end":   {github, []token.Condition{begins("repository", "octo"), equals("repository_id", "1")}, []string{"longer name"}},
		"GitLab by path":            {"https://gitlab.example.com", []token.Condition{equals("project_path", "g/p")}, []string{"project_id"}},
		"Kubernetes by name":        {"https://k8s.example.com", []token.Condition{equals("sub", "system:serviceaccount:n:s")}, []string{"serviceaccount.uid"}},
		"Kubernetes, any namespace": {"https://k8s.example.com", []token.Condition{equals("kubernetes.io.serviceaccount.name", "s")}, []string{"serviceaccount.uid", "kubernetes.io.namespace"}},
		"Kubernetes by uid":         {"https://k8s.example.com", []token.Condition{equals("kubernetes.io.serviceaccount.uid", "u")}, nil},
		"Google by e-mail":          {"https://accounts.google.com", []token.Condition{equals("email", "a@b.iam.gserviceaccount.com")}, []string{"sub"}},
	} {
		sa := reader(t, a)
		rule, _, err := w.issuer.CreateRule(t.Context(), a.Owner, op("x"), token.RuleParams{ServiceAccount: sa.ID, Issuer: test.issuer, Conditions: test.conditions})
		check(t, err)
		if len(rule.Warnings) != len(test.want) {
			t.Errorf("%s: got %q", name, rule.Warnings)
			continue
		}
		for n, word := range test.want {
			if !strings.Contains(rule.Warnings[n], word) {
				t.Errorf("%s: got %q, want %q in it", name, rule.Warnings[n], word)
			}
		}
	}
}

// Prefixes that end where a name does are good, and so is whatever goes with what pins.
func TestGoodRules(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.Tenant(t)
	for name, test := range map[string]struct {
		issuer     string
		conditions []token.Condition
	}{
		"an owner":                     {github, []token.Condition{begins("sub", "repo:octo-org/")}},
		"a repository":                 {github, []token.Condition{begins("sub", "repo:octo-org/octo-repo:")}},
		"its immutable name":           {github, []token.Condition{begins("sub", "repo:octo-org@123/")}},
		"its id in sub":                {github, []token.Condition{begins("sub", "repository_owner_id:65:")}},
		"all of sub":                   {github, []token.Condition{equals("sub", "repo:octo-org/octo-repo:environment:prod")}},
		"a repository's owner":         {github, []token.Condition{begins("repository", "octo-org/")}},
		"a workflow of a repository":   {github, []token.Condition{equals("repository_id", "74"), begins("job_workflow_ref", "octo-org/shared")}},
		"a group":                      {"https://gitlab.com", []token.Condition{begins("project_path", "my-group/")}},
		"a project":                    {"https://gitlab.com", []token.Condition{begins("sub", "project_path:my-group/my-project:")}},
		"a number of Google's":         {"https://accounts.google.com", []token.Condition{equals("sub", "112010400000000710080")}},
		"an organization":              {"https://app.terraform.io", []token.Condition{begins("sub", "organization:my-org:")}},
		"an own issuer's, as it likes": {"https://issuer.example.com", []token.Condition{begins("sub", "deploy-")}},
	} {
		_, _, err := w.issuer.CreateRule(t.Context(), a.Owner, op("x"), token.RuleParams{ServiceAccount: reader(t, a).ID, Issuer: test.issuer, Conditions: test.conditions})
		if err != nil {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// Who may do what with the rules of a service account that is bound to orders.
func TestPermissions(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.Tenant(t), w.Tenant(t)
	p := newIdP(t)
	a.Namespace(t, "orders")
	a.Namespace(t, "other")
	in := func(name string, p sallyport.Permission) directory.Access {
		return directory.Access{Namespaces: map[string]sallyport.Permission{name: p}}
	}
	bound := a.ServiceAccount(t, sallyport.ScopeNamespace, in("orders", sallyport.PermissionWrite))
	user := func(access directory.Access, limits sallyport.Limits) sallyport.Caller {
		return a.Caller(t, a.User(t, access), limits)
	}
	role := func(r sallyport.AccountRole) directory.Access { return directory.Access{Role: r} }
	const yes, denied, none = "yes", string(sallyport.PermissionDenied), string(sallyport.NotFound)
	for name, test := range map[string]struct {
		caller sallyport.Caller
		want   []string // get, list, test, create, update, delete
	}{
		"owner":                         {a.Owner, []string{yes, yes, yes, yes, yes, yes}},
		"admin":                         {user(role(sallyport.RoleAdmin), sallyport.Limits{}), []string{yes, yes, yes, yes, yes, yes}},
		"admin, read-only":              {user(role(sallyport.RoleAdmin), sallyport.Limits{ReadOnly: true}), []string{yes, yes, yes, denied, denied, denied}},
		"developer":                     {user(role(sallyport.RoleDeveloper), sallyport.Limits{}), []string{denied, denied, denied, denied, denied, denied}},
		"admin of its namespace":        {user(in("orders", sallyport.PermissionAdmin), sallyport.Limits{}), []string{yes, yes, yes, yes, yes, yes}},
		"writer of its namespace":       {user(in("orders", sallyport.PermissionWrite), sallyport.Limits{}), []string{denied, denied, denied, denied, denied, denied}},
		"admin of another namespace":    {user(in("other", sallyport.PermissionAdmin), sallyport.Limits{}), []string{denied, denied, denied, denied, denied, denied}},
		"the service account":           {a.Caller(t, bound, sallyport.Limits{}), []string{yes, yes, yes, denied, denied, denied}},
		"another account's owner":       {b.Owner, []string{none, none, none, none, none, none}},
		"another account's, as this":    {sallyport.Caller{Account: a.ID, Principal: b.Owner.Principal, Credential: b.Owner.Credential, Head: b.Owner.Head}, nil},
		"an operator":                   {a.Operator, []string{yes, yes, yes, yes, yes, yes}},
		"an operator of another":        {b.Operator, []string{none, none, none, none, none, none}},
		"an operator of account 00000":  {operator, []string{none, none, none, string(sallyport.Invalid), none, none}},
		"a narrowed admin of the same":  {user(in("orders", sallyport.PermissionAdmin), sallyport.Limits{ReadOnly: true}), []string{yes, yes, yes, denied, denied, denied}},
		"a member without any of these": {user(role(sallyport.RoleMetricsRead), sallyport.Limits{}), []string{denied, denied, denied, denied, denied, denied}},
	} {
		rule := w.rule(t, a, bound, p)
		_, get := w.issuer.Rule(t.Context(), test.caller, rule.ID)
		_, _, list := w.issuer.ListRules(t.Context(), test.caller, bound.ID, sallyport.Page{})
		_, tested := w.issuer.TestRules(t.Context(), test.caller, bound.ID, "x")
		params := token.RuleParams{ServiceAccount: bound.ID, Issuer: p.issuer, Conditions: []token.Condition{equals("sub", "x")}}
		made, _, create := w.issuer.CreateRule(t.Context(), test.caller, op("x"), params)
		_, _, update := w.issuer.UpdateRule(t.Context(), test.caller, op("x"), rule.ID, 0, params)
		_, remove := w.issuer.DeleteRule(t.Context(), test.caller, op("x"), rule.ID, 0)
		var got []string
		for _, err := range []error{get, list, tested, create, update, remove} {
			if err == nil {
				got = append(got, yes)
				continue
			}
			got = append(got, string(sallyport.KindOf(err)))
		}
		if test.want == nil {
			if slices.Contains(got, yes) {
				t.Errorf("%s: got %v", name, got)
			}
		} else if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s: get, list, test, create, update, delete (-want +got):\n%s", name, diff)
		}
		for _, id := range []string{rule.ID, made.ID} {
			if id != "" {
				_, _ = w.issuer.DeleteRule(t.Context(), a.Operator, op("x"), id, 0)
			}
		}
	}
	// Lists hold what may be read, and no more.
	w.rule(t, a, bound, p)
	w.rule(t, a, reader(t, a), p)
	rules, _, err := w.issuer.ListRules(t.Context(), a.Caller(t, bound, sallyport.Limits{}), "", sallyport.Page{})
	if err != nil || len(rules) != 1 || rules[0].ServiceAccount != bound.ID {
		t.Errorf("the service account sees %+v, %v", rules, err)
	}
	if rules, _, err := w.issuer.ListRules(t.Context(), b.Owner, "", sallyport.Page{}); err != nil || len(rules) != 0 {
		t.Errorf("another account sees %+v, %v", rules, err)
	}
}

// What a test of rules says of a token that is not good.
func TestWhyNot(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, p := w.Tenant(t), newIdP(t)
	key, sa := p.key(t, "1", "ES256"), reader(t, a)
	w.rule(t, a, sa, p, equals("repository_id", "74"), equals("a.b", "x"), equals("n", 1), equals("groups", "two"))
	claims := w.good(p, a, map[string]any{"repository_id": 74, "a.b": "x", "a": map[string]any{"b": "x"}, "groups": []string{"one", "two"}})
	claims["aud"] = platform
	result, err := w.issuer.TestRules(t.Context(), a.Owner, sa.ID, sign(t, key, "ES256", "1", claims))
	check(t, err)
	got := result.Rules[0]
	want := []token.ConditionTest{
		{Condition: equals("repository_id", "74"), Received: "74", Problem: `the claim is not "74"`},
		{Condition: equals("a.b", "x"), Problem: "the name could be two claims of this token"},
		{Condition: equals("n", json.Number("1")), Problem: "the token has no such claim"},
		{Condition: equals("groups", "two"), Received: `["one","two"]`, Matches: true},
	}
	if diff := cmp.Diff(want, got.Conditions); diff != "" {
		t.Errorf("conditions (-want +got):\n%s", diff)
	}
	if got.Matches || len(got.Problems) != 1 || !strings.Contains(got.Problems[0], "audience") || !strings.Contains(got.Problems[0], result.Audience) {
		t.Errorf("got %+v", got)
	}
	claims = w.good(p, a, nil)
	claims["iss"] = p.issuer + "/"
	result, err = w.issuer.TestRules(t.Context(), a.Owner, sa.ID, sign(t, key, "ES256", "1", claims))
	check(t, err)
	if why := strings.Join(result.Rules[0].Problems, " "); !strings.Contains(why, "slash") {
		t.Errorf("got %q", why)
	}
	result, err = w.issuer.TestRules(t.Context(), a.Owner, sa.ID, "x")
	if err != nil || result.Problem == "" || result.Claims != nil {
		t.Errorf("no token: got %+v, %v", result, err)
	}
}
