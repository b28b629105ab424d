package serve

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// DevCertificate is where a development CA keeps its files.
type DevCertificate struct {
	CAFile   string // what clients trust
	CertFile string
	KeyFile  string
}

const (
	devCALife     = 10 * 365 * 24 * time.Hour
	devServerLife = 90 * 24 * time.Hour
	devRenewAt    = 30 * 24 * time.Hour // left
)

// DevCA makes a certificate authority under dir, unless there is one, and a
// server certificate for localhost, 127.0.0.1 and ::1, renewed when it ends
// within thirty days. The authority is constrained to these names: whoever
// trusts it trusts it for nothing else.
func DevCA(dir string, now time.Time) (DevCertificate, error) {
	files := DevCertificate{filepath.Join(dir, "ca.pem"), filepath.Join(dir, "server.pem"), filepath.Join(dir, "server-key.pem")}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return files, fmt.Errorf("making the development CA: %w", err)
	}
	caKeyFile := filepath.Join(dir, "ca-key.pem")
	ca, caKey, err := readPair(files.CAFile, caKeyFile)
	made := false
	if errors.Is(err, fs.ErrNotExist) || err == nil && now.Add(devServerLife).After(ca.NotAfter) {
		ca, caKey, err = makeCA(files.CAFile, caKeyFile, now)
		made = true
	}
	if err != nil {
		return files, fmt.Errorf("the development CA in %s: %w; remove the folder to have a new one", dir, err)
	}
	server, _, err := readPair(files.CertFile, files.KeyFile)
	if !made && err == nil && server.NotAfter.Sub(now) > devRenewAt && server.CheckSignatureFrom(ca) == nil {
		return files, nil
	}
	if err := makeServer(files, ca, caKey, now); err != nil {
		return files, fmt.Errorf("making the development server's certificate: %w", err)
	}
	return files, nil
}

func makeCA(certFile, keyFile string, now time.Time) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	loopback := []*net.IPNet{
		{IP: net.IPv4(127, 0, 0, 0).To4(), Mask: net.CIDRMask(8, 32)},
		{IP: net.IPv6loopback, Mask: net.CIDRMask(128, 128)},
	}
	template := &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "Sallyport development CA"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(devCALife),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage:                    x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		PermittedDNSDomainsCritical: true, PermittedDNSDomains: []string{"localhost"}, PermittedIPRanges: loopback,
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	cert, err := writePair(certFile, keyFile, template, nil, key, key)
	return cert, key, err
}

func makeServer(files DevCertificate, ca *x509.Certificate, caKey *ecdsa.PrivateKey, now time.Time) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	_, err = writePair(files.CertFile, files.KeyFile, &x509.Certificate{
		SerialNumber: serial(), Subject: pkix.Name{CommonName: "localhost"},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(devServerLife),
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:              []string{"localhost"},
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	}, ca, key, caKey)
	return err
}

// writePair signs the template (by itself when parent is nil) and writes
// certificate and key.
func writePair(certFile, keyFile string, template, parent *x509.Certificate, key, signer *ecdsa.PrivateKey) (*x509.Certificate, error) {
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		return nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	if err := writePEM(keyFile, "PRIVATE KEY", keyDER); err != nil {
		return nil, err
	}
	if err := writePEM(certFile, "CERTIFICATE", der); err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// writePEM replaces the file in one step: a crash leaves the old or the new one.
func writePEM(name, kind string, der []byte) error {
	temp := name + ".new"
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.WriteFile(temp, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		return err
	}
	return os.Rename(temp, name)
}

func readPair(certFile, keyFile string) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	certDER, err := readPEM(certFile, "CERTIFICATE")
	if err != nil {
		return nil, nil, err
	}
	keyDER, err := readPEM(keyFile, "PRIVATE KEY")
	if err != nil {
		return nil, nil, err
	}
	cert, err := x509.ParseCertificate(certDER)
	if err != nil {
		return nil, nil, err
	}
	key, err := x509.ParsePKCS8PrivateKey(keyDER)
	if err != nil {
		return nil, nil, err
	}
	private, ok := key.(*ecdsa.PrivateKey)
	if !ok || !private.PublicKey.Equal(cert.PublicKey) {
		return nil, nil, fmt.Errorf("%s is not the key of %s", keyFile, certFile)
	}
	return cert, private, nil
}

func readPEM(name, kind string) ([]byte, error) {
	data, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(data)
	if block == nil || block.Type != kind {
		return nil, fmt.Errorf("%s is not a PEM file with a %s", name, kind)
	}
	return block.Bytes, nil
}

// serial is 128 random bits: unique, positive.
func serial() *big.Int {
	var b [16]byte
	rand.Read(b[:])
	b[0] &= 0x7f
	return new(big.Int).SetBytes(b[:])
}
