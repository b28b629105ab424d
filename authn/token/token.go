// Package token gives out the access tokens of service accounts and checks them:
// the OAuth endpoints (client credentials, token exchange, introspection), the
// keys that sign, and the federation rules by which workloads of other issuers
// get tokens without a secret of ours.
//
// A token is good for minutes, and dies at once with what it was made with: its
// signing key, its API key or rule, its service account.
package token

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"net/url"
	"runtime"
	"slices"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/credential"
	"github.com/sallyport-iam/sallyport/directory"
	"github.com/sallyport-iam/sallyport/internal/fetch"
	"github.com/sallyport-iam/sallyport/internal/lastuse"
	"github.com/sallyport-iam/sallyport/internal/page"
	"github.com/sallyport-iam/sallyport/internal/pg"
	"github.com/sallyport-iam/sallyport/internal/vault"
	"github.com/sallyport-iam/sallyport/journal"
)

// CredentialKind is the Kind of a sallyport.Credential that is a token. Its ID is
// the token's jti.
const CredentialKind = "token"

// APIKeys is how API keys are checked, with which tokens are got. All of it is required.
type APIKeys struct {
	// Kind of the credentials that it makes.
	Kind string
	// Authenticate proves a caller, without access, by an API key; Reauthenticate
	// that a caller's API key, by id, still proves that principal. They answer
	// Unauthenticated when it does not.
	Authenticate   func(ctx context.Context, q pg.Querier, token string, from netip.Addr) (sallyport.Caller, error)
	Reauthenticate func(ctx context.Context, q pg.Querier, caller sallyport.Caller) (sallyport.Caller, error)
	// Ends is when the key is no longer good, as far as is known now.
	Ends func(ctx context.Context, q pg.Querier, account sallyport.AccountID, id string) (time.Time, error)
	// MarkUsed notes that the key was used. It must not block.
	MarkUsed func(account sallyport.AccountID, id string, at time.Time)
}

// Config of an Issuer.
type Config struct {
	Journal *journal.Journal // required
	Pages   *page.Signer     // required
	Vault   *vault.Vault     // seals the signing keys; required
	// Issuer is the public URL of the service, without a path: "https://id.example.com".
	// Empty: no tokens are given out, and none are accepted.
	Issuer string
	// Audiences are what tokens can be for: the platform's names. The first is the
	// default. Required with Issuer.
	Audiences []string
	// MTLSURL is the public URL of the listener that MTLSHandler serves, without a
	// path; empty: there is none.
	MTLSURL string
	// Standing reads how a principal of the account stands, NotFound if there is
	// none. Required.
	Standing func(ctx context.Context, q pg.Querier, account sallyport.AccountID, p sallyport.Principal) (directory.Standing, error)
	// NamespaceIDs finds the ids of the named namespaces; what is not there is left
	// out. Required.
	NamespaceIDs func(ctx context.Context, q pg.Querier, account sallyport.AccountID, names []string) (map[string]sallyport.NamespaceID, error)
	Keys         APIKeys // required
	// Certificate refuses, with Unauthenticated, a client certificate that no token of
	// the account may be bound to any more: what its TLS client presented, the leaf
	// first. Nil: whatever the client has the key of is good.
	Certificate func(ctx context.Context, q pg.Querier, account sallyport.AccountID, presented []*x509.Certificate) error
	Fetch       *fetch.Client // gets other issuers' keys; nil: one that reaches public addresses only
	// From is where a request comes from, for limits and the sources of API keys;
	// nil: what RemoteAddr says.
	From    func(r *http.Request) netip.Addr
	Now     func() time.Time      // nil: time.Now
	Logger  *slog.Logger          // nil: slog.Default()
	Metrics prometheus.Registerer // nil: none are kept
}

