package directory

import (
	"cmp"
	"context"
	"slices"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/internal/pg"
)

// Objects rebuilds, from the tables, what authorizers must know of the account
// from this package, ordered by kind and id. It is what the journal holds.
func (d *Directory) Objects(ctx context.Context, q pg.Querier, account sallyport.AccountID) ([]object.Object, error) {
	var all []object.Object
	add := func(kind object.Kind, id string, data []byte) {
		all = append(all, object.Object{Kind: kind, ID: id, Data: data})
	}
	a, err := readAccount(ctx, q, account)
	if err != nil {
		return nil, err
	}
	add(object.KindAccount, string(a.ID), object.Encode(object.Account{Status: a.Status}))
	principals, err := allPrincipals(ctx, q, account)
	if err != nil {
		return nil, err
	}
	for id, p := range principals {
		add(object.KindPrincipal, id, object.Encode(p))
	}
	groups, err := allGroups(ctx, q, account)
	if err != nil {
		return nil, err
	}
	for _, id := range groups {
		add(object.KindGroup, id, object.Encode(object.Group{}))
	}
	memberships, err := allMemberships(ctx, q, account)
	if err != nil {
		return nil, err
	}
	for _, m := range memberships {
		add(object.KindMembership, object.MembershipID(m.Group, m.User), object.Encode(m))
	}
	grants, err := allGrants(ctx, q, account)
	if err != nil {
		return nil, err
	}
	for _, g := range grants {
		add(object.KindGrant, object.GrantID(g.Subject, g.Scope, g.Target), object.Encode(grantObject(g)))
	}
	namespaces, err := allNamespaces(ctx, q, account)
	if err != nil {
		return nil, err
	}
	for _, n := range namespaces {
		add(object.KindNamespace, string(n.ID), object.Encode(n.object()))
	}
	slices.SortFunc(all, func(a, b object.Object) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.ID, b.ID))
	})
	return all, nil
}

// AccountsInCell lists the accounts that have a namespace in the cell.
func (d *Directory) AccountsInCell(ctx context.Context, cell string) ([]sallyport.AccountID, error) {
	return accountsInCell(ctx, d.pool, cell)
}

// CellsOf lists, for each account that has any, the cells its namespaces are in.
func (d *Directory) CellsOf(ctx context.Context, accounts []sallyport.AccountID) (map[sallyport.AccountID][]string, error) {
	return cellsOf(ctx, d.pool, accounts)
}
