package directory

import (
	"bytes"
	"context"
	"fmt"
	"regexp"
	"slices"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/credential"
	"github.com/sallyport-iam/sallyport/internal/page"
	"github.com/sallyport-iam/sallyport/internal/pg"
	"github.com/sallyport-iam/sallyport/journal"
)

// Namespace is a data-plane resource, known outside as <Name>.<account>.
type Namespace struct {
	ID   sallyport.NamespaceID
	Cell string // that serves its region
	NamespaceParams
	Stamp
}

// NamespaceParams is what a client says of a namespace. Name, Project and
// Region never change; empty in an update they are kept.
type NamespaceParams struct {
	Name             string // 2 to 64 of a-z0-9 and -, beginning with a letter
	Project          string // its id; empty: the default one
	Region           string // a Region's id
	RetentionDays    int32  // 1 to 90
	APIKeyAuth       bool
	MTLSAuth         bool
	DeleteProtection bool
	// ClientCA is the bundle of client CAs, PEM, byte for byte as it was sent, and
	// CertificateFilters what leaves under them must match. Config.NamespaceChanged
	// checks them.
	ClientCA           []byte
	CertificateFilters []credential.Filter
	// Spec is the rest of it as the client sent it. It is kept and given
	// back, and compared byte for byte, but not read here.
	Spec []byte
}

const (
	maxSpec     = 256 << 10
	maxClientCA = 64 << 10 // of what is read at all
	maxFilters  = 100
)

// Temporal Cloud documents 39 characters; its clients accept 64, and so do we.
var namespaceName = regexp.MustCompile(`^[a-z][a-z0-9-]{0,62}[a-z0-9]$`)

func (n Namespace) resource(account sallyport.AccountID) authz.Resource {
	return authz.Resource{Account: account, Project: n.Project, Namespace: n.ID}
}

func (p NamespaceParams) valid() error {
	switch {
	case p.RetentionDays < 1 || p.RetentionDays > 90:
		return sallyport.InvalidField("spec.retention_days", "must be between 1 and 90")
	case len(p.Spec) > maxSpec:
		return sallyport.InvalidField("spec", "is larger than %d bytes", maxSpec)
	case len(p.ClientCA) > maxClientCA:
		return sallyport.InvalidField("spec.mtls_auth.accepted_client_ca", "is larger than %d bytes", maxClientCA)
	case len(p.CertificateFilters) > maxFilters:
		return sallyport.InvalidField("spec.mtls_auth.certificate_filters", "has more than %d filters", maxFilters)
	}
	return nil
}

func (p NamespaceParams) equal(q NamespaceParams) bool {
	spec := bytes.Equal(p.Spec, q.Spec) && bytes.Equal(p.ClientCA, q.ClientCA) && slices.Equal(p.CertificateFilters, q.CertificateFilters)
	return spec && p.RetentionDays == q.RetentionDays && p.APIKeyAuth == q.APIKeyAuth && p.MTLSAuth == q.MTLSAuth && p.DeleteProtection == q.DeleteProtection
}

func (p NamespaceParams) record() map[string]any {
	return map[string]any{"name": p.Name, "project": p.Project, "region": p.Region, "retention_days": p.RetentionDays,
		"api_key_auth": p.APIKeyAuth, "mtls_auth": p.MTLSAuth, "delete_protection": p.DeleteProtection, "spec": p.Spec,
		"client_ca": p.ClientCA, "certificate_filters": p.CertificateFilters}
}

func (n Namespace) put(ctx context.Context, tx *journal.Tx) error {
	return tx.Put(ctx, object.KindNamespace, string(n.ID), object.Encode(n.object()))
}

func (n Namespace) object() object.Namespace {
	return object.Namespace{Name: n.Name, Project: n.Project, Cell: n.Cell, RetentionDays: n.RetentionDays,
		Auth: object.NamespaceAuth{APIKey: n.APIKeyAuth, MTLS: n.MTLSAuth}}
}

