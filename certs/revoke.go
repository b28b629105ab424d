package certs

import (
	"context"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/credential"
	"github.com/sallyport-iam/sallyport/internal/page"
	"github.com/sallyport-iam/sallyport/journal"
)

const (
	maxReason = 200 // characters
	// keepRevocation is how long after its certificate a revocation stays, for
	// checkers whose clocks are behind.
	keepRevocation = 24 * time.Hour
	// revokedIssuers is how many more lasting revocations than Config says an
	// account may have of issuers: they are the way out of too many.
	revokedIssuers = 10_000
)

// RevokeParams says what to revoke: exactly one of CertificateID, Fingerprint,
// Serial with Issuer, and Issuer alone.
type RevokeParams struct {
	CertificateID string // of the managed CA
	Fingerprint   string // SHA-256 of a certificate, hex with or without colons
	Serial        string // hex with or without colons
	Issuer        string // credential.IssuerID
	Reason        string // for the audit log; at most 200 characters
}

// Revoke ends a certificate or an issuer for good, in the caller's account.
//
// A certificate of the managed CA, however it is named, is ended with all that
// was renewed from it, also over others, and with nothing else of its chain. What
// expired long ago among that stays as it is, and cannot be renewed any more. Who
// may read it may not always revoke it, but a service account may revoke its own,
// and with a certificate that one and what was renewed from it. Certificates and issuers of
// customers' own CAs need not be known; owners and admins may revoke them, and
// the account's own intermediates, however they are named, after which the next
// certificate has a new one. Conflict for the operator's CAs, which nothing in an
// account ends. What is revoked already stays as it is, and is part of the answer.
func (a *Authority) Revoke(ctx context.Context, caller sallyport.Caller, op journal.Operation, p RevokeParams) ([]Revocation, journal.Committed, error) {
	if err := p.check(); err != nil {
		return nil, journal.Committed{}, err
	}
	var revocations []Revocation
	done, err := a.journal.Commit(ctx, caller, caller.Account, op, func(tx *journal.Tx) error {
		if err := member(tx.Caller()); err != nil {
			return err
		}
		c, err := a.managed(ctx, tx, p)
		switch {
		case err == nil:
			revocations, err = a.revokeChain(ctx, tx, c, p.Reason)
		case !errors.Is(err, sallyport.NotFound) || p.CertificateID != "":
		default:
			revocations, err = a.revokeOther(ctx, tx, p)
		}
		return err
	})
	if err != nil {
		return nil, journal.Committed{}, err
	}
	if done.Replayed {
		revocations, err = a.revocationsBy(ctx, done)
	}
	return revocations, done, err
}

// check brings the parameters into the form that is kept.
func (p *RevokeParams) check() error {
	named := 0
	for _, s := range []string{p.CertificateID, p.Fingerprint, p.Serial} {
		if s != "" {
			named++
		}
	}
	switch {
	case named == 0 && p.Issuer == "" || named > 1 || p.Issuer != "" && (p.CertificateID != "" || p.Fingerprint != ""):
		return sallyport.Invalid.Errorf("name exactly one: certificate_id, fingerprint, serial with issuer_id, or issuer_id")
	case p.Serial != "" && p.Issuer == "":
		return sallyport.InvalidField("issuer_id", "is missing: serial numbers are unique for one issuer only")
	case utf8.RuneCountInString(p.Reason) > maxReason:
		return sallyport.InvalidField("reason", "is longer than %d characters", maxReason)
	case !utf8.ValidString(p.Reason) || strings.ContainsFunc(p.Reason, unicode.IsControl):
		return sallyport.InvalidField("reason", "has characters that cannot be printed")
	}
	for _, id := range []struct {
		field string
		value *string
	}{{"fingerprint", &p.Fingerprint}, {"issuer_id", &p.Issuer}} {
		*id.value = plainHex(*id.value)
		if raw, err := hex.DecodeString(*id.value); *id.value != "" && (err != nil || len(raw) != 32) {
			return sallyport.InvalidField(id.field, "is not a SHA-256 in hexadecimal, of 64 digits")
		}
	}
	if p.Serial == "" {
		return nil
	}
	p.Serial = strings.TrimLeft(plainHex(p.Serial), "0")
	if p.Serial == "" || len(p.Serial) > 40 || strings.Trim(p.Serial, "0123456789abcdef") != "" {
		return sallyport.InvalidField("serial", "is not a serial number in hexadecimal, of at most 20 octets and not zero")
	}
	return nil
}

