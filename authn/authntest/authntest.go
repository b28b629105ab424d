// Package authntest gives tests accounts with users, service accounts and
// working API keys, over the real packages and a real database.
package authntest

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/apikeys"
	"github.com/sallyport-iam/sallyport/authn"
	"github.com/sallyport-iam/sallyport/certs"
	"github.com/sallyport-iam/sallyport/directory"
	"github.com/sallyport-iam/sallyport/internal/page"
	"github.com/sallyport-iam/sallyport/internal/pg"
	"github.com/sallyport-iam/sallyport/internal/pgtest"
	"github.com/sallyport-iam/sallyport/internal/vault"
	"github.com/sallyport-iam/sallyport/journal"
)

// Region is the id of the one region there is, and of its cell.
const Region = "aws-us-east-1"

// World is a service without its edges, on the package's test database, with a
// clock that can be moved. Its log is kept.
type World struct {
	Journal   *journal.Journal
	Directory *directory.Directory
	Keys      *apikeys.Keys
	Certs     *certs.Authority // without a root until CA makes one
	Auth      *authn.Authenticator
	Log       *Log

	config certs.Config
	ahead  atomic.Int64 // of the real time
}

// New makes a World. The package needs pgtest.Main.
func New(t testing.TB) *World {
	t.Helper()
	return NewOn(t, pgtest.DB(t))
}

// TrustDomain and PKI are what certificates of a World say.
const (
	TrustDomain = "test.example.com"
	PKI         = "http://pki.test.example.com"
)

