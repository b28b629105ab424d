package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/sallyport-iam/sallyport/authz/replica"
	"github.com/sallyport-iam/sallyport/credential"
	"github.com/sallyport-iam/sallyport/internal/pgserver"
	"github.com/sallyport-iam/sallyport/test/issuertest"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"sallyport": main, "later": later})
}

// later DURATION ARG... is sallyport with a clock that is ahead.
func later() {
	ahead, err := time.ParseDuration(os.Args[1])
	if err == nil {
		err = run(context.Background(), os.Args[2:], os.Getenv, func() time.Time { return time.Now().Add(ahead) }, os.Stdin, os.Stdout, os.Stderr)
	}
	os.Exit(end(err, os.Stderr))
}

// TestScripts runs the command against a service of its own, which one
// authorizer follows. Every script has an account of its own; its owner's key
// is in the file owner-key.
func TestScripts(t *testing.T) {
	service := startService(t)
	copied, unfollow := follow(t, service)
	other := issuertest.New(t, jose.RS256)
	params := testscript.Params{
		Dir:                 "testdata",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup:               service.account,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"save":     save,
			"keyid":    keyID,
			"mode":     mode,
			"tamper":   tamper,
			"customer": customer,
			"waitfor":  waitFor,
			"call":     func(ts *testscript.TestScript, not bool, args []string) { call(ts, copied, not, args) },
			"bearer":   func(ts *testscript.TestScript, not bool, args []string) { bearerCall(ts, copied, not, args) },
			"issuer": func(ts *testscript.TestScript, _ bool, args []string) {
				ts.Check(os.WriteFile(ts.MkAbs(args[0]+"-jwks.json"), other.JWKS(t), 0o600))
			},
			"token": func(ts *testscript.TestScript, _ bool, args []string) {
				var claims map[string]any
				ts.Check(json.Unmarshal([]byte(args[1]), &claims))
				ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(other.Token(t, claims)+"\n"), 0o600))
			},
			"unfollow": func(*testscript.TestScript, bool, []string) { unfollow() },
		},
	}
	t.Run("following", func(t *testing.T) { testscript.Run(t, params) }) // in parallel; returns when all are done
	params.Dir = "testdata/unfollowed"
	t.Run("unfollowed", func(t *testing.T) { testscript.Run(t, params) })
}

// save NAME [PATTERN] keeps in a variable what the last command printed,
// without the space around it, or what the pattern's group matches of it.
func save(ts *testscript.TestScript, _ bool, args []string) {
	text := strings.TrimSpace(ts.ReadFile("stdout"))
	if len(args) > 1 {
		found := regexp.MustCompile(args[1]).FindStringSubmatch(text)
		if found == nil {
			ts.Fatalf("%s is not in the output", args[1])
		}
		text = found[1]
	}
	ts.Setenv(args[0], text)
}

// keyid NAME FILE keeps the id of the key in the file in a variable.
func keyID(ts *testscript.TestScript, _ bool, args []string) {
	key, _, err := credential.ParseAPIKey(strings.TrimSpace(ts.ReadFile(args[1])))
	ts.Check(err)
	ts.Setenv(args[0], key.ID)
}

// mode BITS FILE compares a file's mode.
func mode(ts *testscript.TestScript, _ bool, args []string) {
	info, err := os.Stat(ts.MkAbs(args[1]))
	ts.Check(err)
	if got := fmt.Sprintf("%04o", info.Mode().Perm()); got != args[0] {
		ts.Fatalf("%s has mode %s, want %s", args[1], got, args[0])
	}
}

// tamper FILE OLD NEW replaces the first match of a regular expression.
func tamper(ts *testscript.TestScript, _ bool, args []string) {
	text := ts.ReadFile(args[0])
	at := regexp.MustCompile(args[1]).FindStringIndex(text)
	if at == nil {
		ts.Fatalf("%s is not in %s", args[1], args[0])
	}
	text = text[:at[0]] + args[2] + text[at[1]:]
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(text), 0o600))
}

// waitfor PATTERN COMMAND ARG... runs the command until its output has a line
// that matches.
func waitFor(ts *testscript.TestScript, _ bool, args []string) {
	pattern := regexp.MustCompile("(?m)" + args[0])
	for range 150 {
		if err := ts.Exec(args[1], args[2:]...); err == nil && pattern.MatchString(ts.ReadFile("stdout")) {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	ts.Fatalf("%s does not come: %s", args[0], ts.ReadFile("stdout"))
}

// customer NAME makes a CA, NAME-ca.pem, and a client certificate of it with the
// common name NAME, NAME.pem, with the key NAME-key.pem.
func customer(ts *testscript.TestScript, _ bool, args []string) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	ts.Check(err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]+"-key.pem"), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), 0o600))
	begin := time.Now().Add(-time.Hour)
	issuer := &x509.Certificate{SerialNumber: big.NewInt(begin.UnixNano()), Subject: pkix.Name{CommonName: args[0] + " CA"}, NotBefore: begin,
		NotAfter: begin.AddDate(1, 0, 0), BasicConstraintsValid: true, IsCA: true, KeyUsage: x509.KeyUsageCertSign}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(begin.UnixNano() + 1), Subject: pkix.Name{CommonName: args[0]}, NotBefore: begin, NotAfter: begin.AddDate(0, 1, 0)}
	for file, template := range map[string]*x509.Certificate{args[0] + "-ca.pem": issuer, args[0] + ".pem": leaf} {
		der, err := x509.CreateCertificate(rand.Reader, template, issuer, key.Public(), key)
		ts.Check(err)
		ts.Check(os.WriteFile(ts.MkAbs(file), chainPEM([][]byte{der}), 0o600))
	}
}

