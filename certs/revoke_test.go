package certs_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authn/authntest"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/certs"
	"github.com/sallyport-iam/sallyport/journal"
)

func revoke(t *testing.T, a *authntest.Tenant, p certs.RevokeParams) ([]certs.Revocation, journal.Committed) {
	t.Helper()
	revocations, done, err := a.Certs.Revoke(t.Context(), a.Owner, op("Revoke"), p)
	if err != nil {
		t.Fatal(err)
	}
	return revocations, done
}

func ids(revocations []certs.Revocation) []string {
	var list []string
	for _, r := range revocations {
		list = append(list, r.ID)
	}
	return list
}

func serialOf(c certs.Issued) string { return object.RevokedSerial(c.Issuer, c.Serial) }

// A certificate is revoked with all that was renewed from it, and not what it
// was renewed from.
func TestRevokeChain(t *testing.T) {
	t.Parallel()
	a := newWorld(t).Tenant(t)
	sa := robot(t, a)
	var chain []certs.Issued
	chain = append(chain, issue(t, a, certs.IssueParams{ServiceAccount: sa.ID}))
	for range 3 {
		a.Advance(time.Hour)
		next, err := renew(t, a, chain[len(chain)-1], certs.RenewParams{})
		if err != nil {
			t.Fatal(err)
		}
		chain = append(chain, next)
	}
	unrelated := issue(t, a, certs.IssueParams{ServiceAccount: sa.ID})

	got, done := revoke(t, a, certs.RevokeParams{CertificateID: chain[2].ID, Reason: "lost laptop"})
	want := []certs.Revocation{
		{ID: serialOf(chain[2]), Issuer: chain[2].Issuer, Serial: chain[2].Serial, Fingerprint: chain[2].Fingerprint, CertificateID: chain[2].ID,
			Reason: "lost laptop", CreatedBy: a.Owner.Principal.ID, Revoked: done.At, Revision: done.Head.Revision},
		{ID: serialOf(chain[3]), Issuer: chain[3].Issuer, Serial: chain[3].Serial, Fingerprint: chain[3].Fingerprint, CertificateID: chain[3].ID,
			Reason: "lost laptop", CreatedBy: a.Owner.Principal.ID, Revoked: done.At, Revision: done.Head.Revision},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("revoked (-want +got):\n%s", diff)
	}
	for i, c := range append(chain, unrelated) {
		_, err := a.CallWith(t, c)
		if good := i < 2 || i == 4; good != (err == nil) {
			t.Errorf("certificate %d: %v", i, err)
		}
		if i == 2 {
			wantKind(t, "a revoked certificate", err, sallyport.Unauthenticated, "was revoked at")
		}
	}
	again, _ := revoke(t, a, certs.RevokeParams{CertificateID: chain[2].ID, Reason: "another reason"})
	if diff := cmp.Diff(want, again); diff != "" {
		t.Errorf("revoked again (-want +got):\n%s", diff)
	}
	all, _ := revoke(t, a, certs.RevokeParams{Fingerprint: strings.ToUpper(chain[0].Fingerprint)})
	if diff := cmp.Diff([]string{serialOf(chain[0]), serialOf(chain[1]), serialOf(chain[2]), serialOf(chain[3])}, ids(all)); diff != "" {
		t.Errorf("the first revoked (-want +got):\n%s", diff)
	}
	for i, c := range chain {
		if _, err := a.CallWith(t, c); err == nil {
			t.Errorf("certificate %d lets in after the first of its chain was revoked", i)
		}
	}
	if _, err := a.CallWith(t, unrelated); err != nil {
		t.Errorf("another chain: %v", err)
	}
	objects := sameAsJournal(t, a)
	for _, c := range chain {
		if _, ok := objects[serialOf(c)]; !ok {
			t.Errorf("authorizers do not know that %s is revoked", c.ID)
		}
	}
	if len(objects) != 10 {
		t.Errorf("authorizers know %d objects, want the issuer, five certificates and four revocations", len(objects))
	}
}

