package token

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/internal/pg"
	"github.com/sallyport-iam/sallyport/journal"
)

// keyRow is a signing key as it is kept.
type keyRow struct {
	SigningKey
	public   []byte // DER of the SubjectPublicKeyInfo
	sealed   []byte // nil: it signs no more
	revision int64
}

const keyColumns = `id, public_key, sealed_key, issuer, audiences, state, created_at, activated_at, retired_at, revoked_at, revision`

func scanKey(row pgx.CollectableRow) (keyRow, error) {
	var (
		r                           keyRow
		activated, retired, revoked *time.Time
	)
	err := row.Scan(&r.ID, &r.public, &r.sealed, &r.Issuer, &r.Audiences, &r.State, &r.Created, &activated, &retired, &revoked, &r.revision)
	r.Created = r.Created.UTC()
	r.Activated, r.Retired, r.Revoked = orZero(activated), orZero(retired), orZero(revoked)
	return r, err
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

// tokenKeys reads all signing keys, the newest first.
func tokenKeys(ctx context.Context, q pg.Querier) ([]keyRow, error) {
	rows, err := q.Query(ctx, `
		select `+keyColumns+`
		from token_keys
		order by created_at desc, id`)
	if err != nil {
		return nil, fmt.Errorf("reading token keys: %w", err)
	}
	keys, err := pgx.CollectRows(rows, scanKey)
	if err != nil {
		return nil, fmt.Errorf("reading token keys: %w", err)
	}
	return keys, nil
}

// findKey reads a signing key that is not revoked; NotFound if there is none.
func findKey(ctx context.Context, q pg.Querier, id string) (keyRow, error) {
	rows, err := q.Query(ctx, `
		select `+keyColumns+`
		from token_keys
		where id = $1 and state <> 'revoked'`, id)
	if err != nil {
		return keyRow{}, fmt.Errorf("reading a token key: %w", err)
	}
	key, err := pgx.CollectExactlyOneRow(rows, scanKey)
	if errors.Is(err, pgx.ErrNoRows) {
		return keyRow{}, sallyport.NotFound.Errorf("there is no such token key")
	}
	if err != nil {
		return keyRow{}, fmt.Errorf("reading a token key: %w", err)
	}
	return key, nil
}

func upsertKey(ctx context.Context, tx *journal.Tx, r keyRow) error {
	_, err := tx.Exec(ctx, `
		insert into token_keys (`+keyColumns+`)
		values (@id, @public, @sealed, @issuer, @audiences, @state, @created, @activated, @retired, @revoked, @revision)
		on conflict (id) do update
		set sealed_key = @sealed, issuer = @issuer, audiences = @audiences, state = @state, activated_at = @activated,
			retired_at = @retired, revoked_at = @revoked, revision = @revision`,
		pgx.NamedArgs{"id": r.ID, "public": r.public, "sealed": r.sealed, "issuer": r.Issuer, "audiences": r.Audiences, "state": r.State,
			"created": r.Created, "activated": orNull(r.Activated), "retired": orNull(r.Retired), "revoked": orNull(r.Revoked), "revision": r.revision})
	if err != nil {
		return fmt.Errorf("keeping the token key %s: %w", r.ID, err)
	}
	return nil
}

func deleteKey(ctx context.Context, tx *journal.Tx, id string) error {
	_, err := tx.Exec(ctx, `
		delete from token_keys
		where id = $1`, id)
	if err != nil {
		return fmt.Errorf("forgetting the token key %s: %w", id, err)
	}
	return nil
}
