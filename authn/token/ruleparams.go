package token

import (
	"bytes"
	"encoding/json"
	"math"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/sallyport-iam/sallyport"
)

const (
	maxDescription = 1024 // characters
	maxIssuer      = 512  // bytes
	maxConditions  = 20
	maxValues      = 100 // of a condition
	maxValue       = 512 // bytes
	maxClaimName   = 256 // bytes
	maxJWKS        = 64 << 10
	maxAgeLimit    = 24 * time.Hour
)

// algorithms of external tokens, sorted.
var algorithms = []string{"ES256", "ES384", "RS256"}

// checkRule brings the parameters into the form that is kept.
func (i *Issuer) checkRule(p *RuleParams) error {
	if i.url == "" {
		return errNoTokens
	}
	unprintable := func(r rune) bool { return unicode.IsControl(r) && !strings.ContainsRune("\n\r\t", r) }
	switch {
	case !strings.HasPrefix(p.ServiceAccount, sallyport.ServiceAccountPrefix):
		return sallyport.InvalidField("spec.service_account_id", "is not the id of a service account")
	case utf8.RuneCountInString(p.Description) > maxDescription:
		return sallyport.InvalidField("spec.description", "is longer than %d characters", maxDescription)
	case !utf8.ValidString(p.Description) || strings.ContainsFunc(p.Description, unprintable):
		return sallyport.InvalidField("spec.description", "has characters that cannot be printed")
	case p.MaxAge != 0 && (p.MaxAge < time.Minute || p.MaxAge > maxAgeLimit || p.MaxAge%time.Second != 0):
		return sallyport.InvalidField("spec.max_token_age", "is between a minute and 24 hours, in whole seconds, or 0 for as long as the token is good")
	}
	if err := p.checkIssuer(); err != nil {
		return err
	}
	if p.Algorithms == nil {
		p.Algorithms = algorithms
	}
	p.Algorithms = slices.Compact(slices.Sorted(slices.Values(p.Algorithms)))
	if len(p.Algorithms) == 0 || slices.ContainsFunc(p.Algorithms, func(a string) bool { return !slices.Contains(algorithms, a) }) {
		return sallyport.InvalidField("spec.algorithms", "may have RS256, ES256 and ES384")
	}
	return p.checkConditions()
}

func (p *RuleParams) checkIssuer() error {
	switch {
	case p.Issuer == "":
		return sallyport.InvalidField("spec.issuer", "is missing: give the iss of the tokens, exactly as it is in them")
	case len(p.Issuer) > maxIssuer || !printable(p.Issuer):
		return sallyport.InvalidField("spec.issuer", "is at most %d characters that can be printed", maxIssuer)
	}
	switch {
	case p.JWKS != nil && p.Discovery:
		return sallyport.InvalidField("spec.jwks", "excludes discovery: give the keys, or have them found")
	case p.JWKS != nil && len(bytes.TrimSpace(p.JWKS)) == 0:
		return sallyport.InvalidField("spec.jwks", "is empty: give the issuer's keys, or leave it out and they are found by discovery")
	}
	p.Discovery = false // nothing that is kept
	if p.JWKS == nil {
		u, err := url.Parse(p.Issuer)
		if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" {
			return sallyport.InvalidField("spec.issuer", "is not a URL that begins with https://, without a query; upload the issuer's JWKS if its keys cannot be fetched")
		}
		return nil
	}
	if len(p.JWKS) > maxJWKS {
		return sallyport.InvalidField("spec.jwks", "is larger than %d bytes", maxJWKS)
	}
	keys, err := parseUploaded(p.JWKS)
	if err != nil {
		return sallyport.InvalidField("spec.jwks", "%s", err.Error())
	}
	p.JWKS, err = keys.encode()
	return err
}

func printable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

func (p *RuleParams) checkConditions() error {
	const field = "spec.conditions"
	if len(p.Conditions) > maxConditions {
		return sallyport.InvalidField(field, "has more than %d", maxConditions)
	}
	p.Conditions = slices.Clone(p.Conditions)
	for n, c := range p.Conditions {
		switch {
		case c.Claim == "" || len(c.Claim) > maxClaimName || !printable(c.Claim):
			return sallyport.InvalidField(field, "has one without a claim's name of 1 to %d characters", maxClaimName)
		case len(c.Equals)+len(c.Prefixes) == 0:
			return sallyport.InvalidField(field, "has one for the claim %s that no value meets: give what it equals or begins with", c.Claim)
		case len(c.Equals)+len(c.Prefixes) > maxValues:
			return sallyport.InvalidField(field, "has one for the claim %s with more than %d values", c.Claim, maxValues)
		case slices.ContainsFunc(c.Prefixes, func(s string) bool { return s == "" || len(s) > maxValue || !printable(s) }):
			return sallyport.InvalidField(field, "has one for the claim %s with a prefix that is not of 1 to %d characters", c.Claim, maxValue)
		}
		equals := make([]any, 0, len(c.Equals))
		for _, v := range c.Equals {
			value, ok := canonical(v)
			if !ok {
				return sallyport.InvalidField(field, "has one for the claim %s with a value that is not a text of 1 to %d characters, a whole number or a boolean", c.Claim, maxValue)
			}
			equals = append(equals, value)
		}
		if len(equals) == 0 {
			equals = nil
		}
		p.Conditions[n].Equals, p.Conditions[n].Prefixes = equals, slices.Clone(c.Prefixes)
		if len(c.Prefixes) == 0 {
			p.Conditions[n].Prefixes = nil
		}
	}
	if !slices.ContainsFunc(p.Conditions, p.pins) {
		return sallyport.InvalidField(field, "would let in every token of this issuer, or everybody's: add one on what says whose workload it is, such as %s", p.example())
	}
	return nil
}

