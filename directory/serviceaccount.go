package directory

import (
	"context"
	"fmt"
	"regexp"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/internal/page"
	"github.com/sallyport-iam/sallyport/internal/pg"
	"github.com/sallyport-iam/sallyport/journal"
)

// ServiceAccount is a workload's identity.
type ServiceAccount struct {
	ID     string
	Status object.Status
	Epoch  int64 // credential epoch: credentials made under another one are dead
	ServiceAccountParams
	Stamp
}

// ServiceAccountParams is what a client says of a service account.
type ServiceAccountParams struct {
	Name        string // 1 to 64 characters, unique in the account
	Description string
	// Scope is account, project or namespace, and never changes; empty in an
	// update it is kept. Authorizers, in SystemAccount, have the scope cell.
	Scope sallyport.Scope
	// Access of a namespace-scoped one is a permission in exactly one
	// namespace, which never changes, and the account role read, which may be
	// left out; of a project-scoped one a role on exactly one project, which
	// never changes, and permissions in the project's namespaces.
	Access Access
}

// normal fills in what may be left out.
func (p ServiceAccountParams) normal() ServiceAccountParams {
	if p.Scope == sallyport.ScopeNamespace && p.Access.Role == 0 {
		p.Access.Role = sallyport.RoleRead
	}
	return p
}

func (p ServiceAccountParams) valid() error {
	switch p.Scope {
	case sallyport.ScopeAccount, sallyport.ScopeProject, sallyport.ScopeNamespace:
	default:
		return sallyport.InvalidField("spec", "needs exactly one of access, project_scoped_access and namespace_scoped_access")
	}
	if err := validText("spec.name", p.Name, 1, 64); err != nil {
		return err
	}
	return validText("spec.description", p.Description, 0, longText)
}

func (p ServiceAccountParams) holder() holder { return holder{scope: p.Scope} }

// resource is what managing a service account of this access is an action on:
// the account, or the one project or namespace that it is scoped to.
func (p ServiceAccountParams) resource(ctx context.Context, q pg.Querier, account sallyport.AccountID) (authz.Resource, error) {
	r := authz.Resource{Account: account}
	switch p.Scope {
	case sallyport.ScopeProject:
		for id := range p.Access.Projects {
			r.Project = id
		}
	case sallyport.ScopeNamespace:
		for name := range p.Access.Namespaces {
			n, found, err := findNamespace(ctx, q, account, name)
			if err != nil {
				return r, err
			}
			if found {
				r.Project, r.Namespace = n.Project, n.ID
			}
		}
	}
	return r, nil
}

func (s ServiceAccount) record() map[string]any {
	return map[string]any{"name": s.Name, "description": s.Description, "scope": s.Scope, "status": s.Status,
		"access": s.Access.record(), "credential_epoch": s.Epoch}
}

func (s ServiceAccount) object() object.Principal {
	return object.Principal{Kind: sallyport.ServiceAccount, Status: s.Status, Epoch: s.Epoch}
}

// CreateServiceAccount makes a service account. Those scoped to a namespace or
// project may be made by its admins.
func (d *Directory) CreateServiceAccount(ctx context.Context, caller sallyport.Caller, op journal.Operation, p ServiceAccountParams) (ServiceAccount, journal.Committed, error) {
	return commit(ctx, d, caller, op, readServiceAccount, func(tx *journal.Tx) (ServiceAccount, error) {
		p := p.normal()
		if len(p.Access.Namespaces) > 1 || len(p.Access.Projects) > 1 {
			if err := p.holder().valid(p.Access); err != nil {
				return ServiceAccount{}, err // before it is asked which one of them counts
			}
		}
		r, err := p.resource(ctx, tx, tx.Account())
		if err != nil {
			return ServiceAccount{}, err
		}
		if err := authz.Check(tx.Caller(), authz.ServiceAccountCreate, r); err != nil {
			return ServiceAccount{}, err
		}
		if err := p.valid(); err != nil {
			return ServiceAccount{}, err
		}
		return d.createServiceAccount(ctx, tx, p)
	})
}

