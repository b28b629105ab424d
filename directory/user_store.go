package directory

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/internal/pg"
)

const userColumns = `id, email, status, credential_epoch, invited_at, invitation_expires_at, revision, created_at, modified_at`

func scanUser(row pgx.CollectableRow) (User, error) {
	var u User
	err := row.Scan(&u.ID, &u.Email, &u.Status, &u.Epoch, &u.Invited, &u.InvitationExpires, &u.Revision, &u.Created, &u.Modified)
	return u, err
}

func insertUser(ctx context.Context, q pg.Querier, account sallyport.AccountID, u User) error {
	_, err := q.Exec(ctx, `
		insert into users (account_id, email_key, `+userColumns+`)
		values (@account, @key, @id, @email, @status, @epoch, @invited, @expires, @revision, @created, @modified)`,
		pgx.NamedArgs{"account": account, "key": emailKey(u.Email), "id": u.ID, "email": u.Email, "status": u.Status, "epoch": u.Epoch,
			"invited": u.Invited, "expires": u.InvitationExpires, "revision": u.Revision, "created": u.Created, "modified": u.Modified})
	if err != nil {
		return fmt.Errorf("inviting a user: %w", err)
	}
	return nil
}

func updateUser(ctx context.Context, q pg.Querier, account sallyport.AccountID, id string, status object.Status, epoch, revision int64, at time.Time) error {
	_, err := q.Exec(ctx, `
		update users
		set status = @status, credential_epoch = @epoch, revision = @revision, modified_at = @at
		where account_id = @account and id = @id`,
		pgx.NamedArgs{"account": account, "id": id, "status": status, "epoch": epoch, "revision": revision, "at": at})
	if err != nil {
		return fmt.Errorf("changing user %s: %w", id, err)
	}
	return nil
}

func deleteUser(ctx context.Context, q pg.Querier, account sallyport.AccountID, id string) error {
	_, err := q.Exec(ctx, `
		delete from users
		where account_id = $1 and id = $2`, account, id)
	if err != nil {
		return fmt.Errorf("deleting user %s: %w", id, err)
	}
	return nil
}

func emailTaken(ctx context.Context, q pg.Querier, account sallyport.AccountID, email string) (bool, error) {
	var taken bool
	err := q.QueryRow(ctx, `
		select exists (
		    select
		    from users
		    where account_id = $1 and email_key = $2)`, account, emailKey(email)).Scan(&taken)
	if err != nil {
		return false, reading("users", err)
	}
	return taken, nil
}

func countUsers(ctx context.Context, q pg.Querier, account sallyport.AccountID) (int, error) {
	return count(ctx, q, "users", account)
}

func count(ctx context.Context, q pg.Querier, table string, account sallyport.AccountID) (int, error) {
	var n int
	err := q.QueryRow(ctx, `
		select count(*)
		from `+table+`
		where account_id = $1`, account).Scan(&n)
	if err != nil {
		return 0, reading("the number of "+table, err)
	}
	return n, nil
}

// countOwners counts the active users who hold the role directly.
func countOwners(ctx context.Context, q pg.Querier, account sallyport.AccountID) (int, error) {
	var n int
	err := q.QueryRow(ctx, `
		select count(*)
		from grants g
		join users u on u.account_id = g.account_id and u.id = g.subject
		where g.account_id = $1 and g.scope = 'account' and g.role = 'owner' and u.status = $2`, account, object.Active).Scan(&n)
	if err != nil {
		return 0, reading("the owners", err)
	}
	return n, nil
}

func readUser(ctx context.Context, q pg.Querier, account sallyport.AccountID, id string) (User, error) {
	users, err := queryUsers(ctx, q, account, `
		select `+userColumns+`
		from users
		where account_id = $1 and id = $2`, account, id)
	if err != nil {
		return User{}, err
	}
	if len(users) == 0 {
		return User{}, notThere("user", id)
	}
	return users[0], nil
}

// readUsers reads a page; in narrows it to those who reach the namespace.
func readUsers(ctx context.Context, q pg.Querier, account sallyport.AccountID, email string, in *Namespace, after string, limit int) ([]User, error) {
	reach, args := reachable(account, in)
	args["after"], args["limit"], args["email"] = after, limit, emailKey(email)
	return queryUsers(ctx, q, account, `
		`+reach+`
		select `+userColumns+`
		from users
		where account_id = @account
		  and id > @after
		  and (@email = '' or email_key = @email)
		  and (@everyone or id in (select id from reach))
		order by id
		limit @limit`, args)
}

// queryUsers reads the users first and their access after: what is newer than
// the revision then only makes the client's next change stale.
func queryUsers(ctx context.Context, q pg.Querier, account sallyport.AccountID, sql string, args ...any) ([]User, error) {
	rows, err := q.Query(ctx, sql, args...)
	if err != nil {
		return nil, reading("users", err)
	}
	users, err := pgx.CollectRows(rows, scanUser)
	if err != nil {
		return nil, reading("users", err)
	}
	ids := make([]string, len(users))
	for i, u := range users {
		ids[i] = u.ID
	}
	access, err := accessOf(ctx, q, account, ids)
	if err != nil {
		return nil, err
	}
	for i, u := range users {
		users[i].Access = access[u.ID]
	}
	return users, nil
}
