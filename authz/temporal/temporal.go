// Package temporal is Sallyport's authorizer for the Temporal server: a claim
// mapper and an authorizer that decide every call from a replica, interceptors
// that end long polls with the credential they were begun with and that show
// each caller its own namespaces only, and the reconciler that keeps the
// server's namespaces as the control plane wants them.
//
// The server must run its internal-frontend service with internode mTLS: the
// server's own workers come through there, with claims that only the server can
// make. It must expose authorizer errors (frontend.exposeAuthorizerErrors),
// since "unavailable" would otherwise look like a denial. Clients come with an
// API key, a token or, where the server's TLS is FrontendTLS's, with a certificate.
package temporal

//go:generate go run ./internal/genmethods ../temporal_methods.go

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sallyport-iam/sallyport/authz/replica"
	"go.temporal.io/server/common/authorization"
	"go.temporal.io/server/common/config"
	"go.temporal.io/server/temporal"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
)

// Config is what a Plugin is made from.
type Config struct {
	Replica *replica.Replica // required
	// InternalFrontend is the server's internal frontend. Without it (nil)
	// namespaces are not reconciled, and what is known only from there is denied:
	// namespaces by id and Nexus endpoints.
	InternalFrontend grpc.ClientConnInterface
	// NamespaceGrace is how long a namespace stays on the server whose account left
	// the cell, or of whose removal there is no proof. Zero: an hour.
	NamespaceGrace time.Duration
	Metrics        prometheus.Registerer // nil: none
	Logger         *slog.Logger          // nil: nothing is logged
}

// Plugin is the authorizer of one server process.
type Plugin struct {
	replica    *replica.Replica
	reconciler *reconciler // nil without an internal frontend
	polls      polls
	metrics    *metrics
}

// New makes a Plugin. It decides at once; Run does the rest.
func New(c Config) (*Plugin, error) {
	if c.Replica == nil {
		return nil, errors.New("a Temporal plugin needs a replica")
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	metrics, err := newMetrics(c.Metrics)
	if err != nil {
		return nil, err
	}
	p := &Plugin{replica: c.Replica, metrics: metrics}
	p.polls.open = map[*poll]struct{}{}
	if c.InternalFrontend != nil {
		p.reconciler = newReconciler(c, metrics)
	}
	return p, nil
}

// Options are what the server has to be made with, after its configuration.
func (p *Plugin) Options() []temporal.ServerOption {
	return []temporal.ServerOption{
		temporal.WithAuthorizer(p),
		temporal.WithClaimMapper(func(*config.Config) authorization.ClaimMapper { return p.ClaimMapper() }),
		temporal.WithChainedFrontendGrpcInterceptors(p.interceptPoll, p.interceptListNamespaces),
	}
}

// ClaimMapper is the claim mapper whose claims Authorize decides on.
func (p *Plugin) ClaimMapper() authorization.ClaimMapper { return claimMapper{p.replica} }

// Run ends the waiting calls of credentials that have ended and reconciles namespaces,
// until ctx ends.
func (p *Plugin) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { p.watchPolls(ctx); return nil })
	if p.reconciler != nil {
		g.Go(func() error { p.reconciler.run(ctx); return nil })
	}
	return g.Wait()
}