// plainHex takes hexadecimal as programs print it.
func plainHex(s string) string { return strings.ToLower(strings.ReplaceAll(s, ":", "")) }

// managed finds the managed CA's certificate that is named; NotFound if it is
// none of its.
func (a *Authority) managed(ctx context.Context, tx *journal.Tx, p RevokeParams) (Certificate, error) {
	b := by{id: p.CertificateID, fingerprint: p.Fingerprint, issuer: p.Issuer, serial: p.Serial}
	if b == (by{issuer: p.Issuer}) {
		return Certificate{}, sallyport.NotFound.Errorf("an issuer is no client certificate")
	}
	s, err := find(ctx, tx, tx.Account(), b)
	return s.Certificate, err
}

// revokeChain revokes a certificate and what was renewed from it: who had its
// key could have renewed it. The certificate itself is marked also when it
// expired long ago: by that mark what was renewed from it cannot be renewed.
func (a *Authority) revokeChain(ctx context.Context, tx *journal.Tx, c Certificate, reason string) ([]Revocation, error) {
	if err := a.mayRevoke(ctx, tx, c); err != nil {
		return nil, err
	}
	tx.Target(c.ID)
	ids, err := renewedFrom(ctx, tx, c, tx.Now().Add(-keepRevocation))
	if err != nil {
		return nil, err
	}
	ended, err := markRevokedFrom(ctx, tx, ids, reason)
	if err != nil {
		return nil, err
	}
	if err := a.publishRevoked(ctx, tx, ended); err != nil {
		return nil, err
	}
	return revocationsFrom(ctx, tx, tx.Account(), ids)
}

// mayRevoke checks the caller's permission. A certificate counts as its service
// account for itself and for what was renewed from it alone: whoever stole one
// could end all the others.
func (a *Authority) mayRevoke(ctx context.Context, tx *journal.Tx, c Certificate) error {
	owner, err := a.ownerOf(ctx, tx, c)
	if err != nil {
		return err
	}
	r := resource(tx.Account(), c.ServiceAccount, owner)
	caller := tx.Caller()
	if caller.Credential.Kind != CredentialKind || caller.Principal != r.Owner {
		return authz.Check(caller, authz.CertificateRevoke, r)
	}
	its, err := renewedFrom(ctx, tx, Certificate{Account: c.Account, ID: caller.Credential.ID, First: c.First}, time.Time{})
	if err != nil {
		return err
	}
	if slices.Contains(its, c.ID) {
		return authz.Check(caller, authz.CertificateRevoke, r)
	}
	r.Owner = sallyport.Principal{}
	err = authz.Check(caller, authz.CertificateRevoke, r)
	if errors.Is(err, sallyport.PermissionDenied) {
		return sallyport.PermissionDenied.Errorf("a client certificate may revoke itself and what was renewed from it, and no other of its service account; use an API key of the service account, or ask an admin")
	}
	return err
}

