package directory

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/credential"
	"github.com/sallyport-iam/sallyport/internal/pg"
)

const namespaceColumns = `id, name, project_id, region, cell, retention_days, api_key_auth, mtls_auth, delete_protection, spec,
	client_ca, certificate_filters, revision, created_at, modified_at`

func scanNamespace(row pgx.CollectableRow) (Namespace, error) {
	var n Namespace
	err := row.Scan(&n.ID, &n.Name, &n.Project, &n.Region, &n.Cell, &n.RetentionDays, &n.APIKeyAuth, &n.MTLSAuth,
		&n.DeleteProtection, &n.Spec, &n.ClientCA, &n.CertificateFilters, &n.Revision, &n.Created, &n.Modified)
	if len(n.ClientCA) == 0 {
		n.ClientCA = nil
	}
	if len(n.CertificateFilters) == 0 {
		n.CertificateFilters = nil
	}
	return n, err
}

func (n Namespace) args(account sallyport.AccountID) pgx.NamedArgs {
	spec := n.Spec
	if spec == nil {
		spec = []byte{}
	}
	ca, filters := n.ClientCA, n.CertificateFilters
	if ca == nil {
		ca = []byte{}
	}
	if filters == nil {
		filters = []credential.Filter{}
	}
	return pgx.NamedArgs{"account": account, "id": n.ID, "name": n.Name, "project": n.Project, "region": n.Region, "cell": n.Cell,
		"retention": n.RetentionDays, "api_key": n.APIKeyAuth, "mtls": n.MTLSAuth, "protection": n.DeleteProtection,
		"spec": spec, "client_ca": ca, "filters": filters, "revision": n.Revision, "created": n.Created, "modified": n.Modified}
}

func insertNamespace(ctx context.Context, q pg.Querier, account sallyport.AccountID, n Namespace) error {
	_, err := q.Exec(ctx, `
		insert into namespaces (account_id, `+namespaceColumns+`)
		values (@account, @id, @name, @project, @region, @cell, @retention, @api_key, @mtls, @protection, @spec,
			@client_ca, @filters, @revision, @created, @modified)`,
		n.args(account))
	if err != nil {
		return fmt.Errorf("making the namespace %s: %w", n.Name, err)
	}
	return nil
}

func updateNamespace(ctx context.Context, q pg.Querier, account sallyport.AccountID, n Namespace) error {
	_, err := q.Exec(ctx, `
		update namespaces
		set retention_days = @retention, api_key_auth = @api_key, mtls_auth = @mtls, delete_protection = @protection,
		    spec = @spec, client_ca = @client_ca, certificate_filters = @filters, revision = @revision, modified_at = @modified
		where account_id = @account and id = @id`, n.args(account))
	if err != nil {
		return fmt.Errorf("changing the namespace %s: %w", n.Name, err)
	}
	return nil
}

// buryNamespace leaves the row: the id is never used again.
func buryNamespace(ctx context.Context, q pg.Querier, account sallyport.AccountID, id sallyport.NamespaceID, revision int64, at time.Time) error {
	_, err := q.Exec(ctx, `
		update namespaces
		set deleted_at = $4, revision = $3, modified_at = $4, spec = '', client_ca = '', certificate_filters = '[]'
		where account_id = $1 and id = $2`, account, id, revision, at)
	if err != nil {
		return fmt.Errorf("deleting the namespace %s: %w", id, err)
	}
	return nil
}

func findNamespace(ctx context.Context, q pg.Querier, account sallyport.AccountID, name string) (Namespace, bool, error) {
	rows, err := q.Query(ctx, `
		select `+namespaceColumns+`
		from namespaces
		where account_id = $1 and name = $2 and deleted_at is null`, account, name)
	if err != nil {
		return Namespace{}, false, reading("a namespace", err)
	}
	n, err := pgx.CollectOneRow(rows, scanNamespace)
	if errors.Is(err, pgx.ErrNoRows) {
		return n, false, nil
	}
	if err != nil {
		return n, false, reading("a namespace", err)
	}
	return n, true, nil
}

func readNamespaceByID(ctx context.Context, q pg.Querier, account sallyport.AccountID, id string) (Namespace, error) {
	rows, err := q.Query(ctx, `
		select `+namespaceColumns+`
		from namespaces
		where account_id = $1 and id = $2 and deleted_at is null`, account, id)
	if err != nil {
		return Namespace{}, reading("a namespace", err)
	}
	n, err := pgx.CollectOneRow(rows, scanNamespace)
	if errors.Is(err, pgx.ErrNoRows) {
		return n, notThere("namespace", id)
	}
	if err != nil {
		return n, reading("a namespace", err)
	}
	return n, nil
}

