package credential_test

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport-iam/sallyport/credential"
)

// TestCustomersCertificates: what customers really have is let in.
func TestCustomersCertificates(t *testing.T) {
	type made struct{ cas, chain []*x509.Certificate }
	tcld := func(kind string) func(t *testing.T) made { // as `tcld gen ca` and `tcld gen leaf` do
		return func(t *testing.T) made {
			template := ca("")
			template.Subject = pkix.Name{Organization: []string{"Example"}}
			template.KeyUsage = x509.KeyUsageDigitalSignature | x509.KeyUsageCRLSign | x509.KeyUsageCertSign
			template.DNSNames = []string{"client.root.Example Inc.k3q9"}
			authority := root(t, template, kind)
			end := leaf("")
			end.KeyUsage, end.ExtKeyUsage = 0, nil
			end.Subject = pkix.Name{Organization: []string{"Example"}, OrganizationalUnit: []string{""}}
			end.DNSNames = []string{"client.endentity.Example Inc.9x2k"}
			return made{certs(authority.cert), certs(authority.issue(t, end))}
		}
	}
	openssl := func(name string) func(t *testing.T) made {
		return func(t *testing.T) made {
			cas, err := credential.ParseClientCAs(file(t, name+"-ca.pem"))
			if err != nil {
				t.Fatal(err)
			}
			chain, err := credential.ParseChain(file(t, name+"-leaf.pem"))
			if err != nil {
				t.Fatal(err)
			}
			return made{cas, chain}
		}
	}
	tests := map[string]func(t *testing.T) made{
		"tcld with P-384": tcld("P-384"),
		"tcld with --rsa": tcld("RSA-2048"),
		"P-521":           tcld("P-521"),
		"openssl, Temporal's sample: RSA-4096 CA, leaf with a name alone":    openssl("openssl-sample"),
		"openssl, an old openssl.cnf: intermediate in the bundle, long AKIs": openssl("openssl-old"),
		"openssl, RSA-PSS": openssl("openssl-pss"),
		"cert-manager: no subject, critical names": func(t *testing.T) made {
			template := ca("my-selfsigned-ca")
			template.KeyUsage = x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment | x509.KeyUsageCertSign
			authority := root(t, template, "P-256")
			end := leaf("")
			end.Subject, end.DNSNames, end.BasicConstraintsValid = pkix.Name{}, []string{"worker.default.svc"}, true
			end.KeyUsage |= x509.KeyUsageKeyEncipherment
			end.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
			return made{certs(authority.cert), certs(authority.issue(t, end))}
		},
		"step-ca: intermediate presented, extension of its own": func(t *testing.T) made {
			top := root(t, ca("Smallstep Root CA"), "P-256")
			template := ca("Smallstep Intermediate CA")
			template.MaxPathLenZero = true
			intermediate := top.below(t, template)
			end := leaf("worker")
			end.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
			end.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 37476, 9000, 64, 1}, Value: []byte{0x30, 0}}}
			return made{certs(top.cert), certs(intermediate.issue(t, end), intermediate.cert)}
		},
		"Vault: intermediate and root presented too": func(t *testing.T) made {
			top := root(t, ca("example.com"), "RSA-2048")
			intermediate := top.below(t, ca("example.com Intermediate Authority"))
			end := leaf("worker.example.com")
			end.KeyUsage |= x509.KeyUsageKeyAgreement | x509.KeyUsageKeyEncipherment
			return made{certs(top.cert), certs(intermediate.issue(t, end), intermediate.cert, top.cert)}
		},
		"AWS Private CA: constrained intermediate in the bundle": func(t *testing.T) made {
			top := root(t, ca("Root"), "P-384")
			template := ca("Subordinate")
			template.KeyUsage |= x509.KeyUsageDigitalSignature
			template.PermittedDNSDomainsCritical, template.PermittedDNSDomains = true, []string{"example.com"}
			intermediate := top.below(t, template)
			end := leaf("worker")
			end.DNSNames = []string{"worker.example.com"}
			return made{certs(intermediate.cert, top.cert), certs(intermediate.issue(t, end))}
		},
		"SPIRE: a URI": func(t *testing.T) made {
			top := root(t, ca("SPIFFE"), "P-256")
			end := leaf("")
			end.Subject = pkix.Name{Country: []string{"US"}, Organization: []string{"SPIRE"}}
			end.URIs = append(end.URIs, uri(t, "spiffe://example.org/ns/default/sa/worker"))
			return made{certs(top.cert), certs(top.issue(t, end))}
		},
		"two CAs of one name during a rotation": func(t *testing.T) made {
			older, newer := root(t, ca("Root"), "P-256"), root(t, ca("Root"), "P-256")
			return made{certs(older.cert, newer.cert), certs(newer.issue(t, leaf("worker")))}
		},
		"an intermediate presented three times": func(t *testing.T) made {
			top := root(t, ca("Root"), "P-256")
			intermediate := top.below(t, ca("Intermediate"))
			return made{certs(top.cert), certs(intermediate.issue(t, leaf("worker")), intermediate.cert, intermediate.cert, intermediate.cert)}
		},
		"a leaf presented twice, and another's root": func(t *testing.T) made {
			top := root(t, ca("Root"), "P-256")
			end := top.issue(t, leaf("worker"))
			return made{certs(top.cert), certs(end, end, root(t, ca("Other"), "P-256").cert)}
		},
	}
	for name, make := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := make(t)
			if _, err := credential.ParseClientCAs(bundle(m.cas...)); err != nil {
				t.Errorf("the bundle is refused: %v", err)
			}
			got := verify(m.chain, m.cas)
			if got.Problem != "" || len(got.Chains) == 0 {
				t.Fatalf("refused: %q", got.Problem)
			}
			best := got.Chains[0]
			if !best.Certificates[0].Equal(m.chain[0]) || len(best.IssuerIDs) != len(best.Certificates)-1 {
				t.Errorf("chain of %d certificates with %d issuers", len(best.Certificates), len(best.IssuerIDs))
			}
			last := best.Certificates[len(best.Certificates)-1]
			if best.Anchor != credential.Fingerprint(last) || !slices.ContainsFunc(m.cas, last.Equal) {
				t.Errorf("the chain ends at %s, not at a CA of the bundle", last.Subject)
			}
		})
	}
}

