package certs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/internal/lastuse"
	"github.com/sallyport-iam/sallyport/internal/pg"
	"github.com/sallyport-iam/sallyport/journal"
)

// stored is a certificate with what is signed, and its issuer.
type stored struct {
	Certificate
	tbs    []byte // DER of the TBSCertificate
	issuer []byte // PEM: the issuer's certificate, and those above it; nil: it is not there any more
	above  string // the issuer's issuer, its credential.IssuerID
}

// certificateColumns are to be selected from certificates c left join issuers i.
const certificateColumns = `c.account_id, c.id, c.service_account_id, c.issuer, c.serial, coalesce(c.fingerprint, ''), c.spiffe_id,
	c.not_before, c.not_after, c.created_at, c.created_by, c.first_id, c.renewed_from, c.renewable_until,
	coalesce(c.revoked_at, i.revoked_at), case when c.revoked_at is null and i.revoked_at is not null then 'its issuer was revoked' else c.revocation_reason end,
	c.last_used_at, c.certificate, c.revision, c.tbs, i.chain, coalesce(i.parent, '')`

const fromCertificates = `
		from certificates c
		left join issuers i on i.account_id = c.account_id and i.id = c.issuer`

func scanCertificate(row pgx.CollectableRow) (stored, error) {
	var (
		s                 stored
		revoked, lastUsed *time.Time
	)
	err := row.Scan(&s.Account, &s.ID, &s.ServiceAccount, &s.Issuer, &s.Serial, &s.Fingerprint, &s.SPIFFEID,
		&s.NotBefore, &s.NotAfter, &s.Created, &s.CreatedBy, &s.First, &s.RenewedFrom, &s.RenewableUntil,
		&revoked, &s.Reason, &lastUsed, &s.DER, &s.Revision, &s.tbs, &s.issuer, &s.above)
	if err != nil {
		return s, err
	}
	for _, t := range []*time.Time{&s.NotBefore, &s.NotAfter, &s.Created, &s.RenewableUntil} {
		*t = t.UTC()
	}
	s.Revoked, s.LastUsed = orZero(revoked), orZero(lastUsed)
	return s, nil
}

func orZero(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return t.UTC()
}

// orNull is the reverse of orZero.
func orNull(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// by names one certificate of an account; exactly one field, or issuer with serial.
type by struct {
	id, fingerprint, issuer, serial string
}

// find reads a certificate; NotFound without one.
func find(ctx context.Context, q pg.Querier, account sallyport.AccountID, b by) (stored, error) {
	return findWith(ctx, q, account, b, "")
}

// findForUpdate locks the certificate's row, and not its issuer's.
func findForUpdate(ctx context.Context, q pg.Querier, account sallyport.AccountID, id string) (stored, error) {
	return findWith(ctx, q, account, by{id: id}, "for no key update of c")
}

func findWith(ctx context.Context, q pg.Querier, account sallyport.AccountID, b by, lock string) (stored, error) {
	where, args := `c.id = $2`, []any{account, b.id}
	switch {
	case b.fingerprint != "":
		where, args = `c.fingerprint = $2`, []any{account, b.fingerprint}
	case b.serial != "":
		where, args = `c.issuer = $2 and c.serial = $3`, []any{account, b.issuer, b.serial}
	}
	rows, err := q.Query(ctx, `
		select `+certificateColumns+fromCertificates+`
		where c.account_id = $1 and `+where+`
		`+lock, args...)
	if err != nil {
		return stored{}, fmt.Errorf("reading a certificate: %w", err)
	}
	s, err := pgx.CollectExactlyOneRow(rows, scanCertificate)
	if errors.Is(err, pgx.ErrNoRows) {
		return stored{}, sallyport.NotFound.Errorf("there is no such certificate in this account")
	}
	if err != nil {
		return stored{}, fmt.Errorf("reading a certificate: %w", err)
	}
	return s, nil
}

func list(ctx context.Context, q pg.Querier, account sallyport.AccountID, serviceAccount, after string, limit int) ([]Certificate, error) {
	rows, err := q.Query(ctx, `
		select `+certificateColumns+fromCertificates+`
		where c.account_id = $1
		  and (c.service_account_id = $2 or $2 = '')
		  and c.id > $3
		order by c.id
		limit $4`, account, serviceAccount, after, limit)
	if err != nil {
		return nil, fmt.Errorf("listing certificates: %w", err)
	}
	return collect(rows)
}

func collect(rows pgx.Rows) ([]Certificate, error) {
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Certificate, error) {
		s, err := scanCertificate(row)
		return s.Certificate, err
	})
	if err != nil {
		return nil, fmt.Errorf("reading certificates: %w", err)
	}
	return list, nil
}

