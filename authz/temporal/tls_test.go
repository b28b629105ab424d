package temporal_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/sallyport-iam/sallyport/authz/temporal"
	"github.com/sallyport-iam/sallyport/authz/temporal/internal/clientca"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/server/common/config"
	"go.temporal.io/server/common/log"
	"go.temporal.io/server/common/metrics"
	"go.temporal.io/server/common/rpc/encryption"
	"google.golang.org/protobuf/proto"
)

// The frontend keeps the provider's certificates, also those of single hosts and
// those that were replaced in their files; it asks clients for theirs and lets
// in those that have none or any.
func TestFrontendTLS(t *testing.T) {
	t.Parallel()
	ca := newCA(t, "servers")
	dir := t.TempDir()
	files := func(name string) config.ServerTLS {
		t.Helper()
		folder := filepath.Join(dir, name)
		if err := os.MkdirAll(folder, 0o700); err != nil {
			t.Fatal(err)
		}
		c, err := ca.Server(name)
		if err != nil {
			t.Fatal(err)
		}
		cert, key, err := clientca.Write(folder, c)
		if err != nil {
			t.Fatal(err)
		}
		return config.ServerTLS{CertFile: cert, KeyFile: key}
	}
	provider, err := encryption.NewTLSConfigProviderFromConfig(config.RootTLS{
		RefreshInterval: time.Millisecond,
		Frontend: config.GroupTLS{
			Server:           files("all.test"),
			PerHostOverrides: map[string]config.ServerTLS{"own.test": files("own.test")},
		},
	}, metrics.NoopMetricsHandler, log.NewNoopLogger(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if provider, err = temporal.FrontendTLS(provider); err != nil {
		t.Fatal(err)
	}
	server, err := provider.GetFrontendServerConfig()
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", server)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_ = conn.(*tls.Conn).Handshake() // the client sees what is wrong
				_, _ = conn.Write([]byte("x"))
			}()
		}
	}()
	for _, test := range []struct {
		name        string
		certificate *tls.Certificate
		want        string
	}{
		{"all.test", nil, "all.test"},
		{"other.test", leaf(t, newCA(t, "stranger"), "x", nil), "all.test"},
		{"own.test", nil, "own.test"},
		{"own.test", leaf(t, newCA(t, "stranger"), "x", nil), "own.test"},
	} {
		asked := false
		conn, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{
			ServerName: test.name, InsecureSkipVerify: true, NextProtos: []string{"h2"},
			GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				asked = true
				if test.certificate == nil {
					return &tls.Certificate{}, nil
				}
				return test.certificate, nil
			},
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Read(make([]byte, 1)); err != nil {
			t.Errorf("%s: %v", test.name, err)
		}
		state := conn.ConnectionState()
		if got := state.PeerCertificates[0].Subject.CommonName; got != test.want || !asked || state.NegotiatedProtocol != "h2" {
			t.Errorf("%s: got %s, protocol %q, asked for a certificate: %v", test.name, got, state.NegotiatedProtocol, asked)
		}
		conn.Close()
	}

	before, err := os.ReadFile(filepath.Join(dir, "own.test", "cert.pem"))
	if err != nil {
		t.Fatal(err)
	}
	files("own.test")
	time.Sleep(10 * time.Millisecond)
	conn, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{ServerName: "own.test", InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if old, _ := pem.Decode(before); bytes.Equal(conn.ConnectionState().PeerCertificates[0].Raw, old.Bytes) {
		t.Error("a certificate that was replaced in its file is still shown")
	}
}

// What verifies client certificates itself is refused; plaintext stays plaintext.
func TestFrontendTLSOfOthers(t *testing.T) {
	pool := newCA(t, "servers")
	certificate, err := pool.Server("localhost")
	if err != nil {
		t.Fatal(err)
	}
	_, err = temporal.FrontendTLS(&encryption.FixedTLSConfigProvider{FrontendServerConfig: &tls.Config{
		Certificates: []tls.Certificate{*certificate}, ClientAuth: tls.RequireAndVerifyClientCert,
	}})
	if err == nil || !contains(err.Error(), "namespace") {
		t.Errorf("a frontend that requires certificates: got %v", err)
	}
	plain, err := temporal.FrontendTLS(&encryption.FixedTLSConfigProvider{})
	if err != nil {
		t.Fatal(err)
	}
	if server, err := plain.GetFrontendServerConfig(); server != nil || err != nil {
		t.Errorf("plaintext: got %v, %v", server, err)
	}
}