// What a revocation ends is what was renewed from the certificate, whatever the
// clocks of the service's copies said meanwhile, and not what was renewed beside it.
func TestRevokeByDescent(t *testing.T) {
	t.Parallel()
	a := newWorld(t).Tenant(t)
	sa := robot(t, a)
	first := issue(t, a, certs.IssueParams{ServiceAccount: sa.ID})
	next := func(from certs.Issued, step time.Duration) certs.Issued {
		t.Helper()
		a.Advance(step)
		issued, err := renew(t, a, from, certs.RenewParams{})
		if err != nil {
			t.Fatal(err)
		}
		return issued
	}
	const back = -500 * time.Millisecond
	left := next(first, back)
	leaf := next(left, back)
	deep := next(leaf, back)
	right := next(first, time.Second) // made after left, and beside it
	check := func(what string, good, bad []certs.Issued) {
		t.Helper()
		for want, list := range map[bool][]certs.Issued{true: good, false: bad} {
			for _, c := range list {
				if _, err := a.CallWith(t, c); (err == nil) != want {
					t.Errorf("%s: certificate %d: %v", what, slices.IndexFunc([]certs.Issued{first, left, leaf, deep, right}, func(o certs.Issued) bool { return o.ID == c.ID }), err)
				}
			}
		}
	}
	ended, _ := revoke(t, a, certs.RevokeParams{CertificateID: left.ID})
	if diff := cmp.Diff([]string{serialOf(left), serialOf(leaf), serialOf(deep)}, ids(ended)); diff != "" {
		t.Errorf("revoked (-want +got):\n%s", diff)
	}
	check("one that was renewed", []certs.Issued{first, right}, []certs.Issued{left, leaf, deep})
	if all, _ := revoke(t, a, certs.RevokeParams{CertificateID: first.ID}); len(all) != 5 || all[0].ID != serialOf(first) || all[4].ID != serialOf(deep) {
		t.Errorf("with the first are revoked %v, want all five", ids(all))
	}
	check("the first", nil, []certs.Issued{first, left, leaf, deep, right})
	sameAsJournal(t, a)
}

// With a certificate its holder ends that one and what was renewed from it, and
// with an API key all of his service account's.
func TestRevokeOwn(t *testing.T) {
	t.Parallel()
	a := newWorld(t).Tenant(t)
	sa := robot(t, a)
	mine, others := issue(t, a, certs.IssueParams{ServiceAccount: sa.ID}), issue(t, a, certs.IssueParams{ServiceAccount: sa.ID})
	next, err := renew(t, a, mine, certs.RenewParams{})
	if err != nil {
		t.Fatal(err)
	}
	after, err := renew(t, a, next, certs.RenewParams{})
	if err != nil {
		t.Fatal(err)
	}
	by, err := a.CallWith(t, next)
	if err != nil {
		t.Fatal(err)
	}
	try := func(caller sallyport.Caller, c certs.Issued) error {
		_, _, err := a.Certs.Revoke(t.Context(), caller, op("Revoke"), certs.RevokeParams{Fingerprint: c.Fingerprint})
		return err
	}
	const says = "may revoke itself and what was renewed from it"
	wantKind(t, "another chain's", try(by, others), sallyport.PermissionDenied, says)
	wantKind(t, "the one it was renewed from", try(by, mine), sallyport.PermissionDenied, says)
	wantKind(t, "another service account's", try(by, issue(t, a, certs.IssueParams{ServiceAccount: robot(t, a).ID})), sallyport.PermissionDenied, "")
	wantKind(t, "its successor", try(by, after), "", "")
	wantKind(t, "itself", try(by, next), "", "")
	wantKind(t, "another chain's by a key", try(a.Caller(t, sa, sallyport.Limits{}), others), "", "")
}

