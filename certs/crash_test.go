package certs_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authn/authntest"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/certs"
	"github.com/sallyport-iam/sallyport/directory"
	"github.com/sallyport-iam/sallyport/internal/page"
	"github.com/sallyport-iam/sallyport/internal/pg"
	"github.com/sallyport-iam/sallyport/internal/pgtest"
	"github.com/sallyport-iam/sallyport/internal/vault"
	"github.com/sallyport-iam/sallyport/journal"
)

// What TestCrashIssuer is told by its parent.
const (
	crashURL     = "SALLYPORT_TEST_CRASH_URL"
	crashKey     = "SALLYPORT_TEST_CRASH_KEY"     // the operator's key
	crashAccount = "SALLYPORT_TEST_CRASH_ACCOUNT" // and the service account, by a comma
	crashLog     = "SALLYPORT_TEST_CRASH_LOG"     // of what is signed
	crashPoint   = "SALLYPORT_TEST_CRASH_POINT"
	crashRound   = "SALLYPORT_TEST_CRASH_ROUND"
)

// crashCA is a CA on a database, with a key that outlives the process.
func crashCA(t *testing.T, pool *pgxpool.Pool, keyFile string) (*certs.Authority, *directory.Directory, *journal.Journal) {
	t.Helper()
	j, err := journal.New(journal.Config{Pool: pool, Resolve: func(_ context.Context, _ pg.Querier, c sallyport.Caller) (sallyport.Caller, error) {
		return c, nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	pages := page.NewSigner([32]byte{1})
	d, err := directory.New(directory.Config{Journal: j, Pages: pages,
		Regions: []directory.Region{{ID: "r", CloudProvider: "aws", CloudRegion: "r", Cell: "r"}}})
	if err != nil {
		t.Fatal(err)
	}
	v, err := vault.Open(keyFile)
	if err != nil {
		t.Fatal(err)
	}
	a, err := certs.New(certs.Config{Journal: j, Pages: pages, Standing: d.Standing, Vault: v, TrustDomain: authntest.TrustDomain})
	if err != nil {
		t.Fatal(err)
	}
	return a, d, j
}

// watched logs the digests of all that is to be signed, and dies at a point.
type watched struct {
	crypto.Signer
	log    *os.File
	before func()
	after  func()
}

func (w watched) Sign(random io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	if _, err := fmt.Fprintf(w.log, "%x\n", digest); err != nil {
		return nil, err
	}
	w.before()
	signature, err := w.Signer.Sign(random, digest, opts)
	w.after()
	return signature, err
}

func die() {
	syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}

// TestCrashIssuer is the process that is killed. It issues and revokes, and
// prints what it is about to do and what it was told is done.
func TestCrashIssuer(t *testing.T) {
	url := os.Getenv(crashURL)
	if url == "" {
		t.Skip("runs as a child of TestKill only")
	}
	pool, err := pg.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	a, _, _ := crashCA(t, pool, os.Getenv(crashKey))
	log, err := os.OpenFile(os.Getenv(crashLog), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	signed := 0
	at := func(point string) func() {
		return func() {
			if point == os.Getenv(crashPoint) && signed == 3 {
				die()
			}
		}
	}
	a.Watch(func(s crypto.Signer) crypto.Signer {
		return watched{s, log, func() { signed++; at("before signing")() }, at("before storing")}
	})
	account, sa, _ := strings.Cut(os.Getenv(crashAccount), ",")
	operator := sallyport.OperatorCaller(sallyport.AccountID(account), "crash")
	for n := 0; ; n++ {
		id := fmt.Sprintf("issue-%s-%d", os.Getenv(crashRound), n)
		csr, _ := authntest.CSR(t)
		fmt.Println("issue", id)
		issued, _, err := a.Issue(t.Context(), operator, journal.Operation{ID: id, Type: "IssueCertificate"}, certs.IssueParams{ServiceAccount: sa, CSR: csr})
		if err != nil {
			t.Fatal(err)
		}
		at("before answering")()
		fmt.Println("issued", id, issued.Fingerprint)
		if n%2 == 0 {
			continue
		}
		if _, _, err := a.Revoke(t.Context(), operator, journal.Operation{Type: "Revoke"}, certs.RevokeParams{CertificateID: issued.ID}); err != nil {
			t.Fatal(err)
		}
		fmt.Println("revoked", id, issued.Fingerprint)
	}
}

// However the service dies: nothing was signed that is not recorded, nothing
// that was answered is lost, and the repetition of what was not answered gives
// one certificate, the same to everybody who asks.
func TestKill(t *testing.T) {
	t.Parallel()
	pool := pgtest.Clone(t)
	keyFile := filepath.Join(t.TempDir(), "key.json")
	if err := vault.Create(keyFile); err != nil {
		t.Fatal(err)
	}
	a, d, j := crashCA(t, pool, keyFile)
	account, sa := crashTenant(t, a, d)
	logFile := filepath.Join(t.TempDir(), "signed")
	if err := os.WriteFile(logFile, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	log, err := os.OpenFile(logFile, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	a.Watch(func(s crypto.Signer) crypto.Signer { return watched{s, log, func() {}, func() {}} })

	begun, issued, revoked := map[string]bool{}, map[string]string{}, map[string]string{}
	for round, point := range []string{"before signing", "before storing", "before answering", "any time", "any time", "any time"} {
		child := exec.Command(os.Args[0], "-test.run=^TestCrashIssuer$")
		child.Env = append(os.Environ(), crashURL+"="+pool.Config().ConnString(), crashKey+"="+keyFile,
			crashAccount+"="+string(account)+","+sa, crashLog+"="+logFile, crashPoint+"="+point, fmt.Sprintf("%s=%d", crashRound, round))
		out, err := child.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for lines.Scan() {
			what, rest, _ := strings.Cut(lines.Text(), " ")
			id, fingerprint, _ := strings.Cut(rest, " ")
			switch what {
			case "issue":
				begun[id] = true
			case "issued":
				issued[id] = fingerprint
			case "revoked":
				revoked[id] = fingerprint
			}
			if point == "any time" && len(issued) > 4*round {
				time.AfterFunc(time.Duration(3+2*round)*time.Millisecond, func() { child.Process.Kill() })
			}
		}
		if err := child.Wait(); err == nil || child.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Fatalf("%s: the child was not killed: %v", point, err)
		}
	}
	if len(issued) < 10 || len(revoked) < 3 || len(begun) < len(issued)+3 {
		t.Fatalf("%d begun, %d issued, %d revoked: the test proves nothing", len(begun), len(issued), len(revoked))
	}
	incomplete := countIncomplete(t, pool)
	if incomplete < 2 {
		t.Errorf("%d certificates are incomplete after kills before signing and before storing", incomplete)
	}

	operator := sallyport.OperatorCaller(account, "crash")
	csr, _ := authntest.CSR(t)
	for id := range begun {
		var answers []string
		for range 2 {
			got, _, err := a.Issue(t.Context(), operator, journal.Operation{ID: id, Type: "IssueCertificate"}, certs.IssueParams{ServiceAccount: sa, CSR: csr})
			if err != nil {
				t.Fatalf("repeating %s: %v", id, err)
			}
			answers = append(answers, got.Fingerprint)
		}
		if answers[0] == "" || answers[0] != answers[1] || issued[id] != "" && issued[id] != answers[0] {
			t.Errorf("%s was answered with %q and, repeated, with %q", id, issued[id], answers)
		}
	}
	list, _, err := a.List(t.Context(), operator, sa, sallyport.Page{Size: 1000})
	if err != nil || len(list) != len(begun) {
		t.Errorf("%d certificates for %d requests, %v", len(list), len(begun), err)
	}
	batch, err := j.Snapshot(t.Context(), account)
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, o := range batch.Objects {
		known[o.ID] = true
	}
	for id, fingerprint := range revoked {
		for _, c := range list {
			if c.Fingerprint == fingerprint && (c.State(time.Now()) != certs.Revoked || !known[object.RevokedSerial(c.Issuer, c.Serial)]) {
				t.Errorf("the revocation of %s was answered and is lost", id)
			}
		}
	}
	if _, err := j.VerifyAccount(t.Context(), account); err != nil {
		t.Error(err)
	}
	allSignedIsRecorded(t, pool, logFile, len(begun))
}

// A certificate that was revoked before it was signed is never signed.
func TestRevokedIncomplete(t *testing.T) {
	t.Parallel()
	pool := pgtest.Clone(t)
	keyFile := filepath.Join(t.TempDir(), "key.json")
	if err := vault.Create(keyFile); err != nil {
		t.Fatal(err)
	}
	a, d, j := crashCA(t, pool, keyFile)
	account, sa := crashTenant(t, a, d)
	operator := sallyport.OperatorCaller(account, "crash")
	broken := errors.New("the key store is away")
	a.Watch(func(s crypto.Signer) crypto.Signer { return failing{s, broken} })
	issue := func(id string) (certs.Issued, error) {
		csr, _ := authntest.CSR(t)
		issued, _, err := a.Issue(t.Context(), operator, journal.Operation{ID: id, Type: "IssueCertificate"}, certs.IssueParams{ServiceAccount: sa, CSR: csr})
		return issued, err
	}
	for _, id := range []string{"revoked", "expired", "replaced", "completed"} {
		if _, err := issue(id); !errors.Is(err, broken) || sallyport.KindOf(err) != "" {
			t.Fatalf("with a broken key store: %v", err)
		}
	}
	target := func(id string) string {
		t.Helper()
		done, err := j.Operation(t.Context(), account, id)
		if err != nil {
			t.Fatal(err)
		}
		if c, err := a.Get(t.Context(), operator, done.Target); err != nil || c.State(time.Now()) != certs.Incomplete || c.Chain != nil {
			t.Errorf("%s: %s, %v", id, c.State(time.Now()), err)
		}
		return done.Target
	}
	if _, _, err := a.Revoke(t.Context(), operator, op("Revoke"), certs.RevokeParams{CertificateID: target("revoked")}); err != nil {
		t.Fatal(err)
	}
	for id, set := range map[string]string{"expired": `not_after = now() - interval '1 minute'`,
		"replaced": `tbs = (select tbs from certificates where id <> $2 limit 1)`} {
		if _, err := pool.Exec(t.Context(), `update certificates set `+set+` where account_id = $1 and id = $2`, account, target(id)); err != nil {
			t.Fatal(err)
		}
	}
	signed := 0
	a.Watch(func(s crypto.Signer) crypto.Signer { return counting{s, &signed} })
	_, err := issue("revoked")
	wantKind(t, "revoked meanwhile", err, sallyport.Conflict, "now it is revoked")
	_, err = issue("expired")
	wantKind(t, "expired meanwhile", err, sallyport.Conflict, "now it is expired")
	_, err = issue("replaced")
	if err == nil || sallyport.KindOf(err) != "" || !strings.Contains(err.Error(), "linting certificate "+target("replaced")+": profile: serial number") {
		t.Errorf("what is not what was decided: got %v", err)
	}
	if signed != 0 {
		t.Errorf("%d were signed", signed)
	}
	if got, err := issue("completed"); err != nil || got.State(time.Now()) != certs.Active || signed != 1 {
		t.Errorf("completed: %s, %v, %d signed", got.State(time.Now()), err, signed)
	}
}

type failing struct {
	crypto.Signer
	err error
}

func (f failing) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) { return nil, f.err }

type counting struct {
	crypto.Signer
	signed *int
}

func (c counting) Sign(random io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	*c.signed++
	return c.Signer.Sign(random, digest, opts)
}

// crashTenant makes the operator's root, an account, its intermediate and a
// service account.
func crashTenant(t *testing.T, a *certs.Authority, d *directory.Directory) (sallyport.AccountID, string) {
	t.Helper()
	if err := d.EnsureSystem(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := a.InitRoot(t.Context(), sallyport.OperatorCaller(sallyport.SystemAccount, "test"), certs.RootParams{Name: "Test"}); err != nil {
		t.Fatal(err)
	}
	account, _, _, err := d.CreateAccount(t.Context(), sallyport.OperatorCaller("", "test"), journal.Operation{Type: "CreateAccount", NewAccount: true},
		directory.AccountParams{Name: "Test", OwnerEmail: "owner@example.com"})
	if err != nil {
		t.Fatal(err)
	}
	operator := sallyport.OperatorCaller(account.ID, "test")
	var robots []string
	for _, name := range []string{"crash", "first"} {
		sa, _, err := d.CreateServiceAccount(t.Context(), operator, op("CreateServiceAccount"),
			directory.ServiceAccountParams{Name: name, Scope: sallyport.ScopeAccount, Access: role(sallyport.RoleRead)})
		if err != nil {
			t.Fatal(err)
		}
		robots = append(robots, sa.ID)
	}
	csr, _ := authntest.CSR(t)
	if _, _, err := a.Issue(t.Context(), operator, op("IssueCertificate"), certs.IssueParams{ServiceAccount: robots[1], CSR: csr}); err != nil {
		t.Fatal(err)
	}
	return account.ID, robots[0]
}

func countIncomplete(t *testing.T, pool *pgxpool.Pool) (n int) {
	t.Helper()
	if err := pool.QueryRow(t.Context(), `select count(*) from certificates where certificate is null`).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

// allSignedIsRecorded compares the digests that issuers' keys were asked to sign
// with what is recorded.
func allSignedIsRecorded(t *testing.T, pool *pgxpool.Pool, logFile string, atLeast int) {
	t.Helper()
	rows, err := pool.Query(t.Context(), `select tbs, certificate from certificates`)
	if err != nil {
		t.Fatal(err)
	}
	recorded := map[string]bool{}
	for rows.Next() {
		var tbs, der []byte
		if err := rows.Scan(&tbs, &der); err != nil {
			t.Fatal(err)
		}
		recorded[fmt.Sprintf("%x", sha256.Sum256(tbs))] = true
		if cert, err := x509.ParseCertificate(der); err != nil || !bytes.Equal(cert.RawTBSCertificate, tbs) {
			t.Errorf("a certificate differs from what was recorded: %v", err)
		}
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	log, err := os.ReadFile(logFile)
	if err != nil {
		t.Fatal(err)
	}
	signed := strings.Fields(string(log))
	if len(signed) < atLeast {
		t.Errorf("%d were signed for %d requests: the test proves nothing", len(signed), atLeast)
	}
	for _, digest := range signed {
		if !recorded[digest] {
			t.Errorf("%s was signed and is not recorded", digest)
		}
	}
}