// TestRefused: what must not get in does not, and the reason is told.
func TestRefused(t *testing.T) {
	top := root(t, ca("Root"), "P-256")
	issue := func(change func(*x509.Certificate)) []*x509.Certificate {
		template := leaf("worker")
		change(template)
		return certs(top.issue(t, template))
	}
	chain := func(change func(*x509.Certificate)) []*x509.Certificate { // through an intermediate
		template := ca("Intermediate")
		change(template)
		intermediate := top.below(t, template)
		return certs(intermediate.issue(t, leaf("worker")), intermediate.cert)
	}
	keyed := func(kind string) []*x509.Certificate {
		return certs(sign(t, leaf("worker"), top.cert, newKey(t, kind).Public(), top.key))
	}
	extension := func(id asn1.ObjectIdentifier, critical bool, value ...byte) func(*x509.Certificate) {
		return func(c *x509.Certificate) {
			c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: id, Critical: critical, Value: value})
		}
	}
	other := root(t, ca("Other"), "P-256")
	namesake := root(t, ca("Root"), "P-256")
	v1, err := credential.ParseChain(file(t, "openssl-v1-leaf.pem"))
	if err != nil {
		t.Fatal(err)
	}
	long := []*x509.Certificate{top.issue(t, leaf("worker"))}
	for range 10 {
		long = append(long, other.cert)
	}
	big159 := new(big.Int).Lsh(big.NewInt(1), 159)
	tests := []struct {
		name  string
		chain []*x509.Certificate
		want  string
	}{
		{"nothing", nil, "no client certificate was presented"},
		{"too many", long, "11 certificates with"},
		{"another's CA", certs(other.issue(t, leaf("worker"))), `is not issued by any CA of this namespace: its issuer is "CN=Other"`},
		{"a CA's namesake", certs(namesake.issue(t, leaf("worker"))), `with another key: it is from an older or a newer CA of that name`},
		{"an unknown intermediate", certs(chain(func(*x509.Certificate) {})[0]), `its issuer is "CN=Intermediate"`},
		{"a chain to nowhere", func() []*x509.Certificate {
			intermediate := other.below(t, ca("Elsewhere"))
			return certs(intermediate.issue(t, leaf("worker")), intermediate.cert)
		}(), `does not lead to any CA of this namespace: it ends at the issuer "CN=Other"`},
		{"expired", issue(func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Minute) }), "expired at 2027-01-02T03:03:05Z; renew it"},
		{"not yet valid", issue(func(c *x509.Certificate) { c.NotBefore = now.Add(time.Minute) }), "is not valid before 2027-01-02T03:05:05Z; check the clocks"},
		{"an expired intermediate", chain(func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Minute) }), `is issued by the CA "CN=Intermediate", which expired at 2027-01-02T03:03:05Z; renew the CA`},
		{"a CA", certs(top.below(t, ca("worker")).cert), "is a CA certificate itself"},
		{"the anchor itself", certs(top.cert), "is a CA certificate itself"},
		{"key usage without signing", issue(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment }), "a key usage without digitalSignature"},
		{"key usage of a CA", issue(func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCertSign }), "keyCertSign, which is for CAs only"},
		{"a server's", issue(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }), "the client certificate is for other uses than client authentication"},
		{"an intermediate for servers", chain(func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }), "a CA of the client certificate's chain is for other uses than client authentication"},
		{"RSA with 1024 bits", keyed("RSA-1024"), "has an RSA key of 1024 bits; at least 2048 are needed"},
		{"Ed25519", keyed("Ed25519"), "has a key that is neither RSA nor ECDSA"},
		{"P-224", keyed("P-224"), "has an ECDSA key on the curve P-224"},
		{"version 1", v1, "is X.509 version 1; version 3 is required"},
		{"a serial of 21 octets", issue(func(c *x509.Certificate) { c.SerialNumber = big159 }), "has a serial number that is not positive or has more than 20 octets"},
		{"an unknown critical extension", issue(extension(asn1.ObjectIdentifier{1, 2, 3}, true, 5, 0)), "has the critical extension 1.2.3, which is not understood"},
		{"name constraints of its own", issue(extension(asn1.ObjectIdentifier{2, 5, 29, 30}, false, 0x30, 0x09, 0xa0, 0x07, 0x30, 0x05, 0x82, 0x03, 'a', '.', 'b')), "has name constraints, which are for CAs only"},
		{"no subject, names not critical", issue(func(c *x509.Certificate) {
			c.Subject = pkix.Name{}
			extension(asn1.ObjectIdentifier{2, 5, 29, 17}, false, 0x30, 0x05, 0x82, 0x03, 'a', '.', 'b')(c)
		}), "has no subject, and its alternative names are not critical"},
		{"too many names", issue(func(c *x509.Certificate) { c.DNSNames = slices.Repeat([]string{"a.b"}, 257) }), "has more than 256 alternative names"},
		{"too long a subject", issue(func(c *x509.Certificate) { c.Subject.OrganizationalUnit = slices.Repeat([]string{"a"}, 65) }), "has a subject of more than 64 parts"},
		{"the CA's own name", certs(top.issue(t, leafNamed(pkix.Name{CommonName: "rOOT"}))), `the subject "CN=Root" is in the client certificate's chain twice`},
		{"an intermediate of the root's name", chain(func(c *x509.Certificate) { c.Subject.CommonName = "ROOT" }), `the subject "CN=Root" is in the client certificate's chain twice`},
		{"a path too long", func() []*x509.Certificate {
			template := ca("First")
			template.MaxPathLenZero = true
			first := top.below(t, template)
			second := first.below(t, ca("Second"))
			return certs(second.issue(t, leaf("worker")), second.cert, first.cert)
		}(), "too many intermediates for path length constraint"},
		{"a name that the CA may not certify", func() []*x509.Certificate {
			template := ca("Constrained")
			template.PermittedDNSDomainsCritical, template.PermittedDNSDomains = true, []string{"example.com"}
			constrained := top.below(t, template)
			end := leaf("worker")
			end.DNSNames = []string{"worker.example.org"}
			return certs(constrained.issue(t, end), constrained.cert)
		}(), `a CA of the client certificate's chain may not certify its names: "DNS name \"worker.example.org\"`},
		{"many namesakes", func() []*x509.Certificate {
			list := certs(top.issue(t, leaf("worker")))
			for range 3 {
				list = append(list, top.below(t, ca("Many")).cert)
			}
			return list
		}(), `more than 2 certificates of the CA "CN=Many" were presented`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got := verify(test.chain, certs(top.cert))
			if !strings.Contains(got.Problem, test.want) || len(got.Chains) != 0 {
				t.Errorf("got %d chains and %q, want %q", len(got.Chains), got.Problem, test.want)
			}
		})
	}
	// The same CA, presented or in the bundle, beside one that is in the bundle.
	weak := newKey(t, "RSA-1024")
	intermediate := sign(t, ca("Weak"), top.cert, weak.Public(), top.key)
	end := sign(t, leaf("worker"), intermediate, newKey(t, "P-256").Public(), weak)
	const want = `names as its issuer the CA "CN=Weak", which has an RSA key of 1024 bits`
	beside := top.below(t, ca("Beside")).cert
	for _, cas := range [][]*x509.Certificate{certs(top.cert), certs(top.cert, beside), certs(top.cert, intermediate)} {
		if got := verify(certs(end, intermediate), cas); !strings.Contains(got.Problem, want) {
			t.Errorf("under a weak CA: %q", got.Problem)
		}
	}
	if got := credential.NewPresented(certs(top.issue(t, leaf("worker")))).Verify(nil, credential.CustomerCA, now); !strings.Contains(got.Problem, "there is none") {
		t.Errorf("without anchors: %+v", got)
	}
}

