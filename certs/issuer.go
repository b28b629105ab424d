package certs

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/internal/pg"
	"github.com/sallyport-iam/sallyport/journal"
)

// issuing is an account's intermediate that makes certificates now.
type issuing struct {
	ID          string // credential.IssuerID
	Certificate *x509.Certificate
	Signer      crypto.Signer
	Chain       []byte // PEM: the certificate, and those above it up to the root, which is not in it
}

// errIssuerNeeded asks withIssuer for a new intermediate.
var errIssuerNeeded = errors.New("the account needs a new intermediate")

// issuer gives the account's intermediate that makes certificates now, for a
// change within withIssuer: it answers errIssuerNeeded, to be handed on as it is,
// when there is none or it is to be replaced.
func (a *Authority) issuer(ctx context.Context, tx *journal.Tx) (*issuing, error) {
	return nil, sallyport.Unavailable.Errorf("not yet")
}

// withIssuer runs a change that calls issuer. Where the account needs a new
// intermediate it is made, in commits of its own since it is recorded before it
// is signed, and the change is run again.
func (a *Authority) withIssuer(ctx context.Context, account sallyport.AccountID, change func() (journal.Committed, error)) (journal.Committed, error) {
	return change()
}

// endIssuer makes the account's intermediate with the id issue no more and takes
// it from the authorizers, in a change that revokes it. It reports whether the
// account has such an intermediate. The Revocation is the caller's to put.
func (a *Authority) endIssuer(ctx context.Context, tx *journal.Tx, id string) (found bool, err error) {
	return false, nil
}

// issuerObjects rebuilds the account's KindIssuer objects, by id.
func (a *Authority) issuerObjects(ctx context.Context, q pg.Querier, account sallyport.AccountID) ([]object.Object, error) {
	return nil, nil
}

// runIssuers reaps intermediates, keeps CRLs fresh and looks for problems until
// the context ends.
func (a *Authority) runIssuers(ctx context.Context) { <-ctx.Done() }

// crlURL is where others find the issuer's CRL, "" if they cannot.
func (a *Authority) crlURL(issuer string) string {
	if a.url == "" {
		return ""
	}
	return a.url + "/pki/crl/" + issuer + ".crl"
}

// issuerURL is where others find the issuer's certificate, "" if they cannot.
func (a *Authority) issuerURL(issuer string) string {
	if a.url == "" {
		return ""
	}
	return a.url + "/pki/issuer/" + issuer + ".crt"
}
