package cloudapi_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"net"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"go.temporal.io/cloud-sdk/api/cloudservice/v1"
	"go.temporal.io/cloud-sdk/api/identity/v1"
	"go.temporal.io/cloud-sdk/api/namespace/v1"
	"go.temporal.io/cloud-sdk/api/operation/v1"
	"go.temporal.io/cloud-sdk/cloudclient"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/api/sallyport/admin/v1"
	"github.com/sallyport-iam/sallyport/apikeys"
	"github.com/sallyport-iam/sallyport/authn"
	"github.com/sallyport-iam/sallyport/authn/token"
	"github.com/sallyport-iam/sallyport/certs"
	"github.com/sallyport-iam/sallyport/clientca"
	"github.com/sallyport-iam/sallyport/cloudapi"
	"github.com/sallyport-iam/sallyport/directory"
	"github.com/sallyport-iam/sallyport/feed"
	"github.com/sallyport-iam/sallyport/internal/fetch"
	"github.com/sallyport-iam/sallyport/internal/page"
	"github.com/sallyport-iam/sallyport/internal/pg"
	"github.com/sallyport-iam/sallyport/internal/pgtest"
	"github.com/sallyport-iam/sallyport/internal/serve"
	"github.com/sallyport-iam/sallyport/internal/vault"
	"github.com/sallyport-iam/sallyport/journal"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

// world is the whole service, as cmd puts it together, on loopback with TLS.
type world struct {
	journal   *journal.Journal
	directory *directory.Directory
	keys      *apikeys.Keys
	certs     *certs.Authority
	clientCAs *clientca.ClientCAs
	tokens    *token.Issuer
	address   string
	roots     *x509.CertPool
	web       *httptest.Server
	// enforced answers who enforces a revision; nil: everybody.
	enforced func(account sallyport.AccountID, revision int64) (bool, error)
}

// tenant is an account with its owner and the owner's key.
type tenant struct {
	w       *world
	account sallyport.AccountID
	owner   string
	token   string
	cloud   cloudservice.CloudServiceClient
	admin   adminv1.AdminServiceClient
}

func newWorld(t *testing.T) *world {
	t.Helper()
	return newWorldOn(t, pgtest.DB(t))
}

func newWorldOn(t *testing.T, pool *pgxpool.Pool) *world {
	t.Helper()
	w := &world{}
	var auth *authn.Authenticator // the journal needs it, and it the rest
	resolve := func(ctx context.Context, q pg.Querier, c sallyport.Caller) (sallyport.Caller, error) {
		return auth.Resolve(ctx, q, c)
	}
	var err error
	if w.journal, err = journal.New(journal.Config{Pool: pool, Resolve: resolve, Logger: discard()}); err != nil {
		t.Fatal(err)
	}
	pages, err := page.Open(t.Context(), pool)
	if err != nil {
		t.Fatal(err)
	}
	w.directory, err = directory.New(directory.Config{Journal: w.journal, Pages: pages, Regions: regions(),
		PrincipalEnded: func(ctx context.Context, tx *journal.Tx, p string) error {
			return errors.Join(w.keys.RemoveOwned(ctx, tx, p), w.certs.RemoveOwned(ctx, tx, p), w.tokens.RemoveOwned(ctx, tx, p))
		},
		NamespaceChanged: func(ctx context.Context, tx *journal.Tx, before, after directory.Namespace) error {
			return w.clientCAs.NamespaceChanged(ctx, tx, before, after)
		}})
	if err != nil {
		t.Fatal(err)
	}
	w.keys, err = apikeys.New(apikeys.Config{Journal: w.journal, Pages: pages, Standing: w.directory.Standing, Logger: discard()})
	if err != nil {
		t.Fatal(err)
	}
	w.managedCA(t, pages)
	w.clientCAs, err = clientca.New(clientca.Config{Journal: w.journal, Pages: pages, Directory: w.directory, OperatorRoots: w.certs.Roots, Logger: discard()})
	if err != nil {
		t.Fatal(err)
	}
	w.issuer(t, pages)
	auth = w.authenticator(t, pool)
	w.serve(t, auth)
	return w
}

