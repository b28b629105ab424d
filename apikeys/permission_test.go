package apikeys_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/apikeys"
	"github.com/sallyport-iam/sallyport/authn/authntest"
	"github.com/sallyport-iam/sallyport/directory"
	"github.com/sallyport-iam/sallyport/internal/pgtest"
	"github.com/sallyport-iam/sallyport/journal"
)

// TestPermissions reads as policy: who may do what to whose keys. g: get,
// l: it is in the list, c: create, u: update, r: rotate, d: delete.
func TestPermissions(t *testing.T) {
	t.Parallel()
	a := authntest.New(t).Tenant(t)
	a.Namespace(t, "orders")
	a.Namespace(t, "billing")
	inOrders := func(p sallyport.Permission) directory.Access {
		return directory.Access{Role: sallyport.RoleRead, Namespaces: map[string]sallyport.Permission{"orders": p}}
	}
	principals := map[string]sallyport.Principal{
		"owner":          a.Owner.Principal,
		"admin":          a.User(t, role(sallyport.RoleAdmin)),
		"developer":      a.User(t, role(sallyport.RoleDeveloper)),
		"reader":         a.User(t, role(sallyport.RoleRead)),
		"orders' admin":  a.User(t, inOrders(sallyport.PermissionAdmin)),
		"orders' writer": a.User(t, inOrders(sallyport.PermissionWrite)),
		"robot":          robot(t, a),
		"orders' robot":  a.ServiceAccount(t, sallyport.ScopeNamespace, inOrders(sallyport.PermissionWrite)),
		"billing's robot": a.ServiceAccount(t, sallyport.ScopeNamespace,
			directory.Access{Role: sallyport.RoleRead, Namespaces: map[string]sallyport.Permission{"billing": sallyport.PermissionWrite}}),
	}
	owners, _, err := a.Directory.CreateGroup(t.Context(), a.Owner, op("CreateUserGroup"),
		directory.GroupParams{Kind: directory.CloudGroup, Name: "owners", Access: role(sallyport.RoleOwner)})
	if err != nil {
		t.Fatal(err)
	}
	principals["owner by group"] = a.User(t, role(sallyport.RoleRead))
	if _, err := a.Directory.AddMember(t.Context(), a.Owner, op("AddUserGroupMember"), owners.ID, principals["owner by group"].ID); err != nil {
		t.Fatal(err)
	}
	everybody := []string{"owner", "owner by group", "admin", "developer", "reader", "orders' admin", "orders' writer", "robot", "orders' robot", "billing's robot"}
	// A user's keys are made by himself alone: whoever has the key is the user.
	administer := func(whose string) string {
		if _, isRobot := strings.CutSuffix(whose, "robot"); isRobot {
			return "glcurd"
		}
		return "glud"
	}
	policy := func(who, whose string) string {
		switch {
		case who == whose && principals[who].Kind == sallyport.User:
			return "glcurd"
		case who == whose:
			return "glc" // a service account makes keys for itself, and ends none
		case who == "admin" && strings.HasPrefix(whose, "owner"):
			return "gl" // owners are for owners
		case who == "owner" || who == "owner by group" || who == "admin":
			return administer(whose)
		case who == "orders' admin" && whose == "orders' robot":
			return "glcurd"
		}
		return ""
	}
	for _, who := range everybody {
		caller := a.Caller(t, principals[who], sallyport.Limits{})
		for _, whose := range everybody {
			got := allowed(t, a, caller, principals[whose])
			if want := policy(who, whose); got != want {
				t.Errorf("%s on the keys of %s: got %q, want %q", who, whose, got, want)
			}
		}
	}
	sameAsJournal(t, a)
}

