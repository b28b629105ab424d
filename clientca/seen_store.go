package clientca

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/internal/pg"
)

const seenColumns = `fingerprint, subject, issuer, serial, not_before, not_after, first_seen_at, last_seen_at,
	case when refused = '' then coalesce(cas[1], '') else '' end, refused, managed`

func (s *Seen) scan() []any {
	return []any{&s.Fingerprint, &s.Subject, &s.Issuer, &s.Serial, &s.NotBefore, &s.NotAfter, &s.First, &s.Last, &s.CA, &s.Refused, &s.Managed}
}

func (s *Seen) inUTC() {
	for _, t := range []*time.Time{&s.NotBefore, &s.NotAfter, &s.First, &s.Last} {
		*t = t.UTC()
	}
}

func scanSeen(row pgx.CollectableRow) (Seen, error) {
	var s Seen
	err := row.Scan(s.scan()...)
	s.inUTC()
	return s, err
}

func listSeen(ctx context.Context, q pg.Querier, account sallyport.AccountID, namespace sallyport.NamespaceID, since time.Time, after string, limit int) ([]Seen, error) {
	rows, err := q.Query(ctx, `
		select `+seenColumns+`
		from seen_certificates
		where account_id = @account
		  and namespace_id = @namespace
		  and fingerprint > @after
		  and last_seen_at >= @since
		order by fingerprint
		limit @limit`,
		pgx.NamedArgs{"account": account, "namespace": namespace, "after": after, "since": since, "limit": limit})
	if err != nil {
		return nil, fmt.Errorf("reading seen certificates: %w", err)
	}
	list, err := pgx.CollectRows(rows, scanSeen)
	if err != nil {
		return nil, fmt.Errorf("reading seen certificates: %w", err)
	}
	return list, nil
}

// seenChains reads customers' certificates that have not expired, the last seen first.
func seenChains(ctx context.Context, q pg.Querier, account sallyport.AccountID, namespace sallyport.NamespaceID, since, now time.Time, limit int, each func(seenChain)) error {
	rows, err := q.Query(ctx, `
		select `+seenColumns+`, chain
		from seen_certificates
		where account_id = $1
		  and namespace_id = $2
		  and last_seen_at >= $3
		  and not_after > $4
		  and not managed
		order by last_seen_at desc, fingerprint
		limit $5`, account, namespace, since, now, limit)
	return eachChain(rows, err, each)
}

// affectedChains reads certificates in use that a change can concern, by
// fingerprint: it does not change, so that none is missed between two reads. In
// use is what was let in, whatever it was refused since.
func affectedChains(ctx context.Context, q pg.Querier, account sallyport.AccountID, namespace sallyport.NamespaceID, a affected, since, now time.Time, after string, limit int, each func(seenChain)) error {
	rows, err := q.Query(ctx, `
		select `+seenColumns+`, chain
		from seen_certificates
		where account_id = @account
		  and namespace_id = @namespace
		  and fingerprint > @after
		  and allowed_at >= @since
		  and not_after > @now
		  and (@all or not managed and (@customers and not filter_id = any(@filters) or not cas <@ @cas))
		order by fingerprint
		limit @limit`,
		pgx.NamedArgs{"account": account, "namespace": namespace, "since": since, "now": now, "after": after, "limit": limit,
			"all": a.all, "customers": a.customers, "filters": a.writing, "cas": a.left})
	return eachChain(rows, err, each)
}

func eachChain(rows pgx.Rows, err error, each func(seenChain)) error {
	if err != nil {
		return fmt.Errorf("reading seen certificates: %w", err)
	}
	var s seenChain
	_, err = pgx.ForEachRow(rows, append(s.scan(), &s.chain), func() error {
		s.inUTC()
		each(s)
		return nil
	})
	if err != nil {
		return fmt.Errorf("reading seen certificates: %w", err)
	}
	return nil
}

