package certs_test

import (
	"crypto"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"testing"
	"time"

	"github.com/sallyport-iam/sallyport/authn/authntest"
	"github.com/sallyport-iam/sallyport/certs"
	"github.com/sallyport-iam/sallyport/credential"
)

// BenchmarkMake is a certificate from a request beside what the standard library
// needs to read and check the request and to create one like it, measured in
// turns. The ratio is the sum of ours by theirs: the throw-away signature and
// its check, the lints and our own check of the signature are the difference.
func BenchmarkMake(b *testing.B) {
	w := newWorld(b)
	a := w.Tenant(b)
	caKey := ecdsaKey(b, elliptic.P256())
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Account f45a2 CA"}, SubjectKeyId: make([]byte, 20),
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(1000 * time.Hour), IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, PermittedURIDomains: []string{authntest.TrustDomain}, PermittedDNSDomainsCritical: true}
	der, err := x509.CreateCertificate(rand.Reader, ca, ca, &caKey.PublicKey, caKey)
	if err != nil {
		b.Fatal(err)
	}
	issuer, err := x509.ParseCertificate(der)
	if err != nil {
		b.Fatal(err)
	}
	id := credential.IssuerID(issuer)
	csr, _ := authntest.CSR(b)
	like := authntest.Chain(b, issue(b, a, certs.IssueParams{ServiceAccount: robot(b, a).ID}).Chain)[0]
	var theirs, ours time.Duration
	b.ReportAllocs()
	for b.Loop() {
		start := time.Now()
		if err := standard(csr, like, issuer, caKey); err != nil {
			b.Fatal(err)
		}
		between := time.Now()
		if err := w.Certs.Make("f45a2", "sa_aaaaaaaaaaaaaaaa", csr, issuer, caKey, id); err != nil {
			b.Fatal(err)
		}
		ours += time.Since(between)
		theirs += between.Sub(start)
	}
	b.ReportMetric(float64(theirs.Nanoseconds())/float64(b.N), "x509-ns/op")
	b.ReportMetric(float64(ours.Nanoseconds())/float64(b.N), "ours-ns/op")
	b.ReportMetric(float64(ours)/float64(theirs), "ratio")
}

// standard is what nobody can do without.
func standard(csr []byte, like, issuer *x509.Certificate, key crypto.Signer) error {
	block, _ := pem.Decode(csr)
	request, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return err
	}
	if err := request.CheckSignature(); err != nil {
		return err
	}
	_, err = x509.CreateCertificate(rand.Reader, like, issuer, request.PublicKey, key)
	return err
}

// BenchmarkIssue is all of it, with two commits: of the record, and of what was
// signed.
func BenchmarkIssue(b *testing.B) {
	w := newWorld(b)
	config := w.Config()
	config.MaxCertificates = 1_000_000
	ca, err := certs.New(config)
	if err != nil {
		b.Fatal(err)
	}
	a := w.Tenant(b)
	sa := robot(b, a)
	csr, _ := authntest.CSR(b)
	for b.Loop() {
		if _, _, err := ca.Issue(b.Context(), a.Operator, op("IssueCertificate"), certs.IssueParams{ServiceAccount: sa.ID, CSR: csr}); err != nil {
			b.Fatal(err)
		}
	}
}