func TestRevokeForeign(t *testing.T) {
	t.Parallel()
	a := newWorld(t).Tenant(t)
	fingerprint, issuer := strings.Repeat("0a", 32), strings.Repeat("b1", 32)
	for _, test := range []struct {
		params certs.RevokeParams
		want   certs.Revocation
	}{
		{certs.RevokeParams{Fingerprint: strings.ToUpper(fingerprint)}, certs.Revocation{ID: "certificate/" + fingerprint, Fingerprint: fingerprint}},
		{certs.RevokeParams{Fingerprint: strings.TrimSuffix(strings.Repeat("0C:", 32), ":")}, certs.Revocation{ID: "certificate/" + strings.Repeat("0c", 32), Fingerprint: strings.Repeat("0c", 32)}},
		{certs.RevokeParams{Issuer: issuer, Serial: "00:AB:01"}, certs.Revocation{ID: "serial/" + issuer + "/ab01", Issuer: issuer, Serial: "ab01"}},
		{certs.RevokeParams{Issuer: issuer, Reason: "compromised"}, certs.Revocation{ID: "issuer/" + issuer, Issuer: issuer, Reason: "compromised"}},
	} {
		got, done := revoke(t, a, test.params)
		test.want.CreatedBy, test.want.Revoked, test.want.Revision = a.Owner.Principal.ID, done.At, done.Head.Revision
		if diff := cmp.Diff([]certs.Revocation{test.want}, got); diff != "" {
			t.Errorf("%+v (-want +got):\n%s", test.params, diff)
		}
		again, _ := revoke(t, a, test.params)
		if diff := cmp.Diff(got, again); diff != "" {
			t.Errorf("%+v again (-want +got):\n%s", test.params, diff)
		}
		if _, ok := sameAsJournal(t, a)[test.want.ID]; !ok {
			t.Errorf("authorizers do not know of %s", test.want.ID)
		}
	}
	var listed []string
	for p := (sallyport.Page{Size: 3}); ; {
		list, next, err := a.Certs.Revocations(t.Context(), a.Owner, p)
		if err != nil {
			t.Fatal(err)
		}
		listed = append(listed, ids(list)...)
		if p.Token = next; next == "" {
			break
		}
	}
	if len(listed) != 4 || !slices.IsSorted(listed) {
		t.Errorf("listed %v", listed)
	}
	for _, test := range []struct {
		params certs.RevokeParams
		says   string
	}{
		{certs.RevokeParams{}, "name exactly one"},
		{certs.RevokeParams{CertificateID: "cert_a", Fingerprint: fingerprint}, "name exactly one"},
		{certs.RevokeParams{CertificateID: "cert_a", Issuer: issuer}, "name exactly one"},
		{certs.RevokeParams{Fingerprint: fingerprint, Issuer: issuer}, "name exactly one"},
		{certs.RevokeParams{Serial: "01"}, "issuer_id: is missing"},
		{certs.RevokeParams{Serial: "00", Issuer: issuer}, "serial: "},
		{certs.RevokeParams{Serial: "-1", Issuer: issuer}, "serial: "},
		{certs.RevokeParams{Serial: strings.Repeat("a", 41), Issuer: issuer}, "serial: "},
		{certs.RevokeParams{Serial: "1/2", Issuer: issuer}, "serial: "},
		{certs.RevokeParams{Issuer: "abc"}, "issuer_id: "},
		{certs.RevokeParams{Fingerprint: fingerprint[1:]}, "fingerprint: "},
		{certs.RevokeParams{Issuer: issuer, Reason: strings.Repeat("é", 201)}, "reason: "},
		{certs.RevokeParams{Issuer: issuer, Reason: "a\nb"}, "reason: "},
	} {
		_, _, err := a.Certs.Revoke(t.Context(), a.Owner, op("Revoke"), test.params)
		wantKind(t, test.says, err, sallyport.Invalid, test.says)
	}
	_, _, err := a.Certs.Revoke(t.Context(), a.Owner, op("Revoke"), certs.RevokeParams{CertificateID: "cert_aaaaaaaaaaaaaaaa"})
	wantKind(t, "a certificate that is not there", err, sallyport.NotFound, "")
}

// A repetition answers with what was revoked then.
func TestRevokeRepeated(t *testing.T) {
	t.Parallel()
	a := newWorld(t).Tenant(t)
	sa := robot(t, a)
	c := issue(t, a, certs.IssueParams{ServiceAccount: sa.ID})
	for name, p := range map[string]certs.RevokeParams{
		"certificate": {CertificateID: c.ID}, "foreign": {Fingerprint: strings.Repeat("ab", 32)}, "issuer": {Issuer: strings.Repeat("cd", 32)},
	} {
		operation := journal.Operation{ID: name, Type: "Revoke", Request: []byte(name)}
		first, done, err := a.Certs.Revoke(t.Context(), a.Owner, operation, p)
		if err != nil || len(first) != 1 {
			t.Fatalf("%s: %+v, %v", name, first, err)
		}
		again, replayed, err := a.Certs.Revoke(t.Context(), a.Owner, operation, p)
		if diff := cmp.Diff(first, again); diff != "" || err != nil || !replayed.Replayed || replayed.Head != done.Head {
			t.Errorf("%s: %v, %+v (-first +again):\n%s", name, err, replayed, diff)
		}
	}
}