// CreateNamespace makes a namespace. Who makes one without being its admin by
// an account or project role becomes it by a grant of his own.
func (d *Directory) CreateNamespace(ctx context.Context, caller sallyport.Caller, op journal.Operation, p NamespaceParams) (Namespace, journal.Committed, error) {
	return commit(ctx, d, caller, op, readNamespaceByID, func(tx *journal.Tx) (Namespace, error) {
		account, err := readAccount(ctx, tx, tx.Account())
		if err != nil {
			return Namespace{}, err
		}
		if p.Project == "" {
			p.Project = account.DefaultProject
		}
		if err := authz.Check(tx.Caller(), authz.NamespaceCreate, authz.Resource{Account: tx.Account(), Project: p.Project}); err != nil {
			return Namespace{}, err
		}
		n := Namespace{ID: sallyport.NamespaceID(sallyport.NewID(sallyport.NamespacePrefix)), NamespaceParams: p, Stamp: newStamp(tx)}
		if err := d.validNewNamespace(ctx, tx, &n); err != nil {
			return Namespace{}, err
		}
		if err := insertNamespace(ctx, tx, tx.Account(), n); err != nil {
			return Namespace{}, err
		}
		tx.Target(string(n.ID))
		tx.Record(journal.Change{Type: "namespace", ID: string(n.ID), After: n.record()})
		if err := n.put(ctx, tx); err != nil {
			return Namespace{}, err
		}
		if err := d.namespaceChanged(ctx, tx, Namespace{}, n); err != nil {
			return Namespace{}, err
		}
		return n, grantToMaker(ctx, tx, n)
	})
}

func (d *Directory) validNewNamespace(ctx context.Context, tx *journal.Tx, n *Namespace) error {
	if !namespaceName.MatchString(n.Name) {
		return sallyport.InvalidField("spec.name", "must have 2 to 64 characters of a-z, 0-9 and -, begin with a letter and end with a letter or digit")
	}
	region, ok := d.region(n.Region)
	if !ok {
		return sallyport.InvalidField("spec.replicas", "there is no region %q; GetRegions lists them", clip(n.Region))
	}
	n.Cell = region.Cell
	if _, found, err := readProject(ctx, tx, tx.Account(), n.Project); err != nil || !found {
		if err == nil {
			err = sallyport.InvalidField("project_id", "there is no project %q in this account", clip(n.Project))
		}
		return err
	}
	if err := n.valid(); err != nil {
		return err
	}
	_, found, err := findNamespace(ctx, tx, tx.Account(), n.Name)
	if err != nil {
		return err
	}
	if found {
		return sallyport.AlreadyExists.Errorf("a namespace %s exists in this account; choose another name", n.Name)
	}
	count, err := countNamespaces(ctx, tx, tx.Account())
	if err != nil {
		return err
	}
	return atLimit(count, d.maxNamespaces, "namespaces")
}

// grantToMaker makes a developer admin of the namespace he made, and so a
// service account that contributes to its project.
func grantToMaker(ctx context.Context, tx *journal.Tx, n Namespace) error {
	caller := tx.Caller()
	if caller.Principal.Kind == sallyport.Operator || caller.Access.Permission(n.Project, n.ID) == sallyport.PermissionAdmin {
		return nil
	}
	s, found, err := readStanding(ctx, tx, tx.Account(), caller.Principal)
	if err != nil || !found || s.Scope == sallyport.ScopeNamespace {
		return err // a namespace-scoped service account holds its one permission and no other
	}
	g := sallyport.Grant{Subject: caller.Principal.ID, Scope: sallyport.ScopeNamespace, Target: string(n.ID), Role: sallyport.PermissionAdmin.String()}
	if err := putGrant(ctx, tx, g); err != nil {
		return err
	}
	tx.Record(journal.Change{Type: "grant", ID: g.Subject, After: map[string]string{"namespace " + n.Name: g.Role}})
	return touchSubjects(ctx, tx, tx.Account(), []string{g.Subject}, tx.Revision(), tx.Now())
}

// Namespace reads a namespace by its name.
func (d *Directory) Namespace(ctx context.Context, caller sallyport.Caller, name string) (Namespace, error) {
	return namespaceFor(ctx, d.pool, caller, authz.NamespaceGet, name)
}

// namespaceFor finds a namespace and checks that the caller may do the action
// to it. Members of the account learn that a namespace is not there, whatever
// they hold: clients wait for that after a deletion.
func namespaceFor(ctx context.Context, q pg.Querier, caller sallyport.Caller, a authz.Action, name string) (Namespace, error) {
	if err := check(caller, authz.IdentityGet); err != nil {
		return Namespace{}, err
	}
	n, found, err := findNamespace(ctx, q, caller.Account, name)
	if err != nil {
		return Namespace{}, err
	}
	if !found {
		return Namespace{}, notThere("namespace", name)
	}
	if err := authz.Check(caller, a, n.resource(caller.Account)); err != nil {
		return Namespace{}, err
	}
	return n, nil
}

