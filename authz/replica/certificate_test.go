package replica_test

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/authz/replica"
	"github.com/sallyport-iam/sallyport/credential"
)

const (
	domain = "ns.example.net"
	// stranger is what somebody is told whose certificate nobody here knows.
	stranger = "was not found, or it does not accept this client certificate"
	noAccess = "was not found in the account of this client certificate"
)

func loadNamed(t testing.TB, policies ...*policy) *replica.Replica {
	t.Helper()
	r, err := replica.Open(replica.Config{NamespaceDomain: domain})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range policies {
		reload(t, r, p)
	}
	return r
}

func reload(t testing.TB, r *replica.Replica, p *policy) {
	t.Helper()
	if err := r.Load(p.batch()); err != nil {
		t.Fatal(err)
	}
}

// TestDecideCertificates reads as the policy for client certificates.
func TestDecideCertificates(t *testing.T) {
	root := newCA(t, "Root", nil, nil)
	between := newCA(t, "Between", root, nil)
	other := newCA(t, "Other", nil, nil)
	short := newCA(t, "Short", nil, func(c *x509.Certificate) { c.NotBefore, c.NotAfter = now.Add(-2*time.Hour), now.Add(-time.Second) })
	operator := newCA(t, "Operator", nil, nil)
	own := newCA(t, "Own", operator, nil)
	foreign := newCA(t, "Foreign", operator, nil)

	p := newPolicy("f45a2")
	p.mtls("ns_1", "orders")
	p.trust("ns_1", nil, root)
	p.mtls("ns_2", "filtered")
	p.trust("ns_2", []object.CertificateFilter{
		{CommonName: "gone", ServiceAccount: "sa_gone"},
		{CommonName: "off", ServiceAccount: "sa_off"},
		{CommonName: "read*", Permission: "read"},
		{CommonName: "writer", ServiceAccount: "sa_writer"},
		{CommonName: "elsewhere", ServiceAccount: "sa_elsewhere"},
		{CommonName: "readwrite"},
		{CommonName: "user", ServiceAccount: "u_1"},
	}, root)
	p.namespace("ns_3", "keys")
	p.trust("ns_3", nil, root)
	p.mtls("ns_4", "bare")
	p.mtls("ns_5", "short")
	p.trust("ns_5", nil, short)
	p.issuer(own)
	for _, id := range []string{"sa_writer", "sa_reader", "sa_off", "sa_elsewhere", "sa_none"} {
		p.principal(id, sallyport.ServiceAccount)
	}
	p.principal("u_1", sallyport.User)
	put(p, object.KindPrincipal, "sa_off", object.Principal{Kind: sallyport.ServiceAccount, Status: object.Disabled, Epoch: 1})
	for _, ns := range []string{"ns_1", "ns_2", "ns_3", "ns_4"} {
		for _, id := range []string{"sa_writer", "sa_gone", "sa_off", "u_1"} {
			p.grant(id, sallyport.ScopeNamespace, ns, "write")
		}
	}
	p.grant("sa_reader", sallyport.ScopeProject, "p_1", "read")
	p.grant("sa_elsewhere", sallyport.ScopeNamespace, "ns_1", "admin")

	b := newPolicy("f45a3")
	b.mtls("ns_b", "theirs")
	b.trust("ns_b", nil, other)
	b.issuer(foreign)
	b.principal("sa_theirs", sallyport.ServiceAccount)
	b.grant("sa_theirs", sallyport.ScopeAccount, "f45a3", "owner")
	suspended := newPolicy("f45a4")
	put(suspended, object.KindAccount, "f45a4", object.Account{Status: object.Suspended})
	suspended.mtls("ns_s", "orders")
	suspended.trust("ns_s", nil, root)

	leaf := root.leaf("leaf", nil)
	expired := root.leaf("leaf", func(c *x509.Certificate) { c.NotBefore, c.NotAfter = now.Add(-time.Hour), now.Add(-time.Minute) })
	deep := between.leaf("deep", nil)
	deep.certs = append(deep.certs, between.cert)
	writer := own.managed("f45a2", "sa_writer", nil)
	long := root.leaf("long", nil)
	for range 20 {
		long.certs = append(long.certs, between.cert)
	}
	revoked, bySerial := root.leaf("r", nil), root.leaf("s", nil)
	underRevoked := newCA(t, "Revoked", root, nil)
	ofRevoked := underRevoked.leaf("x", nil)
	ofRevoked.certs = append(ofRevoked.certs, underRevoked.cert)
	ended := newCA(t, "Ended", root, nil)
	ofEnded := ended.leaf("x", nil)
	ofEnded.certs = append(ofEnded.certs, ended.cert)
	managedRevoked := own.managed("f45a2", "sa_writer", nil)
	p.revoke(object.RevokedCertificate(revoked.fingerprint()))
	p.revoke(object.RevokedSerial(credential.IssuerID(root.cert), credential.SerialText(bySerial.certs[0].SerialNumber)))
	p.revoke(object.RevokedIssuer(credential.IssuerID(underRevoked.cert)))
	p.revoke(object.RevokedCertificate(credential.Fingerprint(ended.cert)))
	p.revoke(object.RevokedSerial(credential.IssuerID(own.cert), credential.SerialText(managedRevoked.certs[0].SerialNumber)))
	deepBySerial := between.leaf("deep", nil)
	deepBySerial.certs = append(deepBySerial.certs, between.cert)
	p.revoke(object.RevokedSerial(credential.IssuerID(between.cert), credential.SerialText(deepBySerial.certs[0].SerialNumber)))
	endedBySerial := newCA(t, "Ended by serial", root, nil)
	ofEndedBySerial := endedBySerial.leaf("x", nil)
	ofEndedBySerial.certs = append(ofEndedBySerial.certs, endedBySerial.cert)
	p.revoke(object.RevokedSerial(credential.IssuerID(root.cert), credential.SerialText(endedBySerial.cert.SerialNumber)))
	b.revoke(object.RevokedCertificate(leaf.fingerprint()))

	r := loadNamed(t, p, b, suspended)
	sni := func(name string) string { return name + "." + domain }
	serving := func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }
	const denied, unknown = sallyport.PermissionDenied, sallyport.Unauthenticated
	tests := []struct {
		name              string
		chain             *chain
		server            string
		method, namespace string
		kind              sallyport.Kind // "": allowed
		says              string
		principal         string
	}{
		{name: "customer's", chain: leaf, method: start, namespace: "orders.f45a2", principal: leaf.fingerprint()},
		{name: "describes", chain: leaf, method: describe, namespace: "orders.f45a2"},
		{name: "with an intermediate", chain: deep, method: start, namespace: "orders.f45a2"},
		{name: "another CA", chain: other.leaf("leaf", nil), method: start, namespace: "orders.f45a2", kind: denied, says: stranger},
		{name: "a server's", chain: root.leaf("srv", serving), method: start, namespace: "orders.f45a2", kind: unknown, says: "for other uses than client authentication"},
		{name: "a server's, a stranger", chain: other.leaf("srv", serving), method: start, namespace: "none.f45a2", kind: unknown, says: "for other uses than client authentication"},
		{name: "in another account", chain: leaf, method: start, namespace: "theirs.f45a3", kind: denied, says: stranger},
		{name: "no such namespace", chain: leaf, method: start, namespace: "none.f45a2", kind: denied, says: stranger},
		{name: "no such account", chain: leaf, method: start, namespace: "orders.zzzz9", kind: denied, says: stranger},
		{name: "no account named", chain: leaf, method: start, namespace: "orders", kind: denied, says: stranger},
		{name: "no namespace named", chain: leaf, method: start, kind: denied, says: stranger},
		{name: "no bundle", chain: leaf, method: start, namespace: "bare.f45a2", kind: denied, says: stranger},
		{name: "mTLS off", chain: leaf, method: start, namespace: "keys.f45a2", kind: denied, says: "switch mTLS on"},
		{name: "mTLS off, a stranger", chain: other.leaf("leaf", nil), method: start, namespace: "keys.f45a2", kind: denied, says: stranger},
		{name: "expired", chain: expired, method: start, namespace: "orders.f45a2", kind: unknown, says: "expired at"},
		{name: "expired, a stranger", chain: expired, method: start, namespace: "theirs.f45a3", kind: denied, says: stranger},
		{name: "its CA expired", chain: short.leaf("x", func(c *x509.Certificate) { c.NotBefore = now.Add(-time.Hour) }), method: start, namespace: "short.f45a2", kind: unknown, says: "expired at"},
		{name: "a CA itself", chain: &chain{certs: []*x509.Certificate{between.cert}}, method: start, namespace: "orders.f45a2", kind: unknown, says: "CA"},
		{name: "too long a chain", chain: long, method: start, namespace: "orders.f45a2", kind: unknown, says: "certificates"},
		{name: "suspended account", chain: leaf, method: start, namespace: "orders.f45a4", kind: denied, says: "account is not active"},
		{name: "revoked", chain: revoked, method: start, namespace: "orders.f45a2", kind: unknown, says: "was revoked"},
		{name: "revoked by serial", chain: bySerial, method: start, namespace: "orders.f45a2", kind: unknown, says: "was revoked"},
		{name: "revoked by serial under an intermediate", chain: deepBySerial, method: start, namespace: "orders.f45a2", kind: unknown, says: "the client certificate was revoked"},
		{name: "its intermediate revoked by serial", chain: ofEndedBySerial, method: start, namespace: "orders.f45a2", kind: unknown, says: "CA of the client certificate was revoked"},
		{name: "CA revoked", chain: ofRevoked, method: start, namespace: "orders.f45a2", kind: unknown, says: "CA of the client certificate was revoked"},
		{name: "CA's certificate revoked", chain: ofEnded, method: start, namespace: "orders.f45a2", kind: unknown, says: "CA of the client certificate was revoked"},
		{name: "revoked in another account", chain: leaf, method: describe, namespace: "orders.f45a2"},

		{name: "matches no filter", chain: leaf, method: start, namespace: "filtered.f45a2", kind: denied, says: "matches none of the certificate filters"},
		{name: "mapped to read", chain: root.leaf("reader", nil), method: describe, namespace: "filtered.f45a2"},
		{name: "mapped to read, writes", chain: root.leaf("reader", nil), method: start, namespace: "filtered.f45a2", kind: denied, says: "the client certificate gives read"},
		{name: "two filters, the second writes", chain: root.leaf("readwrite", nil), method: start, namespace: "filtered.f45a2"},
		{name: "mapped to a service account", chain: root.leaf("writer", nil), method: start, namespace: "filtered.f45a2", principal: "sa_writer"},
		{name: "mapped to one without access here", chain: root.leaf("elsewhere", nil), method: describe, namespace: "filtered.f45a2", kind: denied, says: noAccess},
		{name: "mapped to one that is gone", chain: root.leaf("gone", nil), method: describe, namespace: "filtered.f45a2", kind: denied, says: "does not exist any more"},
		{name: "mapped to one that is disabled", chain: root.leaf("off", nil), method: describe, namespace: "filtered.f45a2", kind: denied, says: "is disabled"},
		{name: "mapped to a user", chain: root.leaf("user", nil), method: describe, namespace: "filtered.f45a2", kind: denied, says: "does not exist any more"},

		{name: "managed writes", chain: writer, method: start, namespace: "orders.f45a2", principal: "sa_writer"},
		{name: "managed without a bundle", chain: writer, method: start, namespace: "bare.f45a2", principal: "sa_writer"},
		{name: "managed by filters", chain: writer, method: start, namespace: "filtered.f45a2", principal: "sa_writer"},
		{name: "managed, mTLS off", chain: writer, method: start, namespace: "keys.f45a2", kind: denied, says: "switch mTLS on"},
		{name: "managed reads", chain: own.managed("f45a2", "sa_reader", nil), method: describe, namespace: "bare.f45a2"},
		{name: "managed reader writes", chain: own.managed("f45a2", "sa_reader", nil), method: start, namespace: "orders.f45a2", kind: denied, says: "needs the permission write"},
		{name: "managed without a grant", chain: own.managed("f45a2", "sa_none", nil), method: describe, namespace: "orders.f45a2", kind: denied, says: noAccess},
		{name: "managed, no such namespace", chain: writer, method: describe, namespace: "none.f45a2", kind: denied, says: noAccess},
		{name: "managed, principal gone", chain: own.managed("f45a2", "sa_gone", nil), method: describe, namespace: "orders.f45a2", kind: unknown, says: "does not exist any more"},
		{name: "managed, principal disabled", chain: own.managed("f45a2", "sa_off", nil), method: describe, namespace: "orders.f45a2", kind: unknown, says: "is disabled"},
		{name: "managed, a user", chain: own.managed("f45a2", "u_1", nil), method: describe, namespace: "orders.f45a2", kind: unknown, says: "does not exist any more"},
		{name: "managed, revoked", chain: managedRevoked, method: describe, namespace: "orders.f45a2", kind: unknown, says: "was revoked"},
		{name: "managed, expired", chain: own.managed("f45a2", "sa_writer", func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Second) }), method: describe, namespace: "orders.f45a2", kind: unknown, says: "expired at"},

		{name: "cluster, managed", chain: own.managed("f45a2", "sa_none", nil), method: cluster},
		{name: "cluster, managed over its namespace", chain: writer, server: sni("orders.f45a2"), method: cluster},
		{name: "cluster, managed over another account's", chain: writer, server: sni("theirs.f45a3"), method: cluster, kind: unknown, says: "not known here"},
		{name: "cluster, a customer's", chain: leaf, method: cluster, kind: unknown, says: "not known here"},
		{name: "cluster, a customer's over its namespace", chain: leaf, server: sni("orders.f45a2"), method: cluster, principal: leaf.fingerprint()},
		{name: "cluster, a customer's over a namespace without mTLS", chain: leaf, server: sni("keys.f45a2"), method: cluster, kind: denied, says: "switch mTLS on"},
		{name: "cluster, a customer's that is filtered out", chain: leaf, server: sni("filtered.f45a2"), method: cluster, kind: denied, says: "filters"},
		{name: "cluster, mapped to one that is gone", chain: root.leaf("gone", nil), server: sni("filtered.f45a2"), method: cluster, kind: denied, says: "any more"},
		{name: "cluster, a stranger", chain: other.leaf("x", nil), server: sni("orders.f45a2"), method: cluster, kind: unknown, says: "not known here"},
		{name: "operator's method", chain: writer, method: admin, kind: denied, says: "operator"},
		{name: "control plane's method", chain: leaf, server: sni("orders.f45a2"), method: register, namespace: "orders.f45a2", kind: denied, says: "access service"},
		{name: "health", chain: other.leaf("x", nil), method: health},

		{name: "over its name", chain: leaf, server: sni("orders.f45a2"), method: start, namespace: "orders.f45a2"},
		{name: "over its name in capitals with a dot", chain: leaf, server: strings.ToUpper(sni("orders.f45a2")) + ".", method: start, namespace: "orders.f45a2"},
		{name: "over another name", chain: leaf, server: sni("filtered.f45a2"), method: start, namespace: "orders.f45a2", kind: denied, says: "connect to the name of the namespace"},
		{name: "over the name of the region", chain: leaf, server: sni("eu"), method: start, namespace: "orders.f45a2"},
		{name: "over a name of another domain", chain: leaf, server: "filtered.f45a2.example.org", method: start, namespace: "orders.f45a2"},
		{name: "over the domain", chain: leaf, server: domain, method: start, namespace: "orders.f45a2"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			for range 2 { // found out, and known
				d := r.Decide(test.chain.on(r, test.server), test.method, test.namespace, now)
				if d.Allow != (test.kind == "") || d.Kind != test.kind || !strings.Contains(d.Reason, test.says) || d.Reason == "" {
					t.Errorf("got allow %t, %q, %q; want %q with %q", d.Allow, d.Kind, d.Reason, test.kind, test.says)
				}
				if test.principal != "" && d.Principal.ID != test.principal {
					t.Errorf("principal %v, want %s", d.Principal, test.principal)
				}
				if d.Certificate != test.chain.fingerprint() {
					t.Errorf("certificate %q", d.Certificate)
				}
			}
		})
	}
}

