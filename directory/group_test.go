package directory_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/directory"
	"github.com/sallyport-iam/sallyport/internal/pgtest"
)

func TestGroupLife(t *testing.T) {
	t.Parallel()
	ctx, w := t.Context(), newWorld(t)
	n := w.namespace("orders")
	ann := w.user("ann@example.com", directory.Access{Role: sallyport.RoleRead})
	g := w.group("team-one", directory.Access{})
	w.join(g.ID, ann.ID)
	if got := w.as(ann.ID).Access.Permission(w.project, n.ID); got != sallyport.NoPermission {
		t.Errorf("a group without access gives %s", got)
	}
	params := g.GroupParams
	_, _, err := w.UpdateGroup(ctx, w.owner, op("UpdateUserGroup"), g.ID, g.Revision, params)
	want(t, err, sallyport.Invalid, "nothing to change")
	params.Access = directory.Access{Role: sallyport.RoleDeveloper, Namespaces: map[string]sallyport.Permission{"orders": sallyport.PermissionWrite}}
	params.Name = "team_1"
	changed, _, err := w.UpdateGroup(ctx, w.owner, op("UpdateUserGroup"), g.ID, g.Revision, params)
	want(t, err, "")
	c := w.as(ann.ID)
	if c.Access.Permission(w.project, n.ID) != sallyport.PermissionWrite || !c.Access.Roles.Has(sallyport.RoleDeveloper) || !c.Access.Roles.Has(sallyport.RoleRead) {
		t.Errorf("the member has %+v, want the union of his own and the group's", c.Access)
	}
	_, _, err = w.SetGroupNamespaceAccess(ctx, w.owner, op("SetUserGroupNamespaceAccess"), g.ID, "orders", changed.Revision, sallyport.NoPermission)
	want(t, err, "")
	_, _, err = w.SetGroupNamespaceAccess(ctx, w.owner, op("SetUserGroupNamespaceAccess"), g.ID, "orders", 0, sallyport.NoPermission)
	want(t, err, sallyport.Invalid, "nothing to change")
	_, err = w.AddMember(ctx, w.owner, op("AddUserGroupMember"), g.ID, ann.ID)
	want(t, err, sallyport.AlreadyExists)
	_, err = w.RemoveMember(ctx, w.owner, op("RemoveUserGroupMember"), g.ID, ann.ID)
	want(t, err, "")
	_, err = w.RemoveMember(ctx, w.owner, op("RemoveUserGroupMember"), g.ID, ann.ID)
	want(t, err, sallyport.NotFound)
	_, err = w.AddMember(ctx, w.owner, op("AddUserGroupMember"), g.ID, "u_nobody")
	want(t, err, sallyport.NotFound)
	robot := w.serviceAccount(directory.ServiceAccountParams{Name: "robot", Scope: sallyport.ScopeAccount})
	_, err = w.AddMember(ctx, w.owner, op("AddUserGroupMember"), g.ID, robot.ID)
	want(t, err, sallyport.NotFound)
	w.join(g.ID, ann.ID)
	_, err = w.DeleteGroup(ctx, w.owner, op("DeleteUserGroup"), g.ID, g.Revision)
	want(t, err, sallyport.Conflict)
	_, err = w.DeleteGroup(ctx, w.owner, op("DeleteUserGroup"), g.ID, 0)
	want(t, err, "")
	_, err = w.Group(ctx, w.owner, g.ID)
	want(t, err, sallyport.NotFound)
	if w.as(ann.ID).Access.Roles.Has(sallyport.RoleDeveloper) {
		t.Error("a deleted group still gives its role")
	}
	same(t, w)
}

