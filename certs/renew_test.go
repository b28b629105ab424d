package certs_test

import (
	"crypto/elliptic"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authn/authntest"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/certs"
)

const day = 24 * time.Hour

func TestLifetimes(t *testing.T) {
	t.Parallel()
	a := newWorld(t).Tenant(t)
	sa := robot(t, a)
	for _, test := range []struct {
		lifetime time.Duration
		want     time.Duration
		kind     sallyport.Kind
		says     string
	}{
		{0, day, "", ""},
		{10 * time.Minute, 10 * time.Minute, "", ""},
		{90 * day, 90 * day, "", ""},
		{10*time.Minute - time.Second, 0, sallyport.Invalid, "at least 10m"},
		{-time.Hour, 0, sallyport.Invalid, "at least 10m"},
		{90*day + time.Second, 0, sallyport.Invalid, "at most 90 days"},
	} {
		csr, _ := authntest.CSR(t)
		issued, done, err := a.Certs.Issue(t.Context(), a.Owner, op("IssueCertificate"), certs.IssueParams{ServiceAccount: sa.ID, CSR: csr, Lifetime: test.lifetime})
		wantKind(t, test.lifetime.String(), err, test.kind, test.says)
		if err == nil && !issued.NotAfter.Equal(done.At.Add(test.want).Truncate(time.Second)) {
			t.Errorf("%s: ends %s after it was made", test.lifetime, issued.NotAfter.Sub(done.At))
		}
	}
}

// A chain renews itself until it is 90 days old, and no certificate of it lives
// longer.
func TestRenewal(t *testing.T) {
	t.Parallel()
	a := newWorld(t).Tenant(t)
	sa := robot(t, a)
	first := issue(t, a, certs.IssueParams{ServiceAccount: sa.ID, Lifetime: 20 * day})
	now := first
	for _, wantLife := range []time.Duration{20 * day, 20 * day, 20 * day, 20 * day, 10 * day} {
		a.Advance(16 * day)
		next, err := renew(t, a, now, certs.RenewParams{})
		if err != nil {
			t.Fatal(err)
		}
		life := next.NotAfter.Sub(next.Created)
		if diff := life - wantLife; diff > time.Minute || diff < -time.Minute {
			t.Errorf("the renewal lives %s, want %s", life, wantLife)
		}
		if next.First != first.ID || next.RenewedFrom != now.ID || !next.RenewableUntil.Equal(first.RenewableUntil) || next.ServiceAccount != sa.ID {
			t.Errorf("the renewal of %s is %+v", now.ID, next.Certificate)
		}
		now = next
	}
	if now.NotAfter.After(first.RenewableUntil) {
		t.Errorf("ends at %s, after its chain at %s", now.NotAfter, first.RenewableUntil)
	}
	a.Advance(9*day + 23*time.Hour + 55*time.Minute)
	if _, err := renew(t, a, now, certs.RenewParams{}); sallyport.KindOf(err) != sallyport.Conflict {
		t.Errorf("renewing at the chain's end: got %v", err)
	}
	csr, _ := authntest.CSR(t)
	_, _, err := a.Certs.Renew(t.Context(), a.Operator, op("RenewCertificate"), certs.RenewParams{ID: now.ID, CSR: csr})
	wantKind(t, "renewing at the chain's end by the owner", err, sallyport.Conflict, "chain of renewals ends")
}

