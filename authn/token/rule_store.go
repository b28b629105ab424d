package token

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
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

// storedCondition is a Condition in the database and in the audit record.
type storedCondition struct {
	Claim    string   `json:"claim"`
	Equals   []any    `json:"equals,omitempty"`
	Prefixes []string `json:"prefixes,omitempty"`
}

func storedConditions(list []Condition) []storedCondition {
	stored := make([]storedCondition, 0, len(list))
	for _, c := range list {
		stored = append(stored, storedCondition(c))
	}
	return stored
}

const ruleColumns = `account_id, id, service_account_id, description, issuer, jwks, conditions, algorithms, max_age_seconds, enabled,
	version, created_by, created_at, modified_at, revision, last_used_at`

func scanRule(row pgx.CollectableRow) (Rule, error) {
	var (
		r                  Rule
		conditions         []byte
		maxAge             int64
		modified, lastUsed *time.Time
	)
	err := row.Scan(&r.Account, &r.ID, &r.ServiceAccount, &r.Description, &r.Issuer, &r.JWKS, &conditions, &r.Algorithms, &maxAge, &r.Enabled,
		&r.Version, &r.CreatedBy, &r.Created, &modified, &r.Revision, &lastUsed)
	if err != nil {
		return r, err
	}
	var stored []storedCondition
	d := json.NewDecoder(bytes.NewReader(conditions))
	d.UseNumber()
	if err := d.Decode(&stored); err != nil {
		return r, fmt.Errorf("reading federation rule %s: %w", r.ID, err)
	}
	for _, c := range stored {
		r.Conditions = append(r.Conditions, Condition(c))
	}
	r.MaxAge = time.Duration(maxAge) * time.Second
	r.Created, r.Modified, r.LastUsed = r.Created.UTC(), orZero(modified), orZero(lastUsed)
	r.Warnings = r.warnings()
	return r, nil
}

func collectRules(rows pgx.Rows) ([]Rule, error) {
	rules, err := pgx.CollectRows(rows, scanRule)
	if err != nil {
		return nil, fmt.Errorf("reading federation rules: %w", err)
	}
	return rules, nil
}

func findRule(ctx context.Context, q pg.Querier, account sallyport.AccountID, id string) (Rule, error) {
	rows, err := q.Query(ctx, `
		select `+ruleColumns+`
		from federation_rules
		where account_id = $1 and id = $2`, account, id)
	if err != nil {
		return Rule{}, fmt.Errorf("reading a federation rule: %w", err)
	}
	rule, err := pgx.CollectOneRow(rows, scanRule)
	if errors.Is(err, pgx.ErrNoRows) {
		return Rule{}, sallyport.NotFound.Errorf("there is no such federation rule in this account; it may have been deleted")
	}
	if err != nil {
		return Rule{}, fmt.Errorf("reading a federation rule: %w", err)
	}
	return rule, nil
}

// listRules reads rules of one service account, or of all ("").
func listRules(ctx context.Context, q pg.Querier, account sallyport.AccountID, serviceAccount, after string, limit int) ([]Rule, error) {
	rows, err := q.Query(ctx, `
		select `+ruleColumns+`
		from federation_rules
		where account_id = $1
		  and (service_account_id = $2 or $2 = '')
		  and id > $3
		order by id
		limit $4`, account, serviceAccount, after, limit)
	if err != nil {
		return nil, fmt.Errorf("listing federation rules: %w", err)
	}
	return collectRules(rows)
}

func allRules(ctx context.Context, q pg.Querier, account sallyport.AccountID) ([]Rule, error) {
	rows, err := q.Query(ctx, `
		select `+ruleColumns+`
		from federation_rules
		where account_id = $1
		order by id`, account)
	if err != nil {
		return nil, fmt.Errorf("reading federation rules: %w", err)
	}
	return collectRules(rows)
}

func countRules(ctx context.Context, q pg.Querier, account sallyport.AccountID, serviceAccount string) (n int, err error) {
	err = q.QueryRow(ctx, `
		select count(*)
		from federation_rules
		where account_id = $1 and service_account_id = $2`, account, serviceAccount).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("counting federation rules: %w", err)
	}
	return n, nil
}

