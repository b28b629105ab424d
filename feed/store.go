package feed

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/internal/pg"
	"github.com/sallyport-iam/sallyport/journal"
)

// listen calls notify for each notification until the connection breaks. The
// connection is its own.
func listen(ctx context.Context, pool *pgxpool.Pool, notify func()) error {
	pooled, err := pool.Acquire(ctx)
	if err != nil {
		return err
	}
	conn := pooled.Hijack()
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }() // it is broken, or not needed any more
	if _, err := conn.Exec(ctx, "listen "+journal.Channel); err != nil {
		return err
	}
	for {
		if _, err := conn.WaitForNotification(ctx); err != nil {
			return err
		}
		notify()
	}
}

// upsertAuthorizer registers the instance; known is false if it is another
// principal's.
func upsertAuthorizer(ctx context.Context, q pg.Querier, a authorizer, lease time.Duration) (known bool, err error) {
	tag, err := q.Exec(ctx, `
		insert into feed_authorizers (instance, principal_id, cells, version, registered_at, previous, connected_at, lease_until, fresh_at, max_staleness_ms)
		values (@instance, @principal, @cells, @version, clock_timestamp(), @previous, clock_timestamp(), clock_timestamp() + @lease, clock_timestamp(), @staleness)
		on conflict (instance) do update
		set cells = excluded.cells, version = excluded.version, connected_at = excluded.connected_at,
		    lease_until = excluded.lease_until, max_staleness_ms = excluded.max_staleness_ms
		where feed_authorizers.principal_id = excluded.principal_id`,
		pgx.NamedArgs{"instance": a.instance, "principal": a.principal, "cells": a.cells, "version": a.version,
			"previous": a.previous, "lease": lease, "staleness": a.maxStaleness.Milliseconds()})
	if err != nil {
		return false, fmt.Errorf("registering an authorizer: %w", err)
	}
	return tag.RowsAffected() == 1, nil
}

// extendLeases extends the leases and notes how fresh the instances are. It
// gives those that are registered.
func extendLeases(ctx context.Context, q pg.Querier, leases map[string]lease, by time.Duration) ([]string, error) {
	var instances []string
	var fresh []*time.Time
	for instance, l := range leases {
		instances = append(instances, instance)
		if l.freshAt.IsZero() {
			fresh = append(fresh, nil)
		} else {
			fresh = append(fresh, &l.freshAt)
		}
	}
	rows, err := q.Query(ctx, `
		update feed_authorizers
		set lease_until = clock_timestamp() + $3, fresh_at = greatest(feed_authorizers.fresh_at, news.fresh_at)
		from unnest($1::text[], $2::timestamptz[]) as news (instance, fresh_at)
		where feed_authorizers.instance = news.instance
		returning feed_authorizers.instance`, instances, fresh, by)
	if err != nil {
		return nil, fmt.Errorf("extending leases: %w", err)
	}
	registered, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("extending leases: %w", err)
	}
	return registered, nil
}