// allowed tries everything on a fresh key of the owner, which is gone after.
func allowed(t *testing.T, a *authntest.Tenant, caller sallyport.Caller, owner sallyport.Principal) string {
	t.Helper()
	ctx := t.Context()
	key := a.Key(t, owner, sallyport.Limits{}).Key
	gone := []string{key.ID}
	var can strings.Builder
	try := func(letter string, err error) {
		switch {
		case err == nil:
			can.WriteString(letter)
		case !errors.Is(err, sallyport.PermissionDenied):
			t.Errorf("%s: got %v, want PermissionDenied", letter, err)
		}
	}
	_, err := a.Keys.Get(ctx, caller, key.ID)
	try("g", err)
	keys, _, err := a.Keys.List(ctx, caller, apikeys.Filter{}, sallyport.Page{Size: 1000})
	if err != nil {
		t.Error(err)
	}
	if slices.ContainsFunc(keys, func(k apikeys.Key) bool { return k.ID == key.ID }) {
		can.WriteString("l")
	}
	made, _, err := a.Keys.Create(ctx, caller, op("CreateApiKey"), params(a, owner))
	try("c", err)
	gone = append(gone, made.Key.ID)
	_, _, err = a.Keys.Update(ctx, caller, op("UpdateApiKey"), key.ID, 0, apikeys.UpdateParams{DisplayName: "renamed"})
	try("u", err)
	rotated, _, err := a.Keys.Rotate(ctx, caller, op("RotateApiKey"), key.ID, apikeys.RotateParams{})
	try("r", err)
	gone = append(gone, rotated.Key.ID)
	_, err = a.Keys.Delete(ctx, caller, op("DeleteApiKey"), key.ID, 0)
	try("d", err)
	for _, id := range gone {
		if _, err := a.Keys.Delete(ctx, a.Operator, op("DeleteApiKey"), id, 0); id != "" && err != nil && !errors.Is(err, sallyport.NotFound) {
			t.Fatal(err)
		}
	}
	return can.String()
}

// TestNarrowedCallers: a narrowed key makes no other keys, and a read-only one
// changes nothing, but each may rotate itself.
func TestNarrowedCallers(t *testing.T) {
	t.Parallel()
	a := authntest.New(t).Tenant(t)
	ctx, user := t.Context(), a.User(t, role(sallyport.RoleAdmin))
	ns := a.Namespace(t, "orders")
	for name, limits := range map[string]sallyport.Limits{"read-only": {ReadOnly: true}, "narrowed": {Namespaces: []sallyport.NamespaceID{ns.ID}}} {
		key := a.Key(t, user, limits)
		other := a.Key(t, user, sallyport.Limits{})
		caller := a.With(t, key)
		_, _, err := a.Keys.Create(ctx, caller, op("CreateApiKey"), params(a, user))
		wantKind(t, name+" key creates", err, sallyport.PermissionDenied, "")
		_, _, err = a.Keys.Rotate(ctx, caller, op("RotateApiKey"), other.Key.ID, apikeys.RotateParams{})
		wantKind(t, name+" key rotates another", err, sallyport.PermissionDenied, "")
		_, _, err = a.Keys.Rotate(ctx, caller, op("RotateApiKey"), key.Key.ID, apikeys.RotateParams{Expires: a.Now().Add(2 * month)})
		wantKind(t, name+" key gives itself a longer life", err, sallyport.Invalid, "at most the life")
		next, _, err := a.Keys.Rotate(ctx, caller, op("RotateApiKey"), key.Key.ID, apikeys.RotateParams{})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(limits, next.Key.Limits); diff != "" {
			t.Errorf("the successor's limits (-want +got):\n%s", diff)
		}
	}
}

// TestLimits makes more keys at once than there may be.
func TestLimits(t *testing.T) {
	t.Parallel()
	w := authntest.New(t)
	a := w.Tenant(t)
	for _, test := range []struct {
		owner sallyport.Principal
		most  int
	}{{a.User(t, role(sallyport.RoleRead)), 10}, {robot(t, a), 20}} {
		var (
			wg   sync.WaitGroup
			mu   sync.Mutex
			made []apikeys.Made
		)
		for range test.most + 15 {
			wg.Go(func() {
				m, _, err := a.Keys.Create(t.Context(), a.Operator, op("CreateApiKey"), params(a, test.owner))
				if err != nil {
					wantKind(t, "one too many", err, sallyport.Conflict, fmt.Sprintf("may have %d", test.most))
					return
				}
				mu.Lock()
				defer mu.Unlock()
				made = append(made, m)
			})
		}
		wg.Wait()
		if len(made) != test.most {
			t.Fatalf("%s: got %d keys, want %d", test.owner.Kind, len(made), test.most)
		}
		checkLimitEases(t, a, test.owner, made)
	}
}

