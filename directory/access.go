package directory

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/internal/pg"
	"github.com/sallyport-iam/sallyport/journal"
)

// Access is what a user, group or service account holds directly.
type Access struct {
	Role       sallyport.AccountRole            // zero: none
	Projects   map[string]sallyport.ProjectRole // by project id
	Namespaces map[string]sallyport.Permission  // by the namespace's name
}

// Standing is what a principal's credentials depend on.
type Standing struct {
	Account object.Status // of the account
	Status  object.Status // of the principal
	Epoch   int64         // credentials made under another one are dead
	Scope   sallyport.Scope
	Owner   bool // a user that holds the account role owner, directly or through a group
	// Project and Namespace are what a project- or namespace-scoped service
	// account belongs to, as authz.Resource takes it: Namespace with its project.
	Project   string
	Namespace sallyport.NamespaceID
}

// Standing reads how a principal stands; NotFound when there is none of that id.
func (d *Directory) Standing(ctx context.Context, q pg.Querier, account sallyport.AccountID, p sallyport.Principal) (Standing, error) {
	s, found, err := readStanding(ctx, q, account, p)
	if err == nil && !found {
		err = sallyport.NotFound.Errorf("there is no %s %s", p.Kind, p.ID)
	}
	return s, err
}

// Access reads a principal's access, the union of what it and its groups hold,
// and how it stands. It does not look at the standing.
func (d *Directory) Access(ctx context.Context, q pg.Querier, account sallyport.AccountID, p sallyport.Principal) (sallyport.Access, Standing, error) {
	standing, err := d.Standing(ctx, q, account, p)
	if err != nil {
		return sallyport.Access{}, standing, err
	}
	grants, err := effectiveGrants(ctx, q, account, p.ID)
	if err != nil {
		return sallyport.Access{}, standing, err
	}
	return union(grants), standing, nil
}

func union(grants []sallyport.Grant) sallyport.Access {
	a := sallyport.Access{Projects: map[string]sallyport.ProjectRoles{}, Namespaces: map[sallyport.NamespaceID]sallyport.Permission{}}
	for _, g := range grants {
		switch g.Scope {
		case sallyport.ScopeAccount:
			role, _ := sallyport.ParseAccountRole(g.Role)
			a.Roles |= sallyport.Roles(role)
		case sallyport.ScopeProject:
			role, _ := sallyport.ParseProjectRole(g.Role)
			a.Projects[g.Target] |= sallyport.ProjectRoles(role)
		case sallyport.ScopeNamespace:
			p, _ := sallyport.ParsePermission(g.Role)
			a.Namespaces[sallyport.NamespaceID(g.Target)] = max(a.Namespaces[sallyport.NamespaceID(g.Target)], p)
		case sallyport.ScopeCell:
			a.Cells = append(a.Cells, g.Target)
		}
	}
	return a
}

// holder is the kind of subject whose direct access is being set.
type holder struct {
	scope sallyport.Scope // of a service account; "" for users and groups
	one   bool            // the request sets one permission and has no spec
}

// accessFields are the parts of an access as a request spells them.
type accessFields struct {
	whole, role, project, projectRole, namespace, permission string
}

func (h holder) fields() accessFields {
	switch {
	case h.one:
		const access = "access"
		return accessFields{whole: access, role: access, project: access, projectRole: access, namespace: "namespace", permission: access}
	case h.scope == sallyport.ScopeNamespace:
		const access = "spec.namespace_scoped_access"
		return accessFields{whole: access, role: access, project: access, projectRole: access,
			namespace: access + ".namespace", permission: access + ".access.permission"}
	case h.scope == sallyport.ScopeProject:
		const access = "spec.project_scoped_access"
		return accessFields{whole: access, role: access, project: access + ".project_id", projectRole: access + ".access.role",
			namespace: access + ".namespace_accesses", permission: access + ".namespace_accesses"}
	}
	const access = "spec.access"
	return accessFields{whole: access, role: access + ".account_access.role", project: access + ".project_accesses", projectRole: access + ".project_accesses",
		namespace: access + ".namespace_accesses", permission: access + ".namespace_accesses"}
}

