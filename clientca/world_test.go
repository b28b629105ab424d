package clientca_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/clientca"
	"github.com/sallyport-iam/sallyport/credential"
	"github.com/sallyport-iam/sallyport/directory"
	"github.com/sallyport-iam/sallyport/internal/page"
	"github.com/sallyport-iam/sallyport/internal/pg"
	"github.com/sallyport-iam/sallyport/internal/pgtest"
	"github.com/sallyport-iam/sallyport/journal"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// world is the domain with a clock that can be moved.
type world struct {
	pool      *pgxpool.Pool
	journal   *journal.Journal
	directory *directory.Directory
	cas       *clientca.ClientCAs
	registry  *prometheus.Registry
	ahead     atomic.Int64
	roots     []*x509.Certificate // the operator's; nil: there is no managed CA

	mu       sync.Mutex
	log      bytes.Buffer
	warnings []clientca.Warning
}

// tenant is an account of the test's own, with its owner.
type tenant struct {
	*world
	t       testing.TB
	account sallyport.AccountID
	project string
	owner   sallyport.Caller
}

func newWorld(t testing.TB, roots ...*x509.Certificate) *world {
	t.Helper()
	return newWorldOn(t, pgtest.DB(t), roots...)
}

func newWorldOn(t testing.TB, pool *pgxpool.Pool, roots ...*x509.Certificate) *world {
	t.Helper()
	w := &world{pool: pool, roots: roots, registry: prometheus.NewRegistry()}
	logger := slog.New(slog.NewTextHandler(w, nil))
	var err error
	if w.journal, err = journal.New(journal.Config{Pool: pool, Resolve: w.resolve, Now: w.now, Logger: logger}); err != nil {
		t.Fatal(err)
	}
	pages := page.NewSigner([32]byte{1})
	w.directory, err = directory.New(directory.Config{Journal: w.journal, Pages: pages,
		Regions: []directory.Region{{ID: "aws-us-east-1", Cell: "one"}},
		NamespaceChanged: func(ctx context.Context, tx *journal.Tx, before, after directory.Namespace) error {
			return w.cas.NamespaceChanged(ctx, tx, before, after)
		}})
	if err != nil {
		t.Fatal(err)
	}
	c := clientca.Config{Journal: w.journal, Pages: pages, Directory: w.directory, Now: w.now, Logger: logger, Metrics: w.registry,
		Warn: func(_ context.Context, _ *journal.Tx, warning clientca.Warning) error {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.warnings = append(w.warnings, warning)
			return nil
		}}
	c.OperatorRoots = func(context.Context, pg.Querier) ([]*x509.Certificate, error) { return w.roots, nil }
	if w.cas, err = clientca.New(c); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.log.Write(p)
}

func (w *world) now() time.Time { return time.Now().Add(time.Duration(w.ahead.Load())) }

func (w *world) resolve(ctx context.Context, q pg.Querier, c sallyport.Caller) (sallyport.Caller, error) {
	access, standing, err := w.directory.Access(ctx, q, c.Account, c.Principal)
	switch {
	case errors.Is(err, sallyport.NotFound), err == nil && standing.Status != object.Active:
		return c, sallyport.Unauthenticated.Errorf("the principal has ended")
	case err != nil:
		return c, err
	}
	c.Access = access
	c.Head, err = journal.ReadHead(ctx, q, c.Account)
	return c, err
}

// warned takes the warnings that were told.
func (w *world) warned() []clientca.Warning {
	w.mu.Lock()
	defer w.mu.Unlock()
	list := w.warnings
	w.warnings = nil
	return list
}

func (w *world) tenant(t testing.TB) *tenant {
	t.Helper()
	account, owner, _, err := w.directory.CreateAccount(t.Context(), sallyport.OperatorCaller("", "test"), op("CreateAccount"),
		directory.AccountParams{Name: "Test", OwnerEmail: "owner@example.com"})
	if err != nil {
		t.Fatal(err)
	}
	a := &tenant{world: w, t: t, account: account.ID, project: account.DefaultProject}
	a.owner = a.as(owner.ID)
	return a
}

func op(kind string) journal.Operation { return journal.Operation{Type: kind} }

