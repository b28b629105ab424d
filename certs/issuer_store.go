package certs

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/internal/pg"
	"github.com/sallyport-iam/sallyport/journal"
)

// issuerRow is a CA as it is kept: an account's intermediate, or, in
// SystemAccount, one of the operator's.
type issuerRow struct {
	account      sallyport.AccountID
	id           string // credential.IssuerID
	parent       string // "" in SystemAccount
	tbs          []byte // nil: it is signed elsewhere
	chain        []byte // PEM; nil: not known to be signed
	sealedKey    []byte
	notBefore    time.Time
	notAfter     time.Time
	created      time.Time
	retired      time.Time // zero: it makes certificates
	revoked      time.Time // zero: it is not
	revision     int64
	certificates []*x509.Certificate // of chain; nil also when it is damaged
}

func (r issuerRow) trustDomain() string { return trustDomainOf(r.certificates[0]) }

const issuerColumns = `account_id, id, parent, tbs, chain, sealed_key, not_before, not_after, created_at, retired_at, revoked_at, revision`

func scanIssuer(row pgx.CollectableRow) (issuerRow, error) {
	var (
		r                issuerRow
		retired, revoked *time.Time
	)
	err := row.Scan(&r.account, &r.id, &r.parent, &r.tbs, &r.chain, &r.sealedKey, &r.notBefore, &r.notAfter, &r.created, &retired, &revoked, &r.revision)
	if err != nil {
		return r, err
	}
	r.notBefore, r.notAfter, r.created = r.notBefore.UTC(), r.notAfter.UTC(), r.created.UTC()
	if retired != nil {
		r.retired = retired.UTC()
	}
	if revoked != nil {
		r.revoked = revoked.UTC()
	}
	for rest := r.chain; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return r, nil
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			r.certificates = nil // one that is damaged does not keep others from being read
			return r, nil
		}
		r.certificates = append(r.certificates, cert)
	}
}

// issuerRows reads the account's CAs, newest first.
func issuerRows(ctx context.Context, q pg.Querier, account sallyport.AccountID) ([]issuerRow, error) {
	rows, err := q.Query(ctx, `
		select `+issuerColumns+`
		from issuers
		where account_id = $1
		order by created_at desc, id`, account)
	if err != nil {
		return nil, fmt.Errorf("reading issuers: %w", err)
	}
	list, err := pgx.CollectRows(rows, scanIssuer)
	if err != nil {
		return nil, fmt.Errorf("reading issuers: %w", err)
	}
	return list, nil
}

// findIssuer reads a CA of whatever account, by the id of its key.
func findIssuer(ctx context.Context, q pg.Querier, id string) (issuerRow, error) {
	rows, err := q.Query(ctx, `
		select `+issuerColumns+`
		from issuers
		where id = $1`, id)
	if err != nil {
		return issuerRow{}, fmt.Errorf("reading an issuer: %w", err)
	}
	row, err := pgx.CollectExactlyOneRow(rows, scanIssuer)
	if errors.Is(err, pgx.ErrNoRows) {
		return issuerRow{}, sallyport.NotFound.Errorf("there is no such issuer")
	}
	if err != nil {
		return issuerRow{}, fmt.Errorf("reading an issuer: %w", err)
	}
	return row, nil
}

// issuersFrom reads CAs of all accounts, by id: those that make certificates, and
// retired ones that have not expired. Revoked ones are not among them.
func issuersFrom(ctx context.Context, q pg.Querier, now time.Time, after string, limit int) ([]issuerRow, error) {
	rows, err := q.Query(ctx, `
		select `+issuerColumns+`
		from issuers
		where id > $2 and chain is not null and revoked_at is null and (retired_at is null or not_after > $1)
		order by id
		limit $3`, now, after, limit)
	if err != nil {
		return nil, fmt.Errorf("reading issuers: %w", err)
	}
	list, err := pgx.CollectRows(rows, scanIssuer)
	if err != nil {
		return nil, fmt.Errorf("reading issuers: %w", err)
	}
	return list, nil
}

// countUnder counts the good intermediates under one of the operator's CAs, up
// to a limit.
func countUnder(ctx context.Context, q pg.Querier, parent string, now time.Time, limit int) (n int, err error) {
	err = q.QueryRow(ctx, `
		select count(*)
		from (
			select from issuers
			where parent = $1 and chain is not null and revoked_at is null and not_after > $2
			limit $3
		) as counted`, parent, now, limit).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("counting issuers: %w", err)
	}
	return n, nil
}