// createServiceAccount is CreateServiceAccount after the question who may.
func (d *Directory) createServiceAccount(ctx context.Context, tx *journal.Tx, p ServiceAccountParams) (ServiceAccount, error) {
	s := ServiceAccount{ID: sallyport.NewID(sallyport.ServiceAccountPrefix), Status: object.Active, Epoch: 1, ServiceAccountParams: p, Stamp: newStamp(tx)}
	if err := serviceAccountNameIsFree(ctx, tx, s); err != nil {
		return ServiceAccount{}, err
	}
	count, err := count(ctx, tx, "service_accounts", tx.Account())
	if err != nil {
		return ServiceAccount{}, err
	}
	if err := atLimit(count, d.maxServiceAccounts, "service accounts"); err != nil {
		return ServiceAccount{}, err
	}
	if err := insertServiceAccount(ctx, tx, tx.Account(), s); err != nil {
		return ServiceAccount{}, err
	}
	if _, err := setAccess(ctx, tx, p.holder(), s.ID, p.Access); err != nil {
		return ServiceAccount{}, err
	}
	if s, err = readServiceAccount(ctx, tx, tx.Account(), s.ID); err != nil {
		return ServiceAccount{}, err
	}
	tx.Target(s.ID)
	tx.Record(journal.Change{Type: "service-account", ID: s.ID, After: s.record()})
	return s, tx.Put(ctx, object.KindPrincipal, s.ID, object.Encode(s.object()))
}

func serviceAccountNameIsFree(ctx context.Context, tx *journal.Tx, s ServiceAccount) error {
	taken, err := serviceAccountNameTaken(ctx, tx, tx.Account(), s.Name, s.ID)
	if err == nil && taken {
		err = sallyport.AlreadyExists.Errorf("a service account named %q exists in this account; choose another name", s.Name)
	}
	return err
}

// ServiceAccount reads one service account.
func (d *Directory) ServiceAccount(ctx context.Context, caller sallyport.Caller, id string) (ServiceAccount, error) {
	return serviceAccountFor(ctx, d.pool, caller, authz.ServiceAccountGet, id)
}

// serviceAccountFor finds a service account and checks that the caller may do
// the action to it, by what it is scoped to.
func serviceAccountFor(ctx context.Context, q pg.Querier, caller sallyport.Caller, a authz.Action, id string) (ServiceAccount, error) {
	if err := check(caller, authz.IdentityGet); err != nil {
		return ServiceAccount{}, err
	}
	s, err := readServiceAccount(ctx, q, caller.Account, id)
	if err != nil {
		return ServiceAccount{}, err
	}
	r, err := s.resource(ctx, q, caller.Account)
	if err != nil {
		return ServiceAccount{}, err
	}
	r.Owner = sallyport.Principal{Kind: sallyport.ServiceAccount, ID: id}
	if err := authz.Check(caller, a, r); err != nil {
		return ServiceAccount{}, err
	}
	return s, nil
}

// ServiceAccounts lists the service accounts of all scopes by id.
func (d *Directory) ServiceAccounts(ctx context.Context, caller sallyport.Caller, p sallyport.Page) ([]ServiceAccount, string, error) {
	if err := check(caller, authz.ServiceAccountList); err != nil {
		return nil, "", err
	}
	cursor, err := d.pages.Cursor(caller.Account, "service accounts", p)
	if err != nil {
		return nil, "", err
	}
	rows, err := readServiceAccounts(ctx, d.pool, caller.Account, cursor.After, cursor.Limit)
	if err != nil {
		return nil, "", err
	}
	rows, next := page.Cut(cursor, rows, func(s ServiceAccount) string { return s.ID })
	return rows, next, nil
}

