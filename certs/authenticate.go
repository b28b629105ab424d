package certs

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/credential"
	"github.com/sallyport-iam/sallyport/internal/pg"
	"github.com/sallyport-iam/sallyport/journal"
)

// Authenticate proves a caller by what its TLS client presented, the leaf first,
// whose key the handshake has proved. The caller has no access yet. Every
// refusal is Unauthenticated; until the leaf has proved to be one of the managed
// CA, all refusals say the same, so that nobody learns which accounts and
// certificates there are. What names no account does not reach the database.
func (a *Authority) Authenticate(ctx context.Context, q pg.Querier, presented []*x509.Certificate, from netip.Addr) (sallyport.Caller, error) {
	p := credential.NewPresented(presented)
	switch {
	case p.Problem != "":
		return sallyport.Caller{}, sallyport.Unauthenticated.Errorf("%s; send the header Authorization: Bearer <API key>, or a certificate that was issued here", p.Problem)
	case p.ServiceAccount == "":
		return sallyport.Caller{}, sallyport.Unauthenticated.Errorf(
			"the client certificate is none of the managed CA, and there is no API key in the request; send the header Authorization: Bearer <API key>, or a certificate that was issued here")
	}
	unknown := sallyport.Unauthenticated.Errorf("the client certificate is not one that was issued here, or was forgotten after it expired; issue a new one")
	s, err := find(ctx, q, p.Account, by{fingerprint: p.Fingerprint})
	if errors.Is(err, sallyport.NotFound) {
		return sallyport.Caller{}, unknown
	}
	if err != nil {
		return sallyport.Caller{}, err
	}
	// From here on the client has the key of a certificate that was issued here.
	caller, err := a.stand(ctx, q, s, from)
	if err != nil {
		return sallyport.Caller{}, err
	}
	issuer, err := s.issuerCertificate()
	if err != nil {
		return sallyport.Caller{}, err
	}
	v := p.Verify(credential.NewAnchors([]*x509.Certificate{issuer}), credential.ManagedCA, a.now())
	switch {
	case v.Problem != "":
		return sallyport.Caller{}, sallyport.Unauthenticated.Errorf("the client certificate %s is not good: %s", s.ID, v.Problem)
	case s.SPIFFEID != credential.SPIFFEID(p.TrustDomain, p.Account, p.ServiceAccount) || s.ServiceAccount != p.ServiceAccount || s.Account != p.Account:
		return sallyport.Caller{}, unknown
	}
	return caller, nil
}

// issuerCertificate is the one that signed the certificate.
func (s stored) issuerCertificate() (*x509.Certificate, error) {
	block, _ := pem.Decode(s.issuer)
	if block == nil {
		return nil, sallyport.Unauthenticated.Errorf("the issuer of the client certificate %s is gone; issue a new one", s.ID)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("reading the issuer %s: %w", s.Issuer, err)
	}
	return cert, nil
}

// Reauthenticate finds out whether a caller that was proved by a certificate
// earlier still is, within the transaction q. The caller it gives has no access
// yet.
func (a *Authority) Reauthenticate(ctx context.Context, q pg.Querier, caller sallyport.Caller) (sallyport.Caller, error) {
	s, err := find(ctx, q, caller.Account, by{id: caller.Credential.ID})
	if errors.Is(err, sallyport.NotFound) || err == nil && s.owner() != caller.Principal {
		return sallyport.Caller{}, sallyport.Unauthenticated.Errorf("the client certificate is gone; issue a new one")
	}
	if err != nil {
		return sallyport.Caller{}, err
	}
	return a.stand(ctx, q, s, caller.From)
}