var integer = regexp.MustCompile(`^(0|-?[1-9][0-9]{0,37})$`)

// canonical is a value of a condition as it is kept: string, bool or json.Number.
func canonical(v any) (any, bool) {
	switch v := v.(type) {
	case string:
		return v, v != "" && len(v) <= maxValue && printable(v)
	case bool:
		return v, true
	case json.Number:
		return v, integer.MatchString(v.String())
	case float64:
		if v != math.Trunc(v) || math.Abs(v) > 1<<53 {
			return nil, false
		}
		return json.Number(strconv.FormatInt(int64(v), 10)), true
	case int:
		return json.Number(strconv.Itoa(v)), true
	case int64:
		return json.Number(strconv.FormatInt(v, 10)), true
	}
	return nil, false
}

// sameButText reports whether two rules let in the same.
func (p RuleParams) sameButText(other RuleParams) bool {
	p.Description = other.Description
	return reflect.DeepEqual(p, other)
}

// shared are issuers whose tokens anybody can have, for workloads of his own, and
// the claims that say whose a token is.
type shared struct {
	issuer   string // or, if it ends with a slash, what it begins with
	claims   []string
	subjects []string // what a sub that says whose it is begins with, where its form can be chosen; nil: whatever
	exact    bool     // its names cannot be compared by how they begin
	example  string
}

var sharedIssuers = []shared{
	{issuer: "https://token.actions.githubusercontent.com", claims: githubClaims, subjects: githubSubjects, example: "repository_id"},
	{issuer: "https://token.actions.githubusercontent.com/", claims: githubClaims, subjects: githubSubjects, example: "repository_id"},
	{issuer: "https://gitlab.com", claims: []string{"sub", "project_id", "project_path", "namespace_id", "namespace_path", "user_id"},
		subjects: []string{"project_path:"}, example: "project_id"},
	{issuer: "https://accounts.google.com", claims: []string{"sub", "email", "google.compute_engine.project_id", "google.compute_engine.project_number",
		"google.compute_engine.instance_id"}, exact: true, example: "sub"},
	{issuer: "https://app.terraform.io", claims: []string{"sub", "terraform_organization_id", "terraform_organization_name", "terraform_project_id",
		"terraform_workspace_id", "terraform_full_workspace"}, subjects: []string{"organization:"}, example: "terraform_workspace_id"},
	{issuer: "https://agent.buildkite.com", claims: []string{"sub", "organization_id", "organization_slug", "pipeline_id"}, example: "pipeline_id"},
}

// GitHub lets the owner of a repository choose of what claims its sub is made.
var (
	githubClaims   = []string{"sub", "repository", "repository_id", "repository_owner", "repository_owner_id", "enterprise", "enterprise_id"}
	githubSubjects = []string{"repo:", "repository:", "repository_id:", "repository_owner:", "repository_owner_id:", "enterprise:", "enterprise_id:"}
)

// says reports whether the condition on one of the claims says whose the tokens are:
// a prefix must end where a name does, since anybody can take a longer one.
func (s shared) says(c Condition) bool {
	const ends = "/:@"
	if !slices.Contains(s.claims, c.Claim) || s.exact && len(c.Prefixes) > 0 {
		return false
	}
	if slices.ContainsFunc(c.Prefixes, func(p string) bool { return !strings.ContainsAny(p[len(p)-1:], ends) }) {
		return false
	}
	if c.Claim != "sub" {
		return true
	}
	whose := func(sub string) bool {
		return s.subjects == nil || slices.ContainsFunc(s.subjects, func(head string) bool {
			name, ok := strings.CutPrefix(sub, head)
			return ok && strings.Trim(name, ends) != ""
		})
	}
	return !slices.ContainsFunc(c.Prefixes, func(p string) bool { return !whose(p) || !strings.ContainsAny(p[:len(p)-1], ends) }) &&
		!slices.ContainsFunc(c.Equals, func(v any) bool { sub, ok := v.(string); return ok && !whose(sub) })
}

