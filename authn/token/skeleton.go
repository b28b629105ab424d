package token

import (
	"context"
	"crypto/x509"
	"net/http"
	"net/netip"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/internal/fetch"
	"github.com/sallyport-iam/sallyport/internal/pg"
	"github.com/sallyport-iam/sallyport/journal"
)

type (
	metrics   struct{}
	signers   struct{}
	verified  struct{}
	keySets   struct{}
	limits    struct{}
	uses      struct{}
	published struct{}
)

func newMetrics() metrics                                 { return metrics{} }
func (metrics) register(prometheus.Registerer) error      { return nil }
func newVerified() verified                               { return verified{} }
func newKeySets(*fetch.Client, func() time.Time) *keySets { return &keySets{} }
func newLimits() limits                                   { return limits{} }
func newUses() uses                                       { return uses{} }

// Handler serves the endpoints.
func (i *Issuer) Handler() http.Handler { return http.NotFoundHandler() }

// MTLSHandler serves the endpoints on the listener with client certificates.
func (i *Issuer) MTLSHandler() http.Handler { return http.NotFoundHandler() }

// Authenticate proves a caller by a token.
func (i *Issuer) Authenticate(context.Context, pg.Querier, string, []*x509.Certificate, netip.Addr) (sallyport.Caller, error) {
	return sallyport.Caller{}, errSkeleton
}

// Reauthenticate proves a caller again.
func (i *Issuer) Reauthenticate(context.Context, pg.Querier, sallyport.Caller) (sallyport.Caller, error) {
	return sallyport.Caller{}, errSkeleton
}

// MarkUsed notes that a token of the id, which was accepted here, was used.
func (i *Issuer) MarkUsed(sallyport.AccountID, string, time.Time) {}

// MarkRuleUsed notes that a rule was used.
func (i *Issuer) MarkRuleUsed(sallyport.AccountID, string, time.Time) {}

// RemoveOwned ends the rules of a principal.
func (i *Issuer) RemoveOwned(context.Context, *journal.Tx, string) error { return errSkeleton }

// Objects rebuilds replicated objects.
func (i *Issuer) Objects(context.Context, pg.Querier, sallyport.AccountID) ([]object.Object, error) {
	return nil, errSkeleton
}

// Run does what has its time.
func (i *Issuer) Run(context.Context) error { return errSkeleton }

// Keys lists the signing keys.
func (i *Issuer) Keys(context.Context) ([]SigningKey, error) { return nil, errSkeleton }

// RotateKey makes the next key the active one.
func (i *Issuer) RotateKey(context.Context, sallyport.Caller) (SigningKey, journal.Committed, error) {
	return SigningKey{}, journal.Committed{}, errSkeleton
}

// RevokeKey ends a key and all that it signed.
func (i *Issuer) RevokeKey(context.Context, sallyport.Caller, string) (SigningKey, journal.Committed, error) {
	return SigningKey{}, journal.Committed{}, errSkeleton
}
