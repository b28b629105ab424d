package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/certs"
	"github.com/sallyport-iam/sallyport/credential"
	"github.com/sallyport-iam/sallyport/internal/mail"
	"github.com/sallyport-iam/sallyport/internal/pg"
	"github.com/sallyport-iam/sallyport/internal/pgserver"
	"github.com/sallyport-iam/sallyport/internal/serve"
	"github.com/sallyport-iam/sallyport/internal/vault"
)

// devCommand is the whole service on loopback.
type devCommand struct {
	serving
	Data            string `help:"Folder for the database, the development CA and the first credentials." default:".data" placeholder:"DIR"`
	PostgresBin     string `help:"Folder with PostgreSQL's programs. Empty: look for them." placeholder:"DIR"`
	PlaintextListen string `help:"Address of the gRPC API without TLS, for clients that cannot be told of the development CA." default:"127.0.0.1:7444" placeholder:"HOST:PORT"`
	CellAddress     string `help:"Where the cell's Temporal server is reached, for display." default:"127.0.0.1:7233" placeholder:"HOST:PORT"`
	ReadyFile       string `help:"JSON file to write when everything serves." placeholder:"FILE"`
}

// readiness is what dev says of itself in the ready file.
type readiness struct {
	GRPC       string `json:"grpc"`
	Plaintext  string `json:"plaintext"`
	HTTP       string `json:"http"`
	MTLS       string `json:"mtls,omitempty"`
	Metrics    string `json:"metrics,omitempty"`
	CA         string `json:"ca"`
	Account    string `json:"account"`
	Key        string `json:"key"` // of the account's owner
	KeyFile    string `json:"key_file"`
	Authorizer string `json:"authorizer_key_file"` // for cell "local"
}

// Run serves until ctx ends or PostgreSQL does.
func (c *devCommand) Run(ctx context.Context, root *commands, out env) error {
	log := root.logger(os.Stderr)
	for _, address := range []string{c.Listen, c.HTTPListen, c.PlaintextListen, c.MTLSListen, c.MetricsListen} {
		if err := loopback(address); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(c.Data, 0o700); err != nil {
		return fmt.Errorf("making the data folder: %w", err)
	}
	data, err := filepath.Abs(c.Data)
	if err != nil {
		return err
	}
	server, err := pgserver.Start(ctx, pgserver.Config{Dir: filepath.Join(data, "postgres"), BinDir: c.PostgresBin, Logger: log})
	if err != nil {
		return err
	}
	defer func() {
		if err := server.Stop(); err != nil {
			log.Error("stopping PostgreSQL", "error", err)
		}
	}()
	url := server.URL("postgres")
	pool, err := pg.Open(ctx, url)
	if err != nil {
		return err
	}
	defer pool.Close()
	if err := pg.Migrate(ctx, pool); err != nil {
		return err
	}
	if err := writePrivate(filepath.Join(data, databaseURLFile), url+"\n"); err != nil {
		return err
	}
	regions := devRegions(c.CellAddress)
	if c.Regions != "" {
		if regions, err = readRegions(c.Regions); err != nil {
			return err
		}
	}
	proxies, err := c.proxies()
	if err != nil {
		return err
	}
	on, ready, err := c.listen(filepath.Join(data, "ca"))
	if err != nil {
		return err
	}
	metrics := newMetrics()
	config := serveConfig{proxies: proxies, metrics: metrics, log: log,
		ready: func() error { return ready.announce(out.stdout, c.ReadyFile, c.Data) }}
	outbox, err := mail.NewOutbox(pool)
	if err != nil {
		return err
	}
	config.mails = outbox.Handler()
	domainConfig := domainConfig{trustDomain: devTrustDomain, pkiURL: ready.HTTP, metrics: metrics, log: log,
		mails: mails{outbox, mail.Address{Name: "Sallyport", Email: "sallyport@example.com"}}}
	domainConfig.regions, config.addresses = directoryRegions(regions)
	if domainConfig.tokens, err = c.forDev(ready.HTTP, ready.MTLS); err != nil {
		return err
	}
	if domainConfig.vault, err = devVault(filepath.Join(data, operatorKeyFile)); err != nil {
		return err
	}
	d, err := newDomain(ctx, pool, domainConfig)
	if err != nil {
		return err
	}
	if err := d.devRoot(ctx); err != nil {
		return err
	}
	if err := d.devCredentials(ctx, data, regions[0].Cell, &ready); err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return d.serve(ctx, on, config) })
	group.Go(func() error {
		select {
		case <-server.Done():
			return sallyport.Unavailable.Errorf("PostgreSQL ended")
		case <-ctx.Done():
			return nil
		}
	})
	return group.Wait()
}

// loopback refuses an address that others could reach: dev has no secrets that
// are worth the name, and a port without TLS.
func loopback(address string) error {
	if address == "" {
		return nil
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return sallyport.Invalid.Errorf("%q is not an address such as 127.0.0.1:7443", address)
	}
	if ip, err := netip.ParseAddr(host); host == "localhost" || (err == nil && ip.IsLoopback()) {
		return nil
	}
	return sallyport.Invalid.Errorf("dev serves on loopback only, not on %s; use `sallyportd serve` for others", address)
}

