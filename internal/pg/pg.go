// Package pg opens, migrates and asks the PostgreSQL database. It knows no
// tables but the migrations' own.
package pg

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sallyport-iam/sallyport"
)

// Querier is what a pool, a connection and a transaction have in common.
type Querier interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// Open makes a pool of connections and checks that the database answers.
// Sessions are in UTC. Notices that PostgreSQL sends with a commit are kept
// for Commit.
func Open(ctx context.Context, url string) (*pgxpool.Pool, error) {
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("reading the database URL: %w", err)
	}
	config.ConnConfig.RuntimeParams["timezone"] = "UTC"
	if config.ConnConfig.RuntimeParams["application_name"] == "" {
		config.ConnConfig.RuntimeParams["application_name"] = "sallyport"
	}
	config.ConnConfig.OnNotice = func(conn *pgconn.PgConn, n *pgconn.Notice) {
		if slot, ok := conn.CustomData()[noticeKey].(*atomic.Pointer[string]); ok && n.Code == sqlstateWarning {
			slot.Store(&n.Message)
		}
	}
	if config.MaxConns < 16 {
		config.MaxConns = 16
	}
	config.MaxConnIdleTime = 5 * time.Minute
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("opening the database: %w", err)
	}
	if err := pool.Ping(ctx); err != nil {
		pool.Close()
		return nil, &sallyport.Error{Kind: sallyport.Unavailable, Msg: "the database does not answer; check its URL and that it runs", Err: err}
	}
	return pool, nil
}

const (
	sqlstateWarning = "01000"
	noticeKey       = "sallyport.notice"
)

// Commit commits tx. It answers Unavailable when PostgreSQL warned that the
// commit "might not have been replicated": it then stands on this server and
// may be lost by a fail-over, so nobody may be told that it is done.
func Commit(ctx context.Context, tx pgx.Tx) error {
	// Once a pool's transaction is committed, its connection is another's: the
	// notice is read from a slot of this commit's own.
	slot := new(atomic.Pointer[string])
	tx.Conn().PgConn().CustomData()[noticeKey] = slot
	if err := tx.Commit(ctx); err != nil {
		return err
	}
	if notice := slot.Load(); notice != nil {
		return &sallyport.Error{Kind: sallyport.Unavailable, Msg: "the change is not yet replicated; ask again with the same operation id", Err: errors.New(*notice)}
	}
	return nil
}

// Retryable reports whether the transaction was rolled back by PostgreSQL for
// the sake of others (serialization failure, deadlock) and may run again.
func Retryable(err error) bool {
	var e *pgconn.PgError
	return errors.As(err, &e) && (e.Code == "40001" || e.Code == "40P01")
}

// Violates names the unique or check constraint that err says was violated, "" if none.
func Violates(err error) string {
	var e *pgconn.PgError
	if errors.As(err, &e) && (e.Code == "23505" || e.Code == "23514" || e.Code == "23503") {
		return e.ConstraintName
	}
	return ""
}

// Snapshot runs read in a read-only REPEATABLE READ transaction: all its
// queries see one moment. Keep it short.
func Snapshot(ctx context.Context, pool *pgxpool.Pool, read func(pgx.Tx) error) error {
	return pgx.BeginTxFunc(ctx, pool, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, read)
}
