package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/credential"
)

// maxFile bounds what is read of certificates, requests and bundles: 64 KB are
// the most that is taken.
const maxFile = 1 << 20

func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, maxFile)
	}
	return data, nil
}

// pair reads the profile's client certificate and key, and the account that the
// certificate is of.
func (p profile) pair() (tls.Certificate, sallyport.AccountID, error) {
	pair, err := loadPair(p.Certificate, p.PrivateKey)
	if err != nil {
		return pair, "", err
	}
	_, account, _, ok := spiffe(pair.Leaf)
	if !ok {
		return pair, "", fmt.Errorf("%s names no service account: to log in, use a certificate of the managed CA (`sallyport cert issue`); a certificate of one's own CA is for namespaces only", p.Certificate)
	}
	return pair, account, nil
}

// spiffe is the service account that the certificate says to be.
func spiffe(leaf *x509.Certificate) (trustDomain string, account sallyport.AccountID, serviceAccount string, ok bool) {
	if len(leaf.URIs) != 1 {
		return "", "", "", false
	}
	return credential.ParseSPIFFEID(leaf.URIs[0].String())
}

// loadPair reads a certificate and its key, again when they do not fit: they may
// be replaced between the one and the other.
func loadPair(cert, key string) (tls.Certificate, error) {
	const attempts = 5
	for attempt := 1; ; attempt++ {
		chain, err := readBounded(cert)
		if err != nil {
			return tls.Certificate{}, fmt.Errorf("reading the certificate: %w", err)
		}
		secret, err := readBounded(key)
		if err != nil {
			return tls.Certificate{}, fmt.Errorf("reading the certificate's key: %w", err)
		}
		pair, err := tls.X509KeyPair(chain, secret)
		if err == nil {
			return pair, nil
		}
		if attempt == attempts {
			return pair, errors.New(cert + " and " + key + " are no certificate and its key: " + err.Error())
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// chainPEM writes certificates as PEM.
func chainPEM(chain [][]byte) []byte {
	var text []byte
	for _, der := range chain {
		text = append(text, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	return text
}