// TestStrangersLearnNothing: whatever the namespace is, the words are the same.
func TestStrangersLearnNothing(t *testing.T) {
	ca, other := newCA(t, "CA", nil, nil), newCA(t, "Other", nil, nil)
	p := newPolicy("f45a2")
	p.mtls("ns_1", "bundle")
	p.trust("ns_1", nil, ca)
	p.mtls("ns_2", "without")
	p.namespace("ns_3", "keys")
	p.mtls("ns_4", "filters")
	p.trust("ns_4", []object.CertificateFilter{{CommonName: "x"}}, ca)
	r := loadNamed(t, p)
	same := newCA(t, "CA", nil, nil) // with the name of the CA that is trusted
	for name, c := range map[string]*chain{
		"other":     other.leaf("x", nil),
		"same name": same.leaf("x", nil),
		"expired":   same.leaf("x", func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Second) }),
		"bad usage": same.leaf("x", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }),
		"URI":       same.managed("f45a2", "sa_1", nil),
	} {
		seen := map[string]bool{}
		for _, ns := range []string{"bundle", "without", "keys", "filters", "nothing"} {
			d := r.Decide(c.on(r, ""), start, ns+".f45a2", now)
			if d.Allow || d.Namespace != "" {
				t.Errorf("%s, %s: %+v", name, ns, d)
			}
			seen[string(d.Kind)+strings.ReplaceAll(d.Reason, ns, "*")] = true
		}
		if len(seen) != 1 {
			t.Errorf("%s: %v", name, seen)
		}
		for ns, detail := range map[string]string{"bundle": map[string]string{"other": "not issued by any CA", "same name": "another key", "expired": "expired at", "bad usage": "other uses", "URI": "another key"}[name],
			"without": "has no client CAs", "keys": "switch mTLS on"} {
			d := r.Decide(c.on(r, ""), start, ns+".f45a2", now)
			if name == "bad usage" { // whoever issued it
				detail = "other uses"
			}
			if !strings.Contains(d.Detail(), detail) {
				t.Errorf("%s, %s: the owner is told %q, want %q", name, ns, d.Detail(), detail)
			}
		}
	}
}

