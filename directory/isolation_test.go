package directory_test

import (
	"context"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/directory"
)

// TestIsolation walks every method that takes a caller, as the owner of one
// account with the ids and names of another.
func TestIsolation(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	victim, thief := newWorld(t), newWorld(t)
	victim.namespace("orders")
	user := victim.user("ann@example.com", on("orders", sallyport.PermissionWrite))
	group := victim.group("team", on("orders", sallyport.PermissionRead))
	victim.join(group.ID, user.ID)
	robot := victim.serviceAccount(scoped("worker", "orders", sallyport.PermissionRead))
	_, token, err := victim.Users(ctx, victim.owner, directory.UserFilter{}, sallyport.Page{Size: 1})
	want(t, err, "")
	own := thief.group("own-group", directory.Access{})
	thief.namespace("mine")
	before, err := victim.journal.Head(ctx, victim.account)
	want(t, err, "")

	c := thief.owner
	orders := map[string]sallyport.Permission{"orders": sallyport.PermissionRead}
	theirs := map[string]sallyport.ProjectRole{victim.project: sallyport.ProjectRead}
	list := func(items any, err error) error { // a list may be empty instead of an error
		if err == nil && !strings.Contains(fmt.Sprintf("%+v", items), "orders") && !strings.Contains(fmt.Sprintf("%+v", items), "ann@") {
			return sallyport.NotFound
		}
		return err
	}
	tests := map[string]func() []error{
		"Account": func() []error {
			a, err := thief.Account(ctx, c)
			return []error{list(a.ID == victim.account, err)}
		},
		"CreateAccount": func() []error {
			_, _, _, err := thief.CreateAccount(ctx, c, op("x"), directory.AccountParams{ID: victim.account, Name: "x", OwnerEmail: "x@example.com"})
			return []error{err}
		},
		"SetAccountStatus": func() []error { return []error{third(thief.SetAccountStatus(ctx, c, op("x"), object.Suspended))} },
		"CreateAuthorizer": func() []error { return []error{third(thief.CreateAuthorizer(ctx, c, op("x"), "x", "one"))} },
		"Project":          func() []error { return []error{second(thief.Project(ctx, c, victim.project))} },
		"Projects": func() []error {
			p, _, err := thief.Projects(ctx, c, sallyport.Page{})
			if len(p) != 1 || p[0].ID != thief.project {
				t.Errorf("Projects gave %v", p)
			}
			return []error{list(nil, err)}
		},
		"Region":  func() []error { return []error{second(thief.Region(ctx, c, "orders"))} },
		"Regions": func() []error { return []error{list(thief.Regions(ctx, c))} },
		"User":    func() []error { return []error{second(thief.User(ctx, c, user.ID))} },
		"Users": func() []error {
			byMail, _, err1 := thief.Users(ctx, c, directory.UserFilter{Email: user.Email}, sallyport.Page{})
			return []error{list(byMail, err1), third(thief.Users(ctx, c, directory.UserFilter{Namespace: "orders"}, sallyport.Page{})),
				third(thief.Users(ctx, c, directory.UserFilter{}, sallyport.Page{Token: token}))}
		},
		"CreateUser": func() []error {
			return []error{third(thief.CreateUser(ctx, c, op("x"), directory.UserParams{Email: "x@example.com", Access: directory.Access{Namespaces: orders}})),
				third(thief.CreateUser(ctx, c, op("x"), directory.UserParams{Email: "x@example.com", Access: directory.Access{Projects: theirs}}))}
		},
		"UpdateUser": func() []error {
			return []error{third(thief.UpdateUser(ctx, c, op("x"), user.ID, 0, directory.UserParams{}))}
		},
		"SetUserStatus": func() []error {
			return []error{third(thief.SetUserStatus(ctx, c, op("x"), user.ID, 0, object.Disabled))}
		},
		"DeleteUser": func() []error { return []error{second(thief.DeleteUser(ctx, c, op("x"), user.ID, 0))} },
		"SetUserNamespaceAccess": func() []error {
			return []error{third(thief.SetUserNamespaceAccess(ctx, c, op("x"), thief.first.ID, "orders", 0, sallyport.PermissionRead)),
				third(thief.SetUserNamespaceAccess(ctx, c, op("x"), user.ID, "mine", 0, sallyport.PermissionRead))}
		},
		"Group": func() []error { return []error{second(thief.Group(ctx, c, group.ID))} },
		"Groups": func() []error {
			byName, _, err := thief.Groups(ctx, c, directory.GroupFilter{Name: group.Name}, sallyport.Page{})
			return []error{list(byName, err), third(thief.Groups(ctx, c, directory.GroupFilter{Namespace: "orders"}, sallyport.Page{}))}
		},
		"CreateGroup": func() []error {
			return []error{third(thief.CreateGroup(ctx, c, op("x"), directory.GroupParams{Kind: directory.CloudGroup, Name: "xxx", Access: directory.Access{Namespaces: orders}}))}
		},
		"UpdateGroup": func() []error {
			return []error{third(thief.UpdateGroup(ctx, c, op("x"), group.ID, 0, directory.GroupParams{Name: "xxx"}))}
		},
		"DeleteGroup": func() []error { return []error{second(thief.DeleteGroup(ctx, c, op("x"), group.ID, 0))} },
		"SetGroupNamespaceAccess": func() []error {
			return []error{third(thief.SetGroupNamespaceAccess(ctx, c, op("x"), group.ID, "mine", 0, sallyport.PermissionRead)),
				third(thief.SetGroupNamespaceAccess(ctx, c, op("x"), own.ID, "orders", 0, sallyport.PermissionRead))}
		},
		"Members": func() []error { return []error{third(thief.Members(ctx, c, group.ID, sallyport.Page{}))} },
		"AddMember": func() []error {
			return []error{second(thief.AddMember(ctx, c, op("x"), group.ID, thief.first.ID)), second(thief.AddMember(ctx, c, op("x"), own.ID, user.ID))}
		},
		"RemoveMember":   func() []error { return []error{second(thief.RemoveMember(ctx, c, op("x"), group.ID, user.ID))} },
		"ServiceAccount": func() []error { return []error{second(thief.ServiceAccount(ctx, c, robot.ID))} },
		"ServiceAccounts": func() []error {
			all, _, err := thief.ServiceAccounts(ctx, c, sallyport.Page{})
			return []error{list(all, err)}
		},
		"CreateServiceAccount": func() []error {
			return []error{third(thief.CreateServiceAccount(ctx, c, op("x"), scoped("x", "orders", sallyport.PermissionRead)))}
		},
		"UpdateServiceAccount": func() []error {
			return []error{third(thief.UpdateServiceAccount(ctx, c, op("x"), robot.ID, 0, scoped("x", "mine", sallyport.PermissionRead)))}
		},
		"SetServiceAccountNamespaceAccess": func() []error {
			return []error{third(thief.SetServiceAccountNamespaceAccess(ctx, c, op("x"), robot.ID, "mine", 0, sallyport.PermissionRead))}
		},
		"SetServiceAccountStatus": func() []error {
			return []error{third(thief.SetServiceAccountStatus(ctx, c, op("x"), robot.ID, 0, object.Disabled))}
		},
		"DeleteServiceAccount": func() []error { return []error{second(thief.DeleteServiceAccount(ctx, c, op("x"), robot.ID, 0))} },
		"Namespace":            func() []error { return []error{second(thief.Namespace(ctx, c, "orders"))} },
		"Namespaces": func() []error {
			all, _, err := thief.Namespaces(ctx, c, directory.NamespaceFilter{}, sallyport.Page{})
			return []error{list(all, err)}
		},
		"CreateNamespace": func() []error {
			p := namespaceParams("new")
			p.Project = victim.project
			return []error{third(thief.CreateNamespace(ctx, c, op("x"), p))}
		},
		"UpdateNamespace": func() []error {
			return []error{third(thief.UpdateNamespace(ctx, c, op("x"), "orders", 0, namespaceParams("")))}
		},
		"DeleteNamespace": func() []error { return []error{second(thief.DeleteNamespace(ctx, c, op("x"), "orders", 0))} },
		"NamespaceAssignments": func() []error {
			return []error{third(thief.NamespaceAssignments(ctx, c, "orders", directory.UserAssignments, sallyport.Page{}))}
		},
	}
	for name := range methodsWithCaller() {
		test, ok := tests[name]
		if !ok {
			t.Errorf("the method %s takes a caller and has no test here", name)
			continue
		}
		for i, err := range test() {
			switch sallyport.KindOf(err) {
			case sallyport.NotFound, sallyport.PermissionDenied, sallyport.Invalid:
			default:
				t.Errorf("%s, %d: got %v, want NotFound, PermissionDenied or Invalid", name, i, err)
			}
		}
	}
	after, err := victim.journal.Head(ctx, victim.account)
	want(t, err, "")
	if diff := cmp.Diff(before, after); diff != "" {
		t.Errorf("the other account moved (-before +after):\n%s", diff)
	}
}

