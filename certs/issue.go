package certs

import (
	"context"
	"crypto/x509"
	"errors"
	"time"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/credential"
	"github.com/sallyport-iam/sallyport/directory"
	"github.com/sallyport-iam/sallyport/journal"
)

const (
	minLife     = 10 * time.Minute
	maxLife     = 90 * 24 * time.Hour
	defaultLife = 24 * time.Hour
)

// IssueParams says what certificate to make.
type IssueParams struct {
	ServiceAccount string // its id
	// CSR is a PKCS #10 request, PEM or DER. Its signature proves that the client
	// has the key; of all it says only the public key counts.
	CSR []byte
	// Lifetime is ten minutes to 90 days; zero: 24 hours. A certificate never
	// outlives its issuer: it ends with it where it would.
	Lifetime time.Duration
}

// Issue makes a certificate for a service account, the first of a chain of
// renewals. Who may make API keys of the service account may do it, but not by a
// certificate of that service account: that is Renew's, so that a chain ends.
// Conflict when the service account has too many, Exhausted when too many were
// made in a day. A repeated operation answers with the same certificate, which
// is completed if it was recorded and not signed then.
func (a *Authority) Issue(ctx context.Context, caller sallyport.Caller, op journal.Operation, p IssueParams) (Issued, journal.Committed, error) {
	key, err := a.requested(p.CSR, p.Lifetime)
	if err != nil {
		return Issued{}, journal.Committed{}, err
	}
	return a.issue(ctx, caller, op, func(tx *journal.Tx) (request, error) {
		if err := a.mayIssue(ctx, tx, p.ServiceAccount); err != nil {
			return request{}, err
		}
		r := request{serviceAccount: p.ServiceAccount, key: key, lifetime: p.Lifetime, until: tx.Now().Add(a.maxRenewal)}
		if r.lifetime == 0 {
			r.lifetime = defaultLife
		}
		return r, a.checkLimit(ctx, tx, p.ServiceAccount, false)
	})
}

// RenewParams says which certificate to renew.
type RenewParams struct {
	ID       string // "": the one that the caller came with
	CSR      []byte // as of IssueParams; the key may be the old one or a new one
	Lifetime time.Duration
	// Lifetime zero: as long as the old one was made for. No renewal outlives
	// the end of the chain that the first certificate began.
}

// Renew makes the successor of a certificate, which stays good. A certificate
// may renew itself while it is good, for at most the life it was given; whoever
// may issue certificates of the service account may renew an expired one, too. A
// revoked one is never renewed, nor is what was renewed from it. Limits and repetitions are as of Issue.
func (a *Authority) Renew(ctx context.Context, caller sallyport.Caller, op journal.Operation, p RenewParams) (Issued, journal.Committed, error) {
	key, err := a.requested(p.CSR, p.Lifetime)
	if err != nil {
		return Issued{}, journal.Committed{}, err
	}
	if p.ID == "" && caller.Credential.Kind == CredentialKind {
		p.ID = caller.Credential.ID
	}
	if p.ID == "" {
		return Issued{}, journal.Committed{}, sallyport.InvalidField("certificate_id", "is missing: name the certificate to renew, or come with it")
	}
	return a.issue(ctx, caller, op, func(tx *journal.Tx) (request, error) {
		old, owner, err := a.permitted(ctx, tx, tx.Caller(), authz.CertificateIssue, p.ID)
		if err != nil {
			return request{}, err
		}
		self := isSelf(tx.Caller(), p.ID)
		if err := old.renewable(tx.Now(), owner, self); err != nil {
			return request{}, err
		}
		if err := unrevokedAbove(ctx, tx, old); err != nil {
			return request{}, err
		}
		r := request{serviceAccount: old.ServiceAccount, key: key, lifetime: p.Lifetime, until: old.RenewableUntil, first: old.First, from: old.ID}
		life := old.NotAfter.Sub(old.Created.Truncate(time.Second))
		switch {
		case r.lifetime == 0:
			r.lifetime = max(life, minLife)
		case self && r.lifetime > max(life, minLife):
			return request{}, sallyport.InvalidField("lifetime", "is too long: a certificate that renews itself gives its successor at most the life it was given, %s", life)
		}
		return r, a.checkLimit(ctx, tx, old.ServiceAccount, true)
	})
}