func leafNamed(name pkix.Name) *x509.Certificate {
	template := leaf("")
	template.Subject = name
	return template
}

// TestDirectoryNameConstraints: crypto/x509 ignores those that are not critical
// and refuses those that are.
func TestDirectoryNameConstraints(t *testing.T) {
	wrap := func(tag byte, content []byte) []byte { return append([]byte{tag, byte(len(content))}, content...) }
	constraint := func(part byte, name pkix.Name) []byte {
		t.Helper()
		sequence, err := asn1.Marshal(name.ToRDNSequence())
		if err != nil {
			t.Fatal(err)
		}
		return wrap(0x30, wrap(0xa0|part, wrap(0x30, wrap(0xa4, sequence))))
	}
	const permitted, excluded = 0, 1
	org := pkix.Name{Organization: []string{"Example"}}
	tests := []struct {
		name     string
		critical bool
		part     byte
		of       pkix.Name
		subject  pkix.Name
		want     bool
	}{
		{"within", true, permitted, org, pkix.Name{Organization: []string{"EXAMPLE"}, CommonName: "worker"}, true},
		{"outside", true, permitted, org, pkix.Name{Organization: []string{"Other"}, CommonName: "worker"}, false},
		{"outside, not critical", false, permitted, org, pkix.Name{Organization: []string{"Other"}, CommonName: "worker"}, false},
		{"excluded", true, excluded, org, pkix.Name{Organization: []string{"Example"}, CommonName: "worker"}, false},
		{"not excluded", true, excluded, org, pkix.Name{Organization: []string{"Other"}, CommonName: "worker"}, true},
		{"shorter than the constraint", true, permitted, pkix.Name{Organization: []string{"Example"}, CommonName: "worker"}, org, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			template := ca("Root")
			template.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 30}, Critical: test.critical, Value: constraint(test.part, test.of)}}
			top := root(t, template, "P-256")
			if _, err := credential.ParseClientCAs(bundle(top.cert)); err != nil {
				t.Errorf("the bundle is refused: %v", err)
			}
			got := verify(certs(top.issue(t, leafNamed(test.subject))), certs(top.cert))
			if (got.Problem == "") != test.want {
				t.Errorf("problem %q, want none: %v", got.Problem, test.want)
			}
			// The same name as an alternative one, beside no subject.
			sequence, err := asn1.Marshal(test.subject.ToRDNSequence())
			if err != nil {
				t.Fatal(err)
			}
			end := leafNamed(pkix.Name{})
			end.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Critical: true, Value: wrap(0x30, append(wrap(0xa4, sequence), wrap(0x82, []byte("a.b"))...))}}
			got = verify(certs(top.issue(t, end)), certs(top.cert))
			if (got.Problem == "") != test.want {
				t.Errorf("as an alternative name: problem %q, want none: %v", got.Problem, test.want)
			}
		})
	}
}

