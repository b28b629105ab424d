package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/netip"
	"net/url"
	"time"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/apikeys"
	"github.com/sallyport-iam/sallyport/authn/token"
	"github.com/sallyport-iam/sallyport/internal/fetch"
	"github.com/sallyport-iam/sallyport/internal/page"
)

// tokenFlags say which access tokens there are.
type tokenFlags struct {
	IssuerURL     string   `name:"issuer-url" help:"Where others reach --http-listen: the issuer of access tokens, without a path. Empty: there are no access tokens; dev takes its own address." placeholder:"URL"`
	TokenAudience []string `help:"What access tokens are for: this platform's name. Repeat for others; the first is what a token gets that asks for none. Empty: the issuer's URL." placeholder:"NAME"`
	AllowNetwork  []string `help:"Private networks in which the keys of other issuers are fetched if a federation rule names one there. Repeat for others." placeholder:"CIDR"`
	MTLSListen    string   `name:"mtls-listen" help:"Address of /oauth/token for clients with a certificate, to which their tokens are bound. Empty: none." placeholder:"HOST:PORT"`
	MTLSURL       string   `name:"mtls-url" help:"Where others reach --mtls-listen." placeholder:"URL"`
}

// tokenConfig is what the flags say.
type tokenConfig struct {
	issuer    string // "": there are no tokens
	audiences []string
	mtlsURL   string
	allowed   []netip.Prefix
}

func (f tokenFlags) config() (tokenConfig, error) {
	c := tokenConfig{issuer: f.IssuerURL, audiences: f.TokenAudience, mtlsURL: f.MTLSURL}
	if c.issuer != "" && len(c.audiences) == 0 {
		c.audiences = []string{c.issuer}
	}
	for _, text := range f.AllowNetwork {
		p, err := netip.ParsePrefix(text)
		if err != nil || p != p.Masked() {
			return c, sallyport.Invalid.Errorf("--allow-network %q is not a network such as 10.0.0.0/8", text)
		}
		c.allowed = append(c.allowed, p)
	}
	return c, nil
}

// forOthers is the configuration of a service that others reach.
func (f tokenFlags) forOthers() (tokenConfig, error) {
	switch {
	case f.IssuerURL == "" && (len(f.TokenAudience) > 0 || f.MTLSListen != ""):
		return tokenConfig{}, sallyport.Invalid.Errorf("--token-audience and --mtls-listen need --issuer-url")
	case (f.MTLSListen == "") != (f.MTLSURL == ""):
		return tokenConfig{}, sallyport.Invalid.Errorf("--mtls-listen and --mtls-url belong together")
	}
	for name, text := range map[string]string{"--issuer-url": f.IssuerURL, "--mtls-url": f.MTLSURL} {
		u, err := url.Parse(text)
		if text != "" && (err != nil || u.Scheme != "https" || u.Host == "" || text != "https://"+u.Host) {
			return tokenConfig{}, sallyport.Invalid.Errorf("%s %q is not an address without a path, such as https://id.example.com", name, text)
		}
	}
	return f.config()
}

// forDev is the configuration of a service on loopback.
func (f tokenFlags) forDev(httpURL, mtlsURL string) (tokenConfig, error) {
	if f.IssuerURL == "" {
		f.IssuerURL = httpURL
	}
	f.MTLSURL = mtlsURL
	f.AllowNetwork = append([]string{"127.0.0.0/8", "::1/128"}, f.AllowNetwork...)
	return f.config()
}

// accessTokens wires what has to do with access tokens.
func (d *domain) accessTokens(pages *page.Signer, c domainConfig) error {
	var err error
	d.tokens, err = token.New(token.Config{Journal: d.journal, Pages: pages, Vault: c.vault,
		Issuer: c.tokens.issuer, Audiences: c.tokens.audiences, MTLSURL: c.tokens.mtlsURL,
		Standing: d.directory.Standing, NamespaceIDs: d.directory.NamespaceIDs,
		Keys: token.APIKeys{Kind: apikeys.CredentialKind, Authenticate: d.keys.Authenticate, Reauthenticate: d.keys.Reauthenticate,
			Ends: d.keys.Ends, MarkUsed: d.keys.MarkUsed},
		Certificate: d.certs.CheckBound,
		Fetch:       fetch.New(fetch.Config{Allowed: c.tokens.allowed}), Logger: c.log, Metrics: c.metrics})
	return err
}

