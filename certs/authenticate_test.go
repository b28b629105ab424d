package certs_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authn"
	"github.com/sallyport-iam/sallyport/authn/authntest"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/certs"
	"github.com/sallyport-iam/sallyport/credential"
	"github.com/sallyport-iam/sallyport/directory"
	"github.com/sallyport-iam/sallyport/journal"
)

func TestCallByCertificate(t *testing.T) {
	t.Parallel()
	a := newWorld(t).Tenant(t)
	sa := a.ServiceAccount(t, sallyport.ScopeAccount, role(sallyport.RoleAdmin))
	c := issue(t, a, certs.IssueParams{ServiceAccount: sa.ID, Lifetime: time.Hour})
	caller, err := a.CallWith(t, c)
	if err != nil {
		t.Fatal(err)
	}
	if caller.Account != a.ID || caller.Principal != sa || caller.Credential != (sallyport.Credential{Kind: certs.CredentialKind, ID: c.ID}) ||
		caller.From != netip.MustParseAddr("192.0.2.1") || caller.RequestID != "request" || !caller.Access.Roles.Has(sallyport.RoleAdmin) || caller.Head.Revision == 0 {
		t.Errorf("the caller is %+v", caller)
	}
	change := func() error {
		_, _, err := a.Directory.CreateNamespace(t.Context(), caller, op("CreateNamespace"), namespaceParams(t))
		return err
	}
	wantKind(t, "a change", change(), "", "")
	robot(t, a) // moves the head: the caller is resolved again
	wantKind(t, "a change by a caller resolved again", change(), "", "")
	setStatus(t, a, sa, object.Disabled)
	wantKind(t, "of a disabled service account", change(), sallyport.Unauthenticated, "is disabled")
	_, err = a.CallWith(t, c)
	wantKind(t, "a call of a disabled service account", err, sallyport.Unauthenticated, "is disabled")
	setStatus(t, a, sa, object.Active)
	wantKind(t, "enabled again", change(), "", "")
	a.Advance(time.Hour + time.Second)
	robot(t, a)
	wantKind(t, "expired", change(), sallyport.Unauthenticated, "expired at")
	_, err = a.CallWith(t, c)
	wantKind(t, "a call when expired", err, sallyport.Unauthenticated, "expired at")
}

// Revoked while a change waits for the account's lock: it is refused inside.
func TestRevokedWhileWaiting(t *testing.T) {
	t.Parallel()
	a := newWorld(t).Tenant(t)
	sa := a.ServiceAccount(t, sallyport.ScopeAccount, role(sallyport.RoleAdmin))
	caller, err := a.CallWith(t, issue(t, a, certs.IssueParams{ServiceAccount: sa.ID}))
	if err != nil {
		t.Fatal(err)
	}
	revoke(t, a, certs.RevokeParams{CertificateID: caller.Credential.ID})
	_, _, err = a.Directory.CreateNamespace(t.Context(), caller, op("CreateNamespace"), namespaceParams(t))
	wantKind(t, "a change", err, sallyport.Unauthenticated, "was revoked")
}