// renewable says why the certificate cannot be renewed.
func (c Certificate) renewable(now time.Time, owner directory.Standing, self bool) error {
	state := c.State(now)
	switch {
	case owner.Status != object.Active:
		return sallyport.Conflict.Errorf("the service account of the certificate %s is %s and cannot have new certificates", c.ID, orGone(owner.Status))
	case state == Revoked:
		return sallyport.Conflict.Errorf("the certificate %s was revoked, and with it its chain of renewals; issue a new certificate", c.ID)
	case state == Incomplete:
		return sallyport.Conflict.Errorf("the certificate %s was never handed out; repeat the operation that made it, or issue a new one", c.ID)
	case state == Expired && self:
		return sallyport.Conflict.Errorf("the certificate %s expired at %s and cannot renew itself any more; issue a new one", c.ID, c.NotAfter.Format(time.RFC3339))
	case c.RenewableUntil.Before(now.Add(minLife)):
		return sallyport.Conflict.Errorf("the certificate's chain of renewals ends at %s; issue a new certificate", c.RenewableUntil.Format(time.RFC3339))
	}
	return nil
}

// unrevokedAbove refuses to renew what was renewed from a revoked certificate. A
// good one was not: revoking would have marked it.
func unrevokedAbove(ctx context.Context, tx *journal.Tx, c Certificate) error {
	if c.State(tx.Now()) != Expired {
		return nil
	}
	above, err := revokedAbove(ctx, tx, c)
	if err == nil && above != "" {
		return sallyport.Conflict.Errorf("the certificate %s was renewed from %s, which was revoked; issue a new certificate", c.ID, above)
	}
	return err
}

// orGone is a status for a text: the zero one is of what is not there any more.
func orGone(s object.Status) string {
	if s == "" {
		return "deleted"
	}
	return string(s)
}

// requested checks what a request asks for, as far as that needs no database.
func (a *Authority) requested(csr []byte, lifetime time.Duration) (any, error) {
	switch {
	case a.vault == nil:
		return nil, sallyport.Conflict.Errorf("this service has no managed CA; use API keys, or certificates of a CA of your own")
	case lifetime != 0 && lifetime < minLife:
		return nil, sallyport.InvalidField("lifetime", "is too short: at least %s", minLife)
	case lifetime > maxLife:
		return nil, sallyport.InvalidField("lifetime", "is too long: at most %d days", int(maxLife.Hours()/24))
	}
	request, err := credential.ParseCSR(csr)
	var invalid *sallyport.Error
	if errors.As(err, &invalid) && invalid.Field == "" {
		return nil, sallyport.InvalidField("csr", "%s", invalid.Msg)
	}
	if err != nil {
		return nil, err
	}
	return request.PublicKey, nil
}

// mayIssue checks the caller's permission to make certificates of the service
// account, and that it can have any.
func (a *Authority) mayIssue(ctx context.Context, tx *journal.Tx, id string) error {
	owner := sallyport.Principal{Kind: sallyport.ServiceAccount, ID: id}
	standing, err := a.standing(ctx, tx, tx.Account(), owner)
	if err != nil && !errors.Is(err, sallyport.NotFound) {
		return err
	}
	if denied := authz.Check(tx.Caller(), authz.CertificateIssue, resource(tx.Account(), id, standing)); denied != nil {
		return denied
	}
	switch {
	case err != nil:
		return &sallyport.Error{Kind: sallyport.NotFound, Field: "service_account_id", Msg: "there is no such service account in this account"}
	case standing.Status != object.Active:
		return &sallyport.Error{Kind: sallyport.Conflict, Field: "service_account_id", Msg: "the service account is " + string(standing.Status) + " and cannot have new certificates"}
	}
	return nil
}

// checkLimit counts the service account's certificates, inside the account's
// lock. Renewals may go on where no new chain can begin, so that whoever has all
// his certificates can renew them.
func (a *Authority) checkLimit(ctx context.Context, tx *journal.Tx, serviceAccount string, renewal bool) error {
	most, today := a.maxCertificates, 10*a.maxCertificates
	if renewal {
		most *= 2
	}
	n, err := countCertificates(ctx, tx, tx.Account(), serviceAccount, tx.Now())
	switch {
	case err != nil:
		return err
	case n.live >= most:
		return sallyport.Conflict.Errorf("the service account has %d certificates that are good, and may have %d; revoke those that are not used any more, or wait until some have expired", n.live, most)
	case n.today >= today:
		return sallyport.Exhausted.Errorf("the service account had %d certificates made within 24 hours, and may have %d; give them a longer life, or wait", n.today, today)
	}
	return nil
}

