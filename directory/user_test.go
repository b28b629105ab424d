package directory_test

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/directory"
	"github.com/sallyport-iam/sallyport/internal/pgtest"
	"github.com/sallyport-iam/sallyport/journal"
)

func TestUserLife(t *testing.T) {
	t.Parallel()
	ctx, w := t.Context(), newWorld(t)
	w.namespace("orders")
	params := directory.UserParams{Email: "Ann+x@Example.com", Access: directory.Access{Role: sallyport.RoleDeveloper,
		Namespaces: map[string]sallyport.Permission{"orders": sallyport.PermissionWrite}}}
	made, done, err := w.CreateUser(ctx, w.owner, journal.Operation{ID: "op-1", Type: "CreateUser", Request: []byte("ann")}, params)
	want(t, err, "")
	if made.Email != params.Email || made.Status != object.Active || made.Revision != done.Head.Revision || done.Target != made.ID ||
		made.InvitationExpires.Sub(made.Invited) != 7*24*time.Hour {
		t.Errorf("got %+v, committed as %+v", made, done)
	}
	if diff := cmp.Diff(params.Access.Namespaces, made.Access.Namespaces); diff != "" || made.Access.Role != sallyport.RoleDeveloper {
		t.Errorf("access is not as sent: %+v", made.Access)
	}
	again, replay, err := w.CreateUser(ctx, w.owner, journal.Operation{ID: "op-1", Type: "CreateUser", Request: []byte("ann")}, params)
	want(t, err, "")
	if diff := cmp.Diff(made, again); diff != "" || !replay.Replayed {
		t.Errorf("a repetition gave another answer (-first +again):\n%s", diff)
	}
	_, _, err = w.CreateUser(ctx, w.owner, op("CreateUser"), directory.UserParams{Email: "ann+X@example.COM"})
	want(t, err, sallyport.AlreadyExists)

	_, _, err = w.UpdateUser(ctx, w.owner, op("UpdateUser"), made.ID, made.Revision, params)
	want(t, err, sallyport.Invalid, "nothing to change")
	_, _, err = w.UpdateUser(ctx, w.owner, op("UpdateUser"), made.ID, made.Revision-1, directory.UserParams{})
	want(t, err, sallyport.Conflict, "resource_version")
	_, _, err = w.UpdateUser(ctx, w.owner, op("UpdateUser"), made.ID, made.Revision, directory.UserParams{Email: "bob@example.com"})
	want(t, err, sallyport.Invalid, "spec.email")
	changed, _, err := w.UpdateUser(ctx, w.owner, op("UpdateUser"), made.ID, made.Revision, directory.UserParams{Email: made.Email, Access: directory.Access{Role: sallyport.RoleAdmin}})
	want(t, err, "")
	if changed.Access.Role != sallyport.RoleAdmin || len(changed.Access.Namespaces) != 0 || changed.Revision <= made.Revision {
		t.Errorf("after the update: %+v", changed)
	}
	read, err := w.User(ctx, w.owner, made.ID)
	want(t, err, "")
	if diff := cmp.Diff(changed, read); diff != "" {
		t.Errorf("a read gives another user than the update (-update +read):\n%s", diff)
	}
	_, err = w.DeleteUser(ctx, w.owner, op("DeleteUser"), made.ID, made.Revision)
	want(t, err, sallyport.Conflict)
	_, err = w.DeleteUser(ctx, w.owner, op("DeleteUser"), made.ID, changed.Revision)
	want(t, err, "")
	_, err = w.User(ctx, w.owner, made.ID)
	want(t, err, sallyport.NotFound)
	if diff := cmp.Diff([]string{made.ID}, w.ended); diff != "" {
		t.Errorf("principals ended (-want +got):\n%s", diff)
	}
	_, replay, err = w.CreateUser(ctx, w.owner, journal.Operation{ID: "op-1", Type: "CreateUser", Request: []byte("ann")}, params)
	want(t, err, "")
	if !replay.Replayed || replay.Target != made.ID {
		t.Errorf("a repetition after the deletion made something: %+v", replay)
	}
}

