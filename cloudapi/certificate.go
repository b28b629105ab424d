package cloudapi

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"strings"
	"time"

	"go.temporal.io/cloud-sdk/api/namespace/v1"

	"github.com/sallyport-iam/sallyport"
)

// Limits of a namespace's client CAs, as Temporal Cloud has them.
const (
	maxCABytes     = 32 << 10
	maxCAs         = 16
	maxFilters     = 25
	maxFilterValue = 256
)

// checkCA checks a bundle of CA certificates: PEM and nothing else, each a CA
// with a sound signature, each a root or issued by another one of the bundle.
// One that has expired is accepted; the bytes are kept as they are.
func checkCA(field string, bundle []byte) error {
	if len(bundle) > maxCABytes {
		return sallyport.InvalidField(field, "has %d bytes; at most %d are possible", len(bundle), maxCABytes)
	}
	certs, err := parseCAs(field, bundle)
	if err != nil {
		return err
	}
	for i, cert := range certs {
		if !rooted(cert, certs) {
			return sallyport.InvalidField(field, "certificate %d is neither a root nor issued by another one of the bundle; add its issuer", i+1)
		}
	}
	return nil
}

// rooted reports whether one of the bundle, itself included, issued cert.
func rooted(cert *x509.Certificate, bundle []*x509.Certificate) bool {
	for _, issuer := range bundle {
		if bytes.Equal(cert.RawIssuer, issuer.RawSubject) && cert.CheckSignatureFrom(issuer) == nil {
			return true
		}
	}
	return false
}

func parseCAs(field string, bundle []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for rest := bytes.TrimSpace(bundle); len(rest) > 0; rest = bytes.TrimSpace(rest) {
		if !bytes.HasPrefix(rest, []byte("-----BEGIN ")) {
			return nil, sallyport.InvalidField(field, "has text after %d certificates that is not PEM; send the certificates and nothing else", len(certs))
		}
		var block *pem.Block
		block, rest = pem.Decode(rest)
		switch {
		case block == nil:
			return nil, sallyport.InvalidField(field, "certificate %d is not well-formed PEM", len(certs)+1)
		case block.Type != "CERTIFICATE":
			return nil, sallyport.InvalidField(field, "block %d is not a certificate; never send private keys", len(certs)+1)
		case len(certs) == maxCAs:
			return nil, sallyport.InvalidField(field, "has more than %d certificates", maxCAs)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, sallyport.InvalidField(field, "certificate %d cannot be read as X.509", len(certs)+1)
		}
		if problem := problemOf(cert); problem != "" {
			return nil, sallyport.InvalidField(field, "certificate %d %s", len(certs)+1, problem)
		}
		certs = append(certs, cert)
	}
	return certs, nil
}

// problemOf says why a certificate cannot be a client CA, "" if it can.
func problemOf(cert *x509.Certificate) string {
	switch cert.SignatureAlgorithm {
	case x509.SHA256WithRSA, x509.SHA384WithRSA, x509.SHA512WithRSA, x509.SHA256WithRSAPSS, x509.SHA384WithRSAPSS,
		x509.SHA512WithRSAPSS, x509.ECDSAWithSHA256, x509.ECDSAWithSHA384, x509.ECDSAWithSHA512:
	default:
		return fmt.Sprintf("is signed with %s; RSA or ECDSA with SHA-256 or stronger is required", cert.SignatureAlgorithm)
	}
	if cert.Version != 3 || !cert.BasicConstraintsValid || !cert.IsCA {
		return "is not a CA: it must be X.509 version 3 with the basic constraint CA:true"
	}
	return ""
}

// expiredCAs says which certificates of a good bundle have expired.
func expiredCAs(bundle []byte, now time.Time) []string {
	certs, err := parseCAs("", bundle)
	if err != nil {
		return nil
	}
	var warnings []string
	for i, cert := range certs {
		if now.After(cert.NotAfter) {
			warnings = append(warnings, fmt.Sprintf("client CA certificate %d expired at %s; no client certificate under it is accepted", i+1, cert.NotAfter.UTC().Format(time.RFC3339)))
		}
	}
	return warnings
}

func checkFilters(field string, filters []*namespace.CertificateFilterSpec) error {
	if len(filters) > maxFilters {
		return sallyport.InvalidField(field, "has %d filters; at most %d are possible", len(filters), maxFilters)
	}
	for i, f := range filters {
		values := []struct{ name, value string }{
			{"common_name", f.GetCommonName()}, {"organization", f.GetOrganization()},
			{"organizational_unit", f.GetOrganizationalUnit()}, {"subject_alternative_name", f.GetSubjectAlternativeName()},
		}
		given := 0
		for _, v := range values {
			if v.value == "" {
				continue
			}
			given++
			if problem := filterProblem(v.value); problem != "" {
				return sallyport.InvalidField(fmt.Sprintf("%s[%d].%s", field, i, v.name), "%s", problem)
			}
		}
		if given == 0 {
			return sallyport.InvalidField(fmt.Sprintf("%s[%d]", field, i), "is empty and would let everybody in; give at least one of its fields")
		}
	}
	return nil
}

// filterProblem: a value is exact but for one * at its beginning or its end.
func filterProblem(value string) string {
	inner := strings.TrimPrefix(value, "*")
	if inner == value {
		inner = strings.TrimSuffix(value, "*")
	}
	switch {
	case len(value) > maxFilterValue:
		return fmt.Sprintf("has more than %d bytes", maxFilterValue)
	case inner == "" || strings.Contains(inner, "*"):
		return "may have one * at its beginning or its end, with something beside it, and none elsewhere"
	}
	return ""
}