// counts are of a service account's certificates.
type counts struct {
	live  int // neither expired nor revoked
	today int // made within 24 hours, whatever has become of them
}

// countCertificates reads those only that have not expired long ago: what was
// made within 24 hours cannot have.
func countCertificates(ctx context.Context, q pg.Querier, account sallyport.AccountID, serviceAccount string, now time.Time) (counts, error) {
	var n counts
	err := q.QueryRow(ctx, `
		select count(*) filter (where not_after > $3 and revoked_at is null),
		       count(*) filter (where created_at > $4)
		from certificates
		where account_id = $1 and service_account_id = $2 and not_after > $4`,
		account, serviceAccount, now, now.Add(-24*time.Hour)).Scan(&n.live, &n.today)
	if err != nil {
		return counts{}, fmt.Errorf("counting certificates: %w", err)
	}
	return n, nil
}

func insert(ctx context.Context, q pg.Querier, s stored) error {
	_, err := q.Exec(ctx, `
		insert into certificates (account_id, id, service_account_id, issuer, serial, spiffe_id, tbs, not_before, not_after,
			first_id, renewed_from, renewable_until, created_by, created_at, revocation_reason, revision, replicated)
		values (@account, @id, @service_account, @issuer, @serial, @spiffe_id, @tbs, @not_before, @not_after,
			@first, @renewed_from, @renewable_until, @created_by, @created, '', @revision, true)`,
		pgx.NamedArgs{
			"account": s.Account, "id": s.ID, "service_account": s.ServiceAccount, "issuer": s.Issuer, "serial": s.Serial,
			"spiffe_id": s.SPIFFEID, "tbs": s.tbs, "not_before": s.NotBefore, "not_after": s.NotAfter,
			"first": s.First, "renewed_from": s.RenewedFrom, "renewable_until": s.RenewableUntil,
			"created_by": s.CreatedBy, "created": s.Created, "revision": s.Revision,
		})
	if err != nil {
		return fmt.Errorf("recording certificate %s: %w", s.ID, err)
	}
	return nil
}

// storeSigned keeps the certificate of a row that was recorded and is locked.
func storeSigned(ctx context.Context, q pg.Querier, c Certificate) error {
	_, err := q.Exec(ctx, `
		update certificates
		set certificate = $3, fingerprint = $4
		where account_id = $1 and id = $2 and certificate is null`, c.Account, c.ID, c.DER, c.Fingerprint)
	if err != nil {
		return fmt.Errorf("storing certificate %s: %w", c.ID, err)
	}
	return nil
}

// revoked locks certificates that are not revoked themselves, in the order in
// which writeUses does, and marks them: one with what was renewed from it, or all
// live ones of a service account.
func revoked(ctx context.Context, tx *journal.Tx, reason, where string, args pgx.NamedArgs) ([]Certificate, error) {
	args["account"] = tx.Account()
	rows, err := tx.Query(ctx, `
		select `+certificateColumns+fromCertificates+`
		where c.account_id = @account and c.revoked_at is null and `+where+`
		order by c.id
		for no key update of c`, args)
	if err != nil {
		return nil, fmt.Errorf("locking certificates: %w", err)
	}
	list, err := collect(rows)
	if err != nil || len(list) == 0 {
		return nil, err
	}
	ids := make([]string, len(list))
	for i := range list {
		list[i].Revoked, list[i].Reason, list[i].Revision = tx.Now(), reason, tx.Revision()
		ids[i] = list[i].ID
	}
	_, err = tx.Exec(ctx, `
		update certificates
		set revoked_at = $3, revocation_reason = $4, revision = $5
		where account_id = $1 and id = any($2)`, tx.Account(), ids, tx.Now(), reason, tx.Revision())
	if err != nil {
		return nil, fmt.Errorf("revoking certificates: %w", err)
	}
	return list, nil
}

// link is a certificate as a part of its chain of renewals.
type link struct {
	id, from string // from is "" of the first
	notAfter time.Time
	revoked  bool // itself: its issuer does not count
}