// NewOn makes a World on a database of the test's own, for what reaches into
// all accounts, and for CA.
func NewOn(t testing.TB, pool *pgxpool.Pool) *World {
	t.Helper()
	w := &World{Log: &Log{}}
	logger := slog.New(slog.NewTextHandler(w.Log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	var err error
	w.Journal, err = journal.New(journal.Config{Pool: pool, Now: w.Now, Logger: logger,
		Resolve: func(ctx context.Context, q pg.Querier, c sallyport.Caller) (sallyport.Caller, error) {
			return w.Auth.Resolve(ctx, q, c)
		}})
	check(t, err)
	pages := page.NewSigner([32]byte{1})
	w.Directory, err = directory.New(directory.Config{
		Journal: w.Journal, Pages: pages,
		Regions: []directory.Region{{ID: Region, CloudProvider: "aws", CloudRegion: "us-east-1", Location: "Virginia", Cell: Region}},
		PrincipalEnded: func(ctx context.Context, tx *journal.Tx, principal string) error {
			return errors.Join(w.Keys.RemoveOwned(ctx, tx, principal), w.Certs.RemoveOwned(ctx, tx, principal))
		},
	})
	check(t, err)
	w.Keys, err = apikeys.New(apikeys.Config{Journal: w.Journal, Pages: pages, Standing: w.Directory.Standing, Now: w.Now, Logger: logger})
	check(t, err)
	w.config = certs.Config{Journal: w.Journal, Pages: pages, Standing: w.Directory.Standing,
		Vault: newVault(t), TrustDomain: TrustDomain, URL: PKI, Now: w.Now, Logger: logger}
	w.Certs, err = certs.New(w.config)
	check(t, err)
	w.Auth, err = authn.New(authn.Config{
		Pool: pool, Now: w.Now,
		APIKeys:      authn.APIKeys{Kind: apikeys.CredentialKind, Authenticate: w.Keys.Authenticate, Reauthenticate: w.Keys.Reauthenticate, MarkUsed: w.Keys.MarkUsed},
		Certificates: authn.Certificates{Kind: certs.CredentialKind, Authenticate: w.Certs.Authenticate, Reauthenticate: w.Certs.Reauthenticate, MarkUsed: w.Certs.MarkUsed},
		Access: func(ctx context.Context, q pg.Querier, account sallyport.AccountID, p sallyport.Principal) (sallyport.Access, error) {
			access, _, err := w.Directory.Access(ctx, q, account, p)
			return access, err
		},
	})
	check(t, err)
	return w
}

func newVault(t testing.TB) *vault.Vault {
	t.Helper()
	file := filepath.Join(t.TempDir(), "operator-key.json")
	check(t, vault.Create(file))
	v, err := vault.Open(file)
	check(t, err)
	return v
}

// CA makes the operator's root, whose key no other World can use: the database
// must be the test's own.
func (w *World) CA(t testing.TB) {
	t.Helper()
	check(t, w.Directory.EnsureSystem(t.Context()))
	_, err := w.Certs.InitRoot(t.Context(), sallyport.OperatorCaller(sallyport.SystemAccount, "test"), certs.RootParams{Name: "Test"})
	check(t, err)
}

// Config is that of Certs, for another one of the same CA.
func (w *World) Config() certs.Config { return w.config }

// Now is the World's time.
func (w *World) Now() time.Time { return time.Now().Add(time.Duration(w.ahead.Load())) }

// Advance moves the World's time.
func (w *World) Advance(d time.Duration) { w.ahead.Add(int64(d)) }

// Log is what was logged.
type Log struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// Tenant is an account of the test's own.
type Tenant struct {
	*World
	ID       sallyport.AccountID
	Operator sallyport.Caller
	Owner    sallyport.Caller // by an API key
	names    atomic.Int64
}

// Tenant makes an account with an owner.
func (w *World) Tenant(t testing.TB) *Tenant {
	t.Helper()
	account, owner, _, err := w.Directory.CreateAccount(t.Context(), sallyport.OperatorCaller("", "test"), journal.Operation{Type: "CreateAccount", NewAccount: true},
		directory.AccountParams{Name: "Test", OwnerEmail: "owner@example.com"})
	check(t, err)
	tenant := &Tenant{World: w, ID: account.ID, Operator: sallyport.OperatorCaller(account.ID, "test")}
	tenant.Owner = tenant.Caller(t, sallyport.Principal{Kind: sallyport.User, ID: owner.ID}, sallyport.Limits{})
	return tenant
}

// User makes an active user.
func (a *Tenant) User(t testing.TB, access directory.Access) sallyport.Principal {
	t.Helper()
	user, _, err := a.Directory.CreateUser(t.Context(), a.Operator, journal.Operation{Type: "CreateUser"},
		directory.UserParams{Email: a.name("user") + "@example.com", Access: access})
	check(t, err)
	return sallyport.Principal{Kind: sallyport.User, ID: user.ID}
}

// ServiceAccount makes a service account.
func (a *Tenant) ServiceAccount(t testing.TB, scope sallyport.Scope, access directory.Access) sallyport.Principal {
	t.Helper()
	sa, _, err := a.Directory.CreateServiceAccount(t.Context(), a.Operator, journal.Operation{Type: "CreateServiceAccount"},
		directory.ServiceAccountParams{Name: a.name("robot"), Scope: scope, Access: access})
	check(t, err)
	return sallyport.Principal{Kind: sallyport.ServiceAccount, ID: sa.ID}
}

// Namespace makes a namespace of a name.
func (a *Tenant) Namespace(t testing.TB, name string) directory.Namespace {
	t.Helper()
	ns, _, err := a.Directory.CreateNamespace(t.Context(), a.Operator, journal.Operation{Type: "CreateNamespace"},
		directory.NamespaceParams{Name: name, Region: Region, RetentionDays: 7, APIKeyAuth: true})
	check(t, err)
	return ns
}

// Key makes a key that is good for 30 days.
func (a *Tenant) Key(t testing.TB, owner sallyport.Principal, limits sallyport.Limits) apikeys.Made {
	t.Helper()
	made, _, err := a.Keys.Create(t.Context(), a.Operator, journal.Operation{Type: "CreateApiKey"},
		apikeys.CreateParams{Owner: owner, DisplayName: a.name("key"), Expires: a.Now().Add(30 * 24 * time.Hour), Limits: limits})
	check(t, err)
	return made
}

// Caller makes a key for the principal and comes with it.
func (a *Tenant) Caller(t testing.TB, p sallyport.Principal, limits sallyport.Limits) sallyport.Caller {
	t.Helper()
	return a.With(t, a.Key(t, p, limits))
}

// With comes with a key, from the address 192.0.2.1.
func (a *Tenant) With(t testing.TB, made apikeys.Made) sallyport.Caller {
	t.Helper()
	caller, err := a.Call(t, made)
	check(t, err)
	return caller
}

// CSR makes a key and a request for a certificate of it.
func CSR(t testing.TB) ([]byte, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	check(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), key
}

// Certificate issues a certificate of the managed CA, which needs CA.
func (a *Tenant) Certificate(t testing.TB, owner sallyport.Principal) certs.Issued {
	t.Helper()
	csr, _ := CSR(t)
	issued, _, err := a.Certs.Issue(t.Context(), a.Operator, journal.Operation{Type: "IssueCertificate"}, certs.IssueParams{ServiceAccount: owner.ID, CSR: csr})
	check(t, err)
	return issued
}

// CallWith tries to come with a certificate.
func (a *Tenant) CallWith(t testing.TB, issued certs.Issued) (sallyport.Caller, error) {
	t.Helper()
	return a.Auth.Authenticate(t.Context(), authn.Request{
		Certificates: Chain(t, issued.Chain), From: netip.MustParseAddr("192.0.2.1"), ID: "request"})
}

// Chain parses PEM certificates.
func Chain(t testing.TB, data []byte) []*x509.Certificate {
	t.Helper()
	var chain []*x509.Certificate
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		cert, err := x509.ParseCertificate(block.Bytes)
		check(t, err)
		chain = append(chain, cert)
	}
	return chain
}

// Call tries to come with a key.
func (a *Tenant) Call(t testing.TB, made apikeys.Made) (sallyport.Caller, error) {
	t.Helper()
	return a.Auth.Authenticate(t.Context(), authn.Request{
		Authorization: "Bearer " + made.Token.Reveal(), From: netip.MustParseAddr("192.0.2.1"), ID: "request"})
}

func (a *Tenant) name(what string) string { return fmt.Sprintf("%s-%d", what, a.names.Add(1)) }

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
