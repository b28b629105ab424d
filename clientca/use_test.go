package clientca_test

import (
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/clientca"
	"github.com/sallyport-iam/sallyport/credential"
	"github.com/sallyport-iam/sallyport/directory"
	"github.com/sallyport-iam/sallyport/journal"
)

// used is a namespace with two CAs, of which the first has an intermediate in
// the bundle, and certificates that were seen on calls.
type used struct {
	*tenant
	directory.Namespace
	one, middle, two                authority
	root, deep, other, gone, loaned *x509.Certificate // under one, middle, two, one (expired), the managed CA
	managed                         authority
}

func newUsed(t *testing.T, filters ...credential.Filter) *used {
	t.Helper()
	return newUsedIn(t, newWorld(t), filters...)
}

func newUsedIn(t *testing.T, w *world, filters ...credential.Filter) *used {
	t.Helper()
	u := &used{tenant: w.tenant(t), one: newCA(t, "one"), two: newCA(t, "two"), managed: newCA(t, "managed")}
	u.commit(func(tx *journal.Tx) error {
		return tx.Put(t.Context(), object.KindIssuer, credential.IssuerID(u.managed.cert), object.Encode(object.Issuer{Certificate: u.managed.cert.Raw, TrustDomain: "example.org"}))
	})
	u.middle = issueCA(t, &x509.Certificate{Subject: name("middle")}, u.one)
	u.Namespace = u.namespace("orders", join(u.one.pem, u.middle.pem, u.two.pem), filters...)
	u.root, u.deep, u.other = u.one.leaf(t, "root"), u.middle.leaf(t, "deep"), u.two.leaf(t, "other")
	u.gone, u.loaned = u.one.leaf(t, "gone", lasting(-time.Minute)), u.managed.leaf(t, "loaned")
	u.saw(u.Namespace, u.root, under(u.one))
	u.saw(u.Namespace, u.deep, under(u.one))
	u.saw(u.Namespace, u.other, under(u.two))
	u.saw(u.Namespace, u.gone, under(u.one))
	u.saw(u.Namespace, u.loaned, func(use *clientca.Use) { use.Managed = true })
	u.saw(u.Namespace, u.managed.leaf(t, "returned", lasting(-time.Minute)), func(use *clientca.Use) { use.Managed = true })
	u.flush(t)
	return u
}

func (u *used) remove(force bool, cas ...authority) (clientca.Change, error) {
	var fingerprints []string
	for _, ca := range cas {
		fingerprints = append(fingerprints, credential.Fingerprint(ca.cert))
	}
	change, _, err := u.cas.Remove(u.t.Context(), u.owner, op("RemoveClientCas"), "orders", fingerprints, force)
	return change, err
}

func TestRemoveInUse(t *testing.T) {
	t.Parallel()
	u := newUsed(t)
	_, err := u.remove(false, u.one, u.middle)
	want(t, "in use", err, sallyport.Conflict, "", "2 (", credential.Fingerprint(u.root), "CN=deep", "force it")
	for _, not := range []*x509.Certificate{u.other, u.gone, u.loaned} {
		if err != nil && strings.Contains(err.Error(), credential.Fingerprint(not)) {
			t.Errorf("the list has %s, which does not stop: %v", not.Subject, err)
		}
	}
	if n := u.read("orders"); n.Revision != u.Revision || len(u.warned()) > 0 {
		t.Errorf("something was changed: %d, want %d", n.Revision, u.Revision)
	}
	// A CA between leaf and root is in use too, although chains end at the root.
	_, err = u.remove(false, u.middle)
	want(t, "one in between", err, sallyport.Conflict, "", "1 (", credential.Fingerprint(u.deep))
	b, err := u.cas.List(t.Context(), u.owner, "orders")
	if want(t, "listing", err, "", ""); b.CAs[0].LastSeen.IsZero() || b.CAs[1].LastSeen.IsZero() || b.CAs[2].LastSeen.IsZero() {
		t.Errorf("last seen: %+v", b.CAs)
	}

	change, err := u.remove(true, u.one, u.middle)
	want(t, "forced", err, "", "")
	if len(change.Warnings) != 1 || !strings.Contains(change.Warnings[0], credential.Fingerprint(u.root)) {
		t.Errorf("warnings: %q", change.Warnings)
	}
	u.wantWarned("client CAs were removed", u.root, u.deep)
	if o, _ := u.object(u.Namespace); len(o.Certificates) != 1 {
		t.Errorf("authorizers know %d CAs, want 1", len(o.Certificates))
	}
	// What was stopped then does not stop again.
	_, err = u.remove(false, u.two)
	want(t, "the other one", err, sallyport.Conflict, "", "mTLS")
	_, _, err = u.cas.Add(t.Context(), u.owner, op("AddClientCas"), "orders", newCA(t, "new").pem)
	want(t, "a new one", err, "", "")
	_, err = u.remove(false, u.two)
	want(t, "the other one", err, sallyport.Conflict, "", "1 (", credential.Fingerprint(u.other))
}