func readNamespaces(ctx context.Context, q pg.Querier, account sallyport.AccountID, f NamespaceFilter, after string, limit int) ([]Namespace, error) {
	rows, err := q.Query(ctx, `
		select `+namespaceColumns+`
		from namespaces
		where account_id = @account
		  and deleted_at is null
		  and name > @after
		  and (@name = '' or name = @name)
		  and (@project = '' or project_id = @project)
		order by name
		limit @limit`,
		pgx.NamedArgs{"account": account, "after": after, "name": f.Name, "project": f.Project, "limit": limit})
	if err != nil {
		return nil, reading("namespaces", err)
	}
	namespaces, err := pgx.CollectRows(rows, scanNamespace)
	if err != nil {
		return nil, reading("namespaces", err)
	}
	return namespaces, nil
}

func namespacesByID(ctx context.Context, q pg.Querier, account sallyport.AccountID, ids []sallyport.NamespaceID) (map[sallyport.NamespaceID]Namespace, error) {
	rows, err := q.Query(ctx, `
		select `+namespaceColumns+`
		from namespaces
		where account_id = $1 and id = any($2) and deleted_at is null`, account, ids)
	if err != nil {
		return nil, reading("namespaces", err)
	}
	found, err := pgx.CollectRows(rows, scanNamespace)
	if err != nil {
		return nil, reading("namespaces", err)
	}
	byID := make(map[sallyport.NamespaceID]Namespace, len(found))
	for _, n := range found {
		byID[n.ID] = n
	}
	return byID, nil
}

func countNamespaces(ctx context.Context, q pg.Querier, account sallyport.AccountID) (int, error) {
	var n int
	err := q.QueryRow(ctx, `
		select count(*)
		from namespaces
		where account_id = $1 and deleted_at is null`, account).Scan(&n)
	if err != nil {
		return 0, reading("the number of namespaces", err)
	}
	return n, nil
}

func namespaceIDs(ctx context.Context, q pg.Querier, account sallyport.AccountID, names []string) (map[string]sallyport.NamespaceID, error) {
	ids := map[string]sallyport.NamespaceID{}
	if len(names) == 0 {
		return ids, nil
	}
	rows, err := q.Query(ctx, `
		select id, name
		from namespaces
		where account_id = $1 and name = any($2) and deleted_at is null`, account, names)
	if err != nil {
		return nil, reading("the ids of namespaces", err)
	}
	var id sallyport.NamespaceID
	var name string
	if _, err := pgx.ForEachRow(rows, []any{&id, &name}, func() error { ids[name] = id; return nil }); err != nil {
		return nil, reading("the ids of namespaces", err)
	}
	return ids, nil
}

func namespaceNames(ctx context.Context, q pg.Querier, account sallyport.AccountID, ids []sallyport.NamespaceID) (map[sallyport.NamespaceID]string, error) {
	names := map[sallyport.NamespaceID]string{}
	if len(ids) == 0 {
		return names, nil
	}
	rows, err := q.Query(ctx, `
		select id, name
		from namespaces
		where account_id = $1 and id = any($2)`, account, ids)
	if err != nil {
		return nil, reading("the names of namespaces", err)
	}
	var id sallyport.NamespaceID
	var name string
	if _, err := pgx.ForEachRow(rows, []any{&id, &name}, func() error { names[id] = name; return nil }); err != nil {
		return nil, reading("the names of namespaces", err)
	}
	return names, nil
}

// touchSubjects moves the revision of users, groups and service accounts whose
// access changed through something else.
func touchSubjects(ctx context.Context, q pg.Querier, account sallyport.AccountID, subjects []string, revision int64, at time.Time) error {
	if len(subjects) == 0 {
		return nil
	}
	for _, table := range []string{"users", "user_groups", "service_accounts"} {
		_, err := q.Exec(ctx, `
			update `+table+`
			set revision = $3, modified_at = $4
			where account_id = $1 and id = any($2)`, account, subjects, revision, at)
		if err != nil {
			return fmt.Errorf("moving the revision of %s: %w", table, err)
		}
	}
	return nil
}

// namespacesOutside gives those of the named namespaces that are not in the project.
func namespacesOutside(ctx context.Context, q pg.Querier, account sallyport.AccountID, project string, names []string) ([]string, error) {
	rows, err := q.Query(ctx, `
		select name
		from namespaces
		where account_id = $1 and name = any($2) and deleted_at is null and project_id <> $3
		order by name`, account, names, project)
	if err != nil {
		return nil, reading("namespaces", err)
	}
	outside, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, reading("namespaces", err)
	}
	return outside, nil
}
