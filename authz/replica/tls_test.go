package replica_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/authz/replica"
)

// secured is a gRPC server as any Go server can be one: each call is decided, and
// answered by the health service. The called namespace is in the metadata.
type secured struct {
	grpc_health_v1.UnimplementedHealthServer
	t       testing.TB
	replica *replica.Replica
	roots   *x509.CertPool
	address string

	mu  sync.Mutex
	now time.Time // of decisions
}

func (s *secured) clock() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.now
}

func (s *secured) setClock(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now = now
}

func (s *secured) Check(ctx context.Context, _ *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
	p, _ := peer.FromContext(ctx)
	state := p.AuthInfo.(credentials.TLSInfo).State
	md, _ := metadata.FromIncomingContext(ctx)
	c := s.replica.Credential(strings.Join(md.Get("authorization"), ","), &state, netip.Addr{})
	d := s.replica.Decide(c, start, strings.Join(md.Get("namespace"), ","), s.clock())
	if d.Allow {
		return &grpc_health_v1.HealthCheckResponse{}, nil
	}
	code := map[sallyport.Kind]codes.Code{sallyport.Unauthenticated: codes.Unauthenticated, sallyport.PermissionDenied: codes.PermissionDenied, sallyport.Unavailable: codes.Unavailable}[d.Kind]
	return nil, status.Error(code, d.Reason)
}

// serve starts the server with a certificate for localhost and the namespaces' names.
func serve(t testing.TB, r *replica.Replica) *secured {
	t.Helper()
	return serveFor(t, r, replica.MaxConnectionAge)
}

// serveFor is serve with connections of the age.
func serveFor(t testing.TB, r *replica.Replica, age time.Duration) *secured {
	t.Helper()
	ca := newCA(t, "Servers", nil, nil)
	own := ca.leaf("server", func(c *x509.Certificate) {
		c.DNSNames, c.ExtKeyUsage = []string{"localhost", "orders.f45a2." + domain}, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	})
	config, err := replica.ServerTLS(replica.TLSConfig{Base: &tls.Config{Certificates: []tls.Certificate{own.certificate()}}})
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &secured{t: t, replica: r, roots: x509.NewCertPool(), address: listener.Addr().String(), now: now}
	s.roots.AddCert(ca.cert)
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(config)), grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionAge: age}))
	grpc_health_v1.RegisterHealthServer(server, s)
	go server.Serve(listener)
	t.Cleanup(server.Stop)
	return s
}

// dial gives a function that calls the namespace over one connection. c may be nil.
func (s *secured) dial(c *chain, serverName, header string) func(namespace string) error {
	s.t.Helper()
	config := &tls.Config{ServerName: serverName}
	if c != nil {
		config.Certificates = []tls.Certificate{c.certificate()}
	}
	return s.dialWith(config, header)
}

// dialWith is dial with a client's configuration.
func (s *secured) dialWith(config *tls.Config, header string) func(namespace string) error {
	s.t.Helper()
	config.RootCAs = s.roots
	conn, err := grpc.NewClient(s.address, grpc.WithTransportCredentials(credentials.NewTLS(config)))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { conn.Close() })
	return func(namespace string) error {
		ctx, cancel := context.WithTimeout(s.t.Context(), 10*time.Second)
		defer cancel()
		ctx = metadata.AppendToOutgoingContext(ctx, "namespace", namespace)
		if header != "" {
			ctx = metadata.AppendToOutgoingContext(ctx, "authorization", header)
		}
		_, err := grpc_health_v1.NewHealthClient(conn).Check(ctx, &grpc_health_v1.HealthCheckRequest{})
		return err
	}
}