// managedCA makes the operator's root, which all worlds on a database share.
func (w *world) managedCA(t *testing.T, pages *page.Signer) {
	t.Helper()
	sealed, err := operatorsVault()
	if err != nil {
		t.Fatal(err)
	}
	w.certs, err = certs.New(certs.Config{Journal: w.journal, Pages: pages, Standing: w.directory.Standing, Vault: sealed, TrustDomain: "example.test", Logger: discard()})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.directory.EnsureSystem(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, err = w.certs.InitRoot(t.Context(), sallyport.OperatorCaller(sallyport.SystemAccount, "test"), certs.RootParams{Name: "Test", KeyType: certs.KeyP256})
	if err != nil && !errors.Is(err, sallyport.AlreadyExists) {
		t.Fatal(err)
	}
}

// issuer makes what gives out tokens. The key that signs them is shared by all
// worlds on a database, too.
func (w *world) issuer(t *testing.T, pages *page.Signer) {
	t.Helper()
	sealed, err := operatorsVault()
	if err != nil {
		t.Fatal(err)
	}
	w.tokens, err = token.New(token.Config{Journal: w.journal, Pages: pages, Vault: sealed, Issuer: issuerURL, Audiences: []string{"cloud"},
		Standing: w.directory.Standing, NamespaceIDs: w.directory.NamespaceIDs, Logger: discard(),
		Fetch: fetch.New(fetch.Config{Allowed: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}),
		Keys: token.APIKeys{Kind: apikeys.CredentialKind, Authenticate: w.keys.Authenticate, Reauthenticate: w.keys.Reauthenticate,
			Ends: w.keys.Ends, MarkUsed: w.keys.MarkUsed}})
	if err != nil {
		t.Fatal(err)
	}
}

const issuerURL = "https://id.example.test"

// operatorsVault is the one that opens what is in the shared database.
var operatorsVault = sync.OnceValues(func() (*vault.Vault, error) {
	dir, err := os.MkdirTemp("", "vault-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "vault.json")
	if err := vault.Create(file); err != nil {
		return nil, err
	}
	return vault.Open(file)
})

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

func regions() []directory.Region {
	return []directory.Region{
		{ID: "aws-us-east-1", CloudProvider: "aws", CloudRegion: "us-east-1", Location: "US East (N. Virginia)", Cell: "east"},
		{ID: "azure-centralus", CloudProvider: "azure", CloudRegion: "centralus", Location: "Iowa", Cell: "central"},
	}
}

func (w *world) authenticator(t *testing.T, pool *pgxpool.Pool) *authn.Authenticator {
	t.Helper()
	keys, dir := w.keys, w.directory
	auth, err := authn.New(authn.Config{
		Pool:         pool,
		APIKeys:      authn.APIKeys{Kind: apikeys.CredentialKind, Authenticate: keys.Authenticate, Reauthenticate: keys.Reauthenticate, MarkUsed: keys.MarkUsed},
		Certificates: authn.Certificates{Kind: certs.CredentialKind, Authenticate: w.certs.Authenticate, Reauthenticate: w.certs.Reauthenticate, MarkUsed: w.certs.MarkUsed},
		Tokens:       authn.Tokens{Kind: token.CredentialKind, Authenticate: w.tokens.Authenticate, Reauthenticate: w.tokens.Reauthenticate, MarkUsed: w.tokens.MarkUsed},
		Access: func(ctx context.Context, q pg.Querier, account sallyport.AccountID, p sallyport.Principal) (sallyport.Access, error) {
			a, _, err := dir.Access(ctx, q, account, p)
			return a, err
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return auth
}

func (w *world) serve(t *testing.T, auth *authn.Authenticator) {
	t.Helper()
	edge, err := serve.New(serve.Config{
		Methods: cloudapi.Methods(),
		Authenticate: func(ctx context.Context, c serve.Credentials, from netip.Addr, requestID string) (sallyport.Caller, error) {
			return auth.Authenticate(ctx, authn.Request{Authorization: c.Authorization, Certificates: c.Certificates, From: from, ID: requestID})
		},
		Limits: serve.Limits{Account: 100_000, User: 100_000, ServiceAccount: 100_000}, Logger: discard(),
	})
	if err != nil {
		t.Fatal(err)
	}
	cloud, err := cloudapi.New(cloudapi.Config{
		Directory: w.directory, Keys: w.keys, Journal: w.journal, Logger: discard(),
		Addresses: map[string]string{"east": "east.example:7233", "central": "central.example:7233"}, Web: "https://console.example",
		Enforced: func(_ context.Context, account sallyport.AccountID, revision int64) (bool, error) {
			if w.enforced == nil {
				return true, nil
			}
			return w.enforced(account, revision)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	followed, err := feed.New(feed.Config{Journal: w.journal, Logger: discard(),
		Directory: feed.Directory{AccountsInCell: w.directory.AccountsInCell, CellsOf: w.directory.CellsOf},
		Authenticate: func(context.Context, string, netip.Addr) (sallyport.Caller, error) {
			return sallyport.Caller{}, sallyport.Unauthenticated.Errorf("no authorizers here")
		}})
	if err != nil {
		t.Fatal(err)
	}
	admin, err := cloudapi.NewAdmin(cloudapi.AdminConfig{Directory: w.directory, Keys: w.keys, Certs: w.certs, ClientCAs: w.clientCAs, Tokens: w.tokens, Journal: w.journal, Receipt: followed.Receipt})
	if err != nil {
		t.Fatal(err)
	}
	register := func(r grpc.ServiceRegistrar) {
		cloudservice.RegisterCloudServiceServer(r, cloud)
		adminv1.RegisterAdminServiceServer(r, admin)
	}
	files, err := serve.DevCA(t.TempDir(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	config, err := serve.FileTLS(files.CertFile, files.KeyFile, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := os.ReadFile(files.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	w.roots = x509.NewCertPool()
	w.roots.AppendCertsFromPEM(ca)
	server, err := edge.GRPC(config, register)
	if err != nil {
		t.Fatal(err)
	}
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go server.Serve(lis)
	t.Cleanup(server.Stop)
	w.address = lis.Addr().String()
	inner, err := edge.GRPC(nil, register)
	if err != nil {
		t.Fatal(err)
	}
	handler, err := edge.Handler(inner, cloudapi.AdminRules()...)
	if err != nil {
		t.Fatal(err)
	}
	w.web = httptest.NewServer(handler)
	t.Cleanup(w.web.Close)
}

// tenant makes an account whose owner has a key.
func (w *world) tenant(t *testing.T) *tenant {
	t.Helper()
	operator := sallyport.OperatorCaller("", "test")
	email := sallyport.NewID("owner-") + "@example.com"
	account, owner, _, err := w.directory.CreateAccount(t.Context(), operator, journal.Operation{Type: "CreateAccount"}, directory.AccountParams{Name: "Test", OwnerEmail: email})
	if err != nil {
		t.Fatal(err)
	}
	operator.Account = account.ID
	token := w.key(t, operator, sallyport.Principal{Kind: sallyport.User, ID: owner.ID})
	return w.as(t, account.ID, owner.ID, token)
}

// as is the account's services for the bearer of a token.
func (w *world) as(t *testing.T, account sallyport.AccountID, owner, token string) *tenant {
	t.Helper()
	return &tenant{w: w, account: account, owner: owner, token: token, cloud: w.client(t, token, "").CloudService(), admin: w.adminClient(t, token)}
}

func (w *world) key(t *testing.T, caller sallyport.Caller, owner sallyport.Principal) string {
	t.Helper()
	made, _, err := w.keys.Create(t.Context(), caller, journal.Operation{Type: "CreateApiKey"},
		apikeys.CreateParams{Owner: owner, DisplayName: "test", Expires: time.Now().Add(24 * time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	return made.Token.Reveal()
}

// client is the cloud SDK's own, of some version.
func (w *world) client(t *testing.T, token, version string) *cloudclient.Client {
	t.Helper()
	client, err := cloudclient.New(cloudclient.Options{APIKey: token, HostPort: w.address, APIVersion: version,
		TLSConfig: &tls.Config{RootCAs: w.roots}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

func (w *world) adminClient(t *testing.T, token string) adminv1.AdminServiceClient {
	t.Helper()
	conn, err := grpc.NewClient(w.address, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: w.roots})),
		grpc.WithUnaryInterceptor(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			return invoke(metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token), method, req, reply, cc, opts...)
		}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return adminv1.NewAdminServiceClient(conn)
}

// must is the response of a call that has to succeed.
func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// wantCode checks the code and part of the text of an error.
func wantCode(t *testing.T, what string, err error, code codes.Code, text string) {
	t.Helper()
	if status.Code(err) != code || !strings.Contains(status.Convert(err).Message(), text) {
		t.Errorf("%s: got %v, want %v with %q", what, err, code, text)
	}
}

// wantFulfilled checks the operation of a mutation whose change is enforced.
func wantFulfilled(t *testing.T, what string, op *operation.AsyncOperation) {
	t.Helper()
	if op.GetId() == "" || op.GetState() != operation.AsyncOperation_STATE_FULFILLED {
		t.Errorf("%s: async_operation = %v, want one that is fulfilled", what, op)
	}
}

// namespace makes one that takes API keys and gives its full name.
func (a *tenant) namespace(t *testing.T, name string) string {
	t.Helper()
	resp, err := a.cloud.CreateNamespace(t.Context(), &cloudservice.CreateNamespaceRequest{Spec: &namespace.NamespaceSpec{
		Name: name, Regions: []string{"aws-us-east-1"}, RetentionDays: 7, ApiKeyAuth: &namespace.ApiKeyAuthSpec{Enabled: true}}})
	if err != nil {
		t.Fatal(err)
	}
	return resp.GetNamespace()
}

func (a *tenant) user(t *testing.T, role identity.AccountAccess_Role) string {
	t.Helper()
	resp, err := a.cloud.CreateUser(t.Context(), &cloudservice.CreateUserRequest{Spec: &identity.UserSpec{
		Email: sallyport.NewID("user-") + "@example.com", Access: roleAccess(role)}})
	if err != nil {
		t.Fatal(err)
	}
	return resp.GetUserId()
}

func (a *tenant) serviceAccount(t *testing.T, role identity.AccountAccess_Role) string {
	t.Helper()
	resp, err := a.cloud.CreateServiceAccount(t.Context(), &cloudservice.CreateServiceAccountRequest{Spec: &identity.ServiceAccountSpec{
		Name: sallyport.NewID("sa-"), Access: roleAccess(role)}})
	if err != nil {
		t.Fatal(err)
	}
	return resp.GetServiceAccountId()
}

// keyOf makes a key of a service account and gives its id and token.
func (a *tenant) keyOf(t *testing.T, serviceAccount string) (id, token string) {
	t.Helper()
	resp, err := a.cloud.CreateApiKey(t.Context(), &cloudservice.CreateApiKeyRequest{Spec: keySpec(serviceAccount)})
	if err != nil {
		t.Fatal(err)
	}
	return resp.GetKeyId(), resp.GetToken()
}

func keySpec(serviceAccount string) *identity.ApiKeySpec {
	return &identity.ApiKeySpec{OwnerId: serviceAccount, OwnerType: identity.OwnerType_OWNER_TYPE_SERVICE_ACCOUNT,
		DisplayName: "worker", ExpiryTime: timestamppb.New(time.Now().Add(30 * 24 * time.Hour).Truncate(time.Second))}
}

func roleAccess(role identity.AccountAccess_Role) *identity.Access {
	return &identity.Access{AccountAccess: &identity.AccountAccess{Role: role}}
}

func permission(p identity.NamespaceAccess_Permission) *identity.NamespaceAccess {
	return &identity.NamespaceAccess{Permission: p}
}
