package main

import (
	"context"
	"os"
	"time"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/internal/pg"
	"github.com/sallyport-iam/sallyport/internal/serve"
)

// serveCommand is the service in production.
type serveCommand struct {
	serving
	DatabaseURL string `help:"PostgreSQL's URL." required:"" placeholder:"URL"`
	TLSCert     string `help:"PEM file of the server's certificate chain." required:"" placeholder:"FILE"`
	TLSKey      string `help:"PEM file of its key." required:"" placeholder:"FILE"`
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
	d, err := newDomain(ctx, pool, directoryRegions, log)
	if err != nil {
		return err
	}
	on := listeners{tls: tlsConfig, httpTLS: tlsConfig}
	if on.grpc, err = listen(c.Listen); err != nil {
		return err
	}
	if on.http, err = listen(c.HTTPListen); err != nil {
		return err
	}
	if c.MetricsListen != "" {
		if on.metrics, err = listen(c.MetricsListen); err != nil {
			return err
		}
	}
	return d.serve(ctx, on, addresses, proxies, log, func() error {
		log.InfoContext(ctx, "serving", "grpc", on.grpc.Addr().String(), "http", on.http.Addr().String())
		return nil
	})
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