// UpdateServiceAccount replaces name, description and access. revision is the
// one that the client has seen.
func (d *Directory) UpdateServiceAccount(ctx context.Context, caller sallyport.Caller, op journal.Operation, id string, revision int64, p ServiceAccountParams) (ServiceAccount, journal.Committed, error) {
	return commit(ctx, d, caller, op, readServiceAccount, func(tx *journal.Tx) (ServiceAccount, error) {
		before, err := serviceAccountFor(ctx, tx, tx.Caller(), authz.ServiceAccountUpdate, id)
		if err != nil {
			return ServiceAccount{}, err
		}
		if err := before.stale(revision); err != nil {
			return ServiceAccount{}, err
		}
		p := p
		if p.Scope == "" {
			p.Scope = before.Scope
		}
		p = p.normal()
		if p.Scope != before.Scope {
			return ServiceAccount{}, sallyport.InvalidField("spec", "the scope of a service account cannot change from %s to %s; make another one", before.Scope, p.Scope)
		}
		if err := p.valid(); err != nil {
			return ServiceAccount{}, err
		}
		return changeServiceAccount(ctx, tx, p.holder(), before, p)
	})
}

// changeServiceAccount makes the service account what p says.
func changeServiceAccount(ctx context.Context, tx *journal.Tx, h holder, before ServiceAccount, p ServiceAccountParams) (ServiceAccount, error) {
	if err := h.sameTarget(before.ServiceAccountParams, p); err != nil {
		return ServiceAccount{}, err
	}
	changed, err := setAccess(ctx, tx, h, before.ID, p.Access)
	if err != nil {
		return ServiceAccount{}, err
	}
	if !changed && p.Name == before.Name && p.Description == before.Description {
		return ServiceAccount{}, nothingToChange()
	}
	after := before
	after.Name, after.Description = p.Name, p.Description
	if err := serviceAccountNameIsFree(ctx, tx, after); err != nil {
		return ServiceAccount{}, err
	}
	after.Revision, after.Modified = tx.Revision(), tx.Now()
	if err := updateServiceAccount(ctx, tx, tx.Account(), after); err != nil {
		return ServiceAccount{}, err
	}
	if after, err = readServiceAccount(ctx, tx, tx.Account(), before.ID); err != nil {
		return ServiceAccount{}, err
	}
	tx.Target(after.ID)
	tx.Record(journal.Change{Type: "service-account", ID: after.ID, Before: before.record(), After: after.record()})
	return after, nil
}

// sameTarget checks that a scoped service account stays where it is: its
// manager may not move it to what he does not manage.
func (h holder) sameTarget(before, after ServiceAccountParams) error {
	switch before.Scope {
	case sallyport.ScopeNamespace:
		for name := range after.Access.Namespaces {
			if _, ok := before.Access.Namespaces[name]; !ok {
				return sallyport.InvalidField(h.fields().namespace, "cannot change; make another service account")
			}
		}
	case sallyport.ScopeProject:
		for id := range after.Access.Projects {
			if _, ok := before.Access.Projects[id]; !ok {
				return sallyport.InvalidField(h.fields().project, "cannot change; make another service account")
			}
		}
	}
	return nil
}

// SetServiceAccountNamespaceAccess sets one direct permission of a service
// account, NoPermission removes it. It is for the namespace's admins.
func (d *Directory) SetServiceAccountNamespaceAccess(ctx context.Context, caller sallyport.Caller, op journal.Operation, id, namespace string, revision int64, permission sallyport.Permission) (ServiceAccount, journal.Committed, error) {
	return commit(ctx, d, caller, op, readServiceAccount, func(tx *journal.Tx) (ServiceAccount, error) {
		n, err := namespaceFor(ctx, tx, tx.Caller(), authz.NamespaceSetSAAccess, namespace)
		if err != nil {
			return ServiceAccount{}, err
		}
		before, err := readServiceAccount(ctx, tx, tx.Account(), id)
		if err != nil {
			return ServiceAccount{}, err
		}
		if err := before.stale(revision); err != nil {
			return ServiceAccount{}, err
		}
		p := before.ServiceAccountParams
		p.Access = p.Access.withNamespace(n.Name, permission)
		return changeServiceAccount(ctx, tx, holder{scope: p.Scope, one: true}, before, p)
	})
}