func TestUserInput(t *testing.T) {
	t.Parallel()
	ctx, w := t.Context(), newWorld(t)
	w.namespace("orders")
	email := func(s string) directory.UserParams { return directory.UserParams{Email: s} }
	access := func(a directory.Access) directory.UserParams {
		return directory.UserParams{Email: "x@example.com", Access: a}
	}
	ns := func(name string, p sallyport.Permission) map[string]sallyport.Permission {
		return map[string]sallyport.Permission{name: p}
	}
	tests := []struct {
		name   string
		params directory.UserParams
		field  string
	}{
		{"no e-mail", email(""), "spec.email"},
		{"no at", email("ann.example.com"), "spec.email"},
		{"two ats", email("ann@b@example.com"), "spec.email"},
		{"no domain", email("ann@"), "spec.email"},
		{"no local part", email("@example.com"), "spec.email"},
		{"with a name", email("Ann <ann@example.com>"), "spec.email"},
		{"quoted", email(`"ann b"@example.com`), "spec.email"},
		{"space", email("ann @example.com"), "spec.email"},
		{"line break", email("ann@example.com\n"), "spec.email"},
		{"zero byte", email("ann\x00@example.com"), "spec.email"},
		{"not ASCII", email("ann@exämple.com"), "spec.email"},
		{"Kelvin sign", email("\u212Aann@example.com"), "spec.email"},
		{"two addresses", email("a@example.com,b@example.com"), "spec.email"},
		{"long", email(strings.Repeat("a", 60) + "@" + strings.Repeat("b", 200) + ".com"), "spec.email"},
		{"long local part", email(strings.Repeat("a", 65) + "@example.com"), "spec.email"},
		{"unknown role", access(directory.Access{Role: 77}), "spec.access.account_access.role"},
		{"two roles", access(directory.Access{Role: sallyport.RoleOwner | sallyport.RoleRead}), "spec.access.account_access.role"},
		{"no permission", access(directory.Access{Namespaces: ns("orders", 0)}), "spec.access.namespace_accesses"},
		{"unknown permission", access(directory.Access{Namespaces: ns("orders", 9)}), "spec.access.namespace_accesses"},
		{"unknown namespace", access(directory.Access{Namespaces: ns("nowhere", 1)}), "spec.access.namespace_accesses"},
		{"long namespace", access(directory.Access{Namespaces: ns(strings.Repeat("x", 5000), 1)}), "spec.access.namespace_accesses"},
		{"admin with a namespace", access(directory.Access{Role: sallyport.RoleAdmin, Namespaces: ns("orders", 1)}), "spec.access.namespace_accesses"},
		{"owner with a namespace", access(directory.Access{Role: sallyport.RoleOwner, Namespaces: ns("orders", 1)}), "spec.access.namespace_accesses"},
		{"unknown project", access(directory.Access{Projects: map[string]sallyport.ProjectRole{"p_x": sallyport.ProjectRead}}), "spec.access.project_accesses"},
		{"unknown project role", access(directory.Access{Projects: map[string]sallyport.ProjectRole{w.project: 3}}), "spec.access.project_accesses"},
		{"inherited project role", access(directory.Access{Projects: map[string]sallyport.ProjectRole{w.project: sallyport.ProjectDeveloper}}), "spec.access.project_accesses"},
	}
	for _, test := range tests {
		_, _, err := w.CreateUser(ctx, w.owner, op("CreateUser"), test.params)
		wantField(t, test.name, err, test.field)
	}
	for _, id := range []string{"", "u_", strings.Repeat("x", 5000), "u_' or 1=1 --"} {
		_, err := w.User(ctx, w.owner, id)
		want(t, err, sallyport.NotFound)
		if len(err.Error()) > 200 {
			t.Errorf("a long id comes back in the error: %d bytes", len(err.Error()))
		}
	}
}

