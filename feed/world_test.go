package feed_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"google.golang.org/grpc"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/api/sallyport/feed/v1"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/authz/replica"
	"github.com/sallyport-iam/sallyport/credential"
	"github.com/sallyport-iam/sallyport/feed"
	"github.com/sallyport-iam/sallyport/internal/pg"
	"github.com/sallyport-iam/sallyport/internal/pgtest"
	"github.com/sallyport-iam/sallyport/internal/serve"
	"github.com/sallyport-iam/sallyport/journal"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

const (
	start    = "/temporal.api.workflowservice.v1.WorkflowService/StartWorkflowExecution"
	describe = "/temporal.api.workflowservice.v1.WorkflowService/DescribeWorkflowExecution"
)

// world is a database with a journal and the authorizers that may follow it.
type world struct {
	t       testing.TB
	pool    *pgxpool.Pool
	journal *journal.Journal
	roots   *x509.CertPool
	tls     *tls.Config
	ca      serve.DevCertificate
	// unreadable is an account of which the directory cannot say where it is.
	unreadable atomic.Pointer[sallyport.AccountID]
	seen       func(feed.CertificateUse) // nil: nobody is told; set before serve

	mu      sync.Mutex
	callers map[string]sallyport.Caller // by Authorization header
}

func newWorld(t testing.TB) *world {
	t.Helper()
	return newWorldOn(t, pgtest.Clone(t))
}

func newWorldOn(t testing.TB, pool *pgxpool.Pool) *world {
	t.Helper()
	w := &world{t: t, pool: pool, callers: map[string]sallyport.Caller{}}
	var err error
	w.journal, err = journal.New(journal.Config{Pool: pool, Logger: quiet(),
		Resolve: func(_ context.Context, _ pg.Querier, c sallyport.Caller) (sallyport.Caller, error) { return c, nil }})
	check(t, err)
	w.run(w.journal.Run)
	w.ca, err = serve.DevCA(t.TempDir(), time.Now())
	check(t, err)
	w.tls, err = serve.FileTLS(w.ca.CertFile, w.ca.KeyFile, time.Now)
	check(t, err)
	pem, err := os.ReadFile(w.ca.CAFile)
	check(t, err)
	w.roots = x509.NewCertPool()
	w.roots.AppendCertsFromPEM(pem)
	w.commit(sallyport.SystemAccount, func(*journal.Tx) error { return nil })
	return w
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// run runs what runs until its context ends, until the test's end.
func (w *world) run(run func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				w.t.Errorf("running: %v", err)
			}
		})
	}
	w.t.Cleanup(stop)
	return stop
}

// commit changes an account, which begins with its first change.
func (w *world) commit(account sallyport.AccountID, change func(*journal.Tx) error) journal.Committed {
	w.t.Helper()
	done, err := w.tryCommit(account, change)
	check(w.t, err)
	return done
}

func (w *world) tryCommit(account sallyport.AccountID, change func(*journal.Tx) error) (journal.Committed, error) {
	return w.journal.Commit(context.Background(), sallyport.OperatorCaller(account, "test"), account,
		journal.Operation{Type: "Test", NewAccount: true}, change)
}

func put[V object.Value](tx *journal.Tx, kind object.Kind, id string, v V) error {
	return tx.Put(context.Background(), kind, id, object.Encode(v))
}

func grant(tx *journal.Tx, subject, namespace, role string) error {
	return put(tx, object.KindGrant, object.GrantID(subject, sallyport.ScopeNamespace, namespace),
		object.Grant{Subject: subject, Scope: sallyport.ScopeNamespace, Target: namespace, Role: role})
}

func revoke(tx *journal.Tx, subject, namespace string) error {
	return tx.Remove(context.Background(), object.KindGrant, object.GrantID(subject, sallyport.ScopeNamespace, namespace))
}

// tenant is an account with one namespace and one service account with a key
// and the permission to write.
type tenant struct {
	account   sallyport.AccountID
	namespace string // full name
	nsID      string
	principal string
	keyID     string
	header    string
}

func (w *world) tenant(account sallyport.AccountID, cell string) *tenant {
	w.t.Helper()
	x := &tenant{account: account, namespace: "orders." + string(account), nsID: sallyport.NewID("ns_"), principal: sallyport.NewID("sa_"), keyID: sallyport.NewID("")}
	token, hash := credential.NewAPIKey(account, x.keyID)
	x.header = "Bearer " + token.Reveal()
	w.commit(account, func(tx *journal.Tx) error {
		for _, err := range []error{
			put(tx, object.KindAccount, string(account), object.Account{Status: object.Active}),
			put(tx, object.KindNamespace, x.nsID, object.Namespace{Name: "orders", Cell: cell, RetentionDays: 1, Auth: object.NamespaceAuth{APIKey: true}}),
			put(tx, object.KindPrincipal, x.principal, object.Principal{Kind: sallyport.ServiceAccount, Status: object.Active, Epoch: 1}),
			put(tx, object.KindKey, x.keyID, object.Key{Owner: x.principal, Hash: hash, Status: object.Active, Epoch: 1, Expires: time.Now().Add(time.Hour).UnixMicro()}),
			grant(tx, x.principal, x.nsID, "write"),
		} {
			if err != nil {
				return err
			}
		}
		return nil
	})
	return x
}

func (x *tenant) decide(r *replica.Replica) replica.Decision {
	return r.Decide(replica.CredentialFromHeader(x.header, netip.Addr{}), start, x.namespace, time.Now())
}

// accountsInCell and cellsOf read what the directory would say from the objects.
func (w *world) accountsInCell(ctx context.Context, cell string) ([]sallyport.AccountID, error) {
	rows, err := w.pool.Query(ctx, `
		select distinct account_id from objects
		where kind = 'namespace' and not deleted and convert_from(data, 'UTF8')::jsonb ->> 'cell' = $1`, cell)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[sallyport.AccountID])
}

