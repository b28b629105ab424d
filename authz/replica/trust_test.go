package replica_test

import (
	"crypto/x509"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/authz/replica"
	"github.com/sallyport-iam/sallyport/credential"
)

// TestChangesTakeHoldOnOpenConnections: the credential is that of one connection.
func TestChangesTakeHoldOnOpenConnections(t *testing.T) {
	ca, other := newCA(t, "CA", nil, nil), newCA(t, "Other", nil, nil)
	own := newCA(t, "Own", nil, nil)
	leaf, managed := ca.leaf("x", nil), own.managed("f45a2", "sa_1", nil)
	p := newPolicy("f45a2")
	p.mtls("ns_1", "orders")
	p.trust("ns_1", nil, ca)
	p.issuer(own)
	p.principal("sa_1", sallyport.ServiceAccount)
	p.grant("sa_1", sallyport.ScopeNamespace, "ns_1", "write")
	r := loadNamed(t, p)
	customers, own1 := leaf.on(r, ""), managed.on(r, "")
	steps := []struct {
		name              string
		change            func()
		customer, managed string // what is said; "": allowed
	}{
		{"as it is", func() {}, "", ""},
		{"CA removed", func() { p.trust("ns_1", nil, other) }, stranger, ""},
		{"CA back", func() { p.trust("ns_1", nil, other, ca) }, "", ""},
		{"filtered", func() { p.trust("ns_1", []object.CertificateFilter{{CommonName: "y"}}, ca) }, "filters", ""},
		{"let in by a filter", func() { p.trust("ns_1", []object.CertificateFilter{{CommonName: "X"}}, ca) }, "", ""},
		{"to read", func() { p.trust("ns_1", []object.CertificateFilter{{CommonName: "X", Permission: "read"}}, ca) }, "gives read", ""},
		{"without filters", func() { p.trust("ns_1", nil, ca) }, "", ""},
		{"leaf revoked", func() { p.revoke(object.RevokedCertificate(leaf.fingerprint())) }, "was revoked", ""},
		{"revoked no more", func() { p.remove(object.KindRevocation, object.RevokedCertificate(leaf.fingerprint())) }, "", ""},
		{"managed revoked", func() {
			p.revoke(object.RevokedSerial(credential.IssuerID(own.cert), credential.SerialText(managed.certs[0].SerialNumber)))
		}, "", "was revoked"},
		{"issuer gone", func() { p.remove(object.KindIssuer, credential.IssuerID(own.cert)) }, "", stranger},
		{"issuer back, revoked too", func() { p.issuer(own); p.revoke(object.RevokedIssuer(credential.IssuerID(own.cert))) }, "", "was revoked"},
		{"managed again", func() {
			p.remove(object.KindRevocation, object.RevokedIssuer(credential.IssuerID(own.cert)))
			p.remove(object.KindRevocation, object.RevokedSerial(credential.IssuerID(own.cert), credential.SerialText(managed.certs[0].SerialNumber)))
		}, "", ""},
		{"service account disabled", func() {
			put(p, object.KindPrincipal, "sa_1", object.Principal{Kind: sallyport.ServiceAccount, Status: object.Disabled, Epoch: 1})
		}, "", "is disabled"},
		{"service account enabled", func() { p.principal("sa_1", sallyport.ServiceAccount) }, "", ""},
		{"mTLS off", func() { p.namespace("ns_1", "orders") }, "switch mTLS on", "switch mTLS on"},
		{"mTLS on", func() { p.mtls("ns_1", "orders") }, "", ""},
		{"namespace gone", func() { p.remove(object.KindNamespace, "ns_1") }, stranger, noAccess},
		{"made again under another id", func() { p.mtls("ns_2", "orders") }, stranger, noAccess},
		{"back", func() { p.remove(object.KindNamespace, "ns_2"); p.mtls("ns_1", "orders") }, "", ""},
		{"bundle gone", func() { p.remove(object.KindClientCAs, "ns_1") }, stranger, ""},
		{"suspended", func() {
			p.trust("ns_1", nil, ca)
			put(p, object.KindAccount, "f45a2", object.Account{Status: object.Suspended})
		}, "not active", "not active"},
	}
	for _, step := range steps {
		step.change()
		reload(t, r, p)
		for name, c := range map[string]struct {
			credential replica.Credential
			says       string
		}{"customer's": {customers, step.customer}, "managed": {own1, step.managed}} {
			d := r.Decide(c.credential, start, "orders.f45a2", now)
			if d.Allow != (c.says == "") || !strings.Contains(d.Reason, c.says) {
				t.Errorf("%s, %s: allow %t, %q; want %q", step.name, name, d.Allow, d.Reason, c.says)
			}
		}
	}
}