// request is a certificate to make, permitted and within the limits.
type request struct {
	serviceAccount string
	key            any // public
	lifetime       time.Duration
	until          time.Time // the end of the chain of renewals
	first, from    string    // of the chain; "" for one that begins it
}

// issue records, lints, signs and stores a certificate. permit runs inside the
// account's lock.
func (a *Authority) issue(ctx context.Context, caller sallyport.Caller, op journal.Operation, permit func(*journal.Tx) (request, error)) (Issued, journal.Committed, error) {
	var (
		iss  *issuing
		made unsigned
	)
	done, err := a.withIssuer(ctx, caller.Account, func() (journal.Committed, error) {
		return a.journal.Commit(ctx, caller, caller.Account, op, func(tx *journal.Tx) error {
			r, err := permit(tx)
			if err != nil {
				return err
			}
			if iss, err = a.issuer(ctx, tx); err != nil {
				return err
			}
			if made, err = a.recordClient(ctx, tx, iss, r); err != nil {
				return err
			}
			tx.Target(made.ID)
			return nil
		})
	})
	if err != nil {
		return Issued{}, journal.Committed{}, err
	}
	if done.Target != made.ID { // an earlier request with the operation's id
		iss, made = nil, unsigned{}
	}
	issued, err := a.complete(ctx, done.Account, done.Target, iss, made.copy)
	return issued, done, err
}

// unsigned is a certificate as it is recorded, and a copy that a throw-away key signed.
type unsigned struct {
	stored
	copy *x509.Certificate
}

// recordClient decides what the certificate says and records it, before any key
// of an issuer's is used.
func (a *Authority) recordClient(ctx context.Context, tx *journal.Tx, iss *issuing, r request) (unsigned, error) {
	u, err := a.decide(Certificate{
		Account: tx.Account(), ID: sallyport.NewID(sallyport.CertificatePrefix), Created: tx.Now(),
		CreatedBy: tx.Caller().Principal.ID, Revision: tx.Revision(),
	}, iss, r)
	if err != nil {
		return unsigned{}, err
	}
	if err := insert(ctx, tx, u.stored); err != nil {
		return unsigned{}, err
	}
	tx.Record(journal.Change{Type: "certificate", ID: u.ID, After: newRecorded(u.Certificate, u.copy)})
	return u, tx.Put(ctx, object.KindCertificate, object.CertificateID(u.Issuer, u.Serial), object.Encode(object.Certificate{}))
}

// decide completes a certificate of which it is known by whom and when it is made.
func (a *Authority) decide(c Certificate, iss *issuing, r request) (unsigned, error) {
	c.ServiceAccount, c.Issuer, c.First, c.RenewedFrom, c.RenewableUntil = r.serviceAccount, iss.ID, r.first, r.from, r.until
	if c.First == "" {
		c.First = c.ID
	}
	c.SPIFFEID = credential.SPIFFEID(trustDomainOf(iss.Certificate), c.Account, c.ServiceAccount)
	var err error
	if c.NotBefore, c.NotAfter, err = validity(c.Created, iss.Certificate, r); err != nil {
		return unsigned{}, err
	}
	built, err := a.build(c, r.key, iss.Certificate)
	if err != nil {
		return unsigned{}, err
	}
	c.Serial = credential.SerialText(built.SerialNumber)
	return unsigned{stored{Certificate: c, tbs: built.RawTBSCertificate}, built}, nil
}

// validity is from a little before now, for clocks that are behind, until the
// lifetime is over, and within that of the issuer and of the chain of renewals.
// In whole seconds, as certificates have them.
func validity(now time.Time, issuer *x509.Certificate, r request) (begin, end time.Time, err error) {
	begin, end = now.Add(-backdate).Truncate(time.Second), now.Truncate(time.Second).Add(r.lifetime.Truncate(time.Second))
	if begin.Before(issuer.NotBefore) {
		begin = issuer.NotBefore.UTC()
	}
	if end.After(issuer.NotAfter) {
		end = issuer.NotAfter.UTC()
	}
	if until := r.until.Truncate(time.Second); r.from != "" && end.After(until) {
		end = until
	}
	if end.Before(now.Add(minLife - time.Second)) {
		return begin, end, sallyport.Conflict.Errorf("the account's CA ends at %s, which is too soon for a new certificate; ask the operator of the service", issuer.NotAfter.UTC().Format(time.RFC3339))
	}
	return begin, end, nil
}
