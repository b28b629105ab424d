package credential_test

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/credential"
)

func TestParseClientCAs(t *testing.T) {
	top := root(t, ca("Root"), "P-256")
	middle := top.below(t, ca("Middle"))
	low := middle.below(t, ca("Low"))
	crossed := func() (a, b *x509.Certificate) { // each issued the other: a circle with no root
		first, second := root(t, ca("A"), "P-256"), root(t, ca("B"), "P-256")
		return sign(t, ca("A"), second.cert, first.key.Public(), second.key), sign(t, ca("B"), first.cert, second.key.Public(), first.key)
	}
	circleA, circleB := crossed()
	forged := root(t, ca("Root"), "P-256")
	tampered := bytes.Clone(top.cert.Raw)
	tampered[len(tampered)-1] ^= 1
	expired := ca("Expired")
	expired.NotBefore, expired.NotAfter = now.AddDate(-2, 0, 0), now.AddDate(-1, 0, 0)
	notCA := leaf("worker")
	serving := ca("Serving")
	serving.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	unsigning := ca("Unsigning")
	unsigning.KeyUsage = x509.KeyUsageCRLSign
	var many []*x509.Certificate
	for range 17 {
		many = append(many, root(t, ca("Many"), "P-256").cert)
	}
	one := bundle(top.cert)
	key := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("secret")})
	tests := []struct {
		name   string
		bundle []byte
		count  int
		want   string // of the error
	}{
		{"nothing", nil, 0, ""},
		{"spaces", []byte(" \n"), 0, ""},
		{"a root", one, 1, ""},
		{"with CRLF and empty lines", bytes.ReplaceAll(append([]byte("\n"), one...), []byte("\n"), []byte("\r\n")), 1, ""},
		{"in any order", bundle(low.cert, middle.cert, top.cert), 3, ""},
		{"16 of one name", bundle(many[:16]...), 16, ""},
		{"an expired one", bundle(root(t, expired, "P-256").cert), 1, ""},
		{"17", bundle(many...), 0, "there are more than 16 certificates"},
		{"too large", bytes.Repeat([]byte("\n"), 32<<10+1), 0, "the bundle has 32769 bytes; at most 32768 are possible"},
		{"twice", bundle(top.cert, top.cert), 0, "certificate 2 is the same as certificate 1"},
		{"no root", bundle(middle.cert), 0, `certificate 1 does not lead to a root in the bundle; add its issuer "CN=Root"`},
		{"a gap", bundle(top.cert, low.cert), 0, `certificate 2 does not lead to a root in the bundle; add its issuer "CN=Middle"`},
		{"issuer there, but no root above it", bundle(low.cert, middle.cert), 0, "certificate 1 does not lead to a root"},
		{"a circle", bundle(circleA, circleB), 0, "certificate 1 does not lead to a root"},
		{"a root's namesake", bundle(middle.cert, forged.cert), 0, "certificate 1 does not lead to a root"},
		{"a root with a bad signature", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: tampered}), 0, "certificate 1 names itself as its issuer, but is not signed by its own key"},
		{"no CA", bundle(top.cert, top.issue(t, notCA)), 0, "certificate 2 is not a CA"},
		{"for servers", bundle(root(t, serving, "P-256").cert), 0, "certificate 1 is for other uses than client authentication"},
		{"may not sign", bundle(unsigned(t, unsigning)), 0, "certificate 1 may not sign certificates"},
		{"a weak key", bundle(root(t, ca("Weak"), "RSA-1024").cert), 0, "certificate 1 has an RSA key of 1024 bits"},
		{"Ed25519", bundle(root(t, ca("Ed25519"), "Ed25519").cert), 0, "certificate 1 is signed with Ed25519"},
		{"SHA-1", bundle(func() *x509.Certificate {
			template := ca("SHA-1")
			template.SignatureAlgorithm = x509.ECDSAWithSHA1
			return root(t, template, "P-256").cert
		}()), 0, "certificate 1 is signed with ECDSA-SHA1"},
		{"a private key", append(bytes.Clone(one), key...), 0, "block 2 is not a certificate; send certificates only, and never a private key"},
		{"text before", append([]byte("Root\n"), one...), 1, ""},
		{"text between and after", slices.Concat([]byte("Certificate:\n\tVersion: 3 (0x2)\r\n"), one, []byte("# Müller & Söhne\n"), bundle(middle.cert), []byte("----- the end -----")), 2, ""},
		{"a byte order mark", slices.Concat([]byte("\ufeff"), one, []byte("\ufeff"), bundle(middle.cert)), 2, ""},
		{"text alone", []byte("Root\n"), 0, "there is no certificate"},
		{"text before the beginning on its line", append([]byte("x "), one...), 0, "certificate 1 is not well-formed PEM"},
		{"text after the end on its line", slices.Concat(bytes.TrimSpace(one), []byte("x\n")), 0, "certificate 1 is not well-formed PEM"},
		{"an end too many", append(bytes.Clone(one), "-----END CERTIFICATE-----\n"...), 0, "certificate 2 is not well-formed PEM"},
		{"an end before", append([]byte("-----END CERTIFICATE-----\n"), one...), 0, "certificate 1 is not well-formed PEM"},
		{"a beginning too many", append(bytes.Clone(one), "-----BEGIN CERTIFICATE-----\nAAAA\n"...), 0, "certificate 2 is not well-formed PEM"},
		{"a beginning without its space", append([]byte("-----BEGIN-----\n"), one...), 0, "certificate 1 is not well-formed PEM"},
		{"a beginning in a header", bytes.Replace(one, []byte("-----\n"), []byte("-----\nProc-Type: -----BEGIN\n\n"), 1), 0, "certificate 1 is not well-formed PEM"},
		{"an escape sequence", append([]byte("\x1b[2J\n"), one...), 0, "there are control characters after 0 certificates"},
		{"a control character beyond ASCII", append(bytes.Clone(one), "\u009b2J\n"...), 0, "there are control characters after 1 certificates"},
		{"a zero", append(bytes.Clone(one), 0), 0, "there are control characters after 1 certificates"},
		{"a revocation list", append(bytes.Clone(one), pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: []byte("crl")})...), 0, "block 2 is not a certificate"},
		{"a trusted certificate of openssl's", pem.EncodeToMemory(&pem.Block{Type: "TRUSTED CERTIFICATE", Bytes: top.cert.Raw}), 0, "block 1 is not a certificate"},
		{"DER", top.cert.Raw, 0, "there are control characters after 0 certificates"},
		{"cut off", one[:len(one)-10], 0, "certificate 1 is not well-formed PEM"},
		{"a broken block before a good one", append([]byte("-----BEGIN CERTIFICATE-----\n"), one...), 0, "certificate 1 is not well-formed PEM"},
		{"no X.509", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("hello")}), 0, "certificate 1 cannot be read as X.509"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := credential.ParseClientCAs(test.bundle)
			if test.want == "" {
				if err != nil || len(got) != test.count {
					t.Fatalf("%d certificates and %v, want %d", len(got), err, test.count)
				}
				return
			}
			var known *sallyport.Error
			if !asError(err, &known) || known.Kind != sallyport.Invalid || known.Field != "" || !strings.Contains(known.Msg, test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

// unsigned makes a self-signed certificate whose key usage does not let it.
func unsigned(t *testing.T, template *x509.Certificate) *x509.Certificate {
	t.Helper()
	key := newKey(t, "P-256")
	return sign(t, template, template, key.Public(), key)
}

func TestParseChain(t *testing.T) {
	top := root(t, ca("Root"), "P-256")
	end := top.issue(t, leaf("worker"))
	one := bundle(end)
	many := bytes.Repeat(one, 11)
	tests := []struct {
		name  string
		data  []byte
		count int
		want  string
	}{
		{"PEM", bundle(end, top.cert), 2, ""},
		{"text between, as openssl writes it", append([]byte("subject=CN = worker\n"), bundle(end, top.cert)...), 2, ""},
		{"a byte order mark", append([]byte("\ufeff"), one...), 1, ""},
		{"DER", end.Raw, 1, ""},
		{"nothing", nil, 0, "there is no certificate"},
		{"no PEM", []byte("hello"), 0, "there is no certificate"},
		{"DER and more", append(bytes.Clone(end.Raw), 0), 0, "certificate 1 cannot be read as X.509"},
		{"11", many, 0, "there are more than 10 certificates"},
		{"too large", bytes.Repeat([]byte("x"), 64<<10+1), 0, "the certificates have 65537 bytes; at most 65536 are possible"},
		{"a key", append(bytes.Clone(one), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: []byte("secret")})...), 0, "block 2 is not a certificate; send certificates only, and never a private key"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := credential.ParseChain(test.data)
			if len(got) != test.count || (err == nil) != (test.want == "") || err != nil && !strings.Contains(err.Error(), test.want) {
				t.Errorf("%d certificates and %v, want %d and %q", len(got), err, test.count, test.want)
			}
			if err != nil && sallyport.KindOf(err) != sallyport.Invalid {
				t.Errorf("kind %q", sallyport.KindOf(err))
			}
		})
	}
}

func TestClientCAWarnings(t *testing.T) {
	var cas []*x509.Certificate
	for _, left := range []time.Duration{-time.Second, 15*24*time.Hour - time.Second, 15 * 24 * time.Hour} {
		template := ca("Root")
		template.NotAfter = now.Add(left)
		cas = append(cas, root(t, template, "P-256").cert)
	}
	got := credential.ClientCAWarnings(cas, now)
	if len(got) != 2 || !strings.Contains(got[0], `client CA certificate 1 ("CN=Root") expired at 2027-01-02T03:04:04Z`) || !strings.Contains(got[1], `client CA certificate 2 ("CN=Root") expires at`) {
		t.Errorf("%q", got)
	}
}
