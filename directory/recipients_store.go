package directory

import (
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/internal/pg"
)

func recipients(ctx context.Context, q pg.Querier, account sallyport.AccountID, namespace sallyport.NamespaceID) ([]Recipient, error) {
	rows, err := q.Query(ctx, `
		with held as (
		    select subject
		    from grants
		    where account_id = @account
		      and (scope = 'account' and role in ('owner', 'admin')
		        or scope = 'namespace' and target = @namespace and role = 'admin'
		        or scope = 'project' and role = 'admin' and target = (
		            select project_id
		            from namespaces
		            where account_id = @account and id = @namespace))
		)
		select id, email
		from users
		where account_id = @account
		  and status = @active
		  and (id in (select subject from held) or id in (
		      select m.user_id
		      from memberships m
		      join held h on h.subject = m.group_id
		      where m.account_id = @account))
		order by id`,
		pgx.NamedArgs{"account": account, "namespace": namespace, "active": object.Active})
	if err != nil {
		return nil, reading("recipients", err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Recipient])
	if err != nil {
		return nil, reading("recipients", err)
	}
	return list, nil
}

func recipient(ctx context.Context, q pg.Querier, account sallyport.AccountID, user string) (Recipient, error) {
	r := Recipient{User: user}
	err := q.QueryRow(ctx, `
		select email
		from users
		where account_id = $1 and id = $2 and status = $3`, account, user, object.Active).Scan(&r.Email)
	if errors.Is(err, pgx.ErrNoRows) {
		return Recipient{}, notThere("user", user)
	}
	if err != nil {
		return Recipient{}, reading("a recipient", err)
	}
	return r, nil
}
