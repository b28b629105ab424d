package directory_test

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/credential"
	"github.com/sallyport-iam/sallyport/directory"
	"github.com/sallyport-iam/sallyport/internal/pgtest"
	"github.com/sallyport-iam/sallyport/journal"
)

func TestNamespaceLife(t *testing.T) {
	t.Parallel()
	ctx, w := t.Context(), newWorld(t)
	params := namespaceParams("orders")
	made, done, err := w.CreateNamespace(ctx, w.owner, op("CreateNamespace"), params)
	want(t, err, "")
	if made.Project != w.project || made.Cell != "one" || made.Revision != done.Head.Revision || !bytes.Equal(made.Spec, params.Spec) {
		t.Errorf("got %+v", made)
	}
	_, _, err = w.CreateNamespace(ctx, w.owner, op("CreateNamespace"), params)
	want(t, err, sallyport.AlreadyExists)
	_, _, err = w.UpdateNamespace(ctx, w.owner, op("UpdateNamespace"), "orders", made.Revision, params)
	want(t, err, sallyport.Invalid, "nothing to change")
	params.Spec, params.DeleteProtection = []byte("another"), true
	changed, _, err := w.UpdateNamespace(ctx, w.owner, op("UpdateNamespace"), "orders", made.Revision, params)
	want(t, err, "")
	_, _, err = w.UpdateNamespace(ctx, w.owner, op("UpdateNamespace"), "orders", made.Revision, params)
	want(t, err, sallyport.Conflict)
	read, err := w.Namespace(ctx, w.owner, "orders")
	want(t, err, "")
	if diff := cmp.Diff(changed, read); diff != "" || read.ID != made.ID || !read.DeleteProtection {
		t.Errorf("a read gives another namespace than the update (-update +read):\n%s", diff)
	}
	_, err = w.DeleteNamespace(ctx, w.owner, op("DeleteNamespace"), "orders", changed.Revision)
	want(t, err, sallyport.Conflict, "protected")
	params.DeleteProtection = false
	_, _, err = w.UpdateNamespace(ctx, w.owner, op("UpdateNamespace"), "orders", 0, params)
	want(t, err, "")
	_, err = w.DeleteNamespace(ctx, w.owner, op("DeleteNamespace"), "orders", 0)
	want(t, err, "")
	_, err = w.Namespace(ctx, w.owner, "orders")
	want(t, err, sallyport.NotFound)
	_, err = w.DeleteNamespace(ctx, w.owner, op("DeleteNamespace"), "orders", 0)
	want(t, err, sallyport.NotFound)
}

// TestNameMadeAgain: a namespace of an old name brings back no grant, no
// service account and no id.
func TestNameMadeAgain(t *testing.T) {
	t.Parallel()
	ctx, w := t.Context(), newWorld(t)
	first := w.namespace("orders")
	ann := w.user("ann@example.com", on("orders", sallyport.PermissionAdmin))
	g := w.group("team", on("orders", sallyport.PermissionWrite))
	w.join(g.ID, ann.ID)
	scoped := w.serviceAccount(directory.ServiceAccountParams{Name: "worker", Scope: sallyport.ScopeNamespace,
		Access: directory.Access{Namespaces: map[string]sallyport.Permission{"orders": sallyport.PermissionWrite}}})
	plain := w.serviceAccount(directory.ServiceAccountParams{Name: "plain", Scope: sallyport.ScopeAccount, Access: on("orders", sallyport.PermissionRead)})
	if got := w.as(ann.ID).Access.Permission(w.project, first.ID); got != sallyport.PermissionAdmin {
		t.Fatalf("before: got %s", got)
	}
	done, err := w.DeleteNamespace(ctx, w.owner, op("DeleteNamespace"), "orders", 0)
	want(t, err, "")
	if diff := cmp.Diff([]string{scoped.ID}, w.ended); diff != "" {
		t.Errorf("principals ended with the namespace (-want +got):\n%s", diff)
	}
	_, err = w.ServiceAccount(ctx, w.owner, scoped.ID)
	want(t, err, sallyport.NotFound)
	second := w.namespace("orders")
	if second.ID == first.ID {
		t.Fatal("the id was used again")
	}
	for _, id := range []string{ann.ID, plain.ID} {
		if got := w.as(id).Access.Permission(w.project, second.ID); got != sallyport.NoPermission {
			t.Errorf("%s has the permission %s in the new namespace", id, got)
		}
	}
	after, err := w.User(ctx, w.owner, ann.ID)
	want(t, err, "")
	if len(after.Access.Namespaces) != 0 || after.Revision != done.Head.Revision {
		t.Errorf("the user still shows %v at revision %d", after.Access.Namespaces, after.Revision)
	}
	same(t, w)
}

