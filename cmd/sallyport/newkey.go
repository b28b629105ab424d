package main

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
)

// newKey makes a private key, and a certificate request that it signs. Of the
// request only the public key counts.
func newKey(kind string) (secret, csr []byte, err error) {
	var key crypto.Signer
	switch kind {
	case "p256":
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case "p384":
		key, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case "rsa2048":
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	case "rsa4096":
		key, err = rsa.GenerateKey(rand.Reader, 4096)
	default:
		err = fmt.Errorf("there are no keys of type %q", kind)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("making a key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, fmt.Errorf("making a key: %w", err)
	}
	request, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, nil, fmt.Errorf("making a certificate request: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: request}), nil
}

// keySource says whose key a certificate is for, and where the certificate goes.
type keySource struct {
	CSR     string `name:"csr" help:"File with a certificate request (PKCS #10, PEM or DER), whose key stays where it is." xor:"key" required:"" placeholder:"FILE"`
	KeyOut  string `help:"File for a key that is made here (mode 0600). It leaves this machine with nobody." xor:"key" required:"" placeholder:"FILE"`
	KeyType string `help:"Of that key: p256, p384, rsa2048 or rsa4096." enum:"p256,p384,rsa2048,rsa4096" default:"p256" placeholder:"p256"`
	Out     string `help:"File for the certificate and its issuer, PEM: what a TLS client presents." required:"" placeholder:"FILE"`
	Force   bool   `help:"Replace the files when they are there."`
}

// order is a certificate that is about to be asked for. The files are begun
// before, so that no certificate is made that cannot be kept.
type order struct {
	csr    []byte
	secret []byte       // nil: the key is elsewhere
	key    *pendingFile // nil: likewise
	out    *pendingFile
}

func (k keySource) start() (*order, error) {
	for _, path := range []string{k.Out, k.KeyOut} {
		if path == "" || k.Force {
			continue
		}
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%s is there already; give another file, or --force to replace it", path)
		}
	}
	if k.Out == k.KeyOut {
		return nil, errors.New("--out and --key-out are the same file; give two")
	}
	var o order
	var err error
	if k.CSR != "" {
		o.csr, err = readBounded(k.CSR)
	} else {
		o.secret, o.csr, err = newKey(k.KeyType)
	}
	if err != nil {
		return nil, err
	}
	if o.out, err = startFile(k.Out); err != nil {
		return nil, err
	}
	if k.KeyOut != "" {
		if o.key, err = startFile(k.KeyOut); err != nil {
			o.out.discard()
			return nil, err
		}
	}
	return &o, nil
}

// finish writes the key and then its certificate.
func (o *order) finish(chain []byte) error {
	if o.key != nil {
		if err := o.key.finish(string(o.secret)); err != nil {
			return err
		}
	}
	return o.out.finish(string(chain))
}

// discard removes what was not finished.
func (o *order) discard() {
	o.out.discard()
	if o.key != nil {
		o.key.discard()
	}
}
