package test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/sallyport-iam/sallyport/test/issuertest"
)

// example is a section of doc/tokens.md and what its issuer is like.
type example struct {
	section   string
	typ       jose.ContentType // of the token's header; "": JWT
	algorithm jose.SignatureAlgorithm
	claims    map[string]any // of a token that the rule takes
	// wrong are claims that make it one of somebody else.
	wrong map[string]any
	// programs stand in for those of the cloud: a shell script for each name, in
	// which $SUBJECT_TOKEN is the workload's token.
	programs map[string]string
	// file is where the workload finds its token, "" if it asks for it.
	file string
	// env is what the platform gives the workload.
	env map[string]string
}

func examples() []example {
	return []example{
		{section: "GitHub Actions", algorithm: jose.RS256,
			claims: map[string]any{"iss": "https://token.actions.githubusercontent.com", "sub": "repo:octo-org/octo-repo:ref:refs/heads/main",
				"ref": "refs/heads/main", "ref_type": "branch", "sha": "4f1d0b", "repository": "octo-org/octo-repo", "repository_id": "74",
				"repository_owner": "octo-org", "repository_owner_id": "65", "repository_visibility": "private", "actor": "octocat", "actor_id": "12",
				"workflow": "deploy", "event_name": "push", "head_ref": "", "base_ref": "", "run_id": "9", "run_attempt": "1", "runner_environment": "github-hosted",
				"workflow_ref":     "octo-org/octo-repo/.github/workflows/deploy.yml@refs/heads/main",
				"job_workflow_ref": "octo-org/octo-repo/.github/workflows/deploy.yml@refs/heads/main"},
			wrong: map[string]any{"repository_id": "75"},
			env:   map[string]string{"ACTIONS_ID_TOKEN_REQUEST_TOKEN": "runner", "ACTIONS_ID_TOKEN_REQUEST_URL": "http://pipelines.example/token?api-version=2.0"}},
		{section: "GitLab", algorithm: jose.RS256,
			claims: map[string]any{"iss": "https://gitlab.com", "sub": "project_path:group/project:ref_type:branch:ref:main", "namespace_id": "72", "namespace_path": "group",
				"project_id": "22", "project_path": "group/project", "user_id": "1", "user_login": "ann", "pipeline_id": "574", "pipeline_source": "push", "job_id": "302",
				"ref": "main", "ref_type": "branch", "ref_path": "refs/heads/main", "ref_protected": "true", "runner_environment": "gitlab-hosted", "sha": "714a62"},
			wrong: map[string]any{"ref_protected": "false"},
			env:   map[string]string{"SALLYPORT_TOKEN": "$SUBJECT_TOKEN"}},
		{section: "Kubernetes", algorithm: jose.RS256,
			claims: map[string]any{"iss": "https://kubernetes.default.svc.cluster.local", "sub": "system:serviceaccount:payments:worker",
				"kubernetes.io": map[string]any{"namespace": "payments", "node": map[string]any{"name": "node-1", "uid": "5c2f"}, "pod": map[string]any{"name": "worker-7d", "uid": "e0f1"},
					"serviceaccount": map[string]any{"name": "worker", "uid": "0c7c5d2e-0f5c-4c1a-8a52-6a3f2a6d8f11"}, "warnafter": 1}},
			wrong: map[string]any{"kubernetes.io": map[string]any{"namespace": "payments", "serviceaccount": map[string]any{"name": "worker", "uid": "another"}}},
			file:  "/var/run/secrets/sallyport/token"},
		{section: "Google Cloud", algorithm: jose.RS256,
			claims: map[string]any{"iss": "https://accounts.google.com", "sub": "112010400000000710080", "azp": "112010400000000710080",
				"email": "robot@project.iam.gserviceaccount.com", "email_verified": true, "google": map[string]any{"compute_engine": map[string]any{
					"project_id": "project", "project_number": 739419398126, "zone": "us-west1-a", "instance_id": "152986662232938449", "instance_name": "example"}}},
			wrong: map[string]any{"sub": "112010400000000710081"}},
		{section: "AWS", algorithm: jose.ES384,
			claims: map[string]any{"iss": "https://abc123-def456-ghi789-jkl012.tokens.sts.global.api.aws", "sub": "arn:aws:iam::123456789012:role/DataProcessingRole",
				"https://sts.amazonaws.com/": map[string]any{"aws_account": "123456789012", "source_region": "us-east-1", "org_id": "o-abc1234567", "principal_tags": map[string]any{"team": "data"}}},
			wrong:    map[string]any{"sub": "arn:aws:iam::123456789012:role/OtherRole"},
			programs: map[string]string{"aws": `test "$1 $2 $3 $4 $6" = "sts get-web-identity-token --audience $ISSUER/account/$ACCOUNT ES384" && echo "$SUBJECT_TOKEN"`}},
		{section: "SPIFFE", typ: "JOSE", algorithm: jose.ES256,
			claims: map[string]any{"iss": "https://oidc.spire.example.com", "sub": "spiffe://example.com/ns/payments/sa/worker"},
			wrong:  map[string]any{"sub": "spiffe://example.com/ns/payments/sa/worker2"},
			programs: map[string]string{"spire-agent": `test "$4 $5" = "-audience $ISSUER/account/$ACCOUNT" &&
				echo "[{\"svids\":[{\"spiffe_id\":\"spiffe://example.com/ns/payments/sa/worker\",\"svid\":\"$SUBJECT_TOKEN\"}]},{\"bundles\":{}}]"`}},
	}
}

