package certs

import (
	"context"
	"crypto/x509"
	"net/netip"
	"time"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/internal/pg"
	"github.com/sallyport-iam/sallyport/journal"
)

// IssueParams says what certificate to make.
type IssueParams struct {
	ServiceAccount string
	CSR            []byte
	Lifetime       time.Duration
}

// RenewParams says what certificate to renew.
type RenewParams struct {
	ID       string
	CSR      []byte
	Lifetime time.Duration
}

// RevokeParams says what to revoke.
type RevokeParams struct {
	CertificateID string
	Fingerprint   string
	Serial        string
	Issuer        string
	Reason        string
}

var errNotYet = sallyport.Unavailable.Errorf("not yet")

// Issue makes a certificate.
func (a *Authority) Issue(ctx context.Context, caller sallyport.Caller, op journal.Operation, p IssueParams) (Issued, journal.Committed, error) {
	return Issued{}, journal.Committed{}, errNotYet
}

// Renew makes the successor of a certificate.
func (a *Authority) Renew(ctx context.Context, caller sallyport.Caller, op journal.Operation, p RenewParams) (Issued, journal.Committed, error) {
	return Issued{}, journal.Committed{}, errNotYet
}

// Get reads a certificate.
func (a *Authority) Get(ctx context.Context, caller sallyport.Caller, id string) (Issued, error) {
	return Issued{}, errNotYet
}

// List lists certificates.
func (a *Authority) List(ctx context.Context, caller sallyport.Caller, serviceAccount string, p sallyport.Page) ([]Certificate, string, error) {
	return nil, "", errNotYet
}

// Revoke revokes.
func (a *Authority) Revoke(ctx context.Context, caller sallyport.Caller, op journal.Operation, p RevokeParams) ([]Revocation, journal.Committed, error) {
	return nil, journal.Committed{}, errNotYet
}

// Revocations lists what is revoked.
func (a *Authority) Revocations(ctx context.Context, caller sallyport.Caller, p sallyport.Page) ([]Revocation, string, error) {
	return nil, "", errNotYet
}

// Issuers lists the account's CAs and the operator's roots.
func (a *Authority) Issuers(ctx context.Context, caller sallyport.Caller) (issuers []Issuer, roots []byte, err error) {
	return nil, nil, errNotYet
}

// Authenticate proves a caller by a certificate.
func (a *Authority) Authenticate(ctx context.Context, q pg.Querier, presented []*x509.Certificate, from netip.Addr) (sallyport.Caller, error) {
	return sallyport.Caller{}, errNotYet
}

// Reauthenticate proves a caller again.
func (a *Authority) Reauthenticate(ctx context.Context, q pg.Querier, caller sallyport.Caller) (sallyport.Caller, error) {
	return sallyport.Caller{}, errNotYet
}

// RemoveOwned revokes what a service account has.
func (a *Authority) RemoveOwned(ctx context.Context, tx *journal.Tx, serviceAccount string) error {
	return nil
}

// Objects rebuilds the account's replicated objects.
func (a *Authority) Objects(ctx context.Context, q pg.Querier, account sallyport.AccountID) ([]object.Object, error) {
	return nil, errNotYet
}

// Run runs.
func (a *Authority) Run(ctx context.Context) error {
	<-ctx.Done()
	return nil
}

func writeUses(ctx context.Context, q pg.Querier, used map[useKey]time.Time) error { return nil }