// A revoked intermediate takes all its certificates with it; the next
// certificate has a new one.
func TestRevokeIssuer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.Tenant(t), w.Tenant(t)
	sa := robot(t, a)
	old := issue(t, a, certs.IssueParams{ServiceAccount: sa.ID})
	others := issue(t, b, certs.IssueParams{ServiceAccount: robot(t, b).ID})

	revoke(t, b, certs.RevokeParams{Issuer: old.Issuer}) // means nothing in another account
	if _, err := a.CallWith(t, old); err != nil {
		t.Fatalf("after another account revoked the issuer: %v", err)
	}
	revoke(t, a, certs.RevokeParams{Issuer: old.Issuer})
	_, err := a.CallWith(t, old)
	wantKind(t, "under a revoked issuer", err, sallyport.Unauthenticated, "was revoked at")
	if c, err := a.Certs.Get(t.Context(), a.Owner, old.ID); err != nil || c.State(a.Now()) != certs.Revoked || c.Reason != "its issuer was revoked" {
		t.Errorf("read: %s, %q, %v", c.State(a.Now()), c.Reason, err)
	}
	csr, _ := authntest.CSR(t)
	_, _, err = a.Certs.Renew(t.Context(), a.Owner, op("RenewCertificate"), certs.RenewParams{ID: old.ID, CSR: csr})
	wantKind(t, "renewing under a revoked issuer", err, sallyport.Conflict, "was revoked")
	fresh := issue(t, a, certs.IssueParams{ServiceAccount: sa.ID})
	if fresh.Issuer == old.Issuer {
		t.Error("the revoked issuer goes on")
	}
	if _, err := a.CallWith(t, fresh); err != nil {
		t.Errorf("under the new issuer: %v", err)
	}
	if _, err := b.CallWith(t, others); err != nil {
		t.Errorf("another account's certificate: %v", err)
	}
	objects := sameAsJournal(t, a)
	if objects[old.Issuer].Data == nil || objects[object.RevokedIssuer(old.Issuer)].Data == nil {
		t.Error("authorizers cannot tell that the issuer was revoked")
	}
	if _, ok := objects[fresh.Issuer]; !ok {
		t.Error("authorizers do not know the new issuer")
	}
	sameAsJournal(t, b)
}

// Deleting a service account revokes its certificates in the same entry.
func TestServiceAccountDeleted(t *testing.T) {
	t.Parallel()
	a := newWorld(t).Tenant(t)
	sa, other := robot(t, a), robot(t, a)
	c, spared := issue(t, a, certs.IssueParams{ServiceAccount: sa.ID}), issue(t, a, certs.IssueParams{ServiceAccount: other.ID})
	short := issue(t, a, certs.IssueParams{ServiceAccount: sa.ID, Lifetime: 10 * time.Minute})
	a.Advance(time.Hour)
	done, err := a.Directory.DeleteServiceAccount(t.Context(), a.Owner, op("DeleteServiceAccount"), sa.ID, 0)
	if err != nil {
		t.Fatal(err)
	}
	got, err := a.Certs.Get(t.Context(), a.Owner, c.ID)
	if err != nil || !got.Revoked.Equal(done.At) || got.Revision != done.Head.Revision || got.Reason != "the service account was deleted" {
		t.Errorf("the certificate is %+v, %v", got.Certificate, err)
	}
	objects := sameAsJournal(t, a)
	if _, ok := objects[serialOf(c)]; !ok {
		t.Error("authorizers do not know")
	}
	if _, ok := objects[serialOf(short)]; ok {
		t.Error("authorizers are told of a certificate that had expired")
	}
	_, err = a.CallWith(t, c)
	wantKind(t, "calling", err, sallyport.Unauthenticated, "is deleted")
	if _, err := a.CallWith(t, spared); err != nil {
		t.Error(err)
	}
}

