// Package server puts a Temporal server together with an authorizer: from the
// server's own YAML, or on SQLite for development.
package server

import (
	"errors"
	"fmt"
	"net"
	"strconv"

	"go.temporal.io/server/common/config"
	"go.temporal.io/server/common/dynamicconfig"
	"go.temporal.io/server/common/log"
	"go.temporal.io/server/common/membership/static"
	"go.temporal.io/server/common/primitives"
	"go.temporal.io/server/common/rpc/encryption"
	"go.temporal.io/server/temporal"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
)

// Config is what a Temporal server is started from.
type Config struct {
	Temporal *config.Config
	Services []string // names, as Services gives them
	TLS      encryption.TLSConfigProvider
	Dynamic  dynamicconfig.Client
	Hosts    map[primitives.ServiceName]static.Hosts // nil: hosts find each other by membership
	Logger   log.Logger
}

// Services are those that a server of one process runs: Temporal's defaults
// and the internal frontend, without which the server's own workers would have
// to be let in by the frontend that tenants use.
func Services() []string {
	return append([]string{string(primitives.InternalFrontendService)}, temporal.DefaultServices...)
}

// Start starts the services with the options of an authorizer. It returns when
// they run.
func Start(c Config, options []temporal.ServerOption) (temporal.Server, error) {
	all := []temporal.ServerOption{
		temporal.WithConfig(c.Temporal), // first: others read it
		temporal.ForServices(c.Services),
		temporal.WithLogger(refusalsLogger{c.Logger}),
		temporal.WithTLSConfigFactory(c.TLS),
		temporal.WithDynamicConfigClient(c.Dynamic),
	}
	if c.Hosts != nil {
		all = append(all, temporal.WithStaticHosts(c.Hosts))
	}
	s, err := temporal.NewServer(append(all, options...)...)
	if err != nil {
		return nil, fmt.Errorf("setting up the Temporal server: %w", err)
	}
	if err := s.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("starting the Temporal server: %w", err), s.Stop())
	}
	return s, nil
}

// Serves reports whether the service runs in this process.
func (c Config) Serves(service primitives.ServiceName) bool {
	for _, s := range c.Services {
		if s == string(service) {
			return true
		}
	}
	return false
}

// Address is where a service of this process listens, as it is reached from
// this machine.
func (c Config) Address(service primitives.ServiceName) string {
	rpc := c.Temporal.Services[string(service)].RPC
	host := "127.0.0.1"
	if ip := net.ParseIP(rpc.BindOnIP); ip != nil && !ip.IsUnspecified() {
		host = rpc.BindOnIP
	}
	return net.JoinHostPort(host, strconv.Itoa(rpc.GRPCPort))
}

// DialInternalFrontend connects to the internal frontend at the address with
// the certificate that the server's own services show each other.
func (c Config) DialInternalFrontend(address string) (*grpc.ClientConn, error) {
	tlsConfig, err := c.TLS.GetInternodeClientConfig()
	if err != nil {
		return nil, fmt.Errorf("loading the internode certificate: %w", err)
	}
	if tlsConfig == nil {
		return nil, errors.New("the internal frontend needs internode TLS: set global.tls.internode")
	}
	return grpc.NewClient(address, grpc.WithTransportCredentials(credentials.NewTLS(tlsConfig)))
}