// stand checks what may have ended the certificate since it was issued. Only
// who has its key reads why.
func (a *Authority) stand(ctx context.Context, q pg.Querier, s stored, from netip.Addr) (sallyport.Caller, error) {
	c := s.Certificate
	owner, err := a.ownerOf(ctx, q, c)
	if err != nil {
		return sallyport.Caller{}, err
	}
	if c.Revoked.IsZero() {
		if c.Revoked, err = revokedOtherwise(ctx, q, s); err != nil {
			return sallyport.Caller{}, err
		}
	}
	state := c.State(a.now())
	switch {
	case owner.Status != object.Active:
		return sallyport.Caller{}, sallyport.Unauthenticated.Errorf("the service account of the client certificate %s is %s; ask an owner or admin of the account", c.ID, orGone(owner.Status))
	case state == Revoked:
		return sallyport.Caller{}, sallyport.Unauthenticated.Errorf("the client certificate %s was revoked at %s; issue a new one", c.ID, c.Revoked.Format(time.RFC3339))
	case state == Expired:
		return sallyport.Caller{}, sallyport.Unauthenticated.Errorf("the client certificate %s expired at %s; issue a new one", c.ID, c.NotAfter.Format(time.RFC3339))
	case state != Active:
		return sallyport.Caller{}, sallyport.Unauthenticated.Errorf("the client certificate %s was never handed out", c.ID)
	case owner.Account == object.Disabled:
		return sallyport.Caller{}, sallyport.Unauthenticated.Errorf("the account %s is closed", c.Account)
	}
	return sallyport.Caller{
		Account: c.Account, Principal: c.owner(), From: from,
		Credential: sallyport.Credential{Kind: CredentialKind, ID: c.ID},
	}, nil
}

// maxPresented are the certificates of a TLS client that CheckBound looks at.
const maxPresented = 10

// CheckBound answers Unauthenticated when a certificate that a TLS client presented,
// the leaf first, cannot carry a token of the account any more: it was issued here
// and does not stand, or the account revoked it or one above it. Whose CA made it
// does not matter; a CA that the client does not present is not known, so that a
// revocation by it does not count here, but those by fingerprint always do.
func (a *Authority) CheckBound(ctx context.Context, q pg.Querier, account sallyport.AccountID, presented []*x509.Certificate) error {
	presented = presented[:min(len(presented), maxPresented)]
	if p := credential.NewPresented(presented[:min(len(presented), 1)]); p.ServiceAccount != "" { // whatever comes after the leaf
		s, err := find(ctx, q, p.Account, by{fingerprint: p.Fingerprint})
		if err == nil {
			_, err = a.stand(ctx, q, s, netip.Addr{})
		}
		if err != nil && !errors.Is(err, sallyport.NotFound) {
			return err
		}
	}
	var ids []string
	for n, cert := range presented {
		ids = append(ids, object.RevokedCertificate(credential.Fingerprint(cert)))
		if n > 0 {
			ids = append(ids, object.RevokedIssuer(credential.IssuerID(cert)))
		}
		for _, issuer := range presented[1:] {
			ids = append(ids, object.RevokedSerial(credential.IssuerID(issuer), credential.SerialText(cert.SerialNumber)))
		}
	}
	ended, err := journal.ReadObjects(ctx, q, account, object.KindRevocation, ids)
	if err == nil && len(ended) > 0 {
		err = sallyport.Unauthenticated.Errorf("the client certificate that is presented, or one above it, was revoked in the account %s; use another one", account)
	}
	return err
}

// revokedOtherwise tells since when the certificate or its issuer is revoked by
// any of the names that authorizers know them by, which the rows need not say;
// zero: it is not.
func revokedOtherwise(ctx context.Context, q pg.Querier, s stored) (time.Time, error) {
	issuer, err := s.issuerCertificate()
	if err != nil {
		return time.Time{}, err
	}
	return anyRevoked(ctx, q, s.Account, []string{
		object.RevokedCertificate(s.Fingerprint), object.RevokedSerial(s.Issuer, s.Serial),
		object.RevokedIssuer(s.Issuer), object.RevokedCertificate(credential.Fingerprint(issuer)),
		object.RevokedSerial(s.above, credential.SerialText(issuer.SerialNumber)),
	})
}