// lastOfCAs is when each CA of a namespace last let a certificate in.
func lastOfCAs(ctx context.Context, q pg.Querier, account sallyport.AccountID, namespace sallyport.NamespaceID) (map[string]time.Time, error) {
	rows, err := q.Query(ctx, `
		select ca, max(allowed_at)
		from seen_certificates, unnest(cas) as ca
		where account_id = $1 and namespace_id = $2 and allowed_at is not null
		group by ca`, account, namespace)
	return collectLast(rows, err)
}

// lastOfFilters is when each filter of a namespace last let a certificate in.
func lastOfFilters(ctx context.Context, q pg.Querier, account sallyport.AccountID, namespace sallyport.NamespaceID) (map[string]time.Time, error) {
	rows, err := q.Query(ctx, `
		select filter_id, max(allowed_at)
		from seen_certificates
		where account_id = $1 and namespace_id = $2 and allowed_at is not null and filter_id <> ''
		group by filter_id`, account, namespace)
	return collectLast(rows, err)
}

func collectLast(rows pgx.Rows, err error) (map[string]time.Time, error) {
	if err != nil {
		return nil, fmt.Errorf("reading when certificates were seen: %w", err)
	}
	last := map[string]time.Time{}
	var id string
	var at time.Time
	if _, err := pgx.ForEachRow(rows, []any{&id, &at}, func() error { last[id] = at.UTC(); return nil }); err != nil {
		return nil, fmt.Errorf("reading when certificates were seen: %w", err)
	}
	return last, nil
}

// sighting is a use as it is written. One without a chain only moves a row on.
type sighting struct {
	use    Use
	cas    []string // of the bundle, in its chains: first the one that it ends at
	filter string   // the id of the one that it matched
	leaf   Seen     // of the chain, if there is one
}

// writeSightings moves rows forward in time and makes new ones, in one
// transaction and in the order in which they are given. It tells in which
// namespaces there are new ones.
func writeSightings(ctx context.Context, pool *pgxpool.Pool, account sallyport.AccountID, list []sighting) (map[sallyport.NamespaceID]bool, error) {
	grown := map[sallyport.NamespaceID]bool{}
	batch := &pgx.Batch{}
	for _, s := range list {
		args := pgx.NamedArgs{"account": account, "namespace": s.use.Namespace, "fingerprint": s.use.Fingerprint, "at": s.use.At,
			"refused": s.use.Refused, "cas": s.cas, "filter": s.filter, "managed": s.use.Managed}
		if len(s.use.Chain) == 0 {
			batch.Queue(moveSeen, args)
			continue
		}
		args["chain"], args["subject"], args["issuer"], args["serial"] = s.use.Chain, s.leaf.Subject, s.leaf.Issuer, s.leaf.Serial
		args["not_before"], args["not_after"] = s.leaf.NotBefore, s.leaf.NotAfter
		batch.Queue(upsertSeen, args).Query(func(rows pgx.Rows) error {
			inserted, err := pgx.CollectRows(rows, pgx.RowTo[bool])
			if len(inserted) > 0 && inserted[0] {
				grown[s.use.Namespace] = true
			}
			return err
		})
	}
	if err := pool.SendBatch(ctx, batch).Close(); err != nil {
		return nil, fmt.Errorf("writing seen certificates: %w", err)
	}
	return grown, nil
}

// What lets in counts more than what refuses in the same minute: of several
// authorizers one may not yet have the newest bundle.
const newer = `(@at > s.last_seen_at or @at = s.last_seen_at and s.refused <> '' and @refused = '')`

// That it was let in also counts when it comes after news of a later refusal.
const counts = newer + ` or @refused = '' and (s.allowed_at is null or @at > s.allowed_at)`

const moveSeen = `
	update seen_certificates s
	set last_seen_at = greatest(s.last_seen_at, @at),
	    refused = case when ` + newer + ` then @refused else s.refused end,
	    managed = case when @refused = '' or s.allowed_at is null then @managed else s.managed end,
	    allowed_at = case when @refused = '' then @at else s.allowed_at end,
	    cas = case when @refused = '' and s.cas[1] is distinct from (@cas::text[])[1] then @cas else s.cas end,
	    filter_id = case when @refused = '' then @filter else s.filter_id end
	where account_id = @account and namespace_id = @namespace and fingerprint = @fingerprint and (` + counts + `)`

