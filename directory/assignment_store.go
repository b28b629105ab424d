package directory

import (
	"context"

	"github.com/jackc/pgx/v5"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/internal/pg"
)

// reachable gives a WITH clause whose table reach(id, direct, permission) has
// every user, service account and group with access to the namespace @namespace
// of the project @project, once for each way of having it, and the arguments of
// a query that uses it. Without a namespace @everyone is true and reach empty.
func reachable(account sallyport.AccountID, in *Namespace) (string, pgx.NamedArgs) {
	args := pgx.NamedArgs{"account": account, "everyone": in == nil, "namespace": "", "project": ""}
	if in != nil {
		args["namespace"], args["project"] = in.ID, in.Project
	}
	return `with held as (
		    select subject, scope, case role when 'owner' then 3 when 'admin' then 3 when 'write' then 2 else 1 end as permission
		    from grants
		    where account_id = @account
		      and @namespace <> ''
		      and (scope = 'namespace' and target = @namespace
		        or scope = 'project' and target = @project and role in ('admin', 'write', 'read')
		        or scope = 'account' and role in ('owner', 'admin'))
		), reach as (
		    select subject as id, scope = 'namespace' as direct, permission
		    from held
		    union all
		    select m.user_id, false, h.permission
		    from held h
		    join memberships m on m.account_id = @account and m.group_id = h.subject
		)`, args
}

func readAssignments(ctx context.Context, q pg.Querier, account sallyport.AccountID, kind AssignmentKind, n Namespace, after string, limit int) ([]Assignment, error) {
	var table, name string
	switch kind {
	case UserAssignments:
		table, name = "users", "email"
	case ServiceAccountAssignments:
		table, name = "service_accounts", "name"
	case GroupAssignments:
		table, name = "user_groups", "name"
	}
	reach, args := reachable(account, &n)
	args["after"], args["limit"] = after, limit
	rows, err := q.Query(ctx, `
		`+reach+`
		select t.id, t.`+name+`,
		       coalesce(max(r.permission) filter (where r.direct), 0),
		       coalesce(max(r.permission) filter (where not r.direct), 0),
		       t.revision
		from `+table+` t
		join reach r on r.id = t.id
		where t.account_id = @account and t.id > @after
		group by t.id, t.`+name+`, t.revision
		order by t.id
		limit @limit`, args)
	if err != nil {
		return nil, reading("assignments", err)
	}
	assignments, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Assignment, error) {
		var a Assignment
		err := row.Scan(&a.ID, &a.Name, &a.Direct, &a.Inherited, &a.Revision)
		return a, err
	})
	if err != nil {
		return nil, reading("assignments", err)
	}
	return assignments, nil
}
