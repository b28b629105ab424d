package feed_test

import (
	"context"
	"crypto/tls"
	"net/netip"
	"strings"
	"testing"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authn/authntest"
	"github.com/sallyport-iam/sallyport/authz/replica"
	"github.com/sallyport-iam/sallyport/certs"
	"github.com/sallyport-iam/sallyport/directory"
	"github.com/sallyport-iam/sallyport/internal/pgtest"
	"github.com/sallyport-iam/sallyport/journal"
)

// TestRestoreIssuesNothingForTheRevoked: the restored service takes a certificate
// and an API key that were revoked, since it has forgotten that, and makes new
// certificates for them. Authorizers, which have not, let none of them in.
func TestRestoreIssuesNothingForTheRevoked(t *testing.T) {
	t.Parallel()
	pool := pgtest.Clone(t)
	service := authntest.NewOn(t, pool)
	service.CA(t)
	w := newWorldOn(t, pool)
	a := service.Tenant(t)
	_, _, err := a.Directory.CreateNamespace(t.Context(), a.Operator, journal.Operation{Type: "CreateNamespace"},
		directory.NamespaceParams{Name: "orders", Region: authntest.Region, RetentionDays: 7, MTLSAuth: true})
	check(t, err)
	sa := a.ServiceAccount(t, sallyport.ScopeAccount, directory.Access{Role: sallyport.RoleAdmin})
	good, stolen, key := a.Certificate(t, sa), a.Certificate(t, sa), a.Key(t, sa, sallyport.Limits{})
	r, _ := w.follow(w.config(w.serve().address, w.authorizer(authntest.Region)))
	w.reached(r, a.ID)
	eventually(t, "it is complete", r.Ready)
	decide := func(c certs.Issued) replica.Decision {
		t.Helper()
		by := r.Credential("", &tls.ConnectionState{PeerCertificates: authntest.Chain(t, c.Chain)}, netip.Addr{})
		return r.Decide(by, start, "orders."+string(a.ID), service.Now())
	}
	expect := func(when string, c certs.Issued, says string) {
		t.Helper()
		if d := decide(c); d.Allow != (says == "") || !strings.Contains(d.Reason, says) {
			t.Errorf("%s: %t, %q; want %q", when, d.Allow, d.Reason, says)
		}
	}
	expect("at first", stolen, "")

	tables := append([]string{"certificates", "revocations", "api_keys"}, restored...)
	for _, table := range tables {
		_, err := pool.Exec(t.Context(), "create table kept_"+table+" as table "+table)
		check(t, err)
	}
	_, _, err = a.Certs.Revoke(t.Context(), a.Owner, journal.Operation{Type: "Revoke"}, certs.RevokeParams{CertificateID: stolen.ID})
	check(t, err)
	_, err = a.Keys.Delete(t.Context(), a.Owner, journal.Operation{Type: "DeleteApiKey"}, key.Key.ID, 0)
	check(t, err)
	w.reached(r, a.ID)
	expect("revoked", stolen, "was revoked")
	if _, err := a.CallWith(t, stolen); err == nil {
		t.Fatal("the revoked certificate lets in to the service")
	}
	tx, err := pool.Begin(t.Context())
	check(t, err)
	defer tx.Rollback(context.Background())
	for _, table := range tables {
		_, err := tx.Exec(t.Context(), "truncate "+table)
		check(t, err)
		_, err = tx.Exec(t.Context(), "insert into "+table+" table kept_"+table)
		check(t, err)
	}
	check(t, tx.Commit(t.Context()))

	csr, _ := authntest.CSR(t)
	thief, err := a.CallWith(t, stolen)
	check(t, err) // that the service forgot it is what a restore is
	renewed, _, err := a.Certs.Renew(t.Context(), thief, journal.Operation{Type: "RenewCertificate"}, certs.RenewParams{CSR: csr})
	check(t, err)
	issued, _, err := a.Certs.Issue(t.Context(), a.With(t, key), journal.Operation{Type: "IssueCertificate"}, certs.IssueParams{ServiceAccount: sa.ID, CSR: csr})
	check(t, err)
	eventually(t, "the restored history arrives", func() bool { return r.Standing(a.ID) == replica.Diverged })
	const waits = "was not made in all histories"
	eventually(t, "what was made since arrives", func() bool { return strings.Contains(decide(issued).Reason, waits) })
	expect("made before", good, "")
	expect("revoked and forgotten", stolen, "was revoked")
	expect("renewed by what was revoked", renewed, waits)
	expect("made with a key that was revoked", issued, waits)

	_, _, err = a.Certs.Revoke(t.Context(), a.Owner, journal.Operation{Type: "Revoke"}, certs.RevokeParams{CertificateID: stolen.ID}) // as owners are told to
	check(t, err)
	_, err = w.journal.NewEpoch(t.Context(), sallyport.OperatorCaller(a.ID, "test"), a.ID, "restored on purpose")
	check(t, err)
	w.reached(r, a.ID)
	expect("made before, in the new epoch", good, "")
	expect("revoked again, in the new epoch", renewed, "was revoked")
	expect("made since, in the new epoch", issued, "")
}