// Revocations that are never forgotten are bounded; issuers can be revoked beyond.
func TestTooManyRevocations(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.Tenant(t), w.Tenant(t)
	config := w.Config()
	config.MaxRevocations = 3
	authority, err := certs.New(config)
	if err != nil {
		t.Fatal(err)
	}
	print := func(n int) string { return strings.Repeat(string(rune('a'+n)), 64) }
	try := func(a *authntest.Tenant, p certs.RevokeParams) error {
		_, _, err := authority.Revoke(t.Context(), a.Owner, op("Revoke"), p)
		return err
	}
	own := issue(t, a, certs.IssueParams{ServiceAccount: robot(t, a).ID})
	for n := range 3 {
		wantKind(t, "below the limit", try(a, certs.RevokeParams{Fingerprint: print(n)}), "", "")
		wantKind(t, "once more", try(a, certs.RevokeParams{Fingerprint: print(n)}), "", "")
	}
	wantKind(t, "a fingerprint more", try(a, certs.RevokeParams{Fingerprint: print(3)}), sallyport.Conflict, "has revoked 3 certificates and issuers")
	wantKind(t, "a serial number more", try(a, certs.RevokeParams{Issuer: print(3), Serial: "a1"}), sallyport.Conflict, "revoke the certificate's issuer instead")
	wantKind(t, "what is revoked", try(a, certs.RevokeParams{Fingerprint: print(0)}), "", "")
	wantKind(t, "an issuer", try(a, certs.RevokeParams{Issuer: print(4)}), "", "")
	wantKind(t, "one of the managed CA", try(a, certs.RevokeParams{CertificateID: own.ID}), "", "")
	wantKind(t, "another account's", try(b, certs.RevokeParams{Fingerprint: print(3)}), "", "")
	sameAsJournal(t, a)
}

// Revocations stay for a day after their certificates, certificates for 30 after
// their whole chain can be renewed no more.
func TestReap(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.Tenant(t), w.Tenant(t)
	sa := robot(t, a)
	first := issue(t, a, certs.IssueParams{ServiceAccount: sa.ID, Lifetime: time.Hour})
	second, err := renew(t, a, first, certs.RenewParams{})
	if err != nil {
		t.Fatal(err)
	}
	kept := issue(t, b, certs.IssueParams{ServiceAccount: robot(t, b).ID})
	revoke(t, a, certs.RevokeParams{CertificateID: second.ID})
	revoke(t, a, certs.RevokeParams{Fingerprint: strings.Repeat("ab", 32)})
	states := func() (list []bool) {
		t.Helper()
		if err := w.Certs.Reap(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, c := range []certs.Issued{first, second} {
			_, err := a.Certs.Get(t.Context(), a.Operator, c.ID)
			list = append(list, err == nil)
		}
		objects := sameAsJournal(t, a)
		_, revoked := objects[serialOf(second)]
		_, foreign := objects["certificate/"+strings.Repeat("ab", 32)]
		return append(list, revoked, foreign)
	}
	for _, test := range []struct {
		after time.Duration
		want  []bool // first, second, the second's revocation, the foreign one's
	}{
		{24 * time.Hour, []bool{true, true, true, true}},
		{2 * time.Hour, []bool{true, true, false, true}},
		{29 * day, []bool{true, true, false, true}},
		{59 * day, []bool{true, true, false, true}},
		{33 * day, []bool{false, false, false, true}},
	} {
		a.Advance(test.after)
		if diff := cmp.Diff(test.want, states()); diff != "" {
			t.Errorf("after %s more (-want +got):\n%s", test.after, diff)
		}
	}
	if _, err := b.Certs.Get(t.Context(), b.Operator, kept.ID); err == nil {
		t.Error("another account's certificate stays for ever")
	}
	for _, tenant := range []*authntest.Tenant{a, b} {
		if _, err := w.Journal.VerifyAccount(t.Context(), tenant.ID); err != nil {
			t.Error(err)
		}
	}
}