// as is the caller that a principal is now.
func (a *tenant) as(principal string) sallyport.Caller {
	a.t.Helper()
	c := sallyport.Caller{Account: a.account, Principal: sallyport.Principal{Kind: sallyport.User, ID: principal}}
	if strings.HasPrefix(principal, sallyport.ServiceAccountPrefix) {
		c.Principal.Kind = sallyport.ServiceAccount
	}
	c, err := a.resolve(a.t.Context(), a.pool, c)
	if err != nil {
		a.t.Fatal(err)
	}
	return c
}

// user makes a user with the access and is him.
func (a *tenant) user(access directory.Access) sallyport.Caller {
	a.t.Helper()
	u, _, err := a.directory.CreateUser(a.t.Context(), a.owner, op("CreateUser"),
		directory.UserParams{Email: sallyport.NewID("user-") + "@example.com", Access: access})
	if err != nil {
		a.t.Fatal(err)
	}
	return a.as(u.ID)
}

func on(namespace string, p sallyport.Permission) directory.Access {
	return directory.Access{Role: sallyport.RoleRead, Namespaces: map[string]sallyport.Permission{namespace: p}}
}

func (a *tenant) robot(scope sallyport.Scope, access directory.Access) string {
	a.t.Helper()
	s, _, err := a.directory.CreateServiceAccount(a.t.Context(), a.owner, op("CreateServiceAccount"),
		directory.ServiceAccountParams{Name: sallyport.NewID("robot-"), Scope: scope, Access: access})
	if err != nil {
		a.t.Fatal(err)
	}
	return s.ID
}

func params(name string, bundle []byte, filters ...credential.Filter) directory.NamespaceParams {
	return directory.NamespaceParams{Name: name, Region: "aws-us-east-1", RetentionDays: 7, APIKeyAuth: true, MTLSAuth: len(bundle) > 0,
		ClientCA: bundle, CertificateFilters: filters, Spec: []byte("spec")}
}

func (a *tenant) namespace(name string, bundle []byte, filters ...credential.Filter) directory.Namespace {
	a.t.Helper()
	n, _, err := a.directory.CreateNamespace(a.t.Context(), a.owner, op("CreateNamespace"), params(name, bundle, filters...))
	if err != nil {
		a.t.Fatal(err)
	}
	return n
}

// update changes a namespace as CloudService does.
func (a *tenant) update(name string, change func(*directory.NamespaceParams)) error {
	a.t.Helper()
	n := a.read(name)
	p := n.NamespaceParams
	change(&p)
	_, _, err := a.directory.UpdateNamespace(a.t.Context(), a.owner, op("UpdateNamespace"), name, n.Revision, p)
	return err
}

func (a *tenant) read(name string) directory.Namespace {
	a.t.Helper()
	n, err := a.directory.Namespace(a.t.Context(), a.owner, name)
	if err != nil {
		a.t.Fatal(err)
	}
	return n
}

// object is what authorizers know of the namespace's client CAs.
func (a *tenant) object(n directory.Namespace) (object.ClientCAs, bool) {
	a.t.Helper()
	a.sameAsJournal()
	found, err := journal.ReadObjects(a.t.Context(), a.pool, a.account, object.KindClientCAs, []string{string(n.ID)})
	if err != nil {
		a.t.Fatal(err)
	}
	if len(found) == 0 {
		return object.ClientCAs{}, false
	}
	o, err := object.Decode[object.ClientCAs](found[0].Data)
	if err != nil {
		a.t.Fatal(err)
	}
	return o, true
}

// sameAsJournal: what the tables say is what authorizers were told.
func (a *tenant) sameAsJournal() {
	a.t.Helper()
	told, err := journal.ReadObjects(a.t.Context(), a.pool, a.account, object.KindClientCAs, nil)
	if err != nil {
		a.t.Fatal(err)
	}
	rebuilt, err := a.cas.Objects(a.t.Context(), a.pool, a.account)
	if err != nil {
		a.t.Fatal(err)
	}
	if len(told) == 0 && len(rebuilt) == 0 {
		return
	}
	if diff := cmp.Diff(told, rebuilt); diff != "" {
		a.t.Errorf("objects as told and as rebuilt (-told +rebuilt):\n%s", diff)
	}
}

