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
	"github.com/sallyport-iam/sallyport/authn/token"
	"github.com/sallyport-iam/sallyport/certs"
	"github.com/sallyport-iam/sallyport/clientca"
	"github.com/sallyport-iam/sallyport/cloudapi"
	"github.com/sallyport-iam/sallyport/directory"
	"github.com/sallyport-iam/sallyport/feed"
	"github.com/sallyport-iam/sallyport/internal/mail"
	"github.com/sallyport-iam/sallyport/internal/page"
	"github.com/sallyport-iam/sallyport/internal/pg"
	"github.com/sallyport-iam/sallyport/internal/serve"
	"github.com/sallyport-iam/sallyport/internal/vault"
	"github.com/sallyport-iam/sallyport/journal"
	"github.com/sallyport-iam/sallyport/notices"
)

// domain is everything that works on the database, wired. The packages do not
// import each other: what one needs of another it is given here.
type domain struct {
	pool      *pgxpool.Pool
	journal   *journal.Journal
	directory *directory.Directory
	keys      *apikeys.Keys
	certs     *certs.Authority
	clientCAs *clientca.ClientCAs
	tokens    *token.Issuer
	authn     *authn.Authenticator
	mailer    *mail.Mailer     // nil: there are no mails
	notices   *notices.Notices // nil with mailer
}

// domainConfig is what newDomain needs beside the database.
type domainConfig struct {
	regions     []directory.Region // where namespaces can be made
	vault       *vault.Vault
	trustDomain string
	pkiURL      string                // "": certificates say nothing of CRLs and issuers
	tokens      tokenConfig           // zero: there are no tokens
	maxIssuers  int                   // of an account within 24 hours; zero: 10
	mails       mails                 // zero: none are sent
	metrics     prometheus.Registerer // nil: none are kept
	log         *slog.Logger
}

