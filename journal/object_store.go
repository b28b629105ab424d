package journal

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz/object"
	"github.com/sallyport-iam/sallyport/internal/pg"
)

// ReadObjects reads the account's live objects of a kind, by id: those of the
// ids, or with nil all of them.
func ReadObjects(ctx context.Context, q pg.Querier, account sallyport.AccountID, kind object.Kind, ids []string) ([]object.Object, error) {
	rows, err := q.Query(ctx, `
		select kind, id, deleted, data
		from objects
		where account_id = $1 and kind = $2 and ($3::text[] is null or id = any($3)) and not deleted
		order by id collate "C"`, account, kind, ids)
	if err != nil {
		return nil, fmt.Errorf("reading objects of kind %s: %w", kind, err)
	}
	objects, err := pgx.CollectRows(rows, scanObject)
	if err != nil {
		return nil, fmt.Errorf("reading objects of kind %s: %w", kind, err)
	}
	return objects, nil
}