// wantWarned: the journal and the mails were told, by fingerprints alone.
func (u *used) wantWarned(reason string, leaves ...*x509.Certificate) {
	u.t.Helper()
	var fingerprints []string
	for _, leaf := range leaves {
		fingerprints = append(fingerprints, credential.Fingerprint(leaf))
	}
	slices.Sort(fingerprints)
	warned := u.warned()
	if len(warned) != 1 {
		u.t.Fatalf("told of %+v, want one warning", warned)
	}
	slices.Sort(warned[0].Stops)
	if diff := cmp.Diff(clientca.Warning{Account: u.account, Namespace: u.ID, Name: "orders", Caller: u.owner.Principal.ID, Reason: reason,
		Stops: fingerprints, Count: len(leaves)}, warned[0]); diff != "" {
		u.t.Errorf("told (-want +got):\n%s", diff)
	}
	entry := u.lastEntry()
	for i, f := range fingerprints {
		if !strings.Contains(entry, f) {
			u.t.Errorf("the journal does not name %s: %s", f, entry)
		}
		if strings.Contains(entry, leaves[i].Subject.CommonName+",") {
			u.t.Errorf("the journal has the name %s: %s", leaves[i].Subject, entry)
		}
	}
}

// TestUpdateInUse: CloudService has no force; it is done, and warned about.
func TestUpdateInUse(t *testing.T) {
	t.Parallel()
	u := newUsed(t)
	want(t, "retention", u.update("orders", func(p *directory.NamespaceParams) { p.RetentionDays = 8 }), "", "")
	want(t, "another order", u.update("orders", func(p *directory.NamespaceParams) { p.ClientCA = join(u.two.pem, u.one.pem, u.middle.pem) }), "", "")
	if w := u.warned(); len(w) > 0 {
		t.Errorf("warned of what stops nothing: %+v", w)
	}
	want(t, "a CA less", u.update("orders", func(p *directory.NamespaceParams) { p.ClientCA = join(u.one.pem, u.middle.pem) }), "", "")
	u.wantWarned("client CAs were removed", u.other)
	want(t, "filters", u.update("orders", func(p *directory.NamespaceParams) { p.CertificateFilters = []credential.Filter{{CommonName: "ro*"}} }), "", "")
	u.wantWarned("certificate filters became narrower", u.deep)
	want(t, "a wider filter", u.update("orders", func(p *directory.NamespaceParams) { p.CertificateFilters = []credential.Filter{{CommonName: "r*"}} }), "", "")
	want(t, "no filters", u.update("orders", func(p *directory.NamespaceParams) { p.CertificateFilters = nil }), "", "")
	if w := u.warned(); len(w) > 0 {
		t.Errorf("warned of what stops nothing: %+v", w)
	}
	want(t, "mTLS off", u.update("orders", func(p *directory.NamespaceParams) { p.MTLSAuth = false }), "", "")
	u.wantWarned("mTLS was switched off", u.root, u.deep, u.loaned)
	want(t, "no CAs while it is off", u.update("orders", func(p *directory.NamespaceParams) { p.ClientCA = nil }), "", "")
	if w := u.warned(); len(w) > 0 {
		t.Errorf("warned of what stops nothing: %+v", w)
	}
}