// TestExpiryOnAnOpenConnection: the clock counts at each call, to the second.
func TestExpiryOnAnOpenConnection(t *testing.T) {
	begin, end := now.Add(time.Hour).UTC().Truncate(time.Second), now.Add(2*time.Hour).UTC().Truncate(time.Second)
	ca := newCA(t, "CA", nil, nil)
	leaf := ca.leaf("x", func(c *x509.Certificate) { c.NotBefore, c.NotAfter = begin, end })
	p := newPolicy("f45a2")
	p.mtls("ns_1", "orders")
	p.trust("ns_1", nil, ca)
	r, err := replica.Open(replica.Config{MaxStaleness: 100 * time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	reload(t, r, p)
	c := leaf.on(r, "")
	for _, test := range []struct {
		at   time.Time
		says string
	}{
		{begin.Add(-1), "not valid before"},
		{begin, ""},
		{end.Add(time.Second - 1), ""},
		{end.Add(time.Second), "expired at"},
		{end, ""},
		{begin.Add(-1), "not valid before"},
		{end.Add(time.Hour), "expired at"},
	} {
		d := r.Decide(c, start, "orders.f45a2", test.at)
		if d.Allow != (test.says == "") || !strings.Contains(d.Reason, test.says) {
			t.Errorf("at %s: %t, %q", test.at, d.Allow, d.Reason)
		}
		if d.Allow && !d.Until.Equal(end.Add(time.Second)) {
			t.Errorf("until %s, want a second after %s", d.Until, end)
		}
	}
	stale := r.Decide(c, start, "orders.f45a2", now.Add(200*time.Hour))
	if stale.Kind != sallyport.Unavailable {
		t.Errorf("with an old policy: %+v", stale)
	}
}

// TestStrangeTrustGivesNothing: what is not understood lets nobody in, and never
// more than what was meant.
func TestStrangeTrustGivesNothing(t *testing.T) {
	ca := newCA(t, "CA", nil, nil)
	good := object.ClientCAs{Certificates: [][]byte{ca.cert.Raw}, Filters: []object.CertificateFilter{{CommonName: "x"}}}
	edit := func(change func(map[string]any)) []byte {
		var m map[string]any
		if err := json.Unmarshal(object.Encode(good), &m); err != nil {
			t.Fatal(err)
		}
		change(m)
		data, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	with := func(f ...object.CertificateFilter) []byte {
		v := good
		v.Filters = f
		return object.Encode(v)
	}
	many := make([]object.CertificateFilter, 26)
	for i := range many {
		many[i].CommonName = "x" + strings.Repeat("y", i)
	}
	leaf, managed := ca.leaf("x", nil), ca.managed("f45a2", "sa_1", nil)
	for name, data := range map[string][]byte{
		"new field":               edit(func(m map[string]any) { m["only_on"] = "sunday" }),
		"filters of another type": edit(func(m map[string]any) { m["filters"] = nil }),
		"empty filter":            with(object.CertificateFilter{}),
		"filter with only a map":  with(object.CertificateFilter{Permission: "read"}),
		"star alone":              with(object.CertificateFilter{CommonName: "*"}),
		"other permission":        with(object.CertificateFilter{CommonName: "x", Permission: "write"}),
		"new permission":          with(object.CertificateFilter{CommonName: "x", Permission: "emperor"}),
		"both":                    with(object.CertificateFilter{CommonName: "x", Permission: "read", ServiceAccount: "sa_1"}),
		"too many":                with(many...),
		"one certificate broken":  object.Encode(object.ClientCAs{Certificates: [][]byte{ca.cert.Raw, {1, 2}}}),
		"not JSON":                []byte("\x00"),
		"nothing":                 {},
		"no certificates":         object.Encode(object.ClientCAs{}),
	} {
		p := newPolicy("f45a2")
		p.mtls("ns_1", "orders")
		p.raw(object.KindClientCAs, "ns_1", data)
		r := loadNamed(t, p)
		c := leaf.on(r, "")
		if d := r.Decide(c, describe, "orders.f45a2", now); d.Allow {
			t.Errorf("%s: allowed", name)
		}
		put(p, object.KindClientCAs, "ns_1", good)
		reload(t, r, p)
		if d := r.Decide(c, describe, "orders.f45a2", now); !d.Allow {
			t.Errorf("%s, replaced by a good one: %s", name, d.Reason)
		}
	}
	id := credential.IssuerID(ca.cert)
	for name, o := range map[string]object.Object{
		"other id":        {ID: credential.IssuerID(newCA(t, "x", nil, nil).cert), Data: object.Encode(object.Issuer{Certificate: ca.cert.Raw, TrustDomain: "example.org"})},
		"no domain":       {ID: id, Data: object.Encode(object.Issuer{Certificate: ca.cert.Raw})},
		"new field":       {ID: id, Data: append(object.Encode(object.Issuer{Certificate: ca.cert.Raw, TrustDomain: "example.org"})[:1], `"x":1}`...)},
		"no certificate":  {ID: id, Data: object.Encode(object.Issuer{TrustDomain: "example.org"})},
		"another account": {ID: id, Data: object.Encode(object.Issuer{Certificate: ca.cert.Raw, TrustDomain: "example.com"})},
	} {
		p := newPolicy("f45a2")
		p.mtls("ns_1", "orders")
		p.principal("sa_1", sallyport.ServiceAccount)
		p.grant("sa_1", sallyport.ScopeNamespace, "ns_1", "write")
		p.raw(object.KindIssuer, o.ID, o.Data)
		r := loadNamed(t, p)
		c := managed.on(r, "")
		if d := r.Decide(c, describe, "orders.f45a2", now); d.Allow {
			t.Errorf("issuer with %s: allowed", name)
		}
		p.issuer(ca)
		reload(t, r, p)
		if d := r.Decide(c, describe, "orders.f45a2", now); !d.Allow {
			t.Errorf("issuer with %s, replaced by a good one: %s", name, d.Reason)
		}
	}
	p := newPolicy("f45a2")
	p.mtls("ns_1", "orders")
	p.trust("ns_1", nil, ca)
	p.raw(object.KindRevocation, object.RevokedCertificate(leaf.fingerprint()), []byte(`{"since":5}`))
	r := loadNamed(t, p)
	if d := r.Decide(leaf.on(r, ""), describe, "orders.f45a2", now); d.Allow {
		t.Error("a revocation with a field that is not known does not count")
	}
	p.remove(object.KindRevocation, object.RevokedCertificate(leaf.fingerprint()))
	reload(t, r, p)
	if d := r.Decide(leaf.on(r, ""), describe, "orders.f45a2", now); !d.Allow {
		t.Error(d.Reason)
	}
}

// TestCARevokedBySerial: a CA that is trusted is revoked by its serial number
// where its issuer is known: it signed itself, or is in the bundle too.
func TestCARevokedBySerial(t *testing.T) {
	root, other := newCA(t, "Root", nil, nil), newCA(t, "Other", nil, nil)
	below := newCA(t, "Below", root, nil)
	byRoot, byBelow := root.leaf("x", nil), below.leaf("y", nil)
	byBelow.certs = append(byBelow.certs, below.cert)
	serialOf := func(issuer, ca *authority) string {
		return object.RevokedSerial(credential.IssuerID(issuer.cert), credential.SerialText(ca.cert.SerialNumber))
	}
	for _, test := range []struct {
		name        string
		bundle      []*authority
		revoke      string
		root, below bool // who is let in
	}{
		{"the root by its own key", []*authority{root, other}, serialOf(root, root), false, false},
		{"the root by its own key, beside the one below", []*authority{root, below}, serialOf(root, root), false, false},
		{"the one below", []*authority{root}, serialOf(root, below), true, false},
		{"the one below, which is trusted too", []*authority{root, below}, serialOf(root, below), true, false},
		{"a serial number of another CA's", []*authority{root, below, other}, serialOf(other, root), true, true},
	} {
		p := newPolicy("f45a2")
		p.mtls("ns_1", "orders")
		p.trust("ns_1", nil, test.bundle...)
		r := loadNamed(t, p)
		for _, revoked := range []bool{false, true} {
			if revoked {
				p.revoke(test.revoke)
				reload(t, r, p)
			}
			for name, c := range map[string]struct {
				chain *chain
				want  bool
			}{"of the root": {byRoot, test.root}, "of the one below": {byBelow, test.below}} {
				d := r.Decide(c.chain.on(r, ""), start, "orders.f45a2", now)
				if d.Allow != (c.want || !revoked) {
					t.Errorf("%s, leaf %s: %t, %s", test.name, name, d.Allow, d.Reason)
				}
			}
		}
	}
}
