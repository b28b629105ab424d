package main

import (
	"context"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/internal/pg"
	"github.com/sallyport-iam/sallyport/internal/serve"
	"github.com/sallyport-iam/sallyport/internal/vault"
)

// serveCommand is the service in production.
type serveCommand struct {
	serving
	mailFlags
	DatabaseURL string `help:"PostgreSQL's URL." required:"" placeholder:"URL"`
	TLSCert     string `help:"PEM file of the server's certificate chain." required:"" placeholder:"FILE"`
	TLSKey      string `help:"PEM file of its key." required:"" placeholder:"FILE"`
	OperatorKey string `help:"File of the operator's key, which encrypts the secrets in the database." required:"" placeholder:"FILE"`
	TrustDomain string `help:"Host of the SPIFFE ids that the managed CA gives service accounts. Changing it replaces all accounts' CAs." required:"" placeholder:"HOST"`
	PKIURL      string `name:"pki-url" help:"Where others reach /pki/ of --http-listen or --pki-listen, for certificates to name. Empty: they name nothing." placeholder:"URL"`
	PKIListen   string `name:"pki-listen" help:"Address of /pki/ alone, without TLS: CRLs are signed, and their readers have no use for it. Empty: on --http-listen only." placeholder:"HOST:PORT"`
	MaxIssuers  int    `name:"max-issuers-a-day" help:"How many CAs of its own an account can have made within 24 hours: the first, and one after each that it revokes." default:"10" placeholder:"N"`
}

// Run serves until ctx ends. It refuses a database whose schema is older than
// the program, and never migrates it.
func (c *serveCommand) Run(ctx context.Context, root *commands) error {
	log := root.logger(os.Stderr)
	if c.Regions == "" {
		return sallyport.Invalid.Errorf("give --regions, so that namespaces can be made somewhere")
	}
	regions, err := readRegions(c.Regions)
	if err != nil {
		return err
	}
	proxies, err := c.proxies()
	if err != nil {
		return err
	}
	config, err := c.domainConfig(log)
	if err != nil {
		return err
	}
	tlsConfig, err := serve.FileTLS(c.TLSCert, c.TLSKey, time.Now)
	if err != nil {
		return err
	}
	pool, err := pg.Open(ctx, c.DatabaseURL)
	if err != nil {
		return err
	}
	defer pool.Close()
	if err := pg.CheckSchema(ctx, pool); err != nil {
		return err
	}
	directoryRegions, addresses := directoryRegions(regions)
	config.regions = directoryRegions
	metrics := newMetrics()
	config.metrics = metrics
	d, err := newDomain(ctx, pool, config)
	if err != nil {
		return err
	}
	on := listeners{tls: tlsConfig, httpTLS: tlsConfig}
	for _, l := range []struct {
		address string
		on      *net.Listener
	}{{c.Listen, &on.grpc}, {c.HTTPListen, &on.http}, {c.PKIListen, &on.pki}, {c.MTLSListen, &on.mtls}, {c.MetricsListen, &on.metrics}} {
		if l.address == "" {
			continue
		}
		if *l.on, err = listen(l.address); err != nil {
			return err
		}
	}
	return d.serve(ctx, on, serveConfig{addresses: addresses, proxies: proxies, metrics: metrics, log: log, ready: func() error {
		log.InfoContext(ctx, "serving", "grpc", on.grpc.Addr().String(), "http", on.http.Addr().String())
		return nil
	}})
}

// domainConfig reads what is needed before the database is.
func (c *serveCommand) domainConfig(log *slog.Logger) (domainConfig, error) {
	config := domainConfig{trustDomain: c.TrustDomain, maxIssuers: c.MaxIssuers, log: log}
	if err := checkTrustDomain(c.TrustDomain); err != nil {
		return config, err
	}
	var err error
	if config.pkiURL, err = checkPKIURL(c.PKIURL); err != nil {
		return config, err
	}
	if config.tokens, err = c.forOthers(); err != nil {
		return config, err
	}
	if config.vault, err = vault.Open(c.OperatorKey); err != nil {
		return config, err
	}
	if config.mails, err = c.mails(); err != nil {
		return config, err
	}
	if config.mails.sender == nil {
		log.Warn("no mails are sent: nobody is told that a CA expires; give --smtp")
	}
	return config, nil
}

// migrateCommand is the only thing that changes a production database's schema.
type migrateCommand struct{ database }

// Run migrates the database.
func (c *migrateCommand) Run(ctx context.Context, out env) error {
	pool, err := c.open(ctx)
	if err != nil {
		return err
	}
	defer pool.Close()
	return pg.Migrate(ctx, pool)
}
