package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.temporal.io/cloud-sdk/api/cloudservice/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/sallyport-iam/sallyport"
	adminv1 "github.com/sallyport-iam/sallyport/api/sallyport/admin/v1"
	"github.com/sallyport-iam/sallyport/directory"
	"github.com/sallyport-iam/sallyport/internal/pg"
	"github.com/sallyport-iam/sallyport/internal/pgtest"
	"github.com/sallyport-iam/sallyport/internal/serve"
	"github.com/sallyport-iam/sallyport/journal"
)

func TestCACommands(t *testing.T) {
	t.Parallel()
	url, key := pgtest.URL(t), operatorKey(t)
	testCommand := command
	command := func(args ...string) (string, error) { return testCommand(t, on(url, key, args...)...) }
	if _, err := command("ca", "list"); !errors.Is(err, sallyport.NotFound) || !strings.Contains(err.Error(), "ca init") {
		t.Errorf("ca list without a root: %v", err)
	}
	out, err := command("ca", "init", "--name=Example", "--years=5")
	line := regexp.MustCompile(`(?m)^([0-9a-f]{64})  current  until \d{4}-\d\d-\d\d  issuers 0  CN=Example Root CA [0-9a-f]{8},O=Example$`)
	first := line.FindStringSubmatch(out)
	if err != nil || first == nil {
		t.Fatalf("ca init: %v\n%s", err, out)
	}
	if _, err := command("ca", "init", "--name=Example"); !errors.Is(err, sallyport.AlreadyExists) {
		t.Errorf("ca init again: %v, want AlreadyExists", err)
	}
	if _, err := command("ca", "retire", first[1]); !errors.Is(err, sallyport.Conflict) {
		t.Errorf("retiring the only root: %v, want Conflict", err)
	}
	if out, err := command("ca", "rotate", "--name=Example", "--key-type=p256"); err != nil || !line.MatchString(out) {
		t.Errorf("ca rotate: %v\n%s", err, out)
	}
	out, err = command("ca", "list", "--pem")
	if err != nil || strings.Count(out, "  current  ") != 1 || strings.Count(out, "  retired  ") != 1 || strings.Count(out, "BEGIN CERTIFICATE") != 2 {
		t.Errorf("ca list: %v\n%s", err, out)
	}

	request := filepath.Join(t.TempDir(), "request.pem")
	if out, err := command("ca", "init", "--name=Example", "--csr="+request); err != nil {
		t.Fatalf("ca init --csr: %v\n%s", err, out)
	}
	if _, err := command("ca", "init", "--name=Example", "--csr="+request); err == nil {
		t.Error("a request was overwritten")
	}
	chain := signElsewhere(t, request)
	if _, err := command("ca", "import", request); !errors.Is(err, sallyport.Invalid) {
		t.Errorf("importing a request: %v, want Invalid", err)
	}
	if out, err := command("ca", "import", chain, "--trust-domain=cloud.example.com"); err != nil || !strings.Contains(out, "  current  ") {
		t.Errorf("ca import: %v\n%s", err, out)
	}
	if out, err := command("ca", "list"); err != nil || strings.Count(out, "  retired  ") != 2 || strings.Count(out, "\n") != 3 {
		t.Errorf("ca list after the import: %v\n%s", err, out)
	}
	if out, err := command("verify"); err != nil {
		t.Errorf("verify: %v\n%s", err, out)
	}
	if _, err := testCommand(t, on(url, operatorKey(t), "account", "create", "--name=Acme", "--owner-email=ada@acme.example")...); !errors.Is(err, sallyport.Conflict) {
		t.Errorf("with another operator's key: %v, want Conflict", err)
	}
	if _, err := command("operator-key", "rotate", key); err == nil { // has no database
		t.Error("operator-key takes a database")
	}
}