func TestNamespaceInput(t *testing.T) {
	t.Parallel()
	ctx, w := t.Context(), newWorld(t)
	for _, test := range []struct {
		name   string
		change func(*directory.NamespaceParams)
		field  string
	}{
		{"no name", func(p *directory.NamespaceParams) { p.Name = "" }, "spec.name"},
		{"one letter", func(p *directory.NamespaceParams) { p.Name = "a" }, "spec.name"},
		{"long", func(p *directory.NamespaceParams) { p.Name = strings.Repeat("a", 65) }, "spec.name"},
		{"upper case", func(p *directory.NamespaceParams) { p.Name = "Orders" }, "spec.name"},
		{"digit first", func(p *directory.NamespaceParams) { p.Name = "1orders" }, "spec.name"},
		{"hyphen last", func(p *directory.NamespaceParams) { p.Name = "orders-" }, "spec.name"},
		{"dot", func(p *directory.NamespaceParams) { p.Name = "orders.f45a2" }, "spec.name"},
		{"line break", func(p *directory.NamespaceParams) { p.Name = "orders\n" }, "spec.name"},
		{"no region", func(p *directory.NamespaceParams) { p.Region = "" }, "spec.replicas"},
		{"unknown region", func(p *directory.NamespaceParams) { p.Region = "aws-us-fake-99" }, "spec.replicas"},
		{"unknown project", func(p *directory.NamespaceParams) { p.Project = "p_none" }, "project_id"},
		{"no retention", func(p *directory.NamespaceParams) { p.RetentionDays = 0 }, "spec.retention_days"},
		{"long retention", func(p *directory.NamespaceParams) { p.RetentionDays = 91 }, "spec.retention_days"},
		{"large spec", func(p *directory.NamespaceParams) { p.Spec = make([]byte, 300<<10) }, "spec"},
	} {
		p := namespaceParams("orders")
		test.change(&p)
		_, _, err := w.CreateNamespace(ctx, w.owner, op("CreateNamespace"), p)
		wantField(t, test.name, err, test.field)
	}
	w.namespace("orders")
	for field, change := range map[string]func(*directory.NamespaceParams){
		"spec.name":     func(p *directory.NamespaceParams) { p.Name = "other" },
		"spec.replicas": func(p *directory.NamespaceParams) { p.Region = "aws-eu-west-1" },
		"project_id":    func(p *directory.NamespaceParams) { p.Project = "p_none" },
	} {
		p := namespaceParams("orders")
		change(&p)
		_, _, err := w.UpdateNamespace(ctx, w.owner, op("UpdateNamespace"), "orders", 0, p)
		wantField(t, "changing "+field, err, field)
	}
	for _, name := range []string{"aa", "a2", "tf-search-attribute-import-abcdefghij", strings.Repeat("a", 64)} {
		w.namespace(name)
	}
}

func TestNamespaceLimit(t *testing.T) {
	t.Parallel()
	ctx, w := t.Context(), newWorldIn(t, pgtest.DB(t), directory.Config{MaxNamespaces: 1})
	w.namespace("one")
	_, _, err := w.CreateNamespace(ctx, w.owner, op("CreateNamespace"), namespaceParams("two"))
	want(t, err, sallyport.Conflict)
	_, err = w.DeleteNamespace(ctx, w.owner, op("DeleteNamespace"), "one", 0)
	want(t, err, "")
	w.namespace("two") // a deleted one does not count
}

