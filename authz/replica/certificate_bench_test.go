package replica_test

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/authz/replica"
)

// BenchmarkDecideCertificate decides on a certificate over an open connection,
// from its TLS state on. The floor is what every decision costs whatever the
// credential: the method's and the account's look-up and the policy's age, here
// of a namespace that is not there and an API key that is not known.
func BenchmarkDecideCertificate(b *testing.B) {
	root := newCA(b, "Root", nil, nil)
	below := newCA(b, "Below", root, nil)
	own := newCA(b, "Own", nil, nil)
	leaf := below.leaf("leaf", nil)
	leaf.certs = append(leaf.certs, below.cert)
	managed := own.managed("f45a2", "sa_1", nil)
	p := newPolicy("f45a2")
	p.mtls("ns_1", "orders")
	p.trust("ns_1", nil, root)
	p.mtls("ns_2", "filtered")
	var filters []object.CertificateFilter
	for i := range 24 {
		filters = append(filters, object.CertificateFilter{CommonName: fmt.Sprintf("other%d", i)})
	}
	p.trust("ns_2", append(filters, object.CertificateFilter{CommonName: "leaf", ServiceAccount: "sa_1"}), root)
	p.issuer(own)
	p.principal("sa_1", sallyport.ServiceAccount)
	p.grant("sa_1", sallyport.ScopeNamespace, "ns_1", "write")
	p.grant("sa_1", sallyport.ScopeNamespace, "ns_2", "write")
	header, _ := p.key("sa_1", nil)
	r := loadNamed(b, p)
	unknown := replica.CredentialFromHeader(header, netip.Addr{})
	unknown.KeyID, unknown.Hash[0] = "nothing", unknown.Hash[0]+1
	at := time.Now()
	b.Run("floor", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, known := authz.MethodNeed(start); !known {
				b.Fatal("unknown")
			}
			r.Decide(unknown, start, "orders.f45a2", at)
		}
	})
	for _, test := range []struct {
		name      string
		chain     *chain
		namespace string
		server    string
	}{
		{"customer", leaf, "orders.f45a2", ""},
		{"customer/named", leaf, "orders.f45a2", "orders.f45a2." + domain},
		{"filtered", leaf, "filtered.f45a2", ""},
		{"managed", managed, "orders.f45a2", ""},
	} {
		b.Run(test.name, func(b *testing.B) {
			b.ReportAllocs()
			connection := &tls.ConnectionState{PeerCertificates: test.chain.certs, ServerName: test.server}
			for b.Loop() {
				if d := r.Decide(r.Credential("", connection, netip.Addr{}), start, test.namespace, at); !d.Allow {
					b.Fatal(d.Reason)
				}
			}
		})
	}
	b.Run("used", func(b *testing.B) {
		b.ReportAllocs()
		connection := &tls.ConnectionState{PeerCertificates: leaf.certs}
		for b.Loop() {
			d := r.Decide(r.Credential("", connection, netip.Addr{}), start, "orders.f45a2", at)
			r.MarkUsed(d, at)
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.ReportAllocs()
		connection := &tls.ConnectionState{PeerCertificates: leaf.certs}
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				if d := r.Decide(r.Credential("", connection, netip.Addr{}), start, "orders.f45a2", at); !d.Allow {
					b.Error(d.Reason)
				}
			}
		})
	})
}

// BenchmarkFirstCall is the first call of a connection, with all signatures to
// be checked, beside crypto/x509's own Verify of the same chain: the medians.
func BenchmarkFirstCall(b *testing.B) {
	root := newCA(b, "Root", nil, nil)
	below := newCA(b, "Below", root, nil)
	leaf := below.leaf("leaf", nil)
	leaf.certs = append(leaf.certs, below.cert)
	p := newPolicy("f45a2")
	p.mtls("ns_1", "orders")
	p.trust("ns_1", nil, root)
	r := loadNamed(b, p)
	at := time.Now()
	roots := x509.NewCertPool()
	roots.AddCert(root.cert)
	connection := func(b *testing.B) []*x509.Certificate { // not the one that is known
		var certs []*x509.Certificate
		for _, c := range leaf.certs {
			parsed, err := x509.ParseCertificate(c.Raw)
			if err != nil {
				b.Fatal(err)
			}
			certs = append(certs, parsed)
		}
		return certs
	}
	var floor, ours []time.Duration
	for b.Loop() {
		certs := connection(b)
		begun := time.Now()
		between := x509.NewCertPool()
		between.AddCert(certs[1])
		if _, err := certs[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
			b.Fatal(err)
		}
		middle := time.Now()
		d := r.Decide(r.Credential("", &tls.ConnectionState{PeerCertificates: certs}, netip.Addr{}), start, "orders.f45a2", at)
		ours, floor = append(ours, time.Since(middle)), append(floor, middle.Sub(begun))
		if !d.Allow {
			b.Fatal(d.Reason)
		}
	}
	slices.Sort(floor)
	slices.Sort(ours)
	verify, first := float64(floor[len(floor)/2]), float64(ours[len(ours)/2])
	b.ReportMetric(verify, "verify-ns/op")
	b.ReportMetric(first, "ours-ns/op")
	b.ReportMetric(first/verify, "ratio")
}