// TestUnreadableConstraints: a CA whose constraints are not understood is none.
func TestUnreadableConstraints(t *testing.T) {
	name := []byte{0xa4, 13, 0x30, 11, 0x31, 9, 0x30, 7, 6, 3, 0x55, 4, 3, 0x0c, 0}
	base := append([]byte{0x30, 15}, name...)
	for what, list := range map[string][]byte{
		"a minimum":                append(append([]byte{0x30, 18}, name...), 0x80, 1, 1),
		"too many":                 bytes.Repeat(base, 257),
		"a name that is no name":   {0x30, 4, 0xa4, 2, 0x0c, 0},
		"a name that is cut short": {0x30, 4, 0xa4, 2, 0x30, 1},
	} {
		template := ca("Root")
		value, err := asn1.Marshal([]asn1.RawValue{{Class: asn1.ClassContextSpecific, IsCompound: true, Bytes: list}})
		if err != nil {
			t.Fatal(err)
		}
		template.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 30}, Value: value}}
		top := root(t, template, "P-256")
		const want = "has name constraints that cannot be read, or too many"
		if _, err := credential.ParseClientCAs(bundle(top.cert)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", what, err)
		}
		if got := verify(certs(top.issue(t, leaf("worker"))), certs(top.cert)); !strings.Contains(got.Problem, want) {
			t.Errorf("%s: %q", what, got.Problem)
		}
	}
}