// TestRoles is who may change which direct role into which.
func TestRoles(t *testing.T) {
	t.Parallel()
	ctx, w := t.Context(), newWorld(t)
	callers := map[string]sallyport.Caller{"owner": w.owner, "admin": w.role(sallyport.RoleAdmin), "developer": w.role(sallyport.RoleDeveloper),
		"financeadmin": w.role(sallyport.RoleFinanceAdmin), "read": w.role(sallyport.RoleRead), "metricsread": w.role(sallyport.RoleMetricsRead)}
	tests := []struct{ caller, before, after, want string }{
		{"owner", "read", "owner", ""},
		{"owner", "owner", "financeadmin", ""},
		{"owner", "none", "admin", ""},
		{"admin", "read", "developer", ""},
		{"admin", "admin", "read", ""},
		{"admin", "none", "metricsread", ""},
		{"admin", "financeadmin", "read", ""},
		{"admin", "read", "owner", "cloud.owner.grant"},
		{"admin", "read", "financeadmin", "cloud.financeadmin.grant"},
		{"admin", "owner", "read", "cloud.owner.change"},
		{"admin", "owner", "delete", "cloud.owner.change"},
		{"admin", "owner", "disable", "cloud.owner.change"},
		{"admin", "financeadmin", "delete", ""},
		{"admin", "admin", "disable", ""},
		{"owner", "owner", "disable", ""},
		{"owner", "owner", "delete", ""},
		{"developer", "read", "none", "cloud.user.update"},
		{"developer", "read", "delete", "cloud.user.delete"},
		{"financeadmin", "none", "read", "cloud.user.update"},
		{"read", "none", "read", "cloud.user.update"},
		{"metricsread", "none", "read", "cloud.user.update"},
	}
	for i, test := range tests {
		name := test.caller + " makes " + test.before + " " + test.after
		before, _ := sallyport.ParseAccountRole(test.before)
		u := w.user(string(rune('a'+i))+"@roles.example.com", directory.Access{Role: before})
		caller, err := callers[test.caller], error(nil)
		switch after, _ := sallyport.ParseAccountRole(test.after); test.after {
		case "delete":
			_, err = w.DeleteUser(ctx, caller, op("DeleteUser"), u.ID, 0)
		case "disable":
			_, _, err = w.SetUserStatus(ctx, caller, op("SetUserStatus"), u.ID, 0, object.Disabled)
		default:
			_, _, err = w.UpdateUser(ctx, caller, op("UpdateUser"), u.ID, 0, directory.UserParams{Access: directory.Access{Role: after}})
		}
		if test.want == "" && err != nil || test.want != "" && (sallyport.KindOf(err) != sallyport.PermissionDenied || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s: got %v, want %q", name, err, test.want)
		}
	}
	for _, role := range []sallyport.AccountRole{sallyport.RoleOwner, sallyport.RoleFinanceAdmin} {
		_, _, err := w.CreateUser(ctx, callers["admin"], op("CreateUser"), directory.UserParams{Email: "new@example.com", Access: directory.Access{Role: role}})
		want(t, err, sallyport.PermissionDenied)
	}
}

// TestOwnersByGroup: who holds the role owner through a group is as much for
// owners only as one who holds it himself.
func TestOwnersByGroup(t *testing.T) {
	t.Parallel()
	ctx, w := t.Context(), newWorld(t)
	w.namespace("orders")
	admin := w.role(sallyport.RoleAdmin)
	g := w.group("owners", directory.Access{Role: sallyport.RoleOwner})
	u := w.user("ann@example.com", directory.Access{Role: sallyport.RoleRead})
	w.join(g.ID, u.ID)
	changes := map[string]func(sallyport.Caller) error{
		"update": func(c sallyport.Caller) error {
			return third(w.UpdateUser(ctx, c, op("UpdateUser"), u.ID, 0, directory.UserParams{Access: directory.Access{Role: sallyport.RoleDeveloper}}))
		},
		"set access": func(c sallyport.Caller) error {
			return third(w.SetUserNamespaceAccess(ctx, c, op("SetUserNamespaceAccess"), u.ID, "orders", 0, sallyport.PermissionRead))
		},
		"disable": func(c sallyport.Caller) error {
			return third(w.SetUserStatus(ctx, c, op("SetUserStatus"), u.ID, 0, object.Disabled))
		},
		"delete": func(c sallyport.Caller) error {
			_, err := w.DeleteUser(ctx, c, op("DeleteUser"), u.ID, 0)
			return err
		},
	}
	for _, f := range changes {
		want(t, f(admin), sallyport.PermissionDenied, "cloud.owner.change")
	}
	_, err := w.RemoveMember(ctx, w.owner, op("RemoveUserGroupMember"), g.ID, u.ID)
	want(t, err, "")
	want(t, changes["update"](admin), "")
	w.join(g.ID, u.ID)
	want(t, changes["set access"](w.owner), "")
	// Whoever is an owner by a group is one, also towards those who are by themselves.
	second := w.user("second@example.com", directory.Access{Role: sallyport.RoleOwner})
	_, err = w.DeleteUser(ctx, w.as(u.ID), op("DeleteUser"), second.ID, 0)
	want(t, err, "")
	want(t, changes["disable"](w.owner), "")
	want(t, changes["delete"](admin), sallyport.PermissionDenied, "cloud.owner.change")
	want(t, changes["delete"](w.owner), "")
	same(t, w)
}