// insertAcks keeps acknowledgements, dating them back by how long ago they
// came, and gives the time that each took from the commit. What is acknowledged
// must be in the journal: an acknowledgement may outlive a fail-over that lost
// its commit, and says nothing of another one with the same revision.
func insertAcks(ctx context.Context, q pg.Querier, acks map[ackKey]gathered, now time.Time) ([]time.Duration, error) {
	n := len(acks)
	accounts, instances := make([]string, 0, n), make([]string, 0, n)
	revisions, hashes := make([]int64, 0, n), make([][]byte, 0, n)
	dropped, diverged, ago := make([]bool, 0, n), make([]bool, 0, n), make([]time.Duration, 0, n)
	for key, g := range acks {
		accounts, instances = append(accounts, string(key.account)), append(instances, key.instance)
		revisions, hashes = append(revisions, g.head.Revision), append(hashes, g.head.Hash[:])
		dropped, diverged, ago = append(dropped, g.dropped), append(diverged, g.diverged), append(ago, now.Sub(g.at))
	}
	rows, err := q.Query(ctx, `
		with kept as (
			insert into feed_acks as old (account_id, instance, revision, hash, dropped, diverged, acked_at)
			select account_id, instance, revision, hash, dropped, diverged, clock_timestamp() - ago
			from unnest(@accounts::text[], @instances::text[], @revisions::bigint[], @hashes::bytea[], @dropped::bool[], @diverged::bool[], @ago::interval[])
				as news (account_id, instance, revision, hash, dropped, diverged, ago)
				join entries using (account_id, revision, hash)
			on conflict (account_id, instance, revision) do update
			set dropped = excluded.dropped, diverged = excluded.diverged, hash = excluded.hash,
				acked_at = case when old.hash = excluded.hash and old.diverged = excluded.diverged then old.acked_at else excluded.acked_at end
			returning account_id, revision, acked_at)
		select greatest(kept.acked_at - entries.at, interval '0')
		from kept join entries using (account_id, revision)`,
		pgx.NamedArgs{"accounts": accounts, "instances": instances, "revisions": revisions, "hashes": hashes, "dropped": dropped, "diverged": diverged, "ago": ago})
	if err != nil {
		return nil, fmt.Errorf("keeping acknowledgements: %w", err)
	}
	lags, err := pgx.CollectRows(rows, pgx.RowTo[time.Duration])
	if err != nil {
		return nil, fmt.Errorf("keeping acknowledgements: %w", err)
	}
	return lags, nil
}

// prune deletes acknowledgements older than that, but each instance's newest of
// each account, and instances that cannot have served anything for so long.
func prune(ctx context.Context, q pg.Querier, keep time.Duration) error {
	_, err := q.Exec(ctx, `
		with gone as (
			delete from feed_authorizers
			where greatest(lease_until, fresh_at + max_staleness_ms * interval '1 ms') < clock_timestamp() - $1::interval
			returning instance)
		delete from feed_acks a
		where a.instance in (select instance from gone)
			or a.acked_at < clock_timestamp() - $1::interval
			and exists (
				select 1 from feed_acks newer
				where newer.account_id = a.account_id and newer.instance = a.instance and newer.revision > a.revision)`, keep)
	if err != nil {
		return fmt.Errorf("deleting old acknowledgements: %w", err)
	}
	return nil
}

// readStandings reads all instances with what they said of the account. An
// acknowledgement of a later revision covers the one asked for, and its freshest
// moment may not have been written. An instance whose
// disk copy another one took over has ended, unless it was heard of since: then
// the copy is a copy.
func readStandings(ctx context.Context, q pg.Querier, account sallyport.AccountID, revision int64) ([]standing, error) {
	rows, err := q.Query(ctx, `
		select z.instance, z.principal_id, z.cells, z.lease_until > clock_timestamp(),
			z.fresh_at + z.max_staleness_ms * interval '1 ms' + $4, clock_timestamp(),
			(select acked_at from feed_acks join entries using (account_id, revision, hash)
			where account_id = $1 and instance = z.instance and revision >= $2 and not diverged
			order by revision limit 1),
			newest.holds, coalesce(newest.diverged, false)
		from feed_authorizers z
			left join lateral (
				select not dropped as holds, diverged from feed_acks
				where account_id = $1 and instance = z.instance
				order by acked_at desc, revision desc limit 1) newest on true
		where not exists (
			select 1 from feed_authorizers successor
			where z.instance = any(successor.previous) and z.principal_id = successor.principal_id
				and z.lease_until <= successor.registered_at + $3)
		order by z.principal_id, z.instance`, account, revision, leaseFor+lateLeases, lateLeases)
	if err != nil {
		return nil, fmt.Errorf("reading acknowledgements: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (standing, error) {
		var s standing
		err := row.Scan(&s.instance, &s.principal, &s.cells, &s.live, &s.mayServeUntil, &s.now, &s.enforcedAt, &s.holds, &s.diverged)
		return s, err
	})
	if err != nil {
		return nil, fmt.Errorf("reading acknowledgements: %w", err)
	}
	return list, nil
}

func setCells(ctx context.Context, q pg.Querier, instance string, cells []string) error {
	_, err := q.Exec(ctx, `
		update feed_authorizers
		set cells = $2
		where instance = $1`, instance, cells)
	if err != nil {
		return fmt.Errorf("noting an authorizer's cells: %w", err)
	}
	return nil
}
