package clientca_test

import (
	"bytes"
	"crypto/x509"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/clientca"
	"github.com/sallyport-iam/sallyport/credential"
	"github.com/sallyport-iam/sallyport/directory"
)

// TestRemoveAllInUse: with a managed CA a bundle can become empty, and all that
// was in use under it stops.
func TestRemoveAllInUse(t *testing.T) {
	t.Parallel()
	w := newWorld(t, newCA(t, "operator").cert)
	u := newUsedIn(t, w)
	_, err := u.remove(false, u.one, u.middle, u.two)
	want(t, "all of them", err, sallyport.Conflict, "", "3 (", credential.Fingerprint(u.root), credential.Fingerprint(u.deep), credential.Fingerprint(u.other))
	if len(u.warned()) > 0 || u.read("orders").Revision != u.Revision {
		t.Error("something was changed")
	}
	want(t, "an update to none", u.update("orders", func(p *directory.NamespaceParams) { p.ClientCA = nil }), "", "")
	u.wantWarned("client CAs were removed", u.root, u.deep, u.other)

	u = newUsedIn(t, w)
	_, err = u.remove(true, u.one, u.middle, u.two)
	want(t, "forced", err, "", "")
	u.wantWarned("client CAs were removed", u.root, u.deep, u.other)
}

// TestRefusedOnceIsInUse: what was let in within the week is in use, whatever
// else it was refused for since.
func TestRefusedOnceIsInUse(t *testing.T) {
	t.Parallel()
	refused := func(u *clientca.Use) { u.Refused, u.Chain = "method x needs the permission write", nil }
	ago := func(d time.Duration, change func(*clientca.Use)) func(*clientca.Use) {
		return func(u *clientca.Use) { change(u); u.At = u.At.Add(-d) }
	}
	for name, see := range map[string]func(u *used, leaf *x509.Certificate, allowed func(*clientca.Use)){
		"refused later": func(u *used, leaf *x509.Certificate, allowed func(*clientca.Use)) {
			u.saw(u.Namespace, leaf, ago(time.Hour, allowed))
			u.flush(t)
			u.saw(u.Namespace, leaf, refused)
		},
		"both at once": func(u *used, leaf *x509.Certificate, allowed func(*clientca.Use)) {
			u.saw(u.Namespace, leaf, refused)
			u.saw(u.Namespace, leaf, ago(time.Hour, allowed))
			u.saw(u.Namespace, leaf, refused)
		},
		"the chain came with the refusal": func(u *used, leaf *x509.Certificate, allowed func(*clientca.Use)) {
			u.saw(u.Namespace, leaf, ago(time.Hour, func(use *clientca.Use) { allowed(use); use.Chain = nil }))
			u.saw(u.Namespace, leaf, func(use *clientca.Use) { use.Refused = "no" })
		},
		"the news came late": func(u *used, leaf *x509.Certificate, allowed func(*clientca.Use)) {
			u.saw(u.Namespace, leaf, func(use *clientca.Use) { use.Refused = "no" })
			u.flush(t)
			u.saw(u.Namespace, leaf, ago(time.Hour, allowed))
		},
		"the news came late, without the chain": func(u *used, leaf *x509.Certificate, allowed func(*clientca.Use)) {
			u.saw(u.Namespace, leaf, func(use *clientca.Use) { use.Refused = "no" })
			u.flush(t)
			u.saw(u.Namespace, leaf, ago(time.Hour, func(use *clientca.Use) { allowed(use); use.Chain = nil }))
		},
	} {
		filter := credential.Filter{Organization: "Test"}
		u := newUsed(t, filter)
		three := newCA(t, "three")
		_, _, err := u.cas.Add(t.Context(), u.owner, op("AddClientCas"), "orders", three.pem)
		want(t, name+": adding a CA", err, "", "")
		leaf := three.leaf(t, "limited")
		see(u, leaf, func(use *clientca.Use) { under(three)(use); use.Filter = 1 })
		u.flush(t)
		allowedAt := u.now().UTC().Add(-time.Hour)
		near := func(at time.Time) bool { return allowedAt.Sub(at).Abs() < 5*time.Minute }

		seen := false
		for _, s := range u.allSeen("orders") {
			seen = seen || s.Fingerprint == credential.Fingerprint(leaf) && s.Refused != "" && s.Last.After(allowedAt.Add(30*time.Minute))
		}
		if !seen {
			t.Errorf("%s: seen: %+v, want %s refused last", name, u.allSeen("orders"), leaf.Subject)
		}
		b, err := u.cas.List(t.Context(), u.owner, "orders")
		if want(t, name+": listing", err, "", ""); !near(b.CAs[3].LastSeen) {
			t.Errorf("%s: the CA was last seen at %v, want %v", name, b.CAs[3].LastSeen, allowedAt)
		}
		filters, err := u.cas.Filters(t.Context(), u.owner, "orders")
		if want(t, name+": filters", err, "", ""); !near(filters[0].LastSeen) {
			t.Errorf("%s: the filter was last seen at %v, want %v", name, filters[0].LastSeen, allowedAt)
		}
		r, err := u.cas.Check(t.Context(), u.owner, "orders", clientca.CheckParams{Bundle: join(u.one.pem, u.middle.pem, u.two.pem)})
		if want(t, name+": checking", err, "", ""); len(r.WouldStop) != 1 || r.WouldStop[0].Fingerprint != credential.Fingerprint(leaf) {
			t.Errorf("%s: would stop: %+v", name, r.WouldStop)
		}
		_, err = u.remove(false, three)
		want(t, name+": removing its CA", err, sallyport.Conflict, "", "1 (", credential.Fingerprint(leaf))

		u.ahead.Store(int64(inUse - time.Hour/2)) // the refusal is within the week, that it was let in is not
		_, err = u.remove(false, three)
		want(t, name+": removing its CA a week later", err, "", "")
	}
}

