package directory

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/internal/pg"
)

func insertAccount(ctx context.Context, q pg.Querier, id sallyport.AccountID, name string, revision int64, at time.Time) error {
	_, err := q.Exec(ctx, `
		insert into accounts (account_id, name, status, revision, created_at, modified_at)
		values ($1, $2, $3, $4, $5, $5)`, id, name, object.Active, revision, at)
	if pg.Violates(err) == "accounts_pkey" {
		return sallyport.AlreadyExists.Errorf("the account %s exists; choose another id or leave it out", id)
	}
	if err != nil {
		return fmt.Errorf("making the account %s: %w", id, err)
	}
	return nil
}

func readAccount(ctx context.Context, q pg.Querier, id sallyport.AccountID) (Account, error) {
	var a Account
	err := q.QueryRow(ctx, `
		select a.account_id, a.name, a.status, a.revision, a.created_at, a.modified_at, coalesce(p.id, '')
		from accounts a
		left join projects p on p.account_id = a.account_id and p.is_default
		where a.account_id = $1`, id).Scan(&a.ID, &a.Name, &a.Status, &a.Revision, &a.Created, &a.Modified, &a.DefaultProject)
	if errors.Is(err, pgx.ErrNoRows) {
		return a, sallyport.NotFound.Errorf("there is no such account")
	}
	if err != nil {
		return a, reading("the account", err)
	}
	return a, nil
}

func updateAccountStatus(ctx context.Context, q pg.Querier, id sallyport.AccountID, status object.Status, revision int64, at time.Time) error {
	_, err := q.Exec(ctx, `
		update accounts
		set status = $2, revision = $3, modified_at = $4
		where account_id = $1`, id, status, revision, at)
	if err != nil {
		return fmt.Errorf("setting the account's status: %w", err)
	}
	return nil
}

const projectColumns = `id, name, is_default, revision, created_at, modified_at`

func scanProject(row pgx.CollectableRow) (Project, error) {
	var p Project
	err := row.Scan(&p.ID, &p.Name, &p.Default, &p.Revision, &p.Created, &p.Modified)
	return p, err
}

func insertProject(ctx context.Context, q pg.Querier, account sallyport.AccountID, p Project) error {
	_, err := q.Exec(ctx, `
		insert into projects (account_id, `+projectColumns+`)
		values (@account, @id, @name, @default, @revision, @created, @modified)`,
		pgx.NamedArgs{"account": account, "id": p.ID, "name": p.Name, "default": p.Default,
			"revision": p.Revision, "created": p.Created, "modified": p.Modified})
	if err != nil {
		return fmt.Errorf("making the project %s: %w", p.Name, err)
	}
	return nil
}

func readProject(ctx context.Context, q pg.Querier, account sallyport.AccountID, id string) (Project, bool, error) {
	rows, err := q.Query(ctx, `
		select `+projectColumns+`
		from projects
		where account_id = $1 and id = $2`, account, id)
	if err != nil {
		return Project{}, false, reading("a project", err)
	}
	p, err := pgx.CollectOneRow(rows, scanProject)
	if errors.Is(err, pgx.ErrNoRows) {
		return p, false, nil
	}
	if err != nil {
		return p, false, reading("a project", err)
	}
	return p, true, nil
}

func readProjects(ctx context.Context, q pg.Querier, account sallyport.AccountID, after string, limit int) ([]Project, error) {
	rows, err := q.Query(ctx, `
		select `+projectColumns+`
		from projects
		where account_id = $1 and id > $2
		order by id
		limit $3`, account, after, limit)
	if err != nil {
		return nil, reading("projects", err)
	}
	projects, err := pgx.CollectRows(rows, scanProject)
	if err != nil {
		return nil, reading("projects", err)
	}
	return projects, nil
}