func TestCertificateDecisionSaysWhatItRestsOn(t *testing.T) {
	ca := newCA(t, "CA", nil, nil)
	p := newPolicy("f45a2")
	p.mtls("ns_1", "orders")
	p.trust("ns_1", nil, ca)
	p.issuer(ca)
	p.principal("sa_1", sallyport.ServiceAccount)
	p.grant("sa_1", sallyport.ScopeAccount, "f45a2", "admin")
	r := loadNamed(t, p)
	unexported := cmpopts.IgnoreUnexported(replica.Decision{})

	leaf := ca.leaf("x", nil)
	got := r.Decide(leaf.on(r, ""), start, "orders.f45a2", now)
	want := replica.Decision{Allow: true, Reason: "allowed by the namespace's client CAs", Account: "f45a2", Certificate: leaf.fingerprint(), Head: p.head, Age: got.Age,
		Until: leaf.certs[0].NotAfter.Add(time.Second), Namespace: "ns_1", Principal: sallyport.Principal{Kind: sallyport.Certificate, ID: leaf.fingerprint()},
		Grant: sallyport.Grant{Subject: leaf.fingerprint(), Scope: sallyport.ScopeNamespace, Target: "ns_1", Role: "write"}}
	if diff := cmp.Diff(want, got, unexported); diff != "" {
		t.Error(diff)
	}
	managed := ca.managed("f45a2", "sa_1", nil)
	got = r.Decide(managed.on(r, ""), start, "orders.f45a2", now)
	want = replica.Decision{Allow: true, Reason: "allowed by the grant", Account: "f45a2", Certificate: managed.fingerprint(), Head: p.head, Age: got.Age,
		Until: managed.certs[0].NotAfter.Add(time.Second), Namespace: "ns_1", Principal: sallyport.Principal{Kind: sallyport.ServiceAccount, ID: "sa_1"},
		Grant: sallyport.Grant{Subject: "sa_1", Scope: sallyport.ScopeAccount, Target: "f45a2", Role: "admin"}}
	if diff := cmp.Diff(want, got, unexported); diff != "" {
		t.Error(diff)
	}
	c := managed.on(r, "")
	byHand := replica.Credential{Kind: replica.Certificate, Account: c.Account, Certificate: c.Certificate}
	if diff := cmp.Diff(got, r.Decide(byHand, start, "orders.f45a2", now), unexported, cmpopts.IgnoreFields(replica.Decision{}, "Age")); diff != "" {
		t.Errorf("without a cache: %s", diff)
	}
}

