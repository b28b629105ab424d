// Package certs is the managed CA: client certificates of service accounts,
// issued from certificate requests, renewed, revoked and proved by, under
// intermediates of each account's own; and what is revoked in an account,
// certificates of customers' own CAs included.
//
// What is signed is recorded before: the change that makes a certificate
// commits the exact bytes, then a copy that a throw-away key signed is linted,
// then the issuer's key signs. Nothing that was signed is unknown.
package certs

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/directory"
	"github.com/sallyport-iam/sallyport/internal/lastuse"
	"github.com/sallyport-iam/sallyport/internal/page"
	"github.com/sallyport-iam/sallyport/internal/pg"
	"github.com/sallyport-iam/sallyport/internal/vault"
	"github.com/sallyport-iam/sallyport/journal"
)

// CredentialKind is the Kind of a sallyport.Credential that is a certificate of
// the managed CA. Its ID is the certificate's.
const CredentialKind = "certificate"

// Config of an Authority.
type Config struct {
	Journal *journal.Journal // required
	Pages   *page.Signer     // required
	// Standing reads how a principal of the account stands, NotFound if there is
	// none. Required.
	Standing func(ctx context.Context, q pg.Querier, account sallyport.AccountID, p sallyport.Principal) (directory.Standing, error)
	// Vault opens the issuers' keys. Nil: there is no managed CA, only revocation
	// of what customers' own CAs issued.
	Vault *vault.Vault
	// TrustDomain is the host of SPIFFE ids. Required with Vault.
	TrustDomain string
	// URL is where /pki/ is served for others, "https://pki.example.com", without
	// a slash at the end. Empty: certificates say nothing of CRLs and issuers.
	URL string
	// MaxCertificates bounds the live certificates of a service account, revoked
	// ones apart; zero: 1000. Renewals may make it twice as many. Within 24 hours
	// ten times as many may be made.
	MaxCertificates int
	// MaxRevocations bounds an account's revocations of what customers' own CAs
	// issued, which are never forgotten; zero: 1,000,000. Some more issuers may be
	// revoked.
	MaxRevocations int
	// MaxIssuersADay bounds the intermediates that are made for an account within
	// 24 hours, whose owner has a new one by revoking the one before; zero: 10.
	MaxIssuersADay int
	// MaxRenewal is how long after its first certificate a chain of renewals
	// ends; zero: 90 days.
	MaxRenewal time.Duration
	Now        func() time.Time      // nil: time.Now
	Logger     *slog.Logger          // nil: slog.Default()
	Metrics    prometheus.Registerer // nil: none are kept
}

// Authority issues, revokes and checks certificates. It is safe for concurrent
// use. The account is always the caller's.
type Authority struct {
	journal         *journal.Journal
	pool            *pgxpool.Pool
	pages           *page.Signer
	standing        func(context.Context, pg.Querier, sallyport.AccountID, sallyport.Principal) (directory.Standing, error)
	vault           *vault.Vault
	trustDomain     string
	url             string
	maxCertificates int
	maxRevocations  int
	maxIssuersADay  int
	maxRenewal      time.Duration
	now             func() time.Time
	log             *slog.Logger
	lints           lints
	uses            *lastuse.Uses
	metrics         metrics
	issuers         issuerState
	watch           func(crypto.Signer) crypto.Signer // nil outside of tests, which see by it what is signed
	countEvery      time.Duration                     // how often gauges are brought up to date
}

