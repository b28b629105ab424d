package journal

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/internal/pg"
)

func readHead(ctx context.Context, q pg.Querier, account sallyport.AccountID) (sallyport.Head, object.Digest, error) {
	var head sallyport.Head
	var digest object.Digest
	var hash, sum []byte
	err := q.QueryRow(ctx, `
		select epoch, revision, hash, digest
		from heads
		where account_id = $1`, account).Scan(&head.Epoch, &head.Revision, &hash, &sum)
	if errors.Is(err, pgx.ErrNoRows) {
		return head, digest, sallyport.NotFound.Errorf("there is no such account")
	}
	if err != nil {
		return head, digest, fmt.Errorf("reading the account's head: %w", err)
	}
	copy(head.Hash[:], hash)
	copy(digest[:], sum)
	return head, digest, nil
}

// headsSince takes the time in a statement before the read, so that every
// change that was committed before it is seen.
func headsSince(ctx context.Context, q pg.Querier, since time.Time) ([]AccountHead, time.Time, error) {
	var at time.Time
	if err := q.QueryRow(ctx, `select clock_timestamp()`).Scan(&at); err != nil {
		return nil, at, fmt.Errorf("reading the database's time: %w", err)
	}
	query, args := `select account_id, epoch, revision, hash from heads`, []any{}
	if !since.IsZero() {
		query, args = query+` where changed_at >= $1`, append(args, since)
	}
	rows, err := q.Query(ctx, query, args...)
	if err != nil {
		return nil, at, fmt.Errorf("reading heads: %w", err)
	}
	heads, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (AccountHead, error) {
		var h AccountHead
		var hash []byte
		err := row.Scan(&h.Account, &h.Head.Epoch, &h.Head.Revision, &hash)
		copy(h.Head.Hash[:], hash)
		return h, err
	})
	if err != nil {
		return nil, at, fmt.Errorf("reading heads: %w", err)
	}
	return heads, at.UTC(), nil
}

func headAt(ctx context.Context, q pg.Querier, account sallyport.AccountID, revision int64) (sallyport.Head, error) {
	var head sallyport.Head
	var hash []byte
	err := q.QueryRow(ctx, `
		select epoch, revision, hash
		from entries
		where account_id = $1 and revision = $2`, account, revision).Scan(&head.Epoch, &head.Revision, &hash)
	if errors.Is(err, pgx.ErrNoRows) {
		return sallyport.Head{}, nil
	}
	if err != nil {
		return head, fmt.Errorf("reading an earlier head: %w", err)
	}
	copy(head.Hash[:], hash)
	return head, nil
}

func scanObject(row pgx.CollectableRow) (object.Object, error) {
	var o object.Object
	err := row.Scan(&o.Kind, &o.ID, &o.Deleted, &o.Data)
	return o, err
}

func liveObjects(ctx context.Context, q pg.Querier, account sallyport.AccountID) ([]object.Object, error) {
	rows, err := q.Query(ctx, `
		select kind, id, deleted, data
		from objects
		where account_id = $1 and not deleted
		order by kind collate "C", id collate "C"`, account)
	if err != nil {
		return nil, fmt.Errorf("reading objects: %w", err)
	}
	objects, err := pgx.CollectRows(rows, scanObject)
	if err != nil {
		return nil, fmt.Errorf("reading objects: %w", err)
	}
	return objects, nil
}

func objectsSince(ctx context.Context, q pg.Querier, account sallyport.AccountID, revision int64) ([]object.Object, error) {
	rows, err := q.Query(ctx, `
		select kind, id, deleted, data
		from objects
		where account_id = $1 and revision > $2
		order by kind collate "C", id collate "C"`, account, revision)
	if err != nil {
		return nil, fmt.Errorf("reading changed objects: %w", err)
	}
	objects, err := pgx.CollectRows(rows, scanObject)
	if err != nil {
		return nil, fmt.Errorf("reading changed objects: %w", err)
	}
	return objects, nil
}

func newestOperation(ctx context.Context, q pg.Querier, account sallyport.AccountID, id string) (entry, error) {
	rows, err := q.Query(ctx, `
		select `+entryColumns+`
		from entries
		where account_id = $1 and operation_id = $2
		order by revision desc
		limit 1`, account, id)
	if err != nil {
		return entry{}, err
	}
	return pgx.CollectOneRow(rows, scanEntry)
}

func entriesAfter(ctx context.Context, q pg.Querier, account sallyport.AccountID, after int64, limit int) ([]entry, error) {
	rows, err := q.Query(ctx, `
		select `+entryColumns+`
		from entries
		where account_id = $1 and revision > $2
		order by revision
		limit $3`, account, after, limit)
	if err != nil {
		return nil, fmt.Errorf("reading entries: %w", err)
	}
	entries, err := pgx.CollectRows(rows, scanEntry)
	if err != nil {
		return nil, fmt.Errorf("reading entries: %w", err)
	}
	return entries, nil
}