// TestOneCallOneCredential: a header alone counts, and the server name binds both.
func TestOneCallOneCredential(t *testing.T) {
	ca := newCA(t, "CA", nil, nil)
	p := newPolicy("f45a2")
	p.mtls("ns_1", "orders")
	p.mtls("ns_2", "other")
	p.trust("ns_1", nil, ca)
	put(p, object.KindNamespace, "ns_3", object.Namespace{Name: "mtls", Auth: object.NamespaceAuth{MTLS: true}})
	p.trust("ns_3", nil, ca)
	p.principal("sa_1", sallyport.ServiceAccount)
	for _, ns := range []string{"ns_1", "ns_2", "ns_3"} {
		p.grant("sa_1", sallyport.ScopeNamespace, ns, "write")
	}
	header, _ := p.key("sa_1", nil)
	r := loadNamed(t, p)
	leaf := ca.leaf("x", nil)
	connection := &tls.ConnectionState{PeerCertificates: leaf.certs}
	named := &tls.ConnectionState{PeerCertificates: leaf.certs, ServerName: "orders.f45a2." + domain}
	tests := []struct {
		name, header string
		connection   *tls.ConnectionState
		namespace    string
		kind         sallyport.Kind
		says         string
	}{
		{"both", header, connection, "orders.f45a2", "", "by the grant"},
		{"a bad header and a good certificate", "Basic x", connection, "orders.f45a2", sallyport.Unauthenticated, "Bearer"},
		{"only certificates", header, connection, "mtls.f45a2", sallyport.PermissionDenied, "does not accept API keys"},
		{"the certificate", "", connection, "mtls.f45a2", "", "client CAs"},
		{"no TLS", header, nil, "orders.f45a2", "", "by the grant"},
		{"neither", "", &tls.ConnectionState{}, "orders.f45a2", sallyport.Unauthenticated, "no credential"},
		{"key over the name", header, named, "orders.f45a2", "", "by the grant"},
		{"key over another name", header, named, "other.f45a2", sallyport.PermissionDenied, "connect to the name of the namespace"},
		{"neither, over another name", "", &tls.ConnectionState{ServerName: named.ServerName}, "other.f45a2", sallyport.Unauthenticated, "no credential"},
	}
	for _, test := range tests {
		d := r.Decide(r.Credential(test.header, test.connection, netip.Addr{}), start, test.namespace, now)
		if d.Kind != test.kind || !strings.Contains(d.Reason, test.says) {
			t.Errorf("%s: %q, %q", test.name, d.Kind, d.Reason)
		}
	}
	derived := r.Credential(header, named, netip.Addr{})
	derived.Name = ""
	if d := r.Decide(derived, start, "other.f45a2", now); !d.Allow {
		t.Errorf("a target that the call leads to: %s", d.Reason)
	}
}

