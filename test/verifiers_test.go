package test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/sallyport-iam/sallyport/test/issuertest"
)

// node checks that the verifiers are installed.
func node(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("node"); err != nil {
		skip(t, "there is no node")
	}
	if _, err := os.Stat(filepath.Join("verifiers", "node_modules")); err != nil {
		skip(t, "the verifiers are not installed; run: make verifiers")
	}
}

// resourceServer is a running verify.mjs.
type resourceServer struct {
	in  io.Writer
	out *bufio.Scanner
}

func (s *service) resourceServer(t *testing.T) resourceServer {
	t.Helper()
	cmd := exec.Command("node", "verifiers/verify.mjs", fmt.Sprintf(`{"issuer":%q,"audience":%[1]q}`, s.HTTP))
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
	return resourceServer{in, bufio.NewScanner(out)}
}

// verify gives the kid of a good token.
func (r resourceServer) verify(t *testing.T, token string) (kid, problem string) {
	t.Helper()
	if _, err := fmt.Fprintln(r.in, token); err != nil || !r.out.Scan() {
		t.Fatalf("no answer: %v, %v", err, r.out.Err())
	}
	if kid, ok := strings.CutPrefix(r.out.Text(), "good "); ok {
		return kid, ""
	}
	return "", r.out.Text()
}

// flows gets tokens by all grants.
func (a *tenant) flows(t *testing.T, subject string) map[string]string {
	t.Helper()
	given, err := json.Marshal(map[string]string{"issuer": a.HTTP, "account": a.account, "serviceAccount": a.robot, "key": a.key, "subjectToken": subject})
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), "node", "verifiers/flows.mjs", string(given))
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("openid-client: %v\n%s", err, stderr.Bytes())
	}
	var tokens map[string]string
	if err := json.Unmarshal(out, &tokens); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return tokens
}

// What openid-client gets by every grant verifies with jose, also at one that has
// not asked for our keys since before they were rotated; and is refused after its
// key was revoked.
func TestVerifiers(t *testing.T) {
	node(t)
	s := start(t)
	a := s.tenant(t)
	other := issuertest.New(t, jose.RS256)
	rule := a.call(t, a.owner, http.MethodPost, "/sallyport/v1/federation-rules",
		fmt.Sprintf(`{"spec":{"serviceAccountId":%q,"issuer":%q,"conditions":[{"claim":"sub","equals":["job-1"]}]}}`, a.robot, other.URL))
	if rule["federationRule"] == nil {
		t.Fatal(rule)
	}
	subject := other.Token(t, map[string]any{"sub": "job-1", "aud": s.HTTP + "/account/" + a.account})
	old := s.resourceServer(t)
	kids := map[string]map[string]string{} // kid -> grant -> token
	for range 2 {
		before := len(kids)
		for grant, token := range a.flows(t, subject) {
			kid, problem := old.verify(t, token)
			if problem != "" {
				t.Fatalf("%s: %s", grant, problem)
			}
			if kids[kid] == nil {
				kids[kid] = map[string]string{}
			}
			kids[kid][grant] = token
			if who := s.whoIs(t, token); who != a.robot {
				t.Errorf("%s: %s, want %s", grant, who, a.robot)
			}
		}
		if len(kids) != before+1 {
			t.Errorf("tokens of %d keys, want those of one more", len(kids))
		}
		if before == 0 {
			s.operate(t, "token-key", "rotate")
		}
	}
	fresh := s.resourceServer(t)
	for kid, tokens := range kids { // those of before the rotation, too
		for grant, token := range tokens {
			if _, problem := fresh.verify(t, token); problem != "" || s.whoIs(t, token) != a.robot {
				t.Errorf("%s after the rotation: %s", grant, problem)
			}
			if got, _ := fresh.verify(t, token[:len(token)-6]+"AAAAAA"); got != "" {
				t.Errorf("%s: a forged signature is good", grant)
			}
		}
		s.operate(t, "token-key", "revoke", kid)
		for grant, token := range tokens {
			if who := s.whoIs(t, token); !strings.Contains(who, "revoked") {
				t.Errorf("%s after its key was revoked: %s", grant, who)
			}
		}
	}
	for range 100 { // what is published may be a second old
		published := fmt.Sprint(s.call(t, "", http.MethodGet, "/.well-known/jwks.json", ""))
		if !slices.ContainsFunc(slices.Collect(maps.Keys(kids)), func(kid string) bool { return strings.Contains(published, kid) }) {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	last := s.resourceServer(t)
	for _, tokens := range kids {
		for grant, token := range tokens {
			if kid, _ := last.verify(t, token); kid != "" {
				t.Errorf("%s: its key was revoked, and is still published", grant)
			}
		}
	}
	for grant, token := range a.flows(t, subject) {
		if _, problem := last.verify(t, token); problem != "" {
			t.Errorf("%s after the revocations: %s", grant, problem)
		}
	}
}
