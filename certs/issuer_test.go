package certs_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authn/authntest"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/authz/replica"
	"github.com/sallyport-iam/sallyport/certs"
	"github.com/sallyport-iam/sallyport/credential"
	"github.com/sallyport-iam/sallyport/directory"
	"github.com/sallyport-iam/sallyport/internal/page"
	"github.com/sallyport-iam/sallyport/internal/pg"
	"github.com/sallyport-iam/sallyport/internal/pgtest"
	"github.com/sallyport-iam/sallyport/internal/vault"
	"github.com/sallyport-iam/sallyport/journal"
)

const trustDomain = "test.sallyport.invalid"

// house is a World with a managed CA, on a database of its own: the operator's
// roots are everybody's.
type house struct {
	*authntest.World
	pool *pgxpool.Pool
	ca   *certs.Authority
	key  string // the operator's key file
}

func newHouse(t testing.TB) *house {
	t.Helper()
	pool := pgtest.Clone(t)
	h := &house{World: authntest.NewOn(t, pool), pool: pool, key: filepath.Join(t.TempDir(), "operator-key")}
	if err := h.Directory.EnsureSystem(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := vault.Create(h.key); err != nil {
		t.Fatal(err)
	}
	h.ca = h.authority(t, h.key, trustDomain)
	return h
}

// authority is another copy of the service, with an operator's key.
func (h *house) authority(t testing.TB, key, trustDomain string) *certs.Authority {
	t.Helper()
	v, err := vault.Open(key)
	if err != nil {
		t.Fatal(err)
	}
	a, err := certs.New(certs.Config{Journal: h.Journal, Pages: page.NewSigner([32]byte{1}), Standing: h.Directory.Standing,
		Vault: v, TrustDomain: trustDomain, URL: "http://pki.example.com", Now: h.Now,
		Logger: slog.New(slog.NewTextHandler(h.Log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

var operator = sallyport.OperatorCaller(sallyport.SystemAccount, "test")

func (h *house) root(t testing.TB) certs.Root {
	t.Helper()
	root, err := h.ca.InitRoot(t.Context(), operator, certs.RootParams{Name: "Example"})
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// tenant is an account with a service account, and a namespace that takes
// certificates.
type tenant struct {
	*authntest.Tenant
	robot string
}

func (h *house) tenant(t testing.TB) tenant {
	t.Helper()
	account := h.Tenant(t)
	_, _, err := h.Directory.CreateNamespace(t.Context(), account.Operator, journal.Operation{Type: "CreateNamespace"},
		directory.NamespaceParams{Name: "payments", Region: authntest.Region, RetentionDays: 7, MTLSAuth: true})
	if err != nil {
		t.Fatal(err)
	}
	return tenant{account, account.ServiceAccount(t, sallyport.ScopeAccount, directory.Access{Role: sallyport.RoleAdmin}).ID}
}

func request(t testing.TB) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return requestFor(t, key)
}

func requestFor(t testing.TB, key crypto.Signer) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}

// leaf issues a certificate by an authority.
func (a tenant) leaf(t testing.TB, by *certs.Authority) certs.Issued {
	t.Helper()
	issued, err := a.tryLeaf(t, by)
	if err != nil {
		t.Fatal(err)
	}
	return issued
}

func (a tenant) tryLeaf(t testing.TB, by *certs.Authority) (certs.Issued, error) {
	t.Helper()
	issued, _, err := by.Issue(t.Context(), a.Operator, journal.Operation{Type: "IssueCertificate"}, certs.IssueParams{ServiceAccount: a.robot, CSR: request(t)})
	return issued, err
}

func parse(t testing.TB, text []byte) []*x509.Certificate {
	t.Helper()
	var list []*x509.Certificate
	for {
		block, rest := pem.Decode(text)
		if block == nil {
			return list
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		list, text = append(list, cert), rest
	}
}

// verify checks a chain as anybody outside does.
func verify(chain, roots []byte, at time.Time, t testing.TB) error {
	t.Helper()
	certificates := parse(t, chain)
	options := x509.VerifyOptions{Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), CurrentTime: at,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	options.Roots.AppendCertsFromPEM(roots)
	for _, c := range certificates[1:] {
		options.Intermediates.AddCert(c)
	}
	_, err := certificates[0].Verify(options)
	return err
}

// objects are the account's, by kind, as authorizers have them; the tables must agree.
func (h *house) objects(t testing.TB, account sallyport.AccountID, kind object.Kind) map[string][]byte {
	t.Helper()
	replicated, rebuilt := map[string][]byte{}, map[string][]byte{}
	err := pg.Snapshot(t.Context(), h.pool, func(tx pgx.Tx) error {
		batch, err := journal.ReadSnapshot(t.Context(), tx, account)
		if err != nil {
			return err
		}
		for _, o := range batch.Objects {
			if o.Kind == kind {
				replicated[o.ID] = o.Data
			}
		}
		list, err := h.ca.Objects(t.Context(), tx, account)
		for _, o := range list {
			if o.Kind == kind {
				rebuilt[o.ID] = o.Data
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(rebuilt, replicated); diff != "" {
		t.Errorf("the tables and the replicated objects differ (-tables +objects):\n%s", diff)
	}
	return replicated
}

// accepts reports whether an authorizer that follows the account lets the
// chain's leaf start a workflow, as the account's robot.
func (h *house) accepts(t testing.TB, a tenant, chain []byte) bool {
	t.Helper()
	d := h.decide(t, a, chain)
	if d.Allow && d.Principal.ID != a.robot {
		t.Errorf("the certificate is taken for %v", d.Principal)
	}
	if !d.Allow {
		t.Log(d.Reason)
	}
	return d.Allow
}

// decide is what an authorizer that follows the account decides.
func (h *house) decide(t testing.TB, a tenant, chain []byte) replica.Decision {
	t.Helper()
	h.objects(t, a.ID, object.KindIssuer)
	copied, err := replica.Open(replica.Config{MaxStaleness: 10 * 365 * 24 * time.Hour}) // the clock of the test runs ahead
	if err != nil {
		t.Fatal(err)
	}
	batch, err := h.Journal.Snapshot(t.Context(), a.ID)
	if err == nil {
		err = copied.Load(replica.Batch(batch))
	}
	if err != nil {
		t.Fatal(err)
	}
	presented := credential.NewPresented(parse(t, chain))
	return copied.Decide(replica.Credential{Kind: replica.Certificate, Account: a.ID, Certificate: presented},
		"/temporal.api.workflowservice.v1.WorkflowService/StartWorkflowExecution", "payments."+string(a.ID), h.Now())
}

func roots(t testing.TB, ca *certs.Authority) []byte {
	t.Helper()
	answer := get(t, ca.PKI(), "/pki/roots.pem", nil)
	if answer.Code != 200 {
		t.Fatalf("roots.pem: %d", answer.Code)
	}
	return answer.Body.Bytes()
}

func TestIntermediateProfile(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	root := parse(t, h.root(t).Chain)[0]
	a := h.tenant(t)
	chain := parse(t, a.leaf(t, h.ca).Chain)
	if len(chain) != 2 {
		t.Fatalf("a chain of %d certificates", len(chain))
	}
	ca := chain[1]
	type profile struct {
		Subject, Issuer                          string
		IsCA, ZeroBelow, URICritical             bool
		Usage                                    x509.KeyUsage
		Extended                                 []x509.ExtKeyUsage
		URIs                                     []string
		CRLs, Issuers                            []string
		Signature                                x509.SignatureAlgorithm
		Days                                     int
		SerialLong, SerialPositive, WithinIssuer bool
	}
	got := profile{ca.Subject.String(), ca.Issuer.String(), ca.IsCA && ca.BasicConstraintsValid, ca.MaxPathLenZero, ca.PermittedDNSDomainsCritical,
		ca.KeyUsage, ca.ExtKeyUsage, ca.PermittedURIDomains, ca.CRLDistributionPoints, ca.IssuingCertificateURL, ca.SignatureAlgorithm,
		int(ca.NotAfter.Sub(ca.NotBefore).Hours() / 24), ca.SerialNumber.BitLen() > 64, ca.SerialNumber.Sign() > 0,
		!ca.NotBefore.Before(root.NotBefore) && !ca.NotAfter.After(root.NotAfter)}
	want := profile{"CN=Account " + string(a.ID) + " CA " + credential.IssuerID(ca)[:8] + ",O=" + string(a.ID), root.Subject.String(), true, true, true,
		x509.KeyUsageCertSign | x509.KeyUsageCRLSign, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, []string{trustDomain},
		[]string{"http://pki.example.com/pki/crl/" + credential.IssuerID(root) + ".crl"},
		[]string{"http://pki.example.com/pki/issuer/" + credential.IssuerID(root) + ".crt"}, x509.ECDSAWithSHA384, 365, true, true, true}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the intermediate (-want +got):\n%s", diff)
	}
	if root.Subject.String() != "CN=Example Root CA "+credential.IssuerID(root)[:8]+",O=Example" || !root.IsCA || root.MaxPathLen != -1 {
		t.Errorf("the root is %s, path length %d", root.Subject, root.MaxPathLen)
	}
}

func TestNoRootNoCertificates(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	a := h.tenant(t)
	if _, err := a.tryLeaf(t, h.ca); !errors.Is(err, sallyport.Unavailable) || !strings.Contains(err.Error(), "sallyportd ca init") {
		t.Errorf("without a root: %v, want Unavailable and what to do", err)
	}
	if err := h.ca.CheckIssuers(t.Context()); err != nil {
		t.Fatal(err)
	}
	if text := strings.Join(h.ca.Problems(t.Context()), "\n"); !strings.Contains(text, "ca init") || !strings.Contains(text, "for 1 accounts") || strings.Contains(text, string(a.ID)) {
		t.Errorf("problems: %s", text)
	}
	h.root(t)
	h.Advance(2 * time.Minute) // the failure is remembered for one
	a.leaf(t, h.ca)
	if err := h.ca.CheckIssuers(t.Context()); err != nil {
		t.Fatal(err)
	}
	if list := h.ca.Problems(t.Context()); len(list) != 0 {
		t.Errorf("problems: %q", list)
	}
}

// What an account's intermediate signed works in that account alone.
func TestEachAccountHasItsOwn(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.root(t)
	a, b := h.tenant(t), h.tenant(t)
	first, other := a.leaf(t, h.ca), b.leaf(t, h.ca)
	if first.Issuer == other.Issuer {
		t.Error("two accounts have one intermediate")
	}
	if again := a.leaf(t, h.ca); again.Issuer != first.Issuer {
		t.Error("each certificate has an intermediate of its own")
	}
	if !h.accepts(t, a, first.Chain) || h.accepts(t, b, first.Chain) || h.accepts(t, a, other.Chain) {
		t.Error("a certificate is not taken in its account, or is in another's")
	}
	if err := verify(first.Chain, roots(t, h.ca), h.Now(), t); err != nil {
		t.Errorf("under the operator's root: %v", err)
	}
}

// Many who need the account's first intermediate at once get certificates of
// few, and one of them stays.
func TestManyNeedAnIntermediateAtOnce(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.root(t)
	a := h.tenant(t)
	copies := []*certs.Authority{h.ca, h.authority(t, h.key, trustDomain), h.authority(t, h.key, trustDomain)}
	issued := make([]certs.Issued, 12)
	var wait sync.WaitGroup
	for i := range issued {
		wait.Go(func() {
			var err error
			if issued[i], err = a.tryLeaf(t, copies[i%len(copies)]); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	for _, c := range issued {
		if c.Chain == nil || !h.accepts(t, a, c.Chain) {
			t.Errorf("certificate %s is not taken", c.ID)
		}
	}
	if n := len(h.objects(t, a.ID, object.KindIssuer)); n > len(copies) {
		t.Errorf("%d intermediates", n)
	}
	current := 0
	list, _, err := h.ca.Issuers(t.Context(), a.Operator)
	for _, i := range list {
		if i.Current {
			current++
		}
	}
	if err != nil || current != 1 {
		t.Errorf("%d of %d intermediates are current, %v", current, len(list), err)
	}
}

// An intermediate is replaced before certificates would be cut short by it, the
// old one's certificates stay good until they end, and its row goes later.
func TestIntermediateRollover(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.root(t)
	a := h.tenant(t)
	old := a.leaf(t, h.ca)
	h.Advance(260 * 24 * time.Hour)
	last, _, err := h.ca.Issue(t.Context(), a.Operator, journal.Operation{Type: "IssueCertificate"},
		certs.IssueParams{ServiceAccount: a.robot, CSR: request(t), Lifetime: 90 * 24 * time.Hour})
	if err != nil || last.Issuer != old.Issuer {
		t.Fatalf("after 260 days: issuer %s, %v; want the old one", last.Issuer, err)
	}
	h.Advance(10 * 24 * time.Hour)
	next := a.leaf(t, h.ca)
	if next.Issuer == old.Issuer {
		t.Error("after 270 days the old intermediate still issues")
	}
	if !h.accepts(t, a, last.Chain) || !h.accepts(t, a, next.Chain) {
		t.Error("a certificate of the old or of the new intermediate is not taken")
	}
	h.Advance(150 * 24 * time.Hour) // 420
	if err := h.ca.ReapIssuers(t.Context()); err != nil {
		t.Fatal(err)
	}
	if list := h.objects(t, a.ID, object.KindIssuer); len(list) != 1 || list[next.Issuer] == nil {
		t.Errorf("%d intermediates after the old one's end", len(list))
	}
	if _, err := h.ca.CRL(t.Context(), old.Issuer); !errors.Is(err, sallyport.NotFound) {
		t.Errorf("the CRL of an issuer that is gone: %v", err)
	}
}

// What is wrong with one account's intermediate is another's no business.
func TestABrokenIntermediateIssuesNothing(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.root(t)
	a, b := h.tenant(t), h.tenant(t)
	old, other := a.leaf(t, h.ca), b.leaf(t, h.ca)
	h.exec(t, `update issuers set sealed_key = (select sealed_key from issuers where account_id = $2) where account_id = $1`, a.ID, b.ID)
	if err := h.ca.CheckIssuers(t.Context()); err != nil {
		t.Fatal(err)
	}
	if text := strings.Join(h.ca.Problems(t.Context()), "\n"); !strings.Contains(text, "1 accounts do not match their keys") || strings.Contains(text, string(a.ID)) {
		t.Errorf("problems: %q", text)
	}
	if list, _, err := h.ca.Issuers(t.Context(), a.Operator); err != nil || len(list) != 1 || list[0].Problem == "" || list[0].Current {
		t.Errorf("issuers: %+v, %v", list, err)
	}
	if b.leaf(t, h.ca).Issuer != other.Issuer {
		t.Error("the other account has another intermediate now")
	}
	next := a.leaf(t, h.ca)
	if next.Issuer == old.Issuer || !h.accepts(t, a, old.Chain) || !h.accepts(t, a, next.Chain) {
		t.Error("the broken intermediate is not replaced, or what it issued is not taken")
	}
}

// A broken intermediate is told of for as long as its certificates are good, also
// after it was replaced, and its CRL that cannot be signed any more is too.
func TestABrokenIntermediateIsNotForgotten(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.root(t)
	a := h.tenant(t)
	registry := prometheus.NewRegistry()
	ca := h.measured(t, registry)
	old := a.leaf(t, ca)
	if _, err := ca.CRL(t.Context(), old.Issuer); err != nil {
		t.Fatal(err)
	}
	h.exec(t, `update issuers set sealed_key = 'damaged' where account_id = $1`, a.ID)
	if next := a.leaf(t, ca); next.Issuer == old.Issuer { // nobody has looked at issuers before
		t.Fatal("the broken intermediate is not replaced")
	}
	if log := h.Log.String(); !strings.Contains(log, "an intermediate issues nothing") || !strings.Contains(log, old.Issuer) {
		t.Error("nothing is logged of the broken intermediate that was replaced")
	}
	look := func(when, states string, says ...string) {
		t.Helper()
		if err := errors.Join(ca.CheckIssuers(t.Context()), ca.RenewCRLs(t.Context())); err != nil {
			t.Log(err)
		}
		text := strings.Join(ca.Problems(t.Context()), "\n")
		for _, s := range says {
			if !strings.Contains(text, s) {
				t.Errorf("%s: problems %q, want %q", when, text, s)
			}
		}
		if len(says) == 0 && text != "" {
			t.Errorf("%s: problems %q", when, text)
		}
		if strings.Contains(text, string(a.ID)) {
			t.Errorf("%s: the account is named in %q", when, text)
		}
		metrics, err := registry.Gather()
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, family := range metrics {
			for _, m := range family.GetMetric() {
				switch family.GetName() {
				case "sallyport_issuers":
					got = append(got, fmt.Sprintf("%s %v", m.GetLabel()[0].GetValue(), m.GetGauge().GetValue()))
				case "sallyport_crls_stale":
					got = append(got, fmt.Sprintf("stale CRLs %v", m.GetGauge().GetValue()))
				}
			}
		}
		if s := strings.Join(got, ", "); s != states {
			t.Errorf("%s: issuers are %s; want %s", when, s, states)
		}
	}
	const broken = "intermediates of 1 accounts do not match their keys"
	look("at once", "stale CRLs 0, broken 1, expired 0, expiring 0, good 1", broken)
	h.Advance(13 * time.Hour)
	look("when the CRL is due", "stale CRLs 1, broken 1, expired 0, expiring 0, good 1", broken, "the CRLs of 1 issuers cannot be signed anew")
	h.Advance(13 * time.Hour)
	if n := strings.Count(h.Log.String(), "an intermediate issues nothing"); n != 2 { // by who replaced it, and when first looked at
		t.Errorf("the log has it %d times", n)
	}
	look("when the CRL has ended", "stale CRLs 1, broken 1, expired 0, expiring 0, good 1", broken, "the CRLs of 1 issuers cannot be signed anew")
	revoke(t, a.Tenant, certs.RevokeParams{Issuer: old.Issuer})
	look("revoked", "stale CRLs 1, broken 0, expired 0, expiring 0, good 1", "the CRLs of 1 issuers cannot be signed anew")
	h.Advance(365 * 24 * time.Hour)
	look("expired", "stale CRLs 0, broken 0, expired 1, expiring 0, good 0")
}

// measured is another copy of the service, with metrics.
func (h *house) measured(t testing.TB, registry *prometheus.Registry) *certs.Authority {
	t.Helper()
	v, err := vault.Open(h.key)
	if err != nil {
		t.Fatal(err)
	}
	a, err := certs.New(certs.Config{Journal: h.Journal, Pages: page.NewSigner([32]byte{1}), Standing: h.Directory.Standing,
		Vault: v, TrustDomain: trustDomain, URL: "http://pki.example.com", Now: h.Now,
		Logger: slog.New(slog.NewTextHandler(h.Log, nil)), Metrics: registry})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// With another operator's key nothing is signed, and nothing is lost.
func TestAnotherOperatorsKey(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.root(t)
	a := h.tenant(t)
	old := a.leaf(t, h.ca)
	wrong := filepath.Join(t.TempDir(), "key")
	if err := vault.Create(wrong); err != nil {
		t.Fatal(err)
	}
	other := h.authority(t, wrong, trustDomain)
	if err := h.ca.CheckKey(t.Context()); err != nil {
		t.Error(err)
	}
	if err := other.CheckKey(t.Context()); !errors.Is(err, sallyport.Conflict) {
		t.Errorf("the key is not found to be another: %v", err)
	}
	if _, err := a.tryLeaf(t, other); !errors.Is(err, sallyport.Unavailable) {
		t.Errorf("with another key: %v, want Unavailable", err)
	}
	if err := other.CheckIssuers(t.Context()); err != nil {
		t.Fatal(err)
	}
	if text := strings.Join(other.Problems(t.Context()), "\n"); !strings.Contains(text, "the root's key does not open") {
		t.Errorf("problems: %q", text)
	}
	if a.leaf(t, h.ca).Issuer != old.Issuer {
		t.Error("the attempt with another key has cost the account its intermediate")
	}
	if err := vault.Rotate(h.key); err != nil {
		t.Fatal(err)
	}
	if a.leaf(t, h.authority(t, h.key, trustDomain)).Issuer != old.Issuer {
		t.Error("after a rotation of the operator's key there is another intermediate")
	}
}

func TestARevokedIntermediateIsReplaced(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	root := h.root(t)
	a := h.tenant(t)
	old := a.leaf(t, h.ca)
	before, err := h.ca.CRL(t.Context(), root.ID)
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = h.ca.Revoke(t.Context(), a.Operator, journal.Operation{Type: "RevokeIssuer"}, certs.RevokeParams{Issuer: old.Issuer, Reason: "a drill"})
	if err != nil {
		t.Fatal(err)
	}
	if d := h.decide(t, a, old.Chain); d.Allow || !strings.Contains(d.Reason, "the CA of the client certificate was revoked") {
		t.Errorf("with a certificate of the revoked intermediate: %t, %s", d.Allow, d.Reason)
	}
	next := a.leaf(t, h.ca)
	if next.Issuer == old.Issuer || !h.accepts(t, a, next.Chain) {
		t.Error("the revoked intermediate is not replaced")
	}
	after, err := h.ca.CRL(t.Context(), root.ID)
	if err != nil {
		t.Fatal(err)
	}
	list := parseCRL(t, after.DER, parse(t, root.Chain)[0])
	if want := parse(t, old.Chain)[1].SerialNumber; after.Number <= before.Number || len(list.RevokedCertificateEntries) != 1 || list.RevokedCertificateEntries[0].SerialNumber.Cmp(want) != 0 {
		t.Errorf("the root's CRL %d after %d names %v", after.Number, before.Number, list.RevokedCertificateEntries)
	}
}

// Another trust domain needs other intermediates; the old ones' certificates go on.
func TestAnotherTrustDomain(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.root(t)
	a := h.tenant(t)
	old := a.leaf(t, h.ca)
	next := a.leaf(t, h.authority(t, h.key, "new.sallyport.invalid"))
	if next.Issuer == old.Issuer || !strings.HasPrefix(next.SPIFFEID, "spiffe://new.sallyport.invalid/") {
		t.Errorf("the same intermediate for %s", next.SPIFFEID)
	}
	if !h.accepts(t, a, old.Chain) || !h.accepts(t, a, next.Chain) {
		t.Error("a certificate of the old or of the new trust domain is not taken")
	}
}

// The operator's account has roots and no intermediates: nothing is issued there
// by a root itself.
func TestRootsIssueNoCertificates(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	root := h.root(t)
	authorizer, _, err := h.Directory.CreateAuthorizer(t.Context(), operator, journal.Operation{Type: "CreateAuthorizer"}, "one", authntest.Region)
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = h.ca.Issue(t.Context(), operator, journal.Operation{Type: "IssueCertificate"}, certs.IssueParams{ServiceAccount: authorizer.ID, CSR: request(t)})
	if !errors.Is(err, sallyport.Conflict) {
		t.Errorf("a certificate of an authorizer: %v, want Conflict", err)
	}
	if list, _, err := h.ca.Issuers(t.Context(), operator); err != nil || len(list) != 0 {
		t.Errorf("the operator's account has the issuers %v, %v", list, err)
	}
	_, _, err = h.ca.Revoke(t.Context(), operator, journal.Operation{Type: "RevokeIssuer"}, certs.RevokeParams{Issuer: root.ID})
	wantKind(t, "revoking a root", err, sallyport.Conflict, "sallyport cert issuers")
	h.tenant(t).leaf(t, h.ca)
}

func (h *house) exec(t testing.TB, sql string, args ...any) {
	t.Helper()
	if _, err := h.pool.Exec(t.Context(), sql, args...); err != nil {
		t.Fatal(err)
	}
}

// openssl runs it, and is skipped where it is not installed.
func openssl(t testing.TB, args ...string) (string, error) {
	t.Helper()
	path, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("openssl is not installed")
	}
	out, err := exec.CommandContext(t.Context(), path, args...).CombinedOutput()
	return string(out), err
}

func write(t testing.TB, name string, data []byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