// problems are what the operator should look at.
func (d *domain) problems(ctx context.Context) []string {
	problems := d.certs.Problems(ctx)
	keys, err := d.tokens.Keys(ctx)
	if err != nil {
		return append(problems, "the keys that sign access tokens cannot be read")
	}
	for _, key := range keys {
		if key.Problem != "" {
			problems = append(problems, "token key "+key.ID+": "+key.Problem)
		}
	}
	return problems
}

// withCertificates is a server's configuration that lets in only clients with a
// certificate, whoever issued it: a token is bound to the certificate, and the API
// key or the other issuer's token says whose it is (RFC 8705 §3).
func withCertificates(server *tls.Config) *tls.Config {
	config := server.Clone()
	config.ClientAuth = tls.RequireAnyClientCert
	return config
}

type tokenKeyCommands struct {
	List   tokenKeyList   `cmd:"" help:"List the keys that sign access tokens, newest first."`
	Rotate tokenKeyRotate `cmd:"" help:"Sign with the next key from now on. It happens by itself every 30 days."`
	Revoke tokenKeyRevoke `cmd:"" help:"End a key that somebody may have stolen, and with it all access tokens that it signed, and show where that is in force. Exit status 3: not everywhere (yet)."`
}

// withTokens gives a command the domain with the issuer that the keys there are for.
func (k keyed) withTokens(ctx context.Context, do func(*domain) error) error {
	var c tokenConfig
	err := k.withDomain(ctx, func(d *domain) error {
		keys, err := d.tokens.Keys(ctx)
		if err != nil {
			return err
		}
		for _, key := range keys {
			if c.issuer == "" || key.State == token.KeyActive {
				c.issuer, c.audiences = key.Issuer, key.Audiences
			}
		}
		if c.issuer == "" {
			return sallyport.NotFound.Errorf("there are no keys yet; the service makes them when it is started with --issuer-url")
		}
		return nil
	})
	if err != nil {
		return err
	}
	return k.withConfig(ctx, domainConfig{trustDomain: devTrustDomain, tokens: c}, do)
}

type tokenKeyList struct{ keyed }

// Run lists the keys.
func (c *tokenKeyList) Run(ctx context.Context, out env) error {
	return c.withTokens(ctx, func(d *domain) error {
		keys, err := d.tokens.Keys(ctx)
		if err != nil {
			return err
		}
		for _, key := range keys {
			if err := printTokenKey(out.stdout, key); err != nil {
				return err
			}
		}
		return nil
	})
}

type tokenKeyRotate struct{ keyed }

// Run makes the next key the active one.
func (c *tokenKeyRotate) Run(ctx context.Context, out env) error {
	return c.withTokens(ctx, func(d *domain) error {
		key, _, err := d.tokens.RotateKey(ctx, systemOperator())
		if err != nil {
			return err
		}
		return printTokenKey(out.stdout, key)
	})
}

type tokenKeyRevoke struct {
	keyed
	ID   string        `arg:"" help:"The key's id (kid)."`
	Wait time.Duration `help:"How long to wait for authorizers to enforce it." default:"5s" placeholder:"5s"`
}

// Run revokes the key and waits for the proof.
func (c *tokenKeyRevoke) Run(ctx context.Context, out env) error {
	return c.withTokens(ctx, func(d *domain) error {
		key, done, err := d.tokens.RevokeKey(ctx, systemOperator(), c.ID)
		if err != nil {
			return err
		}
		if err := printTokenKey(out.stdout, key); err != nil {
			return err
		}
		if err := d.journal.Notify(ctx); err != nil {
			return err
		}
		receipt, err := d.receipt(ctx, sallyport.SystemAccount, done.Head.Revision, c.Wait)
		if err != nil {
			return fmt.Errorf("the key is revoked (operation %s), but not where that is in force: %w", done.OperationID, err)
		}
		return printReceipt(out.stdout, done.OperationID, receipt)
	})
}

// printTokenKey prints a key on one line: its id, its state and since when, its
// issuer, and what is wrong with it.
func printTokenKey(w io.Writer, k token.SigningKey) error {
	since := k.Created
	for _, later := range []time.Time{k.Activated, k.Retired, k.Revoked} {
		if !later.IsZero() {
			since = later
		}
	}
	state := string(k.State)
	if k.Problem != "" {
		state += " (" + k.Problem + ")"
	}
	_, err := fmt.Fprintf(w, "%s  %s  since %s  %s\n", k.ID, state, since.Format(time.RFC3339), k.Issuer)
	return err
}
