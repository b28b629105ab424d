package clientca_test

import (
	"crypto/x509"
	"strings"
	"testing"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/clientca"
	"github.com/sallyport-iam/sallyport/credential"
	"github.com/sallyport-iam/sallyport/directory"
	"github.com/sallyport-iam/sallyport/journal"
)

// TestMapInUse: a map that takes from certificates in use is refused as the
// removal of their CA is.
func TestMapInUse(t *testing.T) {
	t.Parallel()
	all, roots := credential.Filter{Organization: "Test"}, credential.Filter{CommonName: "root"}
	u := newUsed(t, all, roots)
	reader := u.robot(sallyport.ScopeAccount, on("orders", sallyport.PermissionRead))
	writer := u.robot(sallyport.ScopeAccount, on("orders", sallyport.PermissionWrite))
	powerless := u.robot(sallyport.ScopeAccount, directory.Access{Role: sallyport.RoleDeveloper})
	put := func(f credential.Filter, m clientca.Map, force bool) ([]string, error) {
		change, _, err := u.cas.MapFilter(t.Context(), u.owner, op("MapCertificateFilter"), "orders", f.ID(), m, force)
		return change.Warnings, err
	}
	_, err := put(all, clientca.Map{ServiceAccount: writer}, false)
	want(t, "to one that writes", err, "", "")
	for name, m := range map[string]clientca.Map{"to read": {Permission: "read"}, "to one that reads": {ServiceAccount: reader}} {
		before := u.lastEntry()
		_, err = put(all, m, false)
		want(t, name, err, sallyport.Conflict, "", "could only read", "2 (", credential.Fingerprint(u.deep), credential.Fingerprint(u.other), "force it")
		if err != nil && strings.Contains(err.Error(), credential.Fingerprint(u.root)) {
			t.Errorf("%s: the list has what another filter lets write: %v", name, err)
		}
		if len(u.warned()) > 0 || u.lastEntry() != before {
			t.Errorf("%s: something was changed", name)
		}
	}
	_, err = put(all, clientca.Map{ServiceAccount: powerless}, false)
	want(t, "to one without access", err, sallyport.Conflict, "service_account_id", "has no access to this namespace")

	warnings, err := put(all, clientca.Map{Permission: "read"}, true)
	if want(t, "to read, forced", err, "", ""); len(warnings) != 1 || !strings.Contains(warnings[0], "may only read now: 2 (") || !strings.Contains(u.lastEntry(), "may only read now") {
		t.Errorf("warnings: %q", warnings)
	}
	if w := u.warned(); len(w) != 1 || w[0].Count != 2 || w[0].Less != 2 || w[0].Reason != "what certificate filters give became less" {
		t.Errorf("told of %+v", w)
	}
	warnings, err = put(all, clientca.Map{ServiceAccount: powerless}, true)
	if want(t, "to one without access, forced", err, "", ""); len(warnings) != 1 || !strings.Contains(warnings[0], "do not work any more: 2 (") {
		t.Errorf("warnings: %q", warnings)
	}
	list, err := u.cas.Filters(t.Context(), u.owner, "orders")
	if want(t, "listing", err, "", ""); !strings.Contains(list[0].Warning, "no access to this namespace") || list[1].Warning != "" {
		t.Errorf("filters: %+v", list)
	}
	warnings, err = put(all, clientca.Map{}, false)
	if want(t, "to write again", err, "", ""); len(warnings) > 0 {
		t.Errorf("warnings: %q", warnings)
	}
}

// TestAddFilterThatGivesNothing: by its map, unless that is forced.
func TestAddFilterThatGivesNothing(t *testing.T) {
	t.Parallel()
	u := newUsed(t)
	powerless := u.robot(sallyport.ScopeAccount, directory.Access{Role: sallyport.RoleRead})
	add := func(force bool) error {
		_, _, err := u.cas.AddFilter(t.Context(), u.owner, op("AddCertificateFilter"), "orders", credential.Filter{CommonName: "root"}, clientca.Map{ServiceAccount: powerless}, force)
		return err
	}
	want(t, "not forced", add(false), sallyport.Conflict, "filter.service_account_id", "has no access to this namespace")
	want(t, "forced", add(true), "", "")
	u.wantWarned("certificate filters became narrower", u.root, u.deep, u.other)
}

// TestLastFilter: without filters everybody under the CAs is let in. What is left
// of others that match may be less.
func TestLastFilter(t *testing.T) {
	t.Parallel()
	all, roots := credential.Filter{Organization: "Test"}, credential.Filter{CommonName: "root"}
	u := newUsed(t, all, roots)
	u.saw(u.Namespace, u.root, under(u.one))
	want(t, "a map", u.mapFilter(u.owner, "orders", roots.ID(), clientca.Map{Permission: "read"}), "", "")
	remove := func(f credential.Filter, force bool) ([]string, error) {
		change, _, err := u.cas.RemoveFilter(t.Context(), u.owner, op("RemoveCertificateFilter"), "orders", f.ID(), force)
		return change.Warnings, err
	}
	_, err := remove(all, false)
	want(t, "the one that let write", err, sallyport.Conflict, "", "would stop working or could only read: 3 (", credential.Fingerprint(u.root))
	_, err = remove(all, true)
	want(t, "forced", err, "", "")
	warnings, err := remove(roots, false)
	if want(t, "the last", err, "", ""); len(warnings) != 1 || !strings.Contains(warnings[0], "the last certificate filter is gone: every client certificate") {
		t.Errorf("warnings: %q", warnings)
	}
}

