package replica_test

import (
	"context"
	"crypto/tls"
	"log"
	"net/netip"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz/replica"
)

// A server that takes API keys and client certificates on one port. It has to
// say which namespace a request is for.
func ExampleServerTLS() {
	copied, err := replica.Open(replica.Config{Address: "sallyport:7244", TLS: &tls.Config{}, Token: "sp_…", Dir: "/var/lib/server/replica", NamespaceDomain: "ns.example.com"})
	if err != nil {
		log.Fatal(err)
	}
	go copied.Run(context.Background())
	own, err := tls.LoadX509KeyPair("server.pem", "server.key")
	if err != nil {
		log.Fatal(err)
	}
	config, err := replica.ServerTLS(replica.TLSConfig{Base: &tls.Config{Certificates: []tls.Certificate{own}}})
	if err != nil {
		log.Fatal(err)
	}
	authorize := func(ctx context.Context, request any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
		header := strings.Join(metadata.ValueFromIncomingContext(ctx, "authorization"), ",")
		p, _ := peer.FromContext(ctx)
		connection, ok := p.AuthInfo.(credentials.TLSInfo)
		from, err := netip.ParseAddrPort(p.Addr.String())
		if !ok || err != nil {
			return nil, status.Error(codes.Unauthenticated, "connect with TLS")
		}
		credential := copied.Credential(header, &connection.State, from.Addr())
		namespace := request.(interface{ GetNamespace() string }).GetNamespace()
		now := time.Now()
		d := copied.Decide(credential, info.FullMethod, namespace, now)
		copied.MarkUsed(d, now)
		switch {
		case d.Allow:
			return handle(ctx, request)
		case d.Kind == sallyport.Unavailable:
			return nil, status.Error(codes.Unavailable, d.Reason)
		case d.Kind == sallyport.Unauthenticated:
			return nil, status.Error(codes.Unauthenticated, d.Reason)
		}
		return nil, status.Error(codes.PermissionDenied, d.Reason)
	}
	grpc.NewServer(grpc.Creds(credentials.NewTLS(config)), grpc.UnaryInterceptor(authorize),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionAge: replica.MaxConnectionAge}))
}