// TestServerTLS: one port for keys and certificates, with reasons instead of
// alerts, and changes that take hold on open connections.
func TestServerTLS(t *testing.T) {
	ca, other := newCA(t, "CA", nil, nil), newCA(t, "Other", nil, nil)
	own := newCA(t, "Own", nil, nil)
	p := newPolicy("f45a2")
	p.mtls("ns_1", "orders")
	p.mtls("ns_2", "other")
	p.trust("ns_1", nil, ca)
	p.issuer(own)
	p.principal("sa_1", sallyport.ServiceAccount)
	p.grant("sa_1", sallyport.ScopeNamespace, "ns_1", "write")
	header, _ := p.key("sa_1", nil)
	s := serve(t, loadNamed(t, p))
	leaf := ca.leaf("x", nil)
	expect := func(name string, err error, code codes.Code, says string) {
		t.Helper()
		if status.Code(err) != code || !strings.Contains(status.Convert(err).Message(), says) {
			t.Errorf("%s: %v; want %s with %q", name, err, code, says)
		}
	}
	expect("no credential", s.dial(nil, "localhost", "")("orders.f45a2"), codes.Unauthenticated, "no credential")
	expect("wrong certificate", s.dial(other.leaf("x", nil), "localhost", "")("orders.f45a2"), codes.PermissionDenied, stranger)
	expect("self-signed", s.dial(&chain{[]*x509.Certificate{other.cert}, other.key}, "localhost", "")("orders.f45a2"), codes.Unauthenticated, "CA")
	expect("expired", s.dial(ca.leaf("x", func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Second) }), "localhost", "")("orders.f45a2"), codes.Unauthenticated, "expired")
	expect("API key", s.dial(nil, "localhost", header)("orders.f45a2"), codes.OK, "")
	expect("API key and a wrong certificate", s.dial(other.leaf("x", nil), "localhost", header)("orders.f45a2"), codes.OK, "")
	expect("managed", s.dial(own.managed("f45a2", "sa_1", nil), "localhost", "")("orders.f45a2"), codes.OK, "")
	named := s.dial(leaf, "orders.f45a2."+domain, "")
	expect("over its name", named("orders.f45a2"), codes.OK, "")
	expect("over another name", named("other.f45a2"), codes.PermissionDenied, "connect to the name of the namespace")

	call := s.dial(leaf, "localhost", "")
	expect("certificate", call("orders.f45a2"), codes.OK, "")
	p.revoke(object.RevokedCertificate(leaf.fingerprint()))
	reload(t, s.replica, p)
	expect("revoked", call("orders.f45a2"), codes.Unauthenticated, "was revoked")
	p.remove(object.KindRevocation, object.RevokedCertificate(leaf.fingerprint()))
	p.trust("ns_1", nil, other)
	reload(t, s.replica, p)
	expect("CA removed", call("orders.f45a2"), codes.PermissionDenied, stranger)
	p.trust("ns_1", []object.CertificateFilter{{CommonName: "y"}}, ca)
	reload(t, s.replica, p)
	expect("filtered out", call("orders.f45a2"), codes.PermissionDenied, "filters")
	p.trust("ns_1", nil, ca)
	reload(t, s.replica, p)
	expect("back", call("orders.f45a2"), codes.OK, "")
	short := ca.leaf("x", func(c *x509.Certificate) { c.NotAfter = now.Add(time.Minute) })
	s.setClock(now)
	call = s.dial(short, "localhost", "")
	expect("short-lived", call("orders.f45a2"), codes.OK, "")
	s.setClock(now.Add(2 * time.Minute))
	expect("expired on the open connection", call("orders.f45a2"), codes.Unauthenticated, "expired at")
}