func TestWhatCanBeRenewed(t *testing.T) {
	t.Parallel()
	a := newWorld(t).Tenant(t)
	sa := robot(t, a)
	csr, _ := authntest.CSR(t)
	byOwner := func(id string, p certs.RenewParams) error {
		p.ID, p.CSR = id, csr
		_, _, err := a.Certs.Renew(t.Context(), a.Owner, op("RenewCertificate"), p)
		return err
	}
	old := issue(t, a, certs.IssueParams{ServiceAccount: sa.ID, Lifetime: time.Hour})
	caller, err := a.CallWith(t, old)
	if err != nil {
		t.Fatal(err)
	}
	bySelf := func(p certs.RenewParams) error {
		p.CSR = csr
		_, _, err := a.Certs.Renew(t.Context(), caller, op("RenewCertificate"), p)
		return err
	}
	wantKind(t, "longer than it was made for, by itself", bySelf(certs.RenewParams{Lifetime: 2 * time.Hour}), sallyport.Invalid, "at most the life it was given, 1h0m0s")
	wantKind(t, "shorter, by itself", bySelf(certs.RenewParams{Lifetime: 30 * time.Minute}), "", "")
	wantKind(t, "longer, by the owner", byOwner(old.ID, certs.RenewParams{Lifetime: 2 * time.Hour}), "", "")
	wantKind(t, "none named, by the owner", byOwner("", certs.RenewParams{}), sallyport.Invalid, "certificate_id")
	wantKind(t, "one that is not there", byOwner("cert_aaaaaaaaaaaaaaaa", certs.RenewParams{}), sallyport.NotFound, "")

	other := issue(t, a, certs.IssueParams{ServiceAccount: sa.ID})
	wantKind(t, "another of the same service account", bySelf(certs.RenewParams{ID: other.ID}), sallyport.PermissionDenied, "cannot make others")
	_, _, err = a.Certs.Issue(t.Context(), caller, op("IssueCertificate"), certs.IssueParams{ServiceAccount: sa.ID, CSR: csr})
	wantKind(t, "a new chain by a certificate", err, sallyport.PermissionDenied, "cannot make others")
	byKey := a.Caller(t, sa, sallyport.Limits{})
	_, _, err = a.Certs.Issue(t.Context(), byKey, op("IssueCertificate"), certs.IssueParams{ServiceAccount: sa.ID, CSR: csr})
	wantKind(t, "a new chain by an API key of the service account", err, "", "")

	if caller, err = a.CallWith(t, old); err != nil {
		t.Fatal(err)
	}
	a.Advance(2 * time.Hour)
	wantKind(t, "expired, by itself", bySelf(certs.RenewParams{}), sallyport.Conflict, "expired")
	wantKind(t, "expired, by the owner", byOwner(old.ID, certs.RenewParams{}), "", "")

	setStatus(t, a, sa, object.Disabled)
	wantKind(t, "of a disabled service account, by the owner", byOwner(other.ID, certs.RenewParams{}), sallyport.Conflict, "is disabled")
	setStatus(t, a, sa, object.Active)
	wantKind(t, "enabled again", byOwner(other.ID, certs.RenewParams{}), "", "")
	if _, _, err := a.Certs.Revoke(t.Context(), a.Owner, op("Revoke"), certs.RevokeParams{CertificateID: other.ID}); err != nil {
		t.Fatal(err)
	}
	wantKind(t, "revoked", byOwner(other.ID, certs.RenewParams{}), sallyport.Conflict, "was revoked")
}

