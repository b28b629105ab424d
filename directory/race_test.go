package directory_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/directory"
	"github.com/sallyport-iam/sallyport/journal"
)

// race runs all at once and gives their errors.
func race(all ...func() error) []error {
	errs := make([]error, len(all))
	start := make(chan struct{})
	var wg sync.WaitGroup
	for i, f := range all {
		wg.Go(func() {
			<-start
			errs[i] = f()
		})
	}
	close(start)
	wg.Wait()
	return errs
}

// TestOwnersRemoveEachOther: of two owners who remove, demote or disable each
// other at once, exactly one succeeds and the other is nobody by then.
func TestOwnersRemoveEachOther(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	for round := range 15 {
		w := newWorld(t)
		other := w.user("other@example.com", directory.Access{Role: sallyport.RoleOwner})
		a, b := w.as(w.first.ID), w.as(other.ID)
		end := func(c sallyport.Caller, id string) func() error {
			return func() error {
				var err error
				switch round % 3 {
				case 0:
					_, err = w.DeleteUser(ctx, c, op("DeleteUser"), id, 0)
				case 1:
					_, _, err = w.UpdateUser(ctx, c, op("UpdateUser"), id, 0, directory.UserParams{Access: directory.Access{Role: sallyport.RoleRead}})
				case 2:
					_, _, err = w.SetUserStatus(ctx, c, op("SetUserStatus"), id, 0, object.Disabled)
				}
				return err
			}
		}
		errs := race(end(a, other.ID), end(b, w.first.ID))
		if (errs[0] == nil) == (errs[1] == nil) {
			t.Fatalf("round %d: got %v, want exactly one to succeed", round, errs)
		}
		for _, err := range errs {
			if err != nil && !errors.Is(err, sallyport.Unauthenticated) && !errors.Is(err, sallyport.PermissionDenied) {
				t.Errorf("round %d: the loser got %v", round, err)
			}
		}
		same(t, w)
	}
}

// TestRevokedAdmin: what an admin asks for while he is being demoted lands
// before the demotion or not at all.
func TestRevokedAdmin(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	landed := 0
	for round := range 20 {
		w := newWorld(t)
		admin := w.role(sallyport.RoleAdmin)
		var demoted, made journal.Committed
		errs := race(
			func() error {
				var err error
				_, demoted, err = w.UpdateUser(ctx, w.owner, op("UpdateUser"), admin.Principal.ID, 0, directory.UserParams{Access: directory.Access{Role: sallyport.RoleRead}})
				return err
			},
			func() error {
				var err error
				_, made, err = w.CreateUser(ctx, admin, op("CreateUser"), directory.UserParams{Email: "late@example.com", Access: directory.Access{Role: sallyport.RoleAdmin}})
				return err
			})
		want(t, errs[0], "")
		switch {
		case errs[1] == nil && made.Head.Revision > demoted.Head.Revision:
			t.Fatalf("round %d: the admin's change is revision %d, his demotion %d", round, made.Head.Revision, demoted.Head.Revision)
		case errs[1] == nil:
			landed++
		default:
			want(t, errs[1], sallyport.PermissionDenied)
		}
		// After it, with the access he had before.
		_, _, err := w.CreateUser(ctx, admin, op("CreateUser"), directory.UserParams{Email: "later@example.com"})
		want(t, err, sallyport.PermissionDenied)
	}
	t.Logf("%d of 20 changes came before the demotion", landed)
}