// TestChainsAreAllFound: a cross-signed issuer gives two ways, the one that is
// valid longest first, with all issuers for revocation.
func TestChainsAreAllFound(t *testing.T) {
	older, newer := root(t, ca("Older"), "P-256"), root(t, ca("Newer"), "P-256")
	template := ca("Intermediate")
	template.NotAfter = now.AddDate(0, 0, 7)
	short := older.below(t, template)
	template.NotBefore, template.NotAfter = now.Add(-time.Minute), now.AddDate(0, 6, 0)
	long := sign(t, template, newer.cert, short.key.Public(), newer.key)
	end := leaf("worker")
	end.NotAfter = now.AddDate(0, 0, 30)
	presented := certs(short.issue(t, end), short.cert, long)

	got := verify(presented, certs(older.cert, newer.cert))
	if got.Problem != "" || len(got.Chains) != 2 {
		t.Fatalf("%d chains, %q", len(got.Chains), got.Problem)
	}
	want := [][]string{{credential.IssuerID(long), credential.IssuerID(newer.cert)}, {credential.IssuerID(long), credential.IssuerID(older.cert)}}
	if diff := cmp.Diff(want, [][]string{got.Chains[0].IssuerIDs, got.Chains[1].IssuerIDs}); diff != "" {
		t.Errorf("issuers (-want +got):\n%s", diff)
	}
	if !got.NotAfter.Equal(end.NotAfter) || !got.NotBefore.Equal(long.NotBefore) {
		t.Errorf("valid from %s to %s", got.NotBefore, got.NotAfter)
	}
	if second := got.Chains[1]; !second.NotAfter.Equal(short.cert.NotAfter) || second.Anchor != credential.Fingerprint(older.cert) {
		t.Errorf("the second ends at %s and %s", second.NotAfter, second.Anchor)
	}
	if got := verify(presented, certs(newer.cert)); len(got.Chains) != 1 {
		t.Errorf("with one root: %d chains, %q", len(got.Chains), got.Problem)
	}
}

// TestRootCounts: an intermediate of the bundle does not outlive its root there,
// and one whose root is not there is an end in itself.
func TestRootCounts(t *testing.T) {
	template := ca("Root")
	template.NotAfter = now.Add(-time.Hour)
	top := root(t, template, "P-256")
	intermediate := top.below(t, ca("Intermediate"))
	end := intermediate.issue(t, leaf("worker"))
	if got := verify(certs(end), certs(top.cert, intermediate.cert)); !strings.Contains(got.Problem, `"CN=Root", which expired at`) {
		t.Errorf("under an expired root: %q", got.Problem)
	}
	got := verify(certs(end), certs(intermediate.cert))
	if got.Problem != "" || got.Chains[0].Anchor != credential.Fingerprint(intermediate.cert) {
		t.Errorf("pinned: %+v", got)
	}
}