// signElsewhere signs the request by a CA that is not Sallyport's and gives the
// chain's file.
func signElsewhere(t *testing.T, request string) string {
	t.Helper()
	text, err := os.ReadFile(request)
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	root := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: csr.Subject, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(5, 0, 0)}
	root.Subject.CommonName = "Elsewhere"
	below := *root
	below.SerialNumber, below.Subject = big.NewInt(2), csr.Subject
	var chain []byte
	for _, c := range []struct {
		template *x509.Certificate
		public   any
	}{{&below, csr.PublicKey}, {root, key.Public()}} {
		der, err := x509.CreateCertificate(rand.Reader, c.template, root, c.public, key)
		if err != nil {
			t.Fatal(err)
		}
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	file := filepath.Join(t.TempDir(), "chain.pem")
	if err := os.WriteFile(file, chain, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestOperatorKeyIsNotReplaced(t *testing.T) {
	t.Parallel()
	key := operatorKey(t)
	before, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := command(t, "operator-key", "create", key); !errors.Is(err, sallyport.AlreadyExists) {
		t.Errorf("creating it again: %v, want AlreadyExists", err)
	}
	if after, err := os.ReadFile(key); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the key was replaced, %v", err)
	}
	if out, err := command(t, "operator-key", "rotate", key); err != nil || strings.Contains(out, "value") {
		t.Errorf("rotate: %v\n%s", err, out)
	}
}

// production is a running `sallyportd serve`.
type production struct {
	grpc, http, pki string
	ca              string // of the server's certificate
	roots           *x509.CertPool
	url, key        string
}

func startProduction(t *testing.T) production {
	t.Helper()
	p := production{url: pgtest.URL(t), key: operatorKey(t)}
	certificate, err := serve.DevCA(filepath.Join(t.TempDir(), "ca"), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(certificate.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	p.ca, p.roots = certificate.CAFile, x509.NewCertPool()
	p.roots.AppendCertsFromPEM(text)
	regions := filepath.Join(t.TempDir(), "regions.json")
	if err := os.WriteFile(regions, []byte(`[{"id":"aws-us-east-1","provider":"aws","region":"us-east-1","cell":"c"}]`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, address := range []*string{&p.grpc, &p.http, &p.pki} {
		l, err := listen("127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		*address = l.Addr().String()
		l.Close()
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- run(ctx, []string{"serve", "--database-url=" + p.url, "--operator-key=" + p.key, "--tls-cert=" + certificate.CertFile, "--tls-key=" + certificate.KeyFile,
			"--regions=" + regions, "--trust-domain=cloud.example.com", "--pki-url=http://" + p.pki + "/", "--listen=" + p.grpc, "--http-listen=" + p.http,
			"--pki-listen=" + p.pki, "--log-level=error"}, io.Discard, io.Discard)
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	for range 500 {
		if _, err := p.get(t, "https://"+p.http+"/healthz"); err == nil {
			return p
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatal("serve does not answer")
	return p
}

func (p production) get(t *testing.T, url string, certificates ...tls.Certificate) (string, error) {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: p.roots, Certificates: certificates, MinVersion: tls.VersionTLS12}}
	defer transport.CloseIdleConnections()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := (&http.Client{Transport: transport}).Do(r)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", answer.Status, body)
	}
	return string(body), err
}

// dial connects with a certificate, or without.
func (p production) dial(t *testing.T, certificates ...tls.Certificate) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient(p.grpc, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: p.roots, Certificates: certificates, MinVersion: tls.VersionTLS12})))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// The whole way of a certificate on the control plane: no root and a service
// that says so; a root; a certificate, which is its service account on gRPC and
// HTTPS and for openssl and curl; and the end of it.
func TestServeTheManagedCA(t *testing.T) {
	t.Parallel()
	p := startProduction(t)
	ctx := t.Context()
	if out, err := p.get(t, "https://"+p.http+"/readyz"); err != nil || !strings.HasPrefix(out, "ready\n") || !strings.Contains(out, "sallyportd ca init") {
		t.Errorf("readyz without a root: %v\n%s", err, out)
	}
	if out, err := command(t, on(p.url, p.key, "ca", "init", "--name=Example")...); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	out, err := command(t, on(p.url, p.key, "account", "create", "--name=Acme", "--owner-email=ada@acme.example", "--id=acme2")...)
	if err != nil {
		t.Fatal(err)
	}
	owner := regexp.MustCompile(`sp_acme2_\S+`).FindString(out)
	robot := p.robot(t)
	certificate, id := p.issue(t, owner, robot)

	me, err := cloudservice.NewCloudServiceClient(p.dial(t, certificate)).GetCurrentIdentity(ctx, &cloudservice.GetCurrentIdentityRequest{})
	if err != nil || me.GetServiceAccount().GetId() != robot {
		t.Errorf("over gRPC the certificate is %v, %v", me, err)
	}
	if out, err := p.get(t, "https://"+p.http+"/cloud/current-identity", certificate); err != nil || !strings.Contains(out, robot) {
		t.Errorf("over HTTPS the certificate is %s, %v", out, err)
	}
	p.relyingParties(t, certificate, robot, true)

	admin := adminv1.NewAdminServiceClient(p.dial(t))
	if _, err := admin.Revoke(metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+owner), &adminv1.RevokeRequest{CertificateId: id}); err != nil {
		t.Fatal(err)
	}
	_, err = cloudservice.NewCloudServiceClient(p.dial(t, certificate)).GetCurrentIdentity(ctx, &cloudservice.GetCurrentIdentityRequest{})
	if status.Code(err) != codes.Unauthenticated || !strings.Contains(err.Error(), "revoked") {
		t.Errorf("the revoked certificate: %v, want Unauthenticated with the reason", err)
	}
	time.Sleep(1100 * time.Millisecond) // for which the CRL may be given out of memory
	p.relyingParties(t, certificate, robot, false)
	if out, err := command(t, on(p.url, p.key, "verify")...); err != nil {
		t.Errorf("verify: %v\n%s", err, out)
	}
}

// robot makes a service account, as the operator.
func (p production) robot(t *testing.T) string {
	t.Helper()
	pool, err := pg.Open(t.Context(), p.url)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	d, err := newDomain(t.Context(), pool, domainConfig{vault: openVault(t, p.key), trustDomain: devTrustDomain})
	if err != nil {
		t.Fatal(err)
	}
	sa, _, err := d.directory.CreateServiceAccount(t.Context(), sallyport.OperatorCaller("acme2", "test"), journal.Operation{Type: "CreateServiceAccount"},
		directory.ServiceAccountParams{Name: "robot", Scope: sallyport.ScopeAccount, Access: directory.Access{Role: sallyport.RoleRead}})
	if err != nil {
		t.Fatal(err)
	}
	return sa.ID
}

func (p production) issue(t *testing.T, owner, robot string) (tls.Certificate, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		t.Fatal(err)
	}
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+owner)
	issued, err := adminv1.NewAdminServiceClient(p.dial(t)).IssueCertificate(ctx, &adminv1.IssueCertificateRequest{ServiceAccountId: robot, Csr: csr})
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := tls.X509KeyPair(issued.GetChain(), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	if err != nil {
		t.Fatal(err)
	}
	return certificate, issued.GetCertificate().GetId()
}

// relyingParties are others who check the certificate: openssl, by the roots and
// the CRLs that the certificate itself names, and curl, which calls with it.
func (p production) relyingParties(t *testing.T, certificate tls.Certificate, robot string, good bool) {
	t.Helper()
	dir := t.TempDir()
	file := func(name, text string) string {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return filepath.Join(dir, name)
	}
	roots, err := p.get(t, "http://"+p.pki+"/pki/roots.pem")
	if err != nil {
		t.Fatal(err)
	}
	var chain, crls string
	for _, der := range certificate.Certificate {
		chain += string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
		cert, err := x509.ParseCertificate(der)
		if err != nil || len(cert.CRLDistributionPoints) != 1 || len(cert.IssuingCertificateURL) != 1 {
			t.Fatalf("%s names %v and %v, %v", cert.Subject, cert.CRLDistributionPoints, cert.IssuingCertificateURL, err)
		}
		crl, err := p.get(t, cert.CRLDistributionPoints[0])
		if err != nil {
			t.Fatal(err)
		}
		crls += string(pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: []byte(crl)}))
		issuer, err := p.get(t, cert.IssuingCertificateURL[0])
		if err != nil {
			t.Fatal(err)
		}
		if parsed, err := x509.ParseCertificate([]byte(issuer)); err != nil || cert.CheckSignatureFrom(parsed) != nil {
			t.Errorf("the issuer of %s is not where it says, %v", cert.Subject, err)
		}
	}
	chainFile := file("chain.pem", chain)
	out, err := program(t, "openssl", "verify", "-x509_strict", "-purpose", "sslclient", "-crl_check_all", "-CAfile", file("roots.pem", roots),
		"-CRLfile", file("crls.pem", crls), "-untrusted", chainFile, chainFile)
	if good && err != nil || !good && !strings.Contains(out, "certificate revoked") {
		t.Errorf("openssl verify, good %v: %v\n%s", good, err, out)
	}
	der, err := x509.MarshalPKCS8PrivateKey(certificate.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	keyFile := file("key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))
	out, err = program(t, "curl", "-sS", "--cacert", p.ca, "--cert", chainFile, "--key", keyFile, "https://"+p.http+"/cloud/current-identity")
	if err != nil || strings.Contains(out, robot) != good || strings.Contains(out, "revoked") == good {
		t.Errorf("curl, good %v: %v\n%s", good, err, out)
	}
}

// program runs one of the machine's, and skips the test where it is missing.
func program(t *testing.T, name string, args ...string) (string, error) {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("%s is not installed", name)
	}
	out, err := exec.CommandContext(t.Context(), path, args...).CombinedOutput()
	return string(out), err
}
