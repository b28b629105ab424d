package directory_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"pgregory.net/rapid"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/directory"
	"github.com/sallyport-iam/sallyport/internal/pg"
)

// same fails the test unless the journal's live objects, its digest and the
// objects rebuilt from the tables agree.
func same(t testing.TB, w *world) {
	t.Helper()
	batch, err := w.journal.Snapshot(t.Context(), w.account)
	want(t, err, "")
	var rebuilt []object.Object
	err = pg.Snapshot(t.Context(), w.journal.Pool(), func(tx pgx.Tx) error {
		var err error
		rebuilt, err = w.Objects(t.Context(), tx, w.account)
		return err
	})
	want(t, err, "")
	var digest object.Digest
	for _, o := range rebuilt {
		digest.Toggle(o.Kind, o.ID, o.Data, true)
	}
	if diff := cmp.Diff(rebuilt, batch.Objects); diff != "" || digest != batch.Digest {
		t.Fatalf("journal and tables disagree (digests %x and %x; -tables +journal):\n%s", batch.Digest[:4], digest[:4], diff)
	}
}

// TestObjects makes random changes, sensible and not, and compares what
// authorizers are told with the tables, and access with what the objects say.
func TestObjects(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(t)
		m := machine{world: w, users: []string{w.first.ID}, names: []string{"none"}}
		steps := rapid.IntRange(5, 40).Draw(rt, "steps")
		for i := range steps {
			name := rapid.SampledFrom(m.operations()).Draw(rt, "operation")
			m.do(rt, name, i)
		}
		same(t, w)
		m.accessAgrees(rt)
	})
}

// machine remembers ids, also of what has gone.
type machine struct {
	*world
	users, robots, groups, names []string
}

func (m *machine) operations() []string {
	ops := []string{"user", "namespace", "group", "robot", "update user", "status", "set access"}
	ops = append(ops, "join", "join", "leave", "update group", "update robot", "delete user", "delete namespace", "delete group", "delete robot")
	return ops
}

func (m *machine) access(rt *rapid.T) directory.Access {
	a := directory.Access{Role: rapid.SampledFrom([]sallyport.AccountRole{0, sallyport.RoleOwner, sallyport.RoleAdmin, sallyport.RoleDeveloper, sallyport.RoleRead}).Draw(rt, "role")}
	if rapid.Bool().Draw(rt, "on a namespace") {
		a.Namespaces = map[string]sallyport.Permission{rapid.SampledFrom(m.names).Draw(rt, "namespace"): rapid.SampledFrom([]sallyport.Permission{1, 2, 3}).Draw(rt, "permission")}
	}
	if rapid.Bool().Draw(rt, "on the project") {
		a.Projects = map[string]sallyport.ProjectRole{m.project: rapid.SampledFrom([]sallyport.ProjectRole{sallyport.ProjectAdmin, sallyport.ProjectList, sallyport.ProjectWrite}).Draw(rt, "project role")}
	}
	return a
}

func pick(rt *rapid.T, from []string) string {
	return rapid.SampledFrom(append([]string{"nothing"}, from...)).Draw(rt, "id")
}

