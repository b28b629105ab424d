package certs_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/certs"
	"github.com/sallyport-iam/sallyport/credential"
	"github.com/sallyport-iam/sallyport/journal"
)

func TestRootIsMadeOnce(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ctx := t.Context()
	owner := h.Tenant(t).Owner
	if _, err := h.ca.InitRoot(ctx, owner, certs.RootParams{Name: "Example"}); !errors.Is(err, sallyport.PermissionDenied) {
		t.Errorf("by an account's owner: %v, want PermissionDenied", err)
	}
	for _, p := range []certs.RootParams{{}, {Name: strings.Repeat("x", 41)}, {Name: "a\nb"}, {Name: "Example", Years: 31}, {Name: "Example", Years: -1}, {Name: "Example", KeyType: "p521"}} {
		if _, err := h.ca.InitRoot(ctx, operator, p); !errors.Is(err, sallyport.Invalid) {
			t.Errorf("%+v: %v, want Invalid", p, err)
		}
	}
	root, err := h.ca.InitRoot(ctx, operator, certs.RootParams{Name: " Bücher, Söhne + Töchter <GmbH> & Co. KG ", Years: 5, KeyType: certs.KeyP256})
	if err != nil {
		t.Fatal(err)
	}
	if years := root.NotAfter.Sub(h.Now()).Hours() / 24 / 365; !root.Current || root.Problem != "" || years < 4.9 || years > 5.1 {
		t.Errorf("the root: %+v", root)
	}
	if _, err := h.ca.InitRoot(ctx, operator, certs.RootParams{Name: "Example"}); !errors.Is(err, sallyport.AlreadyExists) || !strings.Contains(err.Error(), "ca rotate") {
		t.Errorf("another: %v, want AlreadyExists and what to do", err)
	}
	if _, err := h.ca.RetireRoot(ctx, operator, root.ID); !errors.Is(err, sallyport.Conflict) {
		t.Errorf("retiring the only one: %v, want Conflict", err)
	}
	if _, err := h.ca.RetireRoot(ctx, operator, "nobody"); !errors.Is(err, sallyport.NotFound) {
		t.Errorf("retiring an unknown one: %v, want NotFound", err)
	}
}

// wantAnchors fails the test unless the account is told of the roots that are
// published for all.
func (a tenant) wantAnchors(t *testing.T, by *certs.Authority) {
	t.Helper()
	_, told, err := by.Issuers(t.Context(), a.Owner)
	if published := roots(t, by); err != nil || !bytes.Equal(told, published) {
		t.Errorf("the account is told of\n%s%v; published are\n%s", told, err, published)
	}
}

// A new root is followed by each account at its next issue. What was issued
// under the old one stays good, and the old root stays published for it.
func TestRootRollover(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ctx := t.Context()
	old := h.root(t)
	a, b := h.tenant(t), h.tenant(t)
	before, others := a.leaf(t, h.ca), b.leaf(t, h.ca)
	next, err := h.ca.RotateRoot(ctx, operator, certs.RootParams{Name: "Example"})
	if err != nil {
		t.Fatal(err)
	}
	after := a.leaf(t, h.ca)
	if after.Issuer == before.Issuer {
		t.Error("the account did not follow to the new root")
	}
	published := roots(t, h.ca)
	a.wantAnchors(t, h.ca)
	for name, c := range map[string]struct {
		chain []byte
		under certs.Root
	}{"old": {before.Chain, old}, "new": {after.Chain, next}, "another's": {others.Chain, old}} {
		if err := verify(c.chain, c.under.Chain, h.Now(), t); err != nil {
			t.Errorf("the %s certificate under its root: %v", name, err)
		}
		if err := verify(c.chain, published, h.Now(), t); err != nil {
			t.Errorf("the %s certificate under the published roots: %v", name, err)
		}
	}
	if !h.accepts(t, a, before.Chain) || !h.accepts(t, a, after.Chain) || !h.accepts(t, b, others.Chain) {
		t.Error("authorizers do not take a certificate of the old or of the new root")
	}
	list, err := h.ca.ListRoots(ctx)
	if err != nil || len(list) != 2 || !list[0].Current || list[0].ID != next.ID || list[0].Issuers != 1 || list[1].Current || list[1].Issuers != 2 || list[1].Retired.IsZero() {
		t.Errorf("the roots: %+v, %v", list, err)
	}
	all, err := h.ca.Roots(ctx, h.pool)
	if err != nil || len(all) != 2 {
		t.Errorf("%d roots are the operator's, %v; want both", len(all), err)
	}
	h.Advance(300 * 24 * time.Hour)
	b.leaf(t, h.ca)
	h.Advance(70 * 24 * time.Hour) // the old root's intermediates have ended
	if got := roots(t, h.ca); !bytes.Equal(got, next.Chain) {
		t.Errorf("published are now %d roots", len(parse(t, got)))
	}
	a.wantAnchors(t, h.ca)
}

