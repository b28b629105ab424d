package credential_test

import (
	"crypto/x509"
	"testing"
	"time"

	"github.com/sallyport-iam/sallyport/credential"
)

// chainOfThree is a leaf and an intermediate as presented, and the root.
func chainOfThree(b *testing.B) (presented []*x509.Certificate, top *x509.Certificate) {
	b.Helper()
	authority := root(b, ca("Root"), "P-256")
	intermediate := authority.below(b, ca("Intermediate"))
	end := leaf("worker-1.example.com")
	end.DNSNames = []string{"worker-1.example.com"}
	return certs(intermediate.issue(b, end), intermediate.cert), authority.cert
}

// BenchmarkVerify is what a new connection costs beside crypto/x509 alone, as
// crypto/tls calls it, measured in turns. The ratio is the sum of ours by theirs.
func BenchmarkVerify(b *testing.B) {
	presented, top := chainOfThree(b)
	anchors := credential.NewAnchors(certs(top))
	roots := x509.NewCertPool()
	roots.AddCert(top)
	var theirs, ours time.Duration
	b.ReportAllocs()
	for b.Loop() {
		start := time.Now()
		intermediates := x509.NewCertPool()
		intermediates.AddCert(presented[1])
		_, err := presented[0].Verify(x509.VerifyOptions{
			Roots: roots, Intermediates: intermediates, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		})
		between := time.Now()
		got := credential.NewPresented(presented).Verify(anchors, credential.CustomerCA, now)
		ours += time.Since(between)
		theirs += between.Sub(start)
		if err != nil || got.Problem != "" {
			b.Fatal(err, got.Problem)
		}
	}
	b.ReportMetric(float64(theirs.Nanoseconds())/float64(b.N), "x509-ns/op")
	b.ReportMetric(float64(ours.Nanoseconds())/float64(b.N), "ours-ns/op")
	b.ReportMetric(float64(ours)/float64(theirs), "ratio")
}

// BenchmarkNewPresented is the part of it that reads names and judges certificates.
func BenchmarkNewPresented(b *testing.B) {
	presented, _ := chainOfThree(b)
	b.ReportAllocs()
	for b.Loop() {
		credential.NewPresented(presented)
	}
}

// BenchmarkFilterMatch is part of each call.
func BenchmarkFilterMatch(b *testing.B) {
	presented, _ := chainOfThree(b)
	p := credential.NewPresented(presented)
	filters := []credential.Filter{{CommonName: "other*"}, {CommonName: "worker-*", Organization: "example", SubjectAlternativeName: "*.example.com"}}
	b.ReportAllocs()
	for b.Loop() {
		if filters[0].Match(p) || !filters[1].Match(p) {
			b.Fatal("the wrong one matches")
		}
	}
}
