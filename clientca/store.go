package clientca

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/credential"
	"github.com/sallyport-iam/sallyport/directory"
	"github.com/sallyport-iam/sallyport/internal/pg"
	"github.com/sallyport-iam/sallyport/journal"
)

const mapColumns = `filter_id, filter, service_account_id, permission, created_by, created_at`

func (m *storedMap) scan(id *string) []any {
	return []any{id, &m.filter, &m.ServiceAccount, &m.Permission, &m.creator, &m.created}
}

// mapsOf reads a namespace's maps, by the filter's id.
func mapsOf(ctx context.Context, q pg.Querier, account sallyport.AccountID, namespace sallyport.NamespaceID) (map[string]storedMap, error) {
	rows, err := q.Query(ctx, `
		select `+mapColumns+`
		from filter_maps
		where account_id = $1 and namespace_id = $2`, account, namespace)
	if err != nil {
		return nil, fmt.Errorf("reading filter maps: %w", err)
	}
	maps := map[string]storedMap{}
	_, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (struct{}, error) {
		var id string
		var m storedMap
		err := row.Scan(m.scan(&id)...)
		maps[id] = m
		return struct{}{}, err
	})
	if err != nil {
		return nil, fmt.Errorf("reading filter maps: %w", err)
	}
	return maps, nil
}

// allMaps reads the account's maps, by namespace and the filter's id.
func allMaps(ctx context.Context, q pg.Querier, account sallyport.AccountID) (map[sallyport.NamespaceID]map[string]storedMap, error) {
	rows, err := q.Query(ctx, `
		select namespace_id, `+mapColumns+`
		from filter_maps
		where account_id = $1`, account)
	if err != nil {
		return nil, fmt.Errorf("reading filter maps: %w", err)
	}
	all := map[sallyport.NamespaceID]map[string]storedMap{}
	_, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (struct{}, error) {
		var namespace sallyport.NamespaceID
		var id string
		var m storedMap
		err := row.Scan(append([]any{&namespace}, m.scan(&id)...)...)
		if all[namespace] == nil {
			all[namespace] = map[string]storedMap{}
		}
		all[namespace][id] = m
		return struct{}{}, err
	})
	if err != nil {
		return nil, fmt.Errorf("reading filter maps: %w", err)
	}
	return all, nil
}

func upsertMap(ctx context.Context, q pg.Querier, account sallyport.AccountID, namespace sallyport.NamespaceID, m storedMap) error {
	_, err := q.Exec(ctx, `
		insert into filter_maps (account_id, namespace_id, `+mapColumns+`)
		values (@account, @namespace, @id, @filter, @service_account, @permission, @creator, @created)
		on conflict (account_id, namespace_id, filter_id) do update
		set filter = excluded.filter, service_account_id = excluded.service_account_id, permission = excluded.permission,
		    created_by = excluded.created_by, created_at = excluded.created_at`,
		pgx.NamedArgs{"account": account, "namespace": namespace, "id": m.filter.ID(), "filter": m.filter,
			"service_account": m.ServiceAccount, "permission": m.Permission, "creator": m.creator, "created": m.created})
	if err != nil {
		return fmt.Errorf("mapping a filter: %w", err)
	}
	return nil
}

func deleteMap(ctx context.Context, q pg.Querier, account sallyport.AccountID, namespace sallyport.NamespaceID, id string) error {
	_, err := q.Exec(ctx, `
		delete from filter_maps
		where account_id = $1 and namespace_id = $2 and filter_id = $3`, account, namespace, id)
	if err != nil {
		return fmt.Errorf("unmapping a filter: %w", err)
	}
	return nil
}

// replaceCAs keeps what is asked about all bundles.
func replaceCAs(ctx context.Context, tx *journal.Tx, account sallyport.AccountID, n directory.Namespace) error {
	_, err := tx.Exec(ctx, `
		delete from client_cas
		where account_id = $1 and namespace_id = $2`, account, n.ID)
	if err != nil {
		return fmt.Errorf("replacing client CAs: %w", err)
	}
	var fingerprints, subjects []string
	var ends []time.Time
	for _, cert := range certificates(n.ClientCA) {
		fingerprints = append(fingerprints, credential.Fingerprint(cert))
		subjects = append(subjects, text(cert.Subject.String(), maxName))
		ends = append(ends, cert.NotAfter)
	}
	_, err = tx.Exec(ctx, `
		insert into client_cas (account_id, namespace_id, namespace, enabled, fingerprint, subject, not_after)
		select @account, @id, @name, @enabled, ca.*
		from unnest(@fingerprints::text[], @subjects::text[], @ends::timestamptz[]) as ca
		on conflict do nothing`,
		pgx.NamedArgs{"account": account, "id": n.ID, "name": n.Name, "enabled": n.MTLSAuth,
			"fingerprints": fingerprints, "subjects": subjects, "ends": ends})
	if err != nil {
		return fmt.Errorf("replacing client CAs: %w", err)
	}
	return nil
}

// forgetNamespace removes all that is kept of a namespace. The rows of seen
// certificates are locked in the order in which they are written.
func forgetNamespace(ctx context.Context, q pg.Querier, account sallyport.AccountID, namespace sallyport.NamespaceID) error {
	for _, statement := range []string{
		`delete from filter_maps
		where account_id = $1 and namespace_id = $2`,
		`delete from client_cas
		where account_id = $1 and namespace_id = $2`,
		`select from seen_certificates
		where account_id = $1 and namespace_id = $2
		order by fingerprint
		for update`,
		`delete from seen_certificates
		where account_id = $1 and namespace_id = $2`,
	} {
		if _, err := q.Exec(ctx, statement, account, namespace); err != nil {
			return fmt.Errorf("forgetting the client CAs of a namespace: %w", err)
		}
	}
	return nil
}

// expiringCAs counts the CAs of namespaces with mTLS on that end before, by the
// days they have left: each counts at the last of days that it has reached, 0
// once it has expired.
func expiringCAs(ctx context.Context, q pg.Querier, now time.Time) (map[int]int, error) {
	rows, err := q.Query(ctx, `
		select case when not_after < $1 then 0
		            when not_after < $1 + interval '5 days' then 5
		            when not_after < $1 + interval '10 days' then 10
		            else 15 end as days, count(*)
		from client_cas
		where enabled and not_after < $1 + interval '15 days'
		group by days`, now)
	if err != nil {
		return nil, fmt.Errorf("counting expiring client CAs: %w", err)
	}
	counts := map[int]int{}
	var days, count int
	if _, err := pgx.ForEachRow(rows, []any{&days, &count}, func() error { counts[days] = count; return nil }); err != nil {
		return nil, fmt.Errorf("counting expiring client CAs: %w", err)
	}
	return counts, nil
}

func casThatExpire(ctx context.Context, q pg.Querier, now time.Time) ([]Expiring, error) {
	rows, err := q.Query(ctx, `
		select account_id, namespace_id, namespace, fingerprint, subject, not_after
		from client_cas
		where enabled and not_after > $1 and not_after <= $1 + interval '15 days'
		order by account_id, namespace_id, fingerprint`, now)
	if err != nil {
		return nil, fmt.Errorf("reading expiring client CAs: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Expiring, error) {
		e := Expiring{Kind: KindCA}
		err := row.Scan(&e.Account, &e.Namespace, &e.Name, &e.Fingerprint, &e.Subject, &e.NotAfter)
		e.NotAfter = e.NotAfter.UTC()
		return e, err
	})
	if err != nil {
		return nil, fmt.Errorf("reading expiring client CAs: %w", err)
	}
	return list, nil
}
