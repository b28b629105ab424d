package directory_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/directory"
	"github.com/sallyport-iam/sallyport/internal/pgtest"
)

func scoped(name, namespace string, p sallyport.Permission) directory.ServiceAccountParams {
	return directory.ServiceAccountParams{Name: name, Scope: sallyport.ScopeNamespace, Access: directory.Access{Namespaces: map[string]sallyport.Permission{namespace: p}}}
}

func TestServiceAccountLife(t *testing.T) {
	t.Parallel()
	ctx, w := t.Context(), newWorld(t)
	n := w.namespace("orders")
	params := directory.ServiceAccountParams{Name: "Worker one", Description: "line\nanother", Scope: sallyport.ScopeAccount, Access: on("orders", sallyport.PermissionWrite)}
	made := w.serviceAccount(params)
	if got := w.as(made.ID).Access; got.Permission(w.project, n.ID) != sallyport.PermissionWrite || !got.Roles.Has(sallyport.RoleRead) {
		t.Errorf("got the access %+v", got)
	}
	_, _, err := w.CreateServiceAccount(ctx, w.owner, op("CreateServiceAccount"), params)
	want(t, err, sallyport.AlreadyExists)
	_, _, err = w.UpdateServiceAccount(ctx, w.owner, op("UpdateServiceAccount"), made.ID, made.Revision, params)
	want(t, err, sallyport.Invalid, "nothing to change")
	params.Scope, params.Description = "", ""
	changed, _, err := w.UpdateServiceAccount(ctx, w.owner, op("UpdateServiceAccount"), made.ID, made.Revision, params)
	want(t, err, "")
	read, err := w.ServiceAccount(ctx, w.owner, made.ID)
	want(t, err, "")
	if diff := cmp.Diff(changed, read); diff != "" || read.Description != "" {
		t.Errorf("a read gives another service account than the update (-update +read):\n%s", diff)
	}
	_, _, err = w.UpdateServiceAccount(ctx, w.owner, op("UpdateServiceAccount"), made.ID, made.Revision, params)
	want(t, err, sallyport.Conflict)
	_, _, err = w.SetServiceAccountNamespaceAccess(ctx, w.owner, op("SetServiceAccountNamespaceAccess"), made.ID, "orders", changed.Revision, sallyport.NoPermission)
	want(t, err, "")
	self, err := w.ServiceAccount(ctx, w.as(made.ID), made.ID)
	want(t, err, "")
	if len(self.Access.Namespaces) != 0 {
		t.Errorf("got %v, want no namespace left", self.Access.Namespaces)
	}
	_, err = w.DeleteServiceAccount(ctx, w.owner, op("DeleteServiceAccount"), made.ID, 0)
	want(t, err, "")
	_, err = w.ServiceAccount(ctx, w.owner, made.ID)
	want(t, err, sallyport.NotFound)
	if diff := cmp.Diff([]string{made.ID}, w.ended); diff != "" {
		t.Errorf("principals ended (-want +got):\n%s", diff)
	}
	w.serviceAccount(directory.ServiceAccountParams{Name: "Worker one", Scope: sallyport.ScopeAccount}) // the name is free
	same(t, w)
}

