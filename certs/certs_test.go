package certs_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	zcrypto "github.com/zmap/zcrypto/x509"
	"github.com/zmap/zlint/v3"
	"github.com/zmap/zlint/v3/lint"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authn/authntest"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/certs"
	"github.com/sallyport-iam/sallyport/credential"
	"github.com/sallyport-iam/sallyport/directory"
	"github.com/sallyport-iam/sallyport/internal/pgtest"
	"github.com/sallyport-iam/sallyport/journal"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func op(kind string) journal.Operation { return journal.Operation{Type: kind} }

// wantKind fails the test unless err is of the kind and says the words.
func wantKind(t *testing.T, what string, err error, kind sallyport.Kind, says string) {
	t.Helper()
	if sallyport.KindOf(err) != kind || kind != "" && !strings.Contains(err.Error(), says) || kind == "" && err != nil {
		t.Errorf("%s: got %v; want %q with %q", what, err, kind, says)
	}
}

func role(r sallyport.AccountRole) directory.Access { return directory.Access{Role: r} }

// newWorld is a service with a CA, on a database of its own.
func newWorld(t testing.TB) *authntest.World {
	t.Helper()
	w := authntest.NewOn(t, pgtest.Clone(t))
	w.CA(t)
	return w
}

func robot(t testing.TB, a *authntest.Tenant) sallyport.Principal {
	t.Helper()
	return a.ServiceAccount(t, sallyport.ScopeAccount, role(sallyport.RoleRead))
}

// csrOf is a request of a key of its own.
func csrOf(t testing.TB, key crypto.Signer) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}

func issue(t testing.TB, a *authntest.Tenant, p certs.IssueParams) certs.Issued {
	t.Helper()
	if p.CSR == nil {
		p.CSR, _ = authntest.CSR(t)
	}
	issued, _, err := a.Certs.Issue(t.Context(), a.Owner, op("IssueCertificate"), p)
	if err != nil {
		t.Fatal(err)
	}
	return issued
}

// renew lets a certificate renew itself.
func renew(t testing.TB, a *authntest.Tenant, issued certs.Issued, p certs.RenewParams) (certs.Issued, error) {
	t.Helper()
	caller, err := a.CallWith(t, issued)
	if err != nil {
		return certs.Issued{}, err
	}
	if p.CSR == nil {
		p.CSR, _ = authntest.CSR(t)
	}
	next, _, err := a.Certs.Renew(t.Context(), caller, op("RenewCertificate"), p)
	return next, err
}

// sameAsJournal fails the test unless the account's replicated certificates,
// issuers and revocations are what the tables say. It gives them by id.
func sameAsJournal(t *testing.T, a *authntest.Tenant) map[string]object.Object {
	t.Helper()
	batch, err := a.Journal.Snapshot(t.Context(), a.ID)
	if err != nil {
		t.Fatal(err)
	}
	var replicated []object.Object
	byID := map[string]object.Object{}
	for _, o := range batch.Objects {
		if slices.Contains([]object.Kind{object.KindCertificate, object.KindIssuer, object.KindRevocation}, o.Kind) {
			replicated = append(replicated, o)
			byID[o.ID] = o
		}
	}
	rebuilt, err := a.Certs.Objects(t.Context(), a.Journal.Pool(), a.ID)
	if err != nil {
		t.Fatal(err)
	}
	sorted := cmp.Transformer("byID", func(list []object.Object) map[string]object.Object {
		m := map[string]object.Object{}
		for _, o := range list {
			m[string(o.Kind)+o.ID] = o
		}
		return m
	})
	if diff := cmp.Diff(rebuilt, replicated, sorted); diff != "" {
		t.Errorf("the objects differ from the tables (-table +journal):\n%s", diff)
	}
	return byID
}