// call FILE NAMESPACE is a worker's call with the certificate, at the authorizer
// that follows. It waits for what the authorizer does not know yet.
func call(ts *testscript.TestScript, copied *replica.Replica, not bool, args []string) {
	certs, err := certificatesOf([]byte(ts.ReadFile(args[0])))
	ts.Check(err)
	presented := credential.NewPresented(certs)
	by := replica.Credential{Kind: replica.Certificate, Account: presented.Account, Certificate: presented}
	decided(ts, copied, not, "PollWorkflowTaskQueue", args[1], func() replica.Credential { return by })
}

// bearerCall FILE METHOD [NAMESPACE] is call with an access token.
func bearerCall(ts *testscript.TestScript, copied *replica.Replica, not bool, args []string) {
	authorization := "Bearer " + strings.TrimSpace(ts.ReadFile(args[0]))
	decided(ts, copied, not, args[1], strings.Join(args[2:], ""), func() replica.Credential {
		return copied.Credential(authorization, nil, netip.MustParseAddr("127.0.0.1"))
	})
}

func decided(ts *testscript.TestScript, copied *replica.Replica, not bool, name, namespace string, by func() replica.Credential) {
	method, err := fullMethod(name)
	ts.Check(err)
	var d replica.Decision
	for range 100 {
		if d = copied.Decide(by(), method, namespace, time.Now()); d.Allow != not {
			copied.MarkUsed(d, time.Now())
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	ts.Fatalf("the authorizer says %v: %s", d.Allow, d.Reason)
}

// service is a running `sallyportd dev`.
type service struct {
	program, data string
	GRPC          string `json:"grpc"`
	HTTP          string `json:"http"`
	Plaintext     string `json:"plaintext"`
	CA            string `json:"ca"`
	Authorizer    string `json:"authorizer_key_file"`
}

func startService(t *testing.T) service {
	t.Helper()
	_, err := pgserver.Start(t.Context(), pgserver.Config{Dir: filepath.Join(os.DevNull, "none")})
	var missing *pgserver.ProgramsError
	if errors.As(err, &missing) {
		if os.Getenv("CI") != "" {
			t.Fatal(missing)
		}
		t.Skip("SKIPPED, nothing was tested: ", missing)
	}
	dir := t.TempDir()
	s := service{program: filepath.Join(dir, "sallyportd"), data: filepath.Join(dir, "data")}
	if out, err := exec.Command("go", "build", "-o", s.program, "../sallyportd").CombinedOutput(); err != nil {
		t.Fatalf("building sallyportd: %v\n%s", err, out)
	}
	ready := filepath.Join(dir, "ready.json")
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(s.program, "dev", "--data", s.data, "--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0", "--mtls-listen", "127.0.0.1:0",
		"--plaintext-listen", "127.0.0.1:0", "--ready-file", ready)
	cmd.Stdout, cmd.Stderr = log, log
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
		}
		if text, err := os.ReadFile(log.Name()); t.Failed() {
			t.Logf("sallyportd: %s %v", bytes.TrimSpace(text), err)
		}
	})
	for range 600 {
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("sallyportd ended: %v", err)
		case <-time.After(100 * time.Millisecond):
		}
		if text, err := os.ReadFile(ready); err == nil {
			if err := json.Unmarshal(text, &s); err != nil {
				t.Fatal(err)
			}
			return s
		}
	}
	t.Fatal("sallyportd did not become ready in a minute")
	return s
}

// follow is an authorizer of the service's only cell, until the test ends or
// unfollow is called.
func follow(t *testing.T, s service) (copied *replica.Replica, unfollow func()) {
	t.Helper()
	key, err := os.ReadFile(s.Authorizer)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := os.ReadFile(s.CA)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	copied, err = replica.Open(replica.Config{Address: s.GRPC, TLS: &tls.Config{RootCAs: roots}, Token: credential.Secret(strings.TrimSpace(string(key))),
		Instance: "frontend-1", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- copied.Run(ctx) }()
	unfollow = sync.OnceFunc(func() {
		cancel()
		if err := errors.Join(<-done, copied.Close()); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(unfollow)
	for range 200 {
		if copied.Ready() {
			return copied, unfollow
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatal("the authorizer has no copy after ten seconds")
	return nil, nil
}

var printedKey = regexp.MustCompile(`API key: +(sp_\S+)`)

// account makes an account with its owner's key for one script.
func (s service) account(e *testscript.Env) error {
	cmd := exec.Command(s.program, "account", "create", "--data", s.data, "--name", "Test", "--owner-email", "owner@example.com")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("making an account: %w\n%s", err, out)
	}
	found := printedKey.FindSubmatch(out)
	if found == nil {
		return fmt.Errorf("no key in %s", out)
	}
	key := string(found[1])
	parsed, _, err := credential.ParseAPIKey(key)
	if err != nil {
		return err
	}
	config := filepath.Join(e.WorkDir, "config")
	for name, value := range map[string]string{"ADDRESS": s.GRPC, "PLAINTEXT": s.Plaintext, "CA": s.CA, "ISSUER": s.HTTP, "ACCOUNT": string(parsed.Account),
		"OWNER_KEY_ID": parsed.ID, "SALLYPORT_API_KEY": "", "HOME": e.WorkDir, "XDG_CONFIG_HOME": config, "LOGINS": filepath.Join(config, "sallyport")} {
		e.Setenv(name, value)
	}
	return os.WriteFile(filepath.Join(e.WorkDir, "owner-key"), []byte(key+"\n"), 0o600)
}