// TestRevokedIsNotInUse: by fingerprint, by number, through a revoked CA.
func TestRevokedIsNotInUse(t *testing.T) {
	t.Parallel()
	u := newUsed(t)
	u.revoke(object.RevokedCertificate(credential.Fingerprint(u.root)), object.RevokedIssuer(credential.IssuerID(u.middle.cert)))
	_, err := u.remove(false, u.one, u.middle)
	want(t, "what is revoked", err, "", "")
	u.revoke(object.RevokedSerial(credential.IssuerID(u.two.cert), credential.SerialText(u.other.SerialNumber)))
	_, _, err = u.cas.Add(t.Context(), u.owner, op("AddClientCas"), "orders", newCA(t, "new").pem)
	want(t, "a new one", err, "", "")
	_, err = u.remove(false, u.two)
	want(t, "what is revoked by its number", err, "", "")
	if w := u.warned(); len(w) > 0 {
		t.Errorf("warned of what was revoked: %+v", w)
	}
}

// TestRevokedCAIsNotUsed: a CA counts as revoked in every form, as authorizers have it.
func TestRevokedCAIsNotUsed(t *testing.T) {
	t.Parallel()
	for form, id := range map[string]func(u *used) string{
		"its key":                      func(u *used) string { return object.RevokedIssuer(credential.IssuerID(u.one.cert)) },
		"its fingerprint":              func(u *used) string { return object.RevokedCertificate(credential.Fingerprint(u.one.cert)) },
		"its number":                   func(u *used) string { return serialOf(u.one, u.one) },
		"the fingerprint below":        func(u *used) string { return object.RevokedCertificate(credential.Fingerprint(u.middle.cert)) },
		"the number below":             func(u *used) string { return serialOf(u.middle, u.one) },
		"the number below, of another": func(u *used) string { return serialOf(u.middle, u.two) },
	} {
		u := newUsed(t)
		u.revoke(id(u))
		stops := []*x509.Certificate{u.root}
		switch form {
		case "its key", "its fingerprint", "its number":
			stops = nil
		case "the number below, of another":
			stops = append(stops, u.deep)
		}
		want(t, form, u.update("orders", func(p *directory.NamespaceParams) { p.ClientCA = u.two.pem }), "", "")
		if len(stops) > 0 {
			u.wantWarned("client CAs were removed", stops...)
		} else if w := u.warned(); len(w) > 0 {
			t.Errorf("%s: warned of what was revoked: %+v", form, w)
		}
	}
}

// serialOf names a CA by its number and its issuer, as a revocation does.
func serialOf(ca, issuer authority) string {
	return object.RevokedSerial(credential.IssuerID(issuer.cert), credential.SerialText(ca.cert.SerialNumber))
}

// TestManyInUse: a refusal names twenty of them.
func TestManyInUse(t *testing.T) {
	t.Parallel()
	a := newWorld(t).tenant(t)
	one, two := newCA(t, "one"), newCA(t, "two")
	n := a.namespace("orders", join(one.pem, two.pem))
	for i := range 25 {
		a.saw(n, one.leaf(t, fmt.Sprint("worker ", i)), under(one))
	}
	a.flush(t)
	_, _, err := a.cas.Remove(t.Context(), a.owner, op("RemoveClientCas"), "orders", []string{credential.Fingerprint(one.cert)}, false)
	want(t, "many", err, sallyport.Conflict, "", "25 (", "and 5 more")
	if err != nil && (strings.Count(err.Error(), "CN=worker") != 20 || len(err.Error()) > 4000) {
		t.Errorf("%d bytes, want twenty of them: %v", len(err.Error()), err)
	}
	// Those of last month do not count.
	a.ahead.Store(int64(8 * 24 * time.Hour))
	_, _, err = a.cas.Remove(t.Context(), a.owner, op("RemoveClientCas"), "orders", []string{credential.Fingerprint(one.cert)}, false)
	want(t, "later", err, "", "")
}

