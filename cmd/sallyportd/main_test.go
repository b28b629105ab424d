package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.temporal.io/cloud-sdk/api/cloudservice/v1"
	"go.temporal.io/cloud-sdk/cloudclient"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/directory"
	"github.com/sallyport-iam/sallyport/internal/pg"
	"github.com/sallyport-iam/sallyport/internal/pgtest"
	"github.com/sallyport-iam/sallyport/internal/serve"
	"github.com/sallyport-iam/sallyport/internal/vault"
	"github.com/sallyport-iam/sallyport/journal"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// command runs one command line and gives what it wrote.
func command(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	err := run(t.Context(), args, &out, &out)
	return out.String(), err
}

// operatorKey makes a file with an operator's key.
func operatorKey(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "operator-key")
	if out, err := command(t, "operator-key", "create", file); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return file
}

func openVault(t *testing.T, file string) *vault.Vault {
	t.Helper()
	v, err := vault.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// on gives a command its database.
func on(url, key string, args ...string) []string {
	return append(args, "--database-url="+url, "--operator-key="+key)
}

func TestOperatorsCommands(t *testing.T) {
	t.Parallel()
	url, key := pgtest.URL(t), operatorKey(t)
	command := func(t *testing.T, args ...string) (string, error) { return command(t, on(url, key, args...)...) }
	out, err := command(t, "account", "create", "--name=Acme", "--owner-email=ada@acme.example", "--id=acme2")
	if err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`(?m)^API key:  sp_acme2_\S+$`).MatchString(out) {
		t.Errorf("account create printed\n%s", out)
	}
	if _, err := command(t, "account", "create", "--name=Acme", "--owner-email=ada@acme.example", "--id=acme2"); !errors.Is(err, sallyport.AlreadyExists) {
		t.Errorf("the same account again: %v, want AlreadyExists", err)
	}
	if _, err := command(t, "account", "create", "--name=Acme", "--owner-email=nobody"); !errors.Is(err, sallyport.Invalid) {
		t.Errorf("an owner without an address: %v, want Invalid", err)
	}
	keyFile := filepath.Join(t.TempDir(), "key")
	if _, err := command(t, "authorizer", "create", "--name=a", "--cell=c", "--out="+keyFile); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(keyFile)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the authorizer's key: %v, %v; want a file for its owner alone", info, err)
	}
	if _, err := command(t, "authorizer", "create", "--name=b", "--cell=c", "--out="+filepath.Join(t.TempDir(), "nowhere", "key")); err == nil {
		t.Error("a key was made for a file that cannot be written")
	}
	if out, err := command(t, "authorizer", "list"); err != nil || !strings.Contains(out, "  a\n") || strings.Contains(out, "  b\n") || strings.Count(out, " active ") != 1 {
		t.Errorf("authorizer list: %v\n%s", err, out)
	}
	if out, err := command(t, "authorizer", "rotate", "a", "--overlap=1h"); err != nil || !strings.HasPrefix(out, "sp_00000_") {
		t.Errorf("authorizer rotate: %v", err)
	}
	if out, err := command(t, "authorizer", "list"); err != nil || strings.Count(out, " active ") != 1 || strings.Count(out, " retiring ") != 1 {
		t.Errorf("authorizer list after rotation: %v\n%s", err, out)
	}
	if _, err := command(t, "authorizer", "delete", "a"); err != nil {
		t.Errorf("authorizer delete: %v", err)
	}
	if _, err := command(t, "authorizer", "delete", "a"); !errors.Is(err, sallyport.NotFound) {
		t.Errorf("authorizer delete again: %v, want NotFound", err)
	}
	if out, err := command(t, "account", "owner-key", "acme2"); err != nil || !regexp.MustCompile(`(?m)^API key:  sp_acme2_\S+$`).MatchString(out) {
		t.Errorf("account owner-key: %q, %v", out, err)
	}
	if _, err := command(t, "account", "owner-key", "acme2", "--user=u_nobody"); !errors.Is(err, sallyport.NotFound) {
		t.Errorf("owner-key of nobody: %v, want NotFound", err)
	}
	if _, err := command(t, "account", "denials", "acme2"); err != nil {
		t.Errorf("account denials: %v", err)
	}
	owner := regexp.MustCompile(`(?m)^owner:    (\S+)$`).FindStringSubmatch(out)[1]
	if _, err := command(t, "account", "erase", "acme2", owner); !errors.Is(err, sallyport.Conflict) {
		t.Errorf("erasing a user that is there: %v, want Conflict", err)
	}
	for _, status := range []string{"suspended", "active"} {
		if out, err := command(t, "account", "status", "acme2", status); err != nil || !strings.Contains(out, status) {
			t.Errorf("account status %s: %q, %v", status, out, err)
		}
	}
	if out, err := command(t, "account", "new-epoch", "all", "--reason=a drill"); err != nil || strings.Count(out, ": epoch ") != 2 {
		t.Errorf("new-epoch: %q, %v; want the account and the system's", out, err)
	}
	if out, err := command(t, "verify"); err != nil || !strings.Contains(out, "2 accounts verified") {
		t.Errorf("verify: %q, %v", out, err)
	}
	if _, err := command(t, "verify", "--account=other"); !errors.Is(err, sallyport.NotFound) {
		t.Errorf("verify of an unknown account: %v, want NotFound", err)
	}
}