// do carries out one operation; refusals of every typed kind are fine.
func (m *machine) do(rt *rapid.T, name string, i int) {
	ctx, operator := m.t.Context(), sallyport.OperatorCaller(m.account, "test")
	var err error
	switch name {
	case "user":
		var u directory.User
		if u, _, err = m.CreateUser(ctx, operator, op(name), directory.UserParams{Email: fmt.Sprintf("u%d@example.com", i), Access: m.access(rt)}); err == nil {
			m.users = append(m.users, u.ID)
		}
	case "namespace":
		p := namespaceParams(rapid.SampledFrom([]string{"aa", "bb", "cc"}).Draw(rt, "name"))
		p.MTLSAuth = rapid.Bool().Draw(rt, "mtls")
		if _, _, err = m.CreateNamespace(ctx, operator, op(name), p); err == nil {
			m.names = append(m.names, p.Name)
		} else {
			_, _, err = m.UpdateNamespace(ctx, operator, op(name), p.Name, 0, p)
		}
	case "group":
		var g directory.Group
		if g, _, err = m.CreateGroup(ctx, operator, op(name), directory.GroupParams{Kind: directory.CloudGroup, Name: fmt.Sprintf("group-%d", i), Access: m.access(rt)}); err == nil {
			m.groups = append(m.groups, g.ID)
		}
	case "robot":
		p := directory.ServiceAccountParams{Name: fmt.Sprint("robot ", i), Access: m.access(rt),
			Scope: rapid.SampledFrom([]sallyport.Scope{sallyport.ScopeAccount, sallyport.ScopeNamespace, sallyport.ScopeProject}).Draw(rt, "scope")}
		if p.Scope != sallyport.ScopeAccount {
			p.Access.Role = 0
		}
		var s directory.ServiceAccount
		if s, _, err = m.CreateServiceAccount(ctx, operator, op(name), p); err == nil {
			m.robots = append(m.robots, s.ID)
		}
	case "update user":
		_, _, err = m.UpdateUser(ctx, operator, op(name), pick(rt, m.users), 0, directory.UserParams{Access: m.access(rt)})
	case "status":
		_, _, err = m.SetUserStatus(ctx, operator, op(name), pick(rt, m.users), 0, rapid.SampledFrom([]object.Status{object.Active, object.Disabled}).Draw(rt, "status"))
	case "set access":
		_, _, err = m.SetUserNamespaceAccess(ctx, operator, op(name), pick(rt, m.users), pick(rt, m.names), 0, rapid.SampledFrom([]sallyport.Permission{0, 1, 2, 3}).Draw(rt, "permission"))
	case "join":
		_, err = m.AddMember(ctx, operator, op(name), pick(rt, m.groups), pick(rt, m.users))
	case "leave":
		_, err = m.RemoveMember(ctx, operator, op(name), pick(rt, m.groups), pick(rt, m.users))
	case "update group":
		_, _, err = m.UpdateGroup(ctx, operator, op(name), pick(rt, m.groups), 0, directory.GroupParams{Name: fmt.Sprintf("group-%d", i), Access: m.access(rt)})
	case "update robot":
		_, _, err = m.UpdateServiceAccount(ctx, operator, op(name), pick(rt, m.robots), 0, directory.ServiceAccountParams{Name: fmt.Sprint("robot ", i), Access: m.access(rt)})
	case "delete user":
		_, err = m.DeleteUser(ctx, operator, op(name), pick(rt, m.users), 0)
	case "delete namespace":
		_, err = m.DeleteNamespace(ctx, operator, op(name), pick(rt, m.names), 0)
	case "delete group":
		_, err = m.DeleteGroup(ctx, operator, op(name), pick(rt, m.groups), 0)
	case "delete robot":
		_, err = m.DeleteServiceAccount(ctx, operator, op(name), pick(rt, m.robots), 0)
	}
	var typed *sallyport.Error
	if err != nil && !errors.As(err, &typed) {
		rt.Fatalf("%s: got %v, want success or a typed refusal", name, err)
	}
}

// accessAgrees computes every principal's access from the journal's objects, as
// an authorizer does, and compares it with the directory's; and the account has
// an active owner.
func (m *machine) accessAgrees(rt *rapid.T) {
	batch, err := m.journal.Snapshot(m.t.Context(), m.account)
	want(m.t, err, "")
	principals := map[string]object.Principal{}
	holders := map[string][]string{} // by subject: who holds what it is granted
	var grants []object.Grant
	for _, o := range batch.Objects {
		switch o.Kind {
		case object.KindPrincipal:
			principals[o.ID], err = object.Decode[object.Principal](o.Data)
			holders[o.ID] = append(holders[o.ID], o.ID)
		case object.KindMembership:
			var ms object.Membership
			ms, err = object.Decode[object.Membership](o.Data)
			holders[ms.Group] = append(holders[ms.Group], ms.User)
		case object.KindGrant:
			var g object.Grant
			g, err = object.Decode[object.Grant](o.Data)
			grants = append(grants, g)
		}
		want(m.t, err, "")
	}
	owners := 0
	for id, p := range principals {
		expect := sallyport.Access{Projects: map[string]sallyport.ProjectRoles{}, Namespaces: map[sallyport.NamespaceID]sallyport.Permission{}}
		for _, g := range grants {
			if !slices.Contains(holders[g.Subject], id) {
				continue
			}
			switch g.Scope {
			case sallyport.ScopeAccount:
				r, _ := sallyport.ParseAccountRole(g.Role)
				expect.Roles |= sallyport.Roles(r)
				if r == sallyport.RoleOwner && g.Subject == id && p.Status == object.Active {
					owners++
				}
			case sallyport.ScopeProject:
				r, _ := sallyport.ParseProjectRole(g.Role)
				expect.Projects[g.Target] |= sallyport.ProjectRoles(r)
			case sallyport.ScopeNamespace:
				r, _ := sallyport.ParsePermission(g.Role)
				id := sallyport.NamespaceID(g.Target)
				expect.Namespaces[id] = max(expect.Namespaces[id], r)
			}
		}
		got, standing, err := m.Access(m.t.Context(), m.journal.Pool(), m.account, sallyport.Principal{Kind: p.Kind, ID: id})
		want(m.t, err, "")
		if diff := cmp.Diff(expect, got); diff != "" || standing.Status != p.Status || standing.Epoch != p.Epoch {
			rt.Errorf("%s stands as %+v, the object says %+v; access (-objects +directory):\n%s", id, standing, p, diff)
		}
	}
	if owners == 0 {
		rt.Error("the account has no active owner")
	}
}