// lastEntry is the audit record of the account's last change.
func (a *tenant) lastEntry() string {
	a.t.Helper()
	head, err := a.journal.Head(a.t.Context(), a.account)
	if err != nil {
		a.t.Fatal(err)
	}
	entries, err := a.journal.Entries(a.t.Context(), a.account, head.Revision-1, 1)
	if err != nil || len(entries) != 1 {
		a.t.Fatalf("reading the last entry: %v, %v", entries, err)
	}
	return string(entries[0].Body)
}

// commit changes something as the owner.
func (a *tenant) commit(change func(tx *journal.Tx) error) {
	a.t.Helper()
	if _, err := a.journal.Commit(a.t.Context(), a.owner, a.account, op("Test"), change); err != nil {
		a.t.Fatal(err)
	}
}

// revoke makes revocations with the ids.
func (a *tenant) revoke(ids ...string) {
	a.t.Helper()
	a.commit(func(tx *journal.Tx) error {
		for _, id := range ids {
			if err := tx.Put(a.t.Context(), object.KindRevocation, id, object.Encode(object.Revocation{})); err != nil {
				return err
			}
		}
		return nil
	})
}

// flush writes what was seen, as the end of the service does.
func (w *world) flush(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.cas.Run(ctx); err != nil {
		t.Fatal(err)
	}
}

// saw lets an authorizer tell of a certificate.
func (a *tenant) saw(n directory.Namespace, leaf *x509.Certificate, change func(*clientca.Use)) {
	a.t.Helper()
	use := clientca.Use{Account: a.account, Namespace: n.ID, Fingerprint: credential.Fingerprint(leaf), At: a.now(), Chain: [][]byte{leaf.Raw}}
	change(&use)
	a.cas.MarkSeen(use)
}

// under is a use that the CA let in.
func under(ca authority) func(*clientca.Use) {
	return func(u *clientca.Use) { u.CA = credential.Fingerprint(ca.cert) }
}

func (a *tenant) allSeen(namespace string) []clientca.Seen {
	a.t.Helper()
	list, _, err := a.cas.Seen(a.t.Context(), a.owner, namespace, time.Time{}, sallyport.Page{Size: 1000})
	if err != nil {
		a.t.Fatal(err)
	}
	return list
}

// authority is a CA of the test's own.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func name(common string) pkix.Name {
	return pkix.Name{CommonName: common, Organization: []string{"Test"}}
}

// newCA makes a root.
func newCA(t testing.TB, common string) authority {
	t.Helper()
	return issueCA(t, &x509.Certificate{Subject: name(common)}, authority{})
}

// issueCA makes a CA under another, or with the zero authority a root.
func issueCA(t testing.TB, template *x509.Certificate, by authority) authority {
	t.Helper()
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature
	cert, key := issue(t, template, by)
	return authority{cert, key, toPEM(cert)}
}

// leaf makes a client certificate.
func (ca authority) leaf(t testing.TB, common string, change ...func(*x509.Certificate)) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{Subject: name(common), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, BasicConstraintsValid: true}
	for _, c := range change {
		c(template)
	}
	cert, _ := issue(t, template, ca)
	return cert
}

func lasting(d time.Duration) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.NotAfter = time.Now().Add(d) }
}

func issue(t testing.TB, template *x509.Certificate, by authority) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		t.Fatal(err)
	}
	template.SerialNumber = serial.Add(serial, big.NewInt(1))
	if template.NotBefore.IsZero() {
		template.NotBefore = time.Now().Add(-200 * 24 * time.Hour)
	}
	if template.NotAfter.IsZero() {
		template.NotAfter = time.Now().Add(200 * 24 * time.Hour)
	}
	parent, signer := by.cert, by.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

func toPEM(certs ...*x509.Certificate) []byte {
	var all []byte
	for _, c := range certs {
		all = append(all, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return all
}

func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

// want fails the test unless err is of the kind ("" for none), names the field,
// and its text has the words.
func want(t testing.TB, what string, err error, kind sallyport.Kind, field string, words ...string) {
	t.Helper()
	if got := sallyport.KindOf(err); got != kind || err != nil && kind == "" {
		t.Errorf("%s: got the error %v, want kind %q", what, err, kind)
		return
	}
	var e *sallyport.Error
	if errors.As(err, &e) && e.Field != field {
		t.Errorf("%s: got %v in the field %q, want %q", what, err, e.Field, field)
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("%s: got the text %q, want %q in it", what, err, word)
		}
	}
}
