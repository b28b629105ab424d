package clientca_test

import (
	"bytes"
	"crypto/x509"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/crypto/x509roots/fallback/bundle"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/clientca"
	"github.com/sallyport-iam/sallyport/credential"
	"github.com/sallyport-iam/sallyport/directory"
	"github.com/sallyport-iam/sallyport/journal"
)

const (
	bundleField  = "spec.mtls_auth.accepted_client_ca"
	filtersField = "spec.mtls_auth.certificate_filters"
)

// TestWithNamespace: the bundle and filters of CloudService's spec.
func TestWithNamespace(t *testing.T) {
	t.Parallel()
	a := newWorld(t).tenant(t)
	one, two := newCA(t, "one"), newCA(t, "two")
	filter := credential.Filter{CommonName: "*.example.com"}
	sent := join([]byte("\n"), one.pem, []byte("\r\n\n"), two.pem, []byte("\n\n"))
	n := a.namespace("orders", sent, filter)
	if got := a.read("orders"); !bytes.Equal(got.ClientCA, sent) || !cmp.Equal(got.CertificateFilters, []credential.Filter{filter}) {
		t.Errorf("as read: %q %v, want what was sent", got.ClientCA, got.CertificateFilters)
	}
	o, ok := a.object(n)
	if diff := cmp.Diff(object.ClientCAs{Certificates: [][]byte{one.cert.Raw, two.cert.Raw}, Filters: []object.CertificateFilter{{CommonName: "*.example.com"}}}, o); !ok || diff != "" {
		t.Errorf("what authorizers know (-want +got):\n%s", diff)
	}

	// Only bytes differ: it is a change, and kept as it is.
	spaced := append(bytes.Clone(sent), '\n')
	want(t, "a newline more", a.update("orders", func(p *directory.NamespaceParams) { p.ClientCA = spaced }), "", "")
	if got := a.read("orders").ClientCA; !bytes.Equal(got, spaced) {
		t.Errorf("as read: %q, want what was sent", got)
	}
	want(t, "the same again", a.update("orders", func(p *directory.NamespaceParams) { p.ClientCA = bytes.Clone(spaced) }), sallyport.Invalid, "", "nothing to change")

	// Off, the bundle stays; without CAs authorizers know none.
	want(t, "mTLS off", a.update("orders", func(p *directory.NamespaceParams) { p.MTLSAuth = false }), "", "")
	if _, ok := a.object(n); !ok {
		t.Error("authorizers lost the bundle when mTLS was switched off")
	}
	want(t, "mTLS off and no CA", a.update("orders", func(p *directory.NamespaceParams) { p.ClientCA = nil }), "", "")
	if o, ok := a.object(n); ok {
		t.Errorf("authorizers know %v, want nothing", o)
	}
	want(t, "mTLS on without a CA", a.update("orders", func(p *directory.NamespaceParams) { p.MTLSAuth = true }), sallyport.Invalid, bundleField, "required")
	want(t, "mTLS on with a blank", a.update("orders", func(p *directory.NamespaceParams) { p.MTLSAuth, p.ClientCA = true, []byte(" \n") }), sallyport.Invalid, bundleField, "required")
	want(t, "mTLS on", a.update("orders", func(p *directory.NamespaceParams) { p.MTLSAuth, p.ClientCA = true, one.pem }), "", "")
	if _, err := a.directory.DeleteNamespace(t.Context(), a.owner, op("DeleteNamespace"), "orders", 0); err != nil {
		t.Fatal(err)
	}
	if _, ok := a.object(n); ok {
		t.Error("authorizers know the client CAs of a deleted namespace")
	}
}

// TestManagedOnly: with a managed CA a namespace needs no bundle.
func TestManagedOnly(t *testing.T) {
	t.Parallel()
	root := newCA(t, "operator")
	a := newWorld(t, root.cert).tenant(t)
	a.namespace("orders", nil)
	want(t, "mTLS on without a CA", a.update("orders", func(p *directory.NamespaceParams) { p.MTLSAuth = true }), "", "")
	ca := newCA(t, "one")
	added, _, err := a.cas.Add(t.Context(), a.owner, op("AddClientCas"), "orders", ca.pem)
	want(t, "adding the first", err, "", "")
	if n := a.read("orders"); added.Revision != n.Revision {
		t.Errorf("the change is at revision %d, the namespace at %d", added.Revision, n.Revision)
	}
	_, _, err = a.cas.Remove(t.Context(), a.owner, op("RemoveClientCas"), "orders", []string{credential.Fingerprint(ca.cert)}, false)
	want(t, "removing the last", err, "", "")
	if n := a.read("orders"); len(n.ClientCA) > 0 {
		t.Errorf("left of the bundle: %q", n.ClientCA)
	}
}

