package credential_test

import (
	"bytes"
	"crypto"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/credential"
)

// request makes a request in DER.
func request(t testing.TB, key crypto.Signer, change func(*x509.CertificateRequest)) []byte {
	t.Helper()
	template := &x509.CertificateRequest{Subject: pkix.Name{CommonName: "root"}, DNSNames: []string{"example.com"}}
	if change != nil {
		change(template)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// withKey puts another key into a request, whose signature is then wrong.
func withKey(t testing.TB, der []byte, pub any) []byte {
	t.Helper()
	var csr struct {
		Body struct {
			Version    int
			Subject    asn1.RawValue
			Key        asn1.RawValue
			Attributes asn1.RawValue
		}
		Algorithm asn1.RawValue
		Signature asn1.BitString
	}
	if _, err := asn1.Unmarshal(der, &csr); err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		t.Fatal(err)
	}
	csr.Body.Key = asn1.RawValue{FullBytes: key}
	made, err := asn1.Marshal(csr)
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func inPEM(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// rsaOf is a public key that nobody has, of so many bits.
func rsaOf(bits uint, exponent int) *rsa.PublicKey {
	n := new(big.Int).Lsh(big.NewInt(1), bits-1)
	return &rsa.PublicKey{N: n.SetBit(n, 0, 1), E: exponent}
}

func TestParseCSR(t *testing.T) {
	p256 := newKey(t, "P-256")
	rsa2048 := newKey(t, "RSA-2048")
	good := request(t, p256, nil)
	forged := bytes.Clone(good)
	forged[len(forged)-1] ^= 1
	md5 := bytes.Replace(request(t, rsa2048, nil), []byte{0xf7, 0x0d, 1, 1, 11}, []byte{0xf7, 0x0d, 1, 1, 4}, 1)
	tests := []struct {
		name string
		data []byte
		want string
	}{
		{"PEM", inPEM("CERTIFICATE REQUEST", good), ""},
		{"PEM as old tools name it", append([]byte("\n"), inPEM("NEW CERTIFICATE REQUEST", good)...), ""},
		{"DER", good, ""},
		{"P-384", request(t, newKey(t, "P-384"), nil), ""},
		{"RSA-2048", request(t, rsa2048, nil), ""},
		{"asking for a CA: only the key counts", request(t, p256, func(r *x509.CertificateRequest) {
			r.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 19}, Critical: true, Value: []byte{0x30, 3, 1, 1, 0xff}}}
		}), ""},
		{"nothing", []byte(" \n"), "the certificate request is empty"},
		{"huge", bytes.Repeat([]byte{0x30}, 16<<10+1), "the certificate request has 16385 bytes; at most 16384 are possible"},
		{"text", []byte("hello"), "the certificate request is neither PEM nor DER"},
		{"text before", append([]byte("Certificate Request:\n"), inPEM("CERTIFICATE REQUEST", good)...), "the certificate request is neither PEM nor DER"},
		{"text after", append(inPEM("CERTIFICATE REQUEST", good), "x"...), "there is something after the certificate request"},
		{"two", bytes.Repeat(inPEM("CERTIFICATE REQUEST", good), 2), "there is something after the certificate request"},
		{"a private key", inPEM("PRIVATE KEY", good), "send the request, and never a private key"},
		{"a certificate", inPEM("CERTIFICATE REQUEST", root(t, ca("Root"), "P-256").cert.Raw), "this is not a PKCS #10 certificate request"},
		{"DER and more", append(bytes.Clone(good), 0), "this is not a PKCS #10 certificate request"},
		{"another's signature", forged, "the certificate request is not signed by the key in it"},
		{"another's key", withKey(t, good, newKey(t, "P-256").Public()), "the certificate request is not signed by the key in it"},
		{"P-224", request(t, newKey(t, "P-224"), nil), "has an ECDSA key on the curve P-224; P-256 and P-384 are possible"},
		{"P-521", request(t, newKey(t, "P-521"), nil), "has an ECDSA key on the curve P-521; P-256 and P-384 are possible"},
		{"Ed25519", request(t, newKey(t, "Ed25519"), nil), "has a key that is neither ECDSA nor RSA"},
		{"RSA-1024", request(t, newKey(t, "RSA-1024"), nil), "has an RSA key of 1024 bits; at least 2048 are needed"},
		{"RSA-8192", withKey(t, good, rsaOf(8192, 65537)), "has an RSA key of 8192 bits; at most 4096 are possible"},
		{"RSA-30000", withKey(t, good, rsaOf(30000, 65537)), "has an RSA key of 30000 bits; at most 8192 are possible"},
		{"exponent 1", withKey(t, good, rsaOf(2048, 1)), "its exponent or modulus is impossible"},
		{"exponent 3", withKey(t, good, rsaOf(2048, 3)), "has an RSA key with the exponent 3; at least 65537 is needed"},
		{"MD5", md5, "the certificate request is signed with MD5-RSA; sign it with SHA-256 or stronger"},
		{"SHA-1", request(t, p256, func(r *x509.CertificateRequest) { r.SignatureAlgorithm = x509.ECDSAWithSHA1 }), "the certificate request is signed with ECDSA-SHA1"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			csr, err := credential.ParseCSR(test.data)
			switch {
			case test.want == "" && (err != nil || csr == nil):
				t.Errorf("refused: %v", err)
			case test.want != "" && (csr != nil || sallyport.KindOf(err) != sallyport.Invalid || !strings.Contains(err.Error(), test.want)):
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

func TestAllowedKey(t *testing.T) {
	even := rsaOf(2048, 65537)
	even.N.SetBit(even.N, 0, 0)
	for _, pub := range []any{newKey(t, "P-256").Public(), newKey(t, "P-384").Public(), rsaOf(2048, 65537), rsaOf(3072, 65537), rsaOf(4096, 1<<31-1)} {
		if err := credential.AllowedKey(pub); err != nil {
			t.Errorf("%T: %v", pub, err)
		}
	}
	for _, pub := range []any{nil, "key", newKey(t, "P-521").Public(), newKey(t, "Ed25519").Public(), rsaOf(2047, 65537), rsaOf(2049, 65537), rsaOf(4104, 65537), rsaOf(2048, 65536), even, elliptic.P256()} {
		if err := credential.AllowedKey(pub); sallyport.KindOf(err) != sallyport.Invalid {
			t.Errorf("%T: %v", pub, err)
		}
	}
}
