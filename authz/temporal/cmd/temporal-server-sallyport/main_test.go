package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-iam/sallyport/authz/temporal/internal/server"
	"go.temporal.io/api/workflowservice/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

// The server starts without Sallyport, lets nobody in, and ends when it is told to.
func TestDevWithoutSallyport(t *testing.T) {
	data := t.TempDir()
	key := filepath.Join(data, "key")
	write(t, key, "sp_00000_abcdefghijklmnop_x")
	frontend := freeAddress()
	args := []string{"dev", "--data", data, "--persist", "--sallyport", freeAddress(), "--key-file", key, "--listen", frontend}
	serveAndStop(t, frontend, args...)
	if _, err := os.Stat(filepath.Join(data, "temporal.sqlite")); err != nil {
		t.Error("--persist keeps nothing:", err)
	}
	serveAndStop(t, frontend, args...) // also on the database of before
}

func serveAndStop(t *testing.T, frontend string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- run(ctx, args, os.Stdout, os.Stderr) }()
	conn, err := grpc.NewClient(frontend, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client := workflowservice.NewWorkflowServiceClient(conn)
	wait, stop := context.WithTimeout(t.Context(), 30*time.Second)
	defer stop()
	answers := make(chan error, 1)
	go func() {
		_, err := client.GetSystemInfo(wait, &workflowservice.GetSystemInfoRequest{}, grpc.WaitForReady(true))
		answers <- err
	}()
	select {
	case err := <-ended:
		t.Fatal("the server ended: ", err)
	case err := <-answers:
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := client.ListNamespaces(wait, &workflowservice.ListNamespacesRequest{}); status.Code(err) != codes.Unauthenticated {
		t.Errorf("without a key: got %v", err)
	}
	cancel()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("the server did not end")
	}
}

// freeAddress is one on loopback where nobody listens now.
func freeAddress() string {
	s := httptest.NewUnstartedServer(nil)
	defer s.Close()
	return s.Listener.Addr().String()
}

const configuration = `
log: {stdout: false, level: error}
persistence:
  defaultStore: sqlite
  visibilityStore: sqlite
  numHistoryShards: 1
  datastores:
    sqlite:
      sql:
        pluginName: sqlite
        databaseName: start
        connectAddr: localhost
        connectProtocol: tcp
        connectAttributes: {mode: memory, cache: private}
global:
  membership: {maxJoinDuration: 30s, broadcastAddress: 127.0.0.1}
  tls:
    internode:
      server: {certFile: cert.pem, keyFile: key.pem, clientCaFiles: [cert.pem], requireClientAuth: true}
      client: {serverName: example.com, rootCaFiles: [cert.pem]}
services:
  frontend: {rpc: {grpcPort: 7001, membershipPort: 7002, bindOnLocalHost: true}}
  internal-frontend: {rpc: {grpcPort: 7003, membershipPort: 7004, bindOnLocalHost: true}}
  history: {rpc: {grpcPort: 7005, membershipPort: 7006, bindOnLocalHost: true}}
  matching: {rpc: {grpcPort: 7007, membershipPort: 7008, bindOnLocalHost: true}}
  worker: {rpc: {grpcPort: 7009, membershipPort: 7010, bindOnLocalHost: true}}
clusterMetadata:
  failoverVersionIncrement: 10
  masterClusterName: active
  currentClusterName: active
  clusterInformation:
    active: {enabled: true, initialFailoverVersion: 1, rpcAddress: 127.0.0.1:7001}
sallyport:
  address: 127.0.0.1:1
  key-file: key
  data-dir: data
  allow-plaintext: true
`

// A server with the ordinary YAML runs, lets nobody in without a key, and its
// own services work with each other.
func TestStart(t *testing.T) {
	t.Chdir(t.TempDir())
	yaml := configuration
	var frontend string
	for port := 7001; port <= 7010; port++ {
		address := freeAddress()
		if port == 7001 {
			frontend = address
		}
		_, free, _ := strings.Cut(address, ":")
		yaml = strings.ReplaceAll(yaml, strconv.Itoa(port), free)
	}
	if err := os.Mkdir("config", 0o700); err != nil {
		t.Fatal(err)
	}
	base, section, _ := strings.Cut(yaml, "sallyport:\n")
	write(t, "config/base.yaml", base)
	write(t, "config/test.yaml", "sallyport:\n"+section)
	write(t, "key", "sp_00000_abcdefghijklmnop_x")
	certificate(t)
	serveAndStop(t, frontend, "start", "--root", ".", "--config", "config", "--env", "test")
}

