package directory_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/directory"
)

func TestRecipients(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	w, other := newWorld(t), newWorld(t)
	orders, bills := w.namespace("orders"), w.namespace("bills")
	other.namespace("orders")
	w.user("admin@example.com", directory.Access{Role: sallyport.RoleAdmin})
	w.user("developer@example.com", directory.Access{Role: sallyport.RoleDeveloper})
	w.user("finance@example.com", directory.Access{Role: sallyport.RoleFinanceAdmin})
	w.user("orders-admin@example.com", on("orders", sallyport.PermissionAdmin))
	w.user("orders-write@example.com", on("orders", sallyport.PermissionWrite))
	w.user("bills-admin@example.com", on("bills", sallyport.PermissionAdmin))
	w.user("project-admin@example.com", directory.Access{Role: sallyport.RoleRead, Projects: map[string]sallyport.ProjectRole{w.project: sallyport.ProjectAdmin}})
	w.user("project-write@example.com", directory.Access{Role: sallyport.RoleRead, Projects: map[string]sallyport.ProjectRole{w.project: sallyport.ProjectWrite}})
	reader := directory.Access{Role: sallyport.RoleRead}
	byGroup, both := w.user("by-group@example.com", reader), w.user("both@example.com", on("orders", sallyport.PermissionAdmin))
	w.join(w.group("orders-admins", on("orders", sallyport.PermissionAdmin)).ID, byGroup.ID)
	admins := w.group("admins", directory.Access{Role: sallyport.RoleAdmin})
	w.join(admins.ID, both.ID)
	w.join(admins.ID, w.user("by-admins@example.com", reader).ID)
	w.serviceAccount(directory.ServiceAccountParams{Name: "robot", Scope: sallyport.ScopeAccount, Access: directory.Access{Role: sallyport.RoleAdmin}})
	off := w.user("disabled@example.com", directory.Access{Role: sallyport.RoleAdmin})
	if _, err := w.journal.Pool().Exec(ctx, `update users set status = 'disabled' where account_id = $1 and id = $2`, w.account, off.ID); err != nil {
		t.Fatal(err)
	}
	everywhere := []string{"admin@example.com", "both@example.com", "by-admins@example.com", "owner@example.com", "project-admin@example.com"}
	for _, test := range []struct {
		name      string
		account   sallyport.AccountID
		namespace sallyport.NamespaceID
		want      []string
	}{
		{"orders", w.account, orders.ID, append([]string{"by-group@example.com", "orders-admin@example.com"}, everywhere...)},
		{"bills", w.account, bills.ID, append([]string{"bills-admin@example.com"}, everywhere...)},
		{"another account's namespace", w.account, "ns_other", []string{"admin@example.com", "both@example.com", "by-admins@example.com", "owner@example.com"}},
		{"another account", other.account, orders.ID, []string{"owner@example.com"}},
	} {
		list, err := w.Recipients(ctx, w.journal.Pool(), test.account, test.namespace)
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]int{}
		for i, r := range list {
			got[r.Email]++
			if i > 0 && list[i-1].User >= r.User {
				t.Errorf("%s: not ordered by id", test.name)
			}
		}
		want := map[string]int{}
		for _, email := range test.want {
			want[email] = 1
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.name, diff)
		}
	}
	if r, err := w.Recipient(ctx, w.journal.Pool(), w.account, byGroup.ID); err != nil || r != (directory.Recipient{User: byGroup.ID, Email: "by-group@example.com"}) {
		t.Errorf("Recipient = %+v, %v", r, err)
	}
	for _, nobody := range []struct {
		account sallyport.AccountID
		user    string
	}{{w.account, off.ID}, {w.account, "u_gone"}, {other.account, byGroup.ID}} {
		_, err := w.Recipient(ctx, w.journal.Pool(), nobody.account, nobody.user)
		want(t, err, sallyport.NotFound)
	}
}

func TestNameFor(t *testing.T) {
	t.Parallel()
	w, other := newWorld(t), newWorld(t)
	w.namespace("orders")
	admin := w.user("admin@example.com", directory.Access{Role: sallyport.RoleAdmin})
	robot := w.serviceAccount(directory.ServiceAccountParams{Name: "robot", Scope: sallyport.ScopeAccount, Access: directory.Access{Role: sallyport.RoleRead}})
	nobody := w.user("nobody@example.com", directory.Access{Namespaces: map[string]sallyport.Permission{"orders": sallyport.PermissionWrite}})
	stranger := other.user("stranger@example.com", directory.Access{Role: sallyport.RoleAdmin})
	for _, test := range []struct{ name, user, principal, want string }{
		{"a user", admin.ID, nobody.ID, "nobody@example.com"},
		{"a service account", admin.ID, robot.ID, "robot"},
		{"one that is gone", admin.ID, "u_gone", "u_gone"},
		{"one of another account", admin.ID, stranger.ID, stranger.ID},
		{"a user, to somebody without a role", nobody.ID, admin.ID, admin.ID},
		{"a service account, to somebody without a role", nobody.ID, robot.ID, robot.ID},
		{"to somebody who is gone", "u_gone", admin.ID, admin.ID},
	} {
		got, err := w.NameFor(t.Context(), w.journal.Pool(), w.account, test.user, test.principal)
		if err != nil || got != test.want {
			t.Errorf("%s: %q, %v, want %q", test.name, got, err, test.want)
		}
	}
}
