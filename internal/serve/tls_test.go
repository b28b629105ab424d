package serve_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/sallyport-iam/sallyport/api/sallyport/admin/v1"
	"github.com/sallyport-iam/sallyport/internal/serve"
)

func TestDevCA(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "tls")
	now := time.Now()
	files, err := serve.DevCA(dir, now)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"ca-key.pem", "server-key.pem"} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != 0o600 {
			t.Errorf("%s has mode %o, want 600", name, got)
		}
	}
	ca, err := os.ReadFile(files.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	config, err := serve.FileTLS(files.CertFile, files.KeyFile, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	answer := service{explain: func(context.Context, *adminv1.ExplainRequest) (*adminv1.ExplainResponse, error) {
		return &adminv1.ExplainResponse{}, nil
	}}
	for _, name := range []string{"localhost", "127.0.0.1", "::1"} {
		client, _ := start(t, newServer(t, serve.Config{}), answer, config, &tls.Config{RootCAs: roots, ServerName: name})
		if _, err := client.Explain(as(t, "u_1"), &adminv1.ExplainRequest{}); err != nil {
			t.Errorf("TLS as %s: %v", name, err)
		}
	}

	first := read(t, files.CertFile)
	if _, err := serve.DevCA(dir, now.Add(24*time.Hour)); err != nil {
		t.Fatal(err)
	}
	if read(t, files.CertFile) != first {
		t.Error("the server's certificate was renewed after a day")
	}
	if _, err := serve.DevCA(dir, now.Add(70*24*time.Hour)); err != nil {
		t.Fatal(err)
	}
	if read(t, files.CertFile) == first {
		t.Error("the server's certificate was not renewed twenty days before its end")
	}
	if read(t, files.CAFile) != string(ca) {
		t.Error("the CA changed with the server's certificate")
	}
}

func TestFileTLSTakesUpRenewedFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	now := time.Now()
	files, err := serve.DevCA(dir, now)
	if err != nil {
		t.Fatal(err)
	}
	clock := now
	config, err := serve.FileTLS(files.CertFile, files.KeyFile, func() time.Time { return clock })
	if err != nil {
		t.Fatal(err)
	}
	serial := func() string {
		cert, err := config.GetCertificate(nil)
		if err != nil {
			t.Fatal(err)
		}
		return cert.Leaf.SerialNumber.String()
	}
	before := serial()
	later := now.Add(80 * 24 * time.Hour)
	if _, err := serve.DevCA(dir, later); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(files.CertFile, later, later); err != nil {
		t.Fatal(err)
	}
	clock = clock.Add(time.Minute)
	after := serial()
	if after == before {
		t.Error("the renewed certificate was not taken up")
	}
	if err := os.WriteFile(files.CertFile, []byte("torn"), 0o600); err != nil {
		t.Fatal(err)
	}
	clock = clock.Add(time.Minute)
	if serial() != after {
		t.Error("a torn file replaced a good certificate")
	}
}

func read(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
