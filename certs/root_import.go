package certs

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/credential"
	"github.com/sallyport-iam/sallyport/journal"
)

// requestLife is how long a request waits for its certificate.
const requestLife = 90 * 24 * time.Hour

// RequestIntermediate makes a key, and the request (PEM) for a certificate under
// a CA that is elsewhere. ImportIntermediate takes what that CA makes of it.
func (a *Authority) RequestIntermediate(ctx context.Context, caller sallyport.Caller, p RootParams) (csr []byte, err error) {
	if err := a.checkRoot(caller, &p); err != nil {
		return nil, err
	}
	key, err := newKey(p.KeyType)
	if err != nil {
		return nil, err
	}
	id, err := keyID(key.Public())
	if err != nil {
		return nil, err
	}
	sealed, err := a.sealKey(sallyport.SystemAccount, id, key)
	if err != nil {
		return nil, err
	}
	_, err = a.journal.Commit(ctx, caller, sallyport.SystemAccount, journal.Operation{Type: "RequestRoot"}, func(tx *journal.Tx) error {
		tx.Target(id)
		tx.Record(journal.Change{Type: "root", ID: id, After: map[string]any{"requested": true}})
		return insertIssuer(ctx, tx, issuerRow{account: sallyport.SystemAccount, id: id, sealedKey: sealed,
			notBefore: tx.Now(), notAfter: tx.Now().Add(requestLife), created: tx.Now(), revision: tx.Revision()})
	})
	if err != nil {
		return nil, err
	}
	// Only a key that is kept makes a request.
	recorded, err := findIssuer(ctx, a.pool, id)
	if err != nil {
		return nil, err
	}
	signer, err := a.signer(recorded)
	if err != nil {
		return nil, err
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject: pkix.Name{Organization: []string{p.Name}, CommonName: p.Name + " Issuing CA " + id[:8]}}, signer)
	if err != nil {
		return nil, fmt.Errorf("making a certificate request: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), nil
}

// ImportIntermediate takes the certificate of a key that RequestIntermediate
// made, with all certificates above it up to a root, PEM. It becomes the current
// CA of the operator, and others are retired.
func (a *Authority) ImportIntermediate(ctx context.Context, caller sallyport.Caller, chain []byte) (Root, error) {
	if err := a.operatorOnly(caller); err != nil {
		return Root{}, err
	}
	certificates, err := credential.ParseChain(chain)
	if err != nil {
		return Root{}, err
	}
	if err := a.checkImported(certificates); err != nil {
		return Root{}, err
	}
	row, err := findIssuer(ctx, a.pool, credential.IssuerID(certificates[0]))
	switch {
	case sallyport.KindOf(err) == sallyport.NotFound || err == nil && row.account != sallyport.SystemAccount:
		return Root{}, sallyport.Invalid.Errorf("the first certificate is not for a key that was made here; make one with: sallyportd ca init --csr FILE")
	case err != nil:
		return Root{}, err
	case !row.retired.IsZero():
		return Root{}, sallyport.Conflict.Errorf("the request was given up at %s; make a new one with: sallyportd ca init --csr FILE", row.retired.Format(time.RFC3339))
	}
	row.certificates = certificates
	if _, err := a.signer(row); err != nil {
		return Root{}, err
	}
	return a.publishRoot(ctx, caller, "ImportRoot", certificates)
}

// checkImported checks the chain as verifiers of what is below it will: from the
// operator's CA to a root.
func (a *Authority) checkImported(chain []*x509.Certificate) error {
	for i, c := range chain {
		name := fmt.Sprintf("certificate %d (%s)", i+1, c.Subject)
		switch {
		case !c.BasicConstraintsValid || !c.IsCA:
			return sallyport.Invalid.Errorf("%s is not a CA's", name)
		case c.KeyUsage&x509.KeyUsageCertSign == 0:
			return sallyport.Invalid.Errorf("%s may not sign certificates: its key usage needs keyCertSign", name)
		case i == 0 && c.KeyUsage&x509.KeyUsageCRLSign == 0:
			return sallyport.Invalid.Errorf("%s may not sign CRLs: its key usage needs cRLSign", name)
		case (c.MaxPathLen > 0 || c.MaxPathLenZero) && c.MaxPathLen < i+1:
			return sallyport.Invalid.Errorf("%s allows %d CAs below it and %d are needed: accounts have CAs of their own", name, c.MaxPathLen, i+1)
		case len(c.UnhandledCriticalExtensions) > 0:
			return sallyport.Invalid.Errorf("%s has a critical extension that is not understood, %s", name, c.UnhandledCriticalExtensions[0])
		case a.now().After(c.NotAfter) || a.now().Before(c.NotBefore):
			return sallyport.Invalid.Errorf("%s is valid from %s to %s only", name, c.NotBefore.Format(time.RFC3339), c.NotAfter.Format(time.RFC3339))
		case len(c.ExtKeyUsage)+len(c.UnknownExtKeyUsage) > 0 && !slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageClientAuth) && !slices.Contains(c.ExtKeyUsage, x509.ExtKeyUsageAny):
			return sallyport.Invalid.Errorf("%s is not for client certificates: its extended key usage needs clientAuth", name)
		case !permitsHost(c, a.trustDomain):
			return sallyport.Invalid.Errorf("%s has name constraints that exclude the trust domain %s", name, a.trustDomain)
		}
		if i+1 < len(chain) {
			if err := c.CheckSignatureFrom(chain[i+1]); err != nil {
				return sallyport.Invalid.Errorf("%s was not signed by the certificate after it: %v", name, err)
			}
		} else if !bytes.Equal(c.RawSubject, c.RawIssuer) || c.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature) != nil {
			return sallyport.Invalid.Errorf("the chain ends at %s, which is not a root; add the certificates above it", name)
		}
	}
	return nil
}

// permitsHost reports whether the CA's name constraints let URIs of the host be
// below it (RFC 5280, 4.2.1.10).
func permitsHost(c *x509.Certificate, host string) bool {
	matches := func(constraint string) bool {
		if strings.HasPrefix(constraint, ".") {
			return strings.HasSuffix(strings.ToLower(host), strings.ToLower(constraint))
		}
		return constraint == "" || strings.EqualFold(host, constraint)
	}
	permitted := len(c.PermittedURIDomains) == 0 || slices.ContainsFunc(c.PermittedURIDomains, matches)
	return permitted && !slices.ContainsFunc(c.ExcludedURIDomains, matches)
}