// An intermediate never outlives its root: the root's end is said in time, and a
// root that has ended issues nothing.
func TestARootEnds(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ctx := t.Context()
	root, err := h.ca.InitRoot(ctx, operator, certs.RootParams{Name: "Example", Years: 1})
	if err != nil {
		t.Fatal(err)
	}
	a := h.tenant(t)
	issuer := parse(t, a.leaf(t, h.ca).Chain)[1]
	if issuer.NotAfter.After(root.NotAfter) {
		t.Errorf("the intermediate ends at %s, after the root's %s", issuer.NotAfter, root.NotAfter)
	}
	if err := h.ca.CheckIssuers(ctx); err != nil {
		t.Fatal(err)
	}
	if text := strings.Join(h.ca.Problems(ctx), "\n"); !strings.Contains(text, "ca rotate") {
		t.Errorf("problems: %q", text)
	}
	h.Advance(300 * 24 * time.Hour)
	if a.leaf(t, h.ca).Issuer != credential.IssuerID(issuer) {
		t.Error("an intermediate was replaced by one that lasts no longer")
	}
	h.Advance(70 * 24 * time.Hour)
	if _, err := a.tryLeaf(t, h.ca); !errors.Is(err, sallyport.Unavailable) {
		t.Errorf("after the root's end: %v, want Unavailable", err)
	}
	if _, err := h.ca.InitRoot(ctx, operator, certs.RootParams{Name: "Example"}); err != nil {
		t.Errorf("a new root after the old one's end: %v", err)
	}
	h.Advance(2 * time.Minute)
	a.leaf(t, h.ca)
}