// TestDeveloper: who makes a namespace is its admin, by a grant that can be taken away.
func TestDeveloper(t *testing.T) {
	t.Parallel()
	ctx, w := t.Context(), newWorld(t)
	dev := w.role(sallyport.RoleDeveloper)
	_, _, err := w.CreateNamespace(ctx, w.role(sallyport.RoleRead), op("CreateNamespace"), namespaceParams("orders"))
	want(t, err, sallyport.PermissionDenied)
	_, _, err = w.CreateNamespace(ctx, dev, op("CreateNamespace"), namespaceParams("orders"))
	want(t, err, "")
	dev = w.as(dev.Principal.ID)
	u, err := w.User(ctx, dev, dev.Principal.ID)
	want(t, err, "")
	if u.Access.Namespaces["orders"] != sallyport.PermissionAdmin {
		t.Errorf("the developer holds %v", u.Access.Namespaces)
	}
	p := namespaceParams("orders")
	p.RetentionDays = 30
	_, _, err = w.UpdateNamespace(ctx, dev, op("UpdateNamespace"), "orders", 0, p)
	want(t, err, "")
	_, _, err = w.SetUserNamespaceAccess(ctx, w.owner, op("SetUserNamespaceAccess"), u.ID, "orders", u.Revision, sallyport.PermissionRead)
	want(t, err, "")
	_, err = w.DeleteNamespace(ctx, dev, op("DeleteNamespace"), "orders", 0) // with the access he had before
	want(t, err, sallyport.PermissionDenied, "cloud.namespace.delete")
	first, err := w.User(ctx, w.owner, w.first.ID)
	want(t, err, "")
	if len(first.Access.Namespaces) != 0 {
		t.Errorf("the owner holds %v, but is admin everywhere", first.Access.Namespaces)
	}
	same(t, w)
}

