package directory

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/internal/pg"
)

const groupColumns = `id, kind, name, email, idp_id, revision, created_at, modified_at`

func scanGroup(row pgx.CollectableRow) (Group, error) {
	var g Group
	err := row.Scan(&g.ID, &g.Kind, &g.Name, &g.Email, &g.IDPID, &g.Revision, &g.Created, &g.Modified)
	return g, err
}

func insertGroup(ctx context.Context, q pg.Querier, account sallyport.AccountID, g Group) error {
	_, err := q.Exec(ctx, `
		insert into user_groups (account_id, `+groupColumns+`)
		values (@account, @id, @kind, @name, @email, @idp_id, @revision, @created, @modified)`,
		pgx.NamedArgs{"account": account, "id": g.ID, "kind": g.Kind, "name": g.Name, "email": g.Email, "idp_id": g.IDPID,
			"revision": g.Revision, "created": g.Created, "modified": g.Modified})
	if err != nil {
		return fmt.Errorf("making the group %s: %w", g.ID, err)
	}
	return nil
}

func updateGroup(ctx context.Context, q pg.Querier, account sallyport.AccountID, id, name string, revision int64, at time.Time) error {
	_, err := q.Exec(ctx, `
		update user_groups
		set name = $3, revision = $4, modified_at = $5
		where account_id = $1 and id = $2`, account, id, name, revision, at)
	if err != nil {
		return fmt.Errorf("changing the group %s: %w", id, err)
	}
	return nil
}

func deleteGroup(ctx context.Context, q pg.Querier, account sallyport.AccountID, id string) error {
	_, err := q.Exec(ctx, `
		delete from user_groups
		where account_id = $1 and id = $2`, account, id)
	if err != nil {
		return fmt.Errorf("deleting the group %s: %w", id, err)
	}
	return nil
}

// groupTaken asks for what the unique indexes of user_groups keep unique.
func groupTaken(ctx context.Context, q pg.Querier, account sallyport.AccountID, g Group) (bool, error) {
	var taken bool
	err := q.QueryRow(ctx, `
		select exists (
		    select
		    from user_groups
		    where account_id = @account
		      and kind = @kind
		      and id <> @id
		      and (kind = 'cloud' and name = @name
		        or kind = 'google' and lower(email) = lower(@email)
		        or kind = 'scim' and idp_id = @idp_id))`,
		pgx.NamedArgs{"account": account, "kind": g.Kind, "id": g.ID, "name": g.Name, "email": g.Email, "idp_id": g.IDPID}).Scan(&taken)
	if err != nil {
		return false, reading("groups", err)
	}
	return taken, nil
}

func readGroup(ctx context.Context, q pg.Querier, account sallyport.AccountID, id string) (Group, error) {
	groups, err := queryGroups(ctx, q, account, `
		select `+groupColumns+`
		from user_groups
		where account_id = $1 and id = $2`, account, id)
	if err != nil {
		return Group{}, err
	}
	if len(groups) == 0 {
		return Group{}, notThere("group", id)
	}
	return groups[0], nil
}

// readGroups reads a page; in narrows it to those that reach the namespace.
func readGroups(ctx context.Context, q pg.Querier, account sallyport.AccountID, f GroupFilter, in *Namespace, afterName, afterID string, limit int) ([]Group, error) {
	reach, args := reachable(account, in)
	args["after_name"], args["after_id"], args["limit"] = afterName, afterID, limit
	args["name"], args["email"], args["idp_id"] = f.Name, f.Email, f.IDPID
	return queryGroups(ctx, q, account, `
		`+reach+`
		select `+groupColumns+`
		from user_groups
		where account_id = @account
		  and (name, id) > (@after_name, @after_id)
		  and (@name = '' or name = @name)
		  and (@email = '' or kind = 'google' and lower(email) = lower(@email))
		  and (@idp_id = '' or kind = 'scim' and idp_id = @idp_id)
		  and (@everyone or id in (select id from reach))
		order by name, id
		limit @limit`, args)
}

func queryGroups(ctx context.Context, q pg.Querier, account sallyport.AccountID, sql string, args ...any) ([]Group, error) {
	rows, err := q.Query(ctx, sql, args...)
	if err != nil {
		return nil, reading("groups", err)
	}
	groups, err := pgx.CollectRows(rows, scanGroup)
	if err != nil {
		return nil, reading("groups", err)
	}
	ids := make([]string, len(groups))
	for i, g := range groups {
		ids[i] = g.ID
	}
	access, err := accessOf(ctx, q, account, ids)
	if err != nil {
		return nil, err
	}
	for i, g := range groups {
		groups[i].Access = access[g.ID]
	}
	return groups, nil
}

// insertMember reports whether the user was not in the group before.
func insertMember(ctx context.Context, q pg.Querier, account sallyport.AccountID, group, user string, at time.Time) (bool, error) {
	tag, err := q.Exec(ctx, `
		insert into memberships (account_id, group_id, user_id, created_at)
		values ($1, $2, $3, $4)
		on conflict do nothing`, account, group, user, at)
	if err != nil {
		return false, fmt.Errorf("adding a member to the group %s: %w", group, err)
	}
	return tag.RowsAffected() == 1, nil
}

func deleteMember(ctx context.Context, q pg.Querier, account sallyport.AccountID, group, user string) error {
	_, err := q.Exec(ctx, `
		delete from memberships
		where account_id = $1 and group_id = $2 and user_id = $3`, account, group, user)
	if err != nil {
		return fmt.Errorf("removing a member of the group %s: %w", group, err)
	}
	return nil
}

func isMember(ctx context.Context, q pg.Querier, account sallyport.AccountID, group, user string) (bool, error) {
	var found bool
	err := q.QueryRow(ctx, `
		select true
		from memberships
		where account_id = $1 and group_id = $2 and user_id = $3`, account, group, user).Scan(&found)
	if errors.Is(err, pgx.ErrNoRows) {
		return false, nil
	}
	if err != nil {
		return false, reading("a membership", err)
	}
	return found, nil
}

func readMembers(ctx context.Context, q pg.Querier, account sallyport.AccountID, group, after string, limit int) ([]Member, error) {
	rows, err := q.Query(ctx, `
		select user_id, created_at
		from memberships
		where account_id = $1 and group_id = $2 and user_id > $3
		order by user_id
		limit $4`, account, group, after, limit)
	if err != nil {
		return nil, reading("members", err)
	}
	members, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Member, error) {
		var m Member
		err := row.Scan(&m.User, &m.Created)
		return m, err
	})
	if err != nil {
		return nil, reading("members", err)
	}
	return members, nil
}

func groupsOf(ctx context.Context, q pg.Querier, account sallyport.AccountID, user string) ([]string, error) {
	rows, err := q.Query(ctx, `
		select group_id
		from memberships
		where account_id = $1 and user_id = $2
		order by group_id`, account, user)
	if err != nil {
		return nil, reading("a user's groups", err)
	}
	groups, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, reading("a user's groups", err)
	}
	return groups, nil
}