func TestIssue(t *testing.T) {
	t.Parallel()
	a := newWorld(t).Tenant(t)
	sa := robot(t, a)
	csr, key := authntest.CSR(t)
	issued, done, err := a.Certs.Issue(t.Context(), a.Owner, op("IssueCertificate"), certs.IssueParams{ServiceAccount: sa.ID, CSR: csr})
	if err != nil {
		t.Fatal(err)
	}
	chain := authntest.Chain(t, issued.Chain)
	if len(chain) != 2 || !chain[1].IsCA {
		t.Fatalf("the chain has %d certificates; want the leaf and its issuer", len(chain))
	}
	leaf, issuer := chain[0], chain[1]
	want := certs.Certificate{
		Account: a.ID, ID: done.Target, ServiceAccount: sa.ID, Issuer: credential.IssuerID(issuer), Serial: credential.SerialText(leaf.SerialNumber),
		Fingerprint: credential.Fingerprint(leaf), SPIFFEID: "spiffe://" + authntest.TrustDomain + "/account/" + string(a.ID) + "/service-account/" + sa.ID,
		NotBefore: done.At.Add(-5 * time.Minute).Truncate(time.Second), NotAfter: done.At.Add(24 * time.Hour).Truncate(time.Second),
		Created: done.At, CreatedBy: a.Owner.Principal.ID, First: done.Target, RenewableUntil: done.At.Add(90 * 24 * time.Hour),
		DER: leaf.Raw, Revision: done.Head.Revision,
	}
	if want.NotBefore.Before(issuer.NotBefore) {
		want.NotBefore = issuer.NotBefore
	}
	got, err := a.Certs.Get(t.Context(), a.Owner, issued.ID)
	if err != nil {
		t.Fatal(err)
	}
	for what, c := range map[string]certs.Certificate{"issued": issued.Certificate, "read again": got.Certificate} {
		if diff := cmp.Diff(want, c); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	if diff := cmp.Diff(string(issued.Chain), string(got.Chain)); diff != "" {
		t.Errorf("the chain changed:\n%s", diff)
	}
	if state := got.State(a.Now()); state != certs.Active {
		t.Errorf("the state is %s", state)
	}
	if !key.PublicKey.Equal(leaf.PublicKey) {
		t.Error("the key is not the request's")
	}
	entry, err := a.Journal.Operation(t.Context(), a.ID, done.OperationID)
	if err != nil || entry.Type != "IssueCertificate" || entry.Target != issued.ID {
		t.Errorf("the operation is %+v, %v", entry, err)
	}
	objects := sameAsJournal(t, a)
	if objects[want.Issuer].Data == nil || objects[object.CertificateID(want.Issuer, want.Serial)].Data == nil || len(objects) != 2 {
		t.Errorf("authorizers know %v; want the issuer and the certificate", objects)
	}
}

// The profile, byte for byte but for keys, names and times.
func TestProfile(t *testing.T) {
	t.Parallel()
	a := newWorld(t).Tenant(t)
	sa := robot(t, a)
	leaf := authntest.Chain(t, issue(t, a, certs.IssueParams{ServiceAccount: sa.ID}).Chain)
	var got []string
	for _, e := range leaf[0].Extensions {
		value := fmt.Sprintf("%x", e.Value)
		for name, id := range map[string][]byte{"<subject key>": leaf[0].SubjectKeyId, "<issuer key>": leaf[1].SubjectKeyId,
			"<issuer>": []byte(credential.IssuerID(leaf[1])), "<sa>": []byte(sa.ID), "<account>": []byte(a.ID)} {
			value = strings.ReplaceAll(value, fmt.Sprintf("%x", id), name)
		}
		got = append(got, fmt.Sprintf("%s critical=%v %s", e.Id, e.Critical, value))
	}
	text := func(s string) string { return fmt.Sprintf("%x", s) }
	want := []string{
		"2.5.29.15 critical=true 03020780",
		"2.5.29.37 critical=false 300a06082b06010505070302",
		"2.5.29.19 critical=true 3000",
		"2.5.29.14 critical=false 0414<subject key>",
		"2.5.29.35 critical=false 30168014<issuer key>",
		"1.3.6.1.5.5.7.1.1 critical=false 3079307706082b06010505073002866b" + text("http://pki.test.example.com/pki/issuer/") + "<issuer>" + text(".crt"),
		"2.5.29.17 critical=false 304c864a" + text("spiffe://test.example.com/account/") + "<account>" + text("/service-account/") + "<sa>",
		"2.5.29.31 critical=false 306f306da06ba0698667" + text("http://pki.test.example.com/pki/crl/") + "<issuer>" + text(".crl"),
	}
	// The lengths in what has ids in it follow from these.
	lengths := cmp.Transformer("withoutLengths", func(s string) string {
		head, tail, found := strings.Cut(s, text("http"))
		if !found {
			head, tail, found = strings.Cut(s, text("spiffe"))
		}
		if !found {
			return s
		}
		id, _, _ := strings.Cut(head, "=")
		return id + tail
	})
	if diff := cmp.Diff(want, got, lengths); diff != "" {
		t.Errorf("extensions (-want +got):\n%s", diff)
	}
	if name := leaf[0].Subject.String(); name != "CN="+sa.ID+",O="+string(a.ID) {
		t.Errorf("the subject is %s", name)
	}
	if n := leaf[0].SerialNumber; n.Sign() <= 0 || n.BitLen() > 128 || n.BitLen() < 90 {
		t.Errorf("the serial number is %x", n)
	}
	if leaf[0].Version != 3 || leaf[0].SignatureAlgorithm != x509.ECDSAWithSHA256 {
		t.Errorf("version %d, signed with %s", leaf[0].Version, leaf[0].SignatureAlgorithm)
	}
}

// Of the request nothing but the key gets into the certificate, and zlint, all
// of it, has nothing to say.
func TestKeysAndLints(t *testing.T) {
	t.Parallel()
	a := newWorld(t).Tenant(t)
	sa := robot(t, a)
	p256, p384 := ecdsaKey(t, elliptic.P256()), ecdsaKey(t, elliptic.P384())
	for name, key := range map[string]crypto.Signer{"P-256": p256, "P-384": p384, "RSA 2048": rsaKey(t, 2048), "RSA 3072": rsaKey(t, 3072)} {
		chain := authntest.Chain(t, issue(t, a, certs.IssueParams{ServiceAccount: sa.ID, CSR: csrOf(t, key)}).Chain)
		roots, err := a.Certs.Roots(t.Context(), a.Journal.Pool())
		if err != nil || len(roots) != 1 {
			t.Fatalf("roots: %d, %v", len(roots), err)
		}
		for i, cert := range append(chain, roots...) {
			parsed, err := zcrypto.ParseCertificate(cert.Raw)
			if err != nil {
				t.Fatal(err)
			}
			for id, result := range zlint.LintCertificate(parsed).Results {
				if result.Status >= lint.Warn && id != "e_ca_country_name_missing" {
					t.Errorf("%s: certificate %d: %s: %s %s", name, i, id, result.Status, result.Details)
				}
			}
		}
		pool, above := x509.NewCertPool(), x509.NewCertPool()
		pool.AddCert(roots[0])
		above.AddCert(chain[1])
		if _, err := chain[0].Verify(x509.VerifyOptions{Roots: pool, Intermediates: above, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
			t.Errorf("%s: crypto/x509: %v", name, err)
		}
		v := credential.NewPresented(chain).Verify(credential.NewAnchors(chain[1:]), credential.ManagedCA, a.Now())
		if v.Problem != "" {
			t.Errorf("%s: the data plane: %s", name, v.Problem)
		}
	}
}

func ecdsaKey(t testing.TB, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func rsaKey(t testing.TB, bits int) *rsa.PrivateKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return key
}
