package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/pem"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

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
	sallyport := httptest.NewUnstartedServer(nil)
	address := sallyport.Listener.Addr().String()
	sallyport.Close() // nobody listens there now
	free := httptest.NewUnstartedServer(nil)
	frontend := free.Listener.Addr().String()
	free.Close()

	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- run(ctx, []string{"dev", "--data", data, "--persist", "--sallyport", address, "--key-file", key, "--listen", frontend}, os.Stdout, os.Stderr)
	}()
	conn, err := grpc.NewClient(frontend, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client := workflowservice.NewWorkflowServiceClient(conn)
	wait, stop := context.WithTimeout(t.Context(), 30*time.Second)
	defer stop()
	if _, err := client.GetSystemInfo(wait, &workflowservice.GetSystemInfoRequest{}, grpc.WaitForReady(true)); err != nil {
		t.Fatal(err)
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
	if _, err := os.Stat(filepath.Join(data, "temporal.sqlite")); err != nil {
		t.Error("--persist keeps nothing:", err)
	}
}

const configuration = `
log: {stdout: false, level: error}
persistence:
  defaultStore: sqlite
  visibilityStore: sqlite
  numHistoryShards: 1
  datastores:
    sqlite: {sql: {pluginName: sqlite, databaseName: x, connectAttributes: {mode: memory, cache: private}}}
global:
  membership: {maxJoinDuration: 30s, broadcastAddress: 127.0.0.1}
  tls:
    internode:
      server: {certFile: cert.pem, keyFile: key.pem, clientCaFiles: [cert.pem], requireClientAuth: true}
      client: {serverName: example.com, rootCaFiles: [cert.pem]}
services:
  frontend: {rpc: {grpcPort: 7233}}
  internal-frontend: {rpc: {grpcPort: 7236}}
sallyport:
  address: 127.0.0.1:1
  key-file: key
  data-dir: data
  allow-plaintext: true
`

// Configurations under which the authorizer would not be the only way in are
// refused with what to do.
func TestStartRefuses(t *testing.T) {
	for _, test := range []struct {
		name, old, new, want string
	}{
		{"a misspelt setting", "data-dir: data", "data-dir: data\n  max-stalenes: 1h", "max-stalenes"},
		{"no section", "sallyport:", "other:", "sallyport.address"},
		{"no data", "data-dir: data", "", "sallyport.data-dir"},
		{"no internal frontend", "internal-frontend:", "history:", "services.internal-frontend"},
		{"no internode mTLS", "requireClientAuth: true", "requireClientAuth: false", "global.tls.internode"},
		{"another authorizer", "global:", "global:\n  authorization: {authorizer: default}", "global.authorization"},
		{"plaintext", "allow-plaintext: true", "", "global.tls.frontend"},
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

// certificate writes one that has a key, to cert.pem and key.pem.
func certificate(t *testing.T) {
	t.Helper()
	s := httptest.NewTLSServer(nil)
	defer s.Close()
	pair := s.TLS.Certificates[0]
	write(t, "cert.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[0]})))
	write(t, "key.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8(t, pair.PrivateKey)})))
}

func pkcs8(t *testing.T, key any) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}