// Disabling ends no credential: enabling restores them.
func TestServiceAccountStatus(t *testing.T) {
	t.Parallel()
	ctx, w := t.Context(), newWorld(t)
	w.namespace("orders")
	w.namespace("other")
	made := w.serviceAccount(directory.ServiceAccountParams{Name: "worker", Description: "d", Scope: sallyport.ScopeNamespace, Access: on("orders", sallyport.PermissionWrite)})
	set := func(caller sallyport.Caller, revision int64, status object.Status) (directory.ServiceAccount, error) {
		got, _, err := w.SetServiceAccountStatus(ctx, caller, op("SetServiceAccountStatus"), made.ID, revision, status)
		return got, err
	}
	as := func(name string) sallyport.Caller {
		return w.as(w.user(name+"@example.com", on(name, sallyport.PermissionAdmin)).ID)
	}
	admin, stranger := as("orders"), as("other")
	_, err := set(stranger, made.Revision, object.Disabled)
	want(t, err, sallyport.PermissionDenied, "cloud.serviceaccount.update")
	_, err = set(w.role(sallyport.RoleDeveloper), made.Revision, object.Disabled)
	want(t, err, sallyport.PermissionDenied)
	for _, status := range []object.Status{"", "gone", object.Suspended} {
		_, err = set(w.owner, made.Revision, status)
		want(t, err, sallyport.Invalid, "status")
	}
	_, err = set(w.owner, made.Revision-1, object.Disabled)
	want(t, err, sallyport.Conflict, "resource_version")
	_, err = set(w.owner, made.Revision, object.Active)
	want(t, err, sallyport.Invalid, "nothing to change")
	_, _, err = w.SetServiceAccountStatus(ctx, w.owner, op("SetServiceAccountStatus"), "sa_nobody", 0, object.Disabled)
	want(t, err, sallyport.NotFound)

	disabled, err := set(admin, made.Revision, object.Disabled)
	want(t, err, "")
	same(t, w)
	read, err := w.ServiceAccount(ctx, w.owner, made.ID)
	want(t, err, "")
	if diff := cmp.Diff(disabled, read); diff != "" || read.Status != object.Disabled || read.Epoch != made.Epoch {
		t.Errorf("a read gives another service account than the change (-change +read):\n%s", diff)
	}
	_, err = set(admin, disabled.Revision, object.Disabled)
	want(t, err, sallyport.Invalid, "nothing to change")
	renamed, _, err := w.UpdateServiceAccount(ctx, w.owner, op("UpdateServiceAccount"), made.ID, disabled.Revision,
		directory.ServiceAccountParams{Name: "renamed", Access: on("orders", sallyport.PermissionRead)})
	want(t, err, "")
	if renamed.Status != object.Disabled {
		t.Errorf("an update made it %s", renamed.Status)
	}
	enabled, err := set(w.owner, 0, object.Active)
	want(t, err, "")
	if enabled.Status != object.Active || enabled.Epoch != made.Epoch || enabled.Name != "renamed" || len(w.ended) != 0 {
		t.Errorf("enabled again: %+v, ended %v", enabled, w.ended)
	}
	same(t, w)
}