// TestRenewalOnTime: certificates live for seconds, and a client that shows the
// newest at each new connection is never refused, by the real clock, while
// connections end sooner than certificates. One that renews no more is refused on
// the connection that it has.
func TestRenewalOnTime(t *testing.T) {
	t.Parallel()
	own := newCA(t, "Own", nil, func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	})
	p := newPolicy("f45a2")
	p.mtls("ns_1", "orders")
	p.issuer(own)
	p.principal("sa_1", sallyport.ServiceAccount)
	p.grant("sa_1", sallyport.ScopeNamespace, "ns_1", "write")
	const life = 3 * time.Second
	issue := func() *chain {
		return own.managed("f45a2", "sa_1", func(c *x509.Certificate) {
			c.NotBefore, c.NotAfter = time.Now().Add(-time.Minute), time.Now().Add(life)
		})
	}
	var (
		mu     sync.Mutex
		newest = issue()
		shown  = map[string]bool{}
	)
	config := &tls.Config{ServerName: "localhost", GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		mu.Lock()
		defer mu.Unlock()
		shown[newest.fingerprint()] = true
		c := newest.certificate()
		return &c, nil
	}}
	s := serveFor(t, loadNamed(t, p), life/6)
	call := s.dialWith(config, "")
	lasting := serve(t, s.replica) // over one connection, with what was shown when it began
	same := lasting.dial(newest, "localhost", "")
	end := newest.certs[0].NotAfter.Add(time.Second) // that second is a good one
	began := time.Now()
	for renewed := began; time.Since(began) < 2*life; time.Sleep(10 * time.Millisecond) {
		now := time.Now()
		s.setClock(now)
		lasting.setClock(now)
		if now.Sub(renewed) > life/3 {
			renewed = now
			mu.Lock()
			newest = issue()
			mu.Unlock()
		}
		if err := call("orders.f45a2"); err != nil {
			t.Fatalf("after %s of renewals: %v", time.Since(began), err)
		}
		err := same("orders.f45a2")
		expired := status.Code(err) == codes.Unauthenticated && strings.Contains(err.Error(), "expired at")
		if now.Before(end) && err != nil || !now.Before(end) && !expired {
			t.Fatalf("without renewals, %s before the end: %v", end.Sub(now), err)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if len(shown) < 4 {
		t.Errorf("%d certificates were shown", len(shown))
	}
}

// TestServerTLSConfig: what is taken over from the base, and what is refused.
func TestServerTLSConfig(t *testing.T) {
	t.Parallel()
	ca := newCA(t, "Servers", nil, nil)
	one := ca.leaf("one", func(c *x509.Certificate) { c.DNSNames = []string{"one"} }).certificate()
	two := ca.leaf("two", func(c *x509.Certificate) { c.DNSNames = []string{"two"} }).certificate()
	roots := x509.NewCertPool()
	roots.AddCert(ca.cert)
	give := func(c tls.Certificate) func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		return func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return &c, nil }
	}
	byName := &tls.Config{Certificates: []tls.Certificate{one}, GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		switch hello.ServerName {
		case "two":
			return &tls.Config{Certificates: []tls.Certificate{two}, MinVersion: tls.VersionTLS13}, nil
		case "strict":
			return &tls.Config{Certificates: []tls.Certificate{two}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: roots}, nil
		}
		return nil, nil
	}}
	client := ca.leaf("client", nil).certificate()
	tests := []struct {
		name   string
		config replica.TLSConfig
		server string
		fails  bool // the handshake
	}{
		{"base", replica.TLSConfig{Base: &tls.Config{Certificates: []tls.Certificate{one}, MinVersion: tls.VersionTLS10}}, "one", false},
		{"given", replica.TLSConfig{GetCertificate: give(two)}, "two", false},
		{"by name, the default", replica.TLSConfig{Base: byName}, "one", false},
		{"by name", replica.TLSConfig{Base: byName}, "two", false},
		{"by name, one that verifies itself", replica.TLSConfig{Base: byName}, "strict", true},
	}
	for _, test := range tests {
		config, err := replica.ServerTLS(test.config)
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
			continue
		}
		for _, c := range []*tls.Certificate{nil, &client} {
			a, b := net.Pipe()
			server, with := tls.Server(a, config), &tls.Config{RootCAs: roots, ServerName: test.server, NextProtos: []string{"h2"}, ClientSessionCache: tls.NewLRUClientSessionCache(4)}
			if c != nil {
				with.Certificates = []tls.Certificate{*c}
			}
			clientSide := tls.Client(b, with)
			failed := make(chan error, 1)
			go func() { failed <- server.Handshake() }()
			err := clientSide.Handshake()
			if serverErr := <-failed; (err != nil || serverErr != nil) != test.fails {
				t.Errorf("%s: %v, %v", test.name, err, serverErr)
			}
			if state := server.ConnectionState(); !test.fails && ((c != nil) != (len(state.PeerCertificates) == 1) || state.NegotiatedProtocol != "h2" || len(state.VerifiedChains) > 0) {
				t.Errorf("%s: %d certificates, %q", test.name, len(state.PeerCertificates), state.NegotiatedProtocol)
			}
			a.Close()
			b.Close()
		}
		if config.MinVersion < tls.VersionTLS12 || !config.SessionTicketsDisabled {
			t.Errorf("%s: version %x, tickets off %t", test.name, config.MinVersion, config.SessionTicketsDisabled)
		}
	}
	for name, c := range map[string]replica.TLSConfig{
		"no certificate": {}, "no certificate in the base": {Base: &tls.Config{}},
		"a base that requires some": {Base: &tls.Config{Certificates: []tls.Certificate{one}, ClientAuth: tls.RequireAnyClientCert}},
		"a base that verifies some": {Base: &tls.Config{Certificates: []tls.Certificate{one}, ClientAuth: tls.VerifyClientCertIfGiven}},
	} {
		if _, err := replica.ServerTLS(c); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}