const upsertSeen = `
	insert into seen_certificates as s (account_id, namespace_id, fingerprint, chain, subject, issuer, serial, not_before, not_after,
		managed, first_seen_at, last_seen_at, refused, allowed_at, cas, filter_id)
	values (@account, @namespace, @fingerprint, @chain, @subject, @issuer, @serial, @not_before, @not_after,
		@managed, @at, @at, @refused, case when @refused = '' then @at::timestamptz end, @cas, @filter)
	on conflict (account_id, namespace_id, fingerprint) do update
	set last_seen_at = greatest(s.last_seen_at, @at),
	    refused = case when ` + newer + ` then @refused else s.refused end,
	    managed = case when @refused = '' or s.allowed_at is null then @managed else s.managed end,
	    chain = case when @refused = '' or s.allowed_at is null then excluded.chain else s.chain end,
	    allowed_at = coalesce(excluded.allowed_at, s.allowed_at),
	    cas = case when @refused = '' then @cas else s.cas end,
	    filter_id = case when @refused = '' then @filter else s.filter_id end
	where ` + counts + `
	returning xmax = 0`

// trimSeen keeps the newest of a namespace's rows.
func trimSeen(ctx context.Context, q pg.Querier, account sallyport.AccountID, namespace sallyport.NamespaceID, good, refused int) error {
	_, err := q.Exec(ctx, `
		delete from seen_certificates s
		using (
			select fingerprint, allowed_at is null as refused,
			       row_number() over (partition by allowed_at is null order by last_seen_at desc, fingerprint) as place
			from seen_certificates
			where account_id = $1 and namespace_id = $2
		) ranked
		where s.account_id = $1 and s.namespace_id = $2 and s.fingerprint = ranked.fingerprint
		  and ranked.place > case when ranked.refused then $4::int else $3::int end`, account, namespace, good, refused)
	if err != nil {
		return fmt.Errorf("dropping the oldest seen certificates: %w", err)
	}
	return nil
}

// reapSeen drops some of those that were not seen since, or expired before.
func reapSeen(ctx context.Context, q pg.Querier, since, expired time.Time, limit int) (int64, error) {
	tag, err := q.Exec(ctx, `
		delete from seen_certificates
		where ctid in (
			select ctid
			from seen_certificates
			where last_seen_at < $1 or not_after < $2
			limit $3
			for update skip locked)`, since, expired, limit)
	if err != nil {
		return 0, fmt.Errorf("reaping seen certificates: %w", err)
	}
	return tag.RowsAffected(), nil
}

// leavesThatExpire are long-lived certificates of customers' CAs, still in use,
// that have at most five days left. Short-lived ones are always about to.
const leavesThatExpire = `
	from seen_certificates
	where not_after > $1 and not_after <= $1 + interval '5 days'
	  and not_after - not_before > interval '15 days'
	  and allowed_at > $1 - interval '2 days'
	  and not managed`

func expiringLeaves(ctx context.Context, q pg.Querier, now time.Time) (int, error) {
	var n int
	if err := q.QueryRow(ctx, `select count(*)`+leavesThatExpire, now).Scan(&n); err != nil {
		return 0, fmt.Errorf("counting expiring client certificates: %w", err)
	}
	return n, nil
}

func readExpiringLeaves(ctx context.Context, q pg.Querier, now time.Time) ([]Expiring, error) {
	rows, err := q.Query(ctx, `
		select account_id, namespace_id, fingerprint, subject, not_after`+leavesThatExpire+`
		order by account_id, namespace_id, fingerprint`, now)
	if err != nil {
		return nil, fmt.Errorf("reading expiring client certificates: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Expiring, error) {
		e := Expiring{Kind: KindLeaf}
		err := row.Scan(&e.Account, &e.Namespace, &e.Fingerprint, &e.Subject, &e.NotAfter)
		e.NotAfter = e.NotAfter.UTC()
		return e, err
	})
	if err != nil {
		return nil, fmt.Errorf("reading expiring client certificates: %w", err)
	}
	return list, nil
}