func insertRule(ctx context.Context, tx *journal.Tx, r Rule) error {
	conditions, err := json.Marshal(storedConditions(r.Conditions))
	if err != nil {
		return fmt.Errorf("encoding federation rule %s: %w", r.ID, err)
	}
	_, err = tx.Exec(ctx, `
		insert into federation_rules (`+ruleColumns+`)
		values (@account, @id, @service_account, @description, @issuer, @jwks, @conditions, @algorithms, @max_age, @enabled,
			@version, @created_by, @created, null, @revision, null)`,
		pgx.NamedArgs{
			"account": r.Account, "id": r.ID, "service_account": r.ServiceAccount, "description": r.Description, "issuer": r.Issuer,
			"jwks": r.JWKS, "conditions": conditions, "algorithms": r.Algorithms, "max_age": int64(r.MaxAge / time.Second), "enabled": r.Enabled,
			"version": r.Version, "created_by": r.CreatedBy, "created": r.Created, "revision": r.Revision,
		})
	if err != nil {
		return fmt.Errorf("inserting federation rule %s: %w", r.ID, err)
	}
	return nil
}

func updateRule(ctx context.Context, tx *journal.Tx, r Rule) error {
	conditions, err := json.Marshal(storedConditions(r.Conditions))
	if err != nil {
		return fmt.Errorf("encoding federation rule %s: %w", r.ID, err)
	}
	_, err = tx.Exec(ctx, `
		update federation_rules
		set description = @description, issuer = @issuer, jwks = @jwks, conditions = @conditions, algorithms = @algorithms,
			max_age_seconds = @max_age, enabled = @enabled, version = @version, modified_at = @modified, revision = @revision
		where account_id = @account and id = @id`,
		pgx.NamedArgs{
			"account": tx.Account(), "id": r.ID, "description": r.Description, "issuer": r.Issuer, "jwks": r.JWKS, "conditions": conditions,
			"algorithms": r.Algorithms, "max_age": int64(r.MaxAge / time.Second), "enabled": r.Enabled, "version": r.Version,
			"modified": r.Modified, "revision": r.Revision,
		})
	if err != nil {
		return fmt.Errorf("updating federation rule %s: %w", r.ID, err)
	}
	return nil
}

func deleteRule(ctx context.Context, tx *journal.Tx, id string) error {
	_, err := tx.Exec(ctx, `
		delete from federation_rules
		where account_id = $1 and id = $2`, tx.Account(), id)
	if err != nil {
		return fmt.Errorf("deleting federation rule %s: %w", id, err)
	}
	return nil
}

// removeRulesOf locks the rows in the order in which writeUses does, so that the
// two cannot wait for each other.
func removeRulesOf(ctx context.Context, tx *journal.Tx, serviceAccount string) ([]Rule, error) {
	_, err := tx.Exec(ctx, `
		select from federation_rules
		where account_id = $1 and service_account_id = $2
		order by id
		for update`, tx.Account(), serviceAccount)
	if err != nil {
		return nil, fmt.Errorf("locking the federation rules of %s: %w", serviceAccount, err)
	}
	rows, err := tx.Query(ctx, `
		delete from federation_rules
		where account_id = $1 and service_account_id = $2
		returning `+ruleColumns, tx.Account(), serviceAccount)
	if err != nil {
		return nil, fmt.Errorf("deleting the federation rules of %s: %w", serviceAccount, err)
	}
	rules, err := collectRules(rows)
	slices.SortFunc(rules, func(a, b Rule) int { return strings.Compare(a.ID, b.ID) })
	return rules, err
}

// writeUses moves last uses forward in time.
func writeUses(pool *pgxpool.Pool) lastuse.Write {
	return func(ctx context.Context, accounts, ids []string, times []time.Time) error {
		_, err := pool.Exec(ctx, `
			with used as (
				select r.account_id, r.id, u.at
				from unnest($1::text[], $2::text[], $3::timestamptz[]) as u (account_id, id, at)
				join federation_rules r on r.account_id = u.account_id and r.id = u.id
				where r.last_used_at is null or r.last_used_at < u.at
				order by r.account_id, r.id
				for no key update of r
			)
			update federation_rules r
			set last_used_at = used.at
			from used
			where r.account_id = used.account_id and r.id = used.id`, accounts, ids, times)
		if err != nil {
			return fmt.Errorf("writing last uses: %w", err)
		}
		return nil
	}
}