// TestOnePermissionInput: a request that sets one permission has no spec, and
// the answer names what it has.
func TestOnePermissionInput(t *testing.T) {
	t.Parallel()
	ctx, w := t.Context(), newWorld(t)
	w.namespace("orders")
	g := w.group("owners", directory.Access{Role: sallyport.RoleOwner})
	_, _, err := w.SetUserNamespaceAccess(ctx, w.owner, op("SetUserNamespaceAccess"), w.first.ID, "orders", 0, sallyport.PermissionRead)
	wantField(t, "an owner", err, "access")
	_, _, err = w.SetUserNamespaceAccess(ctx, w.owner, op("SetUserNamespaceAccess"), w.role(sallyport.RoleRead).Principal.ID, "orders", 0, 9)
	wantField(t, "an unknown permission", err, "access")
	_, _, err = w.SetGroupNamespaceAccess(ctx, w.owner, op("SetUserGroupNamespaceAccess"), g.ID, "orders", 0, sallyport.PermissionRead)
	wantField(t, "a group of owners", err, "access")
	_, _, err = w.SetGroupNamespaceAccess(ctx, w.role(sallyport.RoleAdmin), op("SetUserGroupNamespaceAccess"), g.ID, "orders", 0, sallyport.PermissionRead)
	want(t, err, sallyport.PermissionDenied, "cloud.owner.change")
}

func TestLastOwner(t *testing.T) {
	t.Parallel()
	ctx, w := t.Context(), newWorld(t)
	lose := map[string]func() error{
		"delete": func() error { _, err := w.DeleteUser(ctx, w.owner, op("DeleteUser"), w.first.ID, 0); return err },
		"demote": func() error {
			_, _, err := w.UpdateUser(ctx, w.owner, op("UpdateUser"), w.first.ID, 0, directory.UserParams{Access: directory.Access{Role: sallyport.RoleAdmin}})
			return err
		},
		"disable": func() error {
			_, _, err := w.SetUserStatus(ctx, w.owner, op("SetUserStatus"), w.first.ID, 0, object.Disabled)
			return err
		},
	}
	all := func(when string) {
		t.Helper()
		for name, f := range lose {
			if err := f(); sallyport.KindOf(err) != sallyport.Conflict || !strings.Contains(err.Error(), "last active owner") {
				t.Errorf("%s, %s: got %v, want Conflict", name, when, err)
			}
		}
	}
	all("alone")
	second := w.user("second@example.com", directory.Access{Role: sallyport.RoleOwner})
	_, _, err := w.SetUserStatus(ctx, w.owner, op("SetUserStatus"), second.ID, 0, object.Disabled)
	want(t, err, "")
	all("beside a disabled owner")
	g := w.group("owners", directory.Access{Role: sallyport.RoleOwner})
	w.join(g.ID, w.user("third@example.com", directory.Access{}).ID)
	all("beside an owner by group")
	_, _, err = w.SetUserStatus(ctx, w.owner, op("SetUserStatus"), second.ID, 0, object.Active)
	want(t, err, "")
	want(t, lose["delete"](), "")
	// He is gone: what he asked for before and asks for now is nobody's.
	want(t, lose["delete"](), sallyport.Unauthenticated)
}

func TestDisabling(t *testing.T) {
	t.Parallel()
	ctx, w := t.Context(), newWorld(t)
	u := w.user("ann@example.com", directory.Access{Role: sallyport.RoleRead})
	off, _, err := w.SetUserStatus(ctx, w.owner, op("SetUserStatus"), u.ID, u.Revision, object.Disabled)
	want(t, err, "")
	s, err := w.Standing(ctx, w.journal.Pool(), w.account, sallyport.Principal{Kind: sallyport.User, ID: u.ID})
	want(t, err, "")
	if s.Status != object.Disabled || s.Epoch == u.Epoch || s.Epoch != off.Epoch {
		t.Errorf("got %+v after epoch %d: older credentials must be dead", s, u.Epoch)
	}
	_, _, err = w.SetUserStatus(ctx, w.owner, op("SetUserStatus"), u.ID, 0, object.Disabled)
	want(t, err, sallyport.Invalid, "nothing to change")
	_, _, err = w.SetUserStatus(ctx, w.owner, op("SetUserStatus"), u.ID, 0, "asleep")
	want(t, err, sallyport.Invalid)
	back, _, err := w.SetUserStatus(ctx, w.owner, op("SetUserStatus"), u.ID, off.Revision, object.Active)
	want(t, err, "")
	if back.Epoch != off.Epoch {
		t.Errorf("enabling moved the epoch from %d to %d", off.Epoch, back.Epoch)
	}
}

