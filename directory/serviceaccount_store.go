package directory

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/internal/pg"
)

const serviceAccountColumns = `id, name, description, status, scope, credential_epoch, revision, created_at, modified_at`

func scanServiceAccount(row pgx.CollectableRow) (ServiceAccount, error) {
	var s ServiceAccount
	err := row.Scan(&s.ID, &s.Name, &s.Description, &s.Status, &s.Scope, &s.Epoch, &s.Revision, &s.Created, &s.Modified)
	return s, err
}

func insertServiceAccount(ctx context.Context, q pg.Querier, account sallyport.AccountID, s ServiceAccount) error {
	_, err := q.Exec(ctx, `
		insert into service_accounts (account_id, `+serviceAccountColumns+`)
		values (@account, @id, @name, @description, @status, @scope, @epoch, @revision, @created, @modified)`,
		pgx.NamedArgs{"account": account, "id": s.ID, "name": s.Name, "description": s.Description, "status": s.Status,
			"scope": s.Scope, "epoch": s.Epoch, "revision": s.Revision, "created": s.Created, "modified": s.Modified})
	if err != nil {
		return fmt.Errorf("making the service account %s: %w", s.ID, err)
	}
	return nil
}

func updateServiceAccount(ctx context.Context, q pg.Querier, account sallyport.AccountID, s ServiceAccount) error {
	_, err := q.Exec(ctx, `
		update service_accounts
		set name = @name, description = @description, status = @status, revision = @revision, modified_at = @modified
		where account_id = @account and id = @id`,
		pgx.NamedArgs{"account": account, "id": s.ID, "name": s.Name, "description": s.Description, "status": s.Status,
			"revision": s.Revision, "modified": s.Modified})
	if err != nil {
		return fmt.Errorf("changing the service account %s: %w", s.ID, err)
	}
	return nil
}

func deleteServiceAccount(ctx context.Context, q pg.Querier, account sallyport.AccountID, id string) error {
	_, err := q.Exec(ctx, `
		delete from service_accounts
		where account_id = $1 and id = $2`, account, id)
	if err != nil {
		return fmt.Errorf("deleting the service account %s: %w", id, err)
	}
	return nil
}

func serviceAccountNameTaken(ctx context.Context, q pg.Querier, account sallyport.AccountID, name, except string) (bool, error) {
	var taken bool
	err := q.QueryRow(ctx, `
		select exists (
		    select
		    from service_accounts
		    where account_id = $1 and name = $2 and id <> $3)`, account, name, except).Scan(&taken)
	if err != nil {
		return false, reading("service accounts", err)
	}
	return taken, nil
}

func readServiceAccount(ctx context.Context, q pg.Querier, account sallyport.AccountID, id string) (ServiceAccount, error) {
	rows, err := queryServiceAccounts(ctx, q, account, `
		select `+serviceAccountColumns+`
		from service_accounts
		where account_id = $1 and id = $2`, account, id)
	if err != nil {
		return ServiceAccount{}, err
	}
	if len(rows) == 0 {
		return ServiceAccount{}, notThere("service account", id)
	}
	return rows[0], nil
}

func readServiceAccounts(ctx context.Context, q pg.Querier, account sallyport.AccountID, after string, limit int) ([]ServiceAccount, error) {
	return queryServiceAccounts(ctx, q, account, `
		select `+serviceAccountColumns+`
		from service_accounts
		where account_id = $1 and id > $2
		order by id
		limit $3`, account, after, limit)
}

// serviceAccountsOf reads those that are scoped to the namespace.
func serviceAccountsOf(ctx context.Context, q pg.Querier, account sallyport.AccountID, namespace sallyport.NamespaceID) ([]ServiceAccount, error) {
	return queryServiceAccounts(ctx, q, account, `
		select `+serviceAccountColumns+`
		from service_accounts
		where account_id = $1
		  and scope = 'namespace'
		  and id in (
		      select subject
		      from grants
		      where account_id = $1 and scope = 'namespace' and target = $2)
		order by id`, account, namespace)
}

func queryServiceAccounts(ctx context.Context, q pg.Querier, account sallyport.AccountID, sql string, args ...any) ([]ServiceAccount, error) {
	rows, err := q.Query(ctx, sql, args...)
	if err != nil {
		return nil, reading("service accounts", err)
	}
	all, err := pgx.CollectRows(rows, scanServiceAccount)
	if err != nil {
		return nil, reading("service accounts", err)
	}
	ids := make([]string, len(all))
	for i, s := range all {
		ids[i] = s.ID
	}
	access, err := accessOf(ctx, q, account, ids)
	if err != nil {
		return nil, err
	}
	for i, s := range all {
		all[i].Access = access[s.ID]
	}
	return all, nil
}
