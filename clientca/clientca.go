// Package clientca holds the client CAs of namespaces, the filters that leaves
// under them must match and what these give, and which client certificates were
// seen on calls: the evidence that a CA can go.
//
// A namespace's bundle and filters are columns of the directory's; they change
// with the namespace (NamespaceChanged) or one by one (Add, Remove, AddFilter,
// RemoveFilter). The two ways obey the same rules. What a filter gives is kept
// here, by the filter's content.
package clientca

import (
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/credential"
	"github.com/sallyport-iam/sallyport/directory"
	"github.com/sallyport-iam/sallyport/internal/page"
	"github.com/sallyport-iam/sallyport/internal/pg"
	"github.com/sallyport-iam/sallyport/journal"
)

// Config of ClientCAs.
type Config struct {
	Journal *journal.Journal // required
	Pages   *page.Signer     // required
	// Directory has the namespaces. Its own Config.NamespaceChanged calls
	// ClientCAs.NamespaceChanged. Required.
	Directory *directory.Directory
	// OperatorRoots reads the roots of the managed CA: what they issued is no
	// customer's CA. Nil or none of them: there is no managed CA, and a namespace
	// has mTLS on only with a bundle.
	OperatorRoots func(ctx context.Context, q pg.Querier) ([]*x509.Certificate, error)
	// Warn is told inside the transaction of a change that takes away what
	// certificates in use need. Nil: nobody is.
	Warn    func(ctx context.Context, tx *journal.Tx, w Warning) error
	Now     func() time.Time      // nil: time.Now
	Logger  *slog.Logger          // nil: slog.Default()
	Metrics prometheus.Registerer // nil: none
}

// ClientCAs keeps client CAs and filters. It is safe for concurrent use. The
// account is always the caller's.
type ClientCAs struct {
	journal       *journal.Journal
	pool          *pgxpool.Pool
	pages         *page.Signer
	directory     *directory.Directory
	operatorRoots func(context.Context, pg.Querier) ([]*x509.Certificate, error)
	warn          func(context.Context, *journal.Tx, Warning) error
	now           func() time.Time
	log           *slog.Logger
	public        publicRoots
	seen          pendingSeen
	checks        chan struct{} // a place for each check that may run at once
	metrics       metrics
}

// New makes ClientCAs. Run must be running for seen certificates to be kept.
func New(c Config) (*ClientCAs, error) {
	if c.Journal == nil || c.Pages == nil || c.Directory == nil {
		return nil, errors.New("clientca: Config needs Journal, Pages and Directory")
	}
	if c.OperatorRoots == nil {
		c.OperatorRoots = func(context.Context, pg.Querier) ([]*x509.Certificate, error) { return nil, nil }
	}
	if c.Warn == nil {
		c.Warn = func(context.Context, *journal.Tx, Warning) error { return nil }
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	public, err := newPublicRoots()
	if err != nil {
		return nil, err
	}
	m, err := newMetrics(c.Metrics)
	if err != nil {
		return nil, err
	}
	return &ClientCAs{journal: c.Journal, pool: c.Journal.Pool(), pages: c.Pages, directory: c.Directory,
		operatorRoots: c.OperatorRoots, warn: c.Warn, now: c.Now, log: c.Logger,
		public: public, seen: newPendingSeen(), checks: make(chan struct{}, maxChecks), metrics: m}, nil
}

// CA is one certificate of a namespace's bundle.
type CA struct {
	Fingerprint     string // SHA-256 of the DER, lower-case hex
	FingerprintSHA1 string
	Subject         string
	Issuer          string
	NotBefore       time.Time
	NotAfter        time.Time
	LastSeen        time.Time // a client certificate under it last let a call through, to the minute; zero: never
	Warning         string    // for people: that it expires soon, has expired or is revoked; "" if there is none
	PEM             []byte
}

// Bundle is a namespace's client CAs, in the order of the bytes that were sent.
type Bundle struct {
	CAs      []CA
	Enabled  bool  // mTLS is on
	Revision int64 // the namespace's
}

// Filter is a certificate filter of a namespace and what it gives.
type Filter struct {
	ID string // credential.Filter.ID
	credential.Filter
	Map
	LastSeen time.Time // a certificate that matched it was last let in; zero: never
	Present  bool      // false: only its map is there
	Warning  string    // for people: why its map gives nothing; "" if it gives something
}

// Map says what leaves that match a filter may do on the namespace. The zero
// Map gives write, as without any.
type Map struct {
	ServiceAccount string // its id: what that may do
	Permission     string // "read"
}

// Change is what a change of client CAs or filters came to.
type Change struct {
	Revision int64    // the namespace's
	Warnings []string // for people
}

// Seen is a client certificate that was presented on calls to a namespace.
type Seen struct {
	Fingerprint string // SHA-256 of the DER, lower-case hex
	Subject     string // cut to 256 bytes, as Issuer
	Issuer      string
	Serial      string // lower-case hex
	NotBefore   time.Time
	NotAfter    time.Time
	First, Last time.Time // to the minute, some seconds late
	CA          string    // fingerprint of the bundle's CA that let it in; "" when refused, and of the managed CA
	Refused     string    // why it was not let in when it was last seen; "" if it was
	Managed     bool      // of the managed CA: bundle and filters do not touch it
}

// Use tells that a client certificate was presented on calls. It has the fields
// of feed.CertificateUse.
type Use struct {
	Account     sallyport.AccountID
	Namespace   sallyport.NamespaceID
	Fingerprint string
	At          time.Time
	Chain       [][]byte // DER, the leaf first; none if it was told within the hour
	CA          string
	Filter      int // the place of the filter that it matched, from 1; 0: there was none
	Managed     bool
	Refused     string
}

// CheckParams say what to try in place of a namespace's bundle and filters.
type CheckParams struct {
	Bundle         []byte // PEM; empty: as it is
	Filters        []credential.Filter
	ReplaceFilters bool      // Filters count, also when there are none
	Since          time.Time // certificates seen since then; zero: in the last 7 days
}

// CheckResult is what would become of the certificates that were seen.
type CheckResult struct {
	WouldStop, WouldStart []Seen // by fingerprint, at most 1500 of each
	Checked               int    // at most 5000
	Incomplete            bool   // there are more of either
	Warnings              []string
}

// Warning tells of a change that takes away what certificates in use need.
type Warning struct {
	Account   sallyport.AccountID
	Namespace sallyport.NamespaceID
	Name      string   // the namespace's
	Caller    string   // principal who changed it
	Reason    string   // what was taken away, for people
	Stops     []string // fingerprints of certificates that would stop, at most 20
	Count     int      // of all of them
	Less      int      // of them that may still read
	AtLeast   bool     // there may be more than Count, which may be 0 then: not all could be looked at
}

// Expiring is a client CA, or a client certificate in use, that expires soon.
type Expiring struct {
	Account     sallyport.AccountID
	Namespace   sallyport.NamespaceID
	Name        string // the namespace's
	Fingerprint string // SHA-256, hex
	Subject     string
	NotAfter    time.Time
	Kind        Kind
	Days        int // at most so many are left: 15, 10 or 5; of leaves 5
}

// Kind of what expires.
type Kind string

const (
	KindCA   Kind = "ca"
	KindLeaf Kind = "leaf"
)
