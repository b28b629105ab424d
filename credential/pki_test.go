package credential_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sallyport-iam/sallyport/credential"
)

// now is the time of all certificates here, so that they never expire.
var now = time.Date(2027, 1, 2, 3, 4, 5, 0, time.UTC)

// issuer is a CA and its key.
type issuer struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// newKey makes a key: "P-224", "P-256", "P-384", "P-521", "Ed25519" or RSA of so many bits.
func newKey(t testing.TB, kind string) crypto.Signer {
	t.Helper()
	var key crypto.Signer
	var err error
	switch kind {
	case "P-224":
		key, err = ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	case "P-256":
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "P-384":
		key, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "P-521":
		key, err = ecdsa.GenerateKey(elliptic.P521(), rand.Reader)
	case "Ed25519":
		_, key, err = ed25519.GenerateKey(rand.Reader)
	case "RSA-1024":
		key, err = rsa.GenerateKey(rand.Reader, 1024)
	case "RSA-2048":
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	default:
		t.Fatalf("no such key: %s", kind)
	}
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// ca is the template of a CA that is good for a year.
func ca(name string) *x509.Certificate {
	return &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, SerialNumber: big.NewInt(time.Now().UnixNano()),
		NotBefore: now.AddDate(0, 0, -1), NotAfter: now.AddDate(1, 0, 0),
		BasicConstraintsValid: true, IsCA: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
}

// leaf is the template of a client certificate that is good for a day.
func leaf(name string) *x509.Certificate {
	return &x509.Certificate{
		Subject: pkix.Name{CommonName: name, Organization: []string{"Example"}}, SerialNumber: big.NewInt(time.Now().UnixNano()),
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(23 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
}

// root makes a CA that signs itself.
func root(t testing.TB, template *x509.Certificate, kind string) issuer {
	t.Helper()
	key := newKey(t, kind)
	return issuer{sign(t, template, template, key.Public(), key), key}
}

// below makes a CA under another one.
func (i issuer) below(t testing.TB, template *x509.Certificate) issuer {
	t.Helper()
	key := newKey(t, "P-256")
	return issuer{sign(t, template, i.cert, key.Public(), i.key), key}
}

// issue makes a certificate with a key of its own.
func (i issuer) issue(t testing.TB, template *x509.Certificate) *x509.Certificate {
	t.Helper()
	return sign(t, template, i.cert, newKey(t, "P-256").Public(), i.key)
}

func sign(t testing.TB, template, parent *x509.Certificate, public any, key crypto.Signer) *x509.Certificate {
	t.Helper()
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

// bundle is certificates in PEM.
func bundle(certs ...*x509.Certificate) []byte {
	var b []byte
	for _, cert := range certs {
		b = append(b, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})...)
	}
	return b
}

func certs(list ...*x509.Certificate) []*x509.Certificate { return list }

func file(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// verify presents a chain to customer's CAs.
func verify(chain, cas []*x509.Certificate) credential.Verified {
	return credential.NewPresented(chain).Verify(credential.NewAnchors(cas), credential.CustomerCA, now)
}

func uri(t testing.TB, text string) *url.URL {
	t.Helper()
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return u
}