// checkLimitEases starts with an owner who has all the keys that he may have.
func checkLimitEases(t *testing.T, a *authntest.Tenant, owner sallyport.Principal, made []apikeys.Made) {
	t.Helper()
	ctx := t.Context()
	create := func() error {
		_, _, err := a.Keys.Create(ctx, a.Operator, op("CreateApiKey"), params(a, owner))
		return err
	}
	// Disabled keys count.
	if _, _, err := a.Keys.Update(ctx, a.Operator, op("UpdateApiKey"), made[0].Key.ID, 0, apikeys.UpdateParams{DisplayName: "x", Disabled: true}); err != nil {
		t.Fatal(err)
	}
	wantKind(t, "after one was disabled", create(), sallyport.Conflict, "")
	if _, err := a.Keys.Delete(ctx, a.Operator, op("DeleteApiKey"), made[0].Key.ID, 0); err != nil {
		t.Fatal(err)
	}
	if err := create(); err != nil {
		t.Errorf("after one was deleted: %v", err)
	}
	// All can be rotated with an overlap, once.
	id := made[1].Key.ID
	rotations := 0
	for ; rotations < 3*len(made); rotations++ {
		next, _, err := a.Keys.Rotate(ctx, a.Operator, op("RotateApiKey"), id, apikeys.RotateParams{Overlap: time.Hour})
		if err != nil {
			wantKind(t, "rotating on and on", err, sallyport.Conflict, "still retiring")
			break
		}
		id = next.Key.ID
	}
	if rotations != len(made) {
		t.Errorf("got %d rotations, want %d", rotations, len(made))
	}
	wantKind(t, "while they retire", create(), sallyport.Conflict, "")
	a.Advance(2 * time.Hour)
	if _, _, err := a.Keys.Rotate(ctx, a.Operator, op("RotateApiKey"), id, apikeys.RotateParams{}); err != nil {
		t.Errorf("after they retired: %v", err)
	}
	a.Advance(month)
	if err := create(); err != nil {
		t.Errorf("after all expired: %v", err)
	}
}