// countIssuersSince counts the account's CAs that were made since, and signed.
func countIssuersSince(ctx context.Context, q pg.Querier, account sallyport.AccountID, since time.Time) (n int, err error) {
	err = q.QueryRow(ctx, `
		select count(*)
		from issuers
		where account_id = $1 and chain is not null and created_at > $2`, account, since).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("counting issuers: %w", err)
	}
	return n, nil
}

func insertIssuer(ctx context.Context, tx *journal.Tx, r issuerRow) error {
	_, err := tx.Exec(ctx, `
		insert into issuers (`+issuerColumns+`)
		values (@account, @id, @parent, @tbs, null, @key, @not_before, @not_after, @created, null, null, @revision)`,
		pgx.NamedArgs{"account": r.account, "id": r.id, "parent": r.parent, "tbs": r.tbs, "key": r.sealedKey,
			"not_before": r.notBefore, "not_after": r.notAfter, "created": r.created, "revision": r.revision})
	if err != nil {
		return fmt.Errorf("recording the issuer %s: %w", r.id, err)
	}
	return nil
}

// publishIssuer keeps the chain of a CA that was signed, and retires the
// account's others: from now on this one makes certificates.
func publishIssuer(ctx context.Context, tx *journal.Tx, id string, chain []byte) error {
	tag, err := tx.Exec(ctx, `
		update issuers
		set chain = $3, revision = $4
		where account_id = $1 and id = $2 and chain is null`, tx.Account(), id, chain, tx.Revision())
	if err == nil && tag.RowsAffected() == 0 {
		return sallyport.Conflict.Errorf("the issuer %s was published already, or is gone", id)
	}
	if err == nil {
		_, err = tx.Exec(ctx, `
			update issuers
			set retired_at = $3, revision = $4
			where account_id = $1 and id <> $2 and chain is not null and retired_at is null`, tx.Account(), id, tx.Now(), tx.Revision())
	}
	if err != nil {
		return fmt.Errorf("publishing the issuer %s: %w", id, err)
	}
	return nil
}

// setIssuerLife keeps how long a CA that was signed elsewhere is valid.
func setIssuerLife(ctx context.Context, tx *journal.Tx, id string, notBefore, notAfter time.Time) error {
	_, err := tx.Exec(ctx, `
		update issuers
		set not_before = $3, not_after = $4
		where account_id = $1 and id = $2`, tx.Account(), id, notBefore, notAfter)
	if err != nil {
		return fmt.Errorf("importing the issuer %s: %w", id, err)
	}
	return nil
}

func retireIssuer(ctx context.Context, tx *journal.Tx, id string) error {
	_, err := tx.Exec(ctx, `
		update issuers
		set retired_at = $3, revision = $4
		where account_id = $1 and id = $2 and retired_at is null`, tx.Account(), id, tx.Now(), tx.Revision())
	if err != nil {
		return fmt.Errorf("retiring the issuer %s: %w", id, err)
	}
	return nil
}

// revokeIssuer makes the account's CA with the id, if it has one, issue no more.
func revokeIssuer(ctx context.Context, tx *journal.Tx, id string) error {
	_, err := tx.Exec(ctx, `
		update issuers
		set revoked_at = coalesce(revoked_at, $3), retired_at = coalesce(retired_at, $3), revision = $4
		where account_id = $1 and id = $2`, tx.Account(), id, tx.Now(), tx.Revision())
	if err != nil {
		return fmt.Errorf("revoking the issuer %s: %w", id, err)
	}
	return nil
}

// accountsWithEndedIssuers names the accounts that have CAs that expired before.
func accountsWithEndedIssuers(ctx context.Context, q pg.Querier, before time.Time) ([]sallyport.AccountID, error) {
	rows, err := q.Query(ctx, `
		select distinct account_id
		from issuers
		where not_after < $1
		order by account_id`, before)
	if err != nil {
		return nil, fmt.Errorf("finding expired issuers: %w", err)
	}
	accounts, err := pgx.CollectRows(rows, pgx.RowTo[sallyport.AccountID])
	if err != nil {
		return nil, fmt.Errorf("finding expired issuers: %w", err)
	}
	return accounts, nil
}

// removeEndedIssuers deletes the account's CAs that expired before, with their CRLs.
func removeEndedIssuers(ctx context.Context, tx *journal.Tx, before time.Time) ([]string, error) {
	rows, err := tx.Query(ctx, `
		delete from issuers
		where account_id = $1 and not_after < $2
		returning id`, tx.Account(), before)
	if err != nil {
		return nil, fmt.Errorf("removing expired issuers: %w", err)
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err == nil {
		_, err = tx.Exec(ctx, `
			delete from crls
			where account_id = $1 and issuer = any($2)`, tx.Account(), ids)
	}
	if err != nil {
		return nil, fmt.Errorf("removing expired issuers: %w", err)
	}
	return ids, nil
}