// readChain reads the chain of a certificate, in no order. It may have hundreds
// of thousands, nearly all of which expired long ago: it is read once.
func readChain(ctx context.Context, q pg.Querier, c Certificate) ([]link, error) {
	rows, err := q.Query(ctx, `
		select id, renewed_from, not_after, revoked_at is not null
		from certificates
		where account_id = $1 and first_id = $2`, c.Account, c.First)
	if err != nil {
		return nil, fmt.Errorf("reading a chain of renewals: %w", err)
	}
	var (
		chain []link
		l     link
	)
	_, err = pgx.ForEachRow(rows, []any{&l.id, &l.from, &l.notAfter, &l.revoked}, func() error {
		chain = append(chain, l)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading a chain of renewals: %w", err)
	}
	return chain, nil
}

// renewedFrom gives the ids of the certificate and of what was renewed from it,
// also over others, and had not expired before since, in the order of renewals:
// no matter what clocks said when each was made.
func renewedFrom(ctx context.Context, q pg.Querier, c Certificate, since time.Time) ([]string, error) {
	chain, err := readChain(ctx, q, c)
	if err != nil {
		return nil, err
	}
	successors := make(map[string][]link, len(chain))
	for _, l := range chain {
		successors[l.from] = append(successors[l.from], l)
	}
	ids := []string{c.ID}
	walk := []string{c.ID}
	for next := 0; next < len(walk); next++ { // grows as it is walked
		renewals := successors[walk[next]]
		slices.SortFunc(renewals, func(a, b link) int { return strings.Compare(a.id, b.id) })
		for _, l := range renewals {
			walk = append(walk, l.id)
			if !l.notAfter.Before(since) {
				ids = append(ids, l.id)
			}
		}
	}
	return ids, nil
}

// revokedAbove gives the id of a revoked certificate from which this one was
// renewed, also over others; "" if there is none. Revoking marks what was renewed
// from a certificate only where it had not expired long before.
func revokedAbove(ctx context.Context, q pg.Querier, c Certificate) (string, error) {
	if c.RenewedFrom == "" {
		return "", nil
	}
	chain, err := readChain(ctx, q, c)
	if err != nil {
		return "", err
	}
	links := make(map[string]link, len(chain))
	for _, l := range chain {
		links[l.id] = l
	}
	for above := c.RenewedFrom; above != ""; above = links[above].from {
		if links[above].revoked {
			return above, nil
		}
	}
	return "", nil
}

func markRevokedFrom(ctx context.Context, tx *journal.Tx, ids []string, reason string) ([]Certificate, error) {
	return revoked(ctx, tx, reason, `c.id = any(@ids)`, pgx.NamedArgs{"ids": ids})
}

func markRevokedOf(ctx context.Context, tx *journal.Tx, serviceAccount, reason string) ([]Certificate, error) {
	return revoked(ctx, tx, reason, `c.service_account_id = @service_account and c.not_after > @now`,
		pgx.NamedArgs{"service_account": serviceAccount, "now": tx.Now()})
}

// accountsToReap names the accounts that have certificates of chains that ended
// before one moment, or revocations or replicated certificates that are of no use
// since another.
func accountsToReap(ctx context.Context, q pg.Querier, expired, useless time.Time) ([]sallyport.AccountID, error) {
	rows, err := q.Query(ctx, `
		select c.account_id
		from certificates c
		where `+chainEnded+`
		union
		select account_id
		from certificates
		where replicated and not_after < $2
		union
		select account_id
		from revocations
		where not_after < $2
		order by account_id`, expired, useless)
	if err != nil {
		return nil, fmt.Errorf("finding accounts with expired certificates: %w", err)
	}
	accounts, err := pgx.CollectRows(rows, pgx.RowTo[sallyport.AccountID])
	if err != nil {
		return nil, fmt.Errorf("finding accounts with expired certificates: %w", err)
	}
	return accounts, nil
}

// chainEnded is true of a certificate c whose chain of renewals could not be
// renewed any more, and had no certificate that was good, at $1. By any of a
// chain's certificates the rest is revoked, so that all stay until then. Only the
// first can be good for longer than the chain can be renewed.
const chainEnded = `c.renewable_until < $1 and c.not_after < $1 and not exists (
			select from certificates f
			where f.account_id = c.account_id and f.id = c.first_id and f.not_after >= $1)`

// forgetExpired marks certificates that expired before as those that authorizers
// need not know any more, locking their rows in the order in which writeUses
// does. It gives the ids of their objects.
func forgetExpired(ctx context.Context, q pg.Querier, account sallyport.AccountID, expired time.Time, limit int) ([]string, error) {
	rows, err := q.Query(ctx, `
		with expired as (
			select id
			from certificates
			where account_id = $1 and replicated and not_after < $2
			order by id
			limit $3
			for no key update
		)
		update certificates c
		set replicated = false
		from expired
		where c.account_id = $1 and c.id = expired.id
		returning c.issuer, c.serial`, account, expired, limit)
	if err != nil {
		return nil, fmt.Errorf("forgetting expired certificates: %w", err)
	}
	ids, err := pgx.CollectRows(rows, scanCertificateID)
	if err != nil {
		return nil, fmt.Errorf("forgetting expired certificates: %w", err)
	}
	slices.Sort(ids)
	return ids, nil
}

func scanCertificateID(row pgx.CollectableRow) (string, error) {
	var issuer, serial string
	err := row.Scan(&issuer, &serial)
	return object.CertificateID(issuer, serial), err
}

// replicatedIDs are the ids of the account's certificates' objects, sorted as
// bytes are.
func replicatedIDs(ctx context.Context, q pg.Querier, account sallyport.AccountID) ([]string, error) {
	rows, err := q.Query(ctx, `
		select issuer, serial
		from certificates
		where account_id = $1 and replicated`, account)
	if err != nil {
		return nil, fmt.Errorf("reading certificates: %w", err)
	}
	ids, err := pgx.CollectRows(rows, scanCertificateID)
	if err != nil {
		return nil, fmt.Errorf("reading certificates: %w", err)
	}
	slices.Sort(ids)
	return ids, nil
}

// removeExpired deletes certificates of chains that ended before, locking their
// rows in the order in which writeUses does. What authorizers know stays.
func removeExpired(ctx context.Context, q pg.Querier, account sallyport.AccountID, expired time.Time, limit int) ([]Certificate, error) {
	rows, err := q.Query(ctx, `
		select `+certificateColumns+fromCertificates+`
		where `+chainEnded+` and c.account_id = $2 and not c.replicated
		order by c.id
		limit $3
		for update of c`, expired, account, limit)
	if err != nil {
		return nil, fmt.Errorf("reading expired certificates: %w", err)
	}
	list, err := collect(rows)
	if err != nil || len(list) == 0 {
		return nil, err
	}
	ids := make([]string, len(list))
	for i, c := range list {
		ids[i] = c.ID
	}
	_, err = q.Exec(ctx, `
		delete from certificates
		where account_id = $1 and id = any($2)`, account, ids)
	if err != nil {
		return nil, fmt.Errorf("deleting expired certificates: %w", err)
	}
	return list, nil
}

// countLive counts over all accounts.
func countLive(ctx context.Context, q pg.Querier, now time.Time) (live, expiring int64, err error) {
	err = q.QueryRow(ctx, `
		select count(*),
		       count(*) filter (where c.not_after - (c.not_after - c.created_at) / 4 < $1 and not exists (
		           select from certificates s
		           where s.account_id = c.account_id and s.first_id = c.first_id and s.renewed_from = c.id))
		from certificates c
		where c.not_after > $1 and c.revoked_at is null and c.certificate is not null`, now).Scan(&live, &expiring)
	if err != nil {
		return 0, 0, fmt.Errorf("counting live certificates: %w", err)
	}
	return live, expiring, nil
}

// writeUses moves last uses forward in time.
func writeUses(pool *pgxpool.Pool) lastuse.Write {
	return func(ctx context.Context, accounts, fingerprints []string, times []time.Time) error {
		_, err := pool.Exec(ctx, `
			with used as (
				select c.account_id, c.id, u.at
				from unnest($1::text[], $2::text[], $3::timestamptz[]) as u (account_id, fingerprint, at)
				join certificates c on c.account_id = u.account_id and c.fingerprint = u.fingerprint
				where c.last_used_at is null or c.last_used_at < u.at
				order by c.account_id, c.id
				for no key update of c
			)
			update certificates c
			set last_used_at = used.at
			from used
			where c.account_id = used.account_id and c.id = used.id`, accounts, fingerprints, times)
		if err != nil {
			return fmt.Errorf("writing last uses: %w", err)
		}
		return nil
	}
}
