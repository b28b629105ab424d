// Package authn turns a credential into a caller: the principal that it
// proves, what that principal may do, and the account's head at which this was
// read. How each kind of credential is proved and what access there is, it is
// told by functions.
package authn

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/credential"
	"github.com/sallyport-iam/sallyport/internal/pg"
	"github.com/sallyport-iam/sallyport/journal"
)

// APIKeys is how callers are proved by API key. All of it is required.
type APIKeys struct {
	// Kind of the credentials that it makes.
	Kind string
	// Authenticate proves a caller, without access, by a token, and
	// Reauthenticate that a caller's credential still proves that principal.
	// They answer Unauthenticated when it does not.
	Authenticate   func(ctx context.Context, q pg.Querier, token string, from netip.Addr) (sallyport.Caller, error)
	Reauthenticate func(ctx context.Context, q pg.Querier, caller sallyport.Caller) (sallyport.Caller, error)
	// MarkUsed notes that the key was used. It must not block.
	MarkUsed func(account sallyport.AccountID, id string, at time.Time)
}

// Certificates is how callers are proved by client certificate. All of it is
// required, or none: without it no certificate proves anybody.
type Certificates struct {
	// Kind of the credentials that it makes.
	Kind string
	// Authenticate proves a caller, without access, by what its TLS client
	// presented, the leaf first; Reauthenticate is as of APIKeys.
	Authenticate   func(ctx context.Context, q pg.Querier, presented []*x509.Certificate, from netip.Addr) (sallyport.Caller, error)
	Reauthenticate func(ctx context.Context, q pg.Querier, caller sallyport.Caller) (sallyport.Caller, error)
	// MarkUsed notes that the certificate was used. It must not block.
	MarkUsed func(account sallyport.AccountID, fingerprint string, at time.Time)
}

// Tokens is how callers are proved by the access tokens of service accounts. All of
// it is required, or none: without it no token proves anybody.
type Tokens struct {
	// Kind of the credentials that it makes.
	Kind string
	// Authenticate proves a caller, without access, by a token. Some tokens are good
	// only beside a certificate that the TLS client presented. Reauthenticate is as of
	// APIKeys.
	Authenticate   func(ctx context.Context, q pg.Querier, token string, presented []*x509.Certificate, from netip.Addr) (sallyport.Caller, error)
	Reauthenticate func(ctx context.Context, q pg.Querier, caller sallyport.Caller) (sallyport.Caller, error)
	// MarkUsed notes that the token, which Authenticate has just accepted, was used.
	// It must not block.
	MarkUsed func(account sallyport.AccountID, id string, at time.Time)
}

// Config of an Authenticator.
type Config struct {
	Pool         *pgxpool.Pool // required
	APIKeys      APIKeys       // required
	Certificates Certificates
	Tokens       Tokens
	// Access reads all that a principal holds in its account, directly and
	// through groups. Required.
	Access func(ctx context.Context, q pg.Querier, account sallyport.AccountID, p sallyport.Principal) (sallyport.Access, error)
	Now    func() time.Time // nil: time.Now
}

// Authenticator finds out who calls. It is safe for concurrent use.
type Authenticator struct {
	pool         *pgxpool.Pool
	apiKeys      APIKeys
	certificates Certificates
	tokens       Tokens
	access       func(context.Context, pg.Querier, sallyport.AccountID, sallyport.Principal) (sallyport.Access, error)
	now          func() time.Time
}