func setStatus(t *testing.T, a *authntest.Tenant, sa sallyport.Principal, status object.Status) {
	t.Helper()
	if _, _, err := a.Directory.SetServiceAccountStatus(t.Context(), a.Owner, op("SetServiceAccountStatus"), sa.ID, 0, status); err != nil {
		t.Fatal(err)
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	config := w.Config()
	config.MaxCertificates = 2
	small, err := certs.New(config)
	if err != nil {
		t.Fatal(err)
	}
	a := w.Tenant(t)
	sa := robot(t, a)
	csr := csrOf(t, ecdsaKey(t, elliptic.P256()))
	make := func(p certs.IssueParams) (certs.Issued, error) {
		p.ServiceAccount, p.CSR = sa.ID, csr
		issued, _, err := small.Issue(t.Context(), a.Owner, op("IssueCertificate"), p)
		return issued, err
	}
	renew := func(id string) (certs.Issued, error) {
		issued, _, err := small.Renew(t.Context(), a.Owner, op("RenewCertificate"), certs.RenewParams{ID: id, CSR: csr})
		return issued, err
	}
	first, err := make(certs.IssueParams{Lifetime: time.Hour})
	wantKind(t, "the first", err, "", "")
	_, err = make(certs.IssueParams{})
	wantKind(t, "the second", err, "", "")
	_, err = make(certs.IssueParams{})
	wantKind(t, "the third", err, sallyport.Conflict, "has 2 certificates that are good, and may have 2")
	next, err := renew(first.ID)
	wantKind(t, "a renewal beyond", err, "", "")
	_, err = renew(next.ID)
	wantKind(t, "another", err, "", "")
	_, err = renew(next.ID)
	wantKind(t, "more than twice as many", err, sallyport.Conflict, "may have 4")
	other := robot(t, a)
	_, _, err = small.Issue(t.Context(), a.Owner, op("IssueCertificate"), certs.IssueParams{ServiceAccount: other.ID, CSR: csr})
	wantKind(t, "another service account's", err, "", "")
	for i := 4; i < 20; i++ {
		if _, _, err := small.Revoke(t.Context(), a.Owner, op("Revoke"), certs.RevokeParams{CertificateID: first.ID}); err != nil {
			t.Fatal(err)
		}
		if first, err = make(certs.IssueParams{}); err != nil {
			t.Fatalf("certificate %d: %v", i, err)
		}
	}
	if _, _, err := small.Revoke(t.Context(), a.Owner, op("Revoke"), certs.RevokeParams{CertificateID: first.ID}); err != nil {
		t.Fatal(err)
	}
	_, err = make(certs.IssueParams{})
	wantKind(t, "too many in a day", err, sallyport.Exhausted, "20 certificates made within 24 hours")
	a.Advance(25 * time.Hour)
	_, err = make(certs.IssueParams{})
	wantKind(t, "the day after", err, "", "")
}

// Whichever comes first, a revoked chain has no good certificate.
func TestRenewalsRaceRevocation(t *testing.T) {
	t.Parallel()
	a := newWorld(t).Tenant(t)
	sa := robot(t, a)
	for range 5 {
		first := issue(t, a, certs.IssueParams{ServiceAccount: sa.ID})
		var wg sync.WaitGroup
		for range 6 {
			wg.Go(func() {
				csr, _ := authntest.CSR(t)
				next, _, err := a.Certs.Renew(t.Context(), a.Owner, op("RenewCertificate"), certs.RenewParams{ID: first.ID, CSR: csr})
				for err == nil {
					next, _, err = a.Certs.Renew(t.Context(), a.Owner, op("RenewCertificate"), certs.RenewParams{ID: next.ID, CSR: csr})
				}
				if !errors.Is(err, sallyport.Conflict) {
					t.Error(err)
				}
			})
		}
		wg.Go(func() {
			time.Sleep(20 * time.Millisecond)
			if _, _, err := a.Certs.Revoke(t.Context(), a.Owner, op("Revoke"), certs.RevokeParams{CertificateID: first.ID}); err != nil {
				t.Error(err)
			}
		})
		wg.Wait()
	}
	list, next, err := a.Certs.List(t.Context(), a.Owner, sa.ID, sallyport.Page{Size: 1000})
	if err != nil || next != "" || len(list) < 10 {
		t.Fatalf("%d certificates, %q, %v", len(list), next, err)
	}
	objects := sameAsJournal(t, a)
	for _, c := range list {
		if c.State(a.Now()) != certs.Revoked {
			t.Errorf("%s, renewed from %q, is %s", c.ID, c.RenewedFrom, c.State(a.Now()))
		}
		if _, ok := objects["serial/"+c.Issuer+"/"+c.Serial]; !ok {
			t.Errorf("authorizers do not know that %s is revoked", c.ID)
		}
	}
}
