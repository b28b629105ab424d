package apikeys

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/internal/lastuse"
	"github.com/sallyport-iam/sallyport/internal/pg"
	"github.com/sallyport-iam/sallyport/journal"
)

// stored is a key with what proves it.
type stored struct {
	Key
	hash [32]byte // SHA-256 of the token
}

const keyColumns = `account_id, id, owner_kind, owner_id, display_name, description, hash, epoch, disabled, read_only,
	namespaces, sources, created_by, created_at, expires_at, modified_at, retires_at, successor, revision, last_used_at`

func scanKey(row pgx.CollectableRow) (stored, error) {
	var (
		s                           stored
		hash                        []byte
		sources                     []string
		modified, retires, lastUsed *time.Time
	)
	err := row.Scan(&s.Account, &s.ID, &s.Owner.Kind, &s.Owner.ID, &s.DisplayName, &s.Description, &hash, &s.Epoch, &s.Disabled, &s.Limits.ReadOnly,
		&s.Limits.Namespaces, &sources, &s.CreatedBy, &s.Created, &s.Expires, &modified, &retires, &s.Successor, &s.Revision, &lastUsed)
	if err != nil {
		return s, err
	}
	copy(s.hash[:], hash)
	for _, text := range sources {
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			return s, fmt.Errorf("reading API key %s: %w", s.ID, err)
		}
		s.Limits.Sources = append(s.Limits.Sources, prefix)
	}
	s.Created, s.Expires = s.Created.UTC(), s.Expires.UTC()
	s.Modified, s.Retires, s.LastUsed = orZero(modified), orZero(retires), orZero(lastUsed)
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

func find(ctx context.Context, q pg.Querier, account sallyport.AccountID, id string) (stored, error) {
	rows, err := q.Query(ctx, `
		select `+keyColumns+`
		from api_keys
		where account_id = $1 and id = $2`, account, id)
	if err != nil {
		return stored{}, fmt.Errorf("reading an API key: %w", err)
	}
	s, err := pgx.CollectOneRow(rows, scanKey)
	if errors.Is(err, pgx.ErrNoRows) {
		return stored{}, sallyport.NotFound.Errorf("there is no such API key in this account; it may have been deleted")
	}
	if err != nil {
		return stored{}, fmt.Errorf("reading an API key: %w", err)
	}
	return s, nil
}

func list(ctx context.Context, q pg.Querier, account sallyport.AccountID, f Filter, after string, limit int) ([]Key, error) {
	rows, err := q.Query(ctx, `
		select `+keyColumns+`
		from api_keys
		where account_id = $1
		  and (owner_id = $2 or $2 = '')
		  and (owner_kind = $3 or $3 = '')
		  and id > $4
		order by id
		limit $5`, account, f.Owner, f.OwnerKind, after, limit)
	if err != nil {
		return nil, fmt.Errorf("listing API keys: %w", err)
	}
	return collect(rows)
}

func collect(rows pgx.Rows) ([]Key, error) {
	keys, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (Key, error) {
		s, err := scanKey(row)
		return s.Key, err
	})
	if err != nil {
		return nil, fmt.Errorf("reading API keys: %w", err)
	}
	return keys, nil
}

func allStored(ctx context.Context, q pg.Querier, account sallyport.AccountID) ([]stored, error) {
	rows, err := q.Query(ctx, `
		select `+keyColumns+`
		from api_keys
		where account_id = $1
		order by id`, account)
	if err != nil {
		return nil, fmt.Errorf("reading API keys: %w", err)
	}
	all, err := pgx.CollectRows(rows, scanKey)
	if err != nil {
		return nil, fmt.Errorf("reading API keys: %w", err)
	}
	return all, nil
}

// counts are of an owner's keys.
type counts struct {
	good     int // neither rotated, expired nor ended
	retiring int // rotated, and still good
	today    int // made within 24 hours, whatever has become of them
}

func countKeys(ctx context.Context, q pg.Querier, account sallyport.AccountID, owner string, epoch int64, now time.Time) (counts, error) {
	var n counts
	err := q.QueryRow(ctx, `
		select count(*) filter (where epoch = $3 and expires_at > $4 and retires_at is null),
		       count(*) filter (where epoch = $3 and expires_at > $4 and retires_at > $4),
		       count(*) filter (where created_at > $5)
		from api_keys
		where account_id = $1 and owner_id = $2`, account, owner, epoch, now, now.Add(-24*time.Hour)).Scan(&n.good, &n.retiring, &n.today)
	if err != nil {
		return counts{}, fmt.Errorf("counting API keys: %w", err)
	}
	return n, nil
}

// accountsToReap names the accounts that have keys that ended before.
func accountsToReap(ctx context.Context, q pg.Querier, before time.Time) ([]sallyport.AccountID, error) {
	rows, err := q.Query(ctx, `
		select distinct account_id
		from api_keys
		where least(expires_at, retires_at) < $1
		order by account_id`, before)
	if err != nil {
		return nil, fmt.Errorf("finding accounts with ended API keys: %w", err)
	}
	accounts, err := pgx.CollectRows(rows, pgx.RowTo[sallyport.AccountID])
	if err != nil {
		return nil, fmt.Errorf("finding accounts with ended API keys: %w", err)
	}
	return accounts, nil
}

