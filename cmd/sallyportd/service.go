package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.temporal.io/cloud-sdk/api/cloudservice/v1"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/sallyport-iam/sallyport"
	adminv1 "github.com/sallyport-iam/sallyport/api/sallyport/admin/v1"
	feedv1 "github.com/sallyport-iam/sallyport/api/sallyport/feed/v1"
	"github.com/sallyport-iam/sallyport/apikeys"
	"github.com/sallyport-iam/sallyport/authn"
	"github.com/sallyport-iam/sallyport/cloudapi"
	"github.com/sallyport-iam/sallyport/directory"
	"github.com/sallyport-iam/sallyport/feed"
	"github.com/sallyport-iam/sallyport/internal/page"
	"github.com/sallyport-iam/sallyport/internal/pg"
	"github.com/sallyport-iam/sallyport/internal/serve"
	"github.com/sallyport-iam/sallyport/journal"
)

// domain is everything that works on the database, wired. The packages do not
// import each other: what one needs of another it is given here.
type domain struct {
	pool      *pgxpool.Pool
	journal   *journal.Journal
	directory *directory.Directory
	keys      *apikeys.Keys
	authn     *authn.Authenticator
}

func newDomain(ctx context.Context, pool *pgxpool.Pool, regions []directory.Region, log *slog.Logger) (*domain, error) {
	d := &domain{pool: pool}
	var err error
	d.journal, err = journal.New(journal.Config{Pool: pool, Logger: log,
		Resolve: func(ctx context.Context, q pg.Querier, c sallyport.Caller) (sallyport.Caller, error) {
			return d.authn.Resolve(ctx, q, c)
		}})
	if err != nil {
		return nil, err
	}
	pages, err := page.Open(ctx, pool)
	if err != nil {
		return nil, err
	}
	d.directory, err = directory.New(directory.Config{Journal: d.journal, Pages: pages, Regions: regions,
		PrincipalEnded: func(ctx context.Context, tx *journal.Tx, principal string) error {
			return d.keys.RemoveOwned(ctx, tx, principal)
		}})
	if err != nil {
		return nil, err
	}
	d.keys, err = apikeys.New(apikeys.Config{Journal: d.journal, Pages: pages, Standing: d.directory.Standing, Logger: log})
	if err != nil {
		return nil, err
	}
	d.authn, err = authn.New(authn.Config{Pool: pool,
		APIKeys: authn.APIKeys{Kind: apikeys.CredentialKind, Authenticate: d.keys.Authenticate,
			Reauthenticate: d.keys.Reauthenticate, MarkUsed: d.keys.MarkUsed},
		Access: func(ctx context.Context, q pg.Querier, account sallyport.AccountID, p sallyport.Principal) (sallyport.Access, error) {
			access, _, err := d.directory.Access(ctx, q, account, p)
			return access, err
		}})
	if err != nil {
		return nil, err
	}
	return d, d.directory.EnsureSystem(ctx)
}

// listeners are the open sockets of a service.
type listeners struct {
	grpc      net.Listener
	tls       *tls.Config
	plaintext net.Listener // the API without TLS, of dev only; nil: none
	http      net.Listener
	httpTLS   *tls.Config  // nil: without TLS, for loopback or behind a proxy
	metrics   net.Listener // nil: none
}

func listen(address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, &sallyport.Error{Kind: sallyport.Unavailable, Msg: "cannot listen on " + address + "; is something else there?", Err: err}
	}
	return l, nil
}