// TestSingle: of many who race for one name, address or last place, one wins.
func TestSingle(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	w := newWorldIn(t, newWorld(t).journal.Pool(), directory.Config{MaxNamespaces: 2})
	for name, test := range map[string]struct {
		f     func(i int) error
		loser sallyport.Kind
	}{
		"e-mail": {func(i int) error {
			return third(w.CreateUser(ctx, w.owner, op("CreateUser"), directory.UserParams{Email: []string{"one@example.com", "ONE@example.com"}[i%2]}))
		}, sallyport.AlreadyExists},
		"service account": {func(int) error {
			return third(w.CreateServiceAccount(ctx, w.owner, op("CreateServiceAccount"), directory.ServiceAccountParams{Name: "one", Scope: sallyport.ScopeAccount}))
		}, sallyport.AlreadyExists},
		"group": {func(int) error {
			return third(w.CreateGroup(ctx, w.owner, op("CreateUserGroup"), directory.GroupParams{Kind: directory.CloudGroup, Name: "one"}))
		}, sallyport.AlreadyExists},
		"namespace": {func(int) error {
			return third(w.CreateNamespace(ctx, w.owner, op("CreateNamespace"), namespaceParams("one")))
		}, sallyport.AlreadyExists},
		"update": {func(i int) error {
			p := directory.UserParams{Access: directory.Access{Role: sallyport.RoleOwner, Projects: map[string]sallyport.ProjectRole{w.project: []sallyport.ProjectRole{1, 2, 4, 8, 16, 32}[i]}}}
			return third(w.UpdateUser(ctx, w.owner, op("UpdateUser"), w.first.ID, w.first.Revision, p))
		}, sallyport.Conflict},
	} {
		var all []func() error
		for i := range 6 {
			all = append(all, func() error { return test.f(i) })
		}
		won := 0
		for _, err := range race(all...) {
			if err == nil {
				won++
			} else if sallyport.KindOf(err) != test.loser {
				t.Errorf("%s: a loser got %v", name, err)
			}
		}
		if won != 1 {
			t.Errorf("%s: %d won, want 1", name, won)
		}
	}
	var last []func() error
	for i := range 6 {
		last = append(last, func() error {
			return third(w.CreateNamespace(ctx, w.owner, op("CreateNamespace"), namespaceParams(fmt.Sprintf("last%d", i))))
		})
	}
	kinds := map[sallyport.Kind]int{}
	for _, err := range race(last...) {
		kinds[sallyport.KindOf(err)]++
	}
	if diff := cmp.Diff(map[sallyport.Kind]int{"": 1, sallyport.Conflict: 5}, kinds); diff != "" {
		t.Errorf("the last place (-want +got):\n%s", diff)
	}
	same(t, w)
}

// TestNameAgainRaced: while a namespace is deleted and made again, a permission
// set by its name is on the old one or the new one, and never carried over.
func TestNameAgainRaced(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	for round := range 10 {
		w := newWorld(t)
		w.namespace("orders")
		ann := w.user("ann@example.com", directory.Access{})
		var set, remade journal.Committed
		var again directory.Namespace
		errs := race(
			func() error {
				if _, err := w.DeleteNamespace(ctx, w.owner, op("DeleteNamespace"), "orders", 0); err != nil {
					return err
				}
				var err error
				again, remade, err = w.CreateNamespace(ctx, w.owner, op("CreateNamespace"), namespaceParams("orders"))
				return err
			},
			func() error {
				var err error
				_, set, err = w.SetUserNamespaceAccess(ctx, w.owner, op("SetUserNamespaceAccess"), ann.ID, "orders", 0, sallyport.PermissionAdmin)
				return err
			})
		want(t, errs[0], "")
		got := sallyport.NoPermission
		if access, _, err := w.Access(ctx, w.journal.Pool(), w.account, sallyport.Principal{Kind: sallyport.User, ID: ann.ID}); err == nil {
			got = access.Permission(w.project, again.ID)
		}
		if wanted := errs[1] == nil && set.Head.Revision > remade.Head.Revision; wanted != (got == sallyport.PermissionAdmin) {
			t.Errorf("round %d: set at %d, made again at %d: the new namespace gives %s", round, set.Head.Revision, remade.Head.Revision, got)
		}
		if errs[1] != nil && !errors.Is(errs[1], sallyport.NotFound) {
			t.Errorf("round %d: %v", round, errs[1])
		}
		same(t, w)
	}
}