// publicRoot is a publicly known CA that lasts.
func publicRoot(t *testing.T) *x509.Certificate {
	t.Helper()
	for root := range bundle.Roots() {
		cert, err := x509.ParseCertificate(root.Certificate)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(cert.Subject.CommonName, "ISRG Root X1") {
			return cert
		}
	}
	t.Fatal("ISRG Root X1 is not among the publicly known CAs")
	return nil
}

// TestPublicCA: only with filters, which then cannot go.
func TestPublicCA(t *testing.T) {
	t.Parallel()
	a := newWorld(t).tenant(t)
	public, own := toPEM(publicRoot(t)), newCA(t, "own")
	filter := credential.Filter{SubjectAlternativeName: "worker.example.com"}
	_, _, err := a.directory.CreateNamespace(t.Context(), a.owner, op("CreateNamespace"), params("orders", public))
	want(t, "without filters", err, sallyport.Invalid, filtersField, "publicly known")
	a.namespace("orders", own.pem)
	_, _, err = a.cas.Add(t.Context(), a.owner, op("AddClientCas"), "orders", public)
	want(t, "adding it without filters", err, sallyport.Invalid, "certificates", "publicly known", "certificate 2")
	_, err = a.cas.Check(t.Context(), a.owner, "orders", clientca.CheckParams{Bundle: public})
	want(t, "trying it", err, sallyport.Invalid, "filters", "publicly known")
	_, _, err = a.cas.AddFilter(t.Context(), a.owner, op("AddCertificateFilter"), "orders", filter, clientca.Map{}, false)
	want(t, "adding a filter", err, "", "")
	_, _, err = a.cas.Add(t.Context(), a.owner, op("AddClientCas"), "orders", public)
	want(t, "adding it with filters", err, "", "")
	want(t, "clearing the filters", a.update("orders", func(p *directory.NamespaceParams) { p.CertificateFilters = nil }), sallyport.Invalid, filtersField, "publicly known")
	_, _, err = a.cas.RemoveFilter(t.Context(), a.owner, op("RemoveCertificateFilter"), "orders", filter.ID(), true)
	want(t, "removing the filter", err, sallyport.Invalid, "filter_id", "publicly known")
	want(t, "clearing both", a.update("orders", func(p *directory.NamespaceParams) { p.ClientCA, p.CertificateFilters = own.pem, nil }), "", "")
}

// TestManagedCAIsNoCustomers: nothing of the managed CA gets into a bundle.
func TestManagedCAIsNoCustomers(t *testing.T) {
	t.Parallel()
	root, good := newCA(t, "operator"), newCA(t, "good")
	w := newWorld(t, root.cert)
	a, b := w.tenant(t), w.tenant(t)
	// A customer's request for the root's own key, under another name.
	again, err := x509.CreateCertificate(nil, &x509.Certificate{SerialNumber: root.cert.SerialNumber, Subject: name("other name"), NotBefore: root.cert.NotBefore,
		NotAfter: root.cert.NotAfter, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}, &x509.Certificate{Subject: name("other name")}, &root.key.PublicKey, root.key)
	if err != nil {
		t.Fatal(err)
	}
	renamed, err := x509.ParseCertificate(again)
	if err != nil {
		t.Fatal(err)
	}
	under := issueCA(t, &x509.Certificate{Subject: name("under the operator's root")}, root)
	for _, tt := range []struct {
		name   string
		bundle []byte
		kind   sallyport.Kind
	}{
		{"the root", root.pem, sallyport.Invalid},
		{"the root's key", toPEM(renamed), sallyport.Invalid},
		{"a CA under it", toPEM(under.cert, root.cert), sallyport.Invalid},
		{"beside a good one", join(good.pem, root.pem), sallyport.Invalid},
		{"a customer's", good.pem, ""},
	} {
		_, _, err := a.directory.CreateNamespace(t.Context(), a.owner, op("CreateNamespace"), params("orders", tt.bundle))
		if tt.kind == "" {
			want(t, tt.name, err, "", "")
			continue
		}
		want(t, tt.name, err, tt.kind, bundleField, "a CA of the operator's")
	}
	// The account's own intermediate, whose root the operator does not know.
	elsewhere := newCA(t, "company root")
	mine := issueCA(t, &x509.Certificate{Subject: name("mine")}, elsewhere)
	_, err = w.journal.Commit(t.Context(), a.owner, a.account, op("IssueCertificate"), func(tx *journal.Tx) error {
		return tx.Put(t.Context(), object.KindIssuer, credential.IssuerID(mine.cert), object.Encode(object.Issuer{Certificate: mine.cert.Raw, TrustDomain: "example.org"}))
	})
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = a.cas.Add(t.Context(), a.owner, op("AddClientCas"), "orders", toPEM(mine.cert, elsewhere.cert))
	want(t, "the account's own", err, sallyport.Invalid, "certificates", "this account's intermediate of the managed CA")
	_, _, err = b.directory.CreateNamespace(t.Context(), b.owner, op("CreateNamespace"), params("orders", toPEM(mine.cert, elsewhere.cert)))
	want(t, "another account's, whose root is not the operator's", err, "", "")
	_, err = a.cas.Check(t.Context(), a.owner, "orders", clientca.CheckParams{Bundle: toPEM(mine.cert, elsewhere.cert)})
	want(t, "trying the account's own", err, sallyport.Invalid, "bundle", "this account's intermediate of the managed CA")
}