const inUse = 7 * 24 * time.Hour

// TestManyHideNone: however many go on, the one that stops is found; and where
// not all can be looked at the change is not made as if none did.
func TestManyHideNone(t *testing.T) {
	t.Parallel()
	a, b := credential.Filter{CommonName: "a"}, credential.Filter{CommonName: "b"}
	u := newUsed(t, a, b)
	goes, stays := u.one.leaf(t, "b"), u.one.leaf(t, "a")
	u.saw(u.Namespace, goes, func(use *clientca.Use) { under(u.one)(use); use.Filter = 2 })
	u.ahead.Store(int64(time.Hour))
	u.saw(u.Namespace, stays, func(use *clientca.Use) { under(u.one)(use); use.Filter = 1 })
	u.flush(t)
	more := func(from, to int, filter string) {
		t.Helper()
		_, err := u.pool.Exec(t.Context(), `
			insert into seen_certificates (account_id, namespace_id, fingerprint, chain, subject, issuer, serial, not_before, not_after,
			       managed, first_seen_at, last_seen_at, refused, allowed_at, cas, filter_id)
			select account_id, namespace_id, lpad(i::text, 64, '0'), chain, subject, issuer, serial, not_before, not_after,
			       managed, first_seen_at, last_seen_at, refused, allowed_at, cas, $5
			from seen_certificates, generate_series($3::int, $4::int) as i
			where account_id = $1 and fingerprint = $2`, u.account, credential.Fingerprint(stays), from, to, filter)
		if err != nil {
			t.Fatal(err)
		}
	}
	remove := func(force bool) (clientca.Change, error) {
		change, _, err := u.cas.RemoveFilter(t.Context(), u.owner, op("RemoveCertificateFilter"), "orders", b.ID(), force)
		return change, err
	}
	more(1, 1100, a.ID())
	_, err := remove(false)
	want(t, "1100 of another filter", err, sallyport.Conflict, "", "days would stop working: 1 (", credential.Fingerprint(goes))
	more(1101, 2200, "") // which may be of either
	_, err = remove(false)
	want(t, "1100 that have to be judged", err, sallyport.Conflict, "", "days would stop working: 1 (", credential.Fingerprint(goes))
	more(2201, 11_200, "")
	_, err = remove(false)
	want(t, "more than are looked at", err, sallyport.Conflict, "", "more than 10000 client certificates", "force it")
	change, err := remove(true)
	if want(t, "forced", err, "", ""); len(change.Warnings) != 1 || !strings.Contains(change.Warnings[0], "not all were looked at") {
		t.Errorf("warnings: %q", change.Warnings)
	}
	if w := u.warned(); len(w) != 1 || w[0].Count != 0 || !w[0].AtLeast || !strings.Contains(u.lastEntry(), "not all were looked at") {
		t.Errorf("told of %+v", w)
	}
}

// TestManagedInUse: certificates of the managed CA stop when mTLS does, but for
// those that are revoked.
func TestManagedInUse(t *testing.T) {
	t.Parallel()
	off := func(p *directory.NamespaceParams) { p.MTLSAuth = false }
	u := newUsed(t)
	u.saw(u.Namespace, u.loaned, func(use *clientca.Use) { use.Refused, use.At = "no", use.At.Add(time.Minute) })
	u.ahead.Store(int64(time.Minute))
	u.flush(t)
	want(t, "off", u.update("orders", off), "", "")
	u.wantWarned("mTLS was switched off", u.root, u.deep, u.other, u.loaned)

	u = newUsed(t)
	u.revoke(object.RevokedSerial(credential.IssuerID(u.managed.cert), credential.SerialText(u.loaned.SerialNumber)))
	want(t, "off", u.update("orders", off), "", "")
	u.wantWarned("mTLS was switched off", u.root, u.deep, u.other)
}