func TestManagedCA(t *testing.T) {
	top := root(t, ca("Operator"), "P-256")
	account := top.below(t, ca("Account"))
	id := credential.SPIFFEID("example.org", "f45a2", "sa_abcdefghijklmnop")
	managed := func(change func(*x509.Certificate)) *credential.Presented {
		template := leaf("sa_abcdefghijklmnop")
		template.BasicConstraintsValid = true
		template.URIs = append(template.URIs, uri(t, id))
		change(template)
		return credential.NewPresented(certs(account.issue(t, template), account.cert))
	}
	anchors := credential.NewAnchors(certs(account.cert))

	p := managed(func(*x509.Certificate) {})
	got := p.Verify(anchors, credential.ManagedCA, now)
	if got.Problem != "" || len(got.Chains) != 1 || got.Chains[0].Anchor != credential.Fingerprint(account.cert) {
		t.Fatalf("%+v", got)
	}
	if p.TrustDomain != "example.org" || p.Account != "f45a2" || p.ServiceAccount != "sa_abcdefghijklmnop" {
		t.Errorf("hint: %q %q %q", p.TrustDomain, p.Account, p.ServiceAccount)
	}
	for name, change := range map[string]func(*x509.Certificate){
		"another name beside": func(c *x509.Certificate) { c.DNSNames = []string{"a.example.org"} },
		"two URIs":            func(c *x509.Certificate) { c.URIs = append(c.URIs, uri(t, "urn:a")) },
		"another URI":         func(c *x509.Certificate) { c.URIs[0] = uri(t, id+"/x") },
		"no URI":              func(c *x509.Certificate) { c.URIs = nil },
		"a server's too": func(c *x509.Certificate) {
			c.ExtKeyUsage = append(c.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
		},
		"no key usage":         func(c *x509.Certificate) { c.KeyUsage = 0 },
		"no basic constraints": func(c *x509.Certificate) { c.BasicConstraintsValid = false },
	} {
		if got := managed(change).Verify(anchors, credential.ManagedCA, now); got.Problem == "" {
			t.Errorf("%s: accepted", name)
		}
	}
	template := leaf("sa_abcdefghijklmnop")
	template.BasicConstraintsValid, template.URIs = true, append(template.URIs, uri(t, id))
	strange := credential.NewPresented(certs(sign(t, template, account.cert, newKey(t, "P-521").Public(), account.key)))
	if got := strange.Verify(anchors, credential.ManagedCA, now); !strings.Contains(got.Problem, "a key that managed certificates never have") {
		t.Errorf("P-521: %q", got.Problem)
	}
	if got := p.Verify(credential.NewAnchors(certs(root(t, ca("Account"), "P-256").cert)), credential.ManagedCA, now); got.Problem == "" {
		t.Error("another account's CA is accepted")
	}
}

func TestNames(t *testing.T) {
	top := root(t, ca("Root"), "P-256")
	cert := top.cert
	if got := credential.Fingerprint(cert); len(got) != 64 || got != strings.ToLower(got) {
		t.Errorf("fingerprint %q", got)
	}
	if got := credential.FingerprintSHA1(cert); len(got) != 40 {
		t.Errorf("SHA-1 fingerprint %q", got)
	}
	if got := credential.SerialText(big.NewInt(0x0a1b)); got != "a1b" {
		t.Errorf("serial %q", got)
	}
	same := sign(t, ca("Other name"), cert, cert.PublicKey, top.key)
	if credential.IssuerID(cert) != credential.IssuerID(same) || credential.Fingerprint(cert) == credential.Fingerprint(same) {
		t.Error("one key has two issuer ids, or two certificates one fingerprint")
	}
	if p := credential.NewPresented(certs(same)); p.Fingerprint != credential.Fingerprint(same) || p.Serial != credential.SerialText(same.SerialNumber) {
		t.Errorf("%+v", p)
	}
}
