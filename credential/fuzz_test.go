package credential_test

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/credential"
)

func FuzzClientCAs(f *testing.F) {
	top := root(f, ca("Root"), "P-256") // small seeds: what is large is minimized for long
	f.Add(bundle(top.cert))
	f.Add(bundle(top.below(f, ca("Intermediate")).cert, top.cert))
	f.Add(append(bundle(top.cert), "-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n"...))
	f.Add([]byte("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"))
	f.Add(append([]byte("\ufeffRoot\n"), bundle(top.cert)...))
	f.Fuzz(func(t *testing.T, data []byte) {
		cas, err := credential.ParseClientCAs(data)
		if err != nil {
			if sallyport.KindOf(err) != sallyport.Invalid || strings.Contains(err.Error(), "PRIVATE KEY") {
				t.Fatalf("error %v", err)
			}
			return
		}
		if len(cas) > 16 {
			t.Fatalf("%d certificates", len(cas))
		}
		again, err := credential.ParseClientCAs(bundle(cas...))
		if err != nil || len(again) != len(cas) {
			t.Fatalf("what was accepted is refused: %v", err)
		}
		credential.ClientCAWarnings(cas, now)
		for _, ca := range cas {
			if got := credential.NewPresented([]*x509.Certificate{ca}).Verify(credential.NewAnchors(cas), credential.CustomerCA, now); got.Problem == "" {
				t.Fatalf("a CA is let in as a client: %+v", got)
			}
		}
	})
}

func FuzzCSR(f *testing.F) {
	good := request(f, newKey(f, "P-256"), nil)
	f.Add(good)
	f.Add(inPEM("CERTIFICATE REQUEST", good))
	f.Add(inPEM("NEW CERTIFICATE REQUEST", request(f, newKey(f, "RSA-2048"), nil)))
	f.Add([]byte{0x30, 0x80})
	f.Fuzz(func(t *testing.T, data []byte) {
		csr, err := credential.ParseCSR(data)
		if err != nil {
			if sallyport.KindOf(err) != sallyport.Invalid || csr != nil {
				t.Fatalf("%v with error %v", csr, err)
			}
			return
		}
		if csr.CheckSignature() != nil || credential.AllowedKey(csr.PublicKey) != nil {
			t.Fatal("a request without proof or with a bad key is accepted")
		}
	})
}

// FuzzFilter compares Match with the plain way to say it.
func FuzzFilter(f *testing.F) {
	f.Add("Worker", "worker")
	f.Add("*.Example.com", "a.example.COM")
	f.Add("wörk*", "WÖRKER")
	f.Add("*", "x")
	f.Add("a*b", "a*b")
	f.Add("\xff*", "\xff")
	authority := root(f, ca("Root"), "P-256")
	f.Fuzz(func(t *testing.T, pattern, name string) {
		filter := credential.Filter{CommonName: pattern}
		if filter.Check() != nil || len(name) > 1000 || !utf8.ValidString(name) {
			return
		}
		if filter.ID() != (credential.Filter{CommonName: ascii(pattern)}).ID() {
			t.Fatalf("the id of %q depends on its case", pattern)
		}
		template := leaf(name)
		p := credential.NewPresented(certs(sign(t, template, authority.cert, authority.cert.PublicKey, authority.key)))
		if p.Problem != "" || len(p.Certificates[0].Subject.CommonName) == 0 {
			return
		}
		lower, want := ascii(pattern), ascii(p.Certificates[0].Subject.CommonName)
		if strings.ToLower(lower) != lower || strings.ToLower(want) != want {
			return // letters outside ASCII: only that it does not panic
		}
		expected := lower == want
		if suffix, ok := strings.CutPrefix(lower, "*"); ok {
			expected = strings.HasSuffix(want, suffix)
		} else if prefix, ok := strings.CutSuffix(lower, "*"); ok {
			expected = strings.HasPrefix(want, prefix)
		}
		if got := filter.Match(p); got != expected {
			t.Fatalf("%q and %q: got %v", pattern, want, got)
		}
	})
}

// ascii lowers the case of ASCII letters.
func ascii(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}

