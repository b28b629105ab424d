package certs

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"math/big"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/internal/pg"
)

// crl is an issuer's newest certificate revocation list.
type crl struct {
	number     int64
	revision   int64 // of what is revoked, as revokedRevision gives it
	thisUpdate time.Time
	nextUpdate time.Time
	der        []byte
}

// findCRL reads an issuer's CRL, a zero one if there is none yet. Without its
// content the row is small.
func findCRL(ctx context.Context, q pg.Querier, account sallyport.AccountID, issuer string, content bool) (crl, error) {
	var c crl
	err := q.QueryRow(ctx, `
		select number, revision, this_update, next_update, case when $3 then der end
		from crls
		where account_id = $1 and issuer = $2`, account, issuer, content).Scan(&c.number, &c.revision, &c.thisUpdate, &c.nextUpdate, &c.der)
	if errors.Is(err, pgx.ErrNoRows) {
		return crl{}, nil
	}
	if err != nil {
		return crl{}, fmt.Errorf("reading a CRL: %w", err)
	}
	c.thisUpdate, c.nextUpdate = c.thisUpdate.UTC(), c.nextUpdate.UTC()
	return c, nil
}

func putCRL(ctx context.Context, q pg.Querier, account sallyport.AccountID, issuer string, c crl) error {
	_, err := q.Exec(ctx, `
		insert into crls (account_id, issuer, number, revision, this_update, next_update, der)
		values (@account, @issuer, @number, @revision, @this_update, @next_update, @der)
		on conflict (account_id, issuer) do update
		set number = excluded.number, revision = excluded.revision, this_update = excluded.this_update,
			next_update = excluded.next_update, der = excluded.der`,
		pgx.NamedArgs{"account": account, "issuer": issuer, "number": c.number, "revision": c.revision,
			"this_update": c.thisUpdate, "next_update": c.nextUpdate, "der": c.der})
	if err != nil {
		return fmt.Errorf("keeping a CRL: %w", err)
	}
	return nil
}

// lockIssuer keeps other copies of the service from signing a CRL of the issuer
// at the same time.
func lockIssuer(ctx context.Context, q pg.Querier, account sallyport.AccountID, issuer string) error {
	_, err := q.Exec(ctx, `
		select from issuers
		where account_id = $1 and id = $2
		for no key update`, account, issuer)
	if err != nil {
		return fmt.Errorf("locking an issuer: %w", err)
	}
	return nil
}

// revokedRevision changes whenever something under the issuer was revoked. For
// an account's intermediate it is the revision of the newest revocation; under
// one of the operator's, whose intermediates are of many accounts and commit in
// any order, a sum of the times.
func revokedRevision(ctx context.Context, q pg.Querier, account sallyport.AccountID, issuer string) (revision int64, err error) {
	if account == sallyport.SystemAccount {
		err = q.QueryRow(ctx, `
			select mod(coalesce(sum((extract(epoch from revoked_at) * 1000000)::numeric), 0), 4611686018427387904)::bigint
			from issuers
			where parent = $1 and revoked_at is not null`, issuer).Scan(&revision)
	} else {
		err = q.QueryRow(ctx, `
			select coalesce(max(revision), 0)
			from revocations
			where account_id = $1 and issuer = $2`, account, issuer).Scan(&revision)
	}
	if err != nil {
		return 0, fmt.Errorf("reading what is revoked: %w", err)
	}
	return revision, nil
}

// revokedUnder gives the CRL's entries: what the issuer made, is revoked and
// did not expire before the time.
func revokedUnder(ctx context.Context, q pg.Querier, account sallyport.AccountID, issuer string, expired time.Time) ([]x509.RevocationListEntry, error) {
	if account == sallyport.SystemAccount {
		return revokedIntermediates(ctx, q, issuer, expired)
	}
	rows, err := q.Query(ctx, `
		select serial, revoked_at
		from revocations
		where account_id = $1 and issuer = $2 and serial <> '' and (not_after is null or not_after > $3)
		order by revision, serial`, account, issuer, expired)
	if err != nil {
		return nil, fmt.Errorf("reading what is revoked: %w", err)
	}
	var (
		entries []x509.RevocationListEntry
		serial  string
		at      time.Time
	)
	_, err = pgx.ForEachRow(rows, []any{&serial, &at}, func() error {
		number, ok := new(big.Int).SetString(serial, 16)
		if !ok {
			return fmt.Errorf("%q is not a serial number", serial)
		}
		entries = append(entries, x509.RevocationListEntry{SerialNumber: number, RevocationTime: at.UTC()})
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading what is revoked: %w", err)
	}
	return entries, nil
}

func revokedIntermediates(ctx context.Context, q pg.Querier, root string, expired time.Time) ([]x509.RevocationListEntry, error) {
	rows, err := q.Query(ctx, `
		select `+issuerColumns+`
		from issuers
		where parent = $1 and revoked_at is not null and chain is not null and not_after > $2
		order by revoked_at, id`, root, expired)
	if err != nil {
		return nil, fmt.Errorf("reading revoked issuers: %w", err)
	}
	revoked, err := pgx.CollectRows(rows, scanIssuer)
	if err != nil {
		return nil, fmt.Errorf("reading revoked issuers: %w", err)
	}
	var entries []x509.RevocationListEntry
	for _, row := range revoked {
		if len(row.certificates) > 0 {
			entries = append(entries, x509.RevocationListEntry{SerialNumber: row.certificates[0].SerialNumber, RevocationTime: row.revoked})
		}
	}
	return entries, nil
}

// staleCRLs names issuers whose CRL was once asked for and ends before the time,
// by id.
func staleCRLs(ctx context.Context, q pg.Querier, now, before time.Time, after string, limit int) ([]string, error) {
	rows, err := q.Query(ctx, `
		select c.issuer
		from crls c
		join issuers i on i.account_id = c.account_id and i.id = c.issuer
		where c.next_update < $1 and i.not_after > $2 and c.issuer > $3
		order by c.issuer
		limit $4`, before, now, after, limit)
	if err != nil {
		return nil, fmt.Errorf("reading CRLs that end soon: %w", err)
	}
	issuers, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("reading CRLs that end soon: %w", err)
	}
	return issuers, nil
}