// New makes an Authority. Run must be running for last uses to be kept and for
// what has ended to go.
func New(c Config) (*Authority, error) {
	if c.Journal == nil || c.Pages == nil || c.Standing == nil {
		return nil, errors.New("certs: Config needs Journal, Pages and Standing")
	}
	if c.Vault != nil && c.TrustDomain == "" {
		return nil, errors.New("certs: Config needs TrustDomain where there is a Vault")
	}
	if c.MaxCertificates == 0 {
		c.MaxCertificates = 1000
	}
	if c.MaxRevocations == 0 {
		c.MaxRevocations = 1_000_000
	}
	if c.MaxIssuersADay == 0 {
		c.MaxIssuersADay = 10
	}
	if c.MaxRenewal == 0 {
		c.MaxRenewal = 90 * 24 * time.Hour
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	chosen, err := clientLints()
	if err != nil {
		return nil, err
	}
	a := &Authority{
		journal: c.Journal, pool: c.Journal.Pool(), pages: c.Pages, standing: c.Standing,
		vault: c.Vault, trustDomain: c.TrustDomain, url: c.URL,
		maxCertificates: c.MaxCertificates, maxRevocations: c.MaxRevocations, maxIssuersADay: c.MaxIssuersADay, maxRenewal: c.MaxRenewal,
		now: c.Now, log: c.Logger, lints: chosen, uses: lastuse.New("certificates", c.Logger, writeUses(c.Journal.Pool())), metrics: newMetrics(), countEvery: countEvery,
	}
	a.issuers = issuerState{metrics: newIssuerMetrics(), failures: map[sallyport.AccountID]issuerFailure{}}
	if err := errors.Join(a.metrics.register(c.Metrics), a.issuers.metrics.register(c.Metrics)); err != nil {
		return nil, fmt.Errorf("registering metrics: %w", err)
	}
	return a, nil
}

// Certificate is a client certificate of the managed CA. Times are UTC,
// microseconds; those in the certificate itself are whole seconds.
type Certificate struct {
	Account        sallyport.AccountID
	ID             string // "cert_…"
	ServiceAccount string // whose it is
	Issuer         string // credential.IssuerID
	Serial         string // credential.SerialText
	Fingerprint    string // credential.Fingerprint; "" of an incomplete one
	SPIFFEID       string
	NotBefore      time.Time
	NotAfter       time.Time
	Created        time.Time
	CreatedBy      string // principal's id
	First          string // of its chain of renewals; its own ID if it is the first
	RenewedFrom    string // "" if it is the first
	RenewableUntil time.Time
	Revoked        time.Time // itself or its issuer; zero: neither
	Reason         string    // of the revocation
	LastUsed       time.Time // to the minute, some seconds late; zero: never
	DER            []byte    // nil: what will be signed is recorded, and it is not known to be signed
	Revision       int64     // the account's revision at which it last changed
}

// State is what a certificate is good for at a moment.
type State string

const (
	Active     State = "active"
	Revoked    State = "revoked"
	Expired    State = "expired"
	Incomplete State = "incomplete" // never handed out; repeating the operation completes it
)

// State of the certificate at a moment. Only an Active one lets anybody in, and
// only while its service account is active.
func (c Certificate) State(now time.Time) State {
	switch {
	case !c.Revoked.IsZero():
		return Revoked
	case !now.Before(c.NotAfter.Add(time.Second)): // it is good until its last second is over
		return Expired
	case c.DER == nil:
		return Incomplete
	}
	return Active
}

// Issued is a certificate with what a TLS client presents: the leaf and its
// issuer, PEM. An incomplete one has no chain.
type Issued struct {
	Certificate
	Chain []byte
}

// Issuer is a CA certificate of the account's own.
type Issuer struct {
	ID        string // credential.IssuerID
	Chain     []byte // PEM, itself first
	NotBefore time.Time
	NotAfter  time.Time
	Current   bool      // new certificates are made by it
	Revoked   time.Time // zero: it is not
	CRL       string    // URL, "" without one
	Problem   string    // why it cannot issue; "": it can
}

// Revocation is one object of that kind: what is revoked in the account.
type Revocation struct {
	ID            string // of the object: object.RevokedCertificate, RevokedSerial or RevokedIssuer
	Issuer        string // "" when it is by fingerprint
	Serial        string // "" when it is not of one serial number
	Fingerprint   string // where it is known
	CertificateID string // of the managed CA; "" otherwise
	Reason        string
	CreatedBy     string // principal's id
	Revoked       time.Time
	Revision      int64
}
