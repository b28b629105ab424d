package authn_test

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/apikeys"
	"github.com/sallyport-iam/sallyport/authn"
	"github.com/sallyport-iam/sallyport/authn/authntest"
	"github.com/sallyport-iam/sallyport/credential"
	"github.com/sallyport-iam/sallyport/directory"
	"github.com/sallyport-iam/sallyport/internal/pg"
	"github.com/sallyport-iam/sallyport/internal/pgtest"
	"github.com/sallyport-iam/sallyport/journal"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

func op(kind string) journal.Operation { return journal.Operation{Type: kind} }

func TestAuthenticate(t *testing.T) {
	t.Parallel()
	a := authntest.New(t).Tenant(t)
	ns := a.Namespace(t, "orders")
	sa := a.ServiceAccount(t, sallyport.ScopeAccount, directory.Access{Role: sallyport.RoleDeveloper, Namespaces: map[string]sallyport.Permission{"orders": sallyport.PermissionWrite}})
	made := a.Key(t, sa, sallyport.Limits{ReadOnly: true})
	got := a.With(t, made)
	head, err := a.Journal.Head(t.Context(), a.ID)
	if err != nil {
		t.Fatal(err)
	}
	want := sallyport.Caller{
		Account: a.ID, Principal: sa, Credential: sallyport.Credential{Kind: apikeys.CredentialKind, ID: made.Key.ID},
		Access: sallyport.Access{Roles: sallyport.Roles(sallyport.RoleDeveloper), Projects: map[string]sallyport.ProjectRoles{},
			Namespaces: map[sallyport.NamespaceID]sallyport.Permission{ns.ID: sallyport.PermissionWrite}},
		Limits: sallyport.Limits{ReadOnly: true}, Head: head, From: netip.MustParseAddr("192.0.2.1"), RequestID: "request",
	}
	same := cmp.Comparer(func(x, y netip.Addr) bool { return x == y })
	if diff := cmp.Diff(want, got, same); diff != "" {
		t.Errorf("caller (-want +got):\n%s", diff)
	}
	// The key's use is kept.
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := a.Keys.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if key, err := a.Keys.Get(t.Context(), a.Operator, made.Key.ID); err != nil || time.Since(key.LastUsed) > 2*time.Minute {
		t.Errorf("last use: got %s, %v", key.LastUsed, err)
	}
}

func TestRefusedHeaders(t *testing.T) {
	t.Parallel()
	w := authntest.New(t)
	unknown, _ := credential.NewAPIKey("f45a2", sallyport.NewID(""))
	for header, says := range map[string]string{
		"":                           "there is no API key",
		"Basic dXNlcjpwYXNz":         "holds no API key",
		"Bearer":                     "holds no API key",
		"Bearer abc":                 "not an API key",
		"Bearer sp_f45a2_x":          "malformed",
		"Bearer " + unknown.Reveal(): "no such API key",
	} {
		caller, err := w.Auth.Authenticate(t.Context(), authn.Request{Authorization: header})
		if !errors.Is(err, sallyport.Unauthenticated) || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: got %v; want Unauthenticated with %q", header, err, says)
		}
		if caller.Account != "" {
			t.Errorf("%q: got caller %+v", header, caller)
		}
	}
}