// serve runs the service on the listeners until ctx ends, and then lets the
// requests under way finish. It calls ready when everything is set up.
func (d *domain) serve(ctx context.Context, on listeners, addresses map[string]string, proxies []netip.Prefix, log *slog.Logger, ready func() error) error {
	metrics := prometheus.NewRegistry()
	metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	feedServer, err := feed.New(feed.Config{Journal: d.journal, Authenticate: d.authenticateFeed, Directory: feed.Directory{
		AccountsInCell: d.directory.AccountsInCell, CellsOf: d.directory.CellsOf}, Used: d.keys.MarkUsed, Metrics: metrics, Logger: log})
	if err != nil {
		return err
	}
	cloud, err := cloudapi.New(cloudapi.Config{Directory: d.directory, Keys: d.keys, Journal: d.journal,
		Enforced: feedServer.Enforced, Addresses: addresses, Logger: log})
	if err != nil {
		return err
	}
	admin, err := cloudapi.NewAdmin(cloudapi.AdminConfig{Directory: d.directory, Keys: d.keys, Journal: d.journal, Receipt: feedServer.Receipt})
	if err != nil {
		return err
	}
	methods := cloudapi.Methods()
	methods[feedv1.FeedService_Follow_FullMethodName] = serve.OwnAuthentication
	edge, err := serve.New(serve.Config{Methods: methods, Proxies: proxies, Metrics: metrics, Logger: log,
		Ready: func(ctx context.Context) error { return d.pool.Ping(ctx) },
		Authenticate: func(ctx context.Context, c serve.Credentials, from netip.Addr, requestID string) (sallyport.Caller, error) {
			return d.authn.Authenticate(ctx, authn.Request{Authorization: c.Authorization, Certificates: c.Certificates, From: from, ID: requestID})
		}})
	if err != nil {
		return err
	}
	api := func(r grpc.ServiceRegistrar) {
		cloudservice.RegisterCloudServiceServer(r, cloud)
		adminv1.RegisterAdminServiceServer(r, admin)
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return d.journal.Run(ctx) })
	group.Go(func() error { return d.keys.Run(ctx) })
	group.Go(func() error { return feedServer.Run(ctx) })

	secure, err := edge.GRPC(on.tls, func(r grpc.ServiceRegistrar) { api(r); feedv1.RegisterFeedServiceServer(r, feedServer) })
	if err != nil {
		return err
	}
	serveGRPC(ctx, group, secure, on.grpc)
	if on.plaintext != nil {
		plain, err := edge.GRPC(nil, api)
		if err != nil {
			return err
		}
		serveGRPC(ctx, group, plain, on.plaintext)
	}
	inner, err := edge.GRPC(nil, api)
	if err != nil {
		return err
	}
	handler, err := edge.Handler(inner, cloudapi.AdminRules()...)
	if err != nil {
		return err
	}
	if on.httpTLS != nil {
		on.http = tls.NewListener(on.http, on.httpTLS)
	}
	serveHTTP(ctx, group, serve.NewHTTP(handler, log), on.http)
	if on.metrics != nil {
		serveHTTP(ctx, group, serve.NewHTTP(promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}), log), on.metrics)
	}
	group.Go(ready)
	return group.Wait()
}

func (d *domain) authenticateFeed(ctx context.Context, authorization string, from netip.Addr) (sallyport.Caller, error) {
	return d.authn.Authenticate(ctx, authn.Request{Authorization: authorization, From: from})
}

// drain is how long requests under way may take after the end was asked for.
const drain = 5 * time.Second

func serveGRPC(ctx context.Context, group *errgroup.Group, server *grpc.Server, on net.Listener) {
	group.Go(func() error {
		if err := server.Serve(on); err != nil {
			return fmt.Errorf("serving gRPC: %w", err)
		}
		return nil
	})
	group.Go(func() error {
		<-ctx.Done()
		force := time.AfterFunc(drain, server.Stop) // long streams never end by themselves
		defer force.Stop()
		server.GracefulStop()
		return nil
	})
}

func serveHTTP(ctx context.Context, group *errgroup.Group, server *http.Server, on net.Listener) {
	group.Go(func() error {
		if err := server.Serve(on); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serving HTTP: %w", err)
		}
		return nil
	})
	group.Go(func() error {
		<-ctx.Done()
		ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
		defer cancel()
		return server.Shutdown(ending)
	})
}