// SetServiceAccountStatus disables a service account, which refuses all of its
// credentials, or enables it again, which restores those that have not ended
// since. revision is the one that the client has seen.
func (d *Directory) SetServiceAccountStatus(ctx context.Context, caller sallyport.Caller, op journal.Operation, id string, revision int64, status object.Status) (ServiceAccount, journal.Committed, error) {
	return commit(ctx, d, caller, op, readServiceAccount, func(tx *journal.Tx) (ServiceAccount, error) {
		before, err := serviceAccountFor(ctx, tx, tx.Caller(), authz.ServiceAccountUpdate, id)
		if err != nil {
			return ServiceAccount{}, err
		}
		if err := before.stale(revision); err != nil {
			return ServiceAccount{}, err
		}
		switch {
		case status != object.Active && status != object.Disabled:
			return ServiceAccount{}, sallyport.InvalidField("status", "must be %s or %s", object.Active, object.Disabled)
		case status == before.Status:
			return ServiceAccount{}, nothingToChange()
		}
		after := before
		after.Status, after.Revision, after.Modified = status, tx.Revision(), tx.Now()
		if err := updateServiceAccount(ctx, tx, tx.Account(), after); err != nil {
			return ServiceAccount{}, err
		}
		tx.Target(id)
		tx.Record(journal.Change{Type: "service-account", ID: id, Before: before.record(), After: after.record()})
		return after, tx.Put(ctx, object.KindPrincipal, id, object.Encode(after.object()))
	})
}

// DeleteServiceAccount ends a service account with its access and its credentials.
func (d *Directory) DeleteServiceAccount(ctx context.Context, caller sallyport.Caller, op journal.Operation, id string, revision int64) (journal.Committed, error) {
	return d.run(ctx, caller, op, func(tx *journal.Tx) error {
		s, err := serviceAccountFor(ctx, tx, tx.Caller(), authz.ServiceAccountDelete, id)
		if err != nil {
			return err
		}
		if err := s.stale(revision); err != nil {
			return err
		}
		tx.Target(id)
		return d.endServiceAccount(ctx, tx, s)
	})
}

func (d *Directory) endServiceAccount(ctx context.Context, tx *journal.Tx, s ServiceAccount) error {
	if err := d.principalEnded(ctx, tx, s.ID); err != nil {
		return fmt.Errorf("ending the credentials of service account %s: %w", s.ID, err)
	}
	if err := removeGrants(ctx, tx, s.ID); err != nil {
		return err
	}
	if err := deleteServiceAccount(ctx, tx, tx.Account(), s.ID); err != nil {
		return err
	}
	tx.Record(journal.Change{Type: "service-account", ID: s.ID, Before: s.record()})
	return tx.Remove(ctx, object.KindPrincipal, s.ID)
}

var cellID = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,62}$`)

// CreateAuthorizer makes the service account of a cell's authorizers, which may
// follow the feed for that cell. The caller is the operator of SystemAccount.
func (d *Directory) CreateAuthorizer(ctx context.Context, caller sallyport.Caller, op journal.Operation, name, cell string) (ServiceAccount, journal.Committed, error) {
	return commit(ctx, d, caller, op, readServiceAccount, func(tx *journal.Tx) (ServiceAccount, error) {
		if err := authz.Check(tx.Caller(), authz.AuthorizerCreate, authz.Resource{Account: sallyport.SystemAccount}); err != nil {
			return ServiceAccount{}, err
		}
		if err := validText("name", name, 1, 64); err != nil {
			return ServiceAccount{}, err
		}
		if !cellID.MatchString(cell) {
			return ServiceAccount{}, sallyport.InvalidField("cell", "must have 1 to 63 characters of a-z, 0-9, ., - and _")
		}
		s, err := d.createServiceAccount(ctx, tx, ServiceAccountParams{Name: name, Description: "authorizers of cell " + cell, Scope: sallyport.ScopeCell})
		if err != nil {
			return ServiceAccount{}, err
		}
		return s, putGrant(ctx, tx, sallyport.Grant{Subject: s.ID, Scope: sallyport.ScopeCell, Target: cell, Role: "authorizer"})
	})
}