// TestNotKnownNow: only who proves nobody is told so. That the database is
// away, or its tables are, is not a denial.
func TestNotKnownNow(t *testing.T) {
	t.Parallel()
	a := authntest.New(t).Tenant(t)
	closed, err := pg.Open(t.Context(), pgtest.URL(t))
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	header := "Bearer " + a.Key(t, a.Owner.Principal, sallyport.Limits{}).Token.Reveal()
	apiKeys := authn.APIKeys{Kind: apikeys.CredentialKind, Authenticate: a.Keys.Authenticate, Reauthenticate: a.Keys.Reauthenticate, MarkUsed: a.Keys.MarkUsed}
	access := func(err error) func(context.Context, pg.Querier, sallyport.AccountID, sallyport.Principal) (sallyport.Access, error) {
		return func(context.Context, pg.Querier, sallyport.AccountID, sallyport.Principal) (sallyport.Access, error) {
			return sallyport.Access{}, err
		}
	}
	for name, config := range map[string]authn.Config{
		"a closed database":       {Pool: closed, APIKeys: apiKeys, Access: access(nil)},
		"access that has no rows": {Pool: pgtest.DB(t), APIKeys: apiKeys, Access: access(sallyport.NotFound.Errorf("gone"))},
		"access that breaks":      {Pool: pgtest.DB(t), APIKeys: apiKeys, Access: access(errors.New("relation does not exist"))},
	} {
		auth, err := authn.New(config)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := auth.Authenticate(t.Context(), authn.Request{Authorization: header}); !errors.Is(err, sallyport.Unavailable) {
			t.Errorf("%s: got %v, want Unavailable", name, err)
		}
	}
}

func TestResolve(t *testing.T) {
	t.Parallel()
	a := authntest.New(t).Tenant(t)
	ctx, db := t.Context(), pgtest.DB(t)
	user := a.User(t, directory.Access{Role: sallyport.RoleAdmin})
	caller := a.Caller(t, user, sallyport.Limits{})
	if _, _, err := a.Directory.UpdateUser(ctx, a.Owner, op("UpdateUser"), user.ID, 0,
		directory.UserParams{Access: directory.Access{Role: sallyport.RoleRead}}); err != nil {
		t.Fatal(err)
	}
	got, err := a.Auth.Resolve(ctx, db, caller)
	if err != nil {
		t.Fatal(err)
	}
	head, err := a.Journal.Head(ctx, a.ID)
	if err != nil {
		t.Fatal(err)
	}
	if got.Access.Roles != sallyport.Roles(sallyport.RoleRead) || got.Head != head || got.From != caller.From || got.RequestID != caller.RequestID || got.Credential != caller.Credential {
		t.Errorf("resolved: got %+v", got)
	}
	forged := caller
	forged.Principal = a.Owner.Principal
	if _, err := a.Auth.Resolve(ctx, db, forged); !errors.Is(err, sallyport.Unauthenticated) {
		t.Errorf("another principal's key: got %v", err)
	}
	forged = caller
	forged.Credential.Kind = "session"
	if _, err := a.Auth.Resolve(ctx, db, forged); !errors.Is(err, sallyport.Unauthenticated) {
		t.Errorf("a credential of an unknown kind: got %v", err)
	}
	if _, err := a.Keys.Delete(ctx, a.Owner, op("DeleteApiKey"), caller.Credential.ID, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Auth.Resolve(ctx, db, caller); !errors.Is(err, sallyport.Unauthenticated) {
		t.Errorf("a deleted key: got %v", err)
	}
}

// TestOneMoment changes a user's role and, in the same breath, his namespace
// access: no caller may hold both or neither, and each caller's head is the
// one that its access was read at.
func TestOneMoment(t *testing.T) {
	t.Parallel()
	a := authntest.New(t).Tenant(t)
	a.Namespace(t, "orders")
	user := a.User(t, directory.Access{Role: sallyport.RoleAdmin})
	made := a.Key(t, user, sallyport.Limits{})
	admin := directory.Access{Role: sallyport.RoleAdmin}
	reader := directory.Access{Role: sallyport.RoleRead, Namespaces: map[string]sallyport.Permission{"orders": sallyport.PermissionRead}}

	var mu sync.Mutex
	wantAt := map[int64]sallyport.AccountRole{}
	head, err := a.Journal.Head(t.Context(), a.ID)
	if err != nil {
		t.Fatal(err)
	}
	wantAt[head.Revision] = sallyport.RoleAdmin
	var seen []sallyport.Caller
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				caller := a.With(t, made)
				mu.Lock()
				seen = append(seen, caller)
				mu.Unlock()
			}
		})
	}
	for i := range 60 {
		access := []directory.Access{reader, admin}[i%2]
		_, done, err := a.Directory.UpdateUser(t.Context(), a.Operator, op("UpdateUser"), user.ID, 0, directory.UserParams{Access: access})
		if err != nil {
			t.Error(err)
			break
		}
		mu.Lock()
		wantAt[done.Head.Revision] = access.Role
		mu.Unlock()
	}
	close(stop)
	wg.Wait()
	for _, caller := range seen {
		want, known := wantAt[caller.Head.Revision]
		both := caller.Access.Roles == sallyport.Roles(sallyport.RoleAdmin) && len(caller.Access.Namespaces) == 0 ||
			caller.Access.Roles == sallyport.Roles(sallyport.RoleRead) && len(caller.Access.Namespaces) == 1
		if !known || !both || caller.Access.Roles != sallyport.Roles(want) {
			t.Fatalf("at revision %d: got %+v, want the role %s", caller.Head.Revision, caller.Access, want)
		}
	}
	if len(seen) < 10 {
		t.Errorf("only %d callers were seen", len(seen))
	}
}

