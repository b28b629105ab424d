package serve

import (
	"crypto/tls"
	"fmt"
	"os"
	"sync"
	"time"
)

// recheck is how often the certificate's files are looked at for a new one.
const recheck = 10 * time.Second

// FileTLS is a server's TLS configuration from PEM files. A renewed
// certificate is taken up within seconds, without a restart; while the files
// do not fit together the one before stays in use. Clients are asked for a
// certificate and may have none: what it is worth is found out for each call,
// so that a bad one is answered with a reason and not with an alert.
func FileTLS(certFile, keyFile string, now func() time.Time) (*tls.Config, error) {
	f := &fileCertificate{certFile: certFile, keyFile: keyFile}
	if err := f.load(); err != nil {
		return nil, err
	}
	f.checked = now()
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"h2", "http/1.1"},
		ClientAuth: tls.RequestClientCert,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return f.get(now()), nil
		},
	}, nil
}

type fileCertificate struct {
	certFile, keyFile string

	mu       sync.Mutex
	cert     *tls.Certificate
	modified time.Time // the newer of both files
	checked  time.Time
}

func (f *fileCertificate) get(now time.Time) *tls.Certificate {
	f.mu.Lock()
	defer f.mu.Unlock()
	if now.Sub(f.checked) >= recheck {
		f.checked = now
		if modified, err := f.stat(); err == nil && !modified.Equal(f.modified) {
			_ = f.load() // keeps the certificate that it has
		}
	}
	return f.cert
}

func (f *fileCertificate) stat() (time.Time, error) {
	var newest time.Time
	for _, name := range []string{f.certFile, f.keyFile} {
		info, err := os.Stat(name)
		if err != nil {
			return newest, err
		}
		if info.ModTime().After(newest) {
			newest = info.ModTime()
		}
	}
	return newest, nil
}

func (f *fileCertificate) load() error {
	modified, err := f.stat()
	if err != nil {
		return fmt.Errorf("reading the TLS certificate: %w", err)
	}
	cert, err := tls.LoadX509KeyPair(f.certFile, f.keyFile)
	if err != nil {
		return fmt.Errorf("reading the TLS certificate: %w", err)
	}
	f.cert, f.modified = &cert, modified
	return nil
}