// NamespaceFor finds a namespace by its name and checks that the caller may do
// the action to it. A caller in a transaction is the transaction's.
func (d *Directory) NamespaceFor(ctx context.Context, q pg.Querier, caller sallyport.Caller, a authz.Action, name string) (Namespace, error) {
	return namespaceFor(ctx, q, caller, a, name)
}

// MTLS is what of a namespace concerns client certificates.
type MTLS struct {
	On       bool
	ClientCA []byte
	Filters  []credential.Filter
}

// SetMTLS changes what of a namespace concerns client certificates, and nothing
// else, inside a change that the caller has checked. Its revision must be seen,
// unless that is 0. Config.NamespaceChanged is not called: it is the one who
// keeps the CAs that calls.
func (d *Directory) SetMTLS(ctx context.Context, tx *journal.Tx, n Namespace, seen int64, m MTLS) (Namespace, error) {
	if err := n.stale(seen); err != nil {
		return Namespace{}, err
	}
	after := n
	after.MTLSAuth, after.ClientCA, after.CertificateFilters = m.On, m.ClientCA, m.Filters
	if after.equal(n.NamespaceParams) {
		return Namespace{}, nothingToChange()
	}
	after.Revision, after.Modified = tx.Revision(), tx.Now()
	if err := updateNamespace(ctx, tx, tx.Account(), after); err != nil {
		return Namespace{}, err
	}
	tx.Target(string(n.ID))
	tx.Record(journal.Change{Type: "namespace", ID: string(n.ID), Before: n.record(), After: after.record()})
	if after.object() != n.object() { // what authorizers know
		return after, after.put(ctx, tx)
	}
	return after, nil
}

// NamespaceByID reads a namespace that is there by its id. It checks nothing.
func (d *Directory) NamespaceByID(ctx context.Context, q pg.Querier, account sallyport.AccountID, id sallyport.NamespaceID) (Namespace, error) {
	return readNamespaceByID(ctx, q, account, string(id))
}

// NamespacesByID finds those of the namespaces that are there. It checks nothing.
func (d *Directory) NamespacesByID(ctx context.Context, q pg.Querier, account sallyport.AccountID, ids []sallyport.NamespaceID) (map[sallyport.NamespaceID]Namespace, error) {
	return namespacesByID(ctx, q, account, ids)
}

// AllNamespaces reads every namespace of the account, by id. It checks nothing.
func (d *Directory) AllNamespaces(ctx context.Context, q pg.Querier, account sallyport.AccountID) ([]Namespace, error) {
	return allNamespaces(ctx, q, account)
}

// NamespaceFilter narrows a list; empty fields do not.
type NamespaceFilter struct {
	Name    string
	Project string // its id
}

// Namespaces lists the namespaces that the caller may read, by name.
func (d *Directory) Namespaces(ctx context.Context, caller sallyport.Caller, f NamespaceFilter, p sallyport.Page) ([]Namespace, string, error) {
	if err := check(caller, authz.NamespaceList); err != nil {
		return nil, "", err
	}
	cursor, err := d.pages.Cursor(caller.Account, fmt.Sprintf("namespaces %q %q", f.Name, f.Project), p)
	if err != nil {
		return nil, "", err
	}
	var rows []Namespace
	for after := cursor.After; len(rows) < cursor.Limit; {
		more, err := readNamespaces(ctx, d.pool, caller.Account, f, after, cursor.Limit)
		if err != nil {
			return nil, "", err
		}
		for _, n := range more {
			after = n.Name
			if len(rows) < cursor.Limit && authz.Check(caller, authz.NamespaceGet, n.resource(caller.Account)) == nil {
				rows = append(rows, n)
			}
		}
		if len(more) < cursor.Limit {
			break
		}
	}
	rows, next := page.Cut(cursor, rows, func(n Namespace) string { return n.Name })
	return rows, next, nil
}