// TestRevokedWhileWaiting: a change that waits for the account's lock while
// its caller's key is deleted is refused when it gets the lock.
func TestRevokedWhileWaiting(t *testing.T) {
	t.Parallel()
	a := authntest.New(t).Tenant(t)
	ctx := t.Context()
	caller := a.Caller(t, a.User(t, directory.Access{Role: sallyport.RoleAdmin}), sallyport.Limits{})
	result := make(chan error, 1)
	_, err := a.Journal.Commit(ctx, a.Operator, a.ID, op("Hold"), func(tx *journal.Tx) error {
		go func() {
			_, _, err := a.Directory.CreateUser(ctx, caller, op("CreateUser"), directory.UserParams{Email: "new@example.com", Access: directory.Access{Role: sallyport.RoleAdmin}})
			result <- err
		}()
		if err := waitForLock(ctx, tx); err != nil {
			return err
		}
		return a.Keys.RemoveOwned(ctx, tx, caller.Principal.ID)
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := <-result; !errors.Is(err, sallyport.Unauthenticated) {
		t.Errorf("the change that waited: got %v, want Unauthenticated", err)
	}
}

// waitForLock waits until another transaction waits for this one.
func waitForLock(ctx context.Context, tx *journal.Tx) error {
	for range 500 {
		var waiting int
		err := tx.QueryRow(ctx, `select count(*) from pg_locks where not granted and transactionid = pg_current_xact_id_if_assigned()::xid`).Scan(&waiting)
		if err != nil && !errors.Is(err, pgx.ErrNoRows) {
			return err
		}
		if waiting > 0 {
			return nil
		}
		time.Sleep(10 * time.Millisecond)
	}
	return fmt.Errorf("nobody waits for the lock")
}

// Where certificates prove nobody, they are as good as none; half a
// configuration is refused.
func TestWithoutCertificates(t *testing.T) {
	t.Parallel()
	w := authntest.New(t)
	config := authn.Config{
		Pool:    w.Journal.Pool(),
		APIKeys: authn.APIKeys{Kind: apikeys.CredentialKind, Authenticate: w.Keys.Authenticate, Reauthenticate: w.Keys.Reauthenticate, MarkUsed: w.Keys.MarkUsed},
		Access: func(context.Context, pg.Querier, sallyport.AccountID, sallyport.Principal) (sallyport.Access, error) {
			return sallyport.Access{}, nil
		},
	}
	auth, err := authn.New(config)
	if err != nil {
		t.Fatal(err)
	}
	_, err = auth.Authenticate(t.Context(), authn.Request{Certificates: []*x509.Certificate{{}}})
	if !errors.Is(err, sallyport.Unauthenticated) || !strings.Contains(err.Error(), "there is no API key") {
		t.Errorf("got %v", err)
	}
	_, err = auth.Authenticate(t.Context(), authn.Request{Authorization: "Bearer eyJ.e30.c2ln"})
	if !errors.Is(err, sallyport.Unauthenticated) || !strings.Contains(err.Error(), "not an API key") {
		t.Errorf("a token where tokens prove nobody: got %v", err)
	}
	for _, kind := range []string{"", "certificate", "token"} {
		caller := sallyport.Caller{Account: "f45a2", Credential: sallyport.Credential{Kind: kind, ID: "cert_a"}}
		if _, err := auth.Resolve(t.Context(), w.Journal.Pool(), caller); !errors.Is(err, sallyport.Unauthenticated) {
			t.Errorf("resolving a credential of kind %q: got %v", kind, err)
		}
	}
	config.Certificates.Kind = "certificate"
	if _, err := authn.New(config); err == nil {
		t.Error("half of Certificates was taken")
	}
	config.Certificates.Kind, config.Tokens.Kind = "", "token"
	if _, err := authn.New(config); err == nil {
		t.Error("half of Tokens was taken")
	}
}

// A token is proved with the certificate beside it, is resolved by its kind, and its
// use is noted once it proved somebody.
func TestTokens(t *testing.T) {
	t.Parallel()
	w := authntest.New(t)
	a := w.Tenant(t)
	robot := a.ServiceAccount(t, sallyport.ScopeAccount, directory.Access{Role: sallyport.RoleRead})
	const good = "eyJ.Z29vZA.c2ln"
	certificate := &x509.Certificate{Raw: []byte("leaf")}
	proved := sallyport.Caller{Account: a.ID, Principal: robot, Credential: sallyport.Credential{Kind: "token", ID: "tok_1"}}
	ended := false
	var used []string
	auth, err := authn.New(authn.Config{
		Pool:    w.Journal.Pool(),
		APIKeys: authn.APIKeys{Kind: apikeys.CredentialKind, Authenticate: w.Keys.Authenticate, Reauthenticate: w.Keys.Reauthenticate, MarkUsed: w.Keys.MarkUsed},
		Tokens: authn.Tokens{Kind: "token",
			Authenticate: func(_ context.Context, _ pg.Querier, raw string, presented []*x509.Certificate, _ netip.Addr) (sallyport.Caller, error) {
				if raw != good || len(presented) != 1 || presented[0] != certificate {
					return sallyport.Caller{}, sallyport.Unauthenticated.Errorf("another token, or without its certificate")
				}
				return proved, nil
			},
			Reauthenticate: func(_ context.Context, _ pg.Querier, caller sallyport.Caller) (sallyport.Caller, error) {
				if ended {
					return sallyport.Caller{}, sallyport.Unauthenticated.Errorf("the token ended")
				}
				return caller, nil
			},
			MarkUsed: func(_ sallyport.AccountID, id string, _ time.Time) { used = append(used, id) }},
		Access: func(ctx context.Context, q pg.Querier, account sallyport.AccountID, p sallyport.Principal) (sallyport.Access, error) {
			access, _, err := w.Directory.Access(ctx, q, account, p)
			return access, err
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	request := authn.Request{Authorization: "Bearer " + good, ID: "request"}
	if _, err := auth.Authenticate(t.Context(), request); !errors.Is(err, sallyport.Unauthenticated) || used != nil {
		t.Errorf("without the certificate: %v, and used %v", err, used)
	}
	request.Certificates = []*x509.Certificate{certificate}
	caller, err := auth.Authenticate(t.Context(), request)
	if err != nil || caller.Principal != robot || !caller.Access.Roles.Has(sallyport.RoleRead) || caller.Head.Revision == 0 || caller.RequestID != "request" || len(used) != 1 {
		t.Errorf("got %+v, %v, used %v", caller, err, used)
	}
	if resolved, err := auth.Resolve(t.Context(), w.Journal.Pool(), caller); err != nil || resolved.Principal != robot {
		t.Errorf("resolved %+v, %v", resolved, err)
	}
	ended = true
	if _, err := auth.Resolve(t.Context(), w.Journal.Pool(), caller); !errors.Is(err, sallyport.Unauthenticated) {
		t.Errorf("resolving a token that ended: %v", err)
	}
}