// vague are claims that say nothing of whose workload it is. A workflow's file can
// be one that everybody calls from his own repository.
var vague = []string{"iss", "aud", "exp", "nbf", "iat", "jti", "auth_time", "azp", "nonce", "acr", "amr", "at_hash", "c_hash", "sid", "typ", "ver",
	"version", "token_use", "email_verified", "scope", "scp", "ref", "ref_type", "ref_protected", "event_name", "runner_environment",
	"repository_visibility", "environment", "workflow", "workflow_ref", "workflow_sha", "job_workflow_ref", "job_workflow_sha",
	"ci_config_ref_uri", "ci_config_sha", "pipeline_source", "head_ref", "base_ref", "sha"}

// heads are what the subjects of an issuer all begin with: a prefix that is no
// longer says nothing.
var heads = []string{"repo:", "project_path:", "system:serviceaccount:", "spiffe://", "arn:aws:iam::", "arn:aws:sts::", "arn:aws-cn:iam::",
	"arn:aws-us-gov:iam::", "organization:", "https://", "http://"}

func (p RuleParams) sharedIssuer() (shared, bool) {
	at := slices.IndexFunc(sharedIssuers, func(s shared) bool {
		return p.Issuer == s.issuer || strings.HasSuffix(s.issuer, "/") && strings.HasPrefix(p.Issuer, s.issuer)
	})
	if at < 0 {
		return shared{}, false
	}
	return sharedIssuers[at], true
}

// pins reports whether the condition says whose workloads the rule lets in.
func (p RuleParams) pins(c Condition) bool {
	if s, ok := p.sharedIssuer(); ok && !s.says(c) {
		return false
	}
	if slices.Contains(vague, c.Claim) || strings.HasSuffix(c.Claim, "_id") && len(c.Prefixes) > 0 {
		return false
	}
	return !slices.ContainsFunc(c.Equals, func(v any) bool { _, is := v.(bool); return is }) &&
		!slices.ContainsFunc(c.Prefixes, func(prefix string) bool {
			return len(prefix) < 2 || slices.ContainsFunc(heads, func(head string) bool { return strings.HasPrefix(head, prefix) })
		})
}

func (p RuleParams) example() string {
	if s, ok := p.sharedIssuer(); ok {
		return s.example
	}
	return "sub"
}

// reusable are claims that name something by a name which somebody else can have
// later, and the claim that does not.
var reusable = []struct{ issuer, claim, prefix, better, what string }{
	{"token.actions.githubusercontent.com", "repository", "", "repository_id", "a repository's name"},
	{"token.actions.githubusercontent.com", "repository_owner", "", "repository_owner_id", "an owner's name"},
	{"token.actions.githubusercontent.com", "sub", "", "repository_id", "the name of a repository or owner, which sub has,"},
	{"gitlab", "project_path", "", "project_id", "a project's path"},
	{"gitlab", "namespace_path", "", "namespace_id", "a group's path"},
	{"gitlab", "sub", "project_path:", "project_id", "a project's path, which sub has,"},
	{"accounts.google.com", "email", "", "sub", "a service account's e-mail"},
	{"", "sub", "system:serviceaccount:", "kubernetes.io.serviceaccount.uid", "the name of a Kubernetes service account, which sub has,"},
	{"", "kubernetes.io.serviceaccount.name", "", "kubernetes.io.serviceaccount.uid", "the name of a Kubernetes service account"},
	{"app.terraform.io", "terraform_workspace_name", "", "terraform_workspace_id", "a workspace's name"},
}

// warnings say what about the rule is not as safe as it could be.
func (p RuleParams) warnings() []string {
	has := func(claim string) bool {
		return slices.ContainsFunc(p.Conditions, func(c Condition) bool { return c.Claim == claim })
	}
	// owners' ids cover what repositories' names do not say for ever
	covered := map[string]string{"repository_id": "repository_owner_id", "project_id": "namespace_id"}
	var list []string
	for _, r := range reusable {
		named := slices.ContainsFunc(p.Conditions, func(c Condition) bool { return c.Claim == r.claim && c.begins(r.prefix) })
		if !strings.Contains(p.Issuer, r.issuer) || !named || has(r.better) || covered[r.better] != "" && has(covered[r.better]) {
			continue
		}
		list = append(list, r.what+" can become somebody else's: add a condition on "+r.better+", which is never given again")
	}
	if has("kubernetes.io.serviceaccount.name") && !has("kubernetes.io.namespace") && !has("kubernetes.io.serviceaccount.uid") {
		list = append(list, "service accounts of that name in every namespace of the cluster are let in: add a condition on kubernetes.io.namespace")
	}
	for _, c := range p.Conditions {
		for _, prefix := range c.Prefixes {
			if !strings.ContainsAny(prefix[len(prefix)-1:], "/:@|.") {
				list = append(list, "the prefix "+show(prefix)+" of "+c.Claim+" lets in every longer name that begins so: end it with what parts the names, such as / or :")
			}
		}
	}
	return list
}

// begins reports whether a value of the condition begins so.
func (c Condition) begins(prefix string) bool {
	return prefix == "" || slices.ContainsFunc(c.Prefixes, func(s string) bool { return strings.HasPrefix(s, prefix) }) ||
		slices.ContainsFunc(c.Equals, func(v any) bool { s, ok := v.(string); return ok && strings.HasPrefix(s, prefix) })
}