func third[A, B any](_ A, _ B, err error) error { return err }

func methodsWithCaller() map[string]bool {
	names := map[string]bool{}
	caller, ctx := reflect.TypeFor[sallyport.Caller](), reflect.TypeFor[context.Context]()
	for m := range reflect.TypeFor[*directory.Directory]().Methods() {
		if m.Type.NumIn() > 2 && m.Type.In(1) == ctx && m.Type.In(2) == caller {
			names[m.Name] = true
		}
	}
	return names
}

// TestNobody: without any grant every method is refused, and changes need more
// than the role read.
func TestNobody(t *testing.T) {
	t.Parallel()
	ctx, w := t.Context(), newWorld(t)
	w.namespace("orders")
	nobody := w.as(w.user("nobody@example.com", directory.Access{}).ID)
	_, _, err := w.Users(ctx, nobody, directory.UserFilter{}, sallyport.Page{})
	want(t, err, sallyport.NotFound)
	_, _, err = w.CreateUser(ctx, nobody, op("CreateUser"), directory.UserParams{Email: "x@example.com"})
	want(t, err, sallyport.NotFound)
	_, err = w.Namespace(ctx, nobody, "orders")
	want(t, err, sallyport.NotFound)
	reader := w.role(sallyport.RoleRead)
	_, err = w.Namespace(ctx, reader, "orders")
	want(t, err, sallyport.PermissionDenied, "cloud.namespace.get needs the namespace permission read; you have the account role read")
	narrowed := w.owner
	narrowed.Limits.ReadOnly = true
	_, err = w.DeleteNamespace(ctx, narrowed, op("DeleteNamespace"), "orders", 0)
	want(t, err, sallyport.PermissionDenied, "read-only")
}