// TestNarrowedToNetworks: who works from some networks only lets nobody in from
// everywhere.
func TestNarrowedToNetworks(t *testing.T) {
	t.Parallel()
	testMayLetIn(t, "some networks only", func(c *sallyport.Caller) {
		c.Limits.Sources = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	})
}

// TestPassingCredentials: what a certificate or a token lets in would go on after
// it is revoked.
func TestPassingCredentials(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"certificate", "token"} {
		testMayLetIn(t, "a "+kind+" lets in would outlive", func(c *sallyport.Caller) { c.Credential = sallyport.Credential{Kind: kind, ID: "one"} })
	}
}

// testMayLetIn: an owner who is narrowed so lets nobody in, and may take away.
func testMayLetIn(t *testing.T, text string, narrow func(*sallyport.Caller)) {
	t.Helper()
	root := newCA(t, "operator")
	a := newWorld(t, root.cert).tenant(t)
	ctx := t.Context()
	one, two := newCA(t, "one"), newCA(t, "two")
	filter := credential.Filter{CommonName: "a"}
	n := a.namespace("orders", join(one.pem, two.pem), filter)
	a.namespace("off", one.pem)
	want(t, "mTLS off", a.update("off", func(p *directory.NamespaceParams) { p.MTLSAuth = false }), "", "")
	off := a.read("off")
	plain := a.namespace("plain", nil)
	inOffice := func() sallyport.Caller {
		c := a.as(a.owner.Principal.ID)
		narrow(&c)
		return c
	}
	updateOf := func(name string, change func(*directory.NamespaceParams)) error {
		n := a.read(name)
		p := n.NamespaceParams
		change(&p)
		_, _, err := a.directory.UpdateNamespace(ctx, inOffice(), op("UpdateNamespace"), name, n.Revision, p)
		return err
	}
	update := func(change func(*directory.NamespaceParams)) error { return updateOf("orders", change) }
	on := func(p *directory.NamespaceParams) { p.MTLSAuth = true }
	more := newCA(t, "more").pem
	for name, call := range map[string]func() error{
		"Add": func() error {
			_, _, err := a.cas.Add(ctx, inOffice(), op("AddClientCas"), "orders", more)
			return err
		},
		"AddFilter": func() error {
			return a.addFilter(inOffice(), "orders", credential.Filter{CommonName: "b"}, clientca.Map{})
		},
		"MapFilter": func() error { return a.mapFilter(inOffice(), "orders", filter.ID(), clientca.Map{Permission: "read"}) },
		"RemoveFilter": func() error {
			_, _, err := a.cas.RemoveFilter(ctx, inOffice(), op("RemoveCertificateFilter"), "orders", filter.ID(), true)
			return err
		},
		"an update of the bundle": func() error { return update(func(p *directory.NamespaceParams) { p.ClientCA = join(one.pem, more) }) },
		"a large update": func() error {
			return update(func(p *directory.NamespaceParams) { p.ClientCA = bytes.Repeat(more, 60) })
		},
		"an update of the filters": func() error { return update(func(p *directory.NamespaceParams) { p.CertificateFilters = nil }) },
		"another filter in the place of one": func() error {
			return update(func(p *directory.NamespaceParams) { p.CertificateFilters = []credential.Filter{{CommonName: "a*"}} })
		},
		"mTLS on with what is stored": func() error { return updateOf("off", on) },
		"mTLS on with the managed CA": func() error { return updateOf("plain", on) },
		"SetMTLS": func() error {
			_, _, err := a.cas.SetMTLS(ctx, inOffice(), op("SetNamespaceMtls"), "off", clientca.MTLSParams{Enabled: true})
			return err
		},
		"a new namespace": func() error {
			_, _, err := a.directory.CreateNamespace(ctx, inOffice(), op("CreateNamespace"), params("another", more))
			return err
		},
	} {
		want(t, name, call(), sallyport.PermissionDenied, "", text)
	}
	for _, n := range []directory.Namespace{n, off, plain} {
		if got := a.read(n.Name); got.Revision != n.Revision {
			t.Errorf("%s was changed: %d, want %d", n.Name, got.Revision, n.Revision)
		}
	}
	// What lets in less, and what is of other things.
	want(t, "retention", update(func(p *directory.NamespaceParams) { p.RetentionDays = 8 }), "", "")
	want(t, "a CA less", update(func(p *directory.NamespaceParams) { p.ClientCA = join(two.pem, one.pem) }), "", "")
	_, _, err := a.cas.Remove(ctx, inOffice(), op("RemoveClientCas"), "orders", []string{credential.Fingerprint(two.cert)}, false)
	want(t, "Remove", err, "", "")
	want(t, "mTLS off", update(func(p *directory.NamespaceParams) { p.MTLSAuth = false }), "", "")

	// A key that is narrowed to the namespace reaches no further by a CA of it.
	narrowed := a.as(a.owner.Principal.ID)
	narrowed.Limits.Namespaces = []sallyport.NamespaceID{n.ID}
	_, _, err = a.cas.Add(ctx, narrowed, op("AddClientCas"), "orders", more)
	want(t, "Add with a key of the namespace", err, "", "")
	a.namespace("other", one.pem)
	narrowed = a.as(a.owner.Principal.ID)
	narrowed.Limits.Namespaces = []sallyport.NamespaceID{n.ID}
	_, _, err = a.cas.Add(ctx, narrowed, op("AddClientCas"), "other", more)
	want(t, "Add with a key of another namespace", err, sallyport.PermissionDenied, "")
}