// elsewhere is a CA that is not Sallyport's.
type elsewhere struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func (e *elsewhere) sign(t *testing.T, template *x509.Certificate, public any) *x509.Certificate {
	t.Helper()
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.BasicConstraintsValid = true
	if template.NotAfter.IsZero() {
		template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().AddDate(5, 0, 0)
	}
	parent, key := e.cert, e.key
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func newElsewhere(t *testing.T) *elsewhere {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	e := &elsewhere{key: key}
	e.cert = e.sign(t, &x509.Certificate{Subject: pkix.Name{CommonName: "Elsewhere"}, IsCA: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign}, &key.PublicKey)
	return e
}

func bundle(certificates ...*x509.Certificate) []byte {
	var text []byte
	for _, c := range certificates {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return text
}

func TestImportedIntermediate(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ctx := t.Context()
	text, err := h.ca.RequestIntermediate(ctx, operator, certs.RootParams{Name: "Example"})
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil || csr.CheckSignature() != nil {
		t.Fatalf("the request: %v", err)
	}
	if _, err := h.tenant(t).tryLeaf(t, h.ca); !errors.Is(err, sallyport.Unavailable) {
		t.Errorf("before the import: %v, want Unavailable", err)
	}
	ca := newElsewhere(t)
	profile := func(change func(*x509.Certificate)) *x509.Certificate {
		c := &x509.Certificate{Subject: csr.Subject, IsCA: true, MaxPathLen: 1, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign}
		change(c)
		return c
	}
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	good := ca.sign(t, profile(func(*x509.Certificate) {}), csr.PublicKey)
	for name, c := range map[string]struct {
		chain []byte
		says  string
	}{
		"no certificate":         {[]byte("nothing"), ""},
		"another key":            {bundle(ca.sign(t, profile(func(*x509.Certificate) {}), &other.PublicKey), ca.cert), "not for a key that was made here"},
		"no root":                {bundle(good), "add the certificates above it"},
		"another root":           {bundle(good, newElsewhere(t).cert), "was not signed by"},
		"not a CA":               {bundle(ca.sign(t, profile(func(c *x509.Certificate) { c.IsCA, c.MaxPathLen, c.KeyUsage = false, 0, 0 }), csr.PublicKey), ca.cert), "not a CA"},
		"nothing below":          {bundle(ca.sign(t, profile(func(c *x509.Certificate) { c.MaxPathLen, c.MaxPathLenZero = 0, true }), csr.PublicKey), ca.cert), "allows 0 CAs below it"},
		"no CRLs":                {bundle(ca.sign(t, profile(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCertSign }), csr.PublicKey), ca.cert), "cRLSign"},
		"for servers":            {bundle(ca.sign(t, profile(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }), csr.PublicKey), ca.cert), "clientAuth"},
		"another's trust domain": {bundle(ca.sign(t, profile(func(c *x509.Certificate) { c.PermittedURIDomains = []string{"example.org"} }), csr.PublicKey), ca.cert), "trust domain"},
		"expired": {bundle(ca.sign(t, profile(func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
		}), csr.PublicKey), ca.cert), "is valid from"},
	} {
		if _, err := h.ca.ImportIntermediate(ctx, operator, c.chain); !errors.Is(err, sallyport.Invalid) || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want Invalid and %q", name, err, c.says)
		}
	}
	root, err := h.ca.ImportIntermediate(ctx, operator, bundle(good, ca.cert))
	if err != nil || !root.Current || root.Problem != "" {
		t.Fatalf("importing: %+v, %v", root, err)
	}
	if _, err := h.ca.ImportIntermediate(ctx, operator, bundle(good, ca.cert)); !errors.Is(err, sallyport.Conflict) {
		t.Errorf("importing it again: %v, want Conflict", err)
	}
	a := h.tenant(t)
	leaf := a.leaf(t, h.ca)
	chain := parse(t, leaf.Chain)
	if len(chain) != 3 || !chain[2].Equal(good) {
		t.Errorf("clients present %d certificates; want the leaf, the account's and the imported", len(chain))
	}
	if err := verify(leaf.Chain, bundle(ca.cert), h.Now(), t); err != nil {
		t.Errorf("under the root elsewhere: %v", err)
	}
	if !h.accepts(t, a, leaf.Chain) {
		t.Error("authorizers do not take it")
	}
	if got := roots(t, h.ca); !bytes.Equal(got, bundle(ca.cert)) {
		t.Error("roots.pem is not the root elsewhere")
	}
	a.wantAnchors(t, h.ca)
	all, err := h.ca.Roots(ctx, h.pool)
	if err != nil || !slices.ContainsFunc(all, good.Equal) || !slices.ContainsFunc(all, ca.cert.Equal) {
		t.Errorf("%d CAs are the operator's, %v", len(all), err)
	}
	chainFile, rootFile := write(t, "chain", leaf.Chain), write(t, "root", bundle(ca.cert))
	if out, err := openssl(t, "verify", "-x509_strict", "-purpose", "sslclient", "-CAfile", rootFile, "-untrusted", chainFile, chainFile); err != nil {
		t.Errorf("openssl verify: %v\n%s", err, out)
	}
}

// A change that fails between the record of an intermediate and its certificate
// leaves a record, and nothing that anybody takes.
func TestRecordedAndNotSigned(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.root(t)
	a := h.tenant(t)
	first := a.leaf(t, h.ca)
	h.exec(t, `update issuers set chain = null where account_id = $1`, a.ID)
	if _, err := h.Journal.Commit(t.Context(), a.Operator, a.ID, journal.Operation{Type: "Test"}, func(tx *journal.Tx) error {
		return tx.Remove(t.Context(), object.KindIssuer, first.Issuer)
	}); err != nil {
		t.Fatal(err)
	}
	next := a.leaf(t, h.ca)
	if next.Issuer == first.Issuer || !h.accepts(t, a, next.Chain) {
		t.Error("an unsigned intermediate is used, or keeps a new one from being made")
	}
	if answer := get(t, h.ca.PKI(), "/pki/issuer/"+first.Issuer+".crt", nil); answer.Code != 404 {
		t.Errorf("the certificate of an unsigned intermediate: %d", answer.Code)
	}
}