func newDomain(ctx context.Context, pool *pgxpool.Pool, c domainConfig) (*domain, error) {
	d := &domain{pool: pool}
	var err error
	d.journal, err = journal.New(journal.Config{Pool: pool, Logger: c.log, Seal: c.vault.Seal, Unseal: c.vault.Open,
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
	d.directory, err = directory.New(directory.Config{Journal: d.journal, Pages: pages, Regions: c.regions,
		PrincipalEnded: func(ctx context.Context, tx *journal.Tx, principal string) error {
			if err := d.keys.RemoveOwned(ctx, tx, principal); err != nil {
				return err
			}
			if err := d.certs.RemoveOwned(ctx, tx, principal); err != nil {
				return err
			}
			return d.tokens.RemoveOwned(ctx, tx, principal)
		},
		NamespaceChanged: func(ctx context.Context, tx *journal.Tx, before, after directory.Namespace) error {
			return d.clientCAs.NamespaceChanged(ctx, tx, before, after)
		}})
	if err != nil {
		return nil, err
	}
	d.keys, err = apikeys.New(apikeys.Config{Journal: d.journal, Pages: pages, Standing: d.directory.Standing, Logger: c.log})
	if err != nil {
		return nil, err
	}
	if err := d.certificates(pages, c); err != nil {
		return nil, err
	}
	if err := d.certs.CheckKey(ctx); err != nil {
		return nil, err
	}
	if err := d.accessTokens(pages, c); err != nil {
		return nil, err
	}
	d.authn, err = authn.New(authn.Config{Pool: pool,
		APIKeys: authn.APIKeys{Kind: apikeys.CredentialKind, Authenticate: d.keys.Authenticate,
			Reauthenticate: d.keys.Reauthenticate, MarkUsed: d.keys.MarkUsed},
		Certificates: authn.Certificates{Kind: certs.CredentialKind, Authenticate: d.certs.Authenticate,
			Reauthenticate: d.certs.Reauthenticate, MarkUsed: d.certs.MarkUsed},
		Tokens: authn.Tokens{Kind: token.CredentialKind, Authenticate: d.tokens.Authenticate,
			Reauthenticate: d.tokens.Reauthenticate, MarkUsed: d.tokens.MarkUsed},
		Access: func(ctx context.Context, q pg.Querier, account sallyport.AccountID, p sallyport.Principal) (sallyport.Access, error) {
			access, _, err := d.directory.Access(ctx, q, account, p)
			return access, err
		}})
	if err != nil {
		return nil, err
	}
	return d, d.directory.EnsureSystem(ctx)
}

// certificates wires what has to do with client certificates, and the mails
// about them.
func (d *domain) certificates(pages *page.Signer, c domainConfig) error {
	var err error
	d.certs, err = certs.New(certs.Config{Journal: d.journal, Pages: pages, Standing: d.directory.Standing,
		Vault: c.vault, TrustDomain: c.trustDomain, URL: c.pkiURL, MaxIssuersADay: c.maxIssuers, Logger: c.log, Metrics: c.metrics})
	if err != nil {
		return err
	}
	config := clientca.Config{Journal: d.journal, Pages: pages, Directory: d.directory, OperatorRoots: d.certs.Roots, Logger: c.log, Metrics: c.metrics}
	if c.mails.sender != nil {
		if err := d.sendMails(c); err != nil {
			return err
		}
		config.Warn = d.warn
	}
	d.clientCAs, err = clientca.New(config)
	return err
}

// listeners are the open sockets of a service.
type listeners struct {
	grpc      net.Listener
	tls       *tls.Config
	plaintext net.Listener // the API without TLS, of dev only; nil: none
	http      net.Listener
	httpTLS   *tls.Config  // nil: without TLS, for loopback or behind a proxy
	pki       net.Listener // CRLs and CA certificates without TLS; nil: on http only
	mtls      net.Listener // the OAuth endpoints for clients with a certificate; nil: none
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
// requests under way finish.
func (d *domain) serve(ctx context.Context, on listeners, c serveConfig) error {
	feedServer, err := d.feed(c.metrics, c.log)
	if err != nil {
		return err
	}
	cloud, err := cloudapi.New(cloudapi.Config{Directory: d.directory, Keys: d.keys, Journal: d.journal,
		Enforced: feedServer.Enforced, Addresses: c.addresses, Logger: c.log})
	if err != nil {
		return err
	}
	admin, err := cloudapi.NewAdmin(cloudapi.AdminConfig{Directory: d.directory, Keys: d.keys, Certs: d.certs, ClientCAs: d.clientCAs,
		Tokens: d.tokens, Journal: d.journal, Receipt: feedServer.Receipt})
	if err != nil {
		return err
	}
	methods := cloudapi.Methods()
	methods[feedv1.FeedService_Follow_FullMethodName] = serve.OwnAuthentication
	edge, err := serve.New(serve.Config{Methods: methods, Proxies: c.proxies, Metrics: c.metrics, Logger: c.log,
		Ready: func(ctx context.Context) error { return d.pool.Ping(ctx) }, Problems: d.problems,
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
	d.work(ctx, group)
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
	d.serveWeb(ctx, group, on, edge, handler, c)
	group.Go(c.ready)
	return group.Wait()
}

// serveConfig is how a domain is served.
type serveConfig struct {
	addresses map[string]string // of the cells' servers, by cell
	proxies   []netip.Prefix
	mails     http.Handler // shows mails under /mails; nil: they are sent
	metrics   *prometheus.Registry
	log       *slog.Logger
	ready     func() error // called when everything is set up
}

// work runs what the domain does by itself.
func (d *domain) work(ctx context.Context, group *errgroup.Group) {
	loops := []func(context.Context) error{d.journal.Run, d.keys.Run, d.certs.Run, d.clientCAs.Run, d.tokens.Run}
	if d.mailer != nil {
		loops = append(loops, d.mailer.Run, d.notices.Run)
	}
	for _, run := range loops {
		group.Go(func() error { return run(ctx) })
	}
}

// serveWeb serves everything that is HTTP. What relying parties need to check
// certificates is there for everybody.
func (d *domain) serveWeb(ctx context.Context, group *errgroup.Group, on listeners, edge *serve.Server, api http.Handler, c serveConfig) {
	mux, pki := http.NewServeMux(), d.certs.PKI()
	mux.Handle("/", api)
	mux.Handle("/pki/", pki)
	tokens := edge.FromProxy(d.tokens.Handler())
	mux.Handle("/oauth/", tokens)
	mux.Handle("/.well-known/", tokens)
	if c.mails != nil {
		mux.Handle("/mails", c.mails)
		mux.Handle("/mails/", c.mails)
	}
	if on.httpTLS != nil {
		on.http = tls.NewListener(on.http, on.httpTLS)
	}
	serveHTTP(ctx, group, serve.NewHTTP(mux, c.log), on.http)
	if on.pki != nil {
		serveHTTP(ctx, group, serve.NewHTTP(pki, c.log), on.pki)
	}
	if on.mtls != nil {
		serveHTTP(ctx, group, serve.NewHTTP(edge.FromProxy(d.tokens.MTLSHandler()), c.log), tls.NewListener(on.mtls, withCertificates(on.tls)))
	}
	if on.metrics != nil {
		serveHTTP(ctx, group, serve.NewHTTP(promhttp.HandlerFor(c.metrics, promhttp.HandlerOpts{}), c.log), on.metrics)
	}
}

func newMetrics() *prometheus.Registry {
	metrics := prometheus.NewRegistry()
	metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return metrics
}

func (d *domain) authenticateFeed(ctx context.Context, authorization string, from netip.Addr) (sallyport.Caller, error) {
	return d.authn.Authenticate(ctx, authn.Request{Authorization: authorization, From: from})
}

// certificateUsed keeps what authorizers tell of client certificates: as
// evidence for the namespace, and as the last use of one of the managed CA.
func (d *domain) certificateUsed(use feed.CertificateUse) {
	d.clientCAs.MarkSeen(clientca.Use(use))
	if use.Managed && use.Refused == "" {
		d.certs.MarkUsed(use.Account, use.Fingerprint, use.At)
	}
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