// TestTenants: nothing of one account's makes a certificate that works in another.
func TestTenants(t *testing.T) {
	operator := newCA(t, "Operator", nil, nil)
	ofA, ofB := newCA(t, "A", operator, nil), newCA(t, "B", operator, nil)
	customer := newCA(t, "Customer", nil, nil)
	a, b := newPolicy("aaaa2"), newPolicy("bbbb2")
	for _, p := range []*policy{a, b} {
		p.mtls("ns_"+string(p.account), "orders")
		p.principal("sa_1", sallyport.ServiceAccount)
		p.grant("sa_1", sallyport.ScopeAccount, string(p.account), "owner")
	}
	a.issuer(ofA)
	b.issuer(ofB)
	b.trust("ns_bbbb2", []object.CertificateFilter{{CommonName: "sa_1", Permission: "read"}}, customer)
	r := loadNamed(t, a, b)
	underOperator := operator.managed("bbbb2", "sa_1", nil)
	allowed := ofB.managed("bbbb2", "sa_1", nil)
	if d := r.Decide(allowed.on(r, ""), start, "orders.bbbb2", now); !d.Allow {
		t.Fatal(d.Reason)
	}
	below := newCA(t, "Below", ofA, nil)
	chained := below.managed("bbbb2", "sa_1", nil)
	chained.certs = append(chained.certs, ofA.cert, operator.cert)
	for name, c := range map[string]*chain{
		"B's URI by A's issuer":                    ofA.managed("bbbb2", "sa_1", nil),
		"A's own":                                  ofA.managed("aaaa2", "sa_1", nil),
		"B's URI by the operator's root":           underOperator,
		"B's URI by a CA below A's":                chained,
		"B's URI by A's issuer, with B's as chain": {certs: []*x509.Certificate{ofA.managed("bbbb2", "sa_1", nil).certs[0], ofB.cert}},
	} {
		for _, method := range []string{start, cluster} {
			for _, server := range []string{"", "orders.bbbb2." + domain} {
				d := r.Decide(c.on(r, server), method, "orders.bbbb2", now)
				if server == "" && method == cluster && c.on(r, "").Account == "aaaa2" {
					continue // it works in its own account
				}
				if d.Allow || d.Principal.ID != "" {
					t.Errorf("%s, %s over %q: %+v", name, method, server, d)
				}
			}
		}
	}
	plain := customer.managed("bbbb2", "sa_1", nil)
	d := r.Decide(plain.on(r, ""), describe, "orders.bbbb2", now)
	if !d.Allow || d.Principal != (sallyport.Principal{Kind: sallyport.Certificate, ID: plain.fingerprint()}) || d.Grant.Role != "read" {
		t.Errorf("a URI under a customer's CA is plain text: %+v", d)
	}
	if d := r.Decide(plain.on(r, ""), start, "orders.bbbb2", now); d.Allow {
		t.Error("a URI under a customer's CA made it the service account")
	}
	if d := r.Decide(plain.on(r, ""), cluster, "", now); d.Allow {
		t.Error("a URI under a customer's CA made it the service account for the cluster")
	}
	otherDomain := ofB.managed("bbbb2", "sa_1", func(c *x509.Certificate) { c.URIs[0].Host = "example.net" })
	if d := r.Decide(otherDomain.on(r, ""), start, "orders.bbbb2", now); d.Allow {
		t.Error("a URI of another trust domain counts")
	}
	two := ofB.managed("bbbb2", "sa_1", func(c *x509.Certificate) { c.URIs = append(c.URIs, c.URIs[0]) })
	if d := r.Decide(two.on(r, ""), start, "orders.bbbb2", now); d.Allow {
		t.Error("a certificate with two URIs counts")
	}
}

