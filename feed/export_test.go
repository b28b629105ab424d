package feed

import (
	"context"

	"github.com/jackc/pgx/v5/pgxpool"
)

// Prune is what runs every pruneEvery.
func Prune(ctx context.Context, pool *pgxpool.Pool) error { return prune(ctx, pool, keepFor) }