func TestServiceAccountInput(t *testing.T) {
	t.Parallel()
	ctx, w := t.Context(), newWorldIn(t, pgtest.DB(t), directory.Config{MaxServiceAccounts: 1})
	w.namespace("orders")
	w.namespace("other")
	two := map[string]sallyport.Permission{"orders": 1, "other": 1}
	project := map[string]sallyport.ProjectRole{w.project: sallyport.ProjectRead}
	type params = directory.ServiceAccountParams
	for _, test := range []struct {
		name  string
		p     params
		field string
	}{
		{"no name", params{Scope: sallyport.ScopeAccount}, "spec.name"},
		{"spaces around", params{Name: " a ", Scope: sallyport.ScopeAccount}, "spec.name"},
		{"long name", params{Name: strings.Repeat("ä", 65), Scope: sallyport.ScopeAccount}, "spec.name"},
		{"bell", params{Name: "a\ab", Scope: sallyport.ScopeAccount}, "spec.name"},
		{"long description", params{Name: "a", Description: strings.Repeat("a", 1025), Scope: sallyport.ScopeAccount}, "spec.description"},
		{"zero byte", params{Name: "a", Description: "\x00", Scope: sallyport.ScopeAccount}, "spec.description"},
		{"no scope", params{Name: "a"}, "spec"},
		{"cell", params{Name: "a", Scope: sallyport.ScopeCell}, "spec"},
		{"owner", params{Name: "a", Scope: sallyport.ScopeAccount, Access: directory.Access{Role: sallyport.RoleOwner}}, "spec.access.account_access.role"},
		{"finance admin", params{Name: "a", Scope: sallyport.ScopeAccount, Access: directory.Access{Role: sallyport.RoleFinanceAdmin}}, "spec.access.account_access.role"},
		{"admin on a namespace", params{Name: "a", Scope: sallyport.ScopeAccount, Access: directory.Access{Role: sallyport.RoleAdmin, Namespaces: two}}, "spec.access.namespace_accesses"},
		{"namespace scope, none", params{Name: "a", Scope: sallyport.ScopeNamespace}, "spec.namespace_scoped_access"},
		{"namespace scope, two", params{Name: "a", Scope: sallyport.ScopeNamespace, Access: directory.Access{Namespaces: two}}, "spec.namespace_scoped_access"},
		{"namespace scope, a role", params{Name: "a", Scope: sallyport.ScopeNamespace, Access: directory.Access{Role: sallyport.RoleDeveloper, Namespaces: two}}, "spec.namespace_scoped_access"},
		{"namespace scope, a project", params{Name: "a", Scope: sallyport.ScopeNamespace, Access: directory.Access{Namespaces: map[string]sallyport.Permission{"orders": 1}, Projects: project}}, "spec.namespace_scoped_access"},
		{"namespace scope, unknown", scoped("a", "nowhere", 1), "spec.namespace_scoped_access.namespace"},
		{"project scope, none", params{Name: "a", Scope: sallyport.ScopeProject}, "spec.project_scoped_access"},
		{"project scope, unknown", params{Name: "a", Scope: sallyport.ScopeProject,
			Access: directory.Access{Projects: map[string]sallyport.ProjectRole{"p_x": sallyport.ProjectRead}}}, "spec.project_scoped_access.project_id"},
		{"project scope, unknown project role", params{Name: "a", Scope: sallyport.ScopeProject,
			Access: directory.Access{Projects: map[string]sallyport.ProjectRole{w.project: 3}}}, "spec.project_scoped_access.access.role"},
		{"project scope, unknown namespace", params{Name: "a", Scope: sallyport.ScopeProject,
			Access: directory.Access{Projects: project, Namespaces: map[string]sallyport.Permission{"nowhere": 1}}}, "spec.project_scoped_access.namespace_accesses"},
		{"project scope, a role", params{Name: "a", Scope: sallyport.ScopeProject, Access: directory.Access{Role: sallyport.RoleRead, Projects: project}}, "spec.project_scoped_access"},
	} {
		_, _, err := w.CreateServiceAccount(ctx, w.owner, op("CreateServiceAccount"), test.p)
		wantField(t, test.name, err, test.field)
	}
	s := w.serviceAccount(scoped("worker", "orders", sallyport.PermissionRead))
	_, _, err := w.CreateServiceAccount(ctx, w.owner, op("CreateServiceAccount"), scoped("more", "orders", 1))
	want(t, err, sallyport.Conflict)
	for name, test := range map[string]struct {
		p     params
		field string
	}{
		"another namespace": {scoped("worker", "other", 1), "spec.namespace_scoped_access.namespace"},
		"a second one":      {params{Name: "worker", Scope: sallyport.ScopeNamespace, Access: directory.Access{Namespaces: two}}, "spec.namespace_scoped_access.namespace"},
		"another scope":     {params{Name: "worker", Scope: sallyport.ScopeAccount}, "spec"},
		"nothing":           {params{Name: "worker", Scope: sallyport.ScopeNamespace}, "spec.namespace_scoped_access"},
	} {
		_, _, err := w.UpdateServiceAccount(ctx, w.owner, op("UpdateServiceAccount"), s.ID, 0, test.p)
		wantField(t, name, err, test.field)
	}
	_, _, err = w.SetServiceAccountNamespaceAccess(ctx, w.owner, op("SetServiceAccountNamespaceAccess"), s.ID, "other", 0, sallyport.PermissionRead)
	wantField(t, "setting another namespace", err, "namespace")
	_, _, err = w.SetServiceAccountNamespaceAccess(ctx, w.owner, op("SetServiceAccountNamespaceAccess"), s.ID, "orders", 0, sallyport.NoPermission)
	wantField(t, "removing the only namespace", err, "access")
	changed, _, err := w.SetServiceAccountNamespaceAccess(ctx, w.owner, op("SetServiceAccountNamespaceAccess"), s.ID, "orders", 0, sallyport.PermissionAdmin)
	want(t, err, "")
	if changed.Access.Role != sallyport.RoleRead || changed.Access.Namespaces["orders"] != sallyport.PermissionAdmin {
		t.Errorf("got %+v", changed.Access)
	}
	same(t, w)
}

