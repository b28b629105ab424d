package serve_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/grpc"

	"github.com/sallyport-iam/sallyport/api/sallyport/admin/v1"
	"github.com/sallyport-iam/sallyport/internal/serve"
)

// clientCertificate is one that nobody has signed but itself.
func clientCertificate(t *testing.T, name string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// What a TLS client presents reaches Authenticate by gRPC and by HTTP, whatever
// it is; a header comes with it; and a trusted proxy's own does not.
func TestClientCertificates(t *testing.T) {
	t.Parallel()
	files, err := serve.DevCA(t.TempDir(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	config, err := serve.FileTLS(files.CertFile, files.KeyFile, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(read(t, files.CAFile)))
	with := &tls.Config{RootCAs: roots, ServerName: "localhost", Certificates: []tls.Certificate{clientCertificate(t, "u_certificate")}}
	without := &tls.Config{RootCAs: roots, ServerName: "localhost"}
	whoami := service{explain: func(ctx context.Context, _ *adminv1.ExplainRequest) (*adminv1.ExplainResponse, error) {
		caller, _ := serve.Caller(ctx)
		return &adminv1.ExplainResponse{Reason: caller.Principal.ID}, nil
	}}
	loopback := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	for _, test := range []struct {
		name    string
		proxies []netip.Prefix
		client  *tls.Config
		header  string
		want    string // "": nobody
	}{
		{"a certificate", nil, with, "", "u_certificate"},
		{"a certificate and a header", nil, with, "u_header", "u_header"},
		{"a header", nil, without, "u_header", "u_header"},
		{"neither", nil, without, "", ""},
		{"a proxy's certificate", loopback, with, "", ""},
		{"a proxy's certificate and a client's header", loopback, with, "u_header", "u_header"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t, serve.Config{Proxies: test.proxies})
			client, _ := start(t, s, whoami, config, test.client)
			ctx := t.Context()
			if test.header != "" {
				ctx = as(t, test.header)
			}
			got, err := client.Explain(ctx, &adminv1.ExplainRequest{})
			if (err == nil) != (test.want != "") || got.GetReason() != test.want {
				t.Errorf("gRPC: got %q, %v; want %q", got.GetReason(), err, test.want)
			}
			for _, protocol := range []string{"http/1.1", "h2"} {
				if got := overHTTP(t, s, whoami, config, test.client, protocol, test.header); test.want == "" && !strings.Contains(got, "401") || !strings.Contains(got, test.want) {
					t.Errorf("%s: got %s; want %q", protocol, got, test.want)
				}
			}
		})
	}
}

// overHTTP calls whoami and gives status and body.
func overHTTP(t *testing.T, s *serve.Server, svc service, serverTLS, clientTLS *tls.Config, protocol, header string) string {
	t.Helper()
	inner, err := s.GRPC(nil, func(r grpc.ServiceRegistrar) { adminv1.RegisterAdminServiceServer(r, svc) })
	if err != nil {
		t.Fatal(err)
	}
	handler, err := s.Handler(inner, &annotations.HttpRule{Selector: "sallyport.admin.v1.AdminService.Explain",
		Pattern: &annotations.HttpRule_Post{Post: "/explain"}, Body: "*"})
	if err != nil {
		t.Fatal(err)
	}
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	web := serve.NewHTTP(handler, nil)
	go web.Serve(tls.NewListener(lis, serverTLS))
	t.Cleanup(func() { web.Close() })
	own := clientTLS.Clone()
	own.NextProtos = []string{protocol}
	transport := &http.Transport{TLSClientConfig: own, ForceAttemptHTTP2: protocol == "h2"}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), "POST", "https://"+lis.Addr().String()+"/explain", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if header != "" {
		req.Header.Set("Authorization", "Bearer "+header)
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if want := map[string]int{"h2": 2, "http/1.1": 1}[protocol]; resp.ProtoMajor != want {
		t.Errorf("the protocol is %s", resp.Proto)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.Status + " " + string(body)
}