// Issuer gives out tokens and checks them. It is safe for concurrent use.
type Issuer struct {
	journal      *journal.Journal
	pool         *pgxpool.Pool
	pages        *page.Signer
	vault        *vault.Vault
	url          string
	audiences    []string
	mtlsURL      string
	standing     func(context.Context, pg.Querier, sallyport.AccountID, sallyport.Principal) (directory.Standing, error)
	namespaceIDs func(context.Context, pg.Querier, sallyport.AccountID, []string) (map[string]sallyport.NamespaceID, error)
	apiKeys      APIKeys
	certificate  func(context.Context, pg.Querier, sallyport.AccountID, []*x509.Certificate) error
	from         func(*http.Request) netip.Addr
	now          func() time.Time
	log          *slog.Logger
	metrics      metrics
	signers      signers
	verified     verified
	external     *keySets
	checking     chan struct{} // signatures of other issuers' tokens that are checked now
	limits       limits
	uses         *lastuse.Uses
	published    published
}

// New makes an Issuer. Run must be running for there to be keys.
func New(c Config) (*Issuer, error) {
	k := c.Keys
	if c.Journal == nil || c.Pages == nil || c.Vault == nil || c.Standing == nil || c.NamespaceIDs == nil ||
		k.Kind == "" || k.Authenticate == nil || k.Reauthenticate == nil || k.Ends == nil || k.MarkUsed == nil {
		return nil, errors.New("token: Config needs Journal, Pages, Vault, Standing, NamespaceIDs and all of Keys")
	}
	if err := checkURLs(c); err != nil {
		return nil, err
	}
	if c.Fetch == nil {
		c.Fetch = fetch.New(fetch.Config{})
	}
	if c.From == nil {
		c.From = remoteAddress
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Certificate == nil {
		c.Certificate = func(context.Context, pg.Querier, sallyport.AccountID, []*x509.Certificate) error { return nil }
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	i := &Issuer{
		journal: c.Journal, pool: c.Journal.Pool(), pages: c.Pages, vault: c.Vault, url: c.Issuer,
		audiences: slices.Clone(c.Audiences), mtlsURL: c.MTLSURL, standing: c.Standing, namespaceIDs: c.NamespaceIDs,
		apiKeys: k, certificate: c.Certificate, from: c.From, now: c.Now, log: c.Logger, metrics: newMetrics(), verified: newVerified(),
		external: newKeySets(c.Fetch, c.Now), checking: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2)), limits: newLimits(), uses: lastuse.New("federation rules", c.Logger, writeUses(c.Journal.Pool())),
	}
	if err := i.metrics.register(c.Metrics); err != nil {
		return nil, fmt.Errorf("registering metrics: %w", err)
	}
	return i, nil
}

// checkURLs refuses what would make tokens that nobody can check.
func checkURLs(c Config) error {
	if c.Issuer == "" {
		return nil
	}
	for name, text := range map[string]string{"Issuer": c.Issuer, "MTLSURL": c.MTLSURL} {
		if text == "" {
			continue
		}
		u, err := url.Parse(text)
		if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.String() != u.Scheme+"://"+u.Host {
			return fmt.Errorf("token: %s must be a URL without a path or a slash at the end, such as https://id.example.com", name)
		}
	}
	if len(c.Audiences) == 0 || slices.Contains(c.Audiences, "") {
		return errors.New("token: Config needs Audiences where there is an Issuer")
	}
	return nil
}

func remoteAddress(r *http.Request) netip.Addr {
	at, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}
	return at.Addr().Unmap().WithZone("")
}

// AccountAudience is the one audience that other issuers' tokens must have to be
// exchanged for tokens of the account. "": there are no tokens.
func (i *Issuer) AccountAudience(account sallyport.AccountID) string {
	if i.url == "" {
		return ""
	}
	return i.url + "/account/" + string(account)
}

var errNoTokens = sallyport.Conflict.Errorf("this service gives out no tokens; its operator has not set --issuer-url")

// service is the caller of what happens by itself.
func service(account sallyport.AccountID) sallyport.Caller {
	return sallyport.OperatorCaller(account, "sallyportd")
}

// defaultLife is that of a token for which none was asked.
const defaultLife = 10 * time.Minute

// maxLife bounds what may be asked for.
const maxLife = credential.MaxTokenLife