// Until a certificate has proved to be the managed CA's, all refusals are the same.
func TestForged(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.Tenant(t), w.Tenant(t)
	sa := robot(t, a)
	real := authntest.Chain(t, issue(t, a, certs.IssueParams{ServiceAccount: sa.ID}).Chain)
	ofB := authntest.Chain(t, issue(t, b, certs.IssueParams{ServiceAccount: robot(t, b).ID}).Chain)
	call := func(chain ...*x509.Certificate) (sallyport.Caller, error) {
		return w.Auth.Authenticate(t.Context(), authn.Request{Certificates: chain})
	}
	const generic = "is not one that was issued here"
	for name, chain := range map[string][]*x509.Certificate{
		"another CA, the same names":      forge(t, real[0], nil, "", real[0].SerialNumber),
		"another CA that copies ours":     forge(t, real[0], real[1], "", real[0].SerialNumber),
		"an account that is not there":    forge(t, real[0], nil, "spiffe://"+authntest.TrustDomain+"/account/zzzzz/service-account/"+sa.ID, real[0].SerialNumber),
		"another account's URI, our CA's": forge(t, real[0], ofB[1], "", ofB[0].SerialNumber),
	} {
		_, err := call(chain...)
		wantKind(t, name, err, sallyport.Unauthenticated, generic)
	}
	_, err := call(forge(t, real[0], nil, "https://example.com/", big.NewInt(1))...)
	wantKind(t, "no SPIFFE id", err, sallyport.Unauthenticated, "is none of the managed CA")
	_, err = call(real[1], real[0])
	wantKind(t, "a CA as leaf", err, sallyport.Unauthenticated, "API key")
	for name, chain := range map[string][]*x509.Certificate{"the leaf alone": real[:1], "with a stranger's issuer": {real[0], ofB[1]}} {
		if caller, err := call(chain...); err != nil || caller.Principal != sa {
			t.Errorf("%s: %+v, %v", name, caller, err)
		}
	}
	// A header alone counts, good or bad.
	_, err = w.Auth.Authenticate(t.Context(), authn.Request{Authorization: "Bearer nonsense", Certificates: real})
	wantKind(t, "with a bad header", err, sallyport.Unauthenticated, "API key")
	key := a.Key(t, a.Owner.Principal, sallyport.Limits{})
	caller, err := w.Auth.Authenticate(t.Context(), authn.Request{Authorization: "Bearer " + key.Token.Reveal(), Certificates: real})
	if err != nil || caller.Principal != a.Owner.Principal {
		t.Errorf("with a good header: %+v, %v", caller.Principal, err)
	}
}

// forge makes a certificate like leaf under a CA of the test's own, which takes
// its name and key identifier from like.
func forge(t *testing.T, leaf, like *x509.Certificate, uri string, serial *big.Int) []*x509.Certificate {
	t.Helper()
	ca := &x509.Certificate{SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "forged"}, NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign}
	if like != nil {
		ca.RawSubject, ca.SubjectKeyId, ca.SerialNumber = like.RawSubject, like.SubjectKeyId, like.SerialNumber
	}
	caKey, key := ecdsaKey(t, elliptic.P256()), ecdsaKey(t, elliptic.P256())
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, &caKey.PublicKey, caKey)
	if err != nil {
		t.Fatal(err)
	}
	made, err := x509.ParseCertificate(caDER)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: serial, Subject: leaf.Subject, NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter, URIs: leaf.URIs,
		KeyUsage: leaf.KeyUsage, ExtKeyUsage: leaf.ExtKeyUsage, BasicConstraintsValid: true}
	if uri != "" {
		u, err := url.Parse(uri)
		if err != nil {
			t.Fatal(err)
		}
		template.URIs = []*url.URL{u}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, made, &key.PublicKey, caKey)
	if err != nil {
		t.Fatal(err)
	}
	forged, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return []*x509.Certificate{forged, made}
}

// Last uses are kept to the minute and never go back.
func TestLastUsed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.Tenant(t)
	c := issue(t, a, certs.IssueParams{ServiceAccount: robot(t, a).ID})
	run := func() {
		t.Helper()
		ctx, cancel := context.WithCancel(t.Context())
		cancel() // Run flushes once more at its end
		if err := w.Certs.Run(ctx); err != nil {
			t.Fatal(err)
		}
	}
	lastUsed := func() time.Time {
		t.Helper()
		got, err := w.Certs.Get(t.Context(), a.Owner, c.ID)
		if err != nil {
			t.Fatal(err)
		}
		return got.LastUsed
	}
	before := a.Now()
	if _, err := a.CallWith(t, c); err != nil {
		t.Fatal(err)
	}
	run()
	if got := lastUsed(); got.Before(before.Truncate(time.Minute)) || got.After(a.Now()) {
		t.Errorf("after a call: last used at %s", got)
	}
	at := a.Now().Add(time.Hour).UTC().Truncate(time.Minute)
	w.Certs.MarkUsed(a.ID, c.Fingerprint, at.Add(17*time.Second))
	w.Certs.MarkUsed(a.ID, "0000", at)
	w.Certs.MarkUsed("zzzzz", c.Fingerprint, at.Add(time.Hour))
	run()
	w.Certs.MarkUsed(a.ID, c.Fingerprint, at.Add(-time.Minute))
	run()
	if got := lastUsed(); !got.Equal(at) {
		t.Errorf("last used at %s, want %s", got, at)
	}
}

