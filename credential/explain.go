package credential

import (
	"cmp"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// leafFlaw says what of the profile's rules a leaf breaks, "" if none. That its
// issuer is the right one is checked later.
func (r rules) leafFlaw(p *Presented) string {
	leaf := p.leaf.cert
	if !r.managed {
		return ""
	}
	if AllowedKey(leaf.PublicKey) != nil {
		return "has a key that managed certificates never have"
	}
	if p.ServiceAccount == "" || len(p.altNames) != 1 {
		return "names no service account: one URI spiffe://…/account/…/service-account/… and no other name is needed"
	}
	if leaf.KeyUsage != x509.KeyUsageDigitalSignature || !slices.Equal(leaf.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}) ||
		len(leaf.UnknownExtKeyUsage) > 0 || !leaf.BasicConstraintsValid {
		return "has not the profile of managed certificates: digitalSignature, clientAuth and CA:false"
	}
	return ""
}

// untimely says that a certificate is not valid at now, and what to do about one
// that was; "" if it is valid.
func untimely(cert *x509.Certificate, now time.Time, remedy string) string {
	switch {
	case now.Before(cert.NotBefore):
		return "is not valid before " + stamp(cert.NotBefore) + "; check the clocks"
	case now.After(cert.NotAfter):
		return "expired at " + stamp(cert.NotAfter) + "; " + remedy
	}
	return ""
}

// explain says why there is no chain. err is what crypto/x509 says, which knows
// the first candidate only; so the way up is walked once more, by names.
func (p *Presented) explain(a *Anchors, r rules, now time.Time, err error) string {
	var invalid x509.CertificateInvalidError
	if errors.As(err, &invalid) {
		switch invalid.Reason {
		case x509.CANotAuthorizedForThisName:
			return "a CA of the client certificate's chain may not certify its names: " + quoted(invalid.Detail)
		case x509.IncompatibleUsage:
			return "a CA of the client certificate's chain is for other uses than client authentication: its extended key usage does not have it"
		}
	}
	at := p.leaf.cert
	what := "the client certificate"
	for range maxChain {
		anchor, problem := issuerAmong(a.members, at, now)
		if anchor != nil && at.CheckSignatureFrom(anchor) == nil {
			if next, none := issuerAmong(a.members, anchor, now); next == nil && none == "" {
				break // the chain ends well: the reason is another one, a path length for example
			}
			at, what = anchor, "the CA certificate "+nameOf(anchor)
			continue
		}
		if anchor != nil {
			problem = fmt.Sprintf("names as its issuer the CA %s, which did not sign it", nameOf(anchor))
		}
		above, other := issuerAmong(p.presented, at, now)
		switch {
		case above != nil:
			at, what = above, "the presented CA certificate "+nameOf(above)
		case problem != "" || other != "":
			return what + " " + cmp.Or(problem, other)
		case at == p.leaf.cert:
			return fmt.Sprintf("the client certificate is not issued by %s: its issuer is %s", r.issuers, quoted(at.Issuer.String()))
		default:
			return fmt.Sprintf("the client certificate's chain does not lead to %s: it ends at the issuer %s", r.issuers, quoted(at.Issuer.String()))
		}
	}
	return "no chain of the client certificate holds: " + strings.ReplaceAll(err.Error(), "x509: ", "")
}

// issuerAmong looks for a CA that may have issued cert, or says why those that
// have the issuer's name do not count. Neither means that none has that name.
func issuerAmong(cas []member, cert *x509.Certificate, now time.Time) (found *x509.Certificate, problem string) {
	for _, ca := range cas {
		if ca.cert == cert || string(ca.cert.RawSubject) != string(cert.RawIssuer) {
			continue
		}
		problem = issuerFlaw(ca, cert, now)
		if problem == "" {
			return ca.cert, ""
		}
	}
	return nil, problem
}

// issuerFlaw says why a CA does not count as the issuer of cert.
func issuerFlaw(ca member, cert *x509.Certificate, now time.Time) string {
	if ca.flaw != "" {
		return fmt.Sprintf("names as its issuer the CA %s, which %s", nameOf(ca.cert), ca.flaw)
	}
	if problem := untimely(ca.cert, now, "renew the CA"); problem != "" {
		return fmt.Sprintf("is issued by the CA %s, which %s", nameOf(ca.cert), problem)
	}
	if len(cert.AuthorityKeyId) > 0 && len(ca.cert.SubjectKeyId) > 0 && string(cert.AuthorityKeyId) != string(ca.cert.SubjectKeyId) {
		return fmt.Sprintf("names as its issuer the CA %s, but with another key: it is from an older or a newer CA of that name", nameOf(ca.cert))
	}
	return ""
}
