package clientca

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	mathrand "math/rand/v2"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/credential"
)

func selfSigned(t testing.TB, serial int64) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), NotAfter: time.Now().Add(time.Hour), Subject: pkix.Name{CommonName: fmt.Sprint(serial)},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// FuzzBundle: whatever the bytes, taking out nothing changes nothing, and what is
// taken out is gone with its bytes alone. Of what is accepted every certificate is found.
func FuzzBundle(f *testing.F) {
	one, two := selfSigned(f, 1), selfSigned(f, 2)
	f.Add(bytes.Join([][]byte{one, two}, []byte("\n\r\n")))
	f.Add(bytes.TrimSpace(bytes.Join([][]byte{[]byte("text\n-----BEGIN "), one, two}, nil)))
	f.Add(one)
	f.Add(bytes.Join([][]byte{[]byte("\ufeff"), one, []byte("CN=two\n"), two}, nil))
	f.Fuzz(func(t *testing.T, bundle []byte) {
		if len(bundle) > 64<<10 {
			return
		}
		all := entries(bundle)
		if got := without(bundle, func(*x509.Certificate) bool { return false }); !bytes.Equal(got, bundle) {
			t.Errorf("without none: %q, want %q", got, bundle)
		}
		end := 0
		for _, e := range all {
			if e.start < end || e.end <= e.start || e.end > len(bundle) {
				t.Fatalf("an entry from %d to %d after %d", e.start, e.end, end)
			}
			end = e.end
		}
		if cas, err := credential.ParseClientCAs(bundle); err == nil {
			if len(cas) != len(all) {
				t.Fatalf("%d of %d certificates were found in %q", len(all), len(cas), bundle)
			}
			for i, e := range all {
				if !e.cert.Equal(cas[i]) {
					t.Errorf("certificate %d is another one in %q", i, bundle)
				}
			}
		}
		if len(all) == 0 {
			return
		}
		first := all[0]
		got := without(bundle, func(c *x509.Certificate) bool { return c == first.cert || c.Equal(first.cert) })
		for _, e := range entries(got) {
			if e.cert.Equal(first.cert) {
				t.Errorf("it is still there: %q", got)
			}
		}
		longer := appended(bundle, one)
		if !bytes.HasPrefix(longer, bundle) || !bytes.HasSuffix(longer, one) {
			t.Errorf("appended: %q", longer)
		}
	})
}

func FuzzText(f *testing.F) {
	f.Add("CN=ü\x00\x1b\u202e\xff", 10)
	f.Fuzz(func(t *testing.T, s string, most int) {
		most = 8 + most&0xff
		if got := text(s, most); len(got) > most || !utf8.ValidString(got) || bytes.ContainsAny([]byte(got), "\x00\n\x1b") {
			t.Errorf("text(%q, %d) = %q", s, most, got)
		}
	})
}

// TestPendingIsBounded: counts stay right, and a flood of strangers leaves room.
func TestPendingIsBounded(t *testing.T) {
	t.Parallel()
	p := newPendingSeen()
	random := mathrand.New(mathrand.NewPCG(1, 2))
	at := time.Date(2030, 1, 2, 3, 4, 0, 0, time.UTC)
	for range 20_000 {
		use := Use{Account: "aaaaa", Namespace: "ns_a", Fingerprint: fmt.Sprint(random.IntN(2000)), At: at.Add(time.Duration(random.IntN(5)) * time.Minute)}
		if random.IntN(2) == 0 {
			use.Refused = "no"
		}
		if random.IntN(3) == 0 {
			use.Chain = [][]byte{make([]byte, random.IntN(3000))}
		}
		p.add(use)
	}
	refused, bytes := 0, 0
	for key, use := range p.uses {
		if bytes += size(use.Chain); key.refused {
			refused++
		}
	}
	if p.refused != refused || p.bytes != bytes || refused > 2000 || len(p.uses)-refused > 2000 {
		t.Errorf("counted %d refused and %d bytes, of %d uses; want %d and %d of 2000 and 2000", p.refused, p.bytes, len(p.uses), refused, bytes)
	}
	for i := range 2 * maxPendingRefused {
		p.add(Use{Account: "aaaaa", Namespace: "ns_a", Fingerprint: fmt.Sprint("stranger ", i), At: at, Refused: "no", Chain: [][]byte{make([]byte, 8<<10)}})
	}
	if p.refused > maxPendingRefused || p.bytes > maxPendingBytes {
		t.Errorf("%d refused, %d bytes", p.refused, p.bytes)
	}
	p.add(Use{Account: "aaaaa", Namespace: "ns_a", Fingerprint: "good", At: at})
	if _, ok := p.uses[seenKey{sallyport.AccountID("aaaaa"), "ns_a", "good", false}]; !ok {
		t.Error("strangers left no room for a good one")
	}
	if n := len(p.take()); n == 0 || len(p.uses) != 0 || p.bytes != 0 || p.refused != 0 {
		t.Errorf("took %d and left %d", n, len(p.uses))
	}
}
