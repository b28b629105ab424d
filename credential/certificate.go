package credential

import (
	"crypto/sha1" //nolint:gosec // SHA-1 fingerprints are only names: what tcld and openssl show
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"math/big"

	"github.com/sallyport-iam/sallyport"
)

// Fingerprint is the certificate's name: the SHA-256 of its DER in lower-case hex.
func Fingerprint(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.Raw)
	return hex.EncodeToString(sum[:])
}

// FingerprintSHA1 is the SHA-1 of its DER in lower-case hex, by which tcld names
// client CAs. Nothing may be decided by it.
func FingerprintSHA1(cert *x509.Certificate) string {
	sum := sha1.Sum(cert.Raw) //nolint:gosec // a name
	return hex.EncodeToString(sum[:])
}

// IssuerID names a CA by its key: the SHA-256 of its SubjectPublicKeyInfo in
// lower-case hex. All certificates of one key have one id, so that a renewed or
// cross-signed CA is the same issuer.
func IssuerID(ca *x509.Certificate) string {
	sum := sha256.Sum256(ca.RawSubjectPublicKeyInfo)
	return hex.EncodeToString(sum[:])
}

// SerialText is a serial number in lower-case hex without leading zeros, as
// openssl shows it but for the case.
func SerialText(n *big.Int) string { return n.Text(16) }

// ParseClientCAs reads a namespace's bundle of client CAs: PEM certificates and
// nothing else, at most 16 in 32 KB, each a CA with an allowed key and signature,
// each a root or reaching one through others of the bundle. One that has expired
// is accepted. An empty bundle gives none. The error is Invalid, without a Field.
func ParseClientCAs(bundle []byte) ([]*x509.Certificate, error) {
	return nil, sallyport.Unavailable.Errorf("not yet")
}
