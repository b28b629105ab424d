package directory

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/internal/pg"
)

const grantColumns = `subject, scope, target, role`

func scanGrant(row pgx.CollectableRow) (sallyport.Grant, error) {
	var g sallyport.Grant
	err := row.Scan(&g.Subject, &g.Scope, &g.Target, &g.Role)
	return g, err
}

func directGrants(ctx context.Context, q pg.Querier, account sallyport.AccountID, subject string) ([]sallyport.Grant, error) {
	return queryGrants(ctx, q, `
		select `+grantColumns+`
		from grants
		where account_id = $1 and subject = $2
		order by scope, target`, account, subject)
}

// effectiveGrants reads what the subject and its groups hold.
func effectiveGrants(ctx context.Context, q pg.Querier, account sallyport.AccountID, subject string) ([]sallyport.Grant, error) {
	return queryGrants(ctx, q, `
		select `+grantColumns+`
		from grants
		where account_id = $1
		  and (subject = $2 or subject in (
		      select group_id
		      from memberships
		      where account_id = $1 and user_id = $2))
		order by scope, target, subject`, account, subject)
}

func grantsOnNamespace(ctx context.Context, q pg.Querier, account sallyport.AccountID, id sallyport.NamespaceID) ([]sallyport.Grant, error) {
	return queryGrants(ctx, q, `
		select `+grantColumns+`
		from grants
		where account_id = $1 and scope = 'namespace' and target = $2
		order by subject`, account, id)
}

func allGrants(ctx context.Context, q pg.Querier, account sallyport.AccountID) ([]sallyport.Grant, error) {
	return queryGrants(ctx, q, `
		select `+grantColumns+`
		from grants
		where account_id = $1`, account)
}

func queryGrants(ctx context.Context, q pg.Querier, sql string, args ...any) ([]sallyport.Grant, error) {
	rows, err := q.Query(ctx, sql, args...)
	if err != nil {
		return nil, fmt.Errorf("reading grants: %w", err)
	}
	grants, err := pgx.CollectRows(rows, scanGrant)
	if err != nil {
		return nil, fmt.Errorf("reading grants: %w", err)
	}
	return grants, nil
}

func upsertGrant(ctx context.Context, q pg.Querier, account sallyport.AccountID, g sallyport.Grant) error {
	_, err := q.Exec(ctx, `
		insert into grants (account_id, subject, scope, target, role)
		values ($1, $2, $3, $4, $5)
		on conflict (account_id, subject, scope, target) do update
		set role = excluded.role`, account, g.Subject, g.Scope, g.Target, g.Role)
	if err != nil {
		return fmt.Errorf("granting to %s: %w", g.Subject, err)
	}
	return nil
}

func deleteGrant(ctx context.Context, q pg.Querier, account sallyport.AccountID, g sallyport.Grant) error {
	_, err := q.Exec(ctx, `
		delete from grants
		where account_id = $1 and subject = $2 and scope = $3 and target = $4`, account, g.Subject, g.Scope, g.Target)
	if err != nil {
		return fmt.Errorf("removing a grant of %s: %w", g.Subject, err)
	}
	return nil
}

// accessOf reads the direct access of each subject, namespaces by name.
func accessOf(ctx context.Context, q pg.Querier, account sallyport.AccountID, subjects []string) (map[string]Access, error) {
	rows, err := q.Query(ctx, `
		select g.subject, g.scope, g.target, g.role, coalesce(n.name, '')
		from grants g
		left join namespaces n on n.account_id = g.account_id and n.id = g.target and g.scope = 'namespace'
		where g.account_id = $1 and g.subject = any($2)`, account, subjects)
	if err != nil {
		return nil, fmt.Errorf("reading access: %w", err)
	}
	all := map[string]Access{}
	var g sallyport.Grant
	var name string
	_, err = pgx.ForEachRow(rows, []any{&g.Subject, &g.Scope, &g.Target, &g.Role, &name}, func() error {
		a, ok := all[g.Subject]
		if !ok {
			a = Access{Projects: map[string]sallyport.ProjectRole{}, Namespaces: map[string]sallyport.Permission{}}
		}
		switch g.Scope {
		case sallyport.ScopeAccount:
			a.Role, _ = sallyport.ParseAccountRole(g.Role)
		case sallyport.ScopeProject:
			a.Projects[g.Target], _ = sallyport.ParseProjectRole(g.Role)
		case sallyport.ScopeNamespace:
			a.Namespaces[name], _ = sallyport.ParsePermission(g.Role)
		}
		all[g.Subject] = a
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading access: %w", err)
	}
	return all, nil
}

func readStanding(ctx context.Context, q pg.Querier, account sallyport.AccountID, p sallyport.Principal) (Standing, bool, error) {
	s := Standing{Scope: sallyport.ScopeAccount}
	var err error
	switch p.Kind {
	case sallyport.User:
		err = q.QueryRow(ctx, `
			select a.status, u.status, u.credential_epoch,
			       exists (
			           select
			           from grants g
			           where g.account_id = u.account_id
			             and g.subject = any(array(
			                 select m.group_id
			                 from memberships m
			                 where m.account_id = u.account_id and m.user_id = u.id) || u.id)
			             and g.scope = 'account' and g.role = 'owner')
			from users u
			join accounts a on a.account_id = u.account_id
			where u.account_id = $1 and u.id = $2`, account, p.ID).Scan(&s.Account, &s.Status, &s.Epoch, &s.Owner)
	case sallyport.ServiceAccount:
		err = q.QueryRow(ctx, `
			select a.status, s.status, s.credential_epoch, s.scope,
			       coalesce(p.target, n.project_id, ''), coalesce(n.id, '')
			from service_accounts s
			join accounts a on a.account_id = s.account_id
			left join grants p on p.account_id = s.account_id and p.subject = s.id and p.scope = 'project' and s.scope = 'project'
			left join grants g on g.account_id = s.account_id and g.subject = s.id and g.scope = 'namespace' and s.scope = 'namespace'
			left join namespaces n on n.account_id = s.account_id and n.id = g.target
			where s.account_id = $1 and s.id = $2`, account, p.ID).Scan(&s.Account, &s.Status, &s.Epoch, &s.Scope, &s.Project, &s.Namespace)
	default:
		return s, false, nil
	}
	if errors.Is(err, pgx.ErrNoRows) {
		return s, false, nil
	}
	if err != nil {
		return s, false, fmt.Errorf("reading how %s %s stands: %w", p.Kind, p.ID, err)
	}
	return s, true, nil
}