// far makes a namespace in another project than the default one.
func (w *world) far(t *testing.T, name string) {
	t.Helper()
	n := w.namespace(name)
	project := sallyport.NewID(sallyport.ProjectPrefix)
	for _, sql := range []string{
		`insert into projects (account_id, id, name, is_default, revision, created_at, modified_at)
		 select account_id, $2, 'far', false, revision, created_at, modified_at from namespaces where account_id = $1 and id = $3`,
		`update namespaces set project_id = $2 where account_id = $1 and id = $3`,
	} {
		if _, err := w.journal.Pool().Exec(t.Context(), sql, w.account, project, n.ID); err != nil {
			t.Fatal(err)
		}
	}
}

// TestContributor: a service account that is scoped to a project and makes a
// namespace in it has that namespace, as a developer has.
func TestContributor(t *testing.T) {
	t.Parallel()
	ctx, w := t.Context(), newWorld(t)
	p := directory.ServiceAccountParams{Name: "builder", Scope: sallyport.ScopeProject,
		Access: directory.Access{Projects: map[string]sallyport.ProjectRole{w.project: sallyport.ProjectContribute}}}
	s := w.serviceAccount(p)
	w.namespace("theirs")
	for _, name := range []string{"built", "spare"} {
		_, _, err := w.CreateNamespace(ctx, w.as(s.ID), op("CreateNamespace"), namespaceParams(name))
		want(t, err, "")
	}
	builder := w.as(s.ID)
	_, err := w.Namespace(ctx, builder, "theirs")
	want(t, err, sallyport.PermissionDenied)
	_, err = w.Namespace(ctx, builder, "built")
	want(t, err, "")
	_, err = w.DeleteNamespace(ctx, builder, op("DeleteNamespace"), "spare", 0)
	want(t, err, "")
	read, err := w.ServiceAccount(ctx, builder, s.ID)
	want(t, err, "")
	if diff := cmp.Diff(map[string]sallyport.Permission{"built": sallyport.PermissionAdmin}, read.Access.Namespaces); diff != "" || read.Revision == s.Revision {
		t.Errorf("at revision %d it holds (-want +got):\n%s", read.Revision, diff)
	}
	// As it is read it can be sent, with another description.
	again := read.ServiceAccountParams
	again.Description = "builds"
	_, _, err = w.UpdateServiceAccount(ctx, w.owner, op("UpdateServiceAccount"), s.ID, read.Revision, again)
	want(t, err, "")
	_, _, err = w.SetServiceAccountNamespaceAccess(ctx, w.owner, op("SetServiceAccountNamespaceAccess"), s.ID, "theirs", 0, sallyport.PermissionRead)
	want(t, err, "")
	_, err = w.Namespace(ctx, w.as(s.ID), "theirs")
	want(t, err, "")
	_, _, err = w.SetServiceAccountNamespaceAccess(ctx, w.owner, op("SetServiceAccountNamespaceAccess"), s.ID, "built", 0, sallyport.NoPermission)
	want(t, err, "")
	_, err = w.Namespace(ctx, w.as(s.ID), "built")
	want(t, err, sallyport.PermissionDenied)
	same(t, w)

	w.far(t, "far")
	_, _, err = w.SetServiceAccountNamespaceAccess(ctx, w.owner, op("SetServiceAccountNamespaceAccess"), s.ID, "far", 0, sallyport.PermissionRead)
	wantField(t, "another project's namespace", err, "namespace")
	again.Name, again.Access.Namespaces = "second", map[string]sallyport.Permission{"built": sallyport.PermissionRead, "far": sallyport.PermissionRead}
	_, _, err = w.CreateServiceAccount(ctx, w.owner, op("CreateServiceAccount"), again)
	wantField(t, "another project's namespace from the start", err, "spec.project_scoped_access.namespace_accesses")
}

