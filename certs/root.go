package certs

import (
	"context"
	"crypto/x509"
	"time"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/internal/pg"
)

// RootParams says what root to make, or what request for one.
type RootParams struct {
	Name    string // the organisation's
	Years   int    // of its life; zero: 10
	KeyType string // "p256" or "p384"; "": p384
}

// Root is a CA of the operator's, under which accounts' intermediates are made:
// a root of its own, or an intermediate that was signed elsewhere.
type Root struct {
	ID        string // credential.IssuerID
	Subject   string
	Chain     []byte // PEM, itself first; nil: its certificate was not signed, or not imported yet
	NotBefore time.Time
	NotAfter  time.Time
	Created   time.Time
	Retired   time.Time // new intermediates are made by others since then; zero: by it
	Current   bool
	Issuers   int    // intermediates under it that are good
	Problem   string // why it cannot sign; "": it can
}

// InitRoot makes the operator's first root.
func (a *Authority) InitRoot(ctx context.Context, caller sallyport.Caller, p RootParams) (Root, error) {
	return Root{}, errNotYet
}

// RotateRoot makes a new root beside the others, and retires them.
func (a *Authority) RotateRoot(ctx context.Context, caller sallyport.Caller, p RootParams) (Root, error) {
	return Root{}, errNotYet
}

// RetireRoot ends a root's making new intermediates.
func (a *Authority) RetireRoot(ctx context.Context, caller sallyport.Caller, id string) (Root, error) {
	return Root{}, errNotYet
}

// RequestIntermediate makes a key, and the request for its certificate, PEM.
func (a *Authority) RequestIntermediate(ctx context.Context, caller sallyport.Caller, p RootParams) (csr []byte, err error) {
	return nil, errNotYet
}

// ImportIntermediate takes the certificate that was requested.
func (a *Authority) ImportIntermediate(ctx context.Context, caller sallyport.Caller, chain []byte) (Root, error) {
	return Root{}, errNotYet
}

// ListRoots lists the operator's CAs, newest first.
func (a *Authority) ListRoots(ctx context.Context) ([]Root, error) { return nil, errNotYet }

// Roots are all CA certificates of the operator's that have not expired.
func (a *Authority) Roots(ctx context.Context, q pg.Querier) ([]*x509.Certificate, error) {
	return nil, nil
}