// TestSetMTLS: another bundle, and off, obey the rules of Remove.
func TestSetMTLS(t *testing.T) {
	t.Parallel()
	u := newUsed(t)
	set := func(p clientca.MTLSParams) (clientca.Change, error) {
		change, _, err := u.cas.SetMTLS(t.Context(), u.owner, op("SetNamespaceMtls"), "orders", p)
		return change, err
	}
	next := newCA(t, "next")
	replace := clientca.MTLSParams{Enabled: true, ClientCA: join(u.two.pem, next.pem), ReplaceBundle: true}
	_, err := set(clientca.MTLSParams{Enabled: true})
	want(t, "nothing", err, sallyport.Invalid, "", "nothing to change")
	_, err = set(replace)
	want(t, "another bundle", err, sallyport.Conflict, "", "would stop working: 2 (", credential.Fingerprint(u.root), credential.Fingerprint(u.deep))
	_, err = set(clientca.MTLSParams{})
	want(t, "off", err, sallyport.Conflict, "", "4 (", credential.Fingerprint(u.loaned))
	_, err = set(clientca.MTLSParams{Enabled: true, ReplaceBundle: true})
	want(t, "on without a CA", err, sallyport.Invalid, "client_ca", "required")
	_, err = set(clientca.MTLSParams{Enabled: true, ReplaceBundle: true, ClientCA: []byte("CA")})
	want(t, "no PEM", err, sallyport.Invalid, "client_ca")
	stale := replace
	stale.Seen, stale.Force = u.Revision-1, true
	_, err = set(stale)
	want(t, "of another version", err, sallyport.Conflict, "resource_version")
	if u.read("orders").Revision != u.Revision || len(u.warned()) > 0 {
		t.Error("something was changed")
	}

	replace.Force = true
	change, err := set(replace)
	if want(t, "another bundle, forced", err, "", ""); len(change.Warnings) != 1 || change.Revision != u.read("orders").Revision {
		t.Errorf("changed: %+v", change)
	}
	u.wantWarned("client CAs were removed", u.root, u.deep)
	_, err = set(clientca.MTLSParams{Force: true})
	want(t, "off, forced", err, "", "")
	u.wantWarned("mTLS was switched off", u.other, u.loaned)
	if o := u.namespaceObject(); o.Auth.MTLS {
		t.Error("authorizers do not know that it is off")
	}

	// While it is off, what was in use is as before: it comes back with it.
	_, err = u.remove(false, u.two)
	want(t, "a CA while it is off", err, sallyport.Conflict, "", "would not work when mTLS is on again: 1 (", credential.Fingerprint(u.other))
	_, err = set(clientca.MTLSParams{Enabled: true, ClientCA: next.pem, ReplaceBundle: true})
	want(t, "on with another bundle", err, sallyport.Conflict, "", "would not work when mTLS is on again")
	change, err = u.remove(true, u.two)
	if want(t, "a CA while it is off, forced", err, "", ""); len(change.Warnings) != 1 || !strings.Contains(change.Warnings[0], "do not work when mTLS is on again: 1 (") {
		t.Errorf("warnings: %q", change.Warnings)
	}
	if w := u.warned(); len(w) > 0 {
		t.Errorf("mails tell of what did not work anyway: %+v", w)
	}
	_, err = set(clientca.MTLSParams{Enabled: true})
	want(t, "on", err, "", "")
	if o := u.namespaceObject(); !o.Auth.MTLS {
		t.Error("authorizers do not know that it is on")
	}
}

// namespaceObject is what authorizers know of the namespace itself.
func (u *used) namespaceObject() object.Namespace {
	u.t.Helper()
	found, err := journal.ReadObjects(u.t.Context(), u.pool, u.account, object.KindNamespace, []string{string(u.ID)})
	if err != nil || len(found) != 1 {
		u.t.Fatalf("reading the namespace: %v, %v", found, err)
	}
	o, err := object.Decode[object.Namespace](found[0].Data)
	if err != nil {
		u.t.Fatal(err)
	}
	return o
}

// TestTextInBundle: it stays with the certificates that stay.
func TestTextInBundle(t *testing.T) {
	t.Parallel()
	a := newWorld(t, newCA(t, "operator").cert).tenant(t)
	one, two := newCA(t, "one"), newCA(t, "two")
	parts := [][]byte{[]byte("\ufeffCertificate:\r\n\tIssuer: one\n"), one.pem, []byte("# two\n"), two.pem, []byte("the end")}
	a.namespace("orders", join(parts...))
	remove := func(ca *x509.Certificate) {
		t.Helper()
		_, _, err := a.cas.Remove(t.Context(), a.owner, op("RemoveClientCas"), "orders", []string{credential.Fingerprint(ca)}, false)
		want(t, "removing", err, "", "")
	}
	remove(one.cert)
	if got, left := a.read("orders").ClientCA, join(parts[0], parts[2], parts[3], parts[4]); string(got) != string(left) {
		t.Errorf("left: %q, want %q", got, left)
	}
	more := append([]byte("\ufeff"), one.pem...)
	_, _, err := a.cas.Add(t.Context(), a.owner, op("AddClientCas"), "orders", more)
	want(t, "adding it again", err, "", "")
	remove(one.cert)
	remove(two.cert)
	if got := a.read("orders").ClientCA; len(got) > 0 {
		t.Errorf("text without a certificate is left: %q", got)
	}
}