// Configurations under which the authorizer would not be the only way in are
// refused with what to do.
func TestStartRefuses(t *testing.T) {
	for _, test := range []struct {
		name, old, new, want string
	}{
		{"a misspelt setting", "data-dir: data", "data-dir: data\n  max-stalenes: 1h", "max-stalenes"},
		{"no section", "sallyport:", "other:", "sallyport.address"},
		{"no data", "data-dir: data", "", "sallyport.data-dir"},
		{"no internal frontend", "internal-frontend: {rpc: {grpcPort: 7003, membershipPort: 7004, bindOnLocalHost: true}}", "", "services.internal-frontend"},
		{"no internode mTLS", "requireClientAuth: true", "requireClientAuth: false", "global.tls.internode"},
		{"another authorizer", "global:", "global:\n  authorization: {authorizer: default}", "global.authorization"},
		{"a negative grace", "data-dir: data", "data-dir: data\n  namespace-grace: -1h", "sallyport.namespace-grace"},
		{"plaintext", "allow-plaintext: true", "", "global.tls.frontend"},
		{"client certificates", "    internode:\n", "    frontend: {server: {requireClientAuth: true}}\n    internode:\n", "requireClientAuth"},
		{"client certificates of one host", "    internode:\n", "    frontend: {hostOverrides: {a.example.com: {requireClientAuth: true}}}\n    internode:\n", "requireClientAuth"},
		{"hidden errors", "services:", "dynamicConfigClient: {filepath: dynamic.yaml, pollInterval: 10s}\nservices:", "frontend.exposeAuthorizerErrors"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			if !strings.Contains(configuration, test.old) {
				t.Fatalf("the configuration has no %q", test.old)
			}
			write(t, "config.yaml", strings.Replace(configuration, test.old, test.new, 1))
			write(t, "dynamic.yaml", "frontend.exposeAuthorizerErrors: [{value: false}]\n")
			certificate(t)
			var out bytes.Buffer
			err := run(t.Context(), []string{"start", "--config-file", "config.yaml"}, &out, &out)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want it to name %s", err, test.want)
			}
		})
	}
}

// Certificates of single hosts do not make the server listen with TLS.
func TestStartRefusesPlaintextBesideHosts(t *testing.T) {
	for _, test := range []struct {
		name, frontend string
		plain          bool
	}{
		{"hosts alone", "hostOverrides: {api.example.com: {certFile: cert.pem, keyFile: key.pem}}", true},
		{"hosts and a certificate without a key", "server: {certFile: cert.pem}, hostOverrides: {api.example.com: {certFile: cert.pem, keyFile: key.pem}}", true},
		{"a certificate", "server: {certFile: cert.pem, keyFile: key.pem}", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			yaml := strings.Replace(configuration, "  allow-plaintext: true\n", "", 1)
			yaml = strings.Replace(yaml, "  tls:\n", "  tls:\n    frontend: {"+test.frontend+"}\n", 1)
			write(t, "config.yaml", yaml)
			certificate(t)
			_, _, err := server.Load(server.Files{File: "config.yaml"}, server.Services())
			if refused := err != nil && strings.Contains(err.Error(), "global.tls.frontend"); refused != test.plain || !refused && err != nil {
				t.Errorf("got %v", err)
			}
		})
	}
}

// certificate writes one for both ends of internode TLS to cert.pem and key.pem.
func certificate(t *testing.T) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		DNSNames:     []string{"example.com"},
		NotAfter:     time.Now().Add(time.Hour),
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IsCA:         true, BasicConstraintsValid: true,
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write(t, "cert.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})))
	write(t, "key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})))
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}