// New makes an Authenticator.
func New(c Config) (*Authenticator, error) {
	k := c.APIKeys
	if c.Pool == nil || c.Access == nil || k.Kind == "" || k.Authenticate == nil || k.Reauthenticate == nil || k.MarkUsed == nil {
		return nil, errors.New("authn: Config needs Pool, Access and all of APIKeys")
	}
	if s := c.Certificates; s.Kind != "" && (s.Authenticate == nil || s.Reauthenticate == nil || s.MarkUsed == nil) {
		return nil, errors.New("authn: Config needs all of Certificates, or none of it")
	}
	if s := c.Tokens; s.Kind != "" && (s.Authenticate == nil || s.Reauthenticate == nil || s.MarkUsed == nil) {
		return nil, errors.New("authn: Config needs all of Tokens, or none of it")
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return &Authenticator{pool: c.Pool, apiKeys: k, certificates: c.Certificates, tokens: c.Tokens, access: c.Access, now: c.Now}, nil
}

// Request is what a call says of its caller.
type Request struct {
	Authorization string              // value of the header of that name
	Certificates  []*x509.Certificate // that the TLS client presented, the leaf first; none of them checked
	From          netip.Addr          // of the peer
	ID            string              // of the request
}

// Authenticate gives the caller of a request: one request, one credential. Where
// there is an Authorization header it alone counts, good or bad; a client
// certificate counts without, or where the token in the header asks for it.
// Credential, access and head are of one moment. The error is Unauthenticated when
// the request proves nobody, with a reason that its sender may read, and
// Unavailable when that cannot be found out now.
func (a *Authenticator) Authenticate(ctx context.Context, r Request) (sallyport.Caller, error) {
	if r.Authorization == "" && len(r.Certificates) > 0 && a.certificates.Kind != "" {
		caller, err := a.prove(ctx, r, func(q pg.Querier) (sallyport.Caller, error) {
			return a.certificates.Authenticate(ctx, q, r.Certificates, r.From)
		})
		if err == nil {
			a.certificates.MarkUsed(caller.Account, credential.Fingerprint(r.Certificates[0]), a.now())
		}
		return caller, err
	}
	token, ok := credential.Bearer(r.Authorization)
	switch {
	case r.Authorization == "":
		return sallyport.Caller{}, sallyport.Unauthenticated.Errorf("there is no API key in the request; send the header Authorization: Bearer <API key>")
	case !ok:
		return sallyport.Caller{}, sallyport.Unauthenticated.Errorf("the Authorization header holds no API key; send Authorization: Bearer <API key>")
	case a.tokens.Kind != "" && credential.IsToken(token):
		return a.byToken(ctx, r, token)
	}
	if _, _, err := credential.ParseAPIKey(token); err != nil {
		return sallyport.Caller{}, err // without a connection to the database
	}
	caller, err := a.prove(ctx, r, func(q pg.Querier) (sallyport.Caller, error) {
		return a.apiKeys.Authenticate(ctx, q, token, r.From)
	})
	if err == nil {
		a.apiKeys.MarkUsed(caller.Account, caller.Credential.ID, a.now())
	}
	return caller, err
}

func (a *Authenticator) byToken(ctx context.Context, r Request, token string) (sallyport.Caller, error) {
	caller, err := a.prove(ctx, r, func(q pg.Querier) (sallyport.Caller, error) {
		return a.tokens.Authenticate(ctx, q, token, r.Certificates, r.From)
	})
	if err == nil {
		a.tokens.MarkUsed(caller.Account, caller.Credential.ID, a.now())
	}
	return caller, err
}

// prove completes the caller that by proves, all in one snapshot.
func (a *Authenticator) prove(ctx context.Context, r Request, by func(pg.Querier) (sallyport.Caller, error)) (sallyport.Caller, error) {
	var caller sallyport.Caller
	err := pg.Snapshot(ctx, a.pool, func(tx pgx.Tx) error {
		proved, err := by(tx)
		if err != nil {
			return err
		}
		caller, err = a.complete(ctx, tx, proved)
		return err
	})
	if err != nil {
		return sallyport.Caller{}, orUnavailable(err)
	}
	caller.RequestID = r.ID
	return caller, nil
}

// Resolve reads a caller's standing, access and head again in q, a transaction
// that holds the account's lock (journal.Config.Resolve). It answers
// Unauthenticated when the credential or the principal has ended.
func (a *Authenticator) Resolve(ctx context.Context, q pg.Querier, caller sallyport.Caller) (sallyport.Caller, error) {
	var reauthenticate func(context.Context, pg.Querier, sallyport.Caller) (sallyport.Caller, error)
	switch caller.Credential.Kind {
	case "":
	case a.apiKeys.Kind:
		reauthenticate = a.apiKeys.Reauthenticate
	case a.certificates.Kind:
		reauthenticate = a.certificates.Reauthenticate
	case a.tokens.Kind:
		reauthenticate = a.tokens.Reauthenticate
	}
	if reauthenticate == nil {
		return sallyport.Caller{}, sallyport.Unauthenticated.Errorf("the credential is of a kind that proves nobody; use an API key")
	}
	proved, err := reauthenticate(ctx, q, caller)
	if err != nil {
		return sallyport.Caller{}, err
	}
	resolved, err := a.complete(ctx, q, proved)
	if err != nil {
		return sallyport.Caller{}, err
	}
	resolved.RequestID = caller.RequestID
	return resolved, nil
}

// complete adds head and access to a proved caller.
func (a *Authenticator) complete(ctx context.Context, q pg.Querier, caller sallyport.Caller) (sallyport.Caller, error) {
	var err error
	if caller.Head, err = journal.ReadHead(ctx, q, caller.Account); err != nil {
		return sallyport.Caller{}, fmt.Errorf("reading the caller's account: %w", err)
	}
	if caller.Access, err = a.access(ctx, q, caller.Account, caller.Principal); err != nil {
		return sallyport.Caller{}, fmt.Errorf("reading the caller's access: %w", err)
	}
	return caller, nil
}

// orUnavailable keeps what says that nobody was proved. All else, even that
// something is not found, says only that it is not known who calls.
func orUnavailable(err error) error {
	if errors.Is(err, sallyport.Unauthenticated) || errors.Is(err, context.Canceled) {
		return err
	}
	return &sallyport.Error{Kind: sallyport.Unavailable, Msg: "it cannot be found out now who you are; try again", Err: err}
}
