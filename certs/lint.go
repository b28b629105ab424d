package certs

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"time"

	zcrypto "github.com/zmap/zcrypto/x509"
	_ "github.com/zmap/zlint/v3" // brings the lints
	"github.com/zmap/zlint/v3/lint"

	"github.com/sallyport-iam/sallyport/credential"
)

// lints are some of zlint's, and how they are configured: not at all.
type lints struct {
	list   []*lint.CertificateLint
	config lint.Configuration
}

// clientLints are those that are about client certificates.
func clientLints() (lints, error) {
	registry, err := lint.GlobalRegistry().Filter(lint.FilterOptions{
		// Rules of certificates for web sites, e-mail, code and seals. None applies
		// to ours, as their own conditions would find out at the cost of time.
		ExcludeSources: lint.SourceList{
			lint.CABFBaselineRequirements, lint.CABFEVGuidelines, lint.CABFSMIMEBaselineRequirements,
			lint.CABFCSBaselineRequirements, lint.AppleRootStorePolicy, lint.EtsiEsi,
		},
		ExcludeNames: []string{
			// They take URLs of http or ldap alone for an address, as certificates on the
			// open web have them. Whether CRLs are served by https is the operator's choice.
			"w_distribution_point_missing_ldap_or_uri",
			"w_ext_aia_access_location_missing",
		},
	})
	if err != nil {
		return lints{}, fmt.Errorf("choosing lints: %w", err)
	}
	return lints{registry.CertificateLints().Lints(), lint.NewEmptyConfig()}, nil
}

// lint checks what was recorded by a copy of it that a throw-away key signed:
// against the rules of others and against our own profile. The error names the
// lint; it is not for callers, since nothing that they send can be its cause.
func (a *Authority) lint(c Certificate, tbs []byte, copied, issuer *x509.Certificate) error {
	if name := a.failedLint(c, tbs, copied, issuer); name != "" {
		a.metrics.lintFails.WithLabelValues(name).Inc()
		return fmt.Errorf("linting certificate %s: %s", c.ID, name)
	}
	return nil
}

// failedLint names the first lint that fails, "" if none does.
func (a *Authority) failedLint(c Certificate, tbs []byte, copied, issuer *x509.Certificate) string {
	if !bytes.Equal(copied.RawTBSCertificate, tbs) {
		return "profile: differs from what was recorded"
	}
	if problem := a.profileProblem(c, copied, issuer); problem != "" {
		return "profile: " + problem
	}
	parsed, err := zcrypto.ParseCertificate(copied.Raw)
	if err != nil {
		return "zlint: cannot be parsed"
	}
	for _, l := range a.lints.list {
		if l.Execute(parsed, a.lints.config).Status >= lint.Warn {
			return l.Name
		}
	}
	return ""
}

// profileProblem compares a certificate with the profile: each of its parts,
// and that there are no others.
func (a *Authority) profileProblem(c Certificate, cert, issuer *x509.Certificate) string {
	switch {
	case cert.Version != 3:
		return "version"
	case cert.SerialNumber.Sign() <= 0 || cert.SerialNumber.BitLen() > 128 || credential.SerialText(cert.SerialNumber) != c.Serial:
		return "serial number"
	case !bytes.Equal(cert.RawIssuer, issuer.RawSubject):
		return "issuer"
	case credential.IssuerID(issuer) != c.Issuer:
		return "issuer's key"
	case !cert.NotBefore.Equal(c.NotBefore) || !cert.NotAfter.Equal(c.NotAfter):
		return "validity"
	case cert.NotBefore.Before(issuer.NotBefore) || cert.NotAfter.After(issuer.NotAfter):
		return "validity beyond the issuer's"
	case cert.NotAfter.Sub(c.Created) > maxLife || cert.NotBefore.Before(c.Created.Add(-backdate-time.Second)):
		return "lifetime"
	case cert.Subject.String() != "CN="+c.ServiceAccount+",O="+string(c.Account) || len(cert.Subject.Names) != 2:
		return "subject"
	case credential.AllowedKey(cert.PublicKey) != nil:
		return "public key"
	case cert.KeyUsage != x509.KeyUsageDigitalSignature:
		return "key usage"
	case !slices.Equal(cert.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}) || len(cert.UnknownExtKeyUsage) > 0:
		return "extended key usage"
	case !cert.BasicConstraintsValid || cert.IsCA:
		return "basic constraints"
	case len(cert.URIs) != 1 || cert.URIs[0].String() != c.SPIFFEID || len(cert.DNSNames)+len(cert.EmailAddresses)+len(cert.IPAddresses) > 0:
		return "subject alternative name"
	case len(cert.SubjectKeyId) != 20 || !bytes.Equal(cert.AuthorityKeyId, issuer.SubjectKeyId):
		return "key identifiers"
	case !slices.Equal(cert.CRLDistributionPoints, some(a.crlURL(c.Issuer))) || !slices.Equal(cert.IssuingCertificateURL, some(a.issuerURL(c.Issuer))) || len(cert.OCSPServer) > 0:
		return "where to find the issuer"
	case extensions(cert) != a.profileExtensions():
		return "extensions"
	}
	return ""
}

// some is a list of what is not empty.
func some(text string) []string {
	if text == "" {
		return nil
	}
	return []string{text}
}

// extensions lists the certificate's by id, critical ones with a "!".
func extensions(cert *x509.Certificate) string {
	var ids []string
	for _, e := range cert.Extensions {
		id := e.Id.String()
		if e.Critical {
			id += "!"
		}
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return strings.Join(ids, " ")
}

// profileExtensions are those that every client certificate has.
func (a *Authority) profileExtensions() string {
	const always = "2.5.29.14 2.5.29.15! 2.5.29.17 2.5.29.19! 2.5.29.35 2.5.29.37" // SKI, KU, SAN, BC, AKI, EKU
	if a.url == "" {
		return always
	}
	return "1.3.6.1.5.5.7.1.1 2.5.29.14 2.5.29.15! 2.5.29.17 2.5.29.19! 2.5.29.31 2.5.29.35 2.5.29.37" // AIA and CRLs too
}