func TestGroupKinds(t *testing.T) {
	t.Parallel()
	ctx, w := t.Context(), newWorld(t)
	make := func(p directory.GroupParams) (directory.Group, error) {
		g, _, err := w.CreateGroup(ctx, w.owner, op("CreateUserGroup"), p)
		return g, err
	}
	scim := directory.GroupParams{Kind: directory.SCIMGroup, Name: "Scim Test", IDPID: "tf-basic"}
	google := directory.GroupParams{Kind: directory.GoogleGroup, Name: "Everyone", Email: "All@example.com"}
	cloud := directory.GroupParams{Kind: directory.CloudGroup, Name: "cloud"}
	s, err := make(scim)
	want(t, err, "")
	g, err := make(google)
	want(t, err, "")
	_, err = make(cloud)
	want(t, err, "")
	google2, scim2 := google, scim
	google2.Email, scim2.Name = "all@EXAMPLE.com", "Another"
	for _, p := range []directory.GroupParams{cloud, google2, scim2} {
		_, err = make(p)
		want(t, err, sallyport.AlreadyExists)
	}
	other := scim
	other.IDPID = "tf-other"
	_, err = make(other) // names of an identity provider's groups may be the same
	want(t, err, "")

	for name, test := range map[string]struct {
		p     directory.GroupParams
		field string
	}{
		"no kind":            {directory.GroupParams{Name: "abc"}, "spec.group_type"},
		"unknown kind":       {directory.GroupParams{Kind: "ldap", Name: "abc"}, "spec.group_type"},
		"short name":         {directory.GroupParams{Kind: directory.CloudGroup, Name: "ab"}, "spec.display_name"},
		"upper case":         {directory.GroupParams{Kind: directory.CloudGroup, Name: "Team"}, "spec.display_name"},
		"long name":          {directory.GroupParams{Kind: directory.CloudGroup, Name: strings.Repeat("a", 65)}, "spec.display_name"},
		"cloud with e-mail":  {directory.GroupParams{Kind: directory.CloudGroup, Name: "abc", Email: "a@example.com"}, "spec.google_group.email_address"},
		"cloud with idp id":  {directory.GroupParams{Kind: directory.CloudGroup, Name: "abc", IDPID: "x"}, "spec.scim_group.idp_id"},
		"google, no e-mail":  {directory.GroupParams{Kind: directory.GoogleGroup, Name: "abc"}, "spec.google_group.email_address"},
		"scim, no id":        {directory.GroupParams{Kind: directory.SCIMGroup, Name: "abc"}, "spec.scim_group.idp_id"},
		"scim, control name": {directory.GroupParams{Kind: directory.SCIMGroup, Name: "a\tb", IDPID: "x"}, "spec.display_name"},
		"scim, bad UTF-8":    {directory.GroupParams{Kind: directory.SCIMGroup, Name: "a\xff", IDPID: "x"}, "spec.display_name"},
	} {
		_, err := make(test.p)
		wantField(t, name, err, test.field)
	}

	ann := w.user("ann@example.com", directory.Access{})
	for _, id := range []string{s.ID, g.ID} {
		_, err = w.AddMember(ctx, w.owner, op("AddUserGroupMember"), id, ann.ID)
		want(t, err, sallyport.Conflict)
		_, err = w.RemoveMember(ctx, w.owner, op("RemoveUserGroupMember"), id, ann.ID)
		want(t, err, sallyport.Conflict)
	}
	update := func(id string, p directory.GroupParams) error {
		_, _, err := w.UpdateGroup(ctx, w.owner, op("UpdateUserGroup"), id, 0, p)
		return err
	}
	renamed, moved, turned := scim, scim, google
	renamed.Name, moved.IDPID, turned.Email = "Other", "tf-moved", "else@example.com"
	wantField(t, "renaming", update(s.ID, renamed), "spec.display_name")
	wantField(t, "moving", update(s.ID, moved), "spec.scim_group.idp_id")
	wantField(t, "another address", update(g.ID, turned), "spec.google_group.email_address")
	wantField(t, "another kind", update(s.ID, directory.GroupParams{Kind: directory.CloudGroup, Name: scim.Name}), "spec.group_type")
	scim.Access.Role = sallyport.RoleRead
	want(t, update(s.ID, scim), "")
}

// TestGroupRoles: membership in a group gives its role, so that who may not
// give the role may not give the membership either.
func TestGroupRoles(t *testing.T) {
	t.Parallel()
	ctx, w := t.Context(), newWorld(t)
	admin := w.role(sallyport.RoleAdmin)
	owners := w.group("owners", directory.Access{Role: sallyport.RoleOwner})
	finance := w.group("finance", directory.Access{Role: sallyport.RoleFinanceAdmin})
	admins := w.group("admins", directory.Access{Role: sallyport.RoleAdmin})
	for name, test := range map[string]struct {
		err  error
		kind sallyport.Kind
	}{
		"join owners":  {second(w.AddMember(ctx, admin, op("AddUserGroupMember"), owners.ID, admin.Principal.ID)), sallyport.PermissionDenied},
		"join finance": {second(w.AddMember(ctx, admin, op("AddUserGroupMember"), finance.ID, admin.Principal.ID)), sallyport.PermissionDenied},
		"join admins":  {second(w.AddMember(ctx, admin, op("AddUserGroupMember"), admins.ID, admin.Principal.ID)), ""},
		"delete":       {second(w.DeleteGroup(ctx, admin, op("DeleteUserGroup"), owners.ID, 0)), sallyport.PermissionDenied},
		"owner may":    {second(w.AddMember(ctx, w.owner, op("AddUserGroupMember"), owners.ID, admin.Principal.ID)), ""},
	} {
		if got := sallyport.KindOf(test.err); got != test.kind {
			t.Errorf("%s: got %v, want %q", name, test.err, test.kind)
		}
	}
	promoted := finance.GroupParams
	promoted.Access.Role = sallyport.RoleOwner
	_, _, err := w.UpdateGroup(ctx, w.as(w.user("a2@example.com", directory.Access{Role: sallyport.RoleAdmin}).ID), op("UpdateUserGroup"), finance.ID, 0, promoted)
	want(t, err, sallyport.PermissionDenied, "cloud.owner.grant")
}

