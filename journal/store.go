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

type entry struct {
	account     sallyport.AccountID
	head        sallyport.Head // of this entry
	operationID string
	caller      string
	kind        string
	target      string
	requestHash []byte
	at          time.Time
	body        []byte
}

func (e entry) committed() Committed {
	return Committed{Account: e.account, OperationID: e.operationID, Type: e.kind, Target: e.target, Caller: e.caller, At: e.at.UTC(), Head: e.head}
}

const entryColumns = `account_id, epoch, revision, hash, operation_id, caller, type, target, request_hash, at, body`

func scanEntry(row pgx.CollectableRow) (entry, error) {
	var e entry
	var hash []byte
	err := row.Scan(&e.account, &e.head.Epoch, &e.head.Revision, &hash, &e.operationID, &e.caller, &e.kind, &e.target, &e.requestHash, &e.at, &e.body)
	copy(e.head.Hash[:], hash)
	return e, err
}

func insertHead(ctx context.Context, q pg.Querier, account sallyport.AccountID, at time.Time) error {
	_, err := q.Exec(ctx, `
		insert into heads (account_id, epoch, revision, hash, digest, changed_at)
		values ($1, 1, 0, $2, $2, $3)
		on conflict do nothing`, account, make([]byte, 32), at)
	if err != nil {
		return fmt.Errorf("beginning the account's journal: %w", err)
	}
	return nil
}

// lockHead is the first statement of every change. FOR NO KEY UPDATE: it does
// not hinder inserts of rows that refer to the head.
func lockHead(ctx context.Context, q pg.Querier, account sallyport.AccountID) (sallyport.Head, object.Digest, error) {
	var head sallyport.Head
	var digest object.Digest
	var hash, sum []byte
	err := q.QueryRow(ctx, `
		select epoch, revision, hash, digest
		from heads
		where account_id = $1
		for no key update`, account).Scan(&head.Epoch, &head.Revision, &hash, &sum)
	if errors.Is(err, pgx.ErrNoRows) {
		return head, digest, sallyport.NotFound.Errorf("there is no such account")
	}
	if err != nil {
		return head, digest, fmt.Errorf("locking the account's head: %w", err)
	}
	copy(head.Hash[:], hash)
	copy(digest[:], sum)
	return head, digest, nil
}

// moveHead takes changed_at from the database's clock at the statement, not at
// the transaction's begin, which was before the lock was had.
func moveHead(ctx context.Context, q pg.Querier, account sallyport.AccountID, head sallyport.Head, digest object.Digest) error {
	_, err := q.Exec(ctx, `
		update heads
		set epoch = $2, revision = $3, hash = $4, digest = $5, changed_at = clock_timestamp()
		where account_id = $1`, account, head.Epoch, head.Revision, head.Hash[:], digest[:])
	if err != nil {
		return fmt.Errorf("moving the account's head: %w", err)
	}
	return nil
}

func insertEntry(ctx context.Context, q pg.Querier, e entry) error {
	_, err := q.Exec(ctx, `
		insert into entries (`+entryColumns+`)
		values (@account, @epoch, @revision, @hash, @operation, @caller, @type, @target, @request, @at, @body)`,
		pgx.NamedArgs{"account": e.account, "epoch": e.head.Epoch, "revision": e.head.Revision, "hash": e.head.Hash[:],
			"operation": e.operationID, "caller": e.caller, "type": e.kind, "target": e.target,
			"request": e.requestHash, "at": e.at, "body": e.body})
	if err != nil {
		return fmt.Errorf("appending the entry: %w", err)
	}
	return nil
}

func operationOf(ctx context.Context, q pg.Querier, account sallyport.AccountID, id, caller string) (entry, bool, error) {
	rows, err := q.Query(ctx, `
		select `+entryColumns+`
		from entries
		where account_id = $1 and operation_id = $2 and caller = $3`, account, id, caller)
	if err != nil {
		return entry{}, false, fmt.Errorf("looking an operation up: %w", err)
	}
	e, err := pgx.CollectOneRow(rows, scanEntry)
	if errors.Is(err, pgx.ErrNoRows) {
		return entry{}, false, nil
	}
	if err != nil {
		return entry{}, false, fmt.Errorf("looking an operation up: %w", err)
	}
	return e, true, nil
}

