package certs_test

import (
	"crypto/x509"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authn"
	"github.com/sallyport-iam/sallyport/authn/authntest"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/certs"
	"github.com/sallyport-iam/sallyport/credential"
)

// However an account names its own intermediate to revoke it, all of it holds:
// authorizers and the control plane refuse what it made, it issues no more, the
// list says so, and the root's CRL has it.
func TestRevokeIntermediateByAnyName(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	root := h.root(t)
	for name, params := range map[string]func(ca *x509.Certificate) certs.RevokeParams{
		"issuer id": func(ca *x509.Certificate) certs.RevokeParams {
			return certs.RevokeParams{Issuer: credential.IssuerID(ca)}
		},
		"fingerprint": func(ca *x509.Certificate) certs.RevokeParams {
			return certs.RevokeParams{Fingerprint: credential.Fingerprint(ca)}
		},
		"serial number": func(ca *x509.Certificate) certs.RevokeParams {
			return certs.RevokeParams{Issuer: root.ID, Serial: credential.SerialText(ca.SerialNumber)}
		},
	} {
		a := h.tenant(t)
		old := a.leaf(t, h.ca)
		ca := authntest.Chain(t, old.Chain)[1]
		revocations, _ := revoke(t, a.Tenant, params(ca))
		if diff := cmp.Diff([]string{object.RevokedIssuer(old.Issuer)}, ids(revocations)); diff != "" {
			t.Errorf("%s: revoked (-want +got):\n%s", name, diff)
		}
		if h.accepts(t, a, old.Chain) {
			t.Errorf("%s: authorizers take what the revoked intermediate made", name)
		}
		_, err := a.CallWith(t, old)
		wantKind(t, name+": calling", err, sallyport.Unauthenticated, "was revoked at")
		next := a.leaf(t, h.ca)
		if next.Issuer == old.Issuer || !h.accepts(t, a, next.Chain) {
			t.Errorf("%s: the revoked intermediate is not replaced", name)
		}
		issuers, _, err := h.ca.Issuers(t.Context(), a.Operator)
		if err != nil || len(issuers) != 2 || !issuers[0].Revoked.IsZero() || issuers[1].Revoked.IsZero() {
			t.Errorf("%s: the issuers are %+v, %v", name, issuers, err)
		}
		crl, err := h.ca.CRL(t.Context(), root.ID)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(parseCRL(t, crl.DER, parse(t, root.Chain)[0]).RevokedCertificateEntries, func(e x509.RevocationListEntry) bool {
			return e.SerialNumber.Cmp(ca.SerialNumber) == 0
		}) {
			t.Errorf("%s: the root's CRL does not have it", name)
		}
		again, _ := revoke(t, a.Tenant, params(ca))
		if diff := cmp.Diff(revocations, again); diff != "" {
			t.Errorf("%s again (-first +again):\n%s", name, diff)
		}
		objects := sameAsJournal(t, a.Tenant)
		if objects[old.Issuer].Data == nil || objects[object.RevokedIssuer(old.Issuer)].Data == nil {
			t.Errorf("%s: authorizers know %v", name, objects)
		}
	}
}

// Who revokes intermediates has new ones made, and not without end. That is no
// problem of the operator's.
func TestTooManyIssuers(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.root(t)
	a, other := h.tenant(t), h.tenant(t)
	for range 10 {
		revoke(t, a.Tenant, certs.RevokeParams{Issuer: a.leaf(t, h.ca).Issuer})
	}
	for _, after := range []time.Duration{0, time.Hour} {
		a.Advance(after)
		_, err := a.tryLeaf(t, h.ca)
		wantKind(t, "an eleventh", err, sallyport.Exhausted, "had 10 intermediates made within 24 hours, and may have 10")
	}
	if problems := h.ca.Problems(t.Context()); len(problems) != 0 {
		t.Errorf("the operator is told %q", problems)
	}
	other.leaf(t, h.ca)
	issuers, _, err := h.ca.Issuers(t.Context(), a.Operator)
	if err != nil || len(issuers) != 10 {
		t.Errorf("there are %d issuers, %v", len(issuers), err)
	}
	a.Advance(24 * time.Hour)
	if fresh := a.leaf(t, h.ca); !h.accepts(t, a, fresh.Chain) {
		t.Error("the day after authorizers refuse what a new intermediate made")
	}
}