// TestRevokedCA: it is stored with a warning, which the list shows too.
func TestRevokedCA(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, b := w.tenant(t), w.tenant(t)
	good, root := newCA(t, "good"), newCA(t, "root")
	a.namespace("orders", good.pem)
	middles := []authority{}
	for range 3 {
		middles = append(middles, issueCA(t, &x509.Certificate{Subject: name("middle")}, root))
	}
	byKey, byNumber := newCA(t, "by key"), newCA(t, "by number")
	ids := []string{
		object.RevokedIssuer(credential.IssuerID(byKey.cert)), serialOf(byNumber, byNumber),
		object.RevokedCertificate(credential.Fingerprint(middles[0].cert)), serialOf(middles[1], root), serialOf(middles[2], good),
	}
	a.revoke(ids...)
	bundle := join(byKey.pem, byNumber.pem, middles[0].pem, middles[1].pem, middles[2].pem, root.pem)
	change, _, err := a.cas.Add(t.Context(), a.owner, op("AddClientCas"), "orders", bundle)
	want(t, "adding them", err, "", "")
	revoked := []bool{false, true, true, true, true, false, false}
	var numbers []string
	for i, is := range revoked {
		if is {
			numbers = append(numbers, string(rune('1'+i)))
		}
	}
	if len(change.Warnings) != len(numbers) {
		t.Fatalf("warnings: %q, want them of the certificates %v", change.Warnings, numbers)
	}
	for i, warning := range change.Warnings {
		if !strings.HasPrefix(warning, "client CA certificate "+numbers[i]+" (") || !strings.Contains(warning, "is revoked in this account") || !strings.Contains(a.lastEntry(), "is revoked in this account") {
			t.Errorf("warning %q, want one of the certificate %s, in the journal too", warning, numbers[i])
		}
	}
	list, err := a.cas.List(t.Context(), a.owner, "orders")
	want(t, "listing", err, "", "")
	for i, ca := range list.CAs {
		if got := strings.Contains(ca.Warning, "is revoked in this account"); got != revoked[i] {
			t.Errorf("certificate %d of the list: warning %q, want that it is revoked: %v", i+1, ca.Warning, revoked[i])
		}
	}
	r, err := a.cas.Check(t.Context(), a.owner, "orders", clientca.CheckParams{})
	if want(t, "checking", err, "", ""); len(r.Warnings) != len(numbers) {
		t.Errorf("a check warns of %q", r.Warnings)
	}
	b.namespace("orders", bundle)
	if entry := b.lastEntry(); strings.Contains(entry, "is revoked") {
		t.Errorf("what another account revoked counts: %s", entry)
	}
}

// TestAddTooMuch: what no bundle can hold is refused before anything of it is
// looked at.
func TestAddTooMuch(t *testing.T) {
	t.Parallel()
	a := newWorld(t).tenant(t)
	ca := newCA(t, "one")
	a.namespace("orders", ca.pem)
	empty := []byte("-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n")
	for name, more := range map[string][]byte{
		"large": join(ca.pem, bytes.Repeat(ca.pem, 3000)),
		"long":  join(ca.pem, bytes.Repeat([]byte("\n"), 32<<10)),
		"many":  join(ca.pem, bytes.Repeat(empty, 16)),
	} {
		_, _, err := a.cas.Add(t.Context(), a.owner, op("AddClientCas"), "orders", more)
		want(t, name, err, sallyport.Invalid, "certificates", "a whole bundle has")
	}
	_, _, err := a.cas.Add(t.Context(), a.owner, op("AddClientCas"), "orders", join(ca.pem, bytes.Repeat(empty, 15)))
	want(t, "as many as there may be", err, sallyport.AlreadyExists, "", "certificate 1")
}