func liveObject(ctx context.Context, q pg.Querier, account sallyport.AccountID, kind object.Kind, id string) (data []byte, exists bool, err error) {
	err = q.QueryRow(ctx, `
		select data
		from objects
		where account_id = $1 and kind = $2 and id = $3 and not deleted`, account, kind, id).Scan(&data)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("reading object %s %s: %w", kind, id, err)
	}
	return data, true, nil
}

func putObject(ctx context.Context, q pg.Querier, account sallyport.AccountID, revision int64, o object.Object) error {
	data := o.Data
	if o.Deleted {
		data = []byte{}
	}
	_, err := q.Exec(ctx, `
		insert into objects (account_id, kind, id, revision, deleted, data)
		values (@account, @kind, @id, @revision, @deleted, @data)
		on conflict (account_id, kind, id) do update
		set revision = excluded.revision, deleted = excluded.deleted, data = excluded.data`,
		pgx.NamedArgs{"account": account, "kind": o.Kind, "id": o.ID, "revision": revision, "deleted": o.Deleted, "data": data})
	if err != nil {
		return fmt.Errorf("putting object %s %s: %w", o.Kind, o.ID, err)
	}
	return nil
}

func readPersonKey(ctx context.Context, q pg.Querier, account sallyport.AccountID, person string) ([]byte, error) {
	var key []byte
	err := q.QueryRow(ctx, `
		select key
		from person_keys
		where account_id = $1 and person = $2`, account, person).Scan(&key)
	if err != nil {
		return nil, fmt.Errorf("reading a person's key: %w", err)
	}
	return key, nil
}

func insertPersonKey(ctx context.Context, q pg.Querier, account sallyport.AccountID, person string, key []byte) error {
	_, err := q.Exec(ctx, `
		insert into person_keys (account_id, person, key)
		values ($1, $2, $3)`, account, person, key)
	if err != nil {
		return fmt.Errorf("keeping a person's key: %w", err)
	}
	return nil
}

// blankRequests forgets the hashes of the requests whose entries have sealed
// fields of the person.
func blankRequests(ctx context.Context, q pg.Querier, account sallyport.AccountID, person string) error {
	_, err := q.Exec(ctx, `
		update entries
		set request_hash = ''
		where account_id = $1 and position('"person":"' || $2 || '"' in convert_from(body, 'UTF8')) > 0`, account, person)
	if err != nil {
		return fmt.Errorf("forgetting a person's requests: %w", err)
	}
	return nil
}

func deletePersonKey(ctx context.Context, q pg.Querier, account sallyport.AccountID, person string) error {
	_, err := q.Exec(ctx, `
		delete from person_keys
		where account_id = $1 and person = $2`, account, person)
	return err
}

func addDenials(ctx context.Context, q pg.Querier, counts map[denialKey]int64) error {
	for key, n := range counts {
		_, err := q.Exec(ctx, `
			insert into denials (account_id, minute, caller, type, reason, count)
			values (@account, @minute, @caller, @type, @reason, @count)
			on conflict (account_id, minute, caller, type, reason) do update
			set count = denials.count + excluded.count`,
			pgx.NamedArgs{"account": key.account, "minute": key.minute, "caller": key.caller, "type": key.kind, "reason": key.reason, "count": n})
		if err != nil {
			return err
		}
	}
	return nil
}

func denialsSince(ctx context.Context, q pg.Querier, account sallyport.AccountID, since time.Time, limit int) ([]Denial, error) {
	rows, err := q.Query(ctx, `
		select minute, caller, type, reason, count
		from denials
		where account_id = $1 and minute >= $2
		order by minute desc, caller, type, reason
		limit $3`, account, since, limit)
	if err != nil {
		return nil, fmt.Errorf("reading denials: %w", err)
	}
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Denial, error) {
		var d Denial
		err := row.Scan(&d.Minute, &d.Caller, &d.Type, &d.Reason, &d.Count)
		d.Minute = d.Minute.UTC()
		return d, err
	})
	if err != nil {
		return nil, fmt.Errorf("reading denials: %w", err)
	}
	return list, nil
}

func deleteDenialsBefore(ctx context.Context, q pg.Querier, before time.Time) error {
	_, err := q.Exec(ctx, `delete from denials where minute < $1`, before)
	return err
}

func notify(ctx context.Context, q pg.Querier) error {
	if _, err := q.Exec(ctx, `select pg_notify($1, '')`, Channel); err != nil {
		return fmt.Errorf("waking followers: %w", err)
	}
	return nil
}