// UpdateNamespace changes what may change of a namespace. revision is the one
// that the client has seen.
func (d *Directory) UpdateNamespace(ctx context.Context, caller sallyport.Caller, op journal.Operation, name string, revision int64, p NamespaceParams) (Namespace, journal.Committed, error) {
	return commit(ctx, d, caller, op, readNamespaceByID, func(tx *journal.Tx) (Namespace, error) {
		before, err := namespaceFor(ctx, tx, tx.Caller(), authz.NamespaceUpdate, name)
		if err != nil {
			return Namespace{}, err
		}
		if err := before.stale(revision); err != nil {
			return Namespace{}, err
		}
		after := before
		after.NamespaceParams = p
		after.Name, after.Project, after.Region = before.Name, before.Project, before.Region
		switch {
		case p.Name != "" && p.Name != before.Name:
			return Namespace{}, sallyport.InvalidField("spec.name", "cannot change; make another namespace")
		case p.Project != "" && p.Project != before.Project:
			return Namespace{}, sallyport.InvalidField("project_id", "cannot change; make another namespace")
		case p.Region != "" && p.Region != before.Region:
			return Namespace{}, sallyport.InvalidField("spec.replicas", "cannot change; make another namespace in the region %s", clip(p.Region))
		}
		if err := p.valid(); err != nil {
			return Namespace{}, err
		}
		if after.equal(before.NamespaceParams) {
			return Namespace{}, nothingToChange()
		}
		after.Revision, after.Modified = tx.Revision(), tx.Now()
		if err := updateNamespace(ctx, tx, tx.Account(), after); err != nil {
			return Namespace{}, err
		}
		tx.Target(string(after.ID))
		tx.Record(journal.Change{Type: "namespace", ID: string(after.ID), Before: before.record(), After: after.record()})
		if after.object() != before.object() { // what authorizers know
			if err := after.put(ctx, tx); err != nil {
				return Namespace{}, err
			}
		}
		return after, d.namespaceChanged(ctx, tx, before, after)
	})
}

// DeleteNamespace ends a namespace, the access to it, and the service accounts
// that are scoped to it with their keys. Its name may be used again, its id never.
func (d *Directory) DeleteNamespace(ctx context.Context, caller sallyport.Caller, op journal.Operation, name string, revision int64) (journal.Committed, error) {
	return d.run(ctx, caller, op, func(tx *journal.Tx) error {
		n, err := namespaceFor(ctx, tx, tx.Caller(), authz.NamespaceDelete, name)
		if err != nil {
			return err
		}
		if err := n.stale(revision); err != nil {
			return err
		}
		if n.DeleteProtection {
			return sallyport.Conflict.Errorf("the namespace %s is protected from deletion; switch spec.lifecycle.enable_delete_protection off first", n.Name)
		}
		scoped, err := serviceAccountsOf(ctx, tx, tx.Account(), n.ID)
		if err != nil {
			return err
		}
		for _, s := range scoped {
			if err := d.endServiceAccount(ctx, tx, s); err != nil {
				return err
			}
		}
		if err := endNamespaceGrants(ctx, tx, n); err != nil {
			return err
		}
		if err := buryNamespace(ctx, tx, tx.Account(), n.ID, tx.Revision(), tx.Now()); err != nil {
			return err
		}
		tx.Target(string(n.ID))
		tx.Record(journal.Change{Type: "namespace", ID: string(n.ID), Before: n.record()})
		if err := tx.Remove(ctx, object.KindNamespace, string(n.ID)); err != nil {
			return err
		}
		return d.namespaceChanged(ctx, tx, n, Namespace{})
	})
}

func endNamespaceGrants(ctx context.Context, tx *journal.Tx, n Namespace) error {
	grants, err := grantsOnNamespace(ctx, tx, tx.Account(), n.ID)
	if err != nil {
		return err
	}
	var subjects []string
	for _, g := range grants {
		if err := removeGrant(ctx, tx, g); err != nil {
			return err
		}
		subjects = append(subjects, g.Subject)
		tx.Record(journal.Change{Type: "grant", ID: g.Subject, Before: map[string]string{"namespace " + n.Name: g.Role}})
	}
	return touchSubjects(ctx, tx, tx.Account(), subjects, tx.Revision(), tx.Now())
}

// NamespaceIDs finds the ids of the named namespaces; what is not there is left out.
func (d *Directory) NamespaceIDs(ctx context.Context, q pg.Querier, account sallyport.AccountID, names []string) (map[string]sallyport.NamespaceID, error) {
	return namespaceIDs(ctx, q, account, names)
}

// NamespaceNames finds the names of namespaces, also of deleted ones.
func (d *Directory) NamespaceNames(ctx context.Context, q pg.Querier, account sallyport.AccountID, ids []sallyport.NamespaceID) (map[sallyport.NamespaceID]string, error) {
	return namespaceNames(ctx, q, account, ids)
}