// Whoever edits the tables behind the journal's back is found out.
func TestVerifyComparesTablesWithObjects(t *testing.T) {
	t.Parallel()
	url, key := pgtest.URL(t), operatorKey(t)
	if _, err := command(t, on(url, key, "account", "create", "--name=Acme", "--owner-email=ada@acme.example")...); err != nil {
		t.Fatal(err)
	}
	pool, err := pg.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	if _, err := pool.Exec(t.Context(), `update api_keys set disabled = true`); err != nil {
		t.Fatal(err)
	}
	out, err := command(t, on(url, key, "verify")...)
	if !errors.Is(err, sallyport.Conflict) || !strings.Contains(out, "key") {
		t.Errorf("verify after an edit: %q, %v", out, err)
	}
}

func TestUnsafeOrIncompleteIsRefused(t *testing.T) {
	t.Parallel()
	url := pgtest.URL(t)
	pool, err := pg.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	if _, err := pool.Exec(t.Context(), `delete from goose_db_version where version_id > 1`); err != nil {
		t.Fatal(err)
	}
	certificate, err := serve.DevCA(filepath.Join(t.TempDir(), "ca"), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	regions := filepath.Join(t.TempDir(), "regions.json")
	if err := os.WriteFile(regions, []byte(`[{"id":"aws-us-east-1","provider":"aws","region":"us-east-1","cell":"c"}]`), 0o600); err != nil {
		t.Fatal(err)
	}
	setting := filepath.Join(t.TempDir(), "config.json")
	if err := os.WriteFile(setting, []byte(`{"listn": "127.0.0.1:0"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	serving := []string{"serve", "--database-url=" + url, "--tls-cert=" + certificate.CertFile, "--tls-key=" + certificate.KeyFile,
		"--listen=127.0.0.1:0", "--http-listen=127.0.0.1:0", "--trust-domain=example.com", "--operator-key=" + operatorKey(t), "--regions=" + regions}
	with := func(more ...string) []string { return append(slices.Clone(serving), more...) }
	everybodys := operatorKey(t)
	if err := os.Chmod(everybodys, 0o644); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		args []string
		want string
	}{
		"dev for others":               {[]string{"dev", "--data=" + t.TempDir(), "--listen=0.0.0.0:7443"}, "loopback only"},
		"dev on a port alone":          {[]string{"dev", "--data=" + t.TempDir(), "--plaintext-listen=:7444"}, "loopback only"},
		"serve without TLS":            {[]string{"serve", "--database-url=" + url}, "--tls-cert"},
		"serve without regions":        {with("--regions="), "--regions"},
		"serve on an older schema":     {serving, "sallyportd migrate"},
		"serve with a bad proxy":       {with("--trusted-proxy=everybody"), "not a network"},
		"serve without a key":          {[]string{"serve", "--database-url=" + url, "--tls-cert=x", "--tls-key=x"}, "--operator-key"},
		"serve with an unknown key":    {with("--operator-key=" + filepath.Join(t.TempDir(), "none")), "operator-key create"},
		"serve with everybody's key":   {with("--operator-key=" + everybodys), "chmod 600"},
		"serve for no trust domain":    {with("--trust-domain=Example.com"), "lower case"},
		"serve for an address":         {with("--trust-domain=192.0.2.1"), "host name"},
		"serve with a bad PKI":         {with("--pki-url=pki.example.com"), "--pki-url"},
		"serve tokens without TLS":     {with("--issuer-url=http://id.example.com"), "--issuer-url"},
		"dev with tokens for others":   {[]string{"dev", "--data=" + t.TempDir(), "--mtls-listen=0.0.0.0:7446"}, "loopback only"},
		"serve with mails of nobody":   {with("--smtp=localhost:25"), "--mail-from"},
		"serve with mails in the open": {with("--smtp=smtp.example.com:25", "--smtp-tls=none", "--mail-from=a@example.com"), "--smtp"},
		"a command without the key":    {[]string{"verify", "--database-url=" + url}, "--operator-key"},
		"an unknown setting":           {[]string{"serve", "--config=" + setting}, `"listn"`},
		"an unknown flag":              {[]string{"serve", "--insecure"}, "unknown flag"},
		"a command without a database": {[]string{"verify", "--data=" + t.TempDir()}, "--database-url"},
	} {
		if _, err := command(t, c.args...); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// dev runs on what is there, with the same account and key after a restart.
func TestDevServesAndRestarts(t *testing.T) {
	t.Parallel()
	pgtest.Server(t) // skips where there is no PostgreSQL
	data, err := os.MkdirTemp("/tmp", "sallyport-dev-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(data) })
	var first readiness
	var roots string
	for start := range 3 {
		if start == 2 { // as after a kill between the two files
			if err := os.Remove(filepath.Join(data, "authorizer-key")); err != nil {
				t.Fatal(err)
			}
		}
		ready := filepath.Join(t.TempDir(), "ready.json")
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		var out bytes.Buffer
		go func() {
			ended <- run(ctx, []string{"dev", "--data=" + data, "--listen=127.0.0.1:0", "--http-listen=127.0.0.1:0",
				"--plaintext-listen=127.0.0.1:0", "--metrics-listen=127.0.0.1:0", "--mtls-listen=127.0.0.1:0", "--log-level=error", "--ready-file=" + ready}, &out, &out)
		}()
		now := awaitReady(t, ready, ended)
		if first.Account == "" {
			first = now
		}
		if now.Account != first.Account || now.Key != first.Key {
			t.Errorf("after a restart: account %s, then %s", first.Account, now.Account)
		}
		whoAmI(t, now)
		root := fetched(t, now.HTTP+"/pki/roots.pem")
		if roots == "" {
			roots = root
		}
		if !strings.Contains(root, "BEGIN CERTIFICATE") || root != roots {
			t.Errorf("the root, and after a restart:\n%s%s", roots, root)
		}
		if text := fetched(t, now.HTTP+"/readyz"); text != "ready\n" {
			t.Errorf("readyz: %s", text)
		}
		if endpoint := discovered(t, now); endpoint != now.HTTP+"/oauth/token" {
			t.Errorf("the token endpoint is %s", endpoint)
		}
		if text := fetched(t, now.HTTP+"/mails"); !strings.Contains(text, "<html") {
			t.Errorf("mails: %s", text)
		}
		if _, err := os.Stat(now.Authorizer); err != nil {
			t.Errorf("the authorizer's key: %v", err)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		if strings.Contains(out.String(), first.Key) {
			t.Error("the owner's key was printed; it belongs into its file")
		}
	}
}

func fetched(t *testing.T, url string) string {
	t.Helper()
	text, err := production{}.get(t, url)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func awaitReady(t *testing.T, file string, ended <-chan error) (ready readiness) {
	t.Helper()
	for {
		if text, err := os.ReadFile(file); err == nil {
			if err := json.Unmarshal(text, &ready); err != nil {
				t.Fatal(err)
			}
			return ready
		}
		select {
		case err := <-ended:
			t.Fatalf("dev ended: %v", err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func whoAmI(t *testing.T, on readiness) {
	t.Helper()
	pem, err := os.ReadFile(on.CA)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	client, err := cloudclient.New(cloudclient.Options{HostPort: on.GRPC, APIKey: on.Key, TLSConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	me, err := client.CloudService().GetCurrentIdentity(t.Context(), &cloudservice.GetCurrentIdentityRequest{})
	if err != nil || me.GetUser().GetSpec().GetEmail() != "owner@example.com" {
		t.Errorf("GetCurrentIdentity: %v, %v", me, err)
	}
}

// verify is right while others write, and a deleted person can be erased.
func TestVerifyWhileOthersWrite(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	url, key := pgtest.URL(t), operatorKey(t)
	pool, err := pg.Open(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	d, err := newDomain(ctx, pool, domainConfig{vault: openVault(t, key), trustDomain: devTrustDomain, log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	made, err := d.createAccount(ctx, "", "Acme", "ada@acme.example")
	if err != nil {
		t.Fatal(err)
	}
	operator := sallyport.OperatorCaller(made.account, "test")
	var gone string
	change := func(i int) error {
		user, _, err := d.directory.CreateUser(ctx, operator, journal.Operation{Type: "CreateUser"},
			directory.UserParams{Email: fmt.Sprintf("u%d@acme.example", i), Access: directory.Access{Role: sallyport.RoleRead}})
		if err != nil {
			return err
		}
		gone = user.ID
		_, err = d.directory.DeleteUser(ctx, operator, journal.Operation{Type: "DeleteUser"}, user.ID, 0)
		return err
	}
	stop, stopped := make(chan struct{}), make(chan error, 1)
	go func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				stopped <- nil
				return
			default:
			}
			if err := change(i); err != nil {
				stopped <- err
				return
			}
		}
	}()
	for range 15 {
		if out, err := command(t, on(url, key, "verify")...); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	}
	close(stop)
	if err := <-stopped; err != nil {
		t.Fatal(err)
	}
	if _, err := command(t, on(url, key, "account", "erase", string(made.account), gone)...); err != nil {
		t.Error(err)
	}
	if _, err := command(t, on(url, key, "verify")...); err != nil {
		t.Errorf("after an erasure: %v", err)
	}
}
