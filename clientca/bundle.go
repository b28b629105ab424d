package clientca

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"slices"
	"strings"
	"unicode"

	"golang.org/x/crypto/x509roots/fallback/bundle"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/credential"
	"github.com/sallyport-iam/sallyport/directory"
	"github.com/sallyport-iam/sallyport/internal/pg"
	"github.com/sallyport-iam/sallyport/journal"
)

// Fields of CloudService's namespace spec, which errors name.
const (
	bundleField  = "spec.mtls_auth.accepted_client_ca"
	filtersField = "spec.mtls_auth.certificate_filters"
)

// Bounds of a bundle, as credential.ParseClientCAs has them.
const (
	maxBundle = 32 << 10
	maxCAs    = 16
)

const pemBegin = "-----BEGIN "

// entry is a certificate of a stored bundle and where its bytes are.
type entry struct {
	cert       *x509.Certificate
	start, end int // of the PEM block with the end of its last line
}

// entries reads a bundle that was checked when it was stored. Rules that came
// later do not hold for it, so that it stays readable.
func entries(bundle []byte) []entry {
	var found []entry
	for at := 0; ; {
		i := bytes.Index(bundle[at:], []byte(pemBegin))
		if i < 0 {
			return found
		}
		start := at + i
		block, rest := pem.Decode(bundle[start:])
		if block == nil {
			return found
		}
		at = len(bundle) - len(rest)
		if cert, err := x509.ParseCertificate(block.Bytes); err == nil {
			found = append(found, entry{cert, start, at})
		}
	}
}

func certificates(bundle []byte) []*x509.Certificate {
	var certs []*x509.Certificate
	for _, e := range entries(bundle) {
		certs = append(certs, e.cert)
	}
	return certs
}

// appended is the bundle with more PEM at its end: what was there stays as it
// is, but for the end of its last line.
func appended(bundle, more []byte) []byte {
	all := bytes.Clone(bundle)
	if len(all) > 0 && all[len(all)-1] != '\n' {
		all = append(all, '\n')
	}
	return append(all, more...)
}

// without is the bundle less the blocks of some certificates.
func without(bundle []byte, gone func(*x509.Certificate) bool) []byte {
	var rest []byte
	at := 0
	for _, e := range entries(bundle) {
		if gone(e.cert) {
			rest = append(rest, bundle[at:e.start]...)
			at = e.end
		}
	}
	return append(rest, bundle[at:]...)
}

// check says whether the namespace can have its bundle and filters. Those that
// it has already are not asked about again: what was allowed once does not stop
// another change.
func (c *ClientCAs) check(ctx context.Context, q pg.Querier, account sallyport.AccountID, before, after directory.Namespace) error {
	newCAs, newFilters := !bytes.Equal(before.ClientCA, after.ClientCA), !slices.Equal(before.CertificateFilters, after.CertificateFilters)
	if newCAs {
		if err := c.checkBundle(ctx, q, account, after.ClientCA); err != nil {
			return inField(err, bundleField)
		}
	}
	if newFilters {
		if err := credential.CheckFilters(after.CertificateFilters); err != nil {
			return inField(err, filtersField)
		}
	}
	if newCAs || newFilters {
		if err := c.checkPublic(after.ClientCA, len(after.CertificateFilters)); err != nil {
			return err
		}
	}
	if !after.MTLSAuth || len(bytes.TrimSpace(after.ClientCA)) > 0 || !newCAs && before.MTLSAuth {
		return nil
	}
	managed, err := c.managed(ctx, q)
	if err == nil && !managed {
		err = sallyport.InvalidField(bundleField, "is required while mTLS is enabled")
	}
	return err
}

// managed reports whether there is a managed CA, whose certificates need no bundle.
func (c *ClientCAs) managed(ctx context.Context, q pg.Querier) (bool, error) {
	roots, err := c.operatorRoots(ctx, q)
	return len(roots) > 0, err
}