func TestUserLists(t *testing.T) {
	t.Parallel()
	ctx, w := t.Context(), newWorld(t)
	w.namespace("orders")
	w.namespace("other")
	w.user("Ann@example.com", on("orders", sallyport.PermissionRead))
	bob := w.user("bob@example.com", directory.Access{Role: sallyport.RoleRead})
	w.user("eve@example.com", on("other", sallyport.PermissionAdmin))
	g := w.group("readers", on("orders", sallyport.PermissionRead))
	w.join(g.ID, bob.ID)
	list := func(f directory.UserFilter, size int) map[string]bool {
		t.Helper()
		got := map[string]bool{}
		p := sallyport.Page{Size: size}
		for {
			users, next, err := w.Users(ctx, w.owner, f, p)
			want(t, err, "")
			for _, u := range users {
				got[u.Email] = true
			}
			if p.Token = next; next == "" {
				return got
			}
		}
	}
	everybody := map[string]bool{"owner@example.com": true, "Ann@example.com": true, "bob@example.com": true, "eve@example.com": true}
	for name, test := range map[string]struct{ got, want map[string]bool }{
		"all":            {list(directory.UserFilter{}, 0), everybody},
		"one at a time":  {list(directory.UserFilter{}, 1), everybody},
		"by e-mail":      {list(directory.UserFilter{Email: "aNN@example.com"}, 0), map[string]bool{"Ann@example.com": true}},
		"by namespace":   {list(directory.UserFilter{Namespace: "orders"}, 2), map[string]bool{"owner@example.com": true, "Ann@example.com": true, "bob@example.com": true}},
		"nobody of that": {list(directory.UserFilter{Email: "nobody@example.com"}, 0), map[string]bool{}},
	} {
		if diff := cmp.Diff(test.want, test.got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
	_, _, err := w.Users(ctx, w.owner, directory.UserFilter{Namespace: "nowhere"}, sallyport.Page{})
	want(t, err, sallyport.NotFound)
	_, next, err := w.Users(ctx, w.owner, directory.UserFilter{}, sallyport.Page{Size: 1})
	want(t, err, "")
	_, _, err = w.Users(ctx, w.owner, directory.UserFilter{Namespace: "orders"}, sallyport.Page{Token: next})
	want(t, err, sallyport.Invalid, "page_token")
}

func TestUserLimit(t *testing.T) {
	t.Parallel()
	w := newWorldIn(t, pgtest.DB(t), directory.Config{MaxUsers: 2})
	w.user("second@example.com", directory.Access{})
	_, _, err := w.CreateUser(t.Context(), w.owner, op("CreateUser"), directory.UserParams{Email: "third@example.com"})
	want(t, err, sallyport.Conflict, "2 users")
}

// TestNoPersonalData: addresses are in entries only under the person's key.
func TestNoPersonalData(t *testing.T) {
	t.Parallel()
	ctx, w := t.Context(), newWorld(t)
	u := w.user("secret.person@example.com", directory.Access{Role: sallyport.RoleRead})
	_, _, err := w.SetUserStatus(ctx, w.owner, op("SetUserStatus"), u.ID, 0, object.Disabled)
	want(t, err, "")
	_, err = w.DeleteUser(ctx, w.owner, op("DeleteUser"), u.ID, 0)
	want(t, err, "")
	entries, err := w.journal.Entries(ctx, w.account, 0, 100)
	want(t, err, "")
	for _, e := range entries {
		if bytes.Contains(e.Body, []byte("secret.person")) || bytes.Contains(e.Body, []byte("owner@")) {
			t.Errorf("the entry %s has an address in it: %s", e.Type, e.Body)
		}
	}
	body, err := w.journal.Unseal(ctx, w.account, entries[len(entries)-1].Body)
	want(t, err, "")
	if !bytes.Contains(body, []byte("secret.person@example.com")) {
		t.Errorf("the address cannot be read with the person's key: %s", body)
	}
}
