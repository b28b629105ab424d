package feed

import (
	"context"

	"github.com/jackc/pgx/v5/pgxpool"
)

// Prune is what runs every pruneEvery.
func Prune(ctx context.Context, pool *pgxpool.Pool) error { return prune(ctx, pool, keepFor) }

// Streams is how many authorizers follow.
func (s *Server) Streams() int { return len(s.hub.all()) }