func TestRotate(t *testing.T) {
	t.Parallel()
	a := authntest.New(t).Tenant(t)
	ctx, owner := t.Context(), robot(t, a)
	old := a.Key(t, owner, sallyport.Limits{ReadOnly: true})
	next, done, err := a.Keys.Rotate(ctx, a.Owner, journal.Operation{ID: "rotate", Type: "RotateApiKey"}, old.Key.ID, apikeys.RotateParams{Overlap: time.Hour, Description: "second"})
	if err != nil {
		t.Fatal(err)
	}
	if next.Key.Owner != owner || !next.Key.Limits.ReadOnly || next.Key.DisplayName != old.Key.DisplayName || next.Key.Description != "second" ||
		next.Key.Expires.Sub(next.Key.Created) != old.Key.Expires.Sub(old.Key.Created) || done.Target != next.Key.ID {
		t.Errorf("successor: got %+v of %+v", next.Key, old.Key)
	}
	_, _, err = a.Keys.Rotate(ctx, a.Owner, journal.Operation{ID: "rotate", Type: "RotateApiKey"}, old.Key.ID, apikeys.RotateParams{Overlap: time.Hour})
	wantKind(t, "a repeated Rotate", err, sallyport.AlreadyExists, next.Key.ID)
	_, _, err = a.Keys.Rotate(ctx, a.Owner, op("RotateApiKey"), old.Key.ID, apikeys.RotateParams{})
	wantKind(t, "rotating what retires", err, sallyport.Conflict, next.Key.ID)
	key := wantState(t, a, old.Key.ID, apikeys.Retiring)
	if key.Successor != next.Key.ID || !key.Retires.Equal(done.At.Add(time.Hour)) {
		t.Errorf("the old key: got %+v", key)
	}
	for id, want := range map[string]time.Time{old.Key.ID: key.Retires, next.Key.ID: next.Key.Expires} {
		if ends, err := a.Keys.Ends(ctx, pgtest.DB(t), a.ID, id); err != nil || !ends.Equal(want) {
			t.Errorf("the key ends at %v, %v; want %v", ends, err, want)
		}
	}
	_, err = a.Keys.Ends(ctx, pgtest.DB(t), a.ID, "none")
	wantKind(t, "the end of no key", err, sallyport.NotFound, "")
	a.With(t, old)
	a.With(t, next)
	sameAsJournal(t, a)
	a.Advance(time.Hour + time.Second)
	wantState(t, a, old.Key.ID, apikeys.Retired)
	_, err = a.Call(t, old)
	wantKind(t, "calling after the overlap", err, sallyport.Unauthenticated, "was replaced by "+next.Key.ID)
	a.With(t, next)

	// Without an overlap the old key is out at once, even by a clock that is late.
	third, done, err := a.Keys.Rotate(ctx, a.Owner, op("RotateApiKey"), next.Key.ID, apikeys.RotateParams{Expires: a.Now().Add(3 * month)})
	if err != nil {
		t.Fatal(err)
	}
	if third.Key.Expires.Sub(third.Key.Created).Round(time.Hour) != 3*month {
		t.Errorf("the successor expires at %s, want in three months", third.Key.Expires)
	}
	_, err = a.Call(t, next)
	wantKind(t, "calling without overlap", err, sallyport.Unauthenticated, "was replaced")
	key = wantState(t, a, next.Key.ID, apikeys.Retired)
	if !key.Disabled || key.State(done.At.Add(-time.Minute)) != apikeys.Disabled {
		t.Errorf("a key rotated without overlap is good by a late clock: %+v", key)
	}
	_, _, err = a.Keys.Update(ctx, a.Owner, op("UpdateApiKey"), next.Key.ID, 0, apikeys.UpdateParams{DisplayName: "x"})
	wantKind(t, "enabling what has retired", err, sallyport.Conflict, "retired")

	// The old key's own expiry bounds the overlap, whatever it is.
	if _, _, err := a.Keys.Rotate(ctx, a.Owner, op("RotateApiKey"), third.Key.ID, apikeys.RotateParams{Overlap: 1<<63 - 1}); err != nil {
		t.Fatal(err)
	}
	if key := wantState(t, a, third.Key.ID, apikeys.Retiring); !key.Retires.Equal(key.Expires) {
		t.Errorf("retires %s, want at its expiry %s", key.Retires, key.Expires)
	}
	sameAsJournal(t, a)
}

// TestRotateRaced rotates one key many times at once: it has one successor.
func TestRotateRaced(t *testing.T) {
	t.Parallel()
	a := authntest.New(t).Tenant(t)
	old := a.Key(t, robot(t, a), sallyport.Limits{})
	errs := make([]error, 8)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() {
			_, _, errs[i] = a.Keys.Rotate(t.Context(), a.Owner, op("RotateApiKey"), old.Key.ID, apikeys.RotateParams{Overlap: time.Hour})
		})
	}
	wg.Wait()
	won := 0
	for _, err := range errs {
		if err == nil {
			won++
			continue
		}
		wantKind(t, "rotating too late", err, sallyport.Conflict, "retiring already")
	}
	keys, _, err := a.Keys.List(t.Context(), a.Owner, apikeys.Filter{Owner: old.Key.Owner.ID}, sallyport.Page{})
	if err != nil || won != 1 || len(keys) != 2 {
		t.Errorf("got %d rotations and %d keys, %v; want 1 and 2", won, len(keys), err)
	}
}