func TestNamespaceList(t *testing.T) {
	t.Parallel()
	ctx, w := t.Context(), newWorld(t)
	for _, name := range []string{"cc", "aa", "dd", "bb"} {
		w.namespace(name)
	}
	reader := w.as(w.user("r@example.com", directory.Access{Namespaces: map[string]sallyport.Permission{"aa": 1, "dd": 2}}).ID)
	project := w.as(w.user("p@example.com", directory.Access{Projects: map[string]sallyport.ProjectRole{w.project: sallyport.ProjectRead}}).ID)
	narrowed := w.owner
	n, err := w.Namespace(ctx, w.owner, "bb")
	want(t, err, "")
	narrowed.Limits.Namespaces = []sallyport.NamespaceID{n.ID}
	list := func(c sallyport.Caller, f directory.NamespaceFilter, size int) []string {
		t.Helper()
		var names []string
		p := sallyport.Page{Size: size}
		for {
			page, next, err := w.Namespaces(ctx, c, f, p)
			want(t, err, "")
			for _, n := range page {
				names = append(names, n.Name)
			}
			if p.Token = next; next == "" {
				return names
			}
		}
	}
	all := []string{"aa", "bb", "cc", "dd"}
	for name, test := range map[string]struct{ got, want []string }{
		"owner":         {list(w.owner, directory.NamespaceFilter{}, 0), all},
		"one at a time": {list(w.owner, directory.NamespaceFilter{}, 1), all},
		"two at a time": {list(w.owner, directory.NamespaceFilter{}, 2), all},
		"by name":       {list(w.owner, directory.NamespaceFilter{Name: "cc"}, 0), []string{"cc"}},
		"by project":    {list(w.owner, directory.NamespaceFilter{Project: w.project}, 3), all},
		"other project": {list(w.owner, directory.NamespaceFilter{Project: "p_none"}, 3), nil},
		"reader":        {list(reader, directory.NamespaceFilter{}, 1), []string{"aa", "dd"}},
		"project":       {list(project, directory.NamespaceFilter{}, 3), all},
		"narrowed key":  {list(narrowed, directory.NamespaceFilter{}, 3), []string{"bb"}},
	} {
		if diff := cmp.Diff(test.want, test.got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestCells(t *testing.T) {
	t.Parallel()
	ctx, w := t.Context(), newWorldIn(t, pgtest.Clone(t), directory.Config{})
	far := namespaceParams("far")
	far.Region = "aws-eu-west-1"
	w.namespace("near")
	_, _, err := w.CreateNamespace(ctx, w.owner, op("CreateNamespace"), far)
	want(t, err, "")
	cells, err := w.CellsOf(ctx, []sallyport.AccountID{w.account, "zzzzz"})
	want(t, err, "")
	if diff := cmp.Diff(map[sallyport.AccountID][]string{w.account: {"one", "two"}}, cells); diff != "" {
		t.Errorf("cells (-want +got):\n%s", diff)
	}
	_, err = w.DeleteNamespace(ctx, w.owner, op("DeleteNamespace"), "far", 0)
	want(t, err, "")
	for cell, wanted := range map[string][]sallyport.AccountID{"one": {w.account}, "two": {}, "three": {}} {
		got, err := w.AccountsInCell(ctx, cell)
		want(t, err, "")
		if diff := cmp.Diff(wanted, got); diff != "" {
			t.Errorf("accounts in cell %s (-want +got):\n%s", cell, diff)
		}
	}
}

func TestAccounts(t *testing.T) {
	t.Parallel()
	ctx, w := t.Context(), newWorldIn(t, pgtest.Clone(t), directory.Config{})
	operator := sallyport.OperatorCaller(sallyport.SystemAccount, "root")
	want(t, w.EnsureSystem(ctx), "")
	want(t, w.EnsureSystem(ctx), "")
	a, owner, done, err := w.CreateAccount(ctx, operator, op("CreateAccount"), directory.AccountParams{Name: "Acme", OwnerEmail: "boss@acme.example"})
	want(t, err, "")
	if !a.ID.Valid() || len(a.ID) != 5 || a.Status != object.Active || a.DefaultProject == "" || owner.Access.Role != sallyport.RoleOwner || done.Target != owner.ID {
		t.Errorf("got %+v, %+v, %+v", a, owner, done)
	}
	_, _, _, err = w.CreateAccount(ctx, operator, op("CreateAccount"), directory.AccountParams{ID: a.ID, Name: "Acme", OwnerEmail: "boss@acme.example"})
	want(t, err, sallyport.AlreadyExists)
	_, _, _, err = w.CreateAccount(ctx, w.owner, op("CreateAccount"), directory.AccountParams{Name: "Acme", OwnerEmail: "boss@acme.example"})
	want(t, err, sallyport.PermissionDenied)
	for field, p := range map[string]directory.AccountParams{
		"account_id": {ID: "Bad1", Name: "x", OwnerEmail: "a@example.com"},
		"name":       {ID: "badname", OwnerEmail: "a@example.com"},
		"spec.email": {ID: "bademail", Name: "x", OwnerEmail: "nobody"},
	} {
		_, _, _, err := w.CreateAccount(ctx, operator, op("CreateAccount"), p)
		wantField(t, field, err, field)
	}
	_, _, _, err = w.CreateAccount(ctx, operator, op("CreateAccount"), directory.AccountParams{ID: sallyport.SystemAccount, Name: "x", OwnerEmail: "a@example.com"})
	want(t, err, sallyport.Invalid)
	if _, err := w.journal.Head(ctx, "badname"); sallyport.KindOf(err) != sallyport.NotFound {
		t.Errorf("a refused account left a head: %v", err)
	}

	_, _, err = w.SetAccountStatus(ctx, w.owner, op("SetAccountStatus"), object.Suspended)
	want(t, err, sallyport.PermissionDenied)
	_, _, err = w.SetAccountStatus(ctx, sallyport.OperatorCaller(w.account, "root"), op("SetAccountStatus"), object.Suspended)
	want(t, err, "")
	s, err := w.Standing(ctx, w.journal.Pool(), w.account, sallyport.Principal{Kind: sallyport.User, ID: w.first.ID})
	want(t, err, "")
	if s.Account != object.Suspended {
		t.Errorf("got the account's status %q", s.Account)
	}
	same(t, w)

	robot, _, err := w.CreateAuthorizer(ctx, operator, op("CreateAuthorizer"), "cell one", "one")
	want(t, err, "")
	access, _, err := w.Access(ctx, w.journal.Pool(), sallyport.SystemAccount, sallyport.Principal{Kind: sallyport.ServiceAccount, ID: robot.ID})
	want(t, err, "")
	if diff := cmp.Diff([]string{"one"}, access.Cells); diff != "" || access.Roles != 0 {
		t.Errorf("an authorizer's access: %+v", access)
	}
	_, _, err = w.CreateAuthorizer(ctx, w.owner, op("CreateAuthorizer"), "mine", "one")
	want(t, err, sallyport.NotFound)
	_, _, err = w.CreateAuthorizer(ctx, operator, op("CreateAuthorizer"), "bad", "../one")
	wantField(t, "cell", err, "cell")
	_, _, err = w.CreateAuthorizer(ctx, operator, op("CreateAuthorizer"), "cell one", "two")
	want(t, err, sallyport.AlreadyExists)
	_, err = w.DeleteServiceAccount(ctx, operator, op("DeleteServiceAccount"), robot.ID, 0)
	want(t, err, "")
}

// TestNamespaceHook: whoever keeps what hangs on namespaces is told in the same
// transaction, and can refuse.
func TestNamespaceHook(t *testing.T) {
	t.Parallel()
	var told []string
	var refuse error
	w := newWorldIn(t, pgtest.DB(t), directory.Config{NamespaceChanged: func(_ context.Context, tx *journal.Tx, before, after directory.Namespace) error {
		told = append(told, fmt.Sprintf("%s/%d %q -> %s/%d %q", before.Name, before.Revision, before.ClientCA, after.Name, after.Revision, after.ClientCA))
		if after.ID != "" && after.Revision != tx.Revision() {
			t.Errorf("told of revision %d in the change %d", after.Revision, tx.Revision())
		}
		return refuse
	}})
	ctx := t.Context()
	n := w.namespace("orders")
	p := n.NamespaceParams
	p.ClientCA, p.CertificateFilters = []byte("bundle\n"), []credential.Filter{{CommonName: "*.example.com"}, {Organization: "x", OrganizationalUnit: "y", SubjectAlternativeName: "z"}}
	refuse = sallyport.InvalidField("somewhere", "is refused")
	_, _, err := w.UpdateNamespace(ctx, w.owner, op("UpdateNamespace"), "orders", n.Revision, p)
	wantField(t, "an update that is refused", err, "somewhere")
	if got, err := w.Namespace(ctx, w.owner, "orders"); err != nil || got.Revision != n.Revision || got.ClientCA != nil {
		t.Errorf("after a refusal: %+v, %v", got, err)
	}
	refuse = nil
	changed, _, err := w.UpdateNamespace(ctx, w.owner, op("UpdateNamespace"), "orders", n.Revision, p)
	want(t, err, "")
	got, err := w.Namespace(ctx, w.owner, "orders")
	if diff := cmp.Diff(p, got.NamespaceParams); err != nil || diff != "" {
		t.Errorf("as read (-want +got), %v:\n%s", err, diff)
	}
	byID, err := w.NamespacesByID(ctx, w.journal.Pool(), w.account, []sallyport.NamespaceID{n.ID, "ns_nowhere"})
	if diff := cmp.Diff(map[sallyport.NamespaceID]directory.Namespace{n.ID: got}, byID); err != nil || diff != "" {
		t.Errorf("by id (-want +got), %v:\n%s", err, diff)
	}
	p.CertificateFilters[0].CommonName = "*.Example.com"
	_, _, err = w.UpdateNamespace(ctx, w.owner, op("UpdateNamespace"), "orders", changed.Revision, p)
	want(t, err, "")
	_, err = w.DeleteNamespace(ctx, w.owner, op("DeleteNamespace"), "orders", 0)
	want(t, err, "")
	r := n.Revision
	expected := []string{
		fmt.Sprintf(`/0 "" -> orders/%d ""`, r),
		fmt.Sprintf(`orders/%d "" -> orders/%d "bundle\n"`, r, r+1),
		fmt.Sprintf(`orders/%d "" -> orders/%d "bundle\n"`, r, r+1),
		fmt.Sprintf(`orders/%d "bundle\n" -> orders/%d "bundle\n"`, r+1, r+2),
		fmt.Sprintf(`orders/%d "bundle\n" -> /0 ""`, r+2),
	}
	if diff := cmp.Diff(expected, told); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
	if byID, err := w.NamespacesByID(ctx, w.journal.Pool(), w.account, []sallyport.NamespaceID{n.ID}); err != nil || len(byID) > 0 {
		t.Errorf("a deleted namespace by id: %v, %v", byID, err)
	}
}
