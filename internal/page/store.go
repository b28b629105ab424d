package page

import (
	"context"
	"fmt"

	"github.com/sallyport-iam/sallyport/internal/pg"
)

// keepKey keeps the key if there is none yet, and gives the one that is kept.
func keepKey(ctx context.Context, q pg.Querier, key []byte) ([]byte, error) {
	_, err := q.Exec(ctx, `
		insert into page_keys (id, key)
		values (1, $1)
		on conflict do nothing`, key)
	if err != nil {
		return nil, fmt.Errorf("making the key of page tokens: %w", err)
	}
	if err := q.QueryRow(ctx, `select key from page_keys where id = 1`).Scan(&key); err != nil {
		return nil, fmt.Errorf("reading the key of page tokens: %w", err)
	}
	return key, nil
}