// valid checks the access against the rules of who may hold what.
func (h holder) valid(a Access) error {
	fields := h.fields()
	if err := wellFormed(a, fields); err != nil {
		return err
	}
	if len(a.Namespaces) > 0 && (a.Role == sallyport.RoleOwner || a.Role == sallyport.RoleAdmin) {
		return sallyport.InvalidField(fields.permission,
			"must be empty with the account role %s, which is admin in every namespace already", a.Role)
	}
	switch h.scope {
	case sallyport.ScopeAccount:
		if a.Role == sallyport.RoleOwner || a.Role == sallyport.RoleFinanceAdmin {
			return sallyport.InvalidField(fields.role, "a service account cannot have the role %s; use admin, developer, read, metricsread or none", a.Role)
		}
	case sallyport.ScopeNamespace:
		if len(a.Namespaces) != 1 || len(a.Projects) > 0 || a.Role != sallyport.RoleRead {
			return sallyport.InvalidField(fields.whole, "a namespace-scoped service account has a permission in exactly one namespace, the account role read and nothing else")
		}
	case sallyport.ScopeProject:
		if len(a.Projects) != 1 || a.Role != 0 {
			return sallyport.InvalidField(fields.whole, "a project-scoped service account has a role on exactly one project, permissions in its namespaces, and nothing else")
		}
	}
	return nil
}

func wellFormed(a Access, fields accessFields) error {
	if a.Role != 0 && a.Role.String() == "none" {
		return sallyport.InvalidField(fields.role, "is not one that can be given; use owner, admin, developer, financeadmin, read, metricsread or none")
	}
	for id, role := range a.Projects {
		if role.String() == "none" || role == sallyport.ProjectDeveloper {
			return sallyport.InvalidField(fields.projectRole, "the role on project %q is not one that can be given; use admin, write, read, list, contribute or member", clip(id))
		}
	}
	for name, p := range a.Namespaces {
		if p < sallyport.PermissionRead || p > sallyport.PermissionAdmin {
			return sallyport.InvalidField(fields.permission, "the permission in namespace %q must be admin, write or read", clip(name))
		}
	}
	return nil
}

// grantsFor turns the access into the subject's grants; Invalid when it names a
// project or namespace that is not there.
func grantsFor(ctx context.Context, tx *journal.Tx, h holder, subject string, a Access) ([]sallyport.Grant, error) {
	fields := h.fields()
	var grants []sallyport.Grant
	if a.Role != 0 {
		grants = append(grants, sallyport.Grant{Subject: subject, Scope: sallyport.ScopeAccount, Target: string(tx.Account()), Role: a.Role.String()})
	}
	for _, id := range slices.Sorted(maps.Keys(a.Projects)) {
		if _, found, err := readProject(ctx, tx, tx.Account(), id); err != nil || !found {
			if err == nil {
				err = sallyport.InvalidField(fields.project, "there is no project %q in this account", clip(id))
			}
			return nil, err
		}
		grants = append(grants, sallyport.Grant{Subject: subject, Scope: sallyport.ScopeProject, Target: id, Role: a.Projects[id].String()})
	}
	names := slices.Sorted(maps.Keys(a.Namespaces))
	ids, err := namespaceIDs(ctx, tx, tx.Account(), names)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		id, ok := ids[name]
		if !ok {
			return nil, sallyport.InvalidField(fields.namespace, "there is no namespace %q in this account", clip(name))
		}
		grants = append(grants, sallyport.Grant{Subject: subject, Scope: sallyport.ScopeNamespace, Target: string(id), Role: a.Namespaces[name].String()})
	}
	return grants, h.stays(ctx, tx, a)
}