func TestCertificateAllowDoesNotAllocate(t *testing.T) {
	root := newCA(t, "CA", nil, nil)
	below := newCA(t, "Below", root, nil)
	leaf := below.leaf("x", nil)
	leaf.certs = append(leaf.certs, below.cert)
	managed := root.managed("f45a2", "sa_1", nil)
	mapped := root.leaf("mapped", func(c *x509.Certificate) { c.Subject = pkix.Name{CommonName: "mapped"} })
	p := newPolicy("f45a2")
	p.mtls("ns_1", "orders")
	p.trust("ns_1", []object.CertificateFilter{{CommonName: "mapped", Permission: "read"}, {CommonName: "mapped", Organization: "z", ServiceAccount: "sa_1"},
		{SubjectAlternativeName: "mapped*", ServiceAccount: "sa_1"}, {CommonName: "x"}}, root)
	p.issuer(root)
	p.principal("sa_1", sallyport.ServiceAccount)
	p.grant("sa_1", sallyport.ScopeNamespace, "ns_1", "write")
	r := loadNamed(t, p)
	for name, c := range map[string]*chain{"customer's": leaf, "managed": managed, "mapped": mapped} {
		connection := &tls.ConnectionState{PeerCertificates: c.certs, ServerName: "orders.f45a2." + domain}
		n := testing.AllocsPerRun(100, func() {
			d := r.Decide(r.Credential("", connection, netip.Addr{}), start, "orders.f45a2", now)
			if !d.Allow {
				t.Fatal(d.Reason)
			}
			r.MarkUsed(d, now)
		})
		if n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}
