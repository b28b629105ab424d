package certs

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/internal/pg"
)

const revocationColumns = `id, issuer, serial, fingerprint, certificate_id, reason, created_by, revoked_at, revision`

func collectRevocations(rows pgx.Rows, err error) ([]Revocation, error) {
	if err != nil {
		return nil, fmt.Errorf("reading revocations: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Revocation, error) {
		var r Revocation
		err := row.Scan(&r.ID, &r.Issuer, &r.Serial, &r.Fingerprint, &r.CertificateID, &r.Reason, &r.CreatedBy, &r.Revoked, &r.Revision)
		r.Revoked = r.Revoked.UTC()
		return r, err
	})
	if err != nil {
		return nil, fmt.Errorf("reading revocations: %w", err)
	}
	return list, nil
}

// insertRevocation reports whether it was not there yet. notAfter is the
// certificate's, zero when it is not known.
func insertRevocation(ctx context.Context, q pg.Querier, account sallyport.AccountID, r Revocation, notAfter time.Time) (bool, error) {
	tag, err := q.Exec(ctx, `
		insert into revocations (account_id, `+revocationColumns+`, not_after)
		values (@account, @id, @issuer, @serial, @fingerprint, @certificate, @reason, @created_by, @revoked, @revision, @not_after)
		on conflict (account_id, id) do nothing`,
		pgx.NamedArgs{
			"account": account, "id": r.ID, "issuer": r.Issuer, "serial": r.Serial, "fingerprint": r.Fingerprint, "certificate": r.CertificateID,
			"reason": r.Reason, "created_by": r.CreatedBy, "revoked": r.Revoked, "revision": r.Revision, "not_after": orNull(notAfter),
		})
	if err != nil {
		return false, fmt.Errorf("recording a revocation: %w", err)
	}
	return tag.RowsAffected() == 1, nil
}

// countLasting counts one more revocation that is never forgotten, and tells how
// many there are.
func countLasting(ctx context.Context, q pg.Querier, account sallyport.AccountID) (int, error) {
	var n int
	err := q.QueryRow(ctx, `
		insert into revocation_counts (account_id, lasting)
		values ($1, 1)
		on conflict (account_id) do update set lasting = revocation_counts.lasting + 1
		returning lasting`, account).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("counting revocations: %w", err)
	}
	return n, nil
}

// revocationOf reads a revocation by the id of its object.
func revocationOf(ctx context.Context, q pg.Querier, account sallyport.AccountID, id string) ([]Revocation, error) {
	return collectRevocations(q.Query(ctx, `
		select `+revocationColumns+`
		from revocations
		where account_id = $1 and id = $2`, account, id))
}

// anyRevoked tells since when one of the objects' ids is revoked; zero: none is.
func anyRevoked(ctx context.Context, q pg.Querier, account sallyport.AccountID, ids []string) (time.Time, error) {
	var at *time.Time
	err := q.QueryRow(ctx, `
		select min(revoked_at)
		from revocations
		where account_id = $1 and id = any($2)`, account, ids).Scan(&at)
	if err != nil {
		return time.Time{}, fmt.Errorf("reading revocations: %w", err)
	}
	return orZero(at), nil
}

// revocationsFrom reads those of certificates, in the order of the ids.
func revocationsFrom(ctx context.Context, q pg.Querier, account sallyport.AccountID, certificates []string) ([]Revocation, error) {
	return collectRevocations(q.Query(ctx, `
		select r.id, r.issuer, r.serial, r.fingerprint, r.certificate_id, r.reason, r.created_by, r.revoked_at, r.revision
		from unnest($2::text[]) with ordinality as named (id, place)
		join certificates c on c.account_id = $1 and c.id = named.id
		join revocations r on r.account_id = $1 and r.id = 'serial/' || c.issuer || '/' || c.serial
		order by named.place`, account, certificates))
}

func listRevocations(ctx context.Context, q pg.Querier, account sallyport.AccountID, after string, limit int) ([]Revocation, error) {
	return collectRevocations(q.Query(ctx, `
		select `+revocationColumns+`
		from revocations
		where account_id = $1 and id > $2
		order by id
		limit $3`, account, after, limit))
}

// revocationIDs are all of an account, sorted as bytes are.
func revocationIDs(ctx context.Context, q pg.Querier, account sallyport.AccountID) ([]string, error) {
	rows, err := q.Query(ctx, `
		select id
		from revocations
		where account_id = $1
		order by id collate "C"`, account)
	if err != nil {
		return nil, fmt.Errorf("reading revocations: %w", err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("reading revocations: %w", err)
	}
	return ids, nil
}

// removeUseless deletes revocations of certificates that expired before.
func removeUseless(ctx context.Context, q pg.Querier, account sallyport.AccountID, before time.Time, limit int) ([]Revocation, error) {
	return collectRevocations(q.Query(ctx, `
		delete from revocations
		where account_id = $1 and id in (
			select id
			from revocations
			where account_id = $1 and not_after < $2
			order by id
			limit $3
		)
		returning `+revocationColumns, account, before, limit))
}
