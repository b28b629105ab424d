// Package servertest starts a Temporal server with the authorizer in a test's
// process, on a replica that the test makes by hand.
package servertest

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net/netip"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sallyport-iam/sallyport/authz/replica"
	"github.com/sallyport-iam/sallyport/authz/temporal"
	"github.com/sallyport-iam/sallyport/authz/temporal/internal/server"
	"go.temporal.io/server/common/primitives"
	"google.golang.org/grpc"
)

// Server is a server in the test's process.
type Server struct {
	Frontend         string // host:port
	InternalFrontend string // host:port, with internode mTLS
	Internal         *grpc.ClientConn
	Metrics          *prometheus.Registry
}

// Start runs a server on SQLite in memory that decides by the replica, and
// stops it when the test ends.
func Start(t testing.TB, policy *replica.Replica) *Server {
	t.Helper()
	return StartWith(t, temporal.Config{Replica: policy})
}

// StartWith is Start with the plugin's configuration, whose connections it
// fills in.
func StartWith(t testing.TB, with temporal.Config) *Server {
	t.Helper()
	return StartTLS(t, with, nil)
}

// StartTLS is StartWith with the TLS of the frontend; nil: plaintext.
func StartTLS(t testing.TB, with temporal.Config, frontend *tls.Config) *Server {
	t.Helper()
	config, err := server.Dev(server.DevConfig{Listen: netip.MustParseAddrPort("127.0.0.1:0"), TLS: frontend, LogLevel: "fatal"})
	if err != nil {
		t.Fatal(err)
	}
	internal := config.Address(primitives.InternalFrontendService)
	conn, err := config.DialInternalFrontend(internal)
	if err != nil {
		t.Fatal(err)
	}
	registry := prometheus.NewRegistry()
	with.InternalFrontend, with.Metrics, with.Logger = conn, registry, slog.New(slog.NewTextHandler(t.Output(), nil))
	plugin, err := temporal.New(with)
	if err != nil {
		t.Fatal(err)
	}
	s, err := server.Start(config, plugin.Options())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- plugin.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-ended, conn.Close(), s.Stop()); err != nil {
			t.Error("stopping the server:", err)
		}
	})
	return &Server{
		Frontend:         config.Address(primitives.FrontendService),
		InternalFrontend: internal,
		Internal:         conn,
		Metrics:          registry,
	}
}