// publishRevoked puts the revocations of certificates that were just marked.
// Of those that expired long ago nobody needs to know.
func (a *Authority) publishRevoked(ctx context.Context, tx *journal.Tx, ended []Certificate) error {
	for _, c := range ended {
		before := c
		before.Revoked, before.Reason = time.Time{}, ""
		tx.Record(journal.Change{Type: "certificate", ID: c.ID, Before: newRecorded(before, nil), After: newRecorded(c, nil)})
		if c.NotAfter.Add(keepRevocation).Before(tx.Now()) {
			continue
		}
		r := Revocation{ID: object.RevokedSerial(c.Issuer, c.Serial), Issuer: c.Issuer, Serial: c.Serial, Fingerprint: c.Fingerprint, CertificateID: c.ID, Reason: c.Reason}
		if _, err := a.putRevocation(ctx, tx, r, c.NotAfter); err != nil {
			return err
		}
	}
	return nil
}

// putRevocation completes and keeps a revocation and makes it known to
// authorizers. It reports whether it is new.
func (a *Authority) putRevocation(ctx context.Context, tx *journal.Tx, r Revocation, notAfter time.Time) (bool, error) {
	r.CreatedBy, r.Revoked, r.Revision = tx.Caller().Principal.ID, tx.Now(), tx.Revision()
	isNew, err := insertRevocation(ctx, tx, tx.Account(), r, notAfter)
	if err != nil || !isNew {
		return false, err
	}
	return true, tx.Put(ctx, object.KindRevocation, r.ID, object.Encode(object.Revocation{}))
}

// revokeOther revokes what is no certificate of the managed CA: an intermediate
// of the account's, or whatever customers' own CAs are and made.
func (a *Authority) revokeOther(ctx context.Context, tx *journal.Tx, p RevokeParams) ([]Revocation, error) {
	own, err := ownIssuer(ctx, tx, p)
	if err != nil {
		return nil, err
	}
	issuer, action := own, authz.IssuerRevoke
	if own == "" && p.Serial == "" {
		issuer = p.Issuer
	}
	if issuer == "" {
		action = authz.RevocationCreate
	}
	if err := authz.Check(tx.Caller(), action, authz.Resource{Account: tx.Account()}); err != nil {
		return nil, err
	}
	if own == "" {
		if err := a.notOperators(ctx, tx, p); err != nil {
			return nil, err
		}
	}
	if issuer != "" {
		return a.revokeIssuer(ctx, tx, issuer, p.Reason)
	}
	return a.revokeForeign(ctx, tx, p)
}

// ownIssuer gives the id of the account's intermediate that is named, "" if none is.
func ownIssuer(ctx context.Context, tx *journal.Tx, p RevokeParams) (string, error) {
	if tx.Account() == sallyport.SystemAccount { // whose CAs are the roots
		return "", nil
	}
	rows, err := issuerRows(ctx, tx, tx.Account())
	if err != nil {
		return "", err
	}
	for _, row := range rows {
		if p.Serial == "" && p.Issuer == row.id {
			return row.id, nil
		}
		if len(row.certificates) == 0 {
			continue
		}
		cert := row.certificates[0]
		bySerial := p.Serial != "" && p.Issuer == row.parent && p.Serial == credential.SerialText(cert.SerialNumber)
		if bySerial || p.Fingerprint == credential.Fingerprint(cert) {
			return row.id, nil
		}
	}
	return "", nil
}

// notOperators refuses to revoke one of the operator's CAs, and what it made
// that is none of the account's intermediates: authorizers do not look above
// these, so that it would have no effect.
func (a *Authority) notOperators(ctx context.Context, tx *journal.Tx, p RevokeParams) error {
	roots, err := a.Roots(ctx, tx)
	if err != nil {
		return err
	}
	for _, root := range roots {
		if p.Fingerprint == credential.Fingerprint(root) || p.Issuer == credential.IssuerID(root) {
			return sallyport.Conflict.Errorf("it is a CA of the operator's, or made by one, and no intermediate of this account: revoking it here would end nothing; revoke the account's own intermediates (sallyport cert issuers lists them), and ask the operator to replace a root")
		}
	}
	return nil
}

