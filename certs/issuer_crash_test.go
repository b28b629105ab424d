package certs_test

import (
	"crypto"
	"crypto/sha256"
	"crypto/sha512"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authn/authntest"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/certs"
	"github.com/sallyport-iam/sallyport/internal/pg"
	"github.com/sallyport-iam/sallyport/internal/pgtest"
	"github.com/sallyport-iam/sallyport/internal/vault"
	"github.com/sallyport-iam/sallyport/journal"
)

// TestCrashMaker is the process that is killed: it makes a root, with it an
// intermediate, and by that a certificate, and dies at one of their signatures.
func TestCrashMaker(t *testing.T) {
	url := os.Getenv(crashURL)
	if url == "" {
		t.Skip("runs as a child of TestKillOfCAs only")
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
	at := func(when string) {
		if fmt.Sprintf("%s %d", when, signed) == os.Getenv(crashPoint) {
			die()
		}
	}
	a.Watch(func(s crypto.Signer) crypto.Signer {
		return watched{s, log, func() { signed++; at("before") }, func() { at("after") }}
	})
	if _, err := a.RotateRoot(t.Context(), operator, certs.RootParams{Name: "Crash"}); err != nil {
		t.Fatal(err)
	}
	account, sa, _ := strings.Cut(os.Getenv(crashAccount), ",")
	csr, _ := authntest.CSR(t)
	_, _, err = a.Issue(t.Context(), sallyport.OperatorCaller(sallyport.AccountID(account), "crash"),
		journal.Operation{Type: "IssueCertificate"}, certs.IssueParams{ServiceAccount: sa, CSR: csr})
	t.Fatalf("it was not killed: %v", err)
}

// However the service dies while it makes roots and intermediates: nothing was
// signed that is not recorded, and everybody can go on.
func TestKillOfCAs(t *testing.T) {
	t.Parallel()
	pool := pgtest.Clone(t)
	keyFile := filepath.Join(t.TempDir(), "key")
	if err := vault.Create(keyFile); err != nil {
		t.Fatal(err)
	}
	a, d, j := crashCA(t, pool, keyFile)
	account, sa := crashTenant(t, a, d)
	logFile := write(t, "signed", nil)
	for _, point := range []string{"before 1", "after 1", "before 2", "after 2"} {
		child := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestCrashMaker$")
		child.Env = append(os.Environ(), crashURL+"="+pool.Config().ConnString(), crashKey+"="+keyFile,
			crashAccount+"="+string(account)+","+sa, crashLog+"="+logFile, crashPoint+"="+point)
		if out, err := child.CombinedOutput(); err == nil || child.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
			t.Fatalf("%s: the child was not killed: %v\n%s", point, err, out)
		}
		signedCAsAreRecorded(t, pool, logFile)
		csr, _ := authntest.CSR(t)
		issued, _, err := a.Issue(t.Context(), sallyport.OperatorCaller(account, "test"), op("IssueCertificate"), certs.IssueParams{ServiceAccount: sa, CSR: csr})
		if err != nil {
			t.Fatalf("%s: %v", point, err)
		}
		if err := verify(issued.Chain, roots(t, a), issued.Created, t); err != nil {
			t.Errorf("%s: %v", point, err)
		}
		batch, err := j.Snapshot(t.Context(), account)
		if err != nil {
			t.Fatal(err)
		}
		replicated, rebuilt := map[string]bool{}, map[string]bool{}
		for _, o := range batch.Objects {
			if o.Kind == object.KindIssuer {
				replicated[o.ID] = true
			}
		}
		objects, err := a.Objects(t.Context(), pool, account)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range objects {
			if o.Kind == object.KindIssuer {
				rebuilt[o.ID] = true
			}
		}
		if diff := cmp.Diff(rebuilt, replicated); diff != "" || !replicated[issued.Issuer] {
			t.Errorf("%s: the tables and the replicated issuers differ:\n%s", point, diff)
		}
	}
	var unsigned int
	if err := pool.QueryRow(t.Context(), `select count(*) from issuers where chain is null`).Scan(&unsigned); err != nil || unsigned != 4 {
		t.Errorf("%d CAs are recorded and not known to be signed, %v; want one of each kill", unsigned, err)
	}
}

// signedCAsAreRecorded compares what CAs' keys were asked to sign with the
// records, of which there are never fewer.
func signedCAsAreRecorded(t *testing.T, pool *pgxpool.Pool, logFile string) {
	t.Helper()
	recorded := map[string]bool{}
	rows, err := pool.Query(t.Context(), `select tbs from issuers union all select tbs from certificates`)
	if err != nil {
		t.Fatal(err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowTo[[]byte])
	if err != nil {
		t.Fatal(err)
	}
	for _, tbs := range list {
		recorded[fmt.Sprintf("%x", sha256.Sum256(tbs))] = true
		recorded[fmt.Sprintf("%x", sha512.Sum384(tbs))] = true
	}
	log, err := os.ReadFile(logFile)
	if err != nil {
		t.Fatal(err)
	}
	signed := strings.Fields(string(log))
	if len(signed) == 0 {
		t.Error("nothing was signed: the test proves nothing")
	}
	for _, digest := range signed {
		if !recorded[digest] {
			t.Errorf("%s was signed and is not recorded", digest)
		}
	}
}