// openssl gets through the handshake with any certificate and none.
func TestOpenSSL(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("there is no openssl")
	}
	b := newSecureBed(t)
	for _, test := range b.foreignClients() {
		t.Run(test.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			args := []string{"s_client", "-connect", b.server.Frontend, "-servername", "localhost", "-alpn", "h2", "-CAfile", test.ca, "-verify_return_error", "-ign_eof"}
			// The connection stays open for a second: in TLS 1.3 the alert about a
			// client certificate comes after the client's handshake.
			s := exec.CommandContext(ctx, "timeout", append([]string{"1", "openssl"}, append(args, test.flags("-cert", "-key")...)...)...)
			out, _ := s.CombinedOutput() // timeout's exit code says nothing
			if text := string(out); !contains(text, "ALPN protocol: h2") || !contains(text, "Verify return code: 0 (ok)") || contains(text, "alert") {
				t.Errorf("openssl says:\n%s", text)
			}
		})
	}
}

// curl gets an answer of gRPC, with the reason where it is refused.
func TestCurl(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("there is no curl")
	}
	b := newSecureBed(t)
	message, err := proto.Marshal(&workflowservice.DescribeNamespaceRequest{Namespace: orders})
	if err != nil {
		t.Fatal(err)
	}
	frame := append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...)
	body := filepath.Join(t.TempDir(), "frame")
	if err := os.WriteFile(body, frame, 0o600); err != nil {
		t.Fatal(err)
	}
	_, port, _ := strings.Cut(b.server.Frontend, ":")
	for _, test := range b.foreignClients() {
		t.Run(test.name, func(t *testing.T) {
			args := append([]string{
				"--silent", "--show-error", "--http2", "--max-time", "10", "--cacert", test.ca, "--dump-header", "-", "--output", os.DevNull,
				"--header", "Content-Type: application/grpc", "--header", "TE: trailers", "--data-binary", "@" + body,
				"https://localhost:" + port + "/temporal.api.workflowservice.v1.WorkflowService/DescribeNamespace",
			}, test.flags("--cert", "--key")...)
			out, err := exec.CommandContext(t.Context(), "curl", args...).CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			code := regexp.MustCompile(`(?mi)^grpc-status: (\d+)`).FindSubmatch(out)
			reason := regexp.MustCompile(`(?mi)^grpc-message: (.*)`).FindSubmatch(out)
			if len(code) == 0 || string(code[1]) != fmt.Sprint(test.status) {
				t.Errorf("want status %d, got\n%s", test.status, out)
			}
			if test.status != 0 && (len(reason) == 0 || !contains(string(reason[1]), test.reason)) {
				t.Errorf("want the reason %q, got\n%s", test.reason, out)
			}
		})
	}
}

// foreignClient is a program with a client certificate in files.
type foreignClient struct {
	name      string
	ca        string // the file of the frontend's
	cert, key string // files; "": none
	status    int    // of gRPC that it gets
	reason    string
}

func (f foreignClient) flags(cert, key string) []string {
	if f.cert == "" {
		return nil
	}
	return []string{cert, f.cert, key, f.key}
}

func (b *secureBed) foreignClients() []foreignClient {
	b.t.Helper()
	dir := b.t.TempDir()
	ca := filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(ca, b.frontendCA.PEM, 0o600); err != nil {
		b.t.Fatal(err)
	}
	clients := []foreignClient{{name: "no certificate", status: 16, reason: "no credential"}}
	for _, c := range []struct {
		foreignClient
		certificate *tls.Certificate
	}{
		{foreignClient{name: "a customer's certificate"}, leaf(b.t, b.ca, "worker-1", nil)},
		{foreignClient{name: "a managed certificate"}, managed(b.t, b.issuer, "acme2", "sa_writer")},
		{foreignClient{name: "a stranger's certificate", status: 7, reason: "does not accept this client certificate"}, leaf(b.t, newCA(b.t, "stranger"), "worker-1", nil)},
	} {
		folder := filepath.Join(dir, strings.ReplaceAll(c.name, " ", "-"))
		if err := os.Mkdir(folder, 0o700); err != nil {
			b.t.Fatal(err)
		}
		var err error
		if c.cert, c.key, err = clientca.Write(folder, c.certificate); err != nil {
			b.t.Fatal(err)
		}
		clients = append(clients, c.foreignClient)
	}
	for i := range clients {
		clients[i].ca = ca
	}
	return clients
}