// Nobody's request is another's: operation ids are the caller's own.
func TestRepeated(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.Tenant(t)
	sa := robot(t, a)
	csr, _ := authntest.CSR(t)
	operation := journal.Operation{ID: "once", Type: "IssueCertificate", Request: csr}
	first, done, err := w.Certs.Issue(t.Context(), a.Owner, operation, certs.IssueParams{ServiceAccount: sa.ID, CSR: csr})
	if err != nil {
		t.Fatal(err)
	}
	again, replayed, err := w.Certs.Issue(t.Context(), a.Owner, operation, certs.IssueParams{ServiceAccount: sa.ID, CSR: csr})
	if err != nil || !replayed.Replayed || replayed.Head != done.Head || again.ID != first.ID || string(again.Chain) != string(first.Chain) {
		t.Errorf("repeated: %+v, %+v, %v", again.Certificate, replayed, err)
	}
	operation.Request = []byte("another")
	_, _, err = w.Certs.Issue(t.Context(), a.Owner, operation, certs.IssueParams{ServiceAccount: sa.ID, CSR: csr})
	wantKind(t, "the same id for another request", err, sallyport.Invalid, "was used for another request")
	revoke(t, a, certs.RevokeParams{CertificateID: first.ID})
	operation.Request = csr
	again, _, err = w.Certs.Issue(t.Context(), a.Owner, operation, certs.IssueParams{ServiceAccount: sa.ID, CSR: csr})
	if err != nil || again.State(w.Now()) != certs.Revoked {
		t.Errorf("repeated after it was revoked: %s, %v", again.State(w.Now()), err)
	}
}

// A certificate that was revoked carries no token, whoever made it; another one of
// the same CA, and another account's token, are not concerned.
func TestCheckBound(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.Tenant(t), w.Tenant(t)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	foreign := func(serial int64, isCA bool, parent *x509.Certificate) *x509.Certificate {
		template := &x509.Certificate{SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "foreign"}, IsCA: isCA, BasicConstraintsValid: true,
			NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
		if parent == nil {
			parent = template
		}
		der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, key)
		if err != nil {
			t.Fatal(err)
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return cert
	}
	root := foreign(1, true, nil)
	issuer := credential.IssuerID(root)
	managed := issue(t, a, certs.IssueParams{ServiceAccount: robot(t, a).ID})
	long := func(chain []*x509.Certificate) []*x509.Certificate {
		for range 100 {
			chain = append(chain, root)
		}
		return chain
	}
	for _, test := range []struct {
		name   string
		chain  []*x509.Certificate
		revoke certs.RevokeParams
	}{
		{"of the managed CA", authntest.Chain(t, managed.Chain), certs.RevokeParams{CertificateID: managed.ID}},
		{"of the managed CA, with much behind it", long(authntest.Chain(t, issue(t, a, certs.IssueParams{ServiceAccount: robot(t, a).ID}).Chain)[:1]), certs.RevokeParams{}},
		{"by fingerprint", []*x509.Certificate{foreign(2, false, root)}, certs.RevokeParams{}},
		{"by serial", []*x509.Certificate{foreign(3, false, root), root}, certs.RevokeParams{Issuer: issuer, Serial: "3"}},
		{"with its issuer", []*x509.Certificate{foreign(4, false, root), root}, certs.RevokeParams{Issuer: issuer}},
	} {
		if err := w.Certs.CheckBound(t.Context(), w.Journal.Pool(), a.ID, test.chain); err != nil {
			t.Errorf("%s: got %v before", test.name, err)
		}
		if test.revoke == (certs.RevokeParams{}) {
			test.revoke.Fingerprint = credential.Fingerprint(test.chain[0])
		}
		revoke(t, a, test.revoke)
		wantKind(t, test.name, w.Certs.CheckBound(t.Context(), w.Journal.Pool(), a.ID, test.chain), sallyport.Unauthenticated, "revoked")
		if !strings.Contains(test.name, "managed") {
			wantKind(t, test.name+", another account", w.Certs.CheckBound(t.Context(), w.Journal.Pool(), b.ID, test.chain), "", "")
		}
	}
}

// namespaceParams are of a namespace with a name of its own.
func namespaceParams(t *testing.T) directory.NamespaceParams {
	t.Helper()
	name := strings.ToLower(sallyport.NewID("n"))
	return directory.NamespaceParams{Name: name, Region: authntest.Region, RetentionDays: 7, APIKeyAuth: true}
}
