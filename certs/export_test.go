package certs

import (
	"context"
	"crypto"
	"crypto/x509"
	"time"

	"github.com/sallyport-iam/sallyport"
)

// Watch lets a test stand between the authority and its issuers' keys.
func (a *Authority) Watch(watch func(crypto.Signer) crypto.Signer) { a.watch = watch }

// Count brings the gauges up to date.
func (a *Authority) Count(ctx context.Context) error { return a.count(ctx) }

// CountEvery sets how often Run counts.
func (a *Authority) CountEvery(d time.Duration) { a.countEvery = d }

// Make is Issue without the database: the request read and checked, the content
// decided and signed with a throw-away key, linted, signed and checked.
func (a *Authority) Make(account sallyport.AccountID, serviceAccount string, csr []byte, issuer *x509.Certificate, key crypto.Signer, id string) error {
	public, err := a.requested(csr, 0)
	if err != nil {
		return err
	}
	now := a.now()
	iss := &issuing{ID: id, Certificate: issuer, Signer: key}
	u, err := a.decide(Certificate{Account: account, ID: "cert_bench", Created: now}, iss,
		request{serviceAccount: serviceAccount, key: public, lifetime: defaultLife, until: now.Add(a.maxRenewal)})
	if err != nil {
		return err
	}
	return a.sign(&u.stored, iss, u.copy)
}