// stays checks that a project-scoped service account has permissions in its
// project only: the project's admins manage it.
func (h holder) stays(ctx context.Context, tx *journal.Tx, a Access) error {
	if h.scope != sallyport.ScopeProject {
		return nil
	}
	for project := range a.Projects { // exactly one
		outside, err := namespacesOutside(ctx, tx, tx.Account(), project, slices.Sorted(maps.Keys(a.Namespaces)))
		if err != nil {
			return err
		}
		if len(outside) > 0 {
			return sallyport.InvalidField(h.fields().namespace, "the namespace %q is not in the project that the service account is scoped to", outside[0])
		}
	}
	return nil
}

// setAccess makes the subject's direct grants what the access says, and reports
// whether that changed anything.
func setAccess(ctx context.Context, tx *journal.Tx, h holder, subject string, a Access) (changed bool, err error) {
	if err := h.valid(a); err != nil {
		return false, err
	}
	want, err := grantsFor(ctx, tx, h, subject, a)
	if err != nil {
		return false, err
	}
	have, err := directGrants(ctx, tx, tx.Account(), subject)
	if err != nil {
		return false, err
	}
	for _, g := range have {
		if !slices.ContainsFunc(want, func(w sallyport.Grant) bool { return w.Scope == g.Scope && w.Target == g.Target }) {
			changed = true
			if err := removeGrant(ctx, tx, g); err != nil {
				return false, err
			}
		}
	}
	for _, g := range want {
		if !slices.Contains(have, g) {
			changed = true
			if err := putGrant(ctx, tx, g); err != nil {
				return false, err
			}
		}
	}
	return changed, nil
}

func putGrant(ctx context.Context, tx *journal.Tx, g sallyport.Grant) error {
	if err := upsertGrant(ctx, tx, tx.Account(), g); err != nil {
		return err
	}
	return tx.Put(ctx, object.KindGrant, object.GrantID(g.Subject, g.Scope, g.Target), object.Encode(grantObject(g)))
}

func grantObject(g sallyport.Grant) object.Grant {
	return object.Grant{Subject: g.Subject, Scope: g.Scope, Target: g.Target, Role: g.Role}
}

func removeGrant(ctx context.Context, tx *journal.Tx, g sallyport.Grant) error {
	if err := deleteGrant(ctx, tx, tx.Account(), g); err != nil {
		return err
	}
	return tx.Remove(ctx, object.KindGrant, object.GrantID(g.Subject, g.Scope, g.Target))
}

// removeGrants ends all direct access of a subject that goes.
func removeGrants(ctx context.Context, tx *journal.Tx, subject string) error {
	grants, err := directGrants(ctx, tx, tx.Account(), subject)
	if err != nil {
		return err
	}
	for _, g := range grants {
		if err := removeGrant(ctx, tx, g); err != nil {
			return err
		}
	}
	return nil
}

// withNamespace is the access with another permission in one namespace.
func (a Access) withNamespace(name string, p sallyport.Permission) Access {
	a.Namespaces = maps.Clone(a.Namespaces)
	if p == sallyport.NoPermission {
		delete(a.Namespaces, name)
		return a
	}
	if a.Namespaces == nil {
		a.Namespaces = map[string]sallyport.Permission{}
	}
	a.Namespaces[name] = p
	return a
}

// record is the access for the audit record: roles by what they are on.
func (a Access) record() map[string]string {
	r := map[string]string{}
	if a.Role != 0 {
		r["account"] = a.Role.String()
	}
	for id, role := range a.Projects {
		r["project "+id] = role.String()
	}
	for name, p := range a.Namespaces {
		r["namespace "+name] = p.String()
	}
	return r
}

// clip bounds what a client sent before it is put into a message.
func clip(s string) string {
	if len(s) > 80 {
		return fmt.Sprintf("%.80s…", s)
	}
	return s
}