// TestBadBundles names the fields of both ways in.
func TestBadBundles(t *testing.T) {
	t.Parallel()
	a := newWorld(t).tenant(t)
	root := newCA(t, "root")
	middle := issueCA(t, &x509.Certificate{Subject: name("middle")}, root)
	a.namespace("orders", root.pem)
	for _, tt := range []struct {
		name, words string
		bundle      []byte
	}{
		{"no PEM", "", []byte("nonsense")},
		{"a leaf", "certificate", toPEM(root.leaf(t, "leaf"))},
		{"no issuer", "certificate", middle.pem},
		{"twice", "", join(root.pem, root.pem)},
	} {
		want(t, tt.name, a.update("orders", func(p *directory.NamespaceParams) { p.ClientCA = tt.bundle }), sallyport.Invalid, bundleField, tt.words)
	}
	for _, tt := range []struct {
		name, field string
		filters     []credential.Filter
	}{
		{"empty", filtersField + "[1]", []credential.Filter{{CommonName: "a"}, {}}},
		{"star", filtersField + "[0].organization", []credential.Filter{{Organization: "*"}}},
		{"twice", filtersField + "[1]", []credential.Filter{{CommonName: "a"}, {CommonName: "A"}}},
		{"too many", filtersField, make([]credential.Filter, 26)},
		{"far too many", filtersField, make([]credential.Filter, 500)},
	} {
		want(t, tt.name, a.update("orders", func(p *directory.NamespaceParams) { p.CertificateFilters = tt.filters }), sallyport.Invalid, tt.field)
	}
	want(t, "huge", a.update("orders", func(p *directory.NamespaceParams) { p.ClientCA = bytes.Repeat([]byte("\n"), 1<<20) }), sallyport.Invalid, bundleField)
	_, _, err := a.cas.Add(t.Context(), a.owner, op("AddClientCas"), "orders", toPEM(root.leaf(t, "leaf")))
	want(t, "adding a leaf", err, sallyport.Invalid, "certificates", "certificate 2")
	_, _, err = a.cas.Add(t.Context(), a.owner, op("AddClientCas"), "orders", []byte(" \n"))
	want(t, "adding nothing", err, sallyport.Invalid, "certificates", "required")
	_, _, err = a.cas.AddFilter(t.Context(), a.owner, op("AddCertificateFilter"), "orders", credential.Filter{CommonName: "a*b"}, clientca.Map{}, false)
	want(t, "adding a bad filter", err, sallyport.Invalid, "filter.common_name")
	_, err = a.cas.Check(t.Context(), a.owner, "orders", clientca.CheckParams{ReplaceFilters: true, Filters: []credential.Filter{{}}})
	want(t, "trying a bad filter", err, sallyport.Invalid, "filters[0]")
	_, err = a.cas.Check(t.Context(), a.owner, "orders", clientca.CheckParams{Bundle: []byte("nonsense")})
	want(t, "trying no PEM", err, sallyport.Invalid, "bundle")
}

