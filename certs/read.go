package certs

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz"
	"github.com/sallyport-iam/sallyport/directory"
	"github.com/sallyport-iam/sallyport/internal/page"
	"github.com/sallyport-iam/sallyport/internal/pg"
)

// Get reads a certificate of the caller's account. A service account may read
// its own, owners and admins any, and the admin of a project or namespace those
// of the service accounts bound to it.
func (a *Authority) Get(ctx context.Context, caller sallyport.Caller, id string) (Issued, error) {
	var issued Issued
	err := pg.Snapshot(ctx, a.pool, func(tx pgx.Tx) error {
		c, _, err := a.permitted(ctx, tx, caller, authz.CertificateGet, id)
		if err != nil || c.DER == nil {
			issued.Certificate = c
			return err
		}
		issued, err = a.issued(ctx, tx, c, nil)
		return err
	})
	return issued, err
}

// List gives the certificates that the caller may read, by ascending id;
// serviceAccount narrows it to one's unless it is empty.
func (a *Authority) List(ctx context.Context, caller sallyport.Caller, serviceAccount string, p sallyport.Page) (list []Certificate, next string, err error) {
	own := authz.Resource{Account: caller.Account, Owner: caller.Principal}
	if err := authz.Check(caller, authz.CertificateList, own); err != nil {
		return nil, "", err
	}
	cursor, err := a.pages.Cursor(caller.Account, "certificates/"+serviceAccount, p)
	if err != nil {
		return nil, "", err
	}
	all := authz.Check(caller, authz.CertificateGet, authz.Resource{Account: caller.Account}) == nil
	if !all && !administers(caller.Access) {
		// Nothing but its own: the others need not be read.
		if serviceAccount != "" && serviceAccount != caller.Principal.ID {
			return nil, "", nil
		}
		serviceAccount = caller.Principal.ID
	}
	return a.listPermitted(ctx, caller, serviceAccount, cursor, all)
}

// listPermitted reads on until the page is full of what the caller may read.
func (a *Authority) listPermitted(ctx context.Context, caller sallyport.Caller, serviceAccount string, cursor page.Cursor, all bool) (certificates []Certificate, next string, err error) {
	owners := map[string]directory.Standing{}
	for after := cursor.After; ; {
		rows, err := list(ctx, a.pool, caller.Account, serviceAccount, after, cursor.Limit)
		if err != nil {
			return nil, "", err
		}
		for _, c := range rows {
			owner, known := owners[c.ServiceAccount]
			if !known && !all {
				if owner, err = a.ownerOf(ctx, a.pool, c); err != nil {
					return nil, "", err
				}
				owners[c.ServiceAccount] = owner
			}
			if all || authz.Check(caller, authz.CertificateGet, resource(caller.Account, c.ServiceAccount, owner)) == nil {
				certificates = append(certificates, c)
			}
		}
		if len(certificates) >= cursor.Limit || len(rows) < cursor.Limit {
			certificates, next = page.Cut(cursor, certificates[:min(len(certificates), cursor.Limit)], func(c Certificate) string { return c.ID })
			return certificates, next, nil
		}
		after = rows[len(rows)-1].ID
	}
}

// administers reports whether the access might give more than the principal's own certificates.
func administers(access sallyport.Access) bool {
	for _, p := range access.Namespaces {
		if p == sallyport.PermissionAdmin {
			return true
		}
	}
	for _, r := range access.Projects {
		if r.Has(sallyport.ProjectAdmin) {
			return true
		}
	}
	return false
}

// ownerOf reads how the certificate's service account stands. One that has ended
// since has the zero Standing.
func (a *Authority) ownerOf(ctx context.Context, q pg.Querier, c Certificate) (directory.Standing, error) {
	owner, err := a.standing(ctx, q, c.Account, c.owner())
	if errors.Is(err, sallyport.NotFound) {
		return directory.Standing{}, nil
	}
	return owner, err
}

func (c Certificate) owner() sallyport.Principal {
	return sallyport.Principal{Kind: sallyport.ServiceAccount, ID: c.ServiceAccount}
}

// resource is what permission on certificates of the service account is asked
// for: the admins of the project or namespace that it is bound to manage them.
func resource(account sallyport.AccountID, serviceAccount string, s directory.Standing) authz.Resource {
	return authz.Resource{Account: account, Project: s.Project, Namespace: s.Namespace,
		Owner: sallyport.Principal{Kind: sallyport.ServiceAccount, ID: serviceAccount}}
}

// permitted reads a certificate that the caller may do the action to. A caller
// without access to the account is told that there is no such account. A
// certificate may renew itself, whatever its service account may, and no other
// of its service account.
func (a *Authority) permitted(ctx context.Context, q pg.Querier, caller sallyport.Caller, action authz.Action, id string) (Certificate, directory.Standing, error) {
	if err := member(caller); err != nil {
		return Certificate{}, directory.Standing{}, err
	}
	s, err := find(ctx, q, caller.Account, by{id: id})
	if err != nil {
		return Certificate{}, directory.Standing{}, err
	}
	owner, err := a.ownerOf(ctx, q, s.Certificate)
	if err != nil {
		return Certificate{}, directory.Standing{}, err
	}
	if action == authz.CertificateIssue && isSelf(caller, id) {
		action = authz.CertificateRenewSelf
	}
	return s.Certificate, owner, authz.Check(caller, action, resource(caller.Account, s.ServiceAccount, owner))
}

// member tells a caller without access to the account that there is no such
// account, before anything in it is looked for.
func member(caller sallyport.Caller) error {
	return authz.Check(caller, authz.IdentityGet, authz.Resource{Account: caller.Account})
}

// isSelf reports whether the caller came with the certificate.
func isSelf(caller sallyport.Caller, id string) bool {
	return caller.Credential == (sallyport.Credential{Kind: CredentialKind, ID: id})
}

// Issuers lists the account's intermediates, newest first, and gives the trust
// anchors that verify them, PEM, as /pki/roots.pem has them. Everybody in the
// account may read them.
func (a *Authority) Issuers(ctx context.Context, caller sallyport.Caller) (issuers []Issuer, roots []byte, err error) {
	if err := authz.Check(caller, authz.IssuerList, authz.Resource{Account: caller.Account}); err != nil {
		return nil, nil, err
	}
	if issuers, err = a.accountIssuers(ctx, a.pool, caller.Account); err != nil {
		return nil, nil, err
	}
	roots, err = a.publishedRoots(ctx, a.pool)
	return issuers, roots, err
}