// TestScopedManagers: a namespace's admins manage the service accounts that are
// scoped to it, and no others.
func TestScopedManagers(t *testing.T) {
	t.Parallel()
	ctx, w := t.Context(), newWorld(t)
	n := w.namespace("orders")
	w.namespace("other")
	manager := w.as(w.user("manager@example.com", directory.Access{Namespaces: map[string]sallyport.Permission{"orders": sallyport.PermissionAdmin}}).ID)
	writer := w.as(w.user("writer@example.com", on("orders", sallyport.PermissionWrite)).ID)
	foreign := w.serviceAccount(scoped("foreign", "other", sallyport.PermissionRead))
	whole := w.serviceAccount(directory.ServiceAccountParams{Name: "whole", Scope: sallyport.ScopeAccount, Access: on("orders", sallyport.PermissionRead)})
	byProject := w.serviceAccount(directory.ServiceAccountParams{Name: "by project", Scope: sallyport.ScopeProject,
		Access: directory.Access{Projects: map[string]sallyport.ProjectRole{w.project: sallyport.ProjectWrite}}})

	mine, _, err := w.CreateServiceAccount(ctx, manager, op("CreateServiceAccount"), scoped("mine", "orders", sallyport.PermissionRead))
	want(t, err, "")
	_, _, err = w.CreateServiceAccount(ctx, manager, op("CreateServiceAccount"), scoped("theirs", "other", sallyport.PermissionRead))
	want(t, err, sallyport.PermissionDenied, "cloud.serviceaccount.create")
	_, _, err = w.CreateServiceAccount(ctx, manager, op("CreateServiceAccount"), directory.ServiceAccountParams{Name: "all", Scope: sallyport.ScopeAccount})
	want(t, err, sallyport.PermissionDenied)
	_, _, err = w.CreateServiceAccount(ctx, writer, op("CreateServiceAccount"), scoped("w", "orders", sallyport.PermissionRead))
	want(t, err, sallyport.PermissionDenied)
	both := scoped("both", "orders", sallyport.PermissionRead)
	both.Access.Namespaces["other"] = sallyport.PermissionRead
	_, _, err = w.CreateServiceAccount(ctx, manager, op("CreateServiceAccount"), both)
	want(t, err, sallyport.Invalid)
	for _, id := range []string{foreign.ID, whole.ID, byProject.ID} {
		_, err = w.DeleteServiceAccount(ctx, manager, op("DeleteServiceAccount"), id, 0)
		want(t, err, sallyport.PermissionDenied)
		_, err = w.ServiceAccount(ctx, manager, id)
		want(t, err, sallyport.PermissionDenied)
	}
	_, _, err = w.UpdateServiceAccount(ctx, manager, op("UpdateServiceAccount"), mine.ID, 0, scoped("mine", "other", sallyport.PermissionAdmin))
	want(t, err, sallyport.Invalid)
	_, _, err = w.UpdateServiceAccount(ctx, manager, op("UpdateServiceAccount"), mine.ID, 0, scoped("mine", "orders", sallyport.PermissionAdmin))
	want(t, err, "")

	s, err := w.Standing(ctx, w.journal.Pool(), w.account, sallyport.Principal{Kind: sallyport.ServiceAccount, ID: mine.ID})
	want(t, err, "")
	if s.Scope != sallyport.ScopeNamespace || s.Namespace != n.ID || s.Project != w.project {
		t.Errorf("the scoped one stands as %+v", s)
	}
	s, err = w.Standing(ctx, w.journal.Pool(), w.account, sallyport.Principal{Kind: sallyport.ServiceAccount, ID: byProject.ID})
	want(t, err, "")
	if s.Scope != sallyport.ScopeProject || s.Project != w.project || s.Namespace != "" {
		t.Errorf("the project's stands as %+v", s)
	}
	if got := w.as(byProject.ID).Access.Permission(w.project, n.ID); got != sallyport.PermissionWrite {
		t.Errorf("the project's has the permission %s in its namespaces, want write", got)
	}
	_, err = w.DeleteServiceAccount(ctx, manager, op("DeleteServiceAccount"), mine.ID, 0)
	want(t, err, "")
}