// TestAddRemove: certificate by certificate, all other bytes as they were.
func TestAddRemove(t *testing.T) {
	t.Parallel()
	a := newWorld(t).tenant(t)
	ctx := t.Context()
	one, two, three := newCA(t, "one"), newCA(t, "two"), newCA(t, "three")
	middle := issueCA(t, &x509.Certificate{Subject: name("middle")}, three)
	first := bytes.TrimSuffix(join([]byte("\n\n"), one.pem, []byte("\r\n"), two.pem), []byte("\n"))
	n := a.namespace("orders", first)

	added, _, err := a.cas.Add(ctx, a.owner, op("AddClientCas"), "orders", join([]byte("\n"), middle.pem, three.pem, []byte("\n \n")))
	want(t, "adding two", err, "", "")
	all := join(first, []byte("\n"), []byte("\n"), middle.pem, three.pem, []byte("\n \n"))
	if got := a.read("orders"); !bytes.Equal(got.ClientCA, all) || got.Revision != added.Revision || added.Revision <= n.Revision {
		t.Errorf("after adding: %q at %d, want %q at %d", got.ClientCA, got.Revision, all, added.Revision)
	}
	_, _, err = a.cas.Add(ctx, a.owner, op("AddClientCas"), "orders", join(newCA(t, "five").pem, two.pem))
	want(t, "adding one that is there", err, sallyport.AlreadyExists, "", "certificate 2")

	b, err := a.cas.List(ctx, a.owner, "orders")
	want(t, "listing", err, "", "")
	if len(b.CAs) != 4 || !b.Enabled || b.Revision != added.Revision {
		t.Fatalf("the list: %+v", b)
	}
	for i, ca := range []authority{one, two, middle, three} {
		got := b.CAs[i]
		if got.Fingerprint != credential.Fingerprint(ca.cert) || got.FingerprintSHA1 != credential.FingerprintSHA1(ca.cert) || got.Subject != ca.cert.Subject.String() ||
			!got.NotAfter.Equal(ca.cert.NotAfter) || !bytes.Equal(got.PEM, ca.pem) || got.Warning != "" || !got.LastSeen.IsZero() {
			t.Errorf("certificate %d of the list: %+v", i, got)
		}
	}

	remove := func(fingerprints ...string) error {
		_, _, err := a.cas.Remove(ctx, a.owner, op("RemoveClientCas"), "orders", fingerprints, false)
		return err
	}
	want(t, "none", remove(), sallyport.Invalid, "fingerprints", "required")
	want(t, "one that is not there", remove(credential.Fingerprint(two.cert), strings.Repeat("0", 64)), sallyport.NotFound, "fingerprints[1]")
	want(t, "an issuer", remove(credential.Fingerprint(three.cert)), sallyport.Invalid, "fingerprints", "without these", "certificate 3")
	colons := strings.ToUpper(credential.FingerprintSHA1(two.cert))
	for i := len(colons) - 2; i > 0; i -= 2 {
		colons = colons[:i] + ":" + colons[i:]
	}
	want(t, "by SHA-1", remove(colons), "", "")
	rest := join([]byte("\n\n"), one.pem, []byte("\r\n"), []byte("\n"), middle.pem, three.pem, []byte("\n \n"))
	if got := a.read("orders").ClientCA; !bytes.Equal(got, rest) {
		t.Errorf("after removing: %q, want %q", got, rest)
	}
	want(t, "a CA with its issuer", remove(credential.Fingerprint(three.cert), credential.Fingerprint(middle.cert)), "", "")
	want(t, "the last one", remove(credential.Fingerprint(one.cert)), sallyport.Conflict, "", "mTLS")
	o, _ := a.object(n)
	if diff := cmp.Diff(object.ClientCAs{Certificates: [][]byte{one.cert.Raw}}, o); diff != "" {
		t.Errorf("what authorizers know (-want +got):\n%s", diff)
	}

	again := journal.Operation{ID: "once", Type: "AddClientCas", Request: []byte("four")}
	four := newCA(t, "four")
	made, done, err := a.cas.Add(ctx, a.owner, again, "orders", four.pem)
	want(t, "once", err, "", "")
	repeated, redone, err := a.cas.Add(ctx, a.owner, again, "orders", four.pem)
	if want(t, "twice", err, "", ""); repeated.Revision != made.Revision || redone.Head != done.Head || !redone.Replayed {
		t.Errorf("repeated: %+v %+v, want %+v %+v", repeated, redone, made, done)
	}
}

// TestExpiryWarnings: CAs that do not work, or soon will not, are stored.
func TestExpiryWarnings(t *testing.T) {
	t.Parallel()
	a := newWorld(t).tenant(t)
	soon := issueCA(t, &x509.Certificate{Subject: name("soon"), NotAfter: time.Now().Add(10 * 24 * time.Hour)}, authority{})
	past := issueCA(t, &x509.Certificate{Subject: name("past"), NotAfter: time.Now().Add(-time.Hour)}, authority{})
	a.namespace("orders", soon.pem)
	if e := a.lastEntry(); !strings.Contains(e, `"type":"warning"`) || !strings.Contains(e, "expires at") {
		t.Errorf("no warning in the journal: %s", e)
	}
	change, _, err := a.cas.Add(t.Context(), a.owner, op("AddClientCas"), "orders", past.pem)
	if want(t, "an expired one", err, "", ""); len(change.Warnings) != 2 || !strings.Contains(change.Warnings[1], "expired") {
		t.Errorf("warnings: %q", change.Warnings)
	}
	b, err := a.cas.List(t.Context(), a.owner, "orders")
	if want(t, "listing", err, "", ""); b.CAs[0].Warning == "" || b.CAs[1].Warning == "" {
		t.Errorf("the list has no warnings: %+v", b)
	}
	if w := a.warned(); len(w) > 0 {
		t.Errorf("it was told that certificates stop: %+v", w)
	}
}