// FuzzChain presents what it is given under good anchors and under itself.
func FuzzChain(f *testing.F) {
	top := root(f, ca("Root"), "P-256")
	intermediate := top.below(f, ca("Intermediate"))
	end := leaf("worker")
	end.URIs = append(end.URIs, uri(f, "spiffe://example.org/account/f45a2/service-account/sa_a"))
	f.Add(bundle(intermediate.issue(f, end), intermediate.cert))
	f.Add(intermediate.issue(f, end).Raw)
	f.Add(file(f, "openssl-v1-leaf.pem"))
	f.Add(file(f, "openssl-old-leaf.pem"))
	good := credential.NewAnchors(certs(top.cert, intermediate.cert))
	f.Fuzz(func(t *testing.T, data []byte) {
		chain, err := credential.ParseChain(data)
		if err != nil {
			if sallyport.KindOf(err) != sallyport.Invalid {
				t.Fatalf("error %v", err)
			}
			return
		}
		p := credential.NewPresented(chain)
		filter := credential.Filter{CommonName: "worker*"}
		filter.Match(p)
		for _, anchors := range []*credential.Anchors{nil, good, credential.NewAnchors(chain)} {
			for _, profile := range []credential.Profile{credential.CustomerCA, credential.ManagedCA} {
				got := p.Verify(anchors, profile, now)
				if (got.Problem == "") != (len(got.Chains) > 0) {
					t.Fatalf("%d chains and problem %q", len(got.Chains), got.Problem)
				}
				for _, c := range got.Chains {
					if !c.Certificates[0].Equal(chain[0]) || c.Certificates[0].IsCA || now.Before(c.NotBefore) || now.After(c.NotAfter) {
						t.Fatalf("chain %+v", c)
					}
				}
			}
		}
	})
}

// TestPathological: the worst that fits into what may be presented ends soon,
// since the number of signatures that are checked is bounded.
func TestPathological(t *testing.T) {
	// 16 CAs of one name and no key identifiers: each may have issued the other.
	var cas []*x509.Certificate
	var keys []issuer
	for range 16 {
		i := root(t, unmarked("Same"), "P-256")
		keys = append(keys, i)
		cas = append(cas, i.cert)
	}
	end := sign(t, leaf("worker"), withoutID(cas[15]), newKey(t, "P-256").Public(), keys[15].key)
	if got := verify(certs(end), cas); got.Problem != "" {
		t.Errorf("the last of 16 namesakes is not found: %s", got.Problem)
	}
	// A chain of CAs that all have a namesake, of which none leads anywhere.
	chain := certs(end)
	for _, name := range []string{"A", "B", "C", "D"} {
		for range 2 {
			chain = append(chain, keys[0].below(t, unmarked(name)).cert)
		}
	}
	stranger := root(t, unmarked("Same"), "P-256")
	chain[0] = sign(t, leaf("worker"), withoutID(stranger.cert), newKey(t, "P-256").Public(), stranger.key)
	if got := verify(chain, cas); !strings.Contains(got.Problem, "which did not sign it") {
		t.Errorf("%q", got.Problem)
	}
	// A bundle of 16 namesakes of which 15 are no roots: 16 × 16 signatures at most.
	list := certs(cas[0])
	for len(list) < 16 {
		template := unmarked("Same")
		template.SerialNumber = big.NewInt(int64(len(list)))
		list = append(list, sign(t, template, withoutID(cas[0]), newKey(t, "P-256").Public(), keys[0].key))
	}
	if _, err := credential.ParseClientCAs(bundle(list...)); err != nil {
		t.Error(err)
	}
	if _, err := credential.ParseClientCAs(bundle(list[1:]...)); err == nil {
		t.Error("a bundle without its root is accepted")
	}
	if _, err := credential.ParseClientCAs(bytes.Repeat([]byte("-----BEGIN "), 2900)); err == nil {
		t.Error("beginnings alone are accepted")
	}
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: bytes.Repeat([]byte{0x30, 0x80}, 10000)})
	if _, err := credential.ParseChain(block); err == nil {
		t.Error("deep nesting is accepted")
	}
}

// unmarked is a CA's template without a key identifier of its own.
func unmarked(name string) *x509.Certificate {
	template := ca(name)
	template.SubjectKeyId = []byte{1} // the same for all
	return template
}

// withoutID is a parent whose children name no key.
func withoutID(cert *x509.Certificate) *x509.Certificate {
	parent := *cert
	parent.SubjectKeyId = nil
	return &parent
}