// TestAssignments: who reaches a namespace, directly and through roles and groups.
func TestAssignments(t *testing.T) {
	t.Parallel()
	ctx, w := t.Context(), newWorld(t)
	w.namespace("orders")
	w.namespace("other")
	direct := w.user("direct@example.com", on("orders", sallyport.PermissionRead))
	grouped := w.user("grouped@example.com", directory.Access{})
	w.user("other@example.com", on("other", sallyport.PermissionAdmin))
	w.user("list@example.com", directory.Access{Projects: map[string]sallyport.ProjectRole{w.project: sallyport.ProjectList}})
	team := w.group("team", on("orders", sallyport.PermissionWrite))
	admins := w.group("admins", directory.Access{Role: sallyport.RoleAdmin})
	w.join(team.ID, grouped.ID)
	w.join(team.ID, direct.ID)
	w.serviceAccount(scoped("scoped", "orders", sallyport.PermissionRead))
	w.serviceAccount(directory.ServiceAccountParams{Name: "project", Scope: sallyport.ScopeProject,
		Access: directory.Access{Projects: map[string]sallyport.ProjectRole{w.project: sallyport.ProjectWrite}}})
	w.serviceAccount(directory.ServiceAccountParams{Name: "nobody", Scope: sallyport.ScopeAccount})
	list := func(kind directory.AssignmentKind, size int) map[string][2]string {
		t.Helper()
		got := map[string][2]string{}
		p := sallyport.Page{Size: size}
		for {
			rows, next, err := w.NamespaceAssignments(ctx, w.owner, "orders", kind, p)
			want(t, err, "")
			for _, a := range rows {
				got[a.Name] = [2]string{a.Direct.String(), a.Inherited.String()}
			}
			if p.Token = next; next == "" {
				return got
			}
		}
	}
	for _, size := range []int{0, 1} {
		for name, test := range map[string]struct{ got, want map[string][2]string }{
			"users": {list(directory.UserAssignments, size), map[string][2]string{
				"owner@example.com": {"none", "admin"}, "direct@example.com": {"read", "write"}, "grouped@example.com": {"none", "write"}}},
			"groups": {list(directory.GroupAssignments, size), map[string][2]string{
				team.Name: {"write", "none"}, admins.Name: {"none", "admin"}}},
			"service accounts": {list(directory.ServiceAccountAssignments, size), map[string][2]string{
				"scoped": {"read", "none"}, "project": {"none", "write"}}},
		} {
			if diff := cmp.Diff(test.want, test.got); diff != "" {
				t.Errorf("%s by %d: (-want +got):\n%s", name, size, diff)
			}
		}
	}
	writer := w.user("writer@example.com", directory.Access{Namespaces: map[string]sallyport.Permission{"other": sallyport.PermissionWrite}})
	_, _, err := w.NamespaceAssignments(ctx, w.as(writer.ID), "other", directory.UserAssignments, sallyport.Page{})
	want(t, err, sallyport.PermissionDenied)
	_, _, err = w.NamespaceAssignments(ctx, w.owner, "orders", 0, sallyport.Page{})
	want(t, err, sallyport.PermissionDenied)
}