// TestServiceAccountRotatesItself: its right to do so is for the key that it
// comes with.
func TestServiceAccountRotatesItself(t *testing.T) {
	t.Parallel()
	a := authntest.New(t).Tenant(t)
	sa := robot(t, a)
	mine, other := a.Key(t, sa, sallyport.Limits{}), a.Key(t, sa, sallyport.Limits{})
	caller := a.With(t, mine)
	_, _, err := a.Keys.Rotate(t.Context(), caller, op("RotateApiKey"), other.Key.ID, apikeys.RotateParams{})
	wantKind(t, "rotating another key", err, sallyport.PermissionDenied, "cloud.apikey.rotate")
	next, _, err := a.Keys.Rotate(t.Context(), caller, op("RotateApiKey"), mine.Key.ID, apikeys.RotateParams{Overlap: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	a.With(t, next)
}

func wantState(t *testing.T, a *authntest.Tenant, id string, want apikeys.State) apikeys.Key {
	t.Helper()
	key, err := a.Keys.Get(t.Context(), a.Operator, id)
	if err != nil || key.State(a.Now()) != want {
		t.Errorf("state of %s: got %s, %v; want %s", id, key.State(a.Now()), err, want)
	}
	return key
}

func TestListPages(t *testing.T) {
	t.Parallel()
	a := authntest.New(t).Tenant(t)
	a.Namespace(t, "orders")
	inOrders := directory.Access{Role: sallyport.RoleRead, Namespaces: map[string]sallyport.Permission{"orders": sallyport.PermissionAdmin}}
	nsAdmin := a.User(t, inOrders)
	scoped := a.ServiceAccount(t, sallyport.ScopeNamespace, inOrders)
	other := robot(t, a)
	for range 9 {
		a.Key(t, scoped, sallyport.Limits{})
		a.Key(t, other, sallyport.Limits{})
	}
	tests := []struct {
		name   string
		caller sallyport.Caller
		filter apikeys.Filter
		want   int
	}{
		{"the owner, all", a.Owner, apikeys.Filter{}, 9 + 9 + 1 + 1 + 2},
		{"the owner, of users", a.Owner, apikeys.Filter{OwnerKind: sallyport.User}, 2},
		{"the owner, of one", a.Owner, apikeys.Filter{Owner: scoped.ID, OwnerKind: sallyport.ServiceAccount}, 9},
		{"the owner, of a user with a service account's id", a.Owner, apikeys.Filter{Owner: scoped.ID, OwnerKind: sallyport.User}, 0},
		{"a namespace's admin", a.Caller(t, nsAdmin, sallyport.Limits{}), apikeys.Filter{}, 9 + 1},
		{"a service account", a.Caller(t, other, sallyport.Limits{}), apikeys.Filter{}, 9 + 2},
		{"a service account, of another", a.Caller(t, other, sallyport.Limits{}), apikeys.Filter{Owner: scoped.ID}, 0},
	}
	for _, test := range tests {
		var ids []string
		for p := (sallyport.Page{Size: 4}); ; {
			keys, next, err := a.Keys.List(t.Context(), test.caller, test.filter, p)
			if err != nil {
				t.Fatal(err)
			}
			if len(keys) > 4 || next != "" && len(keys) < 4 {
				t.Errorf("%s: a page of %d, next %q", test.name, len(keys), next)
			}
			for _, k := range keys {
				ids = append(ids, k.ID)
			}
			if next == "" {
				break
			}
			p.Token = next
		}
		if len(ids) != test.want || !slices.IsSorted(ids) || len(slices.Compact(slices.Clone(ids))) != len(ids) {
			t.Errorf("%s: got %d keys %v, want %d", test.name, len(ids), ids, test.want)
		}
	}
}

// prefixes parses, leaving invalid what cannot be.
func prefixes(texts ...string) []netip.Prefix {
	all := make([]netip.Prefix, len(texts))
	for i, text := range texts {
		all[i], _ = netip.ParsePrefix(text)
	}
	return all
}

func TestBadInput(t *testing.T) {
	t.Parallel()
	a := authntest.New(t).Tenant(t)
	owner := robot(t, a)
	year := 365 * 24 * time.Hour
	tests := []struct {
		name   string
		change func(p *apikeys.CreateParams)
		field  string
	}{
		{"no owner", func(p *apikeys.CreateParams) { p.Owner.ID = "" }, "spec.owner_id"},
		{"no owner's type", func(p *apikeys.CreateParams) { p.Owner.Kind = "" }, "spec.owner_type"},
		{"a service account as user", func(p *apikeys.CreateParams) { p.Owner.Kind = sallyport.User }, "spec.owner_type"},
		{"a user as service account", func(p *apikeys.CreateParams) {
			p.Owner = sallyport.Principal{Kind: sallyport.ServiceAccount, ID: a.Owner.Principal.ID}
		}, "spec.owner_type"},
		{"the operator as owner", func(p *apikeys.CreateParams) { p.Owner.Kind = sallyport.Operator }, "spec.owner_type"},
		{"no name", func(p *apikeys.CreateParams) { p.DisplayName = "" }, "spec.display_name"},
		{"a blank name", func(p *apikeys.CreateParams) { p.DisplayName = " \u00a0" }, "spec.display_name"},
		{"a long name", func(p *apikeys.CreateParams) { p.DisplayName = strings.Repeat("ä", 129) }, "spec.display_name"},
		{"a name with a line's end", func(p *apikeys.CreateParams) { p.DisplayName = "a\nb" }, "spec.display_name"},
		{"a name that is not UTF-8", func(p *apikeys.CreateParams) { p.DisplayName = "\xff" }, "spec.display_name"},
		{"a long description", func(p *apikeys.CreateParams) { p.Description = strings.Repeat("x", 1025) }, "spec.description"},
		{"a description with NUL", func(p *apikeys.CreateParams) { p.Description = "\x00" }, "spec.description"},
		{"no expiry", func(p *apikeys.CreateParams) { p.Expires = time.Time{} }, "spec.expiry_time"},
		{"the epoch as expiry", func(p *apikeys.CreateParams) { p.Expires = time.Unix(0, 0) }, "spec.expiry_time"},
		{"expired", func(p *apikeys.CreateParams) { p.Expires = a.Now().Add(-time.Hour) }, "spec.expiry_time"},
		{"expired since long", func(p *apikeys.CreateParams) { p.Expires = time.Unix(-1<<40, 0) }, "spec.expiry_time"},
		{"too soon", func(p *apikeys.CreateParams) { p.Expires = a.Now().Add(30 * time.Second) }, "spec.expiry_time"},
		{"too late", func(p *apikeys.CreateParams) { p.Expires = a.Now().Add(2*year + 48*time.Hour) }, "spec.expiry_time"},
		{"in the year 9999", func(p *apikeys.CreateParams) { p.Expires = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC) }, "spec.expiry_time"},
		{"no namespaces at all", func(p *apikeys.CreateParams) { p.Limits.Namespaces = []sallyport.NamespaceID{} }, "limits.namespaces"},
		{"a namespace's name", func(p *apikeys.CreateParams) { p.Limits.Namespaces = []sallyport.NamespaceID{"orders"} }, "limits.namespaces"},
		{"many namespaces", func(p *apikeys.CreateParams) { p.Limits.Namespaces = make([]sallyport.NamespaceID, 101) }, "limits.namespaces"},
		{"no sources at all", func(p *apikeys.CreateParams) { p.Limits.Sources = prefixes() }, "limits.sources"},
		{"an invalid source", func(p *apikeys.CreateParams) { p.Limits.Sources = prefixes("") }, "limits.sources"},
		{"an IPv4 source as IPv6", func(p *apikeys.CreateParams) { p.Limits.Sources = prefixes("::ffff:10.0.0.0/104") }, "limits.sources"},
		{"many sources", func(p *apikeys.CreateParams) { p.Limits.Sources = prefixes(make([]string, 33)...) }, "limits.sources"},
	}
	for _, test := range tests {
		p := params(a, owner)
		test.change(&p)
		_, _, err := a.Keys.Create(t.Context(), a.Owner, op("CreateApiKey"), p)
		var e *sallyport.Error
		if !errors.As(err, &e) || e.Kind != sallyport.Invalid || e.Field != test.field {
			t.Errorf("%s: got %v; want Invalid naming %s", test.name, err, test.field)
		}
	}
	p := params(a, owner)
	p.Expires = a.Now().Add(2*year + 23*time.Hour) // two years, one of them with a leap day
	made, _, err := a.Keys.Create(t.Context(), a.Owner, op("CreateApiKey"), p)
	if err != nil {
		t.Fatal(err)
	}
	for field, p := range map[string]apikeys.UpdateParams{
		"spec.owner_id":     {DisplayName: "x", Owner: sallyport.Principal{ID: a.Owner.Principal.ID}},
		"spec.owner_type":   {DisplayName: "x", Owner: sallyport.Principal{Kind: sallyport.User}},
		"spec.expiry_time":  {DisplayName: "x", Expires: p.Expires.Add(2 * time.Second)},
		"spec.display_name": {},
		"spec.description":  {DisplayName: "x", Description: "\x00"},
	} {
		_, _, err := a.Keys.Update(t.Context(), a.Owner, op("UpdateApiKey"), made.Key.ID, 0, p)
		var e *sallyport.Error
		if !errors.As(err, &e) || e.Kind != sallyport.Invalid || e.Field != field {
			t.Errorf("updating %s: got %v", field, err)
		}
	}
	for _, test := range []struct {
		field string
		p     apikeys.RotateParams
	}{
		{"overlap", apikeys.RotateParams{Overlap: -time.Second}},
		{"expiry_time", apikeys.RotateParams{Expires: a.Now().Add(-time.Second)}},
		{"expiry_time", apikeys.RotateParams{Expires: a.Now().Add(30 * time.Second)}},
		{"expiry_time", apikeys.RotateParams{Expires: a.Now().Add(3 * year)}},
		{"expiry_time", apikeys.RotateParams{Expires: time.Unix(0, 0)}},
		{"display_name", apikeys.RotateParams{DisplayName: "\t"}},
	} {
		_, _, err := a.Keys.Rotate(t.Context(), a.Owner, op("RotateApiKey"), made.Key.ID, test.p)
		var e *sallyport.Error
		if !errors.As(err, &e) || e.Kind != sallyport.Invalid || e.Field != test.field {
			t.Errorf("rotating with %s: got %v", test.field, err)
		}
	}
}

// TestRevokedAdminsChange: a change that was on its way when its caller's key
// was deleted does not land.
func TestRevokedAdminsChange(t *testing.T) {
	t.Parallel()
	a := authntest.New(t).Tenant(t)
	ctx, victim := t.Context(), robot(t, a)
	admin := a.User(t, role(sallyport.RoleAdmin))
	for name, end := range map[string]func(ctx context.Context, key string) error{
		"deleted": func(ctx context.Context, key string) error {
			_, err := a.Keys.Delete(ctx, a.Owner, op("DeleteApiKey"), key, 0)
			return err
		},
		"disabled": func(ctx context.Context, key string) error {
			_, _, err := a.Keys.Update(ctx, a.Owner, op("UpdateApiKey"), key, 0, apikeys.UpdateParams{DisplayName: "x", Disabled: true})
			return err
		},
	} {
		caller := a.Caller(t, admin, sallyport.Limits{})
		if err := end(ctx, caller.Credential.ID); err != nil {
			t.Fatal(err)
		}
		_, _, err := a.Keys.Create(ctx, caller, op("CreateApiKey"), params(a, victim))
		wantKind(t, "a change by a key that was "+name, err, sallyport.Unauthenticated, "")
	}
}
