package directory_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/directory"
	"github.com/sallyport-iam/sallyport/internal/page"
	"github.com/sallyport-iam/sallyport/internal/pg"
	"github.com/sallyport-iam/sallyport/internal/pgtest"
	"github.com/sallyport-iam/sallyport/journal"
)

func TestMain(m *testing.M) { pgtest.Main(m) }

var regions = []directory.Region{
	{ID: "aws-us-east-1", CloudProvider: "aws", CloudRegion: "us-east-1", Location: "US East", Cell: "one"},
	{ID: "aws-eu-west-1", CloudProvider: "aws", CloudRegion: "eu-west-1", Location: "Ireland", Cell: "two"},
}

// world is a directory over the package's database, and one fresh account in it.
type world struct {
	*directory.Directory
	t       testing.TB
	journal *journal.Journal
	account sallyport.AccountID
	project string
	first   directory.User   // the account's first owner
	owner   sallyport.Caller // as him

	mu    sync.Mutex
	ended []string // principals that the hook was told of
}

func newWorld(t testing.TB) *world { return newWorldIn(t, pgtest.DB(t), directory.Config{}) }

func newWorldIn(t testing.TB, pool *pgxpool.Pool, c directory.Config) *world {
	t.Helper()
	w := &world{t: t}
	var err error
	w.journal, err = journal.New(journal.Config{Pool: pool, Resolve: w.resolve})
	if err != nil {
		t.Fatal(err)
	}
	c.Journal, c.Pages, c.Regions = w.journal, page.NewSigner([32]byte{1}), regions
	c.PrincipalEnded = func(_ context.Context, _ *journal.Tx, principal string) error {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.ended = append(w.ended, principal)
		return nil
	}
	if w.Directory, err = directory.New(c); err != nil {
		t.Fatal(err)
	}
	id := sallyport.AccountID(sallyport.NewID("")[:10])
	account, owner, _, err := w.CreateAccount(t.Context(), sallyport.OperatorCaller(id, "test"), journal.Operation{Type: "CreateAccount"},
		directory.AccountParams{ID: id, Name: "Test", OwnerEmail: "owner@example.com"})
	if err != nil {
		t.Fatal(err)
	}
	w.account, w.project, w.first = account.ID, account.DefaultProject, owner
	w.owner = w.as(owner.ID)
	return w
}

// resolve is what authn does: a principal that has gone or is disabled is nobody.
func (w *world) resolve(ctx context.Context, q pg.Querier, c sallyport.Caller) (sallyport.Caller, error) {
	access, standing, err := w.Access(ctx, q, c.Account, c.Principal)
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

// as is the caller that the principal is now.
func (w *world) as(principal string) sallyport.Caller {
	w.t.Helper()
	c := sallyport.Caller{Account: w.account, Principal: sallyport.Principal{Kind: sallyport.User, ID: principal}}
	if strings.HasPrefix(principal, sallyport.ServiceAccountPrefix) {
		c.Principal.Kind = sallyport.ServiceAccount
	}
	c, err := w.resolve(w.t.Context(), w.journal.Pool(), c)
	if err != nil {
		w.t.Fatal(err)
	}
	return c
}

func op(kind string) journal.Operation { return journal.Operation{Type: kind} }

// user makes a user with the access.
func (w *world) user(email string, a directory.Access) directory.User {
	w.t.Helper()
	u, _, err := w.CreateUser(w.t.Context(), w.owner, op("CreateUser"), directory.UserParams{Email: email, Access: a})
	if err != nil {
		w.t.Fatal(err)
	}
	return u
}

// role makes a user with the account role and gives the caller that he is.
func (w *world) role(r sallyport.AccountRole) sallyport.Caller {
	w.t.Helper()
	return w.as(w.user(r.String()+"@example.com", directory.Access{Role: r}).ID)
}

func namespaceParams(name string) directory.NamespaceParams {
	return directory.NamespaceParams{Name: name, Region: "aws-us-east-1", RetentionDays: 7, APIKeyAuth: true, Spec: []byte("spec")}
}

func (w *world) namespace(name string) directory.Namespace {
	w.t.Helper()
	n, _, err := w.CreateNamespace(w.t.Context(), w.owner, op("CreateNamespace"), namespaceParams(name))
	if err != nil {
		w.t.Fatal(err)
	}
	return n
}

func (w *world) group(name string, a directory.Access) directory.Group {
	w.t.Helper()
	g, _, err := w.CreateGroup(w.t.Context(), w.owner, op("CreateUserGroup"), directory.GroupParams{Kind: directory.CloudGroup, Name: name, Access: a})
	if err != nil {
		w.t.Fatal(err)
	}
	return g
}

func (w *world) serviceAccount(p directory.ServiceAccountParams) directory.ServiceAccount {
	w.t.Helper()
	s, _, err := w.CreateServiceAccount(w.t.Context(), w.owner, op("CreateServiceAccount"), p)
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

func (w *world) join(group, user string) {
	w.t.Helper()
	if _, err := w.AddMember(w.t.Context(), w.owner, op("AddUserGroupMember"), group, user); err != nil {
		w.t.Fatal(err)
	}
}

func on(name string, p sallyport.Permission) directory.Access {
	return directory.Access{Role: sallyport.RoleRead, Namespaces: map[string]sallyport.Permission{name: p}}
}

// want fails the test unless err is of the kind ("" for none) and its text has the words.
func want(t testing.TB, err error, kind sallyport.Kind, words ...string) {
	t.Helper()
	if got := sallyport.KindOf(err); got != kind || err != nil && kind == "" {
		t.Fatalf("got the error %v, want kind %q", err, kind)
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("got the text %q, want %q in it", err, word)
		}
	}
}

// wantField fails the test unless err is Invalid and names the request's field.
func wantField(t testing.TB, name string, err error, field string) {
	t.Helper()
	var e *sallyport.Error
	if !errors.As(err, &e) || e.Kind != sallyport.Invalid || e.Field != field {
		t.Errorf("%s: got %v, want Invalid in %s", name, err, field)
	} else if len(err.Error()) > 400 {
		t.Errorf("%s: an error of %d bytes", name, len(err.Error()))
	}
}