func (c *devCommand) listen(caDir string) (listeners, readiness, error) {
	var on listeners
	certificate, err := serve.DevCA(caDir, time.Now())
	if err != nil {
		return on, readiness{}, err
	}
	if on.tls, err = serve.FileTLS(certificate.CertFile, certificate.KeyFile, time.Now); err != nil {
		return on, readiness{}, err
	}
	ready := readiness{CA: certificate.CAFile}
	for _, l := range []struct {
		address string
		on      *net.Listener
		shown   *string
		prefix  string
	}{
		{c.Listen, &on.grpc, &ready.GRPC, ""}, {c.PlaintextListen, &on.plaintext, &ready.Plaintext, ""},
		{c.HTTPListen, &on.http, &ready.HTTP, "http://"}, {c.MTLSListen, &on.mtls, &ready.MTLS, "https://"},
		{c.MetricsListen, &on.metrics, &ready.Metrics, "http://"},
	} {
		if l.address == "" {
			continue
		}
		if *l.on, err = listen(l.address); err != nil {
			return on, ready, err
		}
		*l.shown = l.prefix + (*l.on).Addr().String()
	}
	return on, ready, nil
}

// devTrustDomain is nobody's (RFC 2606).
const devTrustDomain = "dev.sallyport.invalid"

// devVault opens the operator's key, and makes one where it is missing.
func devVault(file string) (*vault.Vault, error) {
	if err := vault.Create(file); err != nil && !errors.Is(err, sallyport.AlreadyExists) {
		return nil, err
	}
	return vault.Open(file)
}

// devRoot makes the managed CA's root, unless there is one.
func (d *domain) devRoot(ctx context.Context) error {
	_, err := d.certs.InitRoot(ctx, systemOperator(), certs.RootParams{Name: "Sallyport development"})
	if errors.Is(err, sallyport.AlreadyExists) {
		return nil
	}
	return err
}

// devCredentials makes, where they are missing, an account with its owner's key
// and an authorizer of the cell with its key, and keeps the keys in the data folder.
func (d *domain) devCredentials(ctx context.Context, data, cell string, ready *readiness) error {
	ready.KeyFile, ready.Authorizer = filepath.Join(data, "owner-key"), filepath.Join(data, "authorizer-key")
	if err := d.devOwner(ctx, ready); err != nil {
		return err
	}
	_, err := os.Stat(ready.Authorizer)
	name := "dev-" + cell
	authorizer, findErr := d.authorizer(ctx, name)
	switch {
	case err == nil && findErr == nil:
		return nil
	case findErr != nil && !errors.Is(findErr, sallyport.NotFound):
		return findErr
	}
	return keyOut{ready.Authorizer}.deliver(io.Discard, func() (credential.Secret, error) {
		if findErr != nil {
			return d.createAuthorizer(ctx, name, cell)
		}
		return d.operatorKey(ctx, systemOperator(), principalOf(authorizer), "authorizer")
	})
}

func (d *domain) devOwner(ctx context.Context, ready *readiness) error {
	key, err := os.ReadFile(ready.KeyFile)
	if err == nil {
		ready.Key = strings.TrimSpace(string(key))
		parsed, _, err := credential.ParseAPIKey(ready.Key)
		if err != nil {
			return fmt.Errorf("%s: %w", ready.KeyFile, err)
		}
		ready.Account = string(parsed.Account)
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("reading the owner's key: %w", err)
	}
	return keyOut{ready.KeyFile}.deliver(io.Discard, func() (credential.Secret, error) {
		made, err := d.createAccount(ctx, "", "Development", "owner@example.com")
		ready.Account, ready.Key = string(made.account), made.key.Reveal()
		return made.key, err
	})
}

func (r readiness) announce(w io.Writer, readyFile, data string) error {
	fmt.Fprintf(w, `
Sallyport is ready.

  API, gRPC with TLS   %s   (CA: %s)
  API, gRPC, no TLS    %s
  API, HTTP/JSON       %s
  access tokens        %s/oauth/token
  mails                %s/mails
  account              %s, owner's key in %s

Try:
  curl -s -H "Authorization: Bearer $(cat %s/owner-key)" %s/cloud/current-identity
  bin/sallyport login --address %s --ca %s --api-key-file %s/owner-key && bin/sallyport whoami
  bin/sallyport cert issuers   (the CA that issues client certificates; more: doc/certificates.md)
Or see the whole story, on a real Temporal server:
  make demo
`, r.GRPC, r.CA, r.Plaintext, r.HTTP, r.HTTP, r.HTTP, r.Account, r.KeyFile, data, r.HTTP, r.GRPC, r.CA, data)
	if readyFile == "" {
		return nil
	}
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return writePrivate(readyFile, string(text)+"\n")
}