// revokeForeign revokes a certificate of a customer's own CA, which need not be known.
func (a *Authority) revokeForeign(ctx context.Context, tx *journal.Tx, p RevokeParams) ([]Revocation, error) {
	r := Revocation{ID: object.RevokedCertificate(p.Fingerprint), Fingerprint: p.Fingerprint, Reason: p.Reason}
	if p.Serial != "" {
		r = Revocation{ID: object.RevokedSerial(p.Issuer, p.Serial), Issuer: p.Issuer, Serial: p.Serial, Reason: p.Reason}
	}
	return a.revokeOne(ctx, tx, r, a.maxRevocations)
}

// revokeIssuer revokes whatever has the key: an intermediate of the account's,
// which issues no more, or a customer's CA.
func (a *Authority) revokeIssuer(ctx context.Context, tx *journal.Tx, id, reason string) ([]Revocation, error) {
	if err := revokeIssuer(ctx, tx, id); err != nil {
		return nil, err
	}
	return a.revokeOne(ctx, tx, Revocation{ID: object.RevokedIssuer(id), Issuer: id, Reason: reason}, a.maxRevocations+revokedIssuers)
}

// revokeOne makes a revocation that is never forgotten, since nobody here knows
// when the certificate expires. Each authorizer holds all of them: there are at
// most limit.
func (a *Authority) revokeOne(ctx context.Context, tx *journal.Tx, r Revocation, limit int) ([]Revocation, error) {
	tx.Target(r.ID)
	isNew, err := a.putRevocation(ctx, tx, r, time.Time{})
	if err != nil {
		return nil, err
	}
	if isNew {
		n, err := countLasting(ctx, tx, tx.Account())
		if err != nil {
			return nil, err
		}
		if n > limit {
			return nil, sallyport.Conflict.Errorf("the account has revoked %d certificates and issuers of CAs that are not its managed one, which is the limit; revoke the certificate's issuer instead, or take its CA out of the namespaces", n-1)
		}
		tx.Record(journal.Change{Type: "revocation", ID: r.ID, After: r.recorded()})
	}
	return revocationOf(ctx, tx, tx.Account(), r.ID)
}

// revocationsBy reads again what an operation answered with.
func (a *Authority) revocationsBy(ctx context.Context, done journal.Committed) ([]Revocation, error) {
	if !strings.HasPrefix(done.Target, sallyport.CertificatePrefix) {
		return revocationOf(ctx, a.pool, done.Account, done.Target)
	}
	s, err := find(ctx, a.pool, done.Account, by{id: done.Target})
	if errors.Is(err, sallyport.NotFound) {
		return nil, nil // forgotten long after it expired
	}
	if err != nil {
		return nil, err
	}
	ids, err := renewedFrom(ctx, a.pool, s.Certificate, done.At.Add(-keepRevocation))
	if err != nil {
		return nil, err
	}
	return revocationsFrom(ctx, a.pool, done.Account, ids)
}

// Revocations lists what is revoked in the account, by ascending id of the
// objects. For owners and admins.
func (a *Authority) Revocations(ctx context.Context, caller sallyport.Caller, p sallyport.Page) (list []Revocation, next string, err error) {
	if err := authz.Check(caller, authz.RevocationList, authz.Resource{Account: caller.Account}); err != nil {
		return nil, "", err
	}
	cursor, err := a.pages.Cursor(caller.Account, "revocations", p)
	if err != nil {
		return nil, "", err
	}
	if list, err = listRevocations(ctx, a.pool, caller.Account, cursor.After, cursor.Limit); err != nil {
		return nil, "", err
	}
	list, next = page.Cut(cursor, list, func(r Revocation) string { return r.ID })
	return list, next, nil
}

// RemoveOwned revokes all good certificates of a service account inside the
// change that ends it. Of other principals there are none.
func (a *Authority) RemoveOwned(ctx context.Context, tx *journal.Tx, serviceAccount string) error {
	ended, err := markRevokedOf(ctx, tx, serviceAccount, "the service account was deleted")
	if err != nil {
		return err
	}
	return a.publishRevoked(ctx, tx, ended)
}