func second[T any](_ T, err error) error { return err }

func TestGroupLists(t *testing.T) {
	t.Parallel()
	ctx, w := t.Context(), newWorldIn(t, pgtest.DB(t), directory.Config{MaxGroups: 5})
	w.namespace("orders")
	for i := range 3 {
		_, _, err := w.CreateGroup(ctx, w.owner, op("CreateUserGroup"), directory.GroupParams{Kind: directory.SCIMGroup, Name: "same/name", IDPID: fmt.Sprint(i)})
		want(t, err, "")
	}
	w.group("bbb", on("orders", sallyport.PermissionRead))
	w.group("aaa", directory.Access{})
	_, _, err := w.CreateGroup(ctx, w.owner, op("CreateUserGroup"), directory.GroupParams{Kind: directory.CloudGroup, Name: "ccc"})
	want(t, err, sallyport.Conflict)
	list := func(f directory.GroupFilter, size int) []string {
		t.Helper()
		var names []string
		p := sallyport.Page{Size: size}
		for {
			groups, next, err := w.Groups(ctx, w.owner, f, p)
			want(t, err, "")
			for _, g := range groups {
				names = append(names, g.Name)
			}
			if p.Token = next; next == "" {
				return names
			}
		}
	}
	for name, test := range map[string]struct{ got, want []string }{
		"all":          {list(directory.GroupFilter{}, 0), []string{"aaa", "bbb", "same/name", "same/name", "same/name"}},
		"by ones":      {list(directory.GroupFilter{}, 1), []string{"aaa", "bbb", "same/name", "same/name", "same/name"}},
		"by name":      {list(directory.GroupFilter{Name: "aaa"}, 0), []string{"aaa"}},
		"by idp id":    {list(directory.GroupFilter{IDPID: "2"}, 0), []string{"same/name"}},
		"by namespace": {list(directory.GroupFilter{Namespace: "orders"}, 0), []string{"bbb"}},
		"by e-mail":    {list(directory.GroupFilter{Email: "x@example.com"}, 0), nil},
	} {
		if diff := cmp.Diff(test.want, test.got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestMembersPages(t *testing.T) {
	t.Parallel()
	ctx, w := t.Context(), newWorld(t)
	g := w.group("team", directory.Access{})
	wanted := map[string]bool{}
	for i := range 5 {
		u := w.user(fmt.Sprintf("u%d@example.com", i), directory.Access{})
		w.join(g.ID, u.ID)
		wanted[u.ID] = true
	}
	got := map[string]bool{}
	p := sallyport.Page{Size: 2}
	for {
		members, next, err := w.Members(ctx, w.owner, g.ID, p)
		want(t, err, "")
		for _, m := range members {
			got[m.User] = !m.Created.IsZero()
		}
		if p.Token = next; next == "" {
			break
		}
	}
	if diff := cmp.Diff(wanted, got); diff != "" {
		t.Errorf("members (-want +got):\n%s", diff)
	}
	_, _, err := w.Members(ctx, w.owner, "g_none", sallyport.Page{})
	want(t, err, sallyport.NotFound)
}

// TestLargeGroup: memberships beyond what one transaction takes go after it.
func TestLargeGroup(t *testing.T) {
	t.Parallel()
	ctx, w := t.Context(), newWorld(t)
	g := w.group("large", directory.Access{Role: sallyport.RoleRead})
	_, err := w.journal.Pool().Exec(ctx, `
		insert into memberships (account_id, group_id, user_id, created_at)
		select $1, $2, 'u_' || i, now()
		from generate_series(1, 1100) i`, w.account, g.ID)
	want(t, err, "")
	_, err = w.DeleteGroup(ctx, w.owner, op("DeleteUserGroup"), g.ID, 0)
	want(t, err, "")
	same(t, w)
}