// Who may not revoke issuers may not by another of their names.
func TestRevokeIntermediatePermission(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.Tenant(t)
	sa := robot(t, a)
	ca := authntest.Chain(t, issue(t, a, certs.IssueParams{ServiceAccount: sa.ID}).Chain)[1]
	for _, p := range []certs.RevokeParams{{Issuer: credential.IssuerID(ca)}, {Fingerprint: credential.Fingerprint(ca)}} {
		_, _, err := w.Certs.Revoke(t.Context(), a.Caller(t, sa, sallyport.Limits{}), op("Revoke"), p)
		wantKind(t, "by a reader", err, sallyport.PermissionDenied, "")
	}
}

// What would end nothing is refused and says what does.
func TestRevokeOperatorsCA(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.Tenant(t), w.Tenant(t)
	own := issue(t, a, certs.IssueParams{ServiceAccount: robot(t, a).ID})
	other := authntest.Chain(t, issue(t, b, certs.IssueParams{ServiceAccount: robot(t, b).ID}).Chain)[1]
	roots, err := w.Certs.Roots(t.Context(), w.Journal.Pool())
	if err != nil || len(roots) != 1 {
		t.Fatal(len(roots), err)
	}
	id := credential.IssuerID(roots[0])
	for name, p := range map[string]certs.RevokeParams{
		"by fingerprint":                 {Fingerprint: credential.Fingerprint(roots[0])},
		"by its key":                     {Issuer: id},
		"by its serial number":           {Issuer: id, Serial: credential.SerialText(roots[0].SerialNumber)},
		"another account's intermediate": {Issuer: id, Serial: credential.SerialText(other.SerialNumber)},
		"nothing that is there":          {Issuer: id, Serial: "abcdef"},
	} {
		_, _, err := w.Certs.Revoke(t.Context(), a.Owner, op("Revoke"), p)
		wantKind(t, name, err, sallyport.Conflict, "revoke the account's own intermediates")
	}
	for _, tenant := range []*authntest.Tenant{a, b} {
		for id := range sameAsJournal(t, tenant) {
			if strings.HasPrefix(id, "issuer/") || strings.HasPrefix(id, "serial/") || strings.HasPrefix(id, "certificate/") {
				t.Errorf("%s is revoked in %s", id, tenant.ID)
			}
		}
	}
	if _, err := a.CallWith(t, own); err != nil {
		t.Error(err)
	}
}

// The control plane refuses by whatever revokes at authorizers, also where the
// certificate's and the issuer's rows say nothing of it.
func TestRevokedByAnyRevocation(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.Tenant(t)
	sa := a.ServiceAccount(t, sallyport.ScopeAccount, role(sallyport.RoleAdmin))
	c := issue(t, a, certs.IssueParams{ServiceAccount: sa.ID})
	ca := authntest.Chain(t, c.Chain)[1]
	roots, err := w.Certs.Roots(t.Context(), w.Journal.Pool())
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range []string{
		object.RevokedIssuer(c.Issuer), object.RevokedCertificate(credential.Fingerprint(ca)), object.RevokedCertificate(c.Fingerprint), serialOf(c),
		object.RevokedSerial(credential.IssuerID(roots[0]), credential.SerialText(ca.SerialNumber)),
	} {
		caller, err := a.CallWith(t, c)
		if err != nil {
			t.Fatalf("before %s: %v", id, err)
		}
		execute(t, w, `insert into revocations (account_id, id, issuer, serial, fingerprint, certificate_id, reason, created_by, revoked_at, revision)
			values ($1, $2, '', '', '', '', '', 'test', now(), 1)`, a.ID, id)
		_, err = a.CallWith(t, c)
		wantKind(t, "a call after "+id, err, sallyport.Unauthenticated, "was revoked at")
		robot(t, a) // moves the head: the caller is resolved again
		_, _, err = a.Directory.CreateNamespace(t.Context(), caller, op("CreateNamespace"), namespaceParams(t))
		wantKind(t, "a change after "+id, err, sallyport.Unauthenticated, "was revoked at")
		execute(t, w, `delete from revocations where account_id = $1`, a.ID)
	}
}

// A row in the database lets nobody in: the certificate must be the issuer's.
func TestRowsAreNoProof(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.Tenant(t), w.Tenant(t)
	c, other := issue(t, a, certs.IssueParams{ServiceAccount: robot(t, a).ID}), issue(t, b, certs.IssueParams{ServiceAccount: robot(t, b).ID})
	real := authntest.Chain(t, c.Chain)
	forged := forge(t, real[0], real[1], "", new(big.Int).Set(real[0].SerialNumber))
	call := func(chain []*x509.Certificate) error {
		_, err := w.Auth.Authenticate(t.Context(), authn.Request{Certificates: chain})
		return err
	}
	wantKind(t, "as it is", call(real), "", "")
	execute(t, w, `update certificates set fingerprint = $2 where account_id = $1`, a.ID, credential.Fingerprint(forged[0]))
	wantKind(t, "a forged certificate that the table has", call(forged), sallyport.Unauthenticated, "is not good")
	execute(t, w, `update certificates set fingerprint = $2 where account_id = $1`, a.ID, c.Fingerprint)
	wantKind(t, "as it was", call(real), "", "")
	execute(t, w, `update issuers set chain = o.chain from issuers o where issuers.account_id = $1 and o.account_id = $2`, a.ID, b.ID)
	wantKind(t, "under an issuer of another key", call(real), sallyport.Unauthenticated, "is not good")
	wantKind(t, "another account's", call(authntest.Chain(t, other.Chain)), "", "")
}