// commands gives the indented blocks of a section: the rule, and the request, which
// may be a script within YAML. Blocks that are configuration alone are left out.
func commands(t *testing.T, section string) (rule, request string) {
	t.Helper()
	scripts := blocks(t, "### "+section)
	if len(scripts) != 2 {
		t.Fatalf("section %s has %d blocks of commands, want the rule and the request", section, len(scripts))
	}
	return scripts[0], scripts[1]
}

// blocks gives the commands under a heading.
func blocks(t *testing.T, heading string) []string {
	t.Helper()
	text, err := os.ReadFile("../doc/tokens.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text1, ok := strings.Cut(string(text), "\n"+heading+"\n")
	if !ok {
		t.Fatalf("doc/tokens.md has no section %s", heading)
	}
	text1 = regexp.MustCompile(`(?s)\n##.*`).ReplaceAllString(text1, "")
	var scripts []string
	for _, block := range regexp.MustCompile(`(?m)^    .*(?:\n    .*)*`).FindAllString(text1, -1) {
		if yaml := regexp.MustCompile(`(?s)- (?:run: )?\|\n(.*)`).FindStringSubmatch(block); yaml != nil {
			block = yaml[1]
		}
		if regexp.MustCompile(`sallyport (federation create|token) |curl `).MatchString(block) {
			scripts = append(scripts, block)
		}
	}
	return scripts
}

// TestExamples runs the examples of doc/tokens.md. Of the issuers' keys alone
// those are others', which are uploaded: their URLs are the real ones.
func TestExamples(t *testing.T) {
	for _, program := range []string{"bash", "curl", "jq"} {
		if _, err := exec.LookPath(program); err != nil {
			skip(t, "there is no "+program)
		}
	}
	s := start(t)
	for _, e := range examples() {
		t.Run(e.section, func(t *testing.T) {
			t.Parallel()
			a := s.tenant(t)
			a.run(t, e)
		})
	}
}

func (a *tenant) run(t *testing.T, e example) {
	t.Helper()
	rule, request := commands(t, e.section)
	issuer := issuertest.New(t, e.algorithm)
	if e.typ != "" {
		issuer.Type = e.typ
	}
	dir := t.TempDir()
	shell := a.shell(t, dir, e, issuer)
	if out, err := shell(`sallyport login --address "$ADDRESS" --ca "$CA" --api-key-file owner-key`, ""); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if !strings.Contains(rule, "--jwks") {
		rule = strings.TrimRight(rule, "\n") + " --jwks issuer.jwks"
	}
	out, err := shell(rule, "")
	if err != nil {
		t.Fatalf("the rule: %v\n%s", err, out)
	}
	if strings.Contains(out, "warning:") {
		t.Errorf("the rule is not as safe as it could be: %s", out)
	}
	audience := map[string]any{"aud": a.HTTP + "/account/" + a.account}
	if e.section == "Kubernetes" {
		audience["aud"] = []string{a.HTTP + "/account/" + a.account}
	}
	if out, err = shell(request, issuer.Token(t, merged(e.claims, audience))); err != nil {
		t.Fatalf("the request: %v\n%s", err, out)
	}
	token := regexp.MustCompile(`(?m)^ey\S+$`).FindString(out)
	if who := a.whoIs(t, token); who != a.robot {
		t.Errorf("the token proves %s, want %s; the request answered %s", who, a.robot, out)
	}
	for name, claims := range map[string]map[string]any{"somebody else's": merged(e.claims, audience, e.wrong),
		"for another account": merged(e.claims, map[string]any{"aud": a.HTTP + "/account/other"})} {
		if out, _ := shell(request, issuer.Token(t, claims)); regexp.MustCompile(`(?m)^ey`).MatchString(out) {
			t.Errorf("a token that is %s was taken", name)
		}
	}
	for range 100 { // they are kept in batches
		if out = a.operate(t, "account", "denials", a.account); strings.Contains(out, "ExchangeToken") {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Errorf("the refusals are not among the denials: %s", out)
}

// TestExamplesWithKey runs those that need nothing but a service account's key.
func TestExamplesWithKey(t *testing.T) {
	for _, program := range []string{"bash", "curl", "jq", "openssl"} {
		if _, err := exec.LookPath(program); err != nil {
			skip(t, "there is no "+program)
		}
	}
	a := start(t).tenant(t)
	dir := t.TempDir()
	shell := a.shell(t, dir, example{}, issuertest.New(t, jose.ES256))
	if err := os.WriteFile(filepath.Join(dir, "worker.key"), []byte(a.key+"\n"), 0o600); err != nil { // as key create --out writes it
		t.Fatal(err)
	}
	for heading, want := range map[string]struct {
		blocks int
		bound  bool
	}{"## With an API key": {2, false}, "## Bound to a certificate": {2, true}} {
		scripts := blocks(t, heading)
		if len(scripts) != want.blocks {
			t.Errorf("%s has %d blocks of commands, want %d", heading, len(scripts), want.blocks)
		}
		for _, script := range scripts {
			out, err := shell(script, "")
			if err != nil {
				t.Fatalf("%s%v\n%s", script, err, out)
			}
			token := regexp.MustCompile(`(?m)(?:^|"access_token":")(eyJ[\w.-]+)`).FindStringSubmatch(out)
			if token == nil {
				t.Fatalf("no token by %s%s", script, out)
			}
			payload, err := base64.RawURLEncoding.DecodeString(strings.Split(token[1], ".")[1])
			if err != nil || strings.Contains(string(payload), `"x5t#S256"`) != want.bound {
				t.Errorf("the token is %s, %v; want one that is bound: %t", payload, err, want.bound)
			}
			if who := a.whoIs(t, token[1]); !want.bound && who != a.robot {
				t.Errorf("the token proves %s, want %s", who, a.robot)
			}
		}
	}
}

func merged(all ...map[string]any) map[string]any {
	m := map[string]any{}
	for _, some := range all {
		for k, v := range some {
			m[k] = v
		}
	}
	return m
}

// shell makes a function that runs a script of the documentation, for a workload
// that has a token of the other issuer.
func (a *tenant) shell(t *testing.T, dir string, e example, issuer *issuertest.Issuer) func(script, subject string) (string, error) {
	t.Helper()
	var subject string
	platform := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { // a proxy, for the platform's own addresses
		asked := r.URL.Query().Get("audience")
		switch {
		case asked != a.HTTP+"/account/"+a.account:
			http.Error(w, "audience "+asked, http.StatusBadRequest)
		case r.Host == "metadata.google.internal" && r.Header.Get("Metadata-Flavor") == "Google":
			fmt.Fprint(w, subject)
		case r.Host == "pipelines.example" && r.Header.Get("Authorization") == "Bearer runner":
			json.NewEncoder(w).Encode(map[string]any{"count": 1, "value": subject})
		default:
			http.Error(w, "who asks?", http.StatusForbidden)
		}
	}))
	t.Cleanup(platform.Close)
	bin := filepath.Join(dir, "bin")
	programs := map[string]string{"kubectl": `test "$*" = "get --raw /openid/v1/jwks" && cat issuer.jwks`}
	for name, text := range e.programs {
		programs[name] = text
	}
	files := map[string]string{"owner-key": a.owner, "issuer.jwks": string(issuer.JWKS(t))}
	for name, text := range programs {
		files["bin/"+name] = "#!/bin/sh\n" + text + "\n"
	}
	if err := os.Mkdir(bin, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return func(script, token string) (string, error) {
		subject = token
		if e.file != "" {
			script = strings.ReplaceAll(script, e.file, "subject.jwt")
			if err := os.WriteFile(filepath.Join(dir, "subject.jwt"), []byte(token), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		cmd := exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", script)
		cmd.Dir = dir
		cmd.Env = []string{"PATH=" + bin + ":" + a.bin + ":" + os.Getenv("PATH"), "HOME=" + dir, "XDG_CONFIG_HOME=" + filepath.Join(dir, "config"),
			"ISSUER=" + a.HTTP, "ACCOUNT=" + a.account, "ROBOT=" + a.robot, "ADDRESS=" + a.GRPC, "CA=" + a.CA, "SUBJECT_TOKEN=" + token,
			"http_proxy=" + platform.URL, "no_proxy=127.0.0.1"}
		for name, value := range e.env {
			cmd.Env = append(cmd.Env, name+"="+strings.ReplaceAll(value, "$SUBJECT_TOKEN", token))
		}
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
}
