package directory

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/internal/pg"
)

func allPrincipals(ctx context.Context, q pg.Querier, account sallyport.AccountID) (map[string]object.Principal, error) {
	rows, err := q.Query(ctx, `
		select id, $2, status, credential_epoch
		from users
		where account_id = $1
		union all
		select id, $3, status, credential_epoch
		from service_accounts
		where account_id = $1`, account, string(sallyport.User), string(sallyport.ServiceAccount))
	if err != nil {
		return nil, reading("principals", err)
	}
	all := map[string]object.Principal{}
	var id string
	var p object.Principal
	if _, err := pgx.ForEachRow(rows, []any{&id, &p.Kind, &p.Status, &p.Epoch}, func() error { all[id] = p; return nil }); err != nil {
		return nil, reading("principals", err)
	}
	return all, nil
}

func allGroups(ctx context.Context, q pg.Querier, account sallyport.AccountID) ([]string, error) {
	rows, err := q.Query(ctx, `
		select id
		from user_groups
		where account_id = $1`, account)
	if err != nil {
		return nil, reading("groups", err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, reading("groups", err)
	}
	return ids, nil
}

func allMemberships(ctx context.Context, q pg.Querier, account sallyport.AccountID) ([]object.Membership, error) {
	rows, err := q.Query(ctx, `
		select group_id, user_id
		from memberships
		where account_id = $1`, account)
	if err != nil {
		return nil, reading("memberships", err)
	}
	all, err := pgx.CollectRows(rows, pgx.RowToStructByPos[object.Membership])
	if err != nil {
		return nil, reading("memberships", err)
	}
	return all, nil
}

func allNamespaces(ctx context.Context, q pg.Querier, account sallyport.AccountID) ([]Namespace, error) {
	rows, err := q.Query(ctx, `
		select `+namespaceColumns+`
		from namespaces
		where account_id = $1 and deleted_at is null
		order by id collate "C"`, account)
	if err != nil {
		return nil, reading("namespaces", err)
	}
	all, err := pgx.CollectRows(rows, scanNamespace)
	if err != nil {
		return nil, reading("namespaces", err)
	}
	return all, nil
}

func accountsInCell(ctx context.Context, q pg.Querier, cell string) ([]sallyport.AccountID, error) {
	rows, err := q.Query(ctx, `
		select distinct account_id
		from namespaces
		where cell = $1 and deleted_at is null
		order by account_id`, cell)
	if err != nil {
		return nil, reading("the accounts of a cell", err)
	}
	accounts, err := pgx.CollectRows(rows, pgx.RowTo[sallyport.AccountID])
	if err != nil {
		return nil, reading("the accounts of a cell", err)
	}
	return accounts, nil
}

func cellsOf(ctx context.Context, q pg.Querier, accounts []sallyport.AccountID) (map[sallyport.AccountID][]string, error) {
	rows, err := q.Query(ctx, `
		select distinct account_id, cell
		from namespaces
		where account_id = any($1) and deleted_at is null
		order by account_id, cell`, accounts)
	if err != nil {
		return nil, reading("the cells of accounts", err)
	}
	cells := map[sallyport.AccountID][]string{}
	var account sallyport.AccountID
	var cell string
	if _, err := pgx.ForEachRow(rows, []any{&account, &cell}, func() error {
		cells[account] = append(cells[account], cell)
		return nil
	}); err != nil {
		return nil, reading("the cells of accounts", err)
	}
	return cells, nil
}
