package credential

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha1" //nolint:gosec // SHA-1 fingerprints are only names: what tcld and openssl show
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"math/big"
	"slices"
	"time"
)

// Limits of what a certificate may be, whoever issued it.
const (
	minRSA        = 2048
	maxRSA        = 8192 // a larger one only costs time to check
	maxSerialBits = 159  // 20 octets with a sign (RFC 5280 §4.1.2.2)
	maxNames      = 256  // subject alternative names of a leaf; filters walk them on each call
	maxAttributes = 64   // of a subject
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

// extensions is what matters of a certificate's extensions beyond what
// crypto/x509 gives, which reads an absent one and an empty one alike.
type extensions struct {
	keyUsage, extKeyUsage, nameConstraints, criticalAltName, laxPolicy bool
}

func extensionsOf(cert *x509.Certificate) (has extensions) {
	for i := range cert.Extensions {
		e := &cert.Extensions[i]
		if len(e.Id) != 4 || !isExtension(e.Id, e.Id[3]) {
			continue
		}
		switch e.Id[3] {
		case 15:
			has.keyUsage = true
		case 17:
			has.criticalAltName = e.Critical
		case 30:
			has.nameConstraints = true
		case 36, 54: // policyConstraints, inhibitAnyPolicy: MUST be critical (RFC 5280 §4.2.1.11, §4.2.1.14)
			has.laxPolicy = has.laxPolicy || !e.Critical
		case 37:
			has.extKeyUsage = true
		}
	}
	return has
}

// flaw says what keeps a certificate out of every chain, be it a leaf or a CA;
// "" if nothing does. The text goes on after "the certificate".
func flaw(cert *x509.Certificate) string {
	switch {
	case cert.Version != 3:
		return fmt.Sprintf("is X.509 version %d; version 3 is required, which openssl makes of a certificate with extensions", cert.Version)
	case !strongSignature(cert.SignatureAlgorithm):
		return fmt.Sprintf("is signed with %s; RSA or ECDSA with SHA-256 or stronger is required", cert.SignatureAlgorithm)
	case len(cert.UnhandledCriticalExtensions) > 0:
		return fmt.Sprintf("has the critical extension %s, which is not understood", cert.UnhandledCriticalExtensions[0])
	case len(cert.Subject.Names) > maxAttributes:
		return fmt.Sprintf("has a subject of more than %d parts", maxAttributes)
	case !selfIssued(cert) && (cert.SerialNumber.Sign() <= 0 || cert.SerialNumber.BitLen() > maxSerialBits):
		return "has a serial number that is not positive or has more than 20 octets"
	}
	return keyFlaw(cert.PublicKey)
}

// caFlaw says why a certificate cannot be a client CA, "" if it can.
func caFlaw(cert *x509.Certificate) string {
	if problem := flaw(cert); problem != "" {
		return problem
	}
	has := extensionsOf(cert)
	switch {
	case !cert.BasicConstraintsValid || !cert.IsCA:
		return "is not a CA: it must have the basic constraint CA:true"
	case has.keyUsage && cert.KeyUsage&x509.KeyUsageCertSign == 0:
		return "may not sign certificates: its key usage lacks keyCertSign"
	case len(cert.Subject.Names) == 0:
		return "has no subject; a CA must have one"
	case has.laxPolicy:
		return "has policy constraints that are not critical"
	}
	return ""
}

// leafFlaw says why a certificate cannot be a client's, "" if it can. Neither
// key usage nor extended key usage need be there: tcld's leaves have none.
func leafFlaw(cert *x509.Certificate, usage x509.ExtKeyUsage) string {
	if problem := flaw(cert); problem != "" {
		return problem
	}
	has := extensionsOf(cert)
	switch {
	case cert.BasicConstraintsValid && cert.IsCA:
		return "is a CA certificate itself; a client needs one that is not"
	case has.keyUsage && cert.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		return "has a key usage without digitalSignature, which a client needs"
	case cert.KeyUsage&x509.KeyUsageCertSign != 0:
		return "has the key usage keyCertSign, which is for CAs only"
	case has.nameConstraints:
		return "has name constraints, which are for CAs only"
	case has.extKeyUsage && len(cert.ExtKeyUsage) == 0 && len(cert.UnknownExtKeyUsage) == 0:
		return "has an extended key usage that allows nothing"
	case !usable(cert, usage):
		return "is for other uses than client authentication: its extended key usage does not have it"
	case len(cert.Subject.Names) == 0 && !has.criticalAltName:
		return "has no subject, and its alternative names are not critical (RFC 5280 §4.2.1.6)"
	case len(cert.DNSNames)+len(cert.EmailAddresses)+len(cert.URIs)+len(cert.IPAddresses) > maxNames:
		return fmt.Sprintf("has more than %d alternative names", maxNames)
	}
	return ""
}

// usable reports whether a certificate, or those below a CA, may serve the usage.
func usable(cert *x509.Certificate, usage x509.ExtKeyUsage) bool {
	return len(cert.ExtKeyUsage) == 0 && len(cert.UnknownExtKeyUsage) == 0 ||
		slices.Contains(cert.ExtKeyUsage, usage) || slices.Contains(cert.ExtKeyUsage, x509.ExtKeyUsageAny)
}

func strongSignature(algorithm x509.SignatureAlgorithm) bool {
	switch algorithm {
	case x509.SHA256WithRSA, x509.SHA384WithRSA, x509.SHA512WithRSA, x509.SHA256WithRSAPSS, x509.SHA384WithRSAPSS,
		x509.SHA512WithRSAPSS, x509.ECDSAWithSHA256, x509.ECDSAWithSHA384, x509.ECDSAWithSHA512:
		return true
	default:
		return false
	}
}

// keyFlaw says why a public key is refused in a chain, "" if it is not.
func keyFlaw(pub any) string {
	switch key := pub.(type) {
	case *rsa.PublicKey:
		switch bits := key.N.BitLen(); {
		case bits < minRSA:
			return fmt.Sprintf("has an RSA key of %d bits; at least %d are needed", bits, minRSA)
		case bits > maxRSA:
			return fmt.Sprintf("has an RSA key of %d bits; at most %d are possible", bits, maxRSA)
		case bits%8 != 0:
			return fmt.Sprintf("has an RSA key of %d bits, which are no whole bytes", bits)
		case key.E < 3 || key.E%2 == 0 || key.N.Bit(0) == 0:
			return "has an RSA key that is none: its exponent or modulus is impossible"
		}
		return ""
	case *ecdsa.PublicKey:
		switch key.Curve {
		case elliptic.P256(), elliptic.P384(), elliptic.P521():
			return ""
		}
		return fmt.Sprintf("has an ECDSA key on the curve %s; P-256, P-384 and P-521 are possible", key.Curve.Params().Name)
	}
	return "has a key that is neither RSA nor ECDSA"
}

// selfIssued reports whether a certificate names itself as its issuer, as roots do.
func selfIssued(cert *x509.Certificate) bool {
	return string(cert.RawIssuer) == string(cert.RawSubject)
}

// distinguishedName is a subject for comparison: case and repeated spaces do not matter.
func distinguishedName(cert *x509.Certificate) string {
	b := make([]byte, 0, 128)
	for _, attribute := range cert.Subject.Names {
		b = appendAttribute(b, attribute)
	}
	return string(b)
}

// nameOf is a certificate's subject for a message, quoted and short.
func nameOf(cert *x509.Certificate) string { return quoted(cert.Subject.String()) }

// quoted makes a text that somebody sent fit for a message.
func quoted(text string) string {
	const most = 120
	if len(text) > most {
		text = text[:most] + "…"
	}
	return fmt.Sprintf("%q", text)
}

// stamp is a time in a message.
func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