// endedKeys reads keys of the account that ended before, and locks their rows
// in the order in which writeUses does.
func endedKeys(ctx context.Context, q pg.Querier, account sallyport.AccountID, before time.Time, limit int) ([]Key, error) {
	rows, err := q.Query(ctx, `
		select `+keyColumns+`
		from api_keys
		where account_id = $1 and least(expires_at, retires_at) < $2
		order by id
		limit $3
		for update`, account, before, limit)
	if err != nil {
		return nil, fmt.Errorf("reading ended API keys: %w", err)
	}
	return collect(rows)
}

func insert(ctx context.Context, q pg.Querier, s stored) error {
	var sources []string
	for _, p := range s.Limits.Sources {
		sources = append(sources, p.String())
	}
	_, err := q.Exec(ctx, `
		insert into api_keys (`+keyColumns+`)
		values (@account, @id, @owner_kind, @owner_id, @display_name, @description, @hash, @epoch, @disabled, @read_only,
			@namespaces, @sources, @created_by, @created, @expires, null, null, '', @revision, null)`,
		pgx.NamedArgs{
			"account": s.Account, "id": s.ID, "owner_kind": s.Owner.Kind, "owner_id": s.Owner.ID,
			"display_name": s.DisplayName, "description": s.Description, "hash": s.hash[:], "epoch": s.Epoch,
			"disabled": s.Disabled, "read_only": s.Limits.ReadOnly, "namespaces": s.Limits.Namespaces, "sources": sources,
			"created_by": s.CreatedBy, "created": s.Created, "expires": s.Expires, "revision": s.Revision,
		})
	if err != nil {
		return fmt.Errorf("inserting API key %s: %w", s.ID, err)
	}
	return nil
}

// change is what a key's row becomes.
type change struct {
	id          string
	displayName string
	description string
	disabled    bool
	retires     time.Time
	successor   string
}

func update(ctx context.Context, tx *journal.Tx, c change) (stored, error) {
	rows, err := tx.Query(ctx, `
		update api_keys
		set display_name = @display_name, description = @description, disabled = @disabled,
			retires_at = @retires, successor = @successor, modified_at = @now, revision = @revision
		where account_id = @account and id = @id
		returning `+keyColumns,
		pgx.NamedArgs{
			"account": tx.Account(), "id": c.id, "display_name": c.displayName, "description": c.description, "disabled": c.disabled,
			"retires": orNull(c.retires), "successor": c.successor, "now": tx.Now(), "revision": tx.Revision(),
		})
	if err != nil {
		return stored{}, fmt.Errorf("updating API key %s: %w", c.id, err)
	}
	s, err := pgx.CollectExactlyOneRow(rows, scanKey)
	if err != nil {
		return stored{}, fmt.Errorf("updating API key %s: %w", c.id, err)
	}
	return s, nil
}

func remove(ctx context.Context, q pg.Querier, account sallyport.AccountID, id string) error {
	_, err := q.Exec(ctx, `
		delete from api_keys
		where account_id = $1 and id = $2`, account, id)
	if err != nil {
		return fmt.Errorf("deleting API key %s: %w", id, err)
	}
	return nil
}

// removeOwned locks the rows in the order in which writeUses does, so that the
// two cannot wait for each other.
func removeOwned(ctx context.Context, q pg.Querier, account sallyport.AccountID, owner string) ([]Key, error) {
	_, err := q.Exec(ctx, `
		select from api_keys
		where account_id = $1 and owner_id = $2
		order by id
		for update`, account, owner)
	if err != nil {
		return nil, fmt.Errorf("locking the API keys of %s: %w", owner, err)
	}
	rows, err := q.Query(ctx, `
		delete from api_keys
		where account_id = $1 and owner_id = $2
		returning `+keyColumns, account, owner)
	if err != nil {
		return nil, fmt.Errorf("deleting the API keys of %s: %w", owner, err)
	}
	keys, err := collect(rows)
	slices.SortFunc(keys, func(a, b Key) int { return strings.Compare(a.ID, b.ID) })
	return keys, err
}

// writeUses moves last uses forward in time.
func writeUses(pool *pgxpool.Pool) lastuse.Write {
	return func(ctx context.Context, accounts, ids []string, times []time.Time) error {
		_, err := pool.Exec(ctx, `
			with used as (
				select k.account_id, k.id, u.at
				from unnest($1::text[], $2::text[], $3::timestamptz[]) as u (account_id, id, at)
				join api_keys k on k.account_id = u.account_id and k.id = u.id
				where k.last_used_at is null or k.last_used_at < u.at
				order by k.account_id, k.id
				for no key update of k
			)
			update api_keys k
			set last_used_at = used.at
			from used
			where k.account_id = used.account_id and k.id = used.id`, accounts, ids, times)
		if err != nil {
			return fmt.Errorf("writing last uses: %w", err)
		}
		return nil
	}
}