// A certificate that the service does not know, as after a restore, is ended by its
// fingerprint, and not by what it was renewed from.
func TestRevokeLostRenewal(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.root(t)
	a := h.tenant(t)
	first := a.leaf(t, h.ca)
	lost, _, err := h.ca.Renew(t.Context(), a.Operator, op("RenewCertificate"), certs.RenewParams{ID: first.ID, CSR: request(t)})
	if err != nil {
		t.Fatal(err)
	}
	execute(t, h.World, `delete from certificates where account_id = $1 and id = $2`, a.ID, lost.ID)
	revoke(t, a.Tenant, certs.RevokeParams{CertificateID: first.ID})
	if !h.accepts(t, a, lost.Chain) {
		t.Error("what the service does not know is revoked with what it was renewed from")
	}
	if got, _ := revoke(t, a.Tenant, certs.RevokeParams{Fingerprint: lost.Fingerprint}); len(got) != 1 {
		t.Errorf("revoked are %v", ids(got))
	}
	if h.accepts(t, a, lost.Chain) {
		t.Error("authorizers take a certificate that was revoked by its fingerprint")
	}
}

// A certificate in the middle of a chain that goes on, long expired, still is what
// its successors are revoked by, named by its file too.
func TestRevokeExpiredInTheMiddle(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.Tenant(t)
	chain := []certs.Issued{issue(t, a, certs.IssueParams{ServiceAccount: robot(t, a).ID, Lifetime: 20 * day})}
	for range 4 {
		a.Advance(19 * day)
		next, err := renew(t, a, chain[len(chain)-1], certs.RenewParams{})
		if err != nil {
			t.Fatal(err)
		}
		chain = append(chain, next)
		if err := w.Certs.Reap(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	last := chain[len(chain)-1]
	if _, err := a.CallWith(t, last); err != nil {
		t.Fatal(err)
	}
	if a.Now().Sub(chain[1].NotAfter) < 31*day {
		t.Fatal("the certificate in the middle has not expired long ago")
	}
	for _, c := range chain[:2] {
		if _, made := sameAsJournal(t, a)[object.CertificateID(c.Issuer, c.Serial)]; made {
			t.Errorf("authorizers still know of %s, which has expired", c.ID)
		}
	}
	revocations, _, err := w.Certs.Revoke(t.Context(), a.Operator, op("Revoke"), certs.RevokeParams{Fingerprint: chain[1].Fingerprint})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(ids(revocations), serialOf(last)) {
		t.Errorf("revoked are %v, and not the one that is used", ids(revocations))
	}
	_, err = a.CallWith(t, last)
	wantKind(t, "with what was renewed from it", err, sallyport.Unauthenticated, "was revoked at")
	a.Advance(150 * day)
	if err := w.Certs.Reap(t.Context()); err != nil {
		t.Fatal(err)
	}
	if rest, _, err := w.Certs.List(t.Context(), a.Operator, "", sallyport.Page{}); err != nil || len(rest) != 0 {
		t.Errorf("after all has ended there are %d certificates, %v", len(rest), err)
	}
	for id := range sameAsJournal(t, a) {
		if strings.Contains(id, last.Serial) {
			t.Errorf("authorizers still know %s", id)
		}
	}
	if _, err := w.Journal.VerifyAccount(t.Context(), a.ID); err != nil {
		t.Error(err)
	}
}

// A certificate from which tens of thousands were renewed that expired is revoked
// as fast as any, in a commit of what is good alone; and none of those that
// expired can be renewed any more.
func TestRevokeLongChain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.Tenant(t)
	sa := robot(t, a)
	first := issue(t, a, certs.IssueParams{ServiceAccount: sa.ID, Lifetime: 20 * day})
	spared := issue(t, a, certs.IssueParams{ServiceAccount: sa.ID, Lifetime: 20 * day})
	last, err := renew(t, a, first, certs.RenewParams{})
	if err != nil {
		t.Fatal(err)
	}
	beside, err := renew(t, a, spared, certs.RenewParams{Lifetime: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	const n = 50_000
	middle := func(i int) string { return fmt.Sprintf("cert_x%015d", i) }
	execute(t, w, `
		insert into certificates (account_id, id, service_account_id, issuer, serial, spiffe_id, tbs, certificate, fingerprint, not_before, not_after,
			first_id, renewed_from, renewable_until, created_by, created_at, revocation_reason, revision, replicated)
		select account_id, 'cert_x' || lpad(i::text, 15, '0'), service_account_id, issuer, to_hex(i) || 'abc', spiffe_id, tbs, certificate,
			encode(sha256(i::text::bytea), 'hex'), not_before - interval '30 days', not_after - interval '30 days',
			first_id, case when i = 1 then id else 'cert_x' || lpad((i - 1)::text, 15, '0') end, renewable_until, created_by,
			created_at - interval '30 days', '', revision, false
		from certificates, generate_series(1, $3::int) i
		where account_id = $1 and id = $2`, a.ID, first.ID, n)
	execute(t, w, `update certificates set renewed_from = $3 where account_id = $1 and id = $2`, a.ID, last.ID, middle(n))
	csr, _ := authntest.CSR(t)
	again := func(id string) error {
		_, _, err := a.Certs.Renew(t.Context(), a.Owner, op("RenewCertificate"), certs.RenewParams{ID: id, CSR: csr, Lifetime: time.Hour})
		return err
	}
	wantKind(t, "renewing one that expired", again(middle(n)), "", "")

	begun := time.Now()
	got, _ := revoke(t, a, certs.RevokeParams{CertificateID: first.ID})
	if took := time.Since(begun); took > 5*time.Second {
		t.Errorf("revoking took %s", took)
	}
	if list := ids(got); len(list) != 3 || list[0] != serialOf(first) || !slices.Contains(list, serialOf(last)) {
		t.Errorf("revoked are %v, want the first, the last and what was made beside it", list)
	}
	var marked int
	if err := w.Journal.Pool().QueryRow(t.Context(), `select count(*) from certificates where account_id = $1 and revoked_at is not null`, a.ID).Scan(&marked); err != nil || marked != 3 {
		t.Errorf("%d certificates are marked, %v", marked, err)
	}
	_, err = a.CallWith(t, last)
	wantKind(t, "with the last", err, sallyport.Unauthenticated, "was revoked at")
	for _, id := range []string{middle(1), middle(n / 2), middle(n)} {
		begun := time.Now()
		wantKind(t, "renewing "+id, again(id), sallyport.Conflict, "was renewed from "+first.ID+", which was revoked")
		if took := time.Since(begun); took > 5*time.Second {
			t.Errorf("refusing to renew took %s", took)
		}
	}
	wantKind(t, "renewing the last", again(last.ID), sallyport.Conflict, "was revoked")
	a.Advance(2 * day)
	wantKind(t, "renewing an expired one of another chain", again(beside.ID), "", "")
}

// A certificate that expired long ago is marked itself when it is revoked, and
// keeps what was renewed from it from being renewed.
func TestRevokeLongExpired(t *testing.T) {
	t.Parallel()
	a := newWorld(t).Tenant(t)
	first := issue(t, a, certs.IssueParams{ServiceAccount: robot(t, a).ID, Lifetime: time.Hour})
	second, err := renew(t, a, first, certs.RenewParams{})
	if err != nil {
		t.Fatal(err)
	}
	third, err := renew(t, a, second, certs.RenewParams{})
	if err != nil {
		t.Fatal(err)
	}
	a.Advance(3 * day)
	if got, _ := revoke(t, a, certs.RevokeParams{CertificateID: second.ID}); len(got) != 0 {
		t.Errorf("revoked are %v, all of which expired long ago", ids(got))
	}
	csr, _ := authntest.CSR(t)
	for id, says := range map[string]string{second.ID: "was revoked", third.ID: "was renewed from " + second.ID} {
		_, _, err := a.Certs.Renew(t.Context(), a.Owner, op("RenewCertificate"), certs.RenewParams{ID: id, CSR: csr})
		wantKind(t, "renewing "+id, err, sallyport.Conflict, says)
	}
	_, _, err = a.Certs.Renew(t.Context(), a.Owner, op("RenewCertificate"), certs.RenewParams{ID: first.ID, CSR: csr})
	wantKind(t, "renewing the first", err, "", "")
}

func execute(t *testing.T, w *authntest.World, sql string, args ...any) {
	t.Helper()
	if _, err := w.Journal.Pool().Exec(t.Context(), sql, args...); err != nil {
		t.Fatal(err)
	}
}
