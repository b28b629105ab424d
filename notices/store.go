package notices

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sallyport-iam/sallyport/internal/pg"
)

// lockNamespace orders what is told of a namespace, over all copies of the
// service, until the transaction ends.
func lockNamespace(ctx context.Context, q pg.Querier, t topic) error {
	_, err := q.Exec(ctx, `select pg_advisory_xact_lock(hashtextextended($1, 0))`, "notices/"+string(t.account)+"/"+string(t.namespace))
	if err != nil {
		return fmt.Errorf("locking a namespace's notices: %w", err)
	}
	return nil
}

// lastTold is when people were last told of something of the kind in the
// namespace, the zero time if never.
func lastTold(ctx context.Context, q pg.Querier, t topic) (time.Time, error) {
	var last *time.Time
	err := q.QueryRow(ctx, `
		select max(told_at)
		from notices
		where account_id = $1 and namespace_id = $2 and kind = $3`, t.account, t.namespace, t.kind).Scan(&last)
	if err != nil {
		return time.Time{}, fmt.Errorf("reading the last notice: %w", err)
	}
	if last == nil {
		return time.Time{}, nil
	}
	return *last, nil
}

// remember keeps that people are told of the certificates, and gives the
// fingerprints of those that they were not told of before.
func remember(ctx context.Context, q pg.Querier, t topic, list []Expiring, now time.Time) (map[string]bool, error) {
	fingerprints, ends := make([]string, len(list)), make([]time.Time, len(list))
	for i, e := range list {
		fingerprints[i], ends[i] = e.Fingerprint, e.NotAfter
	}
	rows, err := q.Query(ctx, `
		insert into notices (account_id, namespace_id, kind, fingerprint, days, not_after, told_at)
		select @account, @namespace, @kind, fingerprint, @days, not_after, @now
		from unnest(@fingerprints::text[], @ends::timestamptz[]) as t (fingerprint, not_after)
		on conflict do nothing
		returning fingerprint`,
		pgx.NamedArgs{"account": t.account, "namespace": t.namespace, "kind": t.kind, "days": t.days, "now": now,
			"fingerprints": fingerprints, "ends": ends})
	if err != nil {
		return nil, fmt.Errorf("keeping notices: %w", err)
	}
	fresh := map[string]bool{}
	var fingerprint string
	if _, err := pgx.ForEachRow(rows, []any{&fingerprint}, func() error { fresh[fingerprint] = true; return nil }); err != nil {
		return nil, fmt.Errorf("keeping notices: %w", err)
	}
	return fresh, nil
}

// forget deletes what was told of certificates that ended before the time.
func forget(ctx context.Context, q pg.Querier, before time.Time) error {
	if _, err := q.Exec(ctx, `delete from notices where not_after < $1`, before); err != nil {
		return fmt.Errorf("forgetting notices: %w", err)
	}
	return nil
}