// checkBundle checks a bundle by itself. A customer's CA must be none of the
// managed CA: under it the URI that names a service account would be plain text.
// Its errors have no field.
func (c *ClientCAs) checkBundle(ctx context.Context, q pg.Querier, account sallyport.AccountID, pem []byte) error {
	cas, err := credential.ParseClientCAs(pem)
	if err != nil || len(cas) == 0 {
		return err
	}
	roots, err := c.operatorRoots(ctx, q)
	if err != nil {
		return err
	}
	own, err := c.issuers(ctx, q, account)
	if err != nil {
		return err
	}
	// What one of them issued is in a bundle only beside it, or beside its root.
	for i, ca := range cas {
		switch {
		case hasKey(own, ca):
			return sallyport.Invalid.Errorf("certificate %d is this account's intermediate of the managed CA, whose certificates are accepted wherever mTLS is on; take it out of the bundle", i+1)
		case hasKey(roots, ca):
			return sallyport.Invalid.Errorf("certificate %d is a CA of the operator's, under which the managed CA issues for all accounts, so that no certificate is let in by it as a customer's; take it out of the bundle, and give workers certificates of the managed CA, which need no bundle, or of a CA with another root", i+1)
		}
	}
	return nil
}

// hasKey reports whether one of the CAs has the key of the other.
func hasKey(cas []*x509.Certificate, other *x509.Certificate) bool {
	return slices.ContainsFunc(cas, func(ca *x509.Certificate) bool {
		return bytes.Equal(ca.RawSubjectPublicKeyInfo, other.RawSubjectPublicKeyInfo)
	})
}

// issuers are the account's own intermediates of the managed CA.
func (c *ClientCAs) issuers(ctx context.Context, q pg.Querier, account sallyport.AccountID) ([]*x509.Certificate, error) {
	objects, err := journal.ReadObjects(ctx, q, account, object.KindIssuer, nil)
	if err != nil {
		return nil, err
	}
	var cas []*x509.Certificate
	for _, o := range objects {
		issuer, err := object.Decode[object.Issuer](o.Data)
		if err != nil {
			return nil, err
		}
		cert, err := x509.ParseCertificate(issuer.Certificate)
		if err != nil {
			return nil, fmt.Errorf("reading the issuer %s: %w", o.ID, err)
		}
		cas = append(cas, cert)
	}
	return cas, nil
}

// publicRoots are the keys of the CAs that everybody trusts and anybody gets
// certificates from. A CA that one of them issued is in a bundle only beside it.
type publicRoots map[string]bool

func newPublicRoots() (publicRoots, error) {
	p := publicRoots{}
	for root := range bundle.Roots() {
		cert, err := x509.ParseCertificate(root.Certificate)
		if err != nil {
			return p, fmt.Errorf("reading the publicly known CAs: %w", err)
		}
		p[string(cert.RawSubjectPublicKeyInfo)] = true
	}
	return p, nil
}

// checkPublic: under a CA that gives certificates to everybody, filters are all
// that keeps strangers out.
func (c *ClientCAs) checkPublic(pem []byte, filters int) error {
	if filters > 0 {
		return nil
	}
	for i, ca := range certificates(pem) {
		if c.public[string(ca.RawSubjectPublicKeyInfo)] {
			return sallyport.InvalidField(filtersField, "must not be empty while the bundle has a publicly known CA (certificate %d), from which anybody can get a certificate", i+1)
		}
	}
	return nil
}

// inField says which field of the request an error is about; what the error
// says already is a place in that field.
func inField(err error, field string) error {
	e, ok := err.(*sallyport.Error) //nolint:errorlint // only what a check answers itself, not a cause
	if !ok {
		return err
	}
	return &sallyport.Error{Kind: e.Kind, Field: field + e.Field, Msg: e.Msg, Err: e.Err}
}

// text makes what is in a stranger's certificate fit to be kept and shown.
func text(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		if r == unicode.ReplacementChar || unicode.IsControl(r) || unicode.Is(unicode.Cf, r) {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most-len("…")], "") + "…"
}
