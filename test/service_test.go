// Package test runs the programs as they are run, with clients that know nothing
// of them.
package test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sallyport-iam/sallyport/internal/pgserver"
)

// service is a running `sallyportd dev`.
type service struct {
	bin, data string
	GRPC      string `json:"grpc"`
	HTTP      string `json:"http"` // the issuer, too
	CA        string `json:"ca"`
}

// build makes the programs, once.
var build = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "sallyport-bin-")
	if err != nil {
		return "", err
	}
	out, err := exec.Command("go", "build", "-o", dir, "../cmd/...").CombinedOutput()
	if err != nil {
		err = fmt.Errorf("building: %w\n%s", err, out)
	}
	return dir, err
})

func TestMain(m *testing.M) {
	status := m.Run()
	if dir, err := build(); err == nil {
		os.RemoveAll(dir)
	}
	os.Exit(status)
}

// skip says aloud that nothing was tested; where all parts must be there it fails.
func skip(t *testing.T, why any) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatal(why)
	}
	t.Skip("SKIPPED, nothing was tested: ", why)
}

func start(t *testing.T) *service {
	t.Helper()
	_, err := pgserver.Start(t.Context(), pgserver.Config{Dir: filepath.Join(os.DevNull, "none")})
	var missing *pgserver.ProgramsError
	if errors.As(err, &missing) {
		skip(t, missing)
	}
	dir, err := os.MkdirTemp("/tmp", "sallyport-test-") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	s := &service{data: filepath.Join(dir, "data")}
	if s.bin, err = build(); err != nil {
		t.Fatal(err)
	}
	ready := filepath.Join(dir, "ready.json")
	var log bytes.Buffer
	cmd := exec.Command(filepath.Join(s.bin, "sallyportd"), "dev", "--data", s.data, "--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0",
		"--plaintext-listen", "127.0.0.1:0", "--mtls-listen", "127.0.0.1:0", "--ready-file", ready)
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(20 * time.Second):
			cmd.Process.Kill()
			t.Error("sallyportd did not end when it was asked to")
			<-ended
		}
		if t.Failed() {
			t.Logf("sallyportd: %s", log.String())
		}
		os.RemoveAll(dir)
	})
	for range 600 {
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("sallyportd ended: %v", err)
		case <-time.After(100 * time.Millisecond):
		}
		if text, err := os.ReadFile(ready); err == nil {
			if err := json.Unmarshal(text, s); err != nil {
				t.Fatal(err)
			}
			return s
		}
	}
	t.Fatal("sallyportd did not become ready in a minute")
	return nil
}

// operate runs a command of the operator and gives what it printed.
func (s *service) operate(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command(filepath.Join(s.bin, "sallyportd"), append(args, "--data", s.data)...).CombinedOutput()
	if err != nil {
		t.Fatalf("sallyportd %v: %v\n%s", args, err, out)
	}
	return string(out)
}

// tenant is an account with a service account, and a key of each.
type tenant struct {
	*service
	account, owner string // the owner's key
	robot, key     string
}

var printed = regexp.MustCompile(`API key: +(sp_([a-z0-9]+)_\S+)`)

func (s *service) tenant(t *testing.T) *tenant {
	t.Helper()
	found := printed.FindStringSubmatch(s.operate(t, "account", "create", "--name", "Test", "--owner-email", "owner@example.com"))
	if found == nil {
		t.Fatal("no key was printed")
	}
	a := &tenant{service: s, account: found[2], owner: found[1]}
	made := a.call(t, a.owner, http.MethodPost, "/cloud/service-accounts", `{"spec":{"name":"robot","access":{"accountAccess":{"role":"ROLE_READ"}}}}`)
	a.robot, _ = made["serviceAccountId"].(string)
	made = a.call(t, a.owner, http.MethodPost, "/cloud/api-keys", fmt.Sprintf(`{"spec":{"ownerId":%q,"ownerType":"OWNER_TYPE_SERVICE_ACCOUNT","displayName":"robot","expiryTime":%q}}`,
		a.robot, time.Now().AddDate(0, 0, 7).UTC().Format(time.RFC3339)))
	if a.key, _ = made["token"].(string); a.key == "" || a.robot == "" {
		t.Fatalf("no key: %v", made)
	}
	return a
}

// call is a request to the API with a credential. It gives the answer, with the
// error's text under "message".
func (s *service) call(t *testing.T, bearer, method, path, body string) map[string]any {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, s.HTTP+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+bearer)
	r.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	var answer map[string]any
	if err := json.Unmarshal(text, &answer); err != nil {
		t.Fatalf("%s %s: %s: %v", method, path, text, err)
	}
	return answer
}

// whoIs is the service account that a token proves, or the reason that it proves nobody.
func (s *service) whoIs(t *testing.T, token string) string {
	t.Helper()
	answer := s.call(t, token, http.MethodGet, "/cloud/current-identity", "")
	if account, ok := answer["serviceAccount"].(map[string]any); ok {
		return fmt.Sprint(account["id"])
	}
	return fmt.Sprint(answer["message"])
}
