package certs

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"time"

	zcrypto "github.com/zmap/zcrypto/x509"
	"github.com/zmap/zlint/v3"
	"github.com/zmap/zlint/v3/lint"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/credential"
)

// Key types of the operator's CAs.
const (
	KeyP256 = "p256"
	KeyP384 = "p384"
)

// backdate is for clients whose clocks are behind.
const backdate = 5 * time.Minute

func newKey(keyType string) (*ecdsa.PrivateKey, error) {
	curve := elliptic.P256()
	if keyType == KeyP384 {
		curve = elliptic.P384()
	}
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("making a key: %w", err)
	}
	return key, nil
}

// keyID is the credential.IssuerID of certificates of the key.
func keyID(public crypto.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return "", fmt.Errorf("encoding a public key: %w", err)
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:]), nil
}

// throwaway makes a key of the same type, so that what it signs differs from
// what the other signs in the signature alone.
func throwaway(public crypto.PublicKey) (crypto.Signer, error) {
	switch k := public.(type) {
	case *ecdsa.PublicKey:
		return ecdsa.GenerateKey(k.Curve, rand.Reader)
	case *rsa.PublicKey:
		return rsa.GenerateKey(rand.Reader, 2048)
	}
	return nil, fmt.Errorf("a CA with a key of the type %T cannot sign", public)
}

// draft is a CA certificate in the making.
type draft struct {
	parent *x509.Certificate // nil for a root
	copied *x509.Certificate // what will be signed, signed with a throw-away key
	linted *x509.Certificate // the copy; of a root, which shows by its key that it signed itself, one of the throw-away key too
}

// newDraft completes the template: with the subject, which has the beginning of
// the key's id in it, so that no two CAs have the same, and with where to find
// the parent. Without a parent the key will sign itself.
func newDraft(template, parent *x509.Certificate, public crypto.PublicKey, a *Authority) (*draft, error) {
	id, err := keyID(public)
	if err != nil {
		return nil, err
	}
	template.SerialNumber = caSerial()
	template.Subject.CommonName += " " + id[:8]
	signs, standIn := public, *template
	if parent != nil {
		at := credential.IssuerID(parent)
		template.CRLDistributionPoints, template.IssuingCertificateURL = some(a.crlURL(at)), some(a.issuerURL(at))
		signs, standIn = parent.PublicKey, *parent
		standIn.PublicKey = nil // CreateCertificate would see that it is another's
	}
	key, err := throwaway(signs)
	if err != nil {
		return nil, err
	}
	copied, err := create(template, &standIn, public, key)
	if err != nil {
		return nil, err
	}
	d := &draft{parent, copied, copied}
	if parent == nil {
		d.linted, err = create(template, template, key.Public(), key)
	}
	return d, err
}

func create(template, parent *x509.Certificate, public crypto.PublicKey, signer crypto.Signer) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, signer)
	if err != nil {
		return nil, fmt.Errorf("drafting a CA certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("drafting a CA certificate: %w", err)
	}
	return cert, nil
}

// complete lints the copy and then signs. What is signed is what was drafted.
func (d *draft) complete(signer crypto.Signer) (*x509.Certificate, error) {
	if err := d.lint(); err != nil {
		return nil, err
	}
	issuer := d.parent
	if issuer == nil {
		issuer = d.copied // which has the key that signs
	}
	der, err := assemble(d.copied.RawTBSCertificate, signer, issuer)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("signing a CA certificate: %w", err)
	}
	return cert, nil
}

// lint checks the copy against RFC 5280 and other rules of CAs, and against our
// own profile.
func (d *draft) lint() error {
	c, err := zcrypto.ParseCertificate(d.linted.Raw)
	if err != nil {
		return fmt.Errorf("linting a CA certificate: %w", err)
	}
	for name, result := range zlint.LintCertificate(c).Results {
		if result.Status >= lint.Warn && name != countryMissing {
			return fmt.Errorf("linting a CA certificate: %s: %s %s", name, result.Status, result.Details)
		}
	}
	cert, root := d.copied, d.parent == nil
	switch {
	case !cert.IsCA || !cert.BasicConstraintsValid || cert.Version != 3:
		err = errors.New("it is not a CA's")
	case cert.KeyUsage != x509.KeyUsageCertSign|x509.KeyUsageCRLSign:
		err = errors.New("its key usage is wrong")
	case len(cert.UnhandledCriticalExtensions) > 0:
		err = errors.New("it has an unknown extension")
	case cert.SerialNumber.Sign() <= 0 || cert.SerialNumber.BitLen() > 128:
		err = errors.New("its serial number is wrong")
	case !root && (!cert.MaxPathLenZero || cert.MaxPathLen != 0):
		err = errors.New("there could be CAs below it")
	case !root && (len(cert.PermittedURIDomains) != 1 || !cert.PermittedDNSDomainsCritical):
		err = errors.New("it is not constrained to the trust domain")
	case !root && (cert.NotBefore.Before(d.parent.NotBefore) || cert.NotAfter.After(d.parent.NotAfter)):
		err = errors.New("it does not end with its issuer")
	}
	if err != nil {
		return fmt.Errorf("linting a CA certificate: %w", err)
	}
	return nil
}

// countryMissing is the CA/Browser Forum's rule that a publicly trusted CA says
// in which country it is. An operator's root is trusted by those it is given to.
const countryMissing = "e_ca_country_name_missing"

// rootTemplate is the profile of the operator's roots.
func rootTemplate(name string, years int, now time.Time) *x509.Certificate {
	return &x509.Certificate{
		Subject:   pkix.Name{Organization: []string{name}, CommonName: name + " Root CA"},
		NotBefore: now.Add(-backdate).Truncate(time.Second), NotAfter: now.AddDate(years, 0, 0).Truncate(time.Second),
		IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
}

// intermediate is the profile of an account's intermediates.
func intermediate(account sallyport.AccountID, trustDomain string, now time.Time, parent *x509.Certificate) *x509.Certificate {
	t := &x509.Certificate{
		Subject:   pkix.Name{Organization: []string{string(account)}, CommonName: "Account " + string(account) + " CA"},
		NotBefore: now.Add(-backdate).Truncate(time.Second), NotAfter: now.Add(issuerLife).Truncate(time.Second),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage:                    x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		ExtKeyUsage:                 []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		PermittedDNSDomainsCritical: true, PermittedURIDomains: []string{trustDomain},
	}
	if t.NotBefore.Before(parent.NotBefore) {
		t.NotBefore = parent.NotBefore
	}
	if t.NotAfter.After(parent.NotAfter) {
		t.NotAfter = parent.NotAfter
	}
	return t
}

// trustDomainOf is the host that the intermediate is constrained to.
func trustDomainOf(cert *x509.Certificate) string {
	if len(cert.PermittedURIDomains) != 1 {
		return ""
	}
	return cert.PermittedURIDomains[0]
}

// caSerial is 128 random bits: unique, positive.
func caSerial() *big.Int {
	var b [16]byte
	rand.Read(b[:])
	b[0] = b[0]&0x7f | 0x40
	return new(big.Int).SetBytes(b[:])
}