func TestCheck(t *testing.T) {
	t.Parallel()
	u := newUsed(t)
	three := newCA(t, "three")
	wanted := three.leaf(t, "wanted")
	u.saw(u.Namespace, wanted, func(use *clientca.Use) { use.Refused = "it is not issued by any CA of this namespace" })
	u.flush(t)
	check := func(p clientca.CheckParams) clientca.CheckResult {
		t.Helper()
		r, err := u.cas.Check(t.Context(), u.owner, "orders", p)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	names := func(list []clientca.Seen) []string {
		found := []string{}
		for _, s := range list {
			found = append(found, strings.TrimSuffix(strings.TrimPrefix(s.Subject, "CN="), ",O=Test"))
		}
		slices.Sort(found)
		return found
	}
	for _, tt := range []struct {
		name        string
		p           clientca.CheckParams
		stop, start []string
	}{
		{"as it is", clientca.CheckParams{}, []string{}, []string{}},
		{"the same", clientca.CheckParams{Bundle: join(u.two.pem, u.middle.pem, u.one.pem)}, []string{}, []string{}},
		{"without one in between", clientca.CheckParams{Bundle: join(u.one.pem, u.two.pem)}, []string{"deep"}, []string{}},
		{"another", clientca.CheckParams{Bundle: join(three.pem, u.two.pem)}, []string{"deep", "root"}, []string{"wanted"}},
		{"filters", clientca.CheckParams{ReplaceFilters: true, Filters: []credential.Filter{{CommonName: "Root"}, {CommonName: "*er"}}}, []string{"deep"}, []string{}},
		{"both", clientca.CheckParams{Bundle: three.pem, ReplaceFilters: true, Filters: []credential.Filter{{CommonName: "x"}}}, []string{"deep", "other", "root"}, []string{}},
		{"seen later", clientca.CheckParams{Bundle: three.pem, Since: u.now().Add(time.Hour)}, []string{}, []string{}},
	} {
		r := check(tt.p)
		if diff := cmp.Diff([][]string{tt.stop, tt.start}, [][]string{names(r.WouldStop), names(r.WouldStart)}); diff != "" || r.Incomplete {
			t.Errorf("%s: would stop, would start (-want +got):\n%s", tt.name, diff)
		}
	}
	if r := check(clientca.CheckParams{}); r.Checked != 4 || len(r.Warnings) > 0 { // not the expired one, nor that of the managed CA
		t.Errorf("checked %d, want 4; %q", r.Checked, r.Warnings)
	}
	if got := u.read("orders").Revision; got != u.Revision {
		t.Errorf("checking moved the namespace to %d", got)
	}
	want(t, "mTLS off", u.update("orders", func(p *directory.NamespaceParams) { p.MTLSAuth = false }), "", "")
	if r := check(clientca.CheckParams{Bundle: u.two.pem}); len(r.WouldStop) != 2 || len(r.Warnings) != 1 {
		t.Errorf("with mTLS off: %+v", r)
	}
}

// TestWhoMay: readers read, admins of the namespace change, others learn nothing.
func TestWhoMay(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.tenant(t), w.tenant(t)
	ca, filter := newCA(t, "one"), credential.Filter{CommonName: "a"}
	a.namespace("orders", ca.pem, filter)
	a.namespace("other", ca.pem)
	read, write, admin := a.user(on("orders", sallyport.PermissionRead)), a.user(on("orders", sallyport.PermissionWrite)), a.user(on("orders", sallyport.PermissionAdmin))
	elsewhere, none := a.user(on("other", sallyport.PermissionAdmin)), a.user(directory.Access{Role: sallyport.RoleRead})
	narrowed := admin
	narrowed.Limits.ReadOnly = true
	stranger := a.owner
	stranger.Access = b.owner.Access
	stranger.Account, stranger.Principal = b.account, b.owner.Principal

	ctx := t.Context()
	reads := map[string]func(c sallyport.Caller) error{
		"List":    func(c sallyport.Caller) error { _, err := w.cas.List(ctx, c, "orders"); return err },
		"Filters": func(c sallyport.Caller) error { _, err := w.cas.Filters(ctx, c, "orders"); return err },
		"Seen": func(c sallyport.Caller) error {
			_, _, err := w.cas.Seen(ctx, c, "orders", time.Time{}, sallyport.Page{})
			return err
		},
		"Check": func(c sallyport.Caller) error {
			_, err := w.cas.Check(ctx, c, "orders", clientca.CheckParams{})
			return err
		},
	}
	changes := map[string]func(c sallyport.Caller) error{
		"Add": func(c sallyport.Caller) error {
			_, _, err := w.cas.Add(ctx, c, op("AddClientCas"), "orders", newCA(t, "more").pem)
			return err
		},
		"Remove": func(c sallyport.Caller) error {
			_, _, err := w.cas.Remove(ctx, c, op("RemoveClientCas"), "orders", []string{credential.Fingerprint(ca.cert)}, false)
			return err
		},
		"AddFilter": func(c sallyport.Caller) error {
			_, _, err := w.cas.AddFilter(ctx, c, op("AddCertificateFilter"), "orders", credential.Filter{CommonName: "b"}, clientca.Map{Permission: "read"}, false)
			return err
		},
		"MapFilter": func(c sallyport.Caller) error {
			_, _, err := w.cas.MapFilter(ctx, c, op("MapCertificateFilter"), "orders", filter.ID(), clientca.Map{Permission: "read"}, false)
			return err
		},
		"RemoveFilter": func(c sallyport.Caller) error {
			_, _, err := w.cas.RemoveFilter(ctx, c, op("RemoveCertificateFilter"), "orders", filter.ID(), false)
			return err
		},
	}
	for name, call := range reads {
		want(t, name+" by a stranger", call(stranger), sallyport.NotFound, "")
		want(t, name+" by an admin elsewhere", call(elsewhere), sallyport.PermissionDenied, "")
		want(t, name+" by a member", call(none), sallyport.PermissionDenied, "")
		for who, c := range map[string]sallyport.Caller{"reader": read, "writer": write, "admin": admin, "read-only key": narrowed} {
			want(t, name+" by a "+who, call(c), "", "")
		}
	}
	for name, call := range changes {
		want(t, name+" by a stranger", call(stranger), sallyport.NotFound, "")
		for who, c := range map[string]sallyport.Caller{"reader": read, "writer": write, "read-only key": narrowed, "admin elsewhere": elsewhere, "member": none} {
			want(t, name+" by a "+who, call(c), sallyport.PermissionDenied, "")
		}
	}
	for _, name := range []string{"Add", "Remove", "AddFilter", "MapFilter", "RemoveFilter"} {
		want(t, name+" by an admin", changes[name](admin), "", "")
		admin = a.as(admin.Principal.ID)
	}
}

// TestTooMany: more are in use than are looked at, and it is said.
func TestTooMany(t *testing.T) {
	t.Parallel()
	a := newWorld(t).tenant(t)
	one, two := newCA(t, "one"), newCA(t, "two")
	n := a.namespace("orders", join(one.pem, two.pem))
	a.saw(n, one.leaf(t, "worker"), under(one))
	a.flush(t)
	more := func(from, to int) {
		t.Helper()
		_, err := a.pool.Exec(t.Context(), `
			insert into seen_certificates
			select account_id, namespace_id, md5(i::text) || md5(i::text), chain, subject, issuer, serial, not_before, not_after, managed,
			       first_seen_at, last_seen_at, refused, allowed_at, cas, filter_id
			from seen_certificates, generate_series($3::int, $4::int) as i
			where account_id = $1 and namespace_id = $2 and subject = 'CN=worker,O=Test' and fingerprint = (
				select min(fingerprint) from seen_certificates where account_id = $1 and namespace_id = $2)
			on conflict do nothing`, a.account, n.ID, from, to)
		if err != nil {
			t.Fatal(err)
		}
	}
	more(2, 1001)
	_, _, err := a.cas.Remove(t.Context(), a.owner, op("RemoveClientCas"), "orders", []string{credential.Fingerprint(one.cert)}, false)
	want(t, "a thousand and one", err, sallyport.Conflict, "", "at least 1000 (", "and 980 more")
	for _, tt := range []struct {
		rows, checked, stop int
		incomplete          bool
	}{{1500, 1500, 1500, false}, {1501, 1501, 1500, true}, {5001, 5000, 1500, true}} {
		more(1002, tt.rows)
		r, err := a.cas.Check(t.Context(), a.owner, "orders", clientca.CheckParams{Bundle: two.pem})
		if want(t, "checking", err, "", ""); r.Checked != tt.checked || len(r.WouldStop) != tt.stop || r.Incomplete != tt.incomplete {
			t.Errorf("of %d: checked %d, %d stop, incomplete %v, want %+v", tt.rows, r.Checked, len(r.WouldStop), r.Incomplete, tt)
		}
	}
	r, err := a.cas.Check(t.Context(), a.owner, "orders", clientca.CheckParams{Bundle: join(one.pem, two.pem)})
	if want(t, "checking", err, "", ""); r.Checked != 5000 || len(r.WouldStop) != 0 || !r.Incomplete {
		t.Errorf("of all: checked %d, %d stop, incomplete %v", r.Checked, len(r.WouldStop), r.Incomplete)
	}
}
