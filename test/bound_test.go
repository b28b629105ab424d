package test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.temporal.io/cloud-sdk/api/cloudservice/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
)

// A token that was got with a client certificate is good with it, and with no other.
func TestBoundToken(t *testing.T) {
	a := start(t).tenant(t)
	dir := t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	own, other := selfSigned(t), selfSigned(t)
	cmd := exec.CommandContext(t.Context(), filepath.Join(a.bin, "sallyport"), "token", "--issuer-url", a.HTTP, "--ca", a.CA,
		"--api-key-file", write("key", a.key), "--cert", write("cert.pem", own.cert), "--key", write("key.pem", own.key))
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	token := strings.TrimSpace(string(out))
	if who := a.whoIs(t, token); !strings.Contains(who, "bound to a client certificate") {
		t.Errorf("without a certificate: %s", who)
	}
	if who := a.whoIsWith(t, token, own.pair(t)); who != a.robot {
		t.Errorf("with its certificate: %s, want %s", who, a.robot)
	}
	if who := a.whoIsWith(t, token, other.pair(t)); !strings.Contains(who, "another client certificate") {
		t.Errorf("with another certificate: %s", who)
	}
}

// client is a certificate that nobody issued, PEM, with its key.
type client struct{ cert, key string }

func (c client) pair(t *testing.T) tls.Certificate {
	t.Helper()
	pair, err := tls.X509KeyPair([]byte(c.cert), []byte(c.key))
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

func selfSigned(t *testing.T) client {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "worker"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return client{string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))}
}

// whoIsWith is whoIs on a connection with a client certificate.
func (s *service) whoIsWith(t *testing.T, token string, pair tls.Certificate) string {
	t.Helper()
	ca, err := os.ReadFile(s.CA)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	conn, err := grpc.NewClient(s.GRPC, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}})))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+token)
	who, err := cloudservice.NewCloudServiceClient(conn).GetCurrentIdentity(ctx, &cloudservice.GetCurrentIdentityRequest{})
	if err != nil {
		return err.Error()
	}
	return who.GetServiceAccount().GetId()
}
