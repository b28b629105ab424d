package saml

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"time"

	"github.com/sallyport-iam/sallyport"
)

const (
	maxKeys = 4
	keyBits = 3072
	keyLife = 5 * 365 * 24 * time.Hour // of its certificate, which providers do not renew by themselves
)

// Key is one of ours, with the certificate that the provider knows it by. It signs
// requests and decrypts assertions. It prints as REDACTED.
type Key struct {
	Private     *rsa.PrivateKey
	Certificate *x509.Certificate
}

// NewKey makes a key, and a certificate of five years signed by itself, whose name is
// for those who look at it.
func NewKey(name string, now time.Time) (Key, error) {
	private, err := rsa.GenerateKey(rand.Reader, keyBits)
	if err != nil {
		return Key{}, fmt.Errorf("making a SAML key: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return Key{}, fmt.Errorf("making a SAML key: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name}, BasicConstraintsValid: true,
		NotBefore: now.UTC().Add(-time.Hour), NotAfter: now.UTC().Add(keyLife),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		return Key{}, fmt.Errorf("making the certificate of a SAML key: %w", err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return Key{}, fmt.Errorf("reading the certificate of a SAML key: %w", err)
	}
	return Key{Private: private, Certificate: certificate}, nil
}

// Marshal gives the key and its certificate as PEM: a secret, for the vault.
func (k Key) Marshal() ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(k.Private)
	if err != nil {
		return nil, fmt.Errorf("encoding a SAML key: %w", err)
	}
	data := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	return append(data, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: k.Certificate.Raw})...), nil
}

// ParseKey reads what Marshal gave.
func ParseKey(data []byte) (Key, error) {
	bad := sallyport.Invalid.Errorf("the SAML key is not an RSA key of 2048 bits or more, as PKCS #8 in PEM, followed by its certificate")
	block, rest := pem.Decode(data)
	if block == nil || block.Type != "PRIVATE KEY" {
		return Key{}, bad
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	private, ok := parsed.(*rsa.PrivateKey)
	if err != nil || !ok || private.N.BitLen() < 2048 {
		return Key{}, bad
	}
	if block, _ = pem.Decode(rest); block == nil || block.Type != "CERTIFICATE" {
		return Key{}, bad
	}
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil || !private.PublicKey.Equal(certificate.PublicKey) {
		return Key{}, bad
	}
	return Key{Private: private, Certificate: certificate}, nil
}

// Fingerprint is the certificate's SHA-256 in hex, by which people compare it.
func Fingerprint(c *x509.Certificate) string {
	return fmt.Sprintf("%x", sha256.Sum256(c.Raw))
}

// String hides the private key.
func (k Key) String() string { return "REDACTED" }

// GoString hides it from %#v.
func (k Key) GoString() string { return "REDACTED" }

// LogValue hides it from slog.
func (k Key) LogValue() slog.Value { return slog.StringValue("REDACTED") }