func (w *world) cellsOf(ctx context.Context, accounts []sallyport.AccountID) (map[sallyport.AccountID][]string, error) {
	if bad := w.unreadable.Load(); bad != nil && len(accounts) == 1 && accounts[0] == *bad {
		return nil, errors.New("as if the database failed for this account")
	}
	rows, err := w.pool.Query(ctx, `
		select distinct account_id, convert_from(data, 'UTF8')::jsonb ->> 'cell' from objects
		where account_id = any($1) and kind = 'namespace' and not deleted`, accounts)
	if err != nil {
		return nil, err
	}
	cells := map[sallyport.AccountID][]string{}
	var account sallyport.AccountID
	var cell string
	_, err = pgx.ForEachRow(rows, []any{&account, &cell}, func() error {
		cells[account] = append(cells[account], cell)
		return nil
	})
	return cells, err
}

// authorizer makes an authorizer's key.
func (w *world) authorizer(cells ...string) credential.Secret {
	token, _ := credential.NewAPIKey(sallyport.SystemAccount, sallyport.NewID(""))
	w.setCaller(token, sallyport.Caller{Account: sallyport.SystemAccount, Access: sallyport.Access{Cells: cells},
		Principal: sallyport.Principal{Kind: sallyport.ServiceAccount, ID: sallyport.NewID("sa_")}})
	return token
}

func (w *world) setCaller(token credential.Secret, c sallyport.Caller) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.callers["Bearer "+token.Reveal()] = c
}

func (w *world) authenticate(_ context.Context, authorization string, _ netip.Addr) (sallyport.Caller, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if c, ok := w.callers[authorization]; ok {
		return c, nil
	}
	return sallyport.Caller{}, sallyport.Unauthenticated.Errorf("nobody")
}

// copyOf is a running copy of the service.
type copyOf struct {
	*feed.Server
	address   string
	plaintext string
	stop      func() // as a kill: connections break
}

func (w *world) serve() *copyOf { return w.serveAt("127.0.0.1:0") }

func (w *world) serveAt(address string) *copyOf {
	w.t.Helper()
	server, err := feed.New(feed.Config{Journal: w.journal, Authenticate: w.authenticate, CertificateUsed: w.seen, Logger: quiet(),
		PollEvery: 20 * time.Millisecond, SweepEvery: 200 * time.Millisecond,
		Directory: feed.Directory{AccountsInCell: w.accountsInCell, CellsOf: w.cellsOf}})
	check(w.t, err)
	edge, err := serve.New(serve.Config{Logger: quiet(), Methods: map[string]serve.Access{feedv1.FeedService_Follow_FullMethodName: serve.OwnAuthentication},
		Authenticate: func(context.Context, serve.Credentials, netip.Addr, string) (sallyport.Caller, error) {
			return sallyport.Caller{}, sallyport.Unauthenticated.Errorf("nobody")
		}})
	check(w.t, err)
	c := &copyOf{Server: server}
	register := func(r grpc.ServiceRegistrar) { feedv1.RegisterFeedServiceServer(r, server) }
	secure, err := edge.GRPC(w.tls, register)
	check(w.t, err)
	plain, err := edge.GRPC(nil, register)
	check(w.t, err)
	c.address, c.plaintext = w.serveOn(secure, address), w.serveOn(plain, "127.0.0.1:0")
	stopRun := w.run(server.Run)
	c.stop = func() { secure.Stop(); plain.Stop(); stopRun() }
	w.t.Cleanup(c.stop)
	return c
}

func (w *world) serveOn(server *grpc.Server, address string) string {
	var listener net.Listener
	var err error
	for range 50 { // the port of a copy that was just stopped
		if listener, err = net.Listen("tcp", address); err == nil {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	check(w.t, err)
	go server.Serve(listener)
	return listener.Addr().String()
}

// config of a replica that follows the address.
func (w *world) config(address string, token credential.Secret) replica.Config {
	return replica.Config{Address: address, Token: token, TLS: &tls.Config{RootCAs: w.roots, ServerName: "localhost"}, Logger: quiet()}
}

func (w *world) open(c replica.Config) *replica.Replica {
	w.t.Helper()
	r, err := replica.Open(c)
	check(w.t, err)
	w.t.Cleanup(func() {
		if err := r.Close(); err != nil {
			w.t.Error(err)
		}
	})
	return r
}

// follow opens a replica and follows until the test's end.
func (w *world) follow(c replica.Config) (r *replica.Replica, stop func()) {
	w.t.Helper()
	r = w.open(c)
	stop = w.run(r.Run)
	return r, stop
}

// eventually waits until ok holds.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("in vain: waiting until %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// equal reports whether the replica has exactly what the database has of the accounts.
func (w *world) equal(r *replica.Replica, accounts ...sallyport.AccountID) bool {
	for _, account := range accounts {
		b, err := w.journal.Snapshot(context.Background(), account)
		check(w.t, err)
		digest, held := r.Digest(account)
		if !held || digest != b.Digest || r.Heads()[account] != b.Head {
			return false
		}
	}
	return true
}

// reached waits until all of the accounts are equal.
func (w *world) reached(r *replica.Replica, accounts ...sallyport.AccountID) {
	w.t.Helper()
	eventually(w.t, fmt.Sprintf("%v are as in the database", accounts), func() bool { return w.equal(r, accounts...) })
}

// chmod makes a folder as a replica wants it.
func chmod(t testing.TB, dir string) {
	t.Helper()
	check(t, os.Chmod(dir, 0o700))
}
